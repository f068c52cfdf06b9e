"""Reading: runs of a model become a graph, checked against runs of other lengths."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from math import inf
from typing import Any

from torch import nn

from tapwise.errors import TimelineError
from tapwise.network import rules
from tapwise.network.aligned_calls import aligned_to, longest
from tapwise.network.graph import Graph
from tapwise.network.graph_builder import GraphBuilder
from tapwise.network.observed_call import ObservedCall
from tapwise.network.operation_names import ATTENDS, MIXES, RECURRENCES
from tapwise.network.record import Recording
from tapwise.network.runs import Runs
from tapwise.network.samples import Source

RUNS = 16
# Runs that check a graph: one for each place in the period, at least 8 and at most RUNS, then more until they have computed so
# many numbers.
_FEWEST_RUNS, _MOST_CHECKED = 8, 2e8
# Lengths beyond the first: next to it, where remainders show, and apart, where multiples do.
_MORE = (1, 2, 3, 5, 8, 64, 521, 2053, 20011, 131101)
# Numbers that a run of each of these lengths may compute.
_NUMBERS = (inf, inf, inf, *[2e8] * 4, 3e7, 5e6, 3e6)

# A number of a recurrence takes as long as this number of others: one moment after the other.
_RECURRENCE = 50


def build(
    runs: Sequence[Recording], rows: Sequence[int], sources: Sequence[Source], batches: bool, is_offline: bool = False
) -> Graph:
    """The graph of runs that made the same calls.

    Arguments:
        rows: the batch of each run.
        sources: the model's inputs that are signals.
        batches: whether some runs have another batch than the first.
        is_offline: whether operations that read all of time are followed too.
    """
    _check_calls(runs)
    builder = GraphBuilder(runs, rows, sources, is_offline)
    for calls in zip(*(run.calls for run in runs), strict=True):
        observed = ObservedCall(builder, calls)
        # A call that can't be followed, or reads what can't be, is an error only where the output needs it.
        reason = next((builder.refused[ref] for ref in observed.refs if ref in builder.refused), None)
        try:
            if reason is None and all(ref in builder.numbers for ref in observed.refs):
                rules.rule_of(observed)(observed)
        except TimelineError as error:
            reason = error
        if reason is not None:
            # Positions that rotate queries and keys are no reason: that they meet is.
            if reason.operation in MIXES or reason.reason == ATTENDS[0]:
                pass
            elif observed.name in MIXES:
                reason = observed.refuse(*MIXES[observed.name])
            elif observed.name in ("matmul", "bmm", "einsum") and len(observed.refs) > 1:
                reason = observed.refuse(*ATTENDS)
            builder.refused.update((value, reason) for value in observed.first.outputs if value is not None)
    return builder.graph(batches)


def _check_calls(runs: Sequence[Recording]) -> None:
    """Refuse runs that made other calls than the first."""
    first = runs[0].calls
    for run in runs[1:]:
        for one, other in zip(first, run.calls, strict=False):
            if (one.name, one.path, one.outputs, one.refs) != (other.name, other.path, other.outputs, other.refs):
                raise _other_calls(one.path, one.name)
        if len(run.calls) != len(first):
            longer = max(first, run.calls, key=len)
            extra = longer[min(len(first), len(run.calls))]
            raise _other_calls(extra.path, extra.name)


def _other_calls(path: str, name: str) -> TimelineError:
    return TimelineError(
        "the model calls other operations for signals of other lengths",
        path,
        name,
        "keep loops and branches free of the signal's length, or tapwise.register the module",
    )


def read(model: nn.Module, example: Any, time: int | None = None, *, is_offline: bool = False) -> tuple[Graph, Runs]:
    """A model as a graph of operations with timelines, and what runs it.

    The model is run some twenty times, as in evaluation, with random numbers of the example's kind:
    what depends on the signal's length is fitted, then held against other lengths.

    Arguments:
        example: a tensor that the model takes, or a tuple of its inputs, the signal first.
        time: the signal's axis of time; None finds it.
        is_offline: whether operations that read all of time are followed too: such a graph can't be streamed.

    Raises:
        TimelineError: an operation that can't be followed, by the path of its module, with a remedy.
    """
    runs = Runs(model, example, time)
    try:
        return _read(runs, is_offline), runs
    except TimelineError:
        # A further input that the model cut or stretched to the signal's length may be a signal itself.
        while runs.take_further_sources():
            try:
                return _read(runs, is_offline), runs
            except TimelineError:
                continue
        raise


def _read(runs: Runs, is_offline: bool) -> Graph:
    base = runs.shortest()
    made, lengths = [runs.run(runs.signals(base))], [base]
    for more, allowed in zip(_MORE, _NUMBERS, strict=True):
        length = base + more * runs.multiple
        if _predicted(made, lengths, length) > allowed:
            break
        made, lengths = _aligned(runs, [*made, runs.run(runs.signals(length))]), [*lengths, length]
        _check_calls(made)  # before longer runs: a loop over samples takes long
    if runs.of_example is not None and len(runs.sources) == 1 and runs.length > base:
        made = _aligned(runs, [*made, runs.of_example])
    first = made[0]
    others = _other_batch(runs, base, first)
    tried = {base + more * runs.multiple for more in (0, *_MORE)}
    while True:
        graph = _graph(runs, made, others, is_offline)
        graph.multiple, graph.example_length = runs.multiple, runs.length
        graph.places = tuple(source.place for source in runs.sources)
        wrong = _wrong(graph, runs, base)
        if wrong is None:
            return graph
        length, run = wrong
        if length in tried:
            check_lengths(graph, run, length)
        tried.add(length)
        made = _aligned(runs, [*made, run])  # what it shows was not seen before: fit anew


def _aligned(runs: Runs, made: Sequence[Recording]) -> list[Recording]:
    """The runs with the same calls, as far as the shorter ones padded or cut nothing."""
    runs.template = longest(made)
    return [aligned_to(runs.template, run) for run in made]


def _graph(runs: Runs, made: Sequence[Recording], others: Sequence[Recording], is_offline: bool) -> Graph:
    """The graph, for any batch where it can be read so."""
    rows = [runs.rows] * len(made)
    if others:
        try:
            return build([*made, *others], [*rows, runs.rows + 1], runs.sources, True, is_offline)
        except TimelineError:
            pass  # what it does depends on the batch: it is read at one
    return build(made, rows, runs.sources, False, is_offline)


def _predicted(made: Sequence[Recording], lengths: Sequence[int], length: int) -> float:
    """The numbers that a run of this length computes, by how they grew so far: attention squares its length."""
    counts = [_numbers_of(run) for run in (made[0], made[-1])]
    growth = lengths[-1] / lengths[0]
    power = max(1.0, math.log(counts[1] / counts[0]) / math.log(growth)) if growth > 1.05 and counts[0] else 1.0
    grown: float = counts[1] * (length / lengths[-1]) ** power
    return grown


def _numbers_of(run: Recording) -> int:
    """The numbers that a run computed, each of a recurrence as the time that it takes."""
    recurrent = {value for call in run.calls if call.name in RECURRENCES for value in call.outputs}
    return sum(math.prod(size) * (_RECURRENCE if n in recurrent else 1) for n, size in enumerate(run.sizes))


def _other_batch(runs: Runs, length: int, like: Recording) -> list[Recording]:
    """A run with one row more, where the first axis is the batch's and the model takes it."""
    if runs.time == 0:
        return []
    try:
        other = runs.run(runs.signals(length, runs.rows + 1))
    except Exception:
        return []
    same = [call.name for call in other.calls] == [call.name for call in like.calls]
    axes = [len(size) for size in other.sizes] == [len(size) for size in like.sizes]
    return [other] if same and axes else []


