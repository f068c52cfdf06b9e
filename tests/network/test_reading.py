"""How models are read: which axis is time, which lengths there are, what is no part of the signal."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tapwise as tw
from networks import Of
from small_models import F64, X, conv, signal
from streamed import streamed
from tapwise.network.graph import Count

# What a model returns beside the signal


def test_a_length_that_is_returned_is_followed():
    model = Of(lambda self, x: (self.c(x), torch.tensor([x.shape[-1]]), self.c(x).shape[-1]), c=conv())
    live = tw.stream(model, X)
    x = signal(1, 4, 100)
    parts = streamed(live, x, [30, 70])
    assert [int(p[1]) for p in parts] == [30, 100, 100]
    assert [p[2] for p in parts] == [28, 98, 98]
    assert type(parts[-1][2]) is int
    offline = model(x)
    assert torch.equal(parts[-1][1], offline[1])
    torch.testing.assert_close(torch.cat([p[0] for p in parts], -1), offline[0])


def test_lengths_of_rows_and_of_frames_are_followed():
    model = Of(lambda self, x: (self.c(x), torch.full((x.shape[0],), (x.shape[-1] + 3) // 4)), c=conv(stride=4))
    live = tw.stream(model, X)
    x = signal(3, 4, 81)
    parts = streamed(live, x, [1, 50, 30])
    assert torch.equal(parts[-1][1], model(x)[1])
    live.reset(batch=2)
    live.step(signal(2, 4, 40))
    live.reset(torch.tensor([True, False]))
    (_, lengths), _ = live.step(signal(2, 4, 40))
    assert lengths.tolist() == [10, 20]


def test_one_length_for_all_rows_has_no_slots():
    live = tw.stream(Of(lambda self, x: (self.c(x), x.shape[-1]), c=conv()), X)
    live.step(signal(2, 4, 40))
    with pytest.raises(tw.ShapeError, match="rows"):
        live.reset(torch.tensor([True, False]))


@pytest.mark.parametrize(
    "beside",
    [
        lambda x: torch.arange(x.shape[-1]),
        lambda x: torch.ones(x.shape[0], x.shape[-1], dtype=torch.bool),
        lambda x: x.shape[-1] / 7,
        lambda x: f"{x.shape[-1]} samples",
        lambda x: x.shape[-1] > 64,
        lambda x: float("inf") if x.shape[-1] % 2 else 1.0,
    ],
)
def test_what_depends_on_the_length_otherwise_is_refused(beside):
    with pytest.raises(tw.TimelineError, match="output in the model itself"):
        tw.stream(Of(lambda self, x: (self.c(x), beside(x)), c=conv()), X)


def test_counts_are_fitted():
    assert Count.fitted([8, 9, 10], [8, 9, 10]) == (1, 0)
    assert Count.fitted([8, 9, 10, 11, 12], [5, 5, 6, 6, 7]) == (pytest.approx(0.5), pytest.approx(1))
    assert Count.fitted([8, 9, 10], [3, 3, 3]) is None
    assert Count.fitted([8, 9, 10, 11], [8, 1, 10, 5]) is None


# Limits


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda self, x: x[..., :10_000], "keeps the first 10000 samples"),
        (lambda self, x: x[..., -10_000:], "keeps the last 10000 samples"),
        (lambda self, x: x[..., :10], "keeps the first 10 samples"),
        (lambda self, x: x * (torch.arange(x.shape[-1]) < 5000), "grows with the signal|compares positions"),
        (lambda self, x: x * (torch.arange(x.shape[-1]) < 400_000), "compares positions with 400000"),
        (
            lambda self, x: x * (torch.ones(x.shape[-1]).cumsum(0).clamp(max=900_000) > 0),
            "compares positions with 900000",
        ),
        (lambda self, x: x[..., : min(x.shape[-1], 10_000)], "cuts the end|differ in length"),
        (lambda self, x: x * torch.arange(x.shape[-1]).clamp(max=300_000), "compares positions with 300000"),
        (lambda self, x: x * (torch.arange(x.shape[-1]) % 300_000), "compares positions with 300000"),
        (lambda self, x: [m := torch.ones(x.shape[-1]), m.__setitem__(slice(300_000, None), 0.0), x * m][-1], "300000"),
        (lambda self, x: x * torch.ones(1, x.shape[-1]).tril(300_000), "compares positions with 300000"),
        (lambda self, x: F.relu(x) if x.shape[-1] > 10_000 else x, "other operations"),
    ],
)
def test_limits_beyond_the_lengths_that_were_read_are_refused(function, words):
    with pytest.raises(tw.TimelineError, match=words):
        tw.stream(Of(function), X)


def test_a_mask_as_long_as_the_signal_is_no_limit():
    model = Of(lambda self, x: self.c(x) * (torch.arange(x.shape[-1]) < x.shape[-1]), c=conv(padding=1))
    assert tw.verify_stream(model, X) < 1e-12


# The axis of time, and lengths in multiples


def test_the_batch_is_never_time():
    report = tw.inspect(Of(lambda self, x: x.view(x.shape[0], -1, 8).mean(-1)), signal(3, 64))
    assert report.receptive_field == (0, 7)
    assert report.stride == 8
    assert "axis 1 of the input (3, length); lengths: multiples of 8" in report.text
    with pytest.raises(ValueError, match="made longer along axis 1"):
        tw.inspect(Of(lambda self, x: F.linear(x, torch.ones(5, 64, dtype=F64))), signal(3, 64))


class DownAndUp(nn.Module):
    """Pooled twice, upsampled twice, joined with what was before: for multiples of four."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = conv(padding=1), conv(padding=1), conv(padding=1, fan_in=8)

    def forward(self, x):
        x = x.reshape(x.shape[0], 4, -1)
        y = self.a(x)
        z = F.interpolate(self.b(F.max_pool1d(y, 4)), scale_factor=4.0)
        return self.c(torch.cat((y, z), 1))


