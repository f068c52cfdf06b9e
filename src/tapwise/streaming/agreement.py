"""Agreement: what a stream gives, operation by operation, compared with a run of the model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tapwise.errors import StreamMismatchError
from tapwise.network.graph import Graph
from tapwise.network.record import Recording
from tapwise.network.runs import Runs
from tapwise.streaming.scheduler import Scheduler


def by_node(scheduler: Scheduler, signal: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """By node, all that it gives for a signal in chunks of these sizes, and at its end."""
    graph = scheduler.graph
    parts: list[list[Tensor]] = [[] for _ in graph.nodes]
    before, scheduler.watch = scheduler.watch, lambda n, chunk: parts[n].append(chunk.clone())
    axis, at = graph.nodes[0].size.time, 0
    try:
        with torch.no_grad():
            group = scheduler.begin(range(signal.shape[0] if graph.batches else graph.batch))
            for size in sizes:
                scheduler.run(group, signal.narrow(axis, at, size), False)
                at += size
            scheduler.run(group, None, True)
    finally:
        scheduler.watch = before
    axes = [node.size.time for node in graph.nodes]
    return [torch.cat(p, axis) if p else signal for p, axis in zip(parts, axes, strict=True)]


_TOLERANCES = {torch.float64: 1e-11, torch.float32: 1e-4, torch.complex128: 1e-11}


def compare(graph: Graph, offline: Recording, found: Sequence[Tensor], tolerance: float | None) -> float:
    """The largest difference; StreamMismatchError names the first operation that differs by too much."""
    worst = 0.0
    for node, streamed in zip(graph.nodes, found, strict=True):
        if node.value is None or not node.inputs:
            continue
        axis = node.size.time
        wanted = offline.values[node.value]
        if streamed.shape != wanted.shape:
            raise StreamMismatchError(
                f"{node.where}: the stream gave {streamed.shape[axis]} samples, the model {wanted.shape[axis]}"
            )
        if not wanted.numel():
            continue
        error = streamed ^ wanted if wanted.dtype == torch.bool else (streamed.to(wanted.dtype) - wanted).abs()
        error = torch.where(streamed == wanted, 0, error.double())  # equal infinities have none
        error = error.nan_to_num(float("inf"))
        allowed = _TOLERANCES.get(wanted.dtype, 2e-2) if tolerance is None else tolerance
        finite = wanted[wanted.isfinite()]
        scale = 1 + float(finite.abs().max()) if finite.numel() else 1.0
        largest = float(error.max())
        if largest > allowed * scale:
            place = int(error.transpose(axis, -1).flatten(0, -2).amax(0).argmax())
            raise StreamMismatchError(
                f"{node.where}: the stream differs from the model by {largest:.3g} at its sample {place}; "
                f"{allowed * scale:.3g} is allowed"
            )
        worst = max(worst, largest)
    return worst


# Where rounding decides, as in a table of codes, a new stream may differ by more than a verified one.
_LOOSE = 1e-3
_SHORT = 24


def agrees(scheduler: Scheduler, runs: Runs, length: int) -> None:
    """Raise where the stream of a signal of this length, in three chunks, isn't what the model gives."""
    signal = runs.signal(length)
    offline = runs.run(signal, keep=True)
    if not all(value.is_floating_point() for value in offline.values):
        return  # another rounding may choose another code, and all that follows from it
    third = length // 3
    found = by_node(scheduler, signal, [third, third, length - 2 * third])
    compare(scheduler.graph, offline, found, max(_LOOSE, 2e-2 if signal.dtype.itemsize < 4 else 0))


def settle(scheduler: Scheduler, runs: Runs) -> None:
    """Compare a new stream with the model once, and find how short its signals may be."""
    base = runs.shortest()
    agrees(scheduler, runs, base)
    scheduler.holds_from(shortest_of(scheduler, runs, base))


def shortest_of(scheduler: Scheduler, runs: Runs, base: int) -> int:
    """The fewest samples from which on the model does what its graph says.

    Below, models do otherwise: reflect what is too short in another way, or pad to a least length.
    """

    def holds(length: int) -> bool:
        try:
            agrees(scheduler, runs, length)
        except (ArithmeticError, LookupError, RuntimeError, ValueError, AssertionError):
            return False
        return True

    few = range(1, min(base, _SHORT))
    more = [n for k in range(10, 40) if _SHORT <= (n := int(2 ** (k / 2))) < base]
    wrong = [n for n in (*few, *more) if not holds(n)]
    if not wrong:
        return 1
    low = max(wrong)
    high = next((n for n in (*few, *more) if n > low), base)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
