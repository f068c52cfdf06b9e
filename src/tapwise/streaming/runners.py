"""Runners: each kind of a graph's operation, advanced by what has come of its inputs.

What a step does with integers is a *move*, worked out once for a place in the stream and kept; a runner
then only cuts, joins and computes tensors.

# kept    [ first needed ... known )         of each input, from the steps before
# chunk                    [ known ... more )
# outputs      [ given ... fixed )           computed now
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from tapwise import partition
from tapwise.geometry import Geometry
from tapwise.network.graph import Node
from tapwise.network.operations import Apply, Fill, Recur, Reshape, Taught, Within
from tapwise.network.timeline import Ends, Windows


class Span(NamedTuple):
    """What a step finds and leaves, as counts of samples since the stream began.

    Arguments:
        known: by input, how many samples had come before the step, and with it.
        given: outputs before the step, and with it.
        certain: how many inputs there will be at least.
        ended: whether the signal ends with this step.
    """

    known: tuple[tuple[int, int], ...]
    given: tuple[int, int]
    certain: int
    ended: bool


# What an operation keeps: tensors; of one that was taught, a dictionary of them.
State = list[Any]


class Runner(Protocol):
    """One operation of a stream."""

    def start(self, batch: int, like: Sequence[Tensor]) -> State:
        """What is kept before the first chunk. ``like`` are empty tensors of its inputs."""

    def move(self, span: Span) -> Any:
        """What a step does, from integers alone."""

    def run(self, move: Any, state: State, chunks: Sequence[Tensor]) -> tuple[Tensor | None, State]:
        """The outputs, None where there are none, and what is kept from now on."""


def joined(kept: Tensor, chunk: Tensor, axis: int) -> Tensor:
    """``kept`` followed by ``chunk``."""
    if kept.shape[axis] == 0:
        return chunk
    return kept if chunk.shape[axis] == 0 else torch.cat((kept, chunk), axis)


def cut(x: Tensor, axis: int, start: int, stop: int) -> Tensor:
    return x if start == 0 and stop == x.shape[axis] else x.narrow(axis, start, stop - start)


def held(x: Tensor, axis: int, start: int) -> Tensor:
    """The samples from ``start`` on, in memory of their own, so that a long chunk can be forgotten."""
    if start == x.shape[axis] == 0:
        return x
    return x.narrow(axis, start, x.shape[axis] - start).clone()


class Samples:
    """Sample by sample, of one input or several; where several, what one is ahead of the others waits."""

    def __init__(self, node: Node, axes: tuple[int, ...]) -> None:
        work = node.work
        assert isinstance(work, Apply | Reshape)
        self.work, self.axes = work, axes
        self.alone = len(axes) == 1

    def start(self, batch: int, like: Sequence[Tensor]) -> State:
        return [] if self.alone else list(like)

    def move(self, span: Span) -> Any:
        start, stop = span.given
        if self.alone:
            return stop - start
        return stop - start, any(more > stop or old > start for old, more in span.known)

    def run(self, move: Any, state: State, chunks: Sequence[Tensor]) -> tuple[Tensor | None, State]:
        if self.alone:
            return (self.work(chunks) if move else None), state
        count, waiting = move
        if not waiting:
            return (self.work(chunks) if count else None), state
        every = [joined(k, x, axis) for k, x, axis in zip(state, chunks, self.axes, strict=True)]
        y = None
        if count:
            y = self.work([cut(x, a, 0, count) for x, a in zip(every, self.axes, strict=True)])
        return y, [held(x, a, count) for x, a in zip(every, self.axes, strict=True)]


class Kept:
    """The common part of what reads windows: some of the last inputs are kept."""

    def __init__(self, node: Node, axes: tuple[int, ...]) -> None:
        self.timeline = node.timeline
        self.axis = axes[0]
        self.out_axis = node.size.time

    def start(self, batch: int, like: Sequence[Tensor]) -> State:
        return [like[0]]

    def borders(self, span: Span) -> tuple[int, int]:
        """The first input that is kept, before the step and after it."""
        (known, more), (start, stop) = span.known[0], span.given
        return self.timeline.first_needed(start, known), self.timeline.first_needed(stop, more)


class Padded(Kept):
    """Padding and cropping of the ends."""

    def __init__(self, node: Node, axes: tuple[int, ...]) -> None:
        super().__init__(node, axes)
        assert isinstance(node.timeline, Ends)
        assert isinstance(node.work, Fill)
        self.ends, self.value = node.timeline, node.work.value

    def move(self, span: Span) -> Any:
        first, later = self.borders(span)
        (start, stop), known = span.given, span.known[0][1]
        low, high = start - self.ends.left, stop - self.ends.left
        before = range(min(low, 0), min(high, 0))
        after = range(max(low, known), max(high, known)) if span.ended else range(0)
        inside = (min(max(low, 0), known) - first, min(max(high, 0), known) - first)
        mode, sides = self.ends.padding_mode, (len(before), len(after))
        places: Any = None
        if mode != "zeros" and any(sides):
            fold = Geometry(1, padding_mode=mode).fold
            places = [[int(fold(p, known)) - first for p in side] for side in (before, after)]
        return start != stop, inside, sides, places, later - first

    def run(self, move: Any, state: State, chunks: Sequence[Tensor]) -> tuple[Tensor | None, State]:
        gives, (low, high), (left, right), places, keep = move
        axis = self.axis
        known = joined(state[0], chunks[0], axis)
        y = None
        if gives:
            y = cut(known, axis, low, max(high, low))
            if places is not None:
                sides = [torch.tensor(p, dtype=torch.long, device=known.device) for p in places]
                y = torch.cat(
                    (known.index_select(axis, sides[0]), y, known.index_select(axis, sides[1])),
                    axis,
                )
            elif left or right:
                y = torch.cat(
                    (
                        _filled(known, axis, left, self.value),
                        y,
                        _filled(known, axis, right, self.value),
                    ),
                    axis,
                )
        return y, [held(known, axis, min(keep, known.shape[axis]))]


def _filled(like: Tensor, axis: int, count: int, value: float) -> Tensor:
    size = list(like.shape)
    size[axis] = count
    return like.new_full(size, value)


class Windowed(Kept):
    """Pooling, frames, upsampling: a function of exactly the samples that its outputs read."""

    def __init__(self, node: Node, axes: tuple[int, ...]) -> None:
        super().__init__(node, axes)
        assert isinstance(node.timeline, Windows)
        assert isinstance(node.work, Within)
        self.geometry, self.work = node.timeline.geometry, node.work

    def move(self, span: Span) -> Any:
        first, later = self.borders(span)
        start, stop = span.given
        if start == stop:
            return None, later - first
        part = partition.part(self.geometry, start, stop, span.certain)
        low, high = (end - first for end in part.inputs)
        pads = (0, 0) if self.geometry.transposed else part.geometry.padding
        return (low, high, *pads), later - first

    def run(self, move: Any, state: State, chunks: Sequence[Tensor]) -> tuple[Tensor | None, State]:
        how, keep = move
        axis = self.axis
        known = joined(state[0], chunks[0], axis)
        y = None
        if how is not None:
            low, high, left, right = how
            x = cut(known, axis, low, high)
            if left or right:
                fill = self.work.fill
                x = torch.cat(
                    (_filled(x, axis, left, fill), x, _filled(x, axis, right, fill)), axis
                )
            y = self.work.apply([x])
        return y, [held(known, axis, keep)]


class Recurrence:
    """LSTM, GRU, RNN: the state goes from chunk to chunk."""

    def __init__(self, node: Node, axes: tuple[int, ...]) -> None:
        assert isinstance(node.work, Recur)
        self.work = node.work

    def start(self, batch: int, like: Sequence[Tensor]) -> State:
        return self.work.start(batch)

    def move(self, span: Span) -> Any:
        return span.given[1] - span.given[0]

    def run(self, move: Any, state: State, chunks: Sequence[Tensor]) -> tuple[Tensor | None, State]:
        return self.work(chunks[0], state) if move else (None, state)


class Own:
    """An operation that ``register`` taught. Its state is a dictionary of tensors, or None."""

    def __init__(self, node: Node, axes: tuple[int, ...]) -> None:
        assert isinstance(node.work, Taught)
        self.work = node.work

    def start(self, batch: int, like: Sequence[Tensor]) -> State:
        return []

    def move(self, span: Span) -> Any:
        return span.given[1] - span.given[0], span.ended

    def run(self, move: Any, state: State, chunks: Sequence[Tensor]) -> tuple[Tensor | None, State]:
        count, ended = move
        if not ended and not any(chunk.numel() for chunk in chunks):
            return None, state
        y, after = self.work.step(
            self.work.target, list(chunks), state[0] if state else None, ended
        )
        return (y if count else None), [] if after is None else [after]


KINDS: dict[type, Any] = {
    Apply: Samples,
    Reshape: Samples,
    Fill: Padded,
    Within: Windowed,
    Recur: Recurrence,
    Taught: Own,
}
