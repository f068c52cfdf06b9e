"""Fixed: what each kind of operation does with a chunk of fixed length, as a function of fixed shapes.

Each builder gives ``run(chunks, steps, kept) -> (output, kept)``: ``steps`` counts the steps so far, in a
tensor; ``kept`` are the tensors from the step before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tapwise.errors import TimelineError
from tapwise.geometry import Geometry
from tapwise.network.graph import Node
from tapwise.network.operations import Convolve, Fill, Recur, Within
from tapwise.network.timeline import Ends, Windows, without_ends

Run = Callable[[Sequence[Tensor], Tensor, Sequence[Tensor]], tuple[Tensor, list[Tensor]]]


@dataclass(frozen=True, slots=True)
class Pace:
    """How an operation advances, a chunk a step.

    Arguments:
        many: outputs a step.
        lead: the place of the first output of the first step.
        axis: of time, in its outputs.
    """

    many: int
    lead: int
    axis: int


def refuse(node: Node, reason: str) -> TimelineError:
    """The error that says why an operation has no form of fixed shapes."""
    return TimelineError(reason, node.path, node.name, "use the stream itself, by step and flush")


def _masked(x: Tensor, steps: Tensor, came: Pace, fill: float) -> Tensor:
    """The chunk, with what comes before the beginning set to ``fill``."""
    if came.lead >= 0:
        return x
    shape = [1] * x.ndim
    shape[came.axis] = came.many
    return torch.where(_places(steps, came.many, came.lead, x).reshape(shape) >= 0, x, fill)


def _places(steps: Tensor, many: int, lead: int, like: Tensor) -> Tensor:
    return steps * many + lead + torch.arange(many, device=like.device)


def aligned(node: Node, came: Sequence[Pace], pace: Pace) -> Run:
    """Sample by sample: inputs that are ahead wait for the others."""
    work: Any = node.work
    waits = [other.lead - pace.lead for other in came]

    def run(
        chunks: Sequence[Tensor], steps: Tensor, kept: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        inputs, after, held = [], [], iter(kept)
        for x, wait, other in zip(chunks, waits, came, strict=True):
            if wait:
                known = torch.cat((next(held), x), other.axis)
                after.append(known.narrow(other.axis, other.many, wait))
                x = known.narrow(other.axis, 0, other.many)
            inputs.append(x)
        return work(inputs), after

    return run


def window(node: Node, came: Pace, pace: Pace) -> tuple[int, int]:
    """Inputs kept from a step to the next, and how many of the chunk's first are skipped."""
    assert isinstance(node.timeline, Windows)
    g = node.timeline.geometry
    # Upsampling gives whole inputs' worth of outputs: its windows never reach back.
    begin = pace.lead // g.stride if g.transposed else pace.lead * g.stride - g.left
    return max(came.lead - begin, 0), max(begin - came.lead, 0)


def windows(node: Node, came: Pace, pace: Pace) -> Run:
    """A convolution, a pooling, an upsampling."""
    assert isinstance(node.timeline, Windows)
    assert isinstance(node.work, Convolve | Within)
    g, work = node.timeline.geometry, node.work
    keep, skip = window(node, came, pace)
    fill = work.fill if isinstance(work, Within) else 0.0
    span = (pace.many - 1) * g.stride + g.effective_kernel_size
    span = pace.many // g.stride if g.transposed else span

    def run(
        chunks: Sequence[Tensor], steps: Tensor, kept: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        x = _masked(chunks[0], steps, came, fill)
        known = torch.cat((kept[0], x), came.axis) if keep else x
        inside = known.narrow(came.axis, skip, min(span, known.shape[came.axis] - skip))
        if isinstance(work, Convolve):
            y = F.conv1d(inside, work.weight, work.bias, g.stride, 0, g.dilation, g.groups)
        else:
            y = work.apply([inside])
        rest = known.narrow(came.axis, known.shape[came.axis] - keep, keep)
        return y, [rest] if keep else []

    return run


def sums_kept(node: Node, came: Pace, pace: Pace) -> tuple[Geometry, int, int, int]:
    """Of a transposed convolution: its windows, where a chunk's sums begin, how many, and how many stay."""
    assert isinstance(node.timeline, Windows)
    g = without_ends(node.timeline.geometry)
    at = came.lead * g.stride - node.timeline.geometry.left - pace.lead
    length = max(at + (came.many - 1) * g.stride + g.effective_kernel_size, pace.many)
    return g, at, length, length - pace.many


def transposed(node: Node, came: Pace, pace: Pace) -> Run:
    """A transposed convolution: sums that later chunks add to are kept."""
    assert isinstance(node.work, Convolve)
    work = node.work
    g, at, length, _ = sums_kept(node, came, pace)

    def run(
        chunks: Sequence[Tensor], steps: Tensor, kept: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        x = _masked(chunks[0], steps, came, 0.0)
        new = F.conv_transpose1d(x, work.weight, None, g.stride, 0, 0, g.groups, g.dilation)
        sums = F.pad(kept[0], (0, length - kept[0].shape[-1]))
        sums = sums + F.pad(new, (at, length - at - new.shape[-1]))
        y = sums[..., : pace.many]
        return (y if work.bias is None else y + work.bias[:, None]), [sums[..., pace.many :]]

    return run


def ends(node: Node, came: Pace, pace: Pace) -> Run:
    """Padding on the left, and samples held back that the end may cut."""
    assert isinstance(node.timeline, Ends)
    assert isinstance(node.work, Fill)
    timeline, value, axis = node.timeline, node.work.value, came.axis
    keep = came.lead - (pace.lead - timeline.left)
    copies = timeline.left > 0 and timeline.padding_mode != "zeros"
    if copies and not _within_reach(timeline.left, came, pace, timeline.padding_mode):
        raise refuse(node, f"pads by {timeline.padding_mode!r} more than a chunk gives")

    def run(
        chunks: Sequence[Tensor], steps: Tensor, kept: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        x = chunks[0]
        if timeline.left > 0 and not copies:
            x = _masked(x, steps, came, value)
        known = torch.cat((kept[0], x), axis) if keep else x
        if copies:
            first = pace.lead - timeline.left
            place = _places(steps, pace.many, first, x)
            folded = -place if timeline.padding_mode == "reflect" else torch.zeros_like(place)
            source = torch.where(place < 0, folded, place) - steps * pace.many - first
            source = source.clamp(0, known.shape[axis] - 1)  # before the beginning, anything
            y = known.index_select(axis, source)
        else:
            y = known.narrow(axis, 0, pace.many)
        return y, [known.narrow(axis, pace.many, keep)] if keep else []

    return run


def _within_reach(left: int, came: Pace, pace: Pace, mode: str) -> bool:
    """Whether what padding copies is always among what is kept and the chunk."""
    step = 0
    while (start := step * pace.many + pace.lead - left) < 0:
        end = (step + 1) * came.many + came.lead
        for place in range(max(start, -left), min(start + pace.many, 0)):
            if not start <= (-place if mode == "reflect" else 0) < end:
                return False
        step += 1
    return True


def recurrence(node: Node, came: Pace, pace: Pace) -> Run:
    """LSTM, GRU, RNN."""
    assert isinstance(node.work, Recur)
    work = node.work
    if came.lead < 0:
        raise refuse(node, "is a recurrence after operations that look ahead")
    return lambda chunks, steps, kept: work(chunks[0], kept)
