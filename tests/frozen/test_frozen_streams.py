"""Streams of frozen networks: the same programs, chunk by chunk."""

import pickle

import pytest
import torch
from torch import nn

import tapwise as tw
from frozen_networks import small
from tapwise.network.rules import unregister


def test_a_frozen_stream_is_a_stream():
    model = small(normed=False)
    frozen = tw.freeze(model, torch.randn(2, 3, 200))
    live, plain = tw.stream(frozen), tw.stream(model, torch.randn(2, 3, 200))
    assert (live.delay, live.stride, live.output_length(500)) == (plain.delay, plain.stride, plain.output_length(500))
    x = torch.randn(2, 3, 500)
    y = frozen(x)
    parts = [live.step(x[..., :123])]
    saved, branch = live.state, live.fork()
    rest = [live.step(x[..., 123:300]), live.step(x[..., 300:]), live.flush()]
    assert torch.equal(torch.cat([*parts, *rest], -1), y)
    again = [branch.step(x[..., 123:124]), branch.step(x[..., 124:]), branch.flush()]
    assert torch.equal(torch.cat([*parts, *again], -1), y)
    live.load_state(saved)
    once_more = [live.step(x[..., 123:]), live.flush()]
    assert torch.equal(torch.cat([*parts, *once_more], -1), y)
    back = pickle.loads(pickle.dumps(live))
    assert torch.equal(torch.cat([back.step(x), back.flush()], -1), y)


def test_slots_of_a_frozen_stream_begin_and_end_by_themselves():
    frozen = tw.freeze(small(), torch.randn(3, 3, 200))
    live = tw.stream(frozen)
    x = torch.randn(3, 3, 400)
    y, wanted = frozen(x), []
    first = live.step(x[..., :100])
    live.reset([False, True, False])
    second, lengths = live.step(x[..., 100:300])
    assert torch.equal(torch.cat([first[0], second[0, :, : lengths[0]]], -1), y[0, :, : first.shape[-1] + lengths[0]])
    alone = frozen(x[1:2, :, 100:300])
    wanted = alone[0, :, : lengths[1]]
    torch.testing.assert_close(second[1, :, : lengths[1]], wanted)
    live.active([True, False, True])
    third, counts = live.step(x[..., 300:])
    assert counts[1] == 0
    both = torch.cat([first[2], second[2, :, : lengths[2]], third[2, :, : counts[2]]], -1)
    assert torch.equal(both, y[2, :, : both.shape[-1]])
    last, ends = live.flush()
    everything = torch.cat([both, last[2, :, : ends[2]]], -1)
    assert torch.equal(everything, y[2])
    assert torch.equal(torch.cat([second[1, :, : lengths[1]], last[1, :, : ends[1]]], -1), alone[0])


def test_a_step_that_fails_changes_nothing():
    class Breaks(nn.Module):
        wants_to = False

        def forward(self, x):
            if Breaks.wants_to:
                raise KeyboardInterrupt
            return x * 1.0

    tw.register(Breaks, tw.Geometry(1))
    try:
        model = nn.Sequential(nn.Conv1d(2, 4, 5), Breaks(), nn.Conv1d(4, 2, 5)).eval()
        frozen = tw.freeze(model, torch.randn(1, 2, 100))
        live, x = tw.stream(frozen), torch.randn(1, 2, 100)
        parts = [live.step(x[..., :40])]
        Breaks.wants_to = True
        with pytest.raises(KeyboardInterrupt):
            live.step(x[..., 40:60])
        Breaks.wants_to = False
        parts += [live.step(x[..., 40:]), live.flush()]
        assert torch.equal(torch.cat(parts, -1), frozen(x))
    finally:
        unregister(Breaks)


def test_what_reads_all_of_time_is_frozen_but_not_streamed():
    frozen = tw.freeze(nn.Sequential(nn.Conv1d(3, 8, 3), nn.GroupNorm(1, 8)), torch.randn(1, 3, 100))
    with pytest.raises(tw.TimelineError, match="group_norm in 1: takes its mean"):
        tw.stream(frozen)
