"""Each kind of operation on chunks of one fixed length, as a function of fixed shapes.

A builder gives ``run(inputs, steps, history) -> (output, history)``: ``steps`` counts the steps so far, in
a tensor; ``history`` are the tensors from the step before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tapwise.chunks import joined, kept_from, narrowed
from tapwise.engine.kernels.native import torch_conv1d, torch_conv_transpose1d
from tapwise.errors import TimelineError
from tapwise.geometry import Geometry
from tapwise.network.graph import Node
from tapwise.network.operations import Accumulate, Convolve, Fill, Recur, Within
from tapwise.network.timeline import Ends, Windows
from tapwise.partition import window_span

Tensors = Sequence[Tensor]
Run = Callable[[Tensors, Tensor, Tensors], tuple[Tensor, list[Tensor]]]


@dataclass(frozen=True, slots=True)
class Pace:
    """How an operation advances, a chunk a step.

    Arguments:
        n_outputs: outputs a step.
        lead: the position of the first output of the first step.
        axis: of time, in its outputs.
    """

    n_outputs: int
    lead: int
    axis: int


def refuse(node: Node, reason: str) -> TimelineError:
    """The error that says why an operation has no form of fixed shapes."""
    return TimelineError(reason, node.path, node.name, "use the stream itself, by step and flush")


def _masked(x: Tensor, steps: Tensor, source: Pace, fill: float) -> Tensor:
    """The chunk, with what comes before the beginning set to ``fill``."""
    if source.lead >= 0:
        return x
    shape = [1] * x.ndim
    shape[source.axis] = source.n_outputs
    positions = _positions(steps, source.n_outputs, source.lead, x)
    return torch.where(positions.reshape(shape) >= 0, x, fill)


def _positions(steps: Tensor, count: int, lead: int, like: Tensor) -> Tensor:
    return steps * count + lead + torch.arange(count, device=like.device)


def pointwise(node: Node, sources: Sequence[Pace], pace: Pace) -> Run:
    """Sample by sample: inputs that are ahead wait for the others."""
    work: Any = node.work
    ahead = [source.lead - pace.lead for source in sources]

    def run(inputs: Tensors, steps: Tensor, history: Tensors) -> tuple[Tensor, list[Tensor]]:
        ready, after, waiting = [], [], iter(history)
        for x, n, source in zip(inputs, ahead, sources, strict=True):
            if n:
                available = joined(next(waiting), x, source.axis)
                after.append(kept_from(available, source.n_outputs, source.axis))
                x = narrowed(available, 0, source.n_outputs, source.axis)
            ready.append(x)
        return work(ready), after

    return run


def kept_and_skipped(node: Node, source: Pace, pace: Pace) -> tuple[int, int]:
    """Inputs kept from a step to the next, and how many of the chunk's first are skipped."""
    first, _ = _span(node, pace)
    return max(source.lead - first, 0), max(first - source.lead, 0)


def _span(node: Node, pace: Pace) -> tuple[int, int]:
    assert isinstance(node.timeline, Windows)
    return window_span(node.timeline.geometry, pace.lead, pace.lead + pace.n_outputs)


def windows(node: Node, source: Pace, pace: Pace) -> Run:
    """A convolution, transposed or not, a pooling, an upsampling."""
    assert isinstance(node.timeline, Windows)
    assert isinstance(node.work, Convolve | Within)
    geometry, work = node.timeline.geometry, node.work
    keep, skip = kept_and_skipped(node, source, pace)
    first, last = _span(node, pace)
    fill = work.fill if isinstance(work, Within) else 0.0

    def run(inputs: Tensors, steps: Tensor, history: Tensors) -> tuple[Tensor, list[Tensor]]:
        x = _masked(inputs[0], steps, source, fill)
        x = joined(history[0], x, source.axis) if keep else x
        length = x.shape[source.axis]
        inside = narrowed(x, skip, min(skip + last - first, length), source.axis)
        if isinstance(work, Convolve):
            y = _convolve(geometry, work, inside, pace.lead - first * geometry.stride, pace)
        else:
            y = work.apply([inside])
            if geometry.transposed:
                begin = geometry.left + pace.lead - first * geometry.stride
                y = narrowed(y, begin, begin + pace.n_outputs, pace.axis)
        return y, [kept_from(x, length - keep, source.axis)] if keep else []

    return run


