"""Streams of frozen networks: the same programs, chunk by chunk."""

import itertools
import pickle
import random

import pytest
import torch
from torch import nn

import tapwise as tw
from frozen_networks import small
from marks import slow_after
from streamed import Branches, chunks_of, streamed
from tapwise.frozen.spans import ENDLESS
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


def causal(channels=8):
    """Padding on the left by several numbers, dilation, and the largest of each window."""
    return nn.Sequential(
        nn.ConstantPad1d((6, 0), 0.5), nn.Conv1d(2, channels, 7), nn.ReLU(),
        tw.CausalConv1d(channels, channels, 5, dilation=9), nn.Tanh(),
        nn.ConstantPad1d((2, 0), -1.0), nn.MaxPool1d(3, 1), tw.CausalConv1d(channels, 3, 2, dilation=20),
    ).eval()  # fmt: skip


class WithTorch(nn.Module):
    """An operation that no program has: torch runs it."""

    def forward(self, x):
        return x.cumsum(-1)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.lstm = tw.CausalConv1d(2, 8, 3), nn.LSTM(8, 16, batch_first=True)

    def forward(self, x):
        return self.lstm(self.conv(x).transpose(1, 2))[0]


@pytest.mark.parametrize("chunk", [1, 4, 50])
@pytest.mark.parametrize("make", [causal, Recurrent])
def test_a_causal_network_has_one_program_for_all_steps(make, chunk):
    """Zeros before the first row are histories as others are: a first step plans what later ones run."""
    torch.manual_seed(0)
    frozen, x = tw.freeze(make().eval(), torch.randn(2, 2, 300)), torch.randn(2, 2, 300)
    live = tw.stream(frozen)
    live.step(x[..., :chunk])
    programs = live._scheduler._programs
    live.reset()
    live.step(x[..., :chunk])  # the memory of the first run has grown to its size
    live.reset()

    def of_steps():
        return {id(program) for program, *_ in programs.values() if program.span.totals[0] == ENDLESS}

    planned = of_steps()
    time = live.time_axes[1]
    parts = [live.step(part) for part in x.split(chunk, -1)]
    assert torch.equal(torch.cat([*parts, live.flush()], time), frozen(x))
    assert planned == of_steps()


class WithGroups(nn.Module):
    """torch runs the grouped transposed layer, between compiled ones that keep histories."""

    def __init__(self):
        super().__init__()
        self.first, self.last = tw.CausalConv1d(2, 4, 3), tw.CausalConv1d(4, 4, 9, dilation=3)
        self.up = nn.ConvTranspose1d(4, 4, 3, padding=1, groups=2)

    def forward(self, x):
        y = self.first(x)
        return self.last(self.up(y)) + self.last(y)


@pytest.mark.parametrize("make", [causal, Recurrent, WithGroups])
def test_histories_move_on_and_are_moved_back(make):
    """Chunks of several lengths, and what is saved and forked on the way, find rows wherever they have moved to."""
    torch.manual_seed(0)
    frozen, x = tw.freeze(make().eval(), torch.randn(3, 2, 300)), torch.randn(3, 2, 1000)
    live, branch, dice = tw.stream(frozen), tw.stream(frozen), random.Random(0)
    time, parts, offsets, begin = live.time_axes[1], [], [], 0
    while begin < x.shape[-1]:
        chunk = x[..., begin : begin + dice.choice([1, 2, 3, 7, 40])]
        saved = dice.random() < 0.1
        if saved:
            branch.load_state(live.state)
            fork = live.fork()
        parts.append(live.step(chunk))
        if saved:
            assert torch.equal(branch.step(chunk), parts[-1])
            assert torch.equal(fork.step(chunk), parts[-1])
        (group,) = live._at.groups
        offsets.append(group.machine.state.offsets.tolist())
        begin += chunk.shape[-1]
    y = torch.cat([*parts, live.flush()], time)
    if make is WithGroups:
        torch.testing.assert_close(y, frozen(x))
    else:
        assert torch.equal(y, frozen(x))
    pairs = list(itertools.pairwise(offsets))
    assert any(after > before for one, other in pairs for before, after in zip(one, other, strict=False))
    assert any(after == 0 < before for one, other in pairs for before, after in zip(one, other, strict=False))


def test_early_steps_of_what_looks_ahead_or_copies_rows_differ():
    """Programs of early steps are their own as long as outputs are missing, or padding copies rows."""
    torch.manual_seed(0)
    x = torch.randn(3, 2, 200)
    for model in (
        nn.Sequential(
            nn.Conv1d(2, 4, 9, padding=4), nn.Conv1d(4, 4, 5, stride=2, padding=2), nn.ConvTranspose1d(4, 2, 4, 2)
        ),
        nn.Sequential(tw.CausalConv1d(2, 4, 9), nn.Conv1d(4, 4, 9, padding=4, padding_mode="replicate"), nn.Sigmoid()),
        nn.Sequential(nn.Conv1d(2, 4, 5, padding=4, padding_mode="reflect"), tw.CausalConv1d(4, 4, 4, stride=4)),
    ):
        frozen = tw.freeze(model.eval(), x)
        live, y = tw.stream(frozen), frozen(x)
        for chunk in (1, 3, 8):
            parts = [live.step(part) for part in x.split(chunk, -1)]
            assert torch.equal(torch.cat([*parts, live.flush()], -1), y)


