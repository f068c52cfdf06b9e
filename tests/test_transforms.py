"""What transforms round, and where they give way to sums."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from against_the_oracle import check, expected, tensor
from strategies import convolutions
from tapwise.engine.kernels import KERNELS
from tapwise.geometry import Geometry


@given(convolutions(), st.booleans())
def test_fft32_errs_by_the_loudest_sample_around(case, bias):
    geometry, length = case
    random = np.random.default_rng(length)
    x = tensor(random, 2, geometry.groups, length, dtype=torch.float32)
    w = tensor(random, geometry.groups, 1, geometry.kernel_size, dtype=torch.float32)
    b = tensor(random, geometry.groups, dtype=torch.float32) if bias else None
    y = KERNELS["fft32"].run(geometry, x, w, b)
    error = abs(y.double().numpy() - expected(geometry, x, w, b))
    size = float(x.abs().max() * w.abs().sum(-1).max()) if length else 0
    assert error.max(initial=0) <= 1e-5 + 16 * torch.finfo(torch.float32).eps * size


@pytest.mark.parametrize("channels", [1, 2, 12])
@pytest.mark.parametrize("loudest", [1e4, 3e6, 1e9, 1e30])
def test_a_loud_burst_leaves_no_trace_in_what_fft_makes_of_quiet_samples(loudest, channels):
    random = np.random.default_rng(0)
    x = tensor(random, 2, channels, 5000, dtype=torch.float32) * 1e-3
    x[:, 0, 3000:3010] *= loudest
    w = tensor(random, 3, channels, 400, dtype=torch.float32)
    geometry = Geometry(400, padding=(399, 3))
    assert check("fft", geometry, x, w)
    y = KERNELS["fft"].run(geometry, x, w, None)[..., :3000].double().numpy()
    truth = expected(geometry, x, w, None)[..., :3000]
    assert abs(y - truth).max() <= 1e-5 * abs(truth).max()


@pytest.mark.parametrize("kernel", ["fft", "direct"])
def test_a_filter_that_holds_no_finite_number_spoils_its_own_channel_only(kernel):
    w = torch.ones(2, 1, 300)
    w[1, 0, 7] = float("nan")
    y = KERNELS[kernel].run(Geometry(300, groups=2), torch.ones(1, 2, 900), w, None)
    assert y[0, 0].isfinite().all()
    assert y[0, 1].isnan().all()


@pytest.mark.parametrize("loud", [1e10, 1e20])
def test_silence_before_a_loud_sample_stays_silent_in_fft(loud):
    x = torch.zeros(1, 1, 20_000)
    x[..., 15_000] = loud
    w = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 1, 2001))).float()
    y = KERNELS["fft"].run(Geometry(2001, padding="causal"), x, w, None)
    assert y[..., :15_000].abs().max() == 0


@pytest.mark.parametrize("kernel", ["fft", "fft32"])
def test_what_a_transform_would_overflow_is_summed(kernel):
    dtype, huge = (torch.float64, 1e306) if kernel == "fft" else (torch.float32, 1e36)
    x, w = (
        torch.full((1, 1, 3000), huge, dtype=dtype),
        torch.full((1, 1, 1001), 1 / huge, dtype=dtype),
    )
    y = KERNELS[kernel].run(Geometry(1001), x, w, None)
    torch.testing.assert_close(y, torch.full_like(y, 1001))
