"""The processor's matrices against the oracle, over what they can run."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import oracle
from against_the_oracle import VIEWS, array, check, tensor
from marks import needs_matrices, slow_after
from tapwise.engine.kernels import amx as kernel
from tapwise.engine.kernels import native
from tapwise.engine.kernels.loops.spans import rows_read
from tapwise.engine.problem import Problem
from tapwise.geometry import Geometry

pytestmark = pytest.mark.usefixtures("poisoned")
HALF = torch.bfloat16


def check_wide(geometry, x, w, b=None):
    """A run on float32 against the oracle's products of rounded numbers: what is left is the rounding of sums."""
    y = kernel.run(geometry, x, w, b)
    settings = (geometry.stride, geometry.padding, geometry.dilation)
    rounded = array(x.to(HALF)), array(w.to(HALF)), array(b)
    truth = oracle.conv1d(*rounded, *settings)
    size = oracle.conv1d(*rounded, *settings, magnitude=True)
    assert y.dtype == torch.float32
    assert y.shape == truth.shape
    assert (abs(y.double().numpy() - truth) <= 1e-30 + 4 * torch.finfo(torch.float32).eps * size).all()
    exact = oracle.conv1d(array(x), array(w), array(b), *settings)
    assert (abs(y.double().numpy() - exact) <= 1e-30 + 2**-6.9 * size).all()  # as options says


@needs_matrices
@given(
    st.integers(1, 17), st.sampled_from([1, 1, 2, 3, 5]), st.integers(1, 9), st.integers(0, 12), st.integers(0, 12),
    st.integers(8, 70), st.integers(8, 70), st.integers(1, 600), st.sampled_from([0, 1, 2, 9]), st.booleans(), st.booleans(),
)  # fmt: skip
def test_any_geometry(kernel_size, stride, dilation, left, right, inputs, columns, outputs, batch, bias, is_wide):
    geometry = Geometry(kernel_size, stride, dilation, (left, right))
    random, dtype = np.random.default_rng(outputs), torch.float32 if is_wide else HALF
    x = tensor(random, batch, inputs, max(geometry.input_length(outputs), 1), dtype=dtype)
    w = tensor(random, columns, inputs, kernel_size, dtype=dtype)
    b = tensor(random, columns, dtype=dtype) if bias else None
    if is_wide:
        check_wide(geometry, x, w, b)
    else:
        assert check("amx", geometry, x, w, b)


@needs_matrices
@pytest.mark.parametrize("kernel_size", slow_after(7, [1, 2, 3, 7, 16, 31, 200, 4, 5, 64, 65, 128, 199]))
def test_every_kernel_size_and_lengths_around_a_block(kernel_size):
    """Against torch in float64, which the oracle is too slow to stand in for here."""
    random = np.random.default_rng(kernel_size)
    for inputs, columns in ((8, 8), (31, 33), (32, 16), (33, 17), (64, 96), (130, 49), (600, 40)):
        for outputs in (1, 15, 16, 17, 31, 33, 255, 256, 257, 600):
            for stride, dilation in ((1, 1), (1, 3), (2, 1), (3, 2)):
                if kernel_size > 31 and (inputs > 33 or dilation > 1):
                    continue
                geometry = Geometry(kernel_size, stride, dilation, (kernel_size - 1, 0))
                x = tensor(random, 1, inputs, max(geometry.input_length(outputs), 1), dtype=torch.float32)
                w = tensor(random, columns, inputs, kernel_size, dtype=torch.float32)
                rounded = x.to(HALF).double(), w.to(HALF).double()
                wanted, size = (native.run(geometry, *some, None) for some in (rounded, [n.abs() for n in rounded]))
                error = (kernel.run(geometry, x, w, None).double() - wanted).abs()
                assert (error <= 4 * torch.finfo(torch.float32).eps * size).all()


@needs_matrices
@pytest.mark.parametrize("dtype", [torch.float32, HALF])
@pytest.mark.parametrize("view", VIEWS)
def test_views(view, dtype):
    random = np.random.default_rng(0)
    x, w = (tensor(random, *shape, dtype=dtype) for shape in ((3, 16, 90), (24, 16, 5)))
    geometry, b = Geometry(5, padding="same"), tensor(random, 48, dtype=dtype)[::2]
    for signal, weight, bias in ((VIEWS[view](x), w, None), (x, VIEWS[view](w), None), (x, w, b)):
        wanted = kernel.run(geometry, signal.contiguous(), weight.contiguous(), None if bias is None else bias.clone())
        assert torch.equal(kernel.run(geometry, signal, weight, bias), wanted)
    assert check("amx", geometry, x.to(HALF), w.to(HALF), b.to(HALF))


