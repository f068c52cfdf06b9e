"""Every kernel against the oracle, over the whole grid."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tapwise as tw
from against_the_oracle import EVERY, FLOATS, SUMS, VIEWS, check, expected, tensor
from marks import slow_after
from strategies import convolutions, transposed
from tapwise.engine.kernels import KERNELS
from tapwise.engine.kernels.direct.record import PRODUCTS_A_SUM
from tapwise.engine.problem import Problem
from tapwise.geometry import Geometry
from tapwise.padding import PADDING_MODES

ANYTHING = given(
    st.one_of(convolutions(), transposed()),
    st.sampled_from([0, 1, 2, 3, 9]),
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from(FLOATS),
    st.booleans(),
)


pytestmark = pytest.mark.usefixtures("poisoned")


@pytest.mark.parametrize("kernel", EVERY)
@ANYTHING
def test_any_geometry(kernel, case, batch, fan_in, fan_out, dtype, bias):
    geometry, length = case
    random = np.random.default_rng(length + batch)
    groups = geometry.groups
    shape = (fan_in * groups, fan_out) if geometry.transposed else (fan_out * groups, fan_in)
    x = tensor(random, batch, fan_in * groups, length, dtype=dtype)
    w = tensor(random, *shape, geometry.kernel_size, dtype=dtype)
    b = tensor(random, fan_out * groups, dtype=dtype) if bias else None
    ran = check(kernel, geometry, x, w, b)
    assert ran or (kernel in ("gemm", "fft") and geometry.transposed)


@pytest.mark.parametrize("kernel", ["native", "direct", "gemm", "fft"])
@pytest.mark.parametrize("kernel_size", [1, 2, 3, 4, 5, 7, 8, 16, 31, 64, 65, 128, 199, 200])
@pytest.mark.parametrize("stride", [1, 2, 5, 201])
@pytest.mark.parametrize("padding", ["valid", "same", "causal", "full", (1, 7)])
def test_every_kernel_size_and_lengths_around_a_block(kernel, kernel_size, stride, padding):
    random = np.random.default_rng(kernel_size)
    for dilation, groups in ((1, 1), (3, 2)):
        for outputs in (1, 2, 17, 191, 193, 1537, 4097):
            if outputs > 20 and (stride == 201 or (dilation > 1 and kernel_size not in (5, 64))):
                continue
            geometry = Geometry(kernel_size, stride, dilation, padding, groups)
            length = max(geometry.input_length(outputs), 1)
            x = tensor(random, 1, 2 * groups, length, dtype=torch.float32)
            w = tensor(random, groups, 2, kernel_size, dtype=torch.float32)
            assert check(kernel, geometry, x, w)


@pytest.mark.parametrize("kernel", ["native", "direct", "gemm", "fft"])
@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("kernel_size", [PRODUCTS_A_SUM - 1, PRODUCTS_A_SUM, PRODUCTS_A_SUM + 1, 1000])
def test_long_filters_in_every_padding_mode(kernel, mode, kernel_size):
    random = np.random.default_rng(kernel_size)
    geometry = Geometry(kernel_size, padding=(kernel_size + 3, 40), padding_mode=mode)
    x = tensor(random, 2, 1, 1500, dtype=torch.float32)
    assert check(kernel, geometry, x, tensor(random, 1, 1, kernel_size, dtype=torch.float32))


def test_rounding_doesnt_grow_with_the_taps_of_direct():
    """Equal products add the same rounding error each time: a running sum, torch's too, drifts."""
    x, w = torch.full((1, 1, 5000), 0.1), torch.full((1, 1, 4000), 0.1)
    assert check("direct", Geometry(4000), x, w)


@dataclass
class Shape:
    """A case that each of the bugs known from other libraries would get wrong."""

    channels: int
    outputs: int
    groups: int
    kernel_size: int
    length: int
    batch: int = 2


