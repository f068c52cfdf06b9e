"""Minimal filtering against the oracle, over what it can run; and where it gives way."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tapwise as tw
from against_the_oracle import VIEWS, check, check_not_finite, problem_of, tensor
from marks import slow_after
from tapwise.engine.kernels import KERNELS, native
from tapwise.engine.kernels import winograd as kernel
from tapwise.engine.problem import Problem
from tapwise.geometry import Geometry

pytestmark = pytest.mark.usefixtures("poisoned")


@given(
    st.integers(2, 17), st.integers(1, 9), st.integers(0, 12), st.integers(0, 12), st.integers(8, 40),
    st.integers(8, 70), st.integers(1, 450), st.sampled_from([0, 1, 2, 9]), st.booleans(),
    st.sampled_from([torch.float32, torch.float32, torch.float16, torch.bfloat16]),
)  # fmt: skip
def test_any_geometry(kernel_size, dilation, left, right, inputs, columns, outputs, batch, bias, dtype):
    geometry = Geometry(kernel_size, dilation=dilation, padding=(left, right))
    random = np.random.default_rng(outputs)
    x = tensor(random, batch, inputs, max(geometry.input_length(outputs), 1), dtype=dtype)
    w = tensor(random, columns, inputs, kernel_size, dtype=dtype)
    assert check("winograd", geometry, x, w, tensor(random, columns, dtype=dtype) if bias else None)


@pytest.mark.parametrize(
    "kernel_size", slow_after(6, [2, 3, 4, 5, 7, 12, 6, 8, 9, 11, 16, 17, 32, 33, 64, 65, 128, 199, 200])
)
def test_every_kernel_size_and_lengths_around_a_block(kernel_size):
    random = np.random.default_rng(kernel_size)
    for inputs, columns in ((8, 8), (15, 17), (16, 33), (40, 65), (8, 150)):
        for outputs in (1, 3, 4, 5, 96, 97, 193, 1537):
            for dilation in (1, 3, 32):
                if outputs > 100 and (dilation > 1 or inputs not in (15, 40)):
                    continue
                geometry = Geometry(kernel_size, dilation=dilation, padding=(kernel_size - 1, 0))
                x = tensor(random, 1, inputs, max(geometry.input_length(outputs), 1), dtype=torch.float32)
                assert check("winograd", geometry, x, tensor(random, columns, inputs, kernel_size, dtype=torch.float32))


# Kernel sizes and strides whose tiles save products.
STRIDED = [(3, 2), (4, 2), (7, 2), (5, 3), (8, 4), (15, 2), (16, 8), (6, 4), (25, 4), (64, 16), (199, 5)]


@given(
    st.sampled_from(STRIDED), st.integers(0, 12), st.integers(0, 12), st.integers(8, 20), st.integers(8, 40),
    st.integers(1, 230), st.integers(0, 9), st.sampled_from([0, 1, 2, 9]),
    st.sampled_from([torch.float32, torch.float32, torch.float16, torch.bfloat16]),
)  # fmt: skip
def test_any_stride(pair, left, right, inputs, columns, outputs, extra, batch, dtype):
    kernel_size, stride = pair
    geometry = Geometry(kernel_size, stride, padding=(left, right))
    random = np.random.default_rng(outputs)
    x = tensor(random, batch, inputs, max(geometry.input_length(outputs), 1) + extra % stride, dtype=dtype)
    assert check("winograd", geometry, x, tensor(random, columns, inputs, kernel_size, dtype=dtype))


@pytest.mark.parametrize("view", VIEWS)
def test_views(view):
    random = np.random.default_rng(0)
    x, w = (tensor(random, *shape, dtype=torch.float32) for shape in ((3, 16, 90), (24, 16, 5)))
    geometry = Geometry(5, padding="same")
    assert check("winograd", geometry, VIEWS[view](x), w)
    assert check("winograd", geometry, x, VIEWS[view](w))
    assert check("winograd", geometry, x, w, tensor(random, 48, dtype=torch.float32)[::2])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 3e38])
@pytest.mark.parametrize(
    ("kernel_size", "stride", "dilation"),
    [(2, 1, 1), (3, 1, 1), (4, 1, 2), (5, 1, 1), (11, 1, 3), (3, 2, 1), (8, 4, 1), (7, 2, 1)],
)
def test_what_is_not_finite_reaches_its_windows_alone(value, kernel_size, stride, dilation):
    random = np.random.default_rng(0)
    geometry = Geometry(kernel_size, stride, dilation, padding=5)
    x = tensor(random, 3, 16, 400, dtype=torch.float32)
    w = tensor(random, 20, 16, kernel_size, dtype=torch.float32)
    w[:, :, 1] = 0
    check_not_finite("winograd", geometry, x, w, value)


def test_a_loud_burst_leaves_no_trace_beyond_the_tiles_that_hold_it():
    random = np.random.default_rng(0)
    x = tensor(random, 1, 16, 600, dtype=torch.float32)
    for kernel_size, dilation in ((3, 1), (7, 2), (5, 3)):
        w = tensor(random, 16, 16, kernel_size, dtype=torch.float32)
        geometry = Geometry(kernel_size, dilation=dilation, padding="same")
        before, loud = kernel.run(geometry, x, w, None), x.clone()
        loud[..., 300:310] *= 1e20
        after = kernel.run(geometry, loud, w, None)
        assert check("winograd", geometry, loud, w)
        reach = (kernel_size + 8) * dilation
        assert torch.equal(before[..., : 300 - reach], after[..., : 300 - reach])
        assert torch.equal(before[..., 310 + reach :], after[..., 310 + reach :])


def test_weights_that_are_not_finite():
    x, w = torch.randn(2, 8, 50), torch.randn(9, 8, 3)
    w[4, 2, 1] = float("inf")
    y, wanted = (run(Geometry(3), x, w, None) for run in (kernel.run, native.run))
    assert torch.equal(y.isfinite(), wanted.isfinite())
    torch.testing.assert_close(y, wanted, rtol=1e-4, atol=1e-4)


def test_the_same_bits_in_any_batch_and_on_any_number_of_threads():
    x, w = torch.randn(5, 24, 1000), torch.randn(40, 24, 7)
    geometry, before = Geometry(7, padding=3), torch.get_num_threads()
    y = kernel.run(geometry, x, w, None)
    assert torch.equal(kernel.run(geometry, x[3:4], w, None), y[3:4])
    try:
        torch.set_num_threads(1 if before > 1 else 2)
        assert torch.equal(kernel.run(geometry, x, w, None), y)
        x[1, 2, 3] = float("nan")  # a row that another kernel computes
        spoiled = kernel.run(geometry, x, w, None)
        torch.set_num_threads(before)
        assert torch.equal(kernel.run(geometry, x, w, None).nan_to_num(9), spoiled.nan_to_num(9))
    finally:
        torch.set_num_threads(before)


REFUSED = {
    "float64": (Geometry(3), 16, 16, torch.float64),
    "a stride or a dilation": (Geometry(3, 2, 2), 16, 16, torch.float32),
    "of one group": (Geometry(3, groups=2), 16, 16, torch.float32),
    "none transposed": (Geometry(3, transposed=True), 16, 16, torch.float32),
    "1 taps at stride 1": (Geometry(1), 16, 16, torch.float32),
    "5 taps at stride 4": (Geometry(5, 4), 16, 16, torch.float32),
    "8 channels": (Geometry(3), 7, 16, torch.float32),
    "at most 32": (Geometry(3, dilation=33), 16, 16, torch.float32),
    "zeros alone": (Geometry(3, padding=1, padding_mode="reflect"), 16, 16, torch.float32),
    "not int64": (Geometry(3), 16, 16, torch.int64),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_it_cant_run_it_says(words):
    geometry, inputs, outputs, dtype = REFUSED[words]
    assert words in kernel.why_not(Problem(geometry, inputs, outputs, 100, dtype, "cpu"))
    x, w = torch.ones(1, 16, 100).to(dtype), torch.ones(16, 16 // geometry.groups, geometry.kernel_size).to(dtype)
    if inputs == 16 and not geometry.transposed:
        with tw.options(kernel="winograd"):  # elsewhere native runs
            y = tw.conv1d(
                x, w, None, geometry.stride, geometry.padding, geometry.dilation, geometry.groups, geometry.padding_mode
            )
        torch.testing.assert_close(y, native.run(geometry, x, w, None))


def test_exact_excludes_it():
    x, w = torch.randn(1, 64, 4096), torch.randn(64, 64, 7)
    problem = problem_of(Geometry(7), x, w)
    with pytest.raises(ValueError, match="which exact=True excludes"), tw.options(kernel="winograd", exact=True):
        pass
    with tw.options(exact=True):
        plan = tw.explain(tw.Conv1d(64, 64, 7), x).plan
        assert dict(plan.rejected)["winograd"] == "is excluded by options(exact=True)"
    assert KERNELS["winograd"].why_not(problem) is None
    assert "7 products for 4 outputs" in kernel.tiles(problem_of(Geometry(4), x, w[..., :4]))
    assert "14 products for 4 outputs" in kernel.tiles(problem)
    assert "20 products for 4 outputs" in kernel.tiles(problem_of(Geometry(8, 4), x, torch.randn(64, 64, 8)))


def test_gradients_by_it():
    x, w = torch.randn(2, 32, 200, requires_grad=True), torch.randn(40, 32, 5, requires_grad=True)
    b = torch.randn(40, requires_grad=True)
    grad = torch.randn(2, 40, 200)
    with tw.options(kernel="winograd"):
        found = torch.autograd.grad(tw.conv1d(x, w, b, padding=2), (x, w, b), grad)
    wanted = torch.autograd.grad(torch.nn.functional.conv1d(x, w, b, padding=2), (x, w, b), grad)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)