def random_network(seed):
    dice = random.Random(seed)
    torch.manual_seed(seed)
    channels = dice.randrange(1, 4)
    model = Branches(dice, channels).eval()
    x = torch.randn(dice.randrange(1, 3), channels, 150 + dice.randrange(50))
    try:
        model(x), model(x[..., :100])
    except (RuntimeError, ValueError):
        return False  # layers that need longer signals
    try:
        with tw.options(exact=True):  # sums of products, as a stream's are
            frozen = tw.freeze(model, x)
        live = tw.stream(frozen)
    except tw.TimelineError:
        return False
    if not frozen.torch_operations:  # counts of rows repeat from there on, at every sample: a bisection found it
        scheduler, period, nodes = live._scheduler, live.graph.period, {value.node for value in frozen.steps.values}
        counts = [live.graph.counts(n) for n in range(scheduler._steady, scheduler._settled + 2 * period)]
        advance = [[b[n][0] - a[n][0] for n in nodes] for a, b in zip(counts, counts[period:], strict=False)]
        assert all(found == advance[0] for found in advance)
    for length in (190, 100, dice.randrange(40, 100)):
        y = x[..., :length]
        try:
            model(y)
        except (RuntimeError, ValueError):
            continue  # too short for the model
        parts = streamed(live, y, dice.choice([chunks_of(dice, y.shape[-1]), [1] * y.shape[-1]]))
        if frozen.torch_operations:  # of which bits depend on the chunks
            torch.testing.assert_close(torch.cat(parts, -1), frozen(y), rtol=1e-4, atol=1e-4)
        else:
            assert torch.equal(torch.cat(parts, -1), frozen(y)), (seed, length)
    return True


@pytest.mark.parametrize("block", slow_after(1, range(6)))
def test_random_networks_stream(block):
    assert sum(random_network(1000 * block + seed) for seed in range(12)) > 3


@pytest.mark.fuzz
@pytest.mark.parametrize("block", range(20))
def test_a_thousand_random_networks_stream(block):
    assert sum(random_network(50_000 + 100 * block + seed) for seed in range(70)) > 20


def test_early_slots_meet():
    """Slots that were begun anew are one group as soon as they stand at one place: their histories lie side by side."""
    torch.manual_seed(0)
    for model in (causal(), nn.Sequential(tw.CausalConv1d(2, 4, 6), WithTorch(), tw.CausalConv1d(4, 3, 9))):
        frozen, x = tw.freeze(model.eval(), torch.randn(3, 2, 200)), torch.randn(3, 2, 200)
        live, y = tw.stream(frozen), frozen(x)
        live.step(torch.randn(3, 2, 7))
        live.reset([True, False, False])
        live.reset([False, False, True])
        parts = [live.step(part) for part in x[..., :60].split([3, 50, 7], -1)]
        other = live.fork()
        for ending in (live, other):
            rest = [ending.step(x[..., 60:]), ending.flush()]
            for slot in (0, 2):
                found = torch.cat([part[slot, :, : lengths[slot]] for part, lengths in [*parts, *rest]], -1)
                torch.testing.assert_close(found, y[slot], rtol=1e-4, atol=1e-4)


def test_early_positions_are_saved_and_begun_anew():
    torch.manual_seed(0)
    frozen = tw.freeze(causal(), torch.randn(3, 2, 300))
    x = torch.randn(3, 2, 300)
    live, y = tw.stream(frozen), frozen(x)
    empty = live.step(x[..., :0])
    assert empty.shape[-1] == 0
    saved = live.state
    first = live.step(x[..., :5])
    other = tw.stream(frozen)
    other.load_state(saved)
    assert torch.equal(other.step(x[..., :5]), first)
    other.load_state(live.state)
    rest = [live.step(x[..., 5:9]), live.step(x[..., 9:])]
    assert torch.equal(torch.cat([first, *rest], -1), y[..., :300])
    assert torch.equal(torch.cat([other.step(x[..., 5:9]), other.step(x[..., 9:])], -1), torch.cat(rest, -1))
    live.reset([True, False, True])
    found, lengths = live.step(x)
    assert lengths.tolist() == [300, 300, 300]
    assert torch.equal(found[::2], y[::2])
    assert not torch.equal(found[1], y[1])


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
