"""Snapshots of a stream, and slots that begin, wait and end apart."""

import copy
import pickle
import random

import pytest
import torch
from torch import nn

import networks
import tapwise as tw
from networks import Of

F64 = torch.float64


@pytest.mark.slow
@pytest.mark.parametrize("name", ["conv_tasnet", "encodec_decoder", "unet"])
def test_snapshots_are_copies_and_go_on(name, tmp_path):
    model, x = networks.STREAMED[name]()
    x = torch.randn(x.shape, generator=torch.Generator().manual_seed(3), dtype=F64)
    cut = x.shape[-1] // 2 + 1
    live = tw.stream(model, x)
    live.step(x[..., :cut])
    state = live.state
    rest = x[..., cut:]
    live.save(tmp_path / "state.safetensors")
    others = [live.fork(), copy.deepcopy(live), tw.stream(model, x), tw.stream(model, x), live.fork()]
    others[2].load_state(pickle.loads(pickle.dumps(state)))
    others[3].load(tmp_path / "state.safetensors")
    want = torch.cat([live.step(rest), live.flush()], -1)
    for other in others[:4]:
        assert torch.equal(torch.cat([other.step(rest), other.flush()], -1), want)
    others[4].step(torch.randn_like(x))  # a fork that goes elsewhere leaves the snapshot as it was
    again = tw.stream(model, x)
    again.load_state(state)
    assert torch.equal(torch.cat([again.step(rest), again.flush()], -1), want)
    assert not any("stream" in key for key in model.state_dict())


def test_a_stream_can_be_pickled_with_its_model():
    model, x = networks.wavenet()
    live = tw.stream(model, x)
    x = torch.randn(x.shape, dtype=F64)
    live.step(x[..., :40])
    other = pickle.loads(pickle.dumps(live))
    assert torch.equal(other.step(x[..., 40:]), live.step(x[..., 40:]))


def test_a_state_of_another_model_is_refused():
    one = tw.stream(nn.Conv1d(1, 1, 3), torch.zeros(1, 1, 9))
    other = tw.stream(nn.Sequential(nn.Conv1d(1, 1, 3), nn.ConvTranspose1d(1, 1, 3)), torch.zeros(1, 1, 9))
    one.step(torch.zeros(1, 1, 9))
    other.step(torch.zeros(1, 1, 9))
    with pytest.raises(tw.ShapeError, match="another model's"):
        one.load_state(other.state)
    with pytest.raises(tw.ShapeError, match="another model's"):
        other.load_state(one.state)