def _convolve(geometry: Geometry, work: Convolve, x: Tensor, offset: int, pace: Pace) -> Tensor:
    """The convolution of exactly the inputs that the outputs read, in torch's own operations."""
    g = geometry
    if not g.transposed:
        return torch_conv1d(x, work.weight, work.bias, g.stride, 0, g.dilation, g.groups)
    y = torch_conv_transpose1d(x, work.weight, None, g.stride, 0, 0, g.groups, g.dilation)
    # Outputs that no input reaches, in gaps between strides and in output padding, are zeros.
    missing = g.left + offset + pace.n_outputs - y.shape[-1]
    y = (F.pad(y, (0, missing)) if missing > 0 else y).narrow(-1, g.left + offset, pace.n_outputs)
    return y if work.bias is None else y + work.bias[:, None]


def padding(node: Node, source: Pace, pace: Pace) -> Run:
    """Padding on the left, and samples held back that the end may cut."""
    assert isinstance(node.timeline, Ends)
    assert isinstance(node.work, Fill)
    timeline, value, axis = node.timeline, node.work.value, source.axis
    keep = source.lead - (pace.lead - timeline.left)
    copies = timeline.left > 0 and timeline.padding_mode != "zeros"
    if copies and not _is_available(timeline.left, source, pace, timeline.padding_mode):
        raise refuse(node, f"pads by {timeline.padding_mode!r} more than a chunk gives")

    def run(inputs: Tensors, steps: Tensor, history: Tensors) -> tuple[Tensor, list[Tensor]]:
        x = inputs[0]
        if timeline.left > 0 and not copies:
            x = _masked(x, steps, source, value)
        x = joined(history[0], x, axis) if keep else x
        if copies:
            first = pace.lead - timeline.left
            position = _positions(steps, pace.n_outputs, first, x)
            is_reflected = timeline.padding_mode == "reflect"
            folded = -position if is_reflected else torch.zeros_like(position)
            index = torch.where(position < 0, folded, position) - steps * pace.n_outputs - first
            index = index.clamp(0, x.shape[axis] - 1)  # before the beginning, anything
            y = x.index_select(axis, index)
        else:
            y = narrowed(x, 0, pace.n_outputs, axis)
        return y, [kept_from(x, pace.n_outputs, axis)] if keep else []

    return run


def _is_available(left: int, source: Pace, pace: Pace, mode: str) -> bool:
    """Whether what padding copies is always in the history or the chunk."""
    step = 0
    while (start := step * pace.n_outputs + pace.lead - left) < 0:
        end = (step + 1) * source.n_outputs + source.lead
        for position in range(max(start, -left), min(start + pace.n_outputs, 0)):
            if not start <= (-position if mode == "reflect" else 0) < end:
                return False
        step += 1
    return True


def recurrence(node: Node, source: Pace, pace: Pace) -> Run:
    """LSTM, GRU, RNN, cumsum: after operations that look ahead, whole steps come before the first sample."""
    assert isinstance(node.work, Recur | Accumulate)
    work, ahead, n_waiting = node.work, source.lead - pace.lead, int(source.lead != pace.lead)

    def run(inputs: Tensors, steps: Tensor, history: Tensors) -> tuple[Tensor, list[Tensor]]:
        x, state, after = inputs[0], history[: len(history) - n_waiting], []
        if ahead:
            available = joined(history[-1], x, source.axis)
            after = [kept_from(available, source.n_outputs, source.axis)]
            x = narrowed(available, 0, source.n_outputs, source.axis)
        y, next_state = work(x, state)
        if pace.lead < 0:
            has_begun = steps * pace.n_outputs + pace.lead >= 0
            next_state = [torch.where(has_begun, new, old) for new, old in zip(next_state, state, strict=True)]
        return y, [*next_state, *after]

    return run
