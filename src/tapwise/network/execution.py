"""Operations of a stream: each kind of a graph's node, advanced by what has come of its inputs.

What a step does is scheduled from integers alone, once for each place in the model's period and length of
chunk. Running the schedule only cuts, joins and computes tensors.

# history   [ first needed ... seen )                 of each input, from the steps before
# chunk                      [ seen ... seen_after )
# outputs         [ emitted ... determined )          computed now

A part of a long signal is computed by itself in the same way: of no history, by a schedule of its own.

# inputs    [ first ... stop )                        exactly what the outputs need
# outputs     [ start ... stop )
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from tapwise import chunks, partition
from tapwise.chunks import joined, kept_from, narrowed
from tapwise.geometry import Geometry
from tapwise.network.graph import Node
from tapwise.network.operations import Accumulate, Apply, Convolve, Fill, OverTime, Recur, Registered, Reshape, Within
from tapwise.network.timeline import Ends, Windows


class Counts(NamedTuple):
    """Where a step begins and ends, as counts of samples since the stream began.

    Arguments:
        inputs: by input, how many samples had come before the step, and with it.
        outputs: outputs determined before the step, and with it.
        certain: how many inputs there will be at least.
        is_end: whether the signal ends with this step.
    """

    inputs: tuple[tuple[int, int], ...]
    outputs: tuple[int, int]
    certain: int
    is_end: bool

    @property
    def n_outputs(self) -> int:
        return self.outputs[1] - self.outputs[0]


class Part(NamedTuple):
    """How some of an operation's outputs are computed by themselves.

    Arguments:
        inputs: by input, the positions [first, stop) that the outputs need.
        schedule: for ``run`` on exactly these inputs, with nothing from before them.
    """

    inputs: tuple[tuple[int, int], ...]
    schedule: Any


# What an operation remembers: tensors; of one that was registered, a dictionary of them.
Buffers = list[Any]


class Operation(Protocol):
    """One operation of a stream."""

    def start(self, batch: int, like: Sequence[Tensor]) -> Buffers:
        """The buffers before the first chunk. ``like`` are empty tensors of its inputs."""

    def schedule(self, counts: Counts) -> Any:
        """What a step does, from integers alone."""

    def run(self, schedule: Any, buffers: Buffers, inputs: Sequence[Tensor]) -> tuple[Tensor | None, Buffers]:
        """The outputs, None where there are none, and the buffers after the step."""


class PartialOperation(Operation, Protocol):
    """An operation any outputs of which can be computed by themselves: all but those that carry a state."""

    def part(self, start: int, stop: int, totals: Sequence[int]) -> Part:
        """How the outputs [start, stop) are computed by themselves, at least one.

        Arguments:
            totals: by input, its samples in all.
        """


class Pointwise:
    """Sample by sample, of one input or several; of several, samples wait for those of the others."""

    def __init__(self, node: Node, axes: tuple[int, ...]) -> None:
        work = node.work
        assert isinstance(work, Apply | Reshape)
        self.work, self.axes = work, axes
        self.is_unary = len(axes) == 1

    def start(self, batch: int, like: Sequence[Tensor]) -> Buffers:
        return [] if self.is_unary else list(like)

    def schedule(self, counts: Counts) -> Any:
        emitted, stop = counts.outputs
        waits = any(after > stop or seen > emitted for seen, after in counts.inputs)
        return counts.n_outputs, waits and not self.is_unary

    def part(self, start: int, stop: int, totals: Sequence[int]) -> Part:
        return Part(((start, stop),) * len(totals), (stop - start, False))

    def run(self, schedule: Any, buffers: Buffers, inputs: Sequence[Tensor]) -> tuple[Tensor | None, Buffers]:
        count, waits = schedule
        if not waits:
            return (self.work(inputs) if count else None), buffers
        pairs = zip(buffers, inputs, self.axes, strict=True)
        available = [joined(history, x, axis) for history, x, axis in pairs]
        y = None
        if count:
            ready = zip(available, self.axes, strict=True)
            y = self.work([narrowed(x, 0, count, axis) for x, axis in ready])
        rest = zip(available, self.axes, strict=True)
        return y, [kept_from(x, count, axis) for x, axis in rest]


class Convolution:
    """A convolution, transposed or not: the rule of ``chunks``."""

    def __init__(self, node: Node, axes: tuple[int, ...]) -> None:
        assert isinstance(node.timeline, Windows)
        assert isinstance(node.work, Convolve)
        self.geometry = node.timeline.geometry
        self.weight, self.bias = node.work.weight, node.work.bias

    def start(self, batch: int, like: Sequence[Tensor]) -> Buffers:
        return [like[0]]

    def schedule(self, counts: Counts) -> Any:
        return chunks.advance(self.geometry, *counts.outputs, *counts.inputs[0], length=counts.certain)

    def part(self, start: int, stop: int, totals: Sequence[int]) -> Part:
        part = partition.part(self.geometry, start, stop, totals[0])
        count = part.inputs[1] - part.inputs[0]
        return Part((part.inputs,), chunks.Advance(part.geometry, 0, count, count))

    def run(self, schedule: Any, buffers: Buffers, inputs: Sequence[Tensor]) -> tuple[Tensor | None, Buffers]:
        y, history = chunks.run(schedule, self.weight, self.bias, buffers[0], inputs[0])
        return y, [history]


class _WithHistory:
    """What reads windows along any axis: some of the last inputs are kept."""

    def __init__(self, node: Node, axes: tuple[int, ...]) -> None:
        self.timeline, self.axis = node.timeline, axes[0]

    def start(self, batch: int, like: Sequence[Tensor]) -> Buffers:
        return [like[0]]

    def first_kept(self, counts: Counts) -> tuple[int, int]:
        """The first input that is kept, before the step and after it."""
        (seen, after), (emitted, stop) = counts.inputs[0], counts.outputs
        return self.timeline.first_needed(emitted, seen), self.timeline.first_needed(stop, after)


class Padding(_WithHistory):
    """Padding and cropping of the ends."""

    def __init__(self, node: Node, axes: tuple[int, ...]) -> None:
        super().__init__(node, axes)
        assert isinstance(node.timeline, Ends)
        assert isinstance(node.work, Fill)
        self.ends, self.value = node.timeline, node.work.value

    def schedule(self, counts: Counts) -> Any:
        first, first_after = self.first_kept(counts)
        (emitted, stop), seen = counts.outputs, counts.inputs[0][1]
        low, high = emitted - self.ends.left, stop - self.ends.left
        before = range(min(low, 0), min(high, 0))
        after = range(max(low, seen), max(high, seen)) if counts.is_end else range(0)
        inside = (min(max(low, 0), seen) - first, min(max(high, 0), seen) - first)
        mode, sides = self.ends.padding_mode, (len(before), len(after))
        sources: Any = None
        if mode != "zeros" and any(sides):
            fold = Geometry(1, padding_mode=mode).fold
            sources = [[int(fold(p, seen)) - first for p in side] for side in (before, after)]
        return counts.n_outputs > 0, inside, sides, sources, first_after - first

    def part(self, start: int, stop: int, totals: Sequence[int]) -> Part:
        length, mode = totals[0], self.ends.padding_mode
        low, high = start - self.ends.left, stop - self.ends.left
        before, after = range(min(low, 0), min(high, 0)), range(max(low, length), max(high, length))
        inside = min(max(low, 0), length), min(max(high, 0), length)
        sources: Any = None
        first, last = inside
        if mode != "zeros" and (before or after):
            fold = Geometry(1, padding_mode=mode).fold
            sources = [[int(fold(p, length)) for p in side] for side in (before, after)]
            copied = [*sources[0], *sources[1]]
            is_empty = inside[0] == inside[1]
            first = min(copied) if is_empty else min(first, *copied)
            last = max(copied) + 1 if is_empty else max(last, max(copied) + 1)
            sources = [[p - first for p in side] for side in sources]
        within = (0, 0) if inside[0] == inside[1] else (inside[0] - first, inside[1] - first)
        return Part(((first, last),), (True, within, (len(before), len(after)), sources, last - first))

    def run(self, schedule: Any, buffers: Buffers, inputs: Sequence[Tensor]) -> tuple[Tensor | None, Buffers]:
        has_outputs, (low, high), (left, right), sources, keep = schedule
        axis = self.axis
        x = joined(buffers[0], inputs[0], axis)
        y = None
        if has_outputs:
            y = narrowed(x, low, max(high, low), axis)
            if sources is not None:
                before, after = (torch.tensor(p, dtype=torch.long, device=x.device) for p in sources)
                y = torch.cat((x.index_select(axis, before), y, x.index_select(axis, after)), axis)
            else:
                y = _between(y, axis, left, right, self.value)
        return y, [kept_from(x, min(keep, x.shape[axis]), axis)]


def _between(x: Tensor, axis: int, left: int, right: int, value: float) -> Tensor:
    """The samples, with `left` and `right` copies of one value around them."""
    if left == right == 0:
        return x
    sizes = [list(x.shape), list(x.shape)]
    sizes[0][axis], sizes[1][axis] = left, right
    before, after = (x.new_full(size, value) for size in sizes)
    return torch.cat((before, x, after), axis)


class Windowed(_WithHistory):
    """Pooling, frames, upsampling: a function of exactly the samples that its outputs read."""

    def __init__(self, node: Node, axes: tuple[int, ...]) -> None:
        super().__init__(node, axes)
        assert isinstance(node.timeline, Windows)
        assert isinstance(node.work, Within)
        self.geometry, self.work, self.output_axis = node.timeline.geometry, node.work, node.size.time

    def schedule(self, counts: Counts) -> Any:
        first, first_after = self.first_kept(counts)
        if counts.n_outputs == 0:
            return None, first_after - first
        part = partition.part(self.geometry, *counts.outputs, counts.certain)
        low, high = (position - first for position in part.inputs)
        if self.geometry.transposed:
            return (low, high, 0, 0, part.geometry.left, counts.n_outputs), first_after - first
        return (low, high, *part.geometry.padding, 0, counts.n_outputs), first_after - first

    def part(self, start: int, stop: int, totals: Sequence[int]) -> Part:
        part = partition.part(self.geometry, start, stop, totals[0])
        count = part.inputs[1] - part.inputs[0]
        left, right = part.geometry.padding
        cut = left if self.geometry.transposed else 0
        pads = (0, 0) if self.geometry.transposed else (left, right)
        return Part((part.inputs,), ((0, count, *pads, cut, stop - start), count))

    def run(self, schedule: Any, buffers: Buffers, inputs: Sequence[Tensor]) -> tuple[Tensor | None, Buffers]:
        windows, keep = schedule
        x = joined(buffers[0], inputs[0], self.axis)
        y = None
        if windows is not None:
            low, high, left, right, cut, count = windows
            inside = narrowed(x, low, high, self.axis)
            y = self.work.apply([_between(inside, self.axis, left, right, self.work.fill)])
            y = narrowed(y, cut, cut + count, self.output_axis)
        return y, [kept_from(x, keep, self.axis)]


class Recurrence:
    """LSTM, GRU, RNN, cumsum: the state goes from chunk to chunk."""

    def __init__(self, node: Node, axes: tuple[int, ...]) -> None:
        assert isinstance(node.work, Recur | Accumulate)
        self.work = node.work

    def start(self, batch: int, like: Sequence[Tensor]) -> Buffers:
        return self.work.start(like[0]) if isinstance(self.work, Accumulate) else self.work.start(batch)

    def schedule(self, counts: Counts) -> Any:
        return counts.n_outputs

    def run(self, schedule: Any, buffers: Buffers, inputs: Sequence[Tensor]) -> tuple[Tensor | None, Buffers]:
        return self.work(inputs[0], buffers) if schedule else (None, buffers)


class UserDefined:
    """An operation that ``register`` taught. Its state is a dictionary of tensors, or None."""

    def __init__(self, node: Node, axes: tuple[int, ...]) -> None:
        assert isinstance(node.work, Registered)
        self.work = node.work

    def start(self, batch: int, like: Sequence[Tensor]) -> Buffers:
        return []

    def schedule(self, counts: Counts) -> Any:
        return counts.n_outputs, counts.is_end

    def run(self, schedule: Any, buffers: Buffers, inputs: Sequence[Tensor]) -> tuple[Tensor | None, Buffers]:
        count, is_end = schedule
        if not is_end and not any(chunk.numel() for chunk in inputs):
            return None, buffers
        state = buffers[0] if buffers else None
        y, after = self.work.step(self.work.target, list(inputs), state, is_end)
        return (y if count else None), [] if after is None else [after]


class OfAll:
    """What reads all of time; it has no step."""

    def __init__(self, node: Node, axes: tuple[int, ...]) -> None:
        assert isinstance(node.work, OverTime)
        self.work, self.axis = node.work, node.size.time

    def start(self, batch: int, like: Sequence[Tensor]) -> Buffers:
        return []

    def part(self, start: int, stop: int, totals: Sequence[int]) -> Part:
        return Part(tuple((0, total) for total in totals), (start, stop))

    def run(self, schedule: Any, buffers: Buffers, inputs: Sequence[Tensor]) -> tuple[Tensor | None, Buffers]:
        start, stop = schedule
        return narrowed(self.work.apply(inputs), start, stop, self.axis), buffers


OPERATIONS: dict[type, Any] = {
    OverTime: OfAll,
    Apply: Pointwise,
    Reshape: Pointwise,
    Convolve: Convolution,
    Fill: Padding,
    Within: Windowed,
    Recur: Recurrence,
    Accumulate: Recurrence,
    Registered: UserDefined,
}


def complete(
    operation: Operation, node: Node, inputs: Sequence[Tensor], axes: Sequence[int], batch: int
) -> Tensor | None:
    """All outputs of a full signal, by an operation that carries a state: a step with all inputs, then the end.

    Arguments:
        axes: of time, of the inputs.
    """
    counts = [x.shape[axis] for x, axis in zip(inputs, axes, strict=True)]
    certain, available = max(counts), min(counts)
    fixed, total = node.timeline.determined(available, certain), node.timeline.total(certain)
    nothing = [x.narrow(axis, 0, 0) for x, axis in zip(inputs, axes, strict=True)]
    buffers = operation.start(batch, nothing)
    step = operation.schedule(Counts(tuple((0, n) for n in counts), (0, fixed), certain, False))
    y, buffers = operation.run(step, buffers, inputs)
    end = operation.schedule(Counts(tuple((n, n) for n in counts), (fixed, total), certain, True))
    last, _ = operation.run(end, buffers, nothing)
    parts = [part for part in (y, last) if part is not None]
    return joined(parts[0], parts[1], node.size.time) if len(parts) == 2 else (parts[0] if parts else None)