def test_models_for_multiples_are_streamed():
    model = DownAndUp()
    live = tw.stream(model, X)
    assert live.graph.multiple == 4
    for length in (4, 40, 132):
        x = signal(2, 4, length)
        y = torch.cat(streamed(live, x, [1, length - 1]), -1)
        torch.testing.assert_close(y, model(x))
        live.reset()
    parts = [live.step(x[..., :7])]
    with pytest.raises(tw.ShapeError, match=r"7 samples(?s:.*)a multiple of 4(?s:.*)1 more samples"):
        live.flush()
    parts += [live.step(x[..., 7:8]), live.flush()]
    torch.testing.assert_close(torch.cat(parts, -1), model(x[..., :8]))
    assert tw.verify_stream(model, X) < 1e-12
    report = tw.inspect(model, X)
    assert report.receptive_field == (-9, 9)
    assert report.output_length(64) == 64
    with pytest.raises(ValueError, match=r"no signal of 65 samples(?s:.*)multiples of 4"):
        report.output_length(65)


def test_slots_that_end_between_two_multiples_are_named():
    live = tw.stream(DownAndUp(), X)
    live.step(signal(3, 4, 10))
    live.reset(torch.tensor([False, True, False]))
    live.step(signal(3, 4, 6))
    with pytest.raises(tw.ShapeError, match=r"6 samples in slot 1(?s:.*)active\(mask\)"):
        live.flush()
    only = torch.tensor([False, True, False])
    live.active(only)
    live.step(torch.zeros(3, 4, 2, dtype=F64))
    live.flush(only)
    live.active([True] * 3)
    live.flush(torch.tensor([True, False, True]))


def test_lengths_may_be_a_multiple_and_more():
    model = Of(lambda self, x: self.c(x).view(x.shape[0], 4, -1, 5).sum(-1), c=conv())
    x = signal(1, 4, 62)
    assert tw.verify_stream(model, x) < 1e-12
    assert "multiples of 5 and 2 more" in tw.inspect(model, x).text
    live = tw.stream(model, x)
    live.step(x[..., :50])
    with pytest.raises(tw.ShapeError, match=r"2 more than a multiple of 5(?s:.*)2 more samples"):
        live.flush()


