"""Recurrences of frozen networks: LSTM and GRU against their formulas in float64, and torch's; offline and live."""

import random

import numpy as np
import pytest
import torch
from torch import nn

import tapwise as tw
from frozen_networks import Of, assert_same
from marks import slow_after
from streamed import chunks_of
from tapwise.engine.kernels.program import record
from tapwise.engine.kernels.program.packing import LANES
from tapwise.frozen import matrices, memory, recurrences

torch.manual_seed(0)

KINDS = {"lstm": nn.LSTM, "gru": nn.GRU}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def formula(layer, x):
    """(B, T, C) in float64, by the formulas of torch's documentation, one moment after the other."""
    y, units = x.double().numpy(), layer.hidden_size
    for n in range(layer.num_layers):
        w, u, *biases = (p.detach().double().numpy() for p in layer.all_weights[n])
        b, d = biases or (np.zeros(len(w)),) * 2
        h, c, rows = np.zeros((len(y), units)), np.zeros((len(y), units)), []
        for t in range(y.shape[1]):
            of_x, of_h = y[:, t] @ w.T + b, h @ u.T + d
            if isinstance(layer, nn.LSTM):
                i, f, g, o = np.split(of_x + of_h, 4, axis=1)
                c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
                h = sigmoid(o) * np.tanh(c)
            else:
                x_gates, h_gates = np.split(of_x, 3, axis=1), np.split(of_h, 3, axis=1)
                r, z = (sigmoid(x_gates[k] + h_gates[k]) for k in range(2))
                new = np.tanh(x_gates[2] + r * h_gates[2])
                h = (1 - z) * new + z * h
            rows.append(h)
        y = np.stack(rows, axis=1)
    return y


class Recurrent(nn.Module):
    """(B, C, T) through a recurrence."""

    def __init__(self, layer, before=None, after=None):
        super().__init__()
        self.layer = layer
        self.before, self.after = before or nn.Identity(), after or nn.Identity()

    def forward(self, x):
        x = self.before(x)
        if self.layer.batch_first:
            y = self.layer(x.transpose(1, 2))[0].transpose(1, 2)
        else:
            y = self.layer(x.permute(2, 0, 1))[0].permute(1, 2, 0)
        return self.after(y)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("units", slow_after(6, [1, LANES - 1, LANES, LANES + 1, 150, 256, 3, 2 * LANES, 65, 300]))
