"""Winograd's filtering in frozen programs: against the oracle, and where it may not change anything."""

import copy
import pickle
import random
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import single_programs as single
import tapwise as tw
from against_the_oracle import TOLERANCE, expected, tensor
from frozen_networks import assert_same
from marks import slow_after
from tapwise.engine.kernels.program import packing, record
from tapwise.engine.kernels.winograd import layout
from tapwise.engine.kernels.winograd.interpolation import minimal_filtering
from tapwise.frozen import filtering
from tapwise.geometry import Geometry


@pytest.fixture(autouse=True)
def always(monkeypatch):
    """Filtering wherever it can be, whether it pays or not."""
    monkeypatch.setattr(filtering, "_FEWEST_ROWS", 1)
    monkeypatch.setattr(filtering, "_FEWEST_CHANNELS", 1)


def codes(geometry, x, w):
    graph = single.graph_of(geometry, x, w, None)
    program = single.program_of(graph, x)
    return [step.code for group in program.plan.groups for step in group.steps]


def check(geometry, x, w, b=None):
    assert (record.WINOGRAD_TRANSPOSED if geometry.transposed else record.WINOGRAD) in codes(geometry, x, w)
    y = single.run(geometry, x, w, b)
    truth = expected(geometry, x, w, b)
    assert y.shape == truth.shape
    rtol, atol = TOLERANCE[torch.float32]
    size = float(w.double().abs().sum((1, 2)).max()) * float(x.abs().max())
    error = abs(y.double().numpy() - truth)
    bound = atol + rtol * abs(truth) + 16 * torch.finfo(torch.float32).eps * size
    assert (error <= bound).all(), f"{error.max()} at {np.argmax(error - bound)}"
    return float(error.max()), size


@pytest.mark.parametrize(("m", "r"), [(2, 3), (4, 2), (4, 3), (4, 4), (4, 5), (1, 1), (3, 2)])
def test_the_matrices_are_exact(m, r):
    dice = random.Random(m * 10 + r)
    inputs = [Fraction(dice.randint(-9, 9)) for _ in range(m + r - 1)]
    taps = [Fraction(dice.randint(-9, 9)) for _ in range(r)]
    outputs, of_taps, of_inputs = minimal_filtering(m, r)

    def times(matrix, vector):
        return [sum(a * x for a, x in zip(row, vector, strict=True)) for row in matrix]

    products = [a * b for a, b in zip(times(of_taps, taps), times(of_inputs, inputs), strict=True)]
    wanted = [sum(taps[k] * inputs[j + k] for k in range(r)) for j in range(m)]
    assert times(outputs, products) == wanted


@pytest.mark.parametrize("kernel_size", slow_after(6, [2, 3, 4, 5, 7, 11, 6, 8, 9, 12, 13, 15, 31, 32, 33, 64, 200]))
@pytest.mark.parametrize("dilation", [1, 2, 3, 5])
def test_lengths_around_chunks_and_blocks(kernel_size, dilation):
    dice = np.random.default_rng(kernel_size)
    for inputs, columns in ((1, 3), (5, 16), (16, 17), (33, 70), (40, 130)):
        w = tensor(dice, columns, inputs, kernel_size, dtype=torch.float32)
        b = tensor(dice, columns, dtype=torch.float32)
        for outputs in (1, 3, 4, 5, 4 * dilation, 4 * dilation + 1, 8 * dilation - 1, 193, 400):
            geometry = Geometry(kernel_size, dilation=dilation, padding=(min(kernel_size, 3) - 1, 1))
            x = tensor(dice, 2, inputs, max(geometry.input_length(outputs), 1), dtype=torch.float32)
            check(geometry, x, w, b)


# Kernel sizes and strides whose tiles save products, and some that fill their rows with zeros.
STRIDED = [(4, 2), (3, 2), (5, 2), (7, 2), (15, 2), (5, 3), (6, 3), (8, 4), (7, 4), (16, 8), (11, 4), (25, 4)]
TRANSPOSED = [(4, 2), (6, 3), (6, 2), (16, 8), (10, 5), (12, 2), (15, 3), (14, 7)]


