"""Reading: runs of a model become a graph, checked against runs of other lengths."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

from torch import nn

from tapwise.errors import TimelineError
from tapwise.network import rules
from tapwise.network.graph import Graph
from tapwise.network.graph_builder import GraphBuilder
from tapwise.network.observed_call import ObservedCall
from tapwise.network.record import Recording
from tapwise.network.runs import Runs

RUNS = 16
# Lengths beyond the first: next to it, where remainders show, and apart, where multiples do.
_MORE = (1, 2, 3, 5, 8, 64, 521, 2053)
# Numbers that a run may compute, for it to be one of the longer ones.
_NUMBERS = (2e8, 3e7)


def build(runs: Sequence[Recording], rows: Sequence[int], time: int, batches: bool) -> Graph:
    """The graph of runs that made the same calls.

    Arguments:
        rows: the batch of each run.
        batches: whether some runs have another batch than the first.
    """
    first = runs[0].calls
    for run in runs[1:]:
        for one, other in zip(first, run.calls, strict=False):
            if (one.name, one.path, one.outputs, one.refs) != (other.name, other.path, other.outputs, other.refs):
                raise _other_calls(one.path, one.name)
        if len(run.calls) != len(first):
            longer = max(first, run.calls, key=len)
            extra = longer[min(len(first), len(run.calls))]
            raise _other_calls(extra.path, extra.name)
    builder = GraphBuilder(runs, rows, time)
    for calls in zip(*(run.calls for run in runs), strict=True):
        observed = ObservedCall(builder, calls)
        # A call may read what no rule gave a node, as a recurrence's last state: an error only where used.
        if all(ref in builder.numbers for ref in observed.refs):
            rules.rule_of(observed)(observed)
    return builder.graph(batches)


def _other_calls(path: str, name: str) -> TimelineError:
    return TimelineError(
        "the model calls other operations for signals of other lengths",
        path,
        name,
        "keep loops and branches free of the signal's length, or tapwise.register the module",
    )


def read(model: nn.Module, example: Any, time: int | None = None) -> tuple[Graph, Runs]:
    """A model as a graph of operations with timelines, and what runs it.

    The model is run some twenty times, as in evaluation, with random numbers of the example's kind:
    what depends on the signal's length is fitted, then held against other lengths.

    Arguments:
        example: a tensor that the model takes, or a tuple of its inputs, the signal first.
        time: the signal's axis of time; None finds it.

    Raises:
        TimelineError: an operation that can't be followed, by the path of its module, with a remedy.
    """
    runs = Runs(model, example, time)
    base = runs.shortest()
    first = runs.run(runs.signal(base))
    made = [first, *(runs.run(runs.signal(base + more)) for more in _affordable(first, base))]
    others = _other_batch(runs, base, first)
    tried = {base + more for more in (0, *_MORE)}
    while True:
        rows = [runs.rows] * len(made) + [runs.rows + 1] * len(others)
        graph = build([*made, *others], rows, runs.time, bool(others))
        wrong = _wrong(graph, runs, base)
        if wrong is None:
            return graph, runs
        length, run = wrong
        if length in tried:
            check_lengths(graph, run, length)
        tried.add(length)
        made.append(run)  # what it shows was not seen before: fit anew


def _affordable(first: Recording, base: int) -> list[int]:
    """How much longer than the first the further runs are: less where each sample costs much."""
    numbers = sum(math.prod(size) for size in first.sizes) / base
    return [more for more in _MORE if numbers * (base + more) <= _NUMBERS[more > 521] or more <= 64]


def _other_batch(runs: Runs, length: int, like: Recording) -> list[Recording]:
    """A run with one row more, where the first axis is the batch's and the model takes it."""
    if runs.time == 0:
        return []
    try:
        other = runs.run(runs.signal(length, runs.rows + 1))
    except Exception:
        return []
    same = [call.name for call in other.calls] == [call.name for call in like.calls]
    axes = [len(size) for size in other.sizes] == [len(size) for size in like.sizes]
    return [other] if same and axes else []


def _wrong(graph: Graph, runs: Runs, base: int) -> tuple[int, Recording] | None:
    """The first of runs at other lengths in which an operation gave another length than the graph says."""
    period = graph.period
    rng = random.Random(0)
    rests = list(range(period)) if period <= RUNS else rng.sample(range(period), RUNS)
    while len(rests) < RUNS:
        rests.append(rng.randrange(period))
    spread = max(1, 64 // period)
    for rest in rests:
        length = base + (rest - base) % period + period * rng.randrange(spread)
        run = runs.run(runs.signal(length))
        if len(run.calls) != graph.calls:
            raise _other_calls("", "forward")
        try:
            check_lengths(graph, run, length)
        except TimelineError:
            return length, run
    return None


def check_lengths(graph: Graph, run: Recording, length: int) -> None:
    """Raise where an operation of a run gave another length than the graph says."""
    for node, total in zip(graph.nodes, graph.totals(length), strict=True):
        if node.value is None:
            continue
        found = run.sizes[node.value][node.size.time]
        if found != total:
            raise TimelineError(
                f"gave {found} samples where its timeline says {total}, for a signal of {length}",
                node.path,
                node.name,
                "its lengths are neither the same nor up to a multiple: make them so, or tapwise.register its module",
            )
