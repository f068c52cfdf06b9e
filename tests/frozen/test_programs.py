"""Compiled programs against the oracle: single convolutions over the grid, and functions over their range."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import single_programs as single
import tapwise as tw
from against_the_oracle import TOLERANCE, VIEWS, expected, tensor
from frozen_networks import assert_same
from marks import slow_after
from strategies import convolutions, transposed
from tapwise.engine.kernels.program.functions import fitted
from tapwise.engine.kernels.program.packing import LANES, padded, panels
from tapwise.engine.kernels.program.record import PRODUCT, WINOGRAD
from tapwise.frozen import filtering
from tapwise.frozen.groups import PANEL
from tapwise.geometry import Geometry


def check(geometry, x, w, b=None):
    y = single.run(geometry, x, w, b)
    if y is None:
        return False
    truth = expected(geometry, x, w, b)
    assert y.shape == truth.shape
    if geometry.transposed:
        size = expected(geometry, x.abs(), w.abs(), None if b is None else b.abs())
    else:
        size = expected(geometry, x, w, b, magnitude=True)
    rtol, atol = TOLERANCE[torch.float32]
    bound = atol + rtol * abs(truth) + 16 * torch.finfo(torch.float32).eps * size
    error = abs(y.double().numpy() - truth)
    assert (error <= bound).all(), f"{error.max()} at {np.argmax(error - bound)}"
    return True


@given(
    st.one_of(convolutions(modes=["zeros", "reflect", "replicate"]), transposed()),
    st.sampled_from([1, 2, 3, 9]),
    st.sampled_from([1, 2, 3, 17]),
    st.sampled_from([1, 2, 3, 20]),
    st.booleans(),
)
def test_any_geometry(case, batch, fan_in, fan_out, bias):
    geometry, length = case
    random = np.random.default_rng(length + batch)
    groups = geometry.groups
    shape = (fan_in * groups, fan_out) if geometry.transposed else (fan_out * groups, fan_in)
    x = tensor(random, batch, fan_in * groups, length, dtype=torch.float32)
    w = tensor(random, *shape, geometry.kernel_size, dtype=torch.float32)
    b = tensor(random, fan_out * groups, dtype=torch.float32) if bias else None
    ran = check(geometry, x, w, b)
    assert ran or (geometry.transposed and (groups > 1 or geometry.dilation > 1)) or geometry.padding_mode != "zeros"


@pytest.mark.parametrize(
    "columns", slow_after(10, [1, 2, 16, 17, 25, 26, 33, 65, 81, 145, 3, 8, 15, 31, 32, 48, 64, 80, 97, 128])
)
@pytest.mark.parametrize("kernel_size", slow_after(3, [1, 3, 31, 2, 7, 200]))
def test_every_panel_and_lengths_around_a_block(kernel_size, columns):
    random = np.random.default_rng(columns)
    for inputs in (1, 5, 16, 33):
        w = tensor(random, columns, inputs, kernel_size, dtype=torch.float32)
        b = tensor(random, columns, dtype=torch.float32)
        for outputs in (1, 2, 5, 6, 7, 11, 13, 95, 96, 97, 200):
            if outputs > 20 and kernel_size > 10 and columns > 50:
                continue
            for stride, dilation in ((1, 1), (3, 2)):
                geometry = Geometry(kernel_size, stride, dilation, (min(kernel_size, 3) - 1, 1))
                x = tensor(random, 2, inputs, max(geometry.input_length(outputs), 1), dtype=torch.float32)
                assert check(geometry, x, w, b)


@pytest.mark.parametrize("channels", [2, 15, 16, 17, 40, 130])
@pytest.mark.parametrize("kernel_size", [1, 2, 3, 8, 33, 200])
def test_depthwise(kernel_size, channels):
    random = np.random.default_rng(channels)
    for outputs in (1, 7, 8, 9, 100, 333):
        for stride, dilation in ((1, 1), (2, 1), (3, 4)):
            geometry = Geometry(kernel_size, stride, dilation, "causal", groups=channels)
            x = tensor(random, 3, channels, max(geometry.input_length(outputs), 1), dtype=torch.float32)
            w = tensor(random, channels, 1, kernel_size, dtype=torch.float32)
            assert check(geometry, x, w, tensor(random, channels, dtype=torch.float32))


@pytest.mark.parametrize("columns", [1, 2, 7, 16, 40, 70])
@pytest.mark.parametrize(("kernel_size", "stride"), [(1, 1), (1, 3), (4, 2), (7, 3), (16, 8), (5, 8), (25, 7)])
def test_transposed(kernel_size, stride, columns):
    random = np.random.default_rng(columns)
    for length in (1, 2, 9, 30):
        for padding, output_padding in (((0, 0), 0), ((1, 2), stride - 1), ((0, 3), 0)):
            geometry = Geometry(kernel_size, stride, padding=padding, transposed=True, output_padding=output_padding)
            if geometry.output_length(length) < 1:
                continue
            x = tensor(random, 2, 12, length, dtype=torch.float32)
            w = tensor(random, 12, columns, kernel_size, dtype=torch.float32)
            assert check(geometry, x, w, tensor(random, columns, dtype=torch.float32))


@pytest.mark.parametrize("view", VIEWS)
def test_views(view):
    random = np.random.default_rng(0)
    x = VIEWS[view](tensor(random, 3, 20, 90, dtype=torch.float32))
    assert check(Geometry(5, padding=2), x, tensor(random, 24, 20, 5, dtype=torch.float32))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("groups", [1, 2, 32])
def test_what_is_not_finite_reaches_its_windows_alone(value, groups):
    random = np.random.default_rng(0)
    geometry = Geometry(5, dilation=2, padding=4, groups=groups)
    x = tensor(random, 2, 32, 100, dtype=torch.float32)
    w = tensor(random, 32, 32 // groups, 5, dtype=torch.float32)
    x[1, 3, 50] = value
    y = single.run(geometry, x, w)
    truth = torch.from_numpy(expected(geometry, x, w, None))
    assert torch.equal(y.isfinite(), truth.isfinite())
    x[1, 3, 50] = 0
    assert torch.equal(y[0], single.run(geometry, x, w)[0])


def test_weights_that_are_not_finite():
    w = torch.ones(3, 17, 3)
    w[1, 2, 0] = float("inf")
    y = single.run(Geometry(3, padding=1), torch.ones(1, 17, 40), w)
    assert y[0, 0].isfinite().all()
    assert y[0, 1, 1:].isinf().all()
    assert y[0, 1, 0].isnan()  # a zero of the padding, by infinity


def test_rows_are_the_same_bits_in_any_batch_and_length():
    random = np.random.default_rng(0)
    for geometry, shape in ((Geometry(7, padding=3), (40, 24, 7)), (Geometry(8, 4, transposed=True), (24, 40, 8))):
        x = tensor(random, 9, 24, 300, dtype=torch.float32)
        w = tensor(random, *shape, dtype=torch.float32)
        y = single.run(geometry, x, w)
        for row in (0, 8):
            assert torch.equal(y[row : row + 1], single.run(geometry, x[row : row + 1], w))
        shorter = single.run(geometry, x[..., :101], w)
        keep = shorter.shape[-1] - 8
        assert torch.equal(shorter[..., :keep], y[..., :keep])


def test_panels_have_all_columns():
    for columns in range(1, 300):
        assert sum(panels(columns)) * LANES == padded(columns) >= columns


def test_a_polynomial_is_fitted():
    low, high = -0.35, 0.35
    coefficients = fitted(math.exp, 6, low, high)
    at = np.linspace(low, high, 1001)
    assert abs(np.polynomial.polynomial.polyval(at, coefficients) - np.exp(at)).max() < 2e-8


def groups_of(program):
    return [(group, program.plan.shares_of(group)) for group in program.plan.groups]


@pytest.mark.parametrize(("length", "is_shared"), [(1, True), (3, True), (60, True), (300, False)])
def test_a_transposed_convolution_of_few_inputs_is_shared_out_by_columns(length, is_shared, monkeypatch):
    dice = np.random.default_rng(length)
    x, columns = tensor(dice, 2, 24, length, dtype=torch.float32), 5 * PANEL + 3
    w, b = tensor(dice, 24, columns, 12, dtype=torch.float32), tensor(dice, columns, dtype=torch.float32)
    geometry = Geometry(12, 4, padding=(2, 1), transposed=True)
    monkeypatch.setattr(filtering, "_FEWEST_ROWS", 1 << 40)
    program = single.program_of(single.graph_of(geometry, x, w, b), x)
    assert [n for _, n in groups_of(program) if n > 1] == ([5] if is_shared else [])
    y = single.run(geometry, x, w, b)
    rtol, atol = TOLERANCE[torch.float32]
    np.testing.assert_allclose(y.double().numpy(), expected(geometry, x, w, b), rtol=rtol, atol=100 * atol)


def test_a_large_product_of_few_rows_is_a_group_of_its_own():
    torch.manual_seed(0)
    first, second = nn.Conv1d(256, 512, 3), nn.Conv1d(512, 512, 1)
    model = nn.Sequential(first, nn.ReLU(), second).eval()
    x = torch.randn(2, 256, 500)
    frozen = tw.freeze(model, x)
    for length, n_groups in ((60, 2), (500, 1)):
        y = frozen(x[..., :length])
        program = list(frozen._programs.values())[-1]
        products = [n for group, n in groups_of(program) if any(s.code in (PRODUCT, WINOGRAD) for s in group.steps)]
        assert len(products) == n_groups
        assert all(n > 1 for n in products) == (n_groups == 2)
        assert_same(model, frozen, x[..., :length])
        assert torch.equal(frozen(x[1:, :, :length]), y[1:])