@pytest.mark.parametrize("pair", slow_after(7, STRIDED))
def test_strides_around_chunks_and_blocks(pair):
    kernel_size, stride = pair
    dice = np.random.default_rng(kernel_size)
    for inputs, columns in ((1, 3), (5, 16), (16, 17), (33, 70)):
        w = tensor(dice, columns, inputs, kernel_size, dtype=torch.float32)
        b = tensor(dice, columns, dtype=torch.float32)
        for outputs in (1, 3, 4, 5, 17, 193, 400):
            for extra in range(stride):
                geometry = Geometry(kernel_size, stride, padding=(min(kernel_size, 3) - 1, 1))
                length = max(geometry.input_length(outputs), 1) + extra
                check(geometry, tensor(dice, 2, inputs, length, dtype=torch.float32), w, b)


@pytest.mark.parametrize("pair", slow_after(5, TRANSPOSED))
def test_transposed_around_chunks_and_blocks(pair):
    kernel_size, stride = pair
    dice = np.random.default_rng(kernel_size)
    for inputs, columns in ((1, 17), (5, 16), (33, 70)):
        w = tensor(dice, inputs, columns, kernel_size, dtype=torch.float32)
        b = tensor(dice, columns, dtype=torch.float32)
        for length in (1, 2, 3, 4, 5, 17, 193, 400):
            for cut in ((0, 0), (kernel_size - stride, 0), (0, kernel_size - stride), (1, 2)):
                geometry = Geometry(kernel_size, stride, padding=cut, transposed=True)
                if geometry.output_length(length) > 0:
                    check(geometry, tensor(dice, 2, inputs, length, dtype=torch.float32), w, b)


@given(
    st.sampled_from(STRIDED + TRANSPOSED), st.integers(0, 9), st.integers(0, 9), st.integers(1, 40), st.integers(17, 40),
    st.integers(1, 300), st.sampled_from([1, 2, 9]), st.booleans(),
)  # fmt: skip
def test_any_stride(pair, left, right, inputs, columns, count, batch, transposed):
    kernel_size, stride = pair
    transposed = transposed and pair in TRANSPOSED
    if transposed:
        left, right = min(left, kernel_size - 1), min(right, kernel_size - 1)
    geometry = Geometry(kernel_size, stride, padding=(left, right), transposed=transposed)
    length = count if transposed else max(geometry.input_length(count), 1)
    if geometry.output_length(length) < 1:
        return
    dice = np.random.default_rng(count)
    size = (inputs, columns) if transposed else (columns, inputs)
    x = tensor(dice, batch, inputs, length, dtype=torch.float32)
    check(geometry, x, tensor(dice, *size, kernel_size, dtype=torch.float32))


@given(
    st.integers(2, 17), st.integers(1, 7), st.integers(0, 9), st.integers(0, 9), st.integers(1, 40), st.integers(3, 40),
    st.integers(1, 300), st.sampled_from([1, 2, 9]),
)  # fmt: skip
def test_any_geometry(kernel_size, dilation, left, right, inputs, columns, outputs, batch):
    geometry = Geometry(kernel_size, dilation=dilation, padding=(left, right))
    dice = np.random.default_rng(outputs)
    x = tensor(dice, batch, inputs, max(geometry.input_length(outputs), 1), dtype=torch.float32)
    check(geometry, x, tensor(dice, columns, inputs, kernel_size, dtype=torch.float32))


