"""Products of matrices in the cache against the oracle, over what they can run."""

import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tapwise as tw
from against_the_oracle import VIEWS, check, check_not_finite, expected_weight_gradient, problem_of, tensor
from marks import slow_after
from tapwise.engine.kernels import implicit_gemm as kernel
from tapwise.engine.kernels import native
from tapwise.engine.kernels.implicit_gemm import layout
from tapwise.engine.plan import choose
from tapwise.engine.problem import Problem
from tapwise.geometry import Geometry

pytestmark = pytest.mark.usefixtures("poisoned")
NAME = "implicit_gemm"
TOLERANCE = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1e-2}


def weights(random, geometry, inputs, columns, dtype):
    """A weight for ``inputs`` and ``columns`` channels a group."""
    groups = geometry.groups
    shape = (groups * inputs, columns) if geometry.transposed else (groups * columns, inputs)
    return tensor(random, *shape, geometry.kernel_size, dtype=dtype)


@given(
    st.integers(1, 17), st.integers(1, 5), st.integers(1, 9), st.integers(0, 12), st.integers(0, 12), st.sampled_from([1, 1, 2, 3]),
    st.sampled_from(["zeros", "reflect", "replicate", "circular"]), st.integers(8, 20), st.sampled_from([8, 9, 16, 30, 70]),
    st.integers(1, 200), st.sampled_from([0, 1, 2, 9]), st.booleans(), st.sampled_from([torch.float32, torch.float32, torch.float16, torch.bfloat16]),
)  # fmt: skip
def test_any_geometry(
    kernel_size, stride, dilation, left, right, groups, mode, inputs, columns, outputs, batch, bias, dtype
):
    geometry = Geometry(kernel_size, stride, dilation, (left, right), groups, mode)
    random = np.random.default_rng(outputs)
    length = max(geometry.input_length(outputs), 1 if mode == "zeros" else max(left, right) + 1)
    x = tensor(random, batch, groups * inputs, length, dtype=dtype)
    w = weights(random, geometry, inputs, columns, dtype)
    assert check(NAME, geometry, x, w, tensor(random, groups * columns, dtype=dtype) if bias else None)


@given(
    st.integers(1, 9), st.integers(1, 6), st.integers(1, 7), st.integers(0, 12), st.integers(0, 12), st.integers(0, 5),
    st.sampled_from([1, 1, 2]), st.integers(8, 10), st.sampled_from([8, 9, 17]), st.integers(1, 60), st.sampled_from([0, 1, 2]),
    st.booleans(),
)  # fmt: skip
def test_any_transposed_geometry(
    kernel_size, stride, dilation, left, right, more, groups, inputs, columns, length, batch, bias
):
    more = min(more, max(stride, dilation) - 1)
    geometry = Geometry(kernel_size, stride, dilation, (left, right), groups, "zeros", True, more)
    if geometry.output_length(length) < 1:
        return
    random = np.random.default_rng(length)
    x = tensor(random, batch, groups * inputs, length, dtype=torch.float32)
    w = weights(random, geometry, inputs, columns, torch.float32)
    assert check(NAME, geometry, x, w, tensor(random, groups * columns, dtype=torch.float32) if bias else None)


@given(
    st.integers(1, 12), st.integers(1, 4), st.integers(1, 9), st.integers(0, 12), st.integers(0, 12), st.sampled_from([1, 1, 3]),
    st.sampled_from(["zeros", "reflect", "replicate", "circular"]), st.sampled_from([1, 9, 16, 30, 70]), st.integers(1, 14), st.integers(0, 600),
    st.sampled_from([0, 1, 2, 3]), st.sampled_from([torch.float32, torch.float32, torch.float16, torch.bfloat16]),
)  # fmt: skip
def test_any_weight_gradient(
    kernel_size, stride, dilation, left, right, groups, mode, inputs, columns, outputs, batch, dtype
):
    geometry = Geometry(kernel_size, stride, dilation, (left, right), groups, mode)
    random = np.random.default_rng(outputs)
    length = max(geometry.input_length(outputs), 1 if mode == "zeros" else max(left, right) + 1)
    x = tensor(random, batch, groups * inputs, length, dtype=dtype)
    w = weights(random, geometry, inputs, columns, dtype)
    g = tensor(random, batch, groups * columns, max(geometry.output_length(length), 0), dtype=dtype)
    found = kernel.weight_gradient(geometry, g, x, w)
    assert found.dtype == dtype
    truth, size = expected_weight_gradient(geometry, g, x, w.shape)
    error = abs(found.double().numpy() - truth)
    assert (error <= 1e-6 + TOLERANCE[dtype] * abs(truth) + 16 * torch.finfo(torch.float32).eps * size).all()