# Several signals


def test_a_mask_as_long_as_the_signal_is_a_signal():
    model = Of(lambda self, x, mask: torch.where(mask, self.c(x), 0.0), c=conv(padding=1))
    x, mask = signal(1, 4, 50), signal(1, 1, 50) > 0
    live = tw.stream(model, (x, mask))
    parts = [live.step(a, b) for a, b in zip(x.split(7, -1), mask.split(7, -1), strict=True)] + [live.flush()]
    torch.testing.assert_close(torch.cat(parts, -1), model(x, mask))
    assert "the inputs 0, 1 are signals" in tw.inspect(model, (x, mask)).text
    assert tw.verify_stream(model, (x, mask)) < 1e-12
    with pytest.raises(tw.ShapeError, match="another number of signals"):
        live.step(x)
    with pytest.raises(tw.ShapeError, match="same time"):
        live.step(x, mask[..., :3])
    with pytest.raises(tw.TimelineError, match="several signals"):
        live.functional(4)


@pytest.mark.parametrize("mel_first", [True, False])
def test_signals_of_two_rates(mel_first):
    def vocoder(self, mel, noise):
        return self.c(noise) + F.interpolate(mel, scale_factor=8.0)

    model = Of(vocoder if mel_first else lambda self, noise, mel: vocoder(self, mel, noise), c=conv(padding=1))
    mel, noise = signal(2, 4, 12), signal(2, 4, 96)
    inputs = (mel, noise) if mel_first else (noise, mel)
    live = tw.stream(model, inputs)
    sizes = [1, 4, 7]
    mels, noises = mel.split(sizes, -1), noise.split([8 * n for n in sizes], -1)
    pairs = zip(mels, noises, strict=True) if mel_first else zip(noises, mels, strict=True)
    parts = [live.step(*pair) for pair in pairs] + [live.flush()]
    torch.testing.assert_close(torch.cat(parts, -1), model(*inputs))
    live.reset(batch=2)
    live.step(*(part[..., : 8 if part is noise else 1] for part in inputs))
    live.reset(torch.tensor([True, False]))
    _, lengths = live.step(*(part[..., : 8 if part is noise else 1] for part in inputs))
    assert len(lengths) == 2
    other = tw.stream(model, inputs)
    other.load_state(live.state)
    assert other.seen == live.seen


def test_an_input_that_is_stretched_or_cut_to_the_signals_length_is_a_signal():
    def stretched(self, x, c):
        return self.c(x) + F.interpolate(c, size=x.shape[-1])

    def cut(self, x, c):
        n = min(x.shape[-1], c.shape[-1])
        return self.c(x)[..., :n] * c[..., :n]

    for function, c in ((stretched, signal(1, 4, 16)), (cut, signal(1, 4, 64))):
        model = Of(function, c=conv(padding=1))
        assert tw.stream(model, (X, c)).graph.places == (0, 1)
        assert tw.verify_stream(model, (X, c)) < 1e-12


# Cost


def test_a_wide_receptive_field_over_a_long_hop_costs_little():
    import time
    import tracemalloc

    model = nn.Sequential(
        nn.Conv1d(1, 1, 200, padding=100),
        nn.Conv1d(1, 4, 640, stride=320, padding=160),
        nn.ConvTranspose1d(4, 1, 640, stride=320, padding=160),
        nn.Conv1d(1, 1, 200, padding=100),
    )
    tracemalloc.start()
    start = time.perf_counter()
    report = tw.inspect(model, torch.zeros(1, 1, 3200))
    assert report.receptive_field == (-839, 837)
    assert report.count == 1479
    assert report.text
    seconds, (_, peak) = time.perf_counter() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200e6
    assert seconds < 30  # some two, where nothing else runs; every pair took 21 and more