@needs_matrices
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 3e38])
@pytest.mark.parametrize(("kernel_size", "stride", "dilation"), [(3, 1, 1), (4, 2, 2), (11, 1, 3)])
def test_what_is_not_finite_reaches_its_windows_alone(value, kernel_size, stride, dilation):
    random = np.random.default_rng(0)
    geometry = Geometry(kernel_size, stride, dilation, 5)
    x = tensor(random, 3, 20, 700, dtype=torch.float32)
    w = tensor(random, 20, 20, kernel_size, dtype=torch.float32)
    before = kernel.run(geometry, x, w, None)
    for position in (0, 3, 256, 300, 699):
        z = x.clone()
        z[1, 7, position] = value
        y, wanted = kernel.run(geometry, z, w, None), native.run(geometry, z, w, None)
        assert torch.equal(y.isnan(), wanted.isnan())
        if abs(value) == float("inf"):
            assert torch.equal(y.isinf(), wanted.isinf())
        same = wanted == native.run(geometry, x, w, None)
        assert torch.equal(y[same], before[same])


@needs_matrices
def test_the_same_bits_in_any_batch_and_on_any_number_of_threads():
    x, w = torch.randn(5, 24, 1000), torch.randn(40, 24, 7)
    geometry, before = Geometry(7, padding=3), torch.get_num_threads()
    y = kernel.run(geometry, x, w, None)
    assert torch.equal(kernel.run(geometry, x[3:4], w, None), y[3:4])
    try:
        torch.set_num_threads(1 if before > 1 else 2)
        assert torch.equal(kernel.run(geometry, x, w, None), y)
    finally:
        torch.set_num_threads(before)


@needs_matrices
def test_numbers_are_rounded_as_torch_rounds_them():
    bits = torch.randint(-(2**31), 2**31 - 1, (1, 8, 4096), dtype=torch.int32)
    x = bits.view(torch.float32)
    # Subnormal numbers count as zeros; an infinite one would reach all outputs.
    x[~x.isfinite() | (x.abs() < 1e-30) | (x.abs() > 3e38)] = 1.0
    w = torch.eye(8).reshape(8, 8, 1)
    assert torch.equal(kernel.run(Geometry(1), x, w, None), x.to(HALF).float())
    taps = x[0, :, :8].contiguous().reshape(8, 8, 1)  # and so are weights
    one = torch.eye(8)[None]
    assert torch.equal(kernel.run(Geometry(1), one, taps, None), taps[None, :, :, 0].to(HALF).float())


REFUSED = {
    "bfloat16, not float32": (Geometry(3), 16, 16, torch.float32),
    "one group": (Geometry(3, groups=2), 16, 16, HALF),
    "convolutions": (Geometry(3, transposed=True), 16, 16, HALF),
    "8 channels": (Geometry(3), 7, 16, HALF),
    "zeros alone": (Geometry(3, padding=1, padding_mode="reflect"), 16, 16, HALF),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_it_cant_run_it_says(words):
    geometry, inputs, outputs, dtype = REFUSED[words]
    assert words in kernel.why_not(Problem(geometry, inputs, outputs, 100, dtype, "cpu"))


@needs_matrices
@pytest.mark.parametrize(("dilation", "stride"), [(300, 1), (5000, 1), (700, 3)])
def test_taps_far_from_each_other_read_their_own_rows_alone(dilation, stride):
    geometry = Geometry(3, stride, dilation, (dilation, 7))
    x, w = torch.randn(2, 40, 2 * dilation + 1500), torch.randn(33, 40, 3)
    wanted = native.run(geometry, x.to(HALF).double(), w.to(HALF).double(), None)
    torch.testing.assert_close(kernel.run(geometry, x, w, None).double(), wanted, rtol=1e-5, atol=1e-4)


def test_rows_that_a_block_reads():
    assert rows_read(256, 3, 5000, 1) == 768
    assert rows_read(256, 3, 1, 1) == 258


@needs_matrices
@pytest.mark.parametrize("place", range(3))
def test_memory_that_was_freed_is_not_read(place):
    given = [torch.randn(1, 32, 500), torch.randn(32, 32, 3), torch.randn(32)]
    given[place].untyped_storage().resize_(8)
    with pytest.raises(RuntimeError, match="lies beyond its memory"):
        kernel.run(Geometry(3), *given)


@needs_matrices
def test_a_forked_child_may_use_the_matrices():
    code = (
        "import os, torch, tapwise as tw\n"
        "x, w = torch.randn(1, 32, 500).bfloat16(), torch.randn(32, 32, 3).bfloat16()\n"
        "with tw.options(kernel='amx'):\n"
        "    y = tw.conv1d(x, w)\n"
        "    if (child := os.fork()) == 0:\n"
        "        os._exit(0 if torch.equal(tw.conv1d(x, w), y) else 1)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