@pytest.mark.parametrize(
    "kernel_size", slow_after(3, [1, 3, 8, 2, 33, 4, 5, 6, 7, 9, 11, 16, 17, 32, 64, 65, 128, 199, 200])
)
def test_every_kernel_size_and_lengths_around_a_block(kernel_size):
    random = np.random.default_rng(kernel_size)
    for inputs, columns in ((8, 8), (15, 17), (16, 33), (40, 65), (8, 150))[: 5 if kernel_size < 33 else 3]:
        for outputs in (1, 2, 5, 6, 7, 47, 48, 49, 97, 1537)[:: 1 if kernel_size < 33 else 3]:
            for stride, dilation in ((1, 1), (3, 1), (1, 40), (2, 3)):
                if outputs > 100 and (dilation > 1 or inputs not in (15, 40)):
                    continue
                geometry = Geometry(kernel_size, stride, dilation, padding=(kernel_size - 1, 0))
                x = tensor(random, 1, inputs, max(geometry.input_length(outputs), 1), dtype=torch.float32)
                assert check(NAME, geometry, x, weights(random, geometry, inputs, columns, torch.float32))


@pytest.mark.parametrize("sign", [1, -1])
def test_sums_of_one_sign_round_no_more_than_allowed(sign):
    """Rounding grows where every product adds to the sum."""
    random = np.random.default_rng(0)
    for geometry, channels in ((Geometry(64), 64), (Geometry(1), 4000), (Geometry(16, 8, transposed=True), 1000)):
        x = tensor(random, 1, channels, 150, dtype=torch.float32).abs()
        w = sign * weights(random, geometry, channels, 10, torch.float32).abs()
        wanted = native.run(geometry, x.double(), w.double(), None)
        error, allowed = (kernel.run(geometry, x, w, None) - wanted).abs(), 1.3e-6 + 16 * torch.finfo(torch.float32).eps
        assert (error <= allowed * wanted.abs()).all()


@pytest.mark.parametrize("value", [0.1, -0.1])
def test_constants_round_no_more_than_allowed(value):
    """Each addition of a constant rounds to the same side."""
    allowed = 1.3e-6 + 16 * torch.finfo(torch.float32).eps
    x, w = torch.full((1, 600, 60), value), torch.full((9, 600, 3), 0.1)
    wanted = native.run(Geometry(3), x.double(), w.double(), None)
    assert ((kernel.run(Geometry(3), x, w, None) - wanted).abs() <= allowed * wanted.abs()).all()
    x, g, w = torch.full((16, 16, 65_536), value), torch.full((16, 16, 65_536), 0.1), torch.zeros(16, 16, 1)
    wanted = float(x[0, 0, 0].double() * g[0, 0, 0].double()) * 16 * 65_536
    found = kernel.weight_gradient(Geometry(1), g, x, w)
    torch.testing.assert_close(found.double(), torch.full((16, 16, 1), wanted).double(), rtol=allowed, atol=0)


@pytest.mark.parametrize("view", VIEWS)
def test_views(view):
    random = np.random.default_rng(0)
    x, w = (tensor(random, *shape, dtype=torch.float32) for shape in ((3, 16, 90), (24, 16, 5)))
    geometry, around = Geometry(5, 2, padding=(2, 1)), Geometry(5, 2, transposed=True)
    assert check(NAME, geometry, VIEWS[view](x), w)
    assert check(NAME, geometry, x, VIEWS[view](w))
    assert check(NAME, geometry, x, w, tensor(random, 48, dtype=torch.float32)[::2])
    assert check(NAME, around, VIEWS[view](x), w.transpose(0, 1))
    g = tensor(random, 3, 24, geometry.output_length(90), dtype=torch.float32)
    for grad, signal in ((VIEWS[view](g), x), (g, VIEWS[view](x))):
        truth, size = expected_weight_gradient(geometry, grad, signal, w.shape)
        found = kernel.weight_gradient(geometry, grad, signal, w).double().numpy()
        assert (abs(found - truth) <= 1e-6 + 2e-6 * size).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 3e38])
@pytest.mark.parametrize(
    "geometry",
    [
        Geometry(3),
        Geometry(5, 2, 3, padding=4),
        Geometry(40),  # sums in parts
        Geometry(3, dilation=150, padding=100),  # taps gathered alone
        Geometry(3, groups=2, padding=1, padding_mode="circular"),
        Geometry(4, 2, padding=1, transposed=True),
    ],
    ids=str,
)
def test_what_is_not_finite_reaches_its_windows_alone(value, geometry):
    random = np.random.default_rng(0)
    x = tensor(random, 3, 16 * geometry.groups, 400, dtype=torch.float32)
    w = weights(random, geometry, 16, 20, torch.float32)
    check_not_finite(NAME, geometry, x, w, value)