def _wrong(graph: Graph, runs: Runs, base: int) -> tuple[int, Recording] | None:
    """The first of runs at other lengths in which an operation gave another length than the graph says."""
    rng = random.Random(0)
    n_rests = graph.period // runs.multiple  # the period is a multiple of it
    rests = list(range(n_rests))
    if n_rests > RUNS:  # where all strides divide the length, one before and one after, and others
        even = -base // runs.multiple % n_rests
        rests = [even, (even - 1) % n_rests, (even + 1) % n_rests, *rng.sample(range(n_rests), RUNS - 3)]
    least, computed = max(len(rests), _FEWEST_RUNS), 0
    while len(rests) < RUNS:
        rests.append(rng.randrange(n_rests))
    spread = max(1, 64 // graph.period)
    for number, rest in enumerate(rests):
        if number >= least and computed > _MOST_CHECKED:
            break
        length = base + rest * runs.multiple + graph.period * rng.randrange(spread)
        run = runs.run(runs.signals(length))
        computed += _numbers_of(run)
        if len(run.calls) != graph.calls:
            return length, run
        try:
            check_lengths(graph, run, length)
        except TimelineError:
            return length, run
    return None


def check_lengths(graph: Graph, run: Recording, length: int) -> None:
    """Raise where an operation of a run gave another length than the graph says."""
    if len(run.calls) != graph.calls:
        raise _other_calls("", "forward")
    for node, total in zip(graph.nodes, graph.totals(length), strict=True):
        if node.value is None:
            continue
        found = node.length_in(run.sizes[node.value], graph.batch)
        if found != total:
            raise TimelineError(
                f"gave {found} samples where its timeline says {total}, for a signal of {length}",
                node.path,
                node.name,
                "its lengths are neither the same nor up to a multiple: make them so, or tapwise.register its module",
            )