@pytest.mark.parametrize("kernel_size", [3, 4, 5, 7, 11])
def test_it_rounds_by_a_few_times_more_than_sums_do(kernel_size, monkeypatch):
    dice = np.random.default_rng(0)
    geometry = Geometry(kernel_size, padding=kernel_size // 2)
    x = tensor(dice, 1, 128, 600, dtype=torch.float32)
    w = tensor(dice, 64, 128, kernel_size, dtype=torch.float32)
    error, _ = check(geometry, x, w)
    monkeypatch.setattr(filtering, "_FEWEST_ROWS", 1 << 40)
    direct = abs(single.run(geometry, x, w).double().numpy() - expected(geometry, x, w, None)).max()
    assert error <= 8 * direct


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 3e38])
@pytest.mark.parametrize(
    "geometry",
    [
        Geometry(2, padding=1),
        Geometry(3, padding=4),
        Geometry(4, padding=4),
        Geometry(5, dilation=2, padding=4),
        Geometry(7, dilation=3, padding=4),
        Geometry(11, padding=4),
        Geometry(3, 2, padding=4),
        Geometry(15, 2, padding=4),
        Geometry(8, 4, padding=(4, 0)),
        Geometry(8, 4, padding=(0, 4), transposed=True),
        Geometry(9, 3, padding=(1, 1), transposed=True),
    ],
    ids=str,
)
def test_what_is_not_finite_reaches_its_windows_alone(value, geometry, monkeypatch):
    dice = np.random.default_rng(0)
    x = tensor(dice, 2, 34, 300, dtype=torch.float32)
    w = tensor(dice, *((34, 37) if geometry.transposed else (37, 34)), geometry.kernel_size, dtype=torch.float32)
    w[:, :, 1] = 0
    for position in (0, 1, 2, 3, 150, 297, 298, 299):
        z = x.clone()
        z[1, 33, position] = value
        y = single.run(geometry, z, w)
        with monkeypatch.context() as patch:
            patch.setattr(filtering, "_FEWEST_ROWS", 1 << 40)
            direct = single.run(geometry, z, w)
        assert torch.equal(y.isfinite(), direct.isfinite())
        assert torch.equal(y.isnan(), direct.isnan())
        same = ~direct.isfinite()
        assert torch.equal(y[same & ~y.isnan()], direct[same & ~y.isnan()])
        # Its own tiles alone are computed otherwise.
        up, down = (geometry.stride, 1) if geometry.transposed else (1, geometry.stride)
        reach = (geometry.kernel_size + 8 * geometry.stride) * geometry.dilation
        far = (torch.arange(y.shape[-1]) * down + geometry.left * down // down - position * up).abs() > reach
        torch.testing.assert_close(y[..., far], direct[..., far], atol=1e-4, rtol=1e-4)


def test_the_same_bits_whatever_the_batch_the_threads_and_the_blocks(monkeypatch):
    dice = np.random.default_rng(0)
    before = torch.get_num_threads()
    for geometry in (
        Geometry(3, padding=1),
        Geometry(5, dilation=3, padding=6),
        Geometry(11, dilation=2, padding=10),
        Geometry(8, 4, padding=2),
        Geometry(6, 3, padding=1, transposed=True),
    ):
        x = tensor(dice, 4, 40, 1000, dtype=torch.float32)
        size = (40, 48) if geometry.transposed else (48, 40)
        w = tensor(dice, *size, geometry.kernel_size, dtype=torch.float32)
        y = single.run(geometry, x, w)
        assert torch.equal(single.run(geometry, x[2:3], w), y[2:3])
        try:
            torch.set_num_threads(1 if before > 1 else 2)
            assert torch.equal(single.run(geometry, x, w), y)
        finally:
            torch.set_num_threads(before)
        with monkeypatch.context() as patch:
            patch.setattr(filtering, "block_of", lambda step, count: 24)
            assert torch.equal(single.run(geometry, x, w), y)
        longer = single.run(geometry, torch.cat([x, x], -1), w)
        # Of the end, to which a tile may reach.
        reach = (geometry.kernel_size + 8 * (geometry.stride if geometry.transposed else 1)) * geometry.dilation
        assert torch.equal(longer[..., : y.shape[-1] - reach], y[..., :-reach])


def test_shares_of_the_columns_have_the_same_bits(monkeypatch):
    """Of a large weight and few blocks of rows; a NaN is then computed anew by each share."""
    dice = np.random.default_rng(0)
    for geometry, size in (
        (Geometry(4, padding=2), (200, 96)),
        (Geometry(8, 4, padding=2), (200, 96)),
        (Geometry(8, 4, padding=2, transposed=True), (96, 200)),
    ):
        x, w = (
            tensor(dice, 2, 96, 500, dtype=torch.float32),
            tensor(dice, *size, geometry.kernel_size, dtype=torch.float32),
        )
        x[1, 5, 250] = float("nan")
        b, bits = tensor(dice, 200, dtype=torch.float32), []
        for large in (1 << 40, 1):
            monkeypatch.setattr(filtering, "_LARGE", large)
            plan = single.program_of(single.graph_of(geometry, x, w, b), x).plan
            shares = [plan.shares_of(group) for group in plan.groups if group.steps[0].code in filtering.CODES.values()]
            assert shares == [1 if large > 1 else 3]
            bits.append(single.run(geometry, x, w, b))
        assert torch.equal(*(y.nan_to_num(9) for y in bits))
        assert torch.equal(*(y.isnan() for y in bits))
        assert 0 < bits[0].isnan().sum() <= 200 * 8


@pytest.mark.parametrize("length", [1, 2, 5, 30, 193])
def test_what_lies_beyond_the_rows_changes_no_bit(length):
    """A tile ends beyond the last row: a NaN there would have its chunk computed anew, by products."""
    dice = np.random.default_rng(length)
    for geometry in (
        Geometry(5, padding=2),
        Geometry(3, dilation=3, padding=3),
        Geometry(8, 4, padding=4),
        Geometry(8, 4, padding=2, transposed=True),
        Geometry(6, 2, padding=(3, 0), transposed=True),
    ):
        x, w, b = (
            tensor(dice, *size, dtype=torch.float32)
            for size in ((2, 40, length), (40, 40, geometry.kernel_size), (40,))
        )
        assert torch.equal(*(single.run(geometry, x, w, b, memory=number) for number in (float("nan"), 0.0)))


def test_networks_with_maps_after_it_and_sums():
    torch.manual_seed(0)

    class Block(nn.Module):
        def __init__(self, taps, dilation):
            super().__init__()
            self.conv = nn.Conv1d(40, 40, taps, padding=dilation * (taps - 1) // 2, dilation=dilation)
            self.back = nn.Conv1d(40, 40, 1)

        def forward(self, x):
            return x + self.back(torch.tanh(self.conv(nn.functional.leaky_relu(x, 0.1))))

    first = nn.Conv1d(6, 40, 7, padding=3)
    model = nn.Sequential(first, Block(3, 1), Block(7, 3), Block(11, 5), nn.BatchNorm1d(40), nn.Conv1d(40, 5, 3)).eval()
    frozen = tw.freeze(model, torch.randn(1, 6, 200))
    assert_same(model, frozen, *(torch.randn(b, 6, n) for b, n in ((1, 50), (2, 333), (3, 1001))))


def test_exact_leaves_it_out_and_streams_do_without():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(40, 48, 3, padding=1), nn.ReLU(), nn.Conv1d(48, 40, 5, padding=2)).eval()
    x = torch.randn(2, 40, 700)
    with tw.options(exact=True):
        exact = tw.freeze(model, x)
    fast = tw.freeze(model, x)
    assert not torch.equal(exact(x), fast(x))
    assert_same(model, exact, x)
    assert_same(model, fast, x)
    for frozen in (exact, fast):  # a stream's sums are of products, whatever its chunks
        live = tw.stream(frozen)
        parts = [live.step(chunk) for chunk in x.split([1, 200, 7, 492], -1)]
        assert torch.equal(torch.cat([*parts, live.flush()], -1), exact(x))
    assert torch.equal(copy.deepcopy(exact)(x), exact(x))
    assert torch.equal(pickle.loads(pickle.dumps(exact))(x), exact(x))


def test_the_weight_is_transformed_once_and_only_where_it_is_needed():
    model = nn.Conv1d(40, 48, 3, padding=1).eval()
    frozen = tw.freeze(model, torch.randn(1, 40, 300))
    (step,) = frozen.steps.steps
    frozen(torch.randn(1, 40, 300))
    first = step.filtered
    frozen(torch.randn(2, 40, 500))
    assert step.filtered is first


def test_what_saves_no_products_is_not_filtered():
    for geometry in (Geometry(3, 3), Geometry(5, 4), Geometry(2, 2), Geometry(3, 2, 2), Geometry(3, dilation=33)):
        found = codes(geometry, torch.randn(1, 40, 600), torch.randn(40, 40, geometry.kernel_size))
        assert record.WINOGRAD not in found
    for kernel_size, stride in ((3, 2), (4, 4), (5, 2)):  # phases of unequal taps, or of one
        geometry = Geometry(kernel_size, stride, transposed=True)
        found = codes(geometry, torch.randn(1, 40, 600), torch.randn(40, 40, kernel_size))
        assert record.WINOGRAD_TRANSPOSED not in found


def test_memory_for_the_weight_is_as_the_points_say():
    weight = torch.randn(70, 33, 7)
    assert layout.transformed(weight).numel() == layout.numbers_of(33, 70, 7)
    assert layout.numbers_of(33, 70, 7) - layout.zeros_of(33) == 7 * 2 * 33 * packing.padded(70)
    # 7 taps a stride of 2 apart: one segment of 4 taps, of 66 numbers each.
    assert layout.transformed(weight, 2).numel() == layout.numbers_of(66, 70, 4)