@pytest.mark.parametrize("transposed", [False, True])
def test_weights_that_are_not_finite(transposed):
    x, geometry = torch.randn(2, 8, 50), Geometry(3, 2, transposed=transposed)
    w = weights(np.random.default_rng(0), geometry, 8, 8, torch.float32)
    w[4, 2, 1] = float("inf")
    y, wanted = (run(geometry, x, w, None) for run in (kernel.run, native.run))
    assert torch.equal(y.isfinite(), wanted.isfinite())
    torch.testing.assert_close(y, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "geometry", [Geometry(7, 2, padding=3), Geometry(6, 3, transposed=True), Geometry(3, groups=2)], ids=str
)
def test_the_same_bits_in_any_batch_and_chunk_and_on_any_number_of_threads(geometry):
    random = np.random.default_rng(0)
    x = tensor(random, 5, 24 * geometry.groups, 1000, dtype=torch.float32)
    w = weights(random, geometry, 24, 40, torch.float32)
    before = torch.get_num_threads()
    y = kernel.run(geometry, x, w, None)
    assert torch.equal(kernel.run(geometry, x[3:4], w, None), y[3:4])
    if not geometry.transposed:
        part = Geometry(geometry.kernel_size, geometry.stride, groups=geometry.groups)
        inside = kernel.run(part, x[..., geometry.stride * 30 - geometry.left : 500], w, None)
        assert torch.equal(inside, y[..., 30 : 30 + inside.shape[-1]])
    try:
        torch.set_num_threads(1 if before > 1 else 2)
        assert torch.equal(kernel.run(geometry, x, w, None), y)
    finally:
        torch.set_num_threads(before)


REFUSED = {
    "takes float32 and half precision": (Geometry(3), 16, 16, torch.float64),
    "groups of 8 channels": (Geometry(3), 7, 16, torch.float32),
    "8 channels and more": (Geometry(3, groups=4), 64, 16, torch.float32),
    "reach too far": (Geometry(3, 2, 1_000_000, transposed=True), 16, 16, torch.float32),
    "a block of them to stay": (Geometry(1, 2_000_000, transposed=True), 16, 16, torch.float32),
    "not int64": (Geometry(3), 16, 16, torch.int64),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_it_cant_run_it_says(words):
    geometry, inputs, outputs, dtype = REFUSED[words]
    assert words in kernel.why_not(Problem(geometry, inputs, outputs, 100, dtype, "cpu"))


def test_taps_far_from_each_other_are_gathered_alone():
    geometry = Geometry(3, dilation=100_000)
    x, w = torch.randn(1, 16, 200_300), torch.randn(16, 16, 3)
    assert layout.input_rows(geometry, 96) == 288
    assert kernel.why_not(problem_of(geometry, x, w)) is None
    torch.testing.assert_close(kernel.run(geometry, x, w, None), native.run(geometry, x, w, None), rtol=1e-4, atol=1e-4)


def test_phases_hold_every_tap_once():
    for taps in range(1, 9):
        for stride in range(1, 6):
            for dilation in range(1, 6):
                found = layout.phases_of(Geometry(taps, stride, dilation, transposed=True))
                assert sorted(found.taps) == list(range(taps))
                at = 0
                for phase, (count, first) in enumerate(zip(found.counts, found.firsts, strict=True)):
                    for n, k in enumerate(found.taps[at : at + count]):
                        assert (first + n * found.step) * stride + k * dilation == phase
                    at += count


def test_a_large_stride_is_planned_at_once():
    began = time.perf_counter()
    geometry = Geometry(65_536, 32_768, transposed=True)
    assert len(layout.phases_of(geometry).taps) == 65_536
    assert choose(Problem(geometry, 16, 16, 100, torch.float32, "cpu")).rejected
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize("settings", [{}, {"stride": 2, "padding": 3}, {"dilation": 3}, {"groups": 2}])
def test_gradients_by_it(settings):
    groups = settings.get("groups", 1)
    x, w = torch.randn(2, 32, 200, requires_grad=True), torch.randn(40, 32 // groups, 5, requires_grad=True)
    b = torch.randn(40, requires_grad=True)
    wanted = torch.nn.functional.conv1d(x, w, b, **settings)
    grad = torch.randn_like(wanted)
    with tw.options(kernel=NAME):
        y = tw.conv1d(x, w, b, **settings)
        found = torch.autograd.grad(y, (x, w, b), grad)
        assert tw.explain(tw.Conv1d(32, 40, 5, **settings), x[:1].detach()).plan.training == (NAME, NAME, NAME)
    torch.testing.assert_close(y, wanted, rtol=1e-4, atol=1e-4)
    for one, other in zip(found, torch.autograd.grad(wanted, (x, w, b), grad), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)
