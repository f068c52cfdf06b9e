"""The weight's gradient of every kernel that has one."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tapwise as tw
from against_the_oracle import FLOATS, expected_weight_gradient, tensor
from strategies import convolutions
from tapwise.engine import costs
from tapwise.engine.kernels import KERNELS, fft
from tapwise.engine.kernels.fft import frames
from tapwise.engine.problem import Problem
from tapwise.engine.rates import current_rates
from tapwise.geometry import Geometry


@pytest.mark.parametrize("kernel", [k for k in KERNELS if KERNELS[k].weight_gradient])
@given(convolutions(), st.sampled_from([1, 2, 9]), st.integers(1, 5), st.integers(1, 5), st.sampled_from(FLOATS))
def test_the_weights_gradient_sums_what_each_tap_met(kernel, case, batch, fan_in, fan_out, dtype):
    geometry, length = case
    posed = Problem(geometry, geometry.groups, geometry.groups, length, dtype, "cpu")
    if kernel == "implicit_gemm" and dtype != torch.float32:
        return
    if costs.GRAD_WEIGHT_COSTS[kernel](posed, 2, current_rates()) == float("inf"):
        return
    random = np.random.default_rng(length)
    groups, taps = geometry.groups, geometry.kernel_size
    x = tensor(random, batch, fan_in * groups, length, dtype=dtype)
    w = tensor(random, fan_out * groups, fan_in, taps, dtype=dtype)
    g = tensor(random, batch, fan_out * groups, geometry.output_length(length), dtype=dtype)
    found = KERNELS[kernel].weight_gradient(geometry, g, x, w).double().numpy()
    truth, size = expected_weight_gradient(geometry, g, x, w.shape)
    assert (abs(found - truth) <= 1e-6 + 16 * torch.finfo(dtype).eps * size).all()


@pytest.mark.parametrize("kernel", ["direct", "implicit_gemm"])
@pytest.mark.parametrize(
    "shape", [(1, 1, 3, 300_000, 1), (64, 64, 4, 3000, 64), (48, 40, 5, 700, 1), (128, 8, 3, 20_000, 1)]
)
def test_the_weights_gradient_is_the_same_bits_for_any_count_of_threads(kernel, shape):
    channels, outputs, taps, length, groups = shape
    random, before = np.random.default_rng(0), torch.get_num_threads()
    x = tensor(random, 2, channels, length, dtype=torch.float32)
    w = tensor(random, outputs, channels // groups, taps, dtype=torch.float32)
    geometry = Geometry(taps, padding="causal", groups=groups)
    g = tensor(random, 2, outputs, length, dtype=torch.float32)
    found = []
    try:
        for threads in (1, 2, 3, 2):
            torch.set_num_threads(threads)
            found.append(KERNELS[kernel].weight_gradient(geometry, g, x, w))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(found[0], other) for other in found)
    native = KERNELS["native"].weight_gradient(geometry, g.double(), x.double(), w.double())
    torch.testing.assert_close(found[0].double(), native, rtol=1e-5, atol=1e-4 * length**0.5)


@pytest.mark.parametrize(("channels", "outputs", "groups"), [(1, 1, 1), (2, 1, 1), (2, 3, 1), (4, 4, 4)])
def test_the_weights_gradient_of_many_frames_in_many_turns(channels, outputs, groups):
    random, geometry = np.random.default_rng(0), Geometry(300, groups=groups)
    x = tensor(random, 2, channels, 40_000, dtype=torch.float32)
    w = tensor(random, outputs, channels // groups, 300, dtype=torch.float32)
    g = tensor(random, 2, outputs, 39_701, dtype=torch.float32)
    truth = KERNELS["direct"].weight_gradient(geometry, g.double(), x.double(), w.double())
    found = KERNELS["fft"].weight_gradient(geometry, g, x, w)
    torch.testing.assert_close(found.double(), truth, rtol=1e-6, atol=1e-6 * float(truth.abs().max()))


def test_groups_that_hold_large_totals_take_turns(monkeypatch):
    random, geometry = np.random.default_rng(0), Geometry(20, groups=6)
    x = tensor(random, 2, 48, 60, dtype=torch.float64)
    w = tensor(random, 48, 8, 20, dtype=torch.float64)
    g = tensor(random, 2, 48, 41, dtype=torch.float64)
    truth = KERNELS["direct"].weight_gradient(geometry, g, x, w)
    held = []
    added = fft._added
    monkeypatch.setattr(fft, "_added", lambda *some: held.append(added(*some)) or held[-1])
    monkeypatch.setattr(frames, "A_TURN", 1 << 14)
    torch.testing.assert_close(KERNELS["fft"].weight_gradient(geometry, g, x, w), truth)
    assert max(total.nelement() * 2 for total in held) <= 4 * frames.A_TURN + 4096
    assert len({id(total) for total in held}) > 1


def test_a_gradient_is_no_view_and_may_be_changed_in_place():
    x, w = (torch.randn(1, 2, 50, dtype=torch.float64) for _ in range(2))
    w = w[..., :5].contiguous().requires_grad_()
    with tw.options(kernel="direct"):
        (found,) = torch.autograd.grad(tw.conv1d(x, w).sum(), w)
    assert found._base is None
    found.mul_(w)
