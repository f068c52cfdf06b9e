"""Spans: which rows of every node a run computes, and how many there are in all.

# offline   node  [first needed by an output ... last)              of [0, total)
# live      node  [determined before the chunk ... with it)         history lies before them
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tapwise.frozen.steps import Ref, Steps, TorchStep
from tapwise.network.execution import OPERATIONS, Part
from tapwise.network.graph import Graph
from tapwise.network.operations import OverTime
from tapwise.network.timeline import Ends

Range = tuple[int, int]
# A total that no sequence reaches: nothing is known of the end.
ENDLESS = 1 << 60


@dataclass(frozen=True, slots=True)
class Span:
    """What a run computes.

    Arguments:
        rows: by node, which rows.
        totals: by node, how many there are; what lies beyond is padding.
        inputs: by node, the rows of each input that torch's own step takes.
        parts: by node, how torch computes them offline; None live, or where nothing is computed.
        kept_before: by value, the first row that earlier steps kept, below 0 where padding is kept too; none offline.
        kept_after: by value, the first row that is kept for later steps.
        is_live: whether this is a step of a stream.
    """

    rows: tuple[Range, ...]
    totals: tuple[int, ...]
    inputs: tuple[tuple[Range, ...], ...]
    parts: tuple[Part | None, ...]
    kept_before: dict[int, int]
    kept_after: dict[int, int]
    is_live: bool = False


def hull(one: Range, other: Range) -> Range:
    """The least range with all of both; empty ones count for nothing."""
    if one[0] >= one[1]:
        return other
    return one if other[0] >= other[1] else (min(one[0], other[0]), max(one[1], other[1]))


def operations_of(graph: Graph) -> list[Any]:
    """By node, what computes parts of it in torch; None for an input."""
    axes = [node.size.time for node in graph.nodes]
    return [
        OPERATIONS[type(node.work)](node, tuple(axes[n] for n in node.inputs)) if node.inputs else None
        for node in graph.nodes
    ]


def offline_span(graph: Graph, operations: Sequence[Any], length: int) -> Span:
    """All outputs of a signal of ``length`` samples, and what they need of every node."""
    totals = graph.totals(length)
    rows: list[Range] = [(0, 0)] * len(graph.nodes)
    parts: list[Part | None] = [None] * len(graph.nodes)
    inputs: list[tuple[Range, ...]] = [()] * len(graph.nodes)
    for number in graph.results:
        rows[number] = (0, totals[number])
    for number in range(len(graph.nodes) - 1, -1, -1):
        operation, (first, last) = operations[number], rows[number]
        if operation is None or first == last:
            continue
        if isinstance(graph.nodes[number].work, OverTime):  # whatever of it is needed, all of time decides it
            first, last = rows[number] = (0, totals[number])
        sources = graph.nodes[number].inputs
        own = [totals[n] for n in sources]
        if hasattr(operation, "part"):
            part = operation.part(first, last, own)
        else:  # it carries a state through all of the signal
            part = Part(tuple((0, total) for total in own), None)
            rows[number] = (0, totals[number])
        parts[number], inputs[number] = part, part.inputs
        for n, needed in zip(sources, part.inputs, strict=True):
            rows[n] = hull(rows[n], needed)
    return Span(tuple(rows), tuple(totals), tuple(inputs), tuple(parts), {}, {})


def live_span(graph: Graph, steps: Steps, seen: int, length: int, is_end: bool) -> Span:
    """What a chunk of ``length`` samples determines after ``seen`` samples have come."""
    before, after = graph.counts(seen), graph.counts(seen + length, is_end)
    rows = tuple((a, b) for (a, _), (b, _) in zip(before, after, strict=True))
    totals = tuple(total if is_end else ENDLESS for _, total in after)
    inputs = tuple(tuple(rows[n] for n in node.inputs) for node in graph.nodes)
    kept_before, kept_after = _kept(graph, steps, before), _kept(graph, steps, after)
    return Span(rows, totals, inputs, (None,) * len(graph.nodes), kept_before, kept_after, True)


def settled(graph: Graph, steps: Steps) -> int:
    """Samples, a multiple of the period, after which no step reads what stands before a value's first row."""
    seen = graph.settled
    while min(_first_reads(graph, steps, graph.counts(seen)).values(), default=1) <= 0 and seen < ENDLESS:
        seen *= 2
    return seen


def steady(graph: Graph, steps: Steps) -> int:
    """The least count of samples after which every step of a stream without torch's steps has the program of the step a
    period later, moved by as many rows.

    A causal network's first step has it: zeros before the first row are kept as rows are.
    """
    period, last = graph.period, settled(graph, steps)
    nodes = {*range(graph.n_sources), *graph.results, *(value.node for value in steps.values)}

    def at(seen: int) -> tuple[list[int], dict[int, int]]:
        counts = graph.counts(seen)
        return [counts[n][0] for n in nodes], _kept(graph, steps, counts)

    advance = [b - a for a, b in zip(at(last)[0], at(last + period)[0], strict=True)]
    of_node = dict(zip(nodes, advance, strict=True))

    def repeats(seen: int) -> bool:
        (counts, kept), (later_counts, later_kept) = at(seen), at(seen + period)
        moved = {value: row + of_node[steps.values[value].node] for value, row in kept.items()}
        return moved == later_kept and [a + n for a, n in zip(counts, advance, strict=True)] == later_counts

    # A count of rows grows with the samples, but is 0 for the first of them: once it repeats, it always does.
    return bisect_left(range(last), True, key=repeats)


def _kept(graph: Graph, steps: Steps, counts: Sequence[tuple[int, int]]) -> dict[int, int]:
    """By value, the first row that steps to come may read, constant padding included; values without any are left out."""
    found = {}
    for value, row in _first_reads(graph, steps, counts).items():
        own = steps.values[value]
        count = counts[own.node][0]
        # A number that stands before the first row is kept as rows are; copies of rows are made anew while they are read.
        row = row if isinstance(own.fill, float) else max(row, 0)
        if row < count:
            found[value] = row
    return found


def _first_reads(graph: Graph, steps: Steps, counts: Sequence[tuple[int, int]]) -> dict[int, int]:
    """By value, the first row that steps to come may read, below 0 where that is padding."""
    count = [fixed for fixed, _ in counts]
    first: dict[int, int] = {}

    def read(ref: Ref, row: int) -> None:
        """Row ``row`` of a value, and all after it, will be read."""
        row = min(row, count[steps.values[ref.value].node])
        first[ref.value] = min(first.get(ref.value, row), row)

    for step in steps.steps:
        if isinstance(step, TorchStep):
            for n in graph.nodes[step.node].inputs:
                if n >= graph.n_sources and (ref := steps.refs[n]) is not None:
                    read(ref, count[n] + ref.shift)
            continue
        out = count[steps.values[step.out].node]
        for ref in step.reads:
            read(ref, step.rows_read(ref, out, out + 1)[0])
    for number in graph.results:
        ref = steps.refs[number]
        if ref is not None:
            read(ref, count[number] + ref.shift)
    # Rows that padding at the end will copy.
    for number, node in enumerate(graph.nodes):
        ref = steps.refs[number]
        if isinstance(node.timeline, Ends) and node.timeline.padding_mode != "zeros" and ref is not None:
            own = count[steps.values[ref.value].node]
            read(ref, node.timeline.first_needed(count[number], own))
    return first
