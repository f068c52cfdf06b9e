"""What transforms round, and where they give way to sums."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from against_the_oracle import check, expected, tensor
from strategies import convolutions
from tapwise.engine.kernels import KERNELS
from tapwise.engine.kernels.fft import segments
from tapwise.geometry import Geometry
from tapwise.padding import PADDING_MODES


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
    x, w = (torch.full((1, 1, 3000), huge, dtype=dtype), torch.full((1, 1, 1001), 1 / huge, dtype=dtype))
    y = KERNELS[kernel].run(Geometry(1001), x, w, None)
    torch.testing.assert_close(y, torch.full_like(y, 1001))


@pytest.mark.parametrize("loud", [1e6, 5e6, 1e12])
def test_taps_that_met_silence_alone_have_no_gradient_in_fft(loud):
    x, w = torch.zeros(1, 1, 40_000), torch.zeros(1, 1, 2001)
    x[..., 1000] = loud
    found = KERNELS["fft"].weight_gradient(Geometry(2001, padding=1000), x.clone(), x, w)
    silent = torch.arange(2001) != 1000
    assert found[0, 0, silent].abs().max() <= 1e-5
    assert found[0, 0, 1000] == pytest.approx(loud**2)


@pytest.fixture
def short_pieces(monkeypatch):
    monkeypatch.setattr(segments, "LONGEST", 40)


@pytest.mark.usefixtures("short_pieces")
@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("kernel", ["fft", "fft32"])
@pytest.mark.parametrize(
    ("taps", "stride", "dilation", "padding"),
    [
        (41, 1, 1, (0, 0)),
        (80, 1, 1, (79, 0)),
        (81, 3, 1, (7, 100)),
        (30, 1, 7, (250, 3)),
        (5, 2, 60, (0, 299)),
        (200, 1, 1, (199, 199)),
    ],
)
def test_filters_longer_than_a_transform_are_summed_in_pieces(kernel, taps, stride, dilation, padding, mode):
    geometry = Geometry(taps, stride, dilation, padding, 2, mode)
    assert segments.count(geometry) > 1
    random = np.random.default_rng(taps)
    x = tensor(random, 2, 4, 350, dtype=torch.float32)
    w = tensor(random, 6, 2, taps, dtype=torch.float32)
    b = tensor(random, 6, dtype=torch.float32)
    error = KERNELS[kernel].run(geometry, x, w, b).double().numpy() - expected(geometry, x, w, b)
    assert abs(error).max() <= 1e-5 * float(w.abs().sum((1, 2)).max())
    if stride == 1 and kernel == "fft":
        grad = tensor(random, 2, 6, geometry.output_length(350), dtype=torch.float32)
        found = KERNELS["fft"].weight_gradient(geometry, grad, x, w)
        summed = KERNELS["direct"].weight_gradient(geometry, grad.double(), x.double(), w.double())
        torch.testing.assert_close(found.double(), summed, rtol=1e-5, atol=1e-4)
