"""Streams of real networks, and of every kind of input and output."""

import random

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import networks
import tapwise as tw
from streamed import assert_streams, streamed

F64 = torch.float64


@pytest.mark.slow
@pytest.mark.parametrize("name", networks.STREAMED)
def test_real_networks_stream(name):
    model, x = networks.STREAMED[name]()
    assert tw.verify_stream(model, x, tries=2, tolerance=1e-12) < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mimi_encoder", "tcn", "unet", "encodec_decoder"])
def test_signals_of_every_length_and_remainder(name):
    model, x = networks.STREAMED[name]()
    live = tw.stream(model, x)
    dice = random.Random(0)
    period = live.graph.period
    for length in {dice.randrange(period, 4 * period + 70) for _ in range(12)}:
        size = list(x.shape)
        size[-1] = length
        signal = torch.randn(size, dtype=F64)
        assert_streams(model, signal, dice, live)


def test_state_stays_bounded_and_nothing_is_computed_twice():
    model, x = networks.conv_tasnet()
    live = tw.stream(model, x)
    seen, made = [], {}

    def watch(number, chunk):
        made[number] = made.get(number, 0) + chunk.shape[live.graph.nodes[number].size.time]

    live._scheduler.watch = watch
    for _ in range(400):
        live.step(torch.randn(1, 1, 24, dtype=F64))
        seen.append(live.state_bytes)
    assert len(set(seen[100:])) == 1
    totals = live.graph.counts(400 * 24)
    assert all(made[n] == totals[n][0] for n in made)  # every sample of every operation, once
    report = tw.inspect(model, x)
    assert seen[-1] <= 1.5 * report.state_bytes + 100_000


def test_long_chunks_are_not_kept():
    live = tw.stream(nn.Conv1d(1, 1, 9).double(), torch.zeros(1, 1, 64, dtype=F64))
    live.step(torch.randn(1, 1, 100_000, dtype=F64))
    (kept,) = live._at.groups[0].buffers[1]
    assert kept.untyped_storage().nbytes() <= 8 * 8 * 8


# Kinds of inputs and outputs


