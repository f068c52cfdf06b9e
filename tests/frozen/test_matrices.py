"""Products in bfloat16 by the processor's matrices in frozen programs: against the oracle, and whole networks, live too."""

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import single_programs as single
import tapwise as tw
from against_the_oracle import expected, tensor
from frozen_networks import assert_same, small
from marks import needs_matrices, slow_after
from tapwise.engine.kernels import amx, native
from tapwise.engine.kernels.program import record
from tapwise.frozen import matrices
from tapwise.frozen.network import difference_of
from tapwise.geometry import Geometry

HALF = torch.bfloat16


@pytest.fixture
def always(monkeypatch):
    """Matrices wherever they can be, whether they help or not."""
    monkeypatch.setattr(matrices, "_FEWEST_INPUTS", 1)
    monkeypatch.setattr(matrices, "_FEWEST_COLUMNS", 1)


def by_torch(geometry, x, w, b):
    """In float64, where the oracle would take too long."""
    return native.run(geometry, x.double(), w.double(), None if b is None else b.double()).numpy()


def check(geometry, x, w, b=None, expected=by_torch):
    """A program against the products of rounded numbers: what is left is the rounding of sums."""
    graph = single.graph_of(geometry, x, w, b)
    codes = [step.code for group in single.program_of(graph, x, HALF).plan.groups for step in group.steps]
    assert record.MATRICES in codes or record.MATRICES_TRANSPOSED in codes
    y = single.run(geometry, x, w, b, HALF)
    rounded = x.to(HALF).float(), w.to(HALF).float()
    truth = expected(geometry, *rounded, b)
    size = expected(geometry, *(n.abs() for n in rounded), None if b is None else b.abs())
    assert y.shape == truth.shape
    error = abs(y.double().numpy() - truth)
    assert (error <= 1e-30 + 4 * torch.finfo(torch.float32).eps * size).all(), f"{error.max()}"


@needs_matrices
@given(
    st.integers(1, 12), st.sampled_from([1, 1, 2, 3]), st.integers(1, 5), st.integers(0, 9), st.integers(0, 9),
    st.integers(1, 70), st.integers(3, 70), st.integers(1, 400), st.sampled_from([1, 2, 5]), st.booleans(),
)  # fmt: skip
@pytest.mark.usefixtures("always")
def test_any_geometry(kernel_size, stride, dilation, left, right, inputs, columns, outputs, batch, bias):
    geometry = Geometry(kernel_size, stride, dilation, (left, right))
    dice = np.random.default_rng(outputs)
    x = tensor(dice, batch, inputs, max(geometry.input_length(outputs), 1), dtype=torch.float32)
    w = tensor(dice, columns, inputs, kernel_size, dtype=torch.float32)
    check(geometry, x, w, tensor(dice, columns, dtype=torch.float32) if bias else None, expected)


@needs_matrices
@given(
    st.integers(1, 12), st.integers(1, 7), st.integers(0, 4), st.integers(0, 4), st.integers(1, 70),
    st.integers(16, 70), st.integers(1, 120), st.sampled_from([1, 3]), st.booleans(), st.integers(0, 6),
)  # fmt: skip
@pytest.mark.usefixtures("always")
def test_any_transposed_geometry(kernel_size, stride, left, right, inputs, columns, length, batch, bias, more):
    geometry = Geometry(
        kernel_size, stride, padding=(left, right), transposed=True, output_padding=min(more, stride - 1)
    )
    if geometry.output_length(length) < 1:
        return
    dice = np.random.default_rng(length)
    x = tensor(dice, batch, inputs, length, dtype=torch.float32)
    w = tensor(dice, inputs, columns, kernel_size, dtype=torch.float32)
    is_small = length * inputs * columns * kernel_size * batch < 30_000
    b = tensor(dice, columns, dtype=torch.float32) if bias else None
    check(geometry, x, w, b, expected if is_small else by_torch)


@needs_matrices
@pytest.mark.parametrize("inputs", slow_after(3, [16, 33, 130, 32, 64, 600]))
def test_rows_around_blocks_and_columns_around_shares(inputs):
    dice = np.random.default_rng(inputs)
    for columns in (16, 33, 64, 130, 200):
        for outputs in (1, 2, 15, 16, 17, 31, 33, 128, 129, 257):
            for geometry in (Geometry(1), Geometry(3, dilation=2, padding=2), Geometry(4, 2)):
                x = tensor(dice, 2, inputs, max(geometry.input_length(outputs), 1), dtype=torch.float32)
                check(geometry, x, tensor(dice, columns, inputs, geometry.kernel_size, dtype=torch.float32))
            geometry = Geometry(8, 4, padding=2, transposed=True)
            x = tensor(dice, 2, inputs, outputs // 4 + 2, dtype=torch.float32)
            check(geometry, x, tensor(dice, inputs, columns, 8, dtype=torch.float32))


@needs_matrices
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38])
@pytest.mark.parametrize(
    "geometry", [Geometry(3, padding=1), Geometry(5, 2, 3, 4), Geometry(8, 4, 1, 2, transposed=True)]
)
def test_what_is_not_finite_reaches_its_windows_alone(value, geometry):
    dice = np.random.default_rng(0)
    x = tensor(dice, 2, 34, 300, dtype=torch.float32)
    w = tensor(dice, 34, 34, geometry.kernel_size, dtype=torch.float32)
    before = single.run(geometry, x, w, dtype=HALF)
    for position in (0, 1, 150, 299):
        z = x.clone()
        z[1, 33, position] = value
        y, direct = single.run(geometry, z, w, dtype=HALF), single.run(geometry, z, w)
        assert torch.equal(y.isnan(), direct.isnan())
        assert torch.equal(y[0], before[0])
        same = single.run(geometry, x, w) == direct
        assert torch.equal(y[same], before[same])