@pytest.mark.parametrize("kernel", EVERY)
@pytest.mark.parametrize(
    "shape",
    [
        Shape(24, 24, 24, 3, 30),
        Shape(48, 48, 1, 2, 20),
        Shape(40, 20, 4, 5, 70),
        Shape(3, 3, 1, 3, 130, batch=9),
        Shape(2, 8, 2, 9, 66),
        Shape(33, 1, 1, 4, 40),
        Shape(1, 70, 1, 6, 40),
    ],
    ids=str,
)
def test_many_channels_groups_lengths_and_rows(kernel, shape):
    random = np.random.default_rng(0)
    x = tensor(random, shape.batch, shape.channels, shape.length, dtype=torch.float32)
    w = tensor(random, shape.outputs, shape.channels // shape.groups, shape.kernel_size, dtype=torch.float32)
    for padding in ("same", (0, 3)):
        geometry = Geometry(shape.kernel_size, padding=padding, groups=shape.groups)
        assert check(kernel, geometry, x, w, tensor(random, shape.outputs, dtype=torch.float32))


@pytest.mark.parametrize("kernel", EVERY)
@pytest.mark.parametrize("view", VIEWS)
def test_views_of_input_and_weight(kernel, view):
    random = np.random.default_rng(0)
    x, w = tensor(random, 3, 4, 50), tensor(random, 4, 2, 5)
    geometry = Geometry(5, padding="same", groups=2)
    assert check(kernel, geometry, VIEWS[view](x), w)
    assert check(kernel, geometry, x, VIEWS[view](w))
    assert check(kernel, geometry, x, w, tensor(random, 8)[::2])


@pytest.mark.parametrize("kernel", ["native", "direct", "gemm", "fft", "reference"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(kernel, dtype):
    random = np.random.default_rng(0)
    for groups in (1, 4):
        x = tensor(random, 2, 4, 100, dtype=dtype)
        w = tensor(random, 4, 4 // groups, 7, dtype=dtype)
        assert check(kernel, Geometry(7, padding="causal", groups=groups), x, w)


@given(convolutions())
def test_whole_numbers_come_out_alike_from_every_kernel(case):
    geometry, length = case
    random = np.random.default_rng(length)
    x = torch.from_numpy(random.integers(-50, 50, (2, geometry.groups, length))).float()
    w = torch.from_numpy(random.integers(-50, 50, (geometry.groups, 1, geometry.kernel_size))).float()
    truth = expected(geometry, x, w, None)
    for kernel in SUMS:
        assert np.array_equal(KERNELS[kernel].run(geometry, x, w, None).numpy(), truth)
    integers = KERNELS["reference"].run(geometry, x.long(), w.long(), None)
    assert np.array_equal(integers.numpy(), truth)


@pytest.mark.parametrize("kernel", EVERY)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@given(convolutions(), st.integers(0, 10**6))
def test_a_non_finite_input_reaches_its_outputs_and_no_others(kernel, value, case, place):
    geometry, length = case
    place %= length
    x = torch.ones(2, geometry.groups, length)
    x[1, 0, place] = value
    w = torch.ones(geometry.groups, 1, geometry.kernel_size)
    w[:, :, ::2] = 0  # a zero tap counts too
    y = KERNELS[kernel].run(geometry, x, w, None)
    wild = {tuple(index) for index in (~y.isfinite()).nonzero().tolist()}
    assert wild == {(1, 0, i) for i in geometry.feeds(place, length)}


@pytest.mark.parametrize("kernel", ["direct", "gemm", "fft", "fft32"])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(8, 1, 31), (4, 4, 9), (4, 2, 300), (32, 1, 5)])
def test_the_same_bits_for_every_batch_run_and_count_of_threads(kernel, dtype, shape):
    outputs, groups, kernel_size = shape
    random = np.random.default_rng(1)
    x = tensor(random, 8, 4, 2000, dtype=dtype)
    w = tensor(random, outputs, 4 // groups, kernel_size, dtype=dtype)
    geometry = Geometry(kernel_size, padding="causal", groups=groups)
    run, before = KERNELS[kernel].run, torch.get_num_threads()
    expected_bits = run(geometry, x, w, None)
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            if kernel == "direct":  # torch's products and transforms vary with their threads
                assert torch.equal(expected_bits, run(geometry, x, w, None))
            expected_bits = run(geometry, x, w, None)
            assert torch.equal(expected_bits, run(geometry, x, w, None))
            for batch in (1, 2, 3):
                assert torch.equal(run(geometry, x[:batch], w, None), expected_bits[:batch])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("kernel", EVERY)
def test_inputs_are_left_as_they_were(kernel):
    random = np.random.default_rng(0)
    x, w, b = tensor(random, 2, 2, 40), tensor(random, 2, 1, 3), tensor(random, 2)
    before = [t.clone() for t in (x, w, b)]
    for mode in PADDING_MODES:
        KERNELS[kernel].run(Geometry(3, padding=2, groups=2, padding_mode=mode), x, w, b)
    assert all(torch.equal(t, old) for t, old in zip((x, w, b), before, strict=True))


def test_why_not_names_the_obstacle():
    geometry = Geometry(3)
    cases = {
        "runs on the CPU": Problem(geometry, 1, 1, 9, torch.float32, "cuda"),
        "takes float32, float64, float16, bfloat16, not int64": Problem(geometry, 1, 1, 9, torch.int64, "cpu"),
    }
    for words, problem in cases.items():
        assert words in KERNELS["direct"].why_not(problem)
    assert "real numbers" in KERNELS["reference"].why_not(Problem(geometry, 1, 1, 9, torch.complex64, "cpu"))
    assert KERNELS["native"].why_not(cases["runs on the CPU"]) is None


def test_the_laws_of_convolution():
    random = np.random.default_rng(3)
    x, z, w = tensor(random, 2, 4, 60), tensor(random, 2, 4, 60), tensor(random, 6, 2, 5)
    settings = {"stride": 2, "dilation": 3, "groups": 2}
    for kernel in EVERY:
        with tw.options(kernel=kernel):
            y = tw.conv1d(x, w, **settings)
            both = tw.conv1d(3 * x - z, w, **settings)
            torch.testing.assert_close(both, 3 * y - tw.conv1d(z, w, **settings))
            halves = [
                tw.conv1d(x[:, half * 2 : half * 2 + 2], w[half * 3 : half * 3 + 3], None, 2, 0, 3) for half in (0, 1)
            ]
            torch.testing.assert_close(y, torch.cat(halves, 1))
            shifted = tw.conv1d(x[..., 2:], w, **settings)
            torch.testing.assert_close(shifted, y[..., 1:])
            g = tensor(random, *y.shape)
            back = tw.conv_transpose1d(g, w, None, 2, 0, 1, 2, 3)
            torch.testing.assert_close((y * g).sum(), (x * back[..., :60]).sum())


@pytest.mark.fuzz
@pytest.mark.parametrize("kernel", EVERY)
@ANYTHING
def test_any_geometry_all_night(kernel, case, batch, fan_in, fan_out, dtype, bias):
    test_any_geometry.hypothesis.inner_test(kernel, case, batch, fan_in, fan_out, dtype, bias)


@pytest.mark.parametrize("kernel", SUMS)
@pytest.mark.parametrize("stride", [1, 2])
def test_a_tap_that_is_no_number_reaches_what_inputs_it_meets(kernel, stride):
    w = torch.tensor([[[1.0, float("inf"), 1.0]]])
    geometry = Geometry(3, stride, transposed=True)
    if KERNELS[kernel].why_not(Problem(geometry, 1, 1, 6, torch.float32, "cpu")):
        return
    y = KERNELS[kernel].run(geometry, torch.ones(1, 1, 6), w, None)
    truth = torch.nn.functional.conv_transpose1d(torch.ones(1, 1, 6), w, stride=stride)
    torch.testing.assert_close(y, truth, equal_nan=True)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("pads", slow_after(3, [(40, 1), (0, 5), (6, 0), (3, 3), (16, 16), (200, 200)]))
@pytest.mark.parametrize(("taps", "dilation"), [(1, 1), (4, 1), (7, 1), (3, 8), (31, 2)])
def test_short_rows_of_one_input_channel(taps, dilation, pads, dtype):
    # What lies beside a row is no number: an end that reads it shows.
    random = np.random.default_rng(taps)
    for length in (1, 5, 15, 16, 17, 33, 100, 256, 700):
        for multiplier in (1, 2, 3):
            geometry = Geometry(taps, dilation=dilation, padding=pads, groups=5)
            if geometry.output_length(length) == 0:
                continue
            around = torch.full((2, 5, length + 128), torch.nan, dtype=dtype)
            x = around[..., 64 : 64 + length]
            x.copy_(tensor(random, 2, 5, length))
            w = tensor(random, 5 * multiplier, 1, taps, dtype=dtype)
            b = tensor(random, 5 * multiplier, dtype=dtype) if multiplier > 1 else None
            assert check("direct", geometry, x, w, b)