class Several(nn.Module):
    """Two outputs of different rates, and one that is no part of the signal."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv1d(2, 3, 4, stride=2), nn.ConvTranspose1d(2, 1, 3, stride=3)

    def forward(self, x, gain):
        return {"a": self.a(x) * gain, "b": (self.b(x), "words"), "none": None}


def test_several_outputs_and_a_constant_input():
    model, gain = Several().double(), torch.tensor(3.0, dtype=F64)
    x = torch.randn(1, 2, 40, dtype=F64)
    live, offline = tw.stream(model, (x, gain)), model(x, gain)
    parts = streamed(live, x, [7, 0, 13, 20])
    assert parts[0]["b"][1] == "words"
    assert parts[0]["none"] is None
    torch.testing.assert_close(torch.cat([p["a"] for p in parts], -1), offline["a"])
    torch.testing.assert_close(torch.cat([p["b"][0] for p in parts], -1), offline["b"][0])


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("first", [True, False])
def test_recurrences_stream(kind, first):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.front = nn.Conv1d(2, 4, 3, stride=2, padding=1)
            self.rnn = kind(4, 5, 2, batch_first=first)

        def forward(self, x):
            y = self.front(x)
            y = y.permute(0, 2, 1) if first else y.permute(2, 0, 1)
            y, _ = self.rnn(y)
            return y.permute(0, 2, 1) if first else y.permute(1, 2, 0)

    dice = random.Random(0)
    model = Recurrent().double()
    for rows in (1, 3):
        assert_streams(model, torch.randn(rows, 2, 50, dtype=F64), dice)
    live = tw.stream(model, torch.zeros(1, 2, 50, dtype=F64))
    assert_streams(model, torch.randn(4, 2, 37, dtype=F64), dice, live)


def test_time_on_another_axis_waves_without_channels_and_no_batch():
    class Features(nn.Module):
        """(batch, time, features) in and out."""

        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv1d(4, 6, 5, padding=4), nn.LayerNorm(6)

        def forward(self, x):
            return self.norm(self.conv(x.transpose(1, 2))[..., :-4].transpose(1, 2))

    model, x = Features().double(), torch.randn(2, 30, 4, dtype=F64)
    live = tw.stream(model, x)
    y = torch.cat(streamed(live, x, [1, 9, 20], time=1), 1)
    torch.testing.assert_close(y, model(x))

    class Wave(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(1, 1, 5, padding=2)

        def forward(self, x):
            return self.conv(x[:, None]).squeeze()

    model, x = Wave().double(), torch.randn(1, 31, dtype=F64)
    live = tw.stream(model, x)
    parts = streamed(live, x, [1] * 31)
    torch.testing.assert_close(torch.cat(parts, -1), model(x))
    model, x = nn.Conv1d(3, 2, 4, padding=3).double(), torch.randn(3, 30, dtype=F64)
    assert_streams(model, x, random.Random(1))


def test_tokens_stream():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.conv = nn.Embedding(10, 4), tw.CausalConv1d(4, 2, 3)

        def forward(self, ids):
            return self.conv(self.table(ids).mT)

    model, ids = Tokens(), torch.randint(10, (2, 40))
    live = tw.stream(model, ids)
    y = torch.cat(streamed(live, ids, [3, 30, 7]), -1)
    torch.testing.assert_close(y, model(ids))


class Frames(nn.Module):
    """Frames of a wave, their spectra, and back to one row: unfold, rfft, views."""

    def forward(self, x):
        frames = x.unfold(-1, 16, 8) * torch.hann_window(16, dtype=x.dtype)
        power = torch.fft.rfft(frames).abs()
        return power.squeeze(1).mT


def test_frames_of_a_wave_stream():
    assert_streams(Frames(), torch.randn(1, 1, 200, dtype=F64), random.Random(0))


def test_samples_laid_into_channels_and_back():
    class Shuffle(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(4, 6, 3, padding=(2,))

        def forward(self, x):
            batch, _, length = x.shape
            y = F.pad(x, (0, -length % 4)).reshape(batch, -1, 4).mT  # 4 samples side by side
            y = self.conv(y)[..., :-2].unflatten(1, (3, 2)).permute(0, 1, 3, 2)
            return y.reshape(batch, 3, -1)

    dice = random.Random(0)
    model = Shuffle().double()
    for length in (40, 41, 42, 43):
        assert_streams(model, torch.randn(2, 1, length, dtype=F64), dice)


@pytest.mark.slow
def test_an_output_comes_as_soon_as_what_it_reads():
    """Held against the model: an output that NaN in all samples to come leaves alone is determined."""
    for name in ("tcn", "conv_tasnet", "unet", "mimi_decoder", "hifigan"):
        model, x = networks.STREAMED[name]()
        live = tw.stream(model, x)
        graph = live.graph
        time, result = graph.nodes[0].size.time, graph.results[0]
        signal = torch.randn(x.shape, dtype=F64)
        length = x.shape[time]
        for seen in (length // 2, length // 2 + 1, length - length // 4):
            spoilt = signal.clone()
            spoilt.narrow(time, seen, length - seen).fill_(float("nan"))
            y = model(spoilt)
            axis = graph.nodes[result].size.time
            others = [n for n in range(y.ndim) if n != axis]
            spoilt_at = y.isnan().any(dim=others) if others else y.isnan()
            free = int(spoilt_at.nonzero()[0]) if spoilt_at.any() else len(spoilt_at)
            assert graph.counts(seen)[result][0] == free, (name, seen)


def test_a_causal_decoder_gives_a_frame_for_a_frame():
    model, x = networks.mimi_decoder()
    live = tw.stream(model, x)
    assert live.delay == 0
    for _ in range(3):
        assert live.step(torch.randn(1, 16, 1, dtype=F64)).shape[-1] == 1 / live.stride