def test_the_formulas(kind, units):
    for inputs, n_layers, bias in ((5, 1, True), (units, 2, True), (33, 3, False)):
        layer = KINDS[kind](inputs, units, n_layers, bias=bias, batch_first=True).eval()
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.mul_(2)  # states that saturate
        frozen = tw.freeze(Recurrent(layer), torch.randn(2, inputs, 30))
        assert frozen.torch_operations == []
        for batch, length in ((1, 40), (2, 31), (7, 60)):
            x = 2 * torch.randn(batch, inputs, length)
            found = frozen(x).mT.double().numpy()
            np.testing.assert_allclose(found, formula(layer, x.mT), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("units", [20, 300])
@pytest.mark.parametrize("batch_first", [True, False])
def test_within_a_network_offline_and_live(kind, units, batch_first):
    before, after = nn.Conv1d(3, 24, 5, stride=2, padding=2), nn.Sequential(nn.ELU(), nn.Conv1d(units, 2, 3, padding=1))
    model = Recurrent(KINDS[kind](24, units, 2, batch_first=batch_first), before, after).eval()
    frozen = tw.freeze(model, torch.randn(1, 3, 200))
    assert frozen.torch_operations == []
    x = torch.randn(3, 3, 501)
    assert_same(model, frozen, x, torch.randn(1, 3, 333))
    y, dice = frozen(x), random.Random(units)
    assert torch.equal(frozen(x[1:2]), y[1:2])
    live = tw.stream(frozen)
    for _ in range(2):
        parts = [live.step(chunk) for chunk in x.split(chunks_of(dice, 501), -1)]
        assert torch.equal(torch.cat([*parts, live.flush()], -1), y)


@pytest.mark.parametrize("batch", [2, 40])
@pytest.mark.parametrize("units", [70, 500])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_bits_for_any_count_of_threads(kind, units, batch):
    """Shares of the units of each row, and shares of the signals."""
    model = Recurrent(KINDS[kind](40, units)).eval()
    frozen = tw.freeze(model, torch.randn(1, 40, 50))
    step = frozen.steps.steps[-1]
    assert recurrences.is_serial(step) == (units == 500)
    assert (recurrences.shares_of(step, batch) > 1) == ((units, batch) != (70, 2))
    x, before = torch.randn(batch, 40, 90), torch.get_num_threads()
    y = frozen(x)
    assert_same(model, frozen, x)
    assert torch.equal(frozen(x[-1:]), y[-1:])
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            assert torch.equal(frozen(x), y)
            live = tw.stream(frozen)
            parts = [live.step(chunk) for chunk in x.split(30, -1)]
            assert torch.equal(torch.cat([*parts, live.flush()], -1), y)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_that_is_saved_goes_on_with_its_state(kind):
    model = Recurrent(KINDS[kind](8, 40, 2), nn.Conv1d(3, 8, 3), nn.ReLU()).eval()
    live = tw.stream(tw.freeze(model, torch.randn(1, 3, 60)))
    x = torch.randn(1, 3, 90)
    live.step(x[..., :30])
    other, state = live.fork(), live.state
    wanted = live.step(x[..., 30:])
    other.step(torch.randn(1, 3, 17))
    other.load_state(state)
    assert torch.equal(other.step(x[..., 30:]), wanted)


def test_rows_of_a_batch_begin_and_end_apart():
    model = Recurrent(nn.LSTM(3, 20), after=nn.ReLU()).eval()
    frozen = tw.freeze(model, torch.randn(2, 3, 60))
    live = tw.stream(frozen)
    x = torch.randn(2, 3, 90)
    live.step(x[..., :10])
    live.reset([False, True])
    y, lengths = live.step(x[..., 10:])
    assert lengths.tolist() == [80, 80]
    assert torch.equal(y[0], frozen(x[:1])[0, :, 10:])
    assert torch.equal(y[1], frozen(x[1:, :, 10:])[0])


def test_nan_reaches_all_later_moments_of_its_signal_alone():
    frozen = tw.freeze(Recurrent(nn.LSTM(3, 20)).eval(), torch.randn(2, 3, 60))
    x = torch.randn(3, 3, 70)
    clean = frozen(x)
    x[1, 2, 30] = float("nan")
    y = frozen(x)
    assert y[1, :, 30:].isnan().all()
    assert torch.equal(y[1, :, :30], clean[1, :, :30])
    assert torch.equal(y[[0, 2]], clean[[0, 2]])


def test_memory_that_was_used_before_leaves_no_trace():
    frozen = tw.freeze(Recurrent(nn.GRU(3, 20)).eval(), torch.randn(1, 3, 60))
    x = torch.randn(1, 3, 70)
    y = frozen(x)
    frozen._arena.numbers.fill_(float("nan"))
    assert torch.equal(frozen(x), y)


def test_a_streams_memory_that_was_used_before_leaves_no_trace(monkeypatch):
    frozen = tw.freeze(Recurrent(nn.LSTM(3, 20)).eval(), torch.randn(1, 3, 60))
    x = torch.randn(1, 3, 70)
    y = frozen(x)
    empty = memory._numbers
    monkeypatch.setattr(memory, "_numbers", lambda count: empty(count).fill_(float("nan")))
    live = tw.stream(frozen)
    assert torch.equal(torch.cat([live.step(x[..., :9]), live.step(x[..., 9:]), live.flush()], -1), y)


def test_sums_over_the_input_are_never_rounded(monkeypatch):
    frozen = tw.freeze(Recurrent(nn.LSTM(32, 20), nn.Conv1d(3, 32, 3)).eval(), torch.randn(1, 3, 60))
    monkeypatch.setattr(matrices.amx, "obstacle", lambda: None)
    before, sums, lstm = frozen.steps.steps
    before.filters, sums.filters = torch.randn(32, 3, 3), torch.randn(80, 32, 1)
    monkeypatch.setattr(matrices, "_FEWEST_INPUTS", 1)
    matrices.use_matrices(frozen.steps)
    assert [step.code for step in (before, sums, lstm)] == [record.MATRICES, record.PRODUCT, record.LSTM]


def test_skips_and_padding_around_it():
    layer = nn.LSTM(6, 6)

    def function(x):
        y = layer(x.permute(2, 0, 1))[0].permute(1, 2, 0)
        padded = torch.nn.functional.pad(y, (4, 3), mode="reflect")
        return y + x, padded * 2, torch.nn.functional.conv1d(y, torch.ones(2, 6, 5), padding=4)

    model = Of(function)
    frozen = tw.freeze(model, torch.randn(1, 6, 40))
    assert frozen.torch_operations == []
    x = torch.randn(2, 6, 70)
    live = tw.stream(frozen)
    parts = zip(live.step(x[..., :1]), live.step(x[..., 1:33]), live.step(x[..., 33:]), live.flush(), strict=True)
    with torch.no_grad():
        for found, streamed, wanted in zip(frozen(x), parts, model(x), strict=True):
            torch.testing.assert_close(found, wanted, rtol=2e-5, atol=2e-5)
            assert torch.equal(torch.cat(streamed, -1), found)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("layer", [nn.LSTM(3, 20, proj_size=7), nn.RNN(3, 20)], ids=["proj_size", "RNN"])
def test_what_torch_runs(layer):
    model = Recurrent(layer).eval()
    frozen = tw.freeze(model, torch.randn(1, 3, 60))
    assert len(frozen.torch_operations) == 1
    assert_same(model, frozen, torch.randn(2, 3, 61))


def test_states_given_by_the_model_are_torchs():
    layer = nn.GRU(3, 5)
    model = Of(lambda x: layer(x.permute(2, 0, 1), torch.ones(1, x.shape[0], 5))[0].permute(1, 2, 0))
    frozen = tw.freeze(model, torch.randn(1, 3, 60))
    assert len(frozen.torch_operations) == 1
    assert_same(model, frozen, torch.randn(2, 3, 61))


def test_without_a_batch():
    layer = nn.LSTM(3, 20)
    model = Of(lambda x: layer(x.T)[0].T)
    frozen = tw.freeze(model, torch.randn(3, 60))
    assert frozen.torch_operations == []
    assert_same(model, frozen, torch.randn(3, 61))