def test_attention_is_blamed_and_not_what_it_rotates():
    def attends(self, x):
        y = F.max_pool1d(x, 8).mT
        angle = torch.outer(torch.arange(y.shape[1], dtype=F64), torch.tensor([1.0, 0.1], dtype=F64)).repeat(1, 2)
        q, k = y * angle.cos(), y * angle.sin()
        return (torch.softmax(q @ k.mT, -1) @ y).mT

    def fused(self, x):
        y = F.max_pool1d(x, 8).mT
        y = y * torch.arange(y.shape[1]).sin()[:, None]
        return F.scaled_dot_product_attention(y, y, y).mT

    for model, words in (
        (attends, "matmul in the model itself: multiplies the signal by itself"),
        (fused, "attends to all"),
    ):
        with pytest.raises(tw.TimelineError, match=words):
            tw.inspect(Of(model), X)


def test_what_is_no_limit_is_not_taken_for_one():
    rows = torch.arange(2.0, dtype=F64)[:, None, None]
    for model in (
        Of(lambda self, x: x * (torch.arange(x.shape[0], dtype=F64) + 1)[:, None, None]),
        Of(lambda self, x: F.conv1d(x, torch.arange(12.0, dtype=F64).reshape(4, 1, 3), groups=4)),
        Of(lambda self, x: x + rows[: x.shape[0]]),
    ):
        assert tw.verify_stream(model, signal(2, 4, 40)) < 1e-12


def test_a_limit_below_the_examples_own_length_is_seen():
    wide = nn.Conv1d(1, 700, 1).double()  # too many numbers for the longest runs
    model = Of(lambda self, x: self.wide(x[..., : min(x.shape[-1], 6000)]), wide=wide)
    with pytest.raises(tw.TimelineError, match="cuts the end"):
        tw.inspect(model, signal(1, 1, 7000))


def test_counts_that_are_other_for_short_signals_are_refused():
    with pytest.raises(tw.TimelineError, match="what the model returns beside the signal is 1 for 1 samples"):
        tw.stream(Of(lambda self, x: (x * 2, min(x.shape[-1], 64))), X)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x[x > 0],
        lambda x: x[:, x.mean(1).long()],
        lambda x: (x, slice(x.shape[-1])),
        lambda x: (x, x.shape[-1:].numel() * torch.ones(x.shape[-1]).numpy()),
    ],
)
def test_odd_outputs_and_indices_are_refused_in_words(function):
    with pytest.raises((tw.TimelineError, ValueError), match=r"fix: |has no axis|doesn't run on"):
        tw.inspect(Of(lambda self, x: function(x)), X)


def test_a_mask_and_a_condition_of_fixed_size_beside_each_other():
    model = Of(lambda self, x, mask, g: self.c(x) * mask + self.g(g), c=conv(padding=1), g=conv(1, 16, 4))
    inputs = (X, torch.ones(1, 1, 64, dtype=F64), signal(1, 16, 1))
    assert tw.stream(model, inputs).graph.places == (0, 1)
    assert tw.verify_stream(model, inputs) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_sums_of_all_of_the_past_keep_their_digits(dtype):
    model, x = Of(lambda self, x: x.cumsum(-1)), torch.ones(1, 1, 4000, dtype=dtype)
    live = tw.stream(model, x[..., :64])
    y = torch.cat([live.step(chunk) for chunk in x.split(7, -1)], -1)
    assert y.dtype == dtype
    assert torch.equal(y, model(x))


def test_a_loop_over_samples_is_refused_at_once():
    def cells(self, x):
        h, outputs = x.new_zeros(x.shape[0], 4), []
        for t in range(x.shape[-1]):
            h = torch.tanh(x[..., t] + h)
            outputs.append(h)
        return torch.stack(outputs, -1)

    with pytest.raises(tw.TimelineError, match="other operations for signals of other lengths"):
        tw.inspect(Of(cells), X)
