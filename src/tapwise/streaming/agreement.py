"""Agreement: what a stream gives, operation by operation, compared with a run of the model."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import torch
from torch import Tensor

from tapwise.errors import StreamMismatchError, TimelineError
from tapwise.network.graph import Count, Graph
from tapwise.network.graph_builder import is_same
from tapwise.network.record import Recording, Ref
from tapwise.network.runs import Runs
from tapwise.streaming.scheduler import Scheduler


def by_node(scheduler: Scheduler, signals: Sequence[Tensor], sizes: Sequence[int]) -> list[Tensor]:
    """By node, all that it gives for signals in chunks of these sizes, and at their end."""
    graph = scheduler.graph
    parts: list[list[Tensor]] = [[] for _ in graph.nodes]
    before, scheduler.watch = scheduler.watch, lambda n, chunk: parts[n].append(chunk.clone())
    seen = 0
    try:
        with torch.no_grad():
            group = scheduler.begin(range(signals[0].shape[0] if graph.batches else graph.batch))
            for size in sizes:
                _, group = scheduler.run(group, part_of(graph, signals, seen, seen + size), False)
                seen += size
            scheduler.run(group, None, True)
    finally:
        scheduler.watch = before
    axes = [node.size.time for node in graph.nodes]
    made = [torch.cat(p, axis) for p, axis in zip(parts[len(signals) :], axes[len(signals) :], strict=True)]
    return [*signals, *made]


def part_of(graph: Graph, signals: Sequence[Tensor], start: int, stop: int) -> list[Tensor]:
    """The samples of each source from ``start`` to ``stop`` of the first one's."""
    first, last = graph.counts(start), graph.counts(stop)
    return [
        signal.narrow(graph.nodes[n].size.time, first[n][0], last[n][0] - first[n][0])
        for n, signal in enumerate(signals)
    ]


_TOLERANCES = {torch.float64: 1e-11, torch.float32: 1e-4, torch.complex128: 1e-11}


def compare(graph: Graph, offline: Recording, found: Sequence[Tensor], tolerance: float | None) -> float:
    """The largest difference; StreamMismatchError names the first operation that differs by too much."""
    worst = 0.0
    coarsest: list[float] = []  # by node, what the dtypes on the way to it allow
    for node, streamed in zip(graph.nodes, found, strict=True):
        own = _TOLERANCES.get(node.dtype, 2e-2 if node.dtype.is_floating_point else 0.0)
        coarsest.append(max(own, *(coarsest[n] for n in node.inputs), 0.0))
        if node.value is None or not node.inputs:
            continue
        axis = node.size.time
        wanted = node.size.like_graph(offline.values[node.value], graph.batch)
        if streamed.shape != wanted.shape:
            raise StreamMismatchError(
                f"{node.where}: the stream gave {streamed.shape[axis]} samples, the model {wanted.shape[axis]}"
            )
        if not wanted.numel():
            continue
        allowed = coarsest[-1] if tolerance is None else tolerance
        if wanted.is_floating_point() and streamed.dtype == wanted.dtype:  # nearly always all finite, and close
            largest = float((streamed - wanted).abs().max())
            if largest <= allowed * (1 + float(wanted.abs().max())) < inf:
                worst = max(worst, largest)
                continue
        error = streamed ^ wanted if wanted.dtype == torch.bool else (streamed.to(wanted.dtype) - wanted).abs()
        is_same = streamed == wanted  # equal infinities have no difference, nor has a NaN of the model's own
        if wanted.is_floating_point():
            is_same |= streamed.isnan() & wanted.isnan()
        error = torch.where(is_same, 0, error.double())
        error = error.nan_to_num(inf)
        finite = wanted[wanted.isfinite()].to(torch.int64 if wanted.dtype == torch.bool else wanted.dtype)
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
    signals = runs.signals(length)
    offline = runs.run(signals, keep=True)
    check_beside(scheduler.graph, offline, length)
    if not all(value.is_floating_point() for value in offline.values):
        return  # another rounding may choose another code, and all that follows from it
    third = length // 3
    found = by_node(scheduler, signals, [third, third, length - 2 * third])
    compare(scheduler.graph, offline, found, max(_LOOSE, 2e-2 if signals[0].dtype.itemsize < 4 else 0))


def check_results(scheduler: Scheduler, runs: Runs, allowed: float) -> None:
    """Raise where the results of a signal in three chunks aren't the model's, of a scheduler that shows no operations.

    Arguments:
        allowed: by how much they may differ, of the largest output.
    """
    length = max(runs.shortest(), scheduler.graph.shortest)
    signals = runs.signals(length)
    offline = runs.run(signals, keep=True)
    graph, third = scheduler.graph, length // 3
    parts: list[list[Tensor]] = [[] for _ in graph.results]
    with torch.no_grad():
        group, seen = scheduler.begin(range(signals[0].shape[0] if graph.batches else graph.batch)), 0
        for size in (third, third, length - 2 * third, None):
            chunks = None if size is None else part_of(graph, signals, seen, seen + size)
            results, group = scheduler.run(group, chunks, size is None)
            seen += size or 0
            for part, result in zip(parts, results, strict=True):
                part.append(result)
    for number, part in zip(graph.results, parts, strict=True):
        node = graph.nodes[number]
        assert node.value is not None
        wanted = node.size.like_graph(offline.values[node.value], graph.batch)
        found = torch.cat(part, node.size.time)
        if found.shape != wanted.shape or not torch.allclose(
            found, wanted, allowed, allowed * (1 + float(wanted.abs().max()))
        ):
            raise StreamMismatchError(f"{node.where}: the frozen stream differs from the model")


def check_beside(graph: Graph, offline: Recording, length: int) -> None:
    """Refuse a model that returns something else beside the signal for shorter signals than it was read at."""
    totals = graph.totals(length)
    for found, out in zip(offline.leaves, graph.outputs, strict=False):
        if type(out) is int or isinstance(found, Ref):
            continue
        wanted = out.of(totals[out.node], graph.batch) if type(out) is Count else out[0]
        if not is_same(found, wanted):
            raise TimelineError(
                f"what the model returns beside the signal is {found!r} for {length} samples, and {wanted!r} as longer "
                "signals have it",
                "",
                "output",
                "return sequences alone, from a small module around the model",
            )


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
        except TimelineError as error:
            if error.operation == "output":
                raise
            return False
        except (ArithmeticError, LookupError, RuntimeError, ValueError, AssertionError):
            return False
        return True

    step = runs.multiple
    least = base % step or step
    steps = (base - least) // step  # the lengths that the model takes, up to base
    few = range(min(steps, _SHORT))
    more = [n for k in range(10, 40) if _SHORT <= (n := int(2 ** (k / 2))) < steps]
    wrong = [n for n in (*few, *more) if not holds(least + n * step)]
    if not wrong:
        return 1
    low = max(wrong)
    high = next((n for n in (*few, *more) if n > low), steps)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(least + middle * step) else (middle, high)
    return least + high * step