@needs_matrices
@pytest.mark.parametrize(("dilation", "stride"), [(40, 1), (300, 1), (90, 2)])
def test_taps_far_apart_read_their_own_rows_alone(dilation, stride):
    dice = np.random.default_rng(0)
    geometry = Geometry(3, stride, dilation, (2 * dilation, 0))
    for outputs in (1, 5, 31, 200, 700):
        x = tensor(dice, 2, 40, max(geometry.input_length(outputs), 1), dtype=torch.float32)
        check(geometry, x, tensor(dice, 33, 40, 3, dtype=torch.float32))


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(6, 40, 7, padding=3), nn.BatchNorm1d(40), nn.ELU(), nn.Conv1d(40, 64, 4, 2, 1), nn.GELU(),
        nn.Conv1d(64, 64, 3, padding=4, dilation=4), nn.Tanh(), nn.ConvTranspose1d(64, 48, 4, 2, 1), nn.LeakyReLU(0.1),
        nn.Conv1d(48, 48, 5, padding=2, groups=48), nn.Conv1d(48, 2, 7, padding=3),
    ).eval()  # fmt: skip


@needs_matrices
def test_networks_and_their_streams():
    model, x = network().requires_grad_(False), torch.randn(3, 6, 1500)
    frozen = tw.freeze(model, torch.randn(1, 6, 300), dtype=HALF)
    y = frozen(x)
    assert y.dtype == torch.float32
    assert 1e-5 < difference_of(model(x), y) < 0.02
    assert torch.equal(frozen(x[1:2]), y[1:2])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1 if before > 1 else 2)
        assert torch.equal(frozen(x), y)
    finally:
        torch.set_num_threads(before)
    live = tw.stream(frozen)
    parts = [live.step(chunk) for chunk in x.split([2, 200, 2, 18, 1278], -1)]
    assert torch.equal(torch.cat([*parts, live.flush()], -1), y)
    for other in (copy.deepcopy(frozen), pickle.loads(pickle.dumps(frozen))):
        assert torch.equal(other(x), y)
    with tw.options(dtype=HALF):
        assert torch.equal(tw.freeze(model, torch.randn(1, 6, 300))(x), y)
    assert not torch.equal(tw.freeze(model, torch.randn(1, 6, 300))(x), y)
    with tw.options(exact=True):  # sums of products, all the same
        assert torch.equal(tw.freeze(model, torch.randn(1, 6, 300), dtype=HALF)(x), y)
    model.dtype = torch.float32  # as some models have it
    assert tw.freeze(model, torch.randn(1, 6, 300), dtype=HALF).dtype == torch.float32


@needs_matrices
def test_a_deep_network_is_streamed_too():
    torch.manual_seed(0)
    layers = [nn.Conv1d(8, 32, 3)]
    for n in range(16):  # rounding that grows beyond what float32 is allowed
        layers += [nn.ReLU(), nn.Conv1d(32, 32, 3, dilation=n % 4 + 1)]
    model = nn.Sequential(*layers).eval()
    for layer in layers[::2]:
        layer.weight.data *= 2
    frozen, x = tw.freeze(model, torch.randn(1, 8, 400), dtype=HALF), torch.randn(1, 8, 700)
    live = tw.stream(frozen)
    y = torch.cat([*(live.step(chunk) for chunk in x.split(90, -1)), live.flush()], -1)
    assert torch.equal(y, frozen(x))
    assert 2e-3 < difference_of(model(x).detach(), y) < 0.05


@needs_matrices
def test_parts_of_a_model_that_cant_be_read_as_one():
    class Attending(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = small()
            self.second = network()

        def forward(self, x):
            y = self.first(x)
            return self.second(y.repeat(1, 3, 1) * torch.softmax(y.mean(1, keepdim=True), -1).sum())

    model = Attending().eval()
    found = tw.freeze(model, torch.randn(1, 3, 400), dtype=HALF)
    assert set(found.frozen) == {"first", "second"}
    x = torch.randn(1, 3, 800)
    assert 0 < difference_of(model(x).detach(), found(x)) < 0.03


def test_without_matrices_it_is_float32(monkeypatch):
    monkeypatch.setattr(amx, "obstacle", lambda: "needs a processor with AMX")
    model, x = network(), torch.randn(1, 6, 500)
    frozen = tw.freeze(model, x, dtype=HALF)
    assert torch.equal(frozen(x), tw.freeze(model, x)(x))
    assert_same(model, frozen, x)


def test_another_dtype_is_refused():
    with pytest.raises(ValueError, match=r"dtype must be torch\.bfloat16 or None"):
        tw.freeze(network(), torch.randn(1, 6, 300), dtype=torch.float16)