# Slots


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tcn", "conv_tasnet", "unet", "encodec_decoder", "wavenet"])
def test_slots_begin_and_end_apart(name):
    model, x = networks.STREAMED[name]()
    batch, dice = 3, random.Random(5)
    size = list(x.shape)
    size[0] = batch
    live = tw.stream(model, x)
    live.reset(batch=batch)
    time = live.graph.nodes[live.graph.results[0]].size.time
    signals = [[] for _ in range(batch)]  # of each slot, the chunks of its signal now
    outputs = [[] for _ in range(batch)]

    def take(result, which):
        y, lengths = result if isinstance(result, tuple) else (result, None)
        for slot in which:
            count = y.shape[time] if lengths is None else int(lengths[slot])
            outputs[slot].append(y[slot].narrow(time - 1, 0, count))
            assert not y[slot].narrow(time - 1, count, y.shape[time] - count).any()

    def finish(slot):
        if signals[slot]:
            signal = torch.cat(signals[slot], -1)
            if signal.shape[-1] >= x.shape[-1] // 2:
                got = torch.cat(outputs[slot], time - 1)
                torch.testing.assert_close(got, model(signal[None])[0], rtol=1e-10, atol=1e-10)
        signals[slot], outputs[slot] = [], []

    for turn in range(60):
        size[-1] = dice.choice([0, 1, 3, x.shape[-1] // 4])
        chunk = torch.randn(size, dtype=F64)
        awake = [dice.random() < 0.8 for _ in range(batch)] if turn % 3 else [True] * batch
        live.active(awake)
        take(live.step(chunk), [s for s in range(batch) if awake[s]])
        for slot in range(batch):
            if awake[slot]:
                signals[slot].append(chunk[slot])
        live.active([True] * batch)
        if turn % 7 == 3:
            slot = dice.randrange(batch)
            mask = torch.arange(batch) == slot
            if dice.random() < 0.7:
                take(live.flush(mask), [slot])
                finish(slot)
            else:
                live.reset(mask)
                signals[slot], outputs[slot] = [], []
    take(live.flush(), range(batch))
    for slot in range(batch):
        finish(slot)


def test_slots_that_stand_alike_go_together():
    live = tw.stream(nn.Conv1d(1, 2, 5, padding=2), torch.zeros(1, 1, 20))
    live.reset(batch=4)
    live.step(torch.randn(4, 1, 50))
    live.reset(torch.tensor([True, False, False, True]))
    y, lengths = live.step(torch.randn(4, 1, 3))
    assert lengths.tolist() == [1, 3, 3, 1]
    assert y.shape == (4, 2, 3)
    assert len(live._at.groups) == 2
    live.step(torch.randn(4, 1, 60))
    assert len(live._at.groups) == 1


def test_what_does_not_fit_is_refused_before_any_work():
    model, x = nn.Conv1d(2, 2, 3), torch.randn(2, 2, 20)
    live = tw.stream(model, x)
    live.step(x)
    before = live.state
    for chunk, words in (
        (torch.randn(3, 2, 5), "doesn't fit the stream"),
        (torch.randn(2, 3, 5), "doesn't fit the stream"),
        (torch.randn(2, 5), "doesn't fit the stream"),
        (torch.randn(2, 2, 5, dtype=F64), "another kind"),
    ):
        with pytest.raises(tw.ShapeError, match=words):
            live.step(chunk)
    with pytest.raises(TypeError, match=r"torch\.Tensor"):
        live.step([1.0])
    with pytest.raises(tw.ShapeError, match="yes or no"):
        live.reset(torch.tensor([1, 0]))
    with pytest.raises(tw.ShapeError, match="at least one row"):
        live.reset(batch=0)
    after = live.state
    assert torch.equal(before["groups"][0]["states"]["1"][0], after["groups"][0]["states"]["1"][0])
    unbatched = tw.stream(nn.Conv1d(2, 2, 3), torch.randn(2, 20))
    with pytest.raises(tw.ShapeError, match="told apart"):
        unbatched.reset(torch.tensor([True]))


def test_a_chunk_may_be_written_over_afterwards():
    model = nn.Conv1d(1, 1, 4, padding=3).double()
    x = torch.randn(1, 1, 30, dtype=F64)
    live, buffer, parts = tw.stream(model, x), torch.empty(1, 1, 5, dtype=F64), []
    for chunk in x.split(5, -1):
        buffer.copy_(chunk)
        parts.append(live.step(buffer))
        buffer.fill_(float("nan"))
    torch.testing.assert_close(torch.cat([*parts, live.flush()], -1), model(x))


def test_a_snapshot_may_be_written_over():
    model, x = networks.wavenet()
    x = torch.randn(x.shape, dtype=F64)
    live, other = tw.stream(model, x), tw.stream(model, x)
    for each in (live, other):
        each.step(x[..., :50])
    state = live.state
    for kept in state["groups"][0]["states"].values():
        for tensor in kept:
            tensor.fill_(float("nan"))
    assert torch.equal(live.step(x[..., 50:]), other.step(x[..., 50:]))
    saved = other.state
    third = tw.stream(model, x)
    third.load_state(saved)
    for kept in saved["groups"][0]["states"].values():
        for tensor in kept:
            tensor.fill_(float("nan"))
    assert torch.equal(third.flush(), other.flush())


def test_why_rows_are_not_apart_is_said():
    for function, words in (
        (lambda self, x: x - x.mean(0, keepdim=True), "one row for all"),
        (lambda self, x: x.flip(0), "depend on other rows"),
        (lambda self, x: x.roll(2, 0), "depend on other rows"),
        (lambda self, x: torch.softmax(x, 0), "depend on other rows"),
        (lambda self, x: (x * 2, x.shape[-1]), "one count of samples"),
        (lambda self, x: x * x.shape[0], "read at one batch only"),
    ):
        live = tw.stream(Of(function), torch.randn(2, 3, 40, dtype=torch.float64))
        live.step(torch.randn(2, 3, 10, dtype=torch.float64))
        with pytest.raises(tw.ShapeError, match=words):
            live.reset(torch.tensor([True, False]))


@pytest.mark.parametrize("call", [lambda live: live.reset(batch=2.5), lambda live: live.functional("a")])
def test_counts_are_integers(call):
    live = tw.stream(torch.nn.Conv1d(1, 1, 3), torch.zeros(1, 1, 40))
    with pytest.raises(TypeError, match="must be an integer"):
        call(live)


def test_lengths_that_a_model_returns_are_each_slots_own():
    class Lengths(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv1d(1, 1, 3)

        def forward(self, x):
            y = self.conv(x)
            return y, torch.full((x.shape[0],), y.shape[-1])

    live = tw.stream(Lengths(), torch.randn(2, 1, 40))
    live.step(torch.randn(2, 1, 10))
    live.reset(torch.tensor([True, False]))  # slot 0 begins anew
    (_, lengths), _ = live.step(torch.randn(2, 1, 7))
    assert lengths.tolist() == [5, 15]
