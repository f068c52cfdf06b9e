"""Long filters live: partitioned, without delay, equal."""

import pytest
import torch

import tapwise as tw
from streamed import streamed

F64 = torch.float64


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize(("taps", "left"), [(1024, 1023), (3000, 0), (5001, 2500)])
def test_long_filters_are_partitioned_and_equal(dtype, taps, left):
    from tapwise.streaming.long_filter import LongFilter

    layer = tw.Conv1d(2, 4, taps, padding=(left, taps - 1 - left), groups=2, dtype=dtype)
    x = torch.randn(2, 2, taps + 900, dtype=dtype)
    live = tw.stream(layer, x)
    assert isinstance(live._scheduler.operations[-1], LongFilter)
    offline = layer(x)
    for sizes in ([7] * 20, [240] * 5, [1, 0, 700]):
        sizes = [*sizes, x.shape[-1] - sum(sizes)]
        y = torch.cat(streamed(live, x, sizes), -1)
        torch.testing.assert_close(
            y, offline, rtol=1e-5 if dtype == torch.float32 else 1e-12, atol=2e-5 if dtype == torch.float32 else 1e-12
        )


def test_a_loud_burst_and_a_nan_stay_in_their_windows():
    layer = tw.Conv1d(1, 1, 1500, padding="causal", bias=False)
    x = torch.randn(1, 1, 6000)
    x[..., 2000], x[..., 100] = float("nan"), 1e20
    live = tw.stream(layer, torch.zeros(1, 1, 4000))
    y, offline = torch.cat(streamed(live, x, [100] * 60), -1), layer(x)
    assert torch.equal(y.isnan(), offline.isnan())
    known = ~offline.isnan()
    torch.testing.assert_close(y[known], offline[known], rtol=1e-4, atol=1e-4)


def test_a_long_filter_forks_in_mid_block():
    layer = tw.Conv1d(1, 1, 2000, padding="causal", dtype=F64)
    x = torch.randn(1, 1, 5000, dtype=F64)
    live = tw.stream(layer, x)
    live.reset(batch=2)
    both = x.expand(2, 1, -1)
    first = live.step(both[..., :1357])
    other = live.fork()
    live.reset(torch.tensor([False, True]))
    y, lengths = live.step(both[..., 1357:])
    rest = other.step(both[..., 1357:])
    assert lengths.tolist() == [3643, 3643]
    offline = layer(x)
    torch.testing.assert_close(torch.cat((first[:1], y[:1]), -1), offline)
    torch.testing.assert_close(torch.cat((first, rest), -1), offline.expand(2, 1, -1))
    torch.testing.assert_close(y[1:], layer(x[..., 1357:]))
