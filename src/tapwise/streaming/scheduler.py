"""Scheduler: a graph advanced by chunks; slots at the same position of their signals step as one batch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from math import lcm
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tapwise.network.execution import OPERATIONS, Buffers, Counts, Operation
from tapwise.network.graph import Count, Graph, Node
from tapwise.streaming.long_filter import LongFilter, block_of

# Schedules that are cached: one for each position in the period and length of chunk.
MOST_SCHEDULES = 512
# A batch by which rows are shown to be independent.
_ROWS = 5


@dataclass(frozen=True, eq=False)
class Group:
    """Slots at the same position of their signals. A step makes another: where it fails, nothing has changed.

    Arguments:
        slots: which rows of a chunk.
        seen: samples that have come.
        buffers: by node, what its operation remembers.
    """

    slots: list[int]
    seen: int
    buffers: list[Buffers]


def operation_of(node: Node, axes: tuple[int, ...]) -> Operation:
    """What advances a node. ``axes`` are those of time, of its inputs."""
    kind: Any = LongFilter if block_of(node) else OPERATIONS[type(node.work)]
    return kind(node, axes)  # type: ignore[no-any-return]


class Scheduler:
    """What runs a graph chunk by chunk. It holds no stream: groups do.

    Arguments:
        likes: by source, a tensor of its dtype and device.
    """

    def __init__(self, graph: Graph, likes: Sequence[Tensor]) -> None:
        blocks = [
            (Fraction(block) / graph.rates[node.inputs[0]]).numerator
            for node in graph.nodes
            if (block := block_of(node))
        ]
        self.graph = replace(graph, every=lcm(*blocks)) if blocks else graph
        self.likes = [like.detach().new_zeros(()) for like in likes]
        self.like = self.likes[0]
        axes = [node.size.time for node in graph.nodes]
        self.n_sources = graph.n_sources
        self.operations = [
            operation_of(node, tuple(axes[n] for n in node.inputs)) for node in graph.nodes[self.n_sources :]
        ]
        self._schedules: OrderedDict[tuple[int, int, bool], list[Any]] = OrderedDict()
        self._empty: OrderedDict[tuple[int, int], Tensor] = OrderedDict()
        self.watch: Callable[[int, Tensor], None] | None = None
        # The model itself, for signals too short for the graph: its results for a full signal.
        self.model: Callable[[Sequence[Tensor]], list[Tensor]] | None = None
        # Raises where the model is no longer the one that was read.
        self.check_model: Callable[[], None] = lambda: None

    def holds_from(self, shortest: int) -> None:
        """Say how short signals may be for the graph to hold; the model itself runs shorter ones."""
        self.graph.begin_at(shortest)
        self._schedules.clear()

    @cached_property
    def inseparable(self) -> str | None:
        """Why slots can't begin and end separately; None where no row changes anything of one that runs beside it."""
        graph = self.graph
        if not graph.batches:
            return "it was read at one batch only, since what it does depends on the batch"
        if any(type(out) is Count and not out.is_per_row for out in graph.outputs):
            return "it returns one count of samples for all"
        if not all(node.size.batch for node in graph.nodes):
            return "some operation gives one row for all"
        try:
            is_independent = self._rows_are_independent()
        except (RuntimeError, IndexError, ValueError, AssertionError):
            is_independent = False
        return None if is_independent else "a row's outputs depend on other rows, or rows change places"

    def _rows_are_independent(self) -> bool:
        graph, rows = self.graph, list(range(_ROWS))
        length, generator = graph.canonical(graph.settled), torch.Generator().manual_seed(0)
        chunks = []
        for number in range(self.n_sources):
            chunk = self.empty(number, _ROWS, graph.counts(length)[number][0])
            if chunk.is_floating_point():  # positive, which most models take
                chunk = torch.rand(chunk.shape, generator=generator, dtype=torch.float64).to(chunk)
            chunks.append(chunk)
        with torch.no_grad():
            together = self.begin(rows)
            results, together = self.run(together, chunks, False)
            for row in rows:
                alone = self.begin([row])
                y, alone = self.run(alone, [chunk[[row]] for chunk in chunks], False)
                mine = self.without(together, [other for other in rows if other != row])
                assert mine is not None
                pairs = [(self._rows_of(n, a, [row]), b) for n, a, b in zip(graph.results, results, y, strict=True)]
                for one, other in zip(mine.buffers, alone.buffers, strict=True):
                    if len(one) != len(other):
                        return False
                    pairs += zip(one, other, strict=True)
                if not all(_close(a, b) for one, two in pairs for a, b in _leaves(one, two)):
                    return False
        return True

    def _rows_of(self, number: int, tensor: Tensor, rows: Sequence[int]) -> Tensor:
        axis, per_row = batch_axis(self.graph.nodes[number])
        index = [row * per_row + n for row in rows for n in range(per_row)]
        return tensor.index_select(axis, torch.tensor(index, device=tensor.device))

    def canonical(self, seen: int) -> int:
        """The smallest count of samples at which every step does what it does at ``seen``."""
        return self.graph.canonical(seen)

    def begin(self, slots: Sequence[int]) -> Group:
        """A group of slots before their first chunk."""
        rows = len(slots)
        empty = [self.empty(n, rows) for n in range(len(self.graph.nodes))]
        short = self.graph.shortest > 1
        buffers: list[Buffers] = [[empty[n]] if short else [] for n in range(self.n_sources)]
        for node, operation in zip(self.graph.nodes[self.n_sources :], self.operations, strict=True):
            buffers.append(list(operation.start(rows, [empty[n] for n in node.inputs])))
        return Group(list(slots), 0, buffers)

    def empty(self, number: int, rows: int, length: int = 0) -> Tensor:
        """Zeros of the size of what a node gives."""
        node = self.graph.nodes[number]
        return self.like.new_zeros(node.size.of(rows, length), dtype=node.dtype)

    def zeros(self, rows: int, length: int) -> list[Tensor]:
        """A signal of zeros for each source."""
        counts = self.graph.counts(length)
        return [self.empty(number, rows, counts[number][0]) for number in range(self.n_sources)]

    def output_length(self, length: int) -> int:
        """Outputs of the first result for a full signal of ``length`` samples."""
        if 0 < length < self.graph.shortest and self.model is not None:
            try:
                result = self.model(self.zeros(self.graph.batch, length))[0]
            except (RuntimeError, ValueError):  # too short for the model as well
                return 0
            return int(result.shape[self.graph.nodes[self.graph.results[0]].size.time])
        return self.graph.totals(length)[self.graph.results[0]]

    def _no_outputs(self, number: int, rows: int) -> Tensor:
        """What a node gives where it gives nothing."""
        key = (number, rows)
        if key not in self._empty:
            self._empty[key] = self.empty(number, rows)
            if len(self._empty) > 4 * len(self.graph.nodes):
                self._empty.popitem(last=False)
        return self._empty[key]

    def _schedules_of(self, seen: int, length: int, is_end: bool) -> list[Any]:
        graph = self.graph
        seen = self.canonical(seen)
        key = (seen, length, is_end)
        cached = self._schedules.get(key)
        if cached is not None:
            return cached
        before, after = graph.counts(seen), graph.counts(seen + length, is_end)
        schedules = []
        for number, operation in enumerate(self.operations, self.n_sources):
            node = graph.nodes[number]
            inputs = tuple((before[n][0], after[n][0]) for n in node.inputs)
            certain = max(after[n][1] for n in node.inputs)
            outputs = (before[number][0], after[number][0])
            schedules.append(operation.schedule(Counts(inputs, outputs, certain, is_end)))
        self._schedules[key] = schedules
        if len(self._schedules) > MOST_SCHEDULES:
            self._schedules.popitem(last=False)
        return schedules

    def run(self, group: Group, chunks: Sequence[Tensor] | None, is_end: bool) -> tuple[list[Tensor], Group]:
        """By result of the graph, what a chunk of each source determines; and the group after them."""
        rows = len(group.slots)
        if chunks is None:
            chunks = [self._no_outputs(n, rows) for n in range(self.n_sources)]
        seen = group.seen + chunks[0].shape[self.graph.nodes[0].size.time]
        beginning = self._beginning(self._remembered(group), chunks, seen)
        if is_end and beginning[0] and seen > 0 and self.model is not None:
            try:
                return self._not_emitted(self.model([buffer[0] for buffer in beginning]), seen), group
            except (RuntimeError, ValueError):  # too short for the model as well: it gives nothing
                return [self._no_outputs(n, rows) for n in self.graph.results], group
        return self._advanced(group, chunks, beginning, seen, is_end)

    def _remembered(self, group: Group) -> Sequence[Buffers]:
        """By node, what its operation in torch remembers."""
        return group.buffers

    def _advanced(
        self, group: Group, chunks: Sequence[Tensor], beginning: list[Buffers], seen: int, is_end: bool
    ) -> tuple[list[Tensor], Group]:
        """By result, what chunks determine, of which the last sample is ``seen`` - 1; and the group after them."""
        nodes, rows, buffers = self.graph.nodes, len(group.slots), group.buffers
        schedules = self._schedules_of(group.seen, seen - group.seen, is_end)
        made = list(chunks)
        after: list[Buffers] = beginning
        for number, (operation, schedule) in enumerate(zip(self.operations, schedules, strict=True), self.n_sources):
            inputs = [made[n] for n in nodes[number].inputs]
            y, buffer = operation.run(schedule, buffers[number], inputs)
            after.append(buffer)
            made.append(self._no_outputs(number, rows) if y is None else y)
            if self.watch is not None:
                self.watch(number, made[-1])
        return [made[n] for n in self.graph.results], Group(group.slots, seen, after)

    def _beginning(self, buffers: Sequence[Buffers], chunks: Sequence[Tensor], seen: int) -> list[Buffers]:
        """By source, the signal's beginning, as long as the signal may end too short for the graph."""
        if not buffers[0] or seen >= self.graph.shortest:
            return [[] for _ in chunks]
        return [
            [torch.cat((buffer[0], chunk), node.size.time)]
            for buffer, chunk, node in zip(buffers, chunks, self.graph.nodes, strict=False)
        ]

    def _not_emitted(self, results: list[Tensor], seen: int) -> list[Tensor]:
        """Of a full signal's results, what was not returned before its end."""
        rest = []
        for number, result in zip(self.graph.results, results, strict=True):
            axis = self.graph.nodes[number].size.time
            emitted = min(self.graph.counts(seen)[number][0], result.shape[axis])
            rest.append(result.narrow(axis, emitted, result.shape[axis] - emitted))
        return rest

    # Slots

    def without(self, group: Group, chosen: Sequence[int]) -> Group | None:
        """The group without some slots; None where none is left."""
        keep = [n for n, slot in enumerate(group.slots) if slot not in chosen]
        if not keep:
            return None
        if len(keep) == len(group.slots):
            return group
        buffers = [
            [self._select(number, place, leaf, keep) for place, leaf in enumerate(buffer)]
            for number, buffer in enumerate(group.buffers)
        ]
        return Group([group.slots[n] for n in keep], group.seen, buffers)

    def _select(self, number: int, place: int, leaf: Any, keep: list[int]) -> Any:
        axis, per_row = self._batch_axis(number, place)
        rows = [row * per_row + n for row in keep for n in range(per_row)]
        return pytree.tree_map(lambda t: t.index_select(axis, torch.tensor(rows, device=t.device)), leaf)

    def _batch_axis(self, number: int, place: int) -> tuple[int, int]:
        """The axis of the batch in a buffer of an operation, and its entries for each row."""
        node = self.graph.nodes[number]
        if not node.inputs:
            return batch_axis(node)
        recur = getattr(node.work, "batch", None)
        if recur is not None:
            return int(recur), node.work.per_row  # type: ignore[union-attr]
        return batch_axis(self.graph.nodes[node.inputs[min(place, len(node.inputs) - 1)]])

    def split(self, groups: Sequence[Group], chosen: Sequence[bool]) -> list[Group]:
        """Groups whose slots are all chosen, or none."""
        parts = [
            self.without(group, [slot for slot in group.slots if chosen[slot] is not wanted])
            for group in groups
            for wanted in (True, False)
        ]
        return [part for part in parts if part is not None]

    def merged(self, groups: Sequence[Group]) -> list[Group]:
        """Groups at the same position of the period become one."""
        merged: dict[int, Group] = {}
        for group in groups:
            seen = self.canonical(group.seen)
            other = merged.get(seen)
            if other is None:
                merged[seen] = group
                continue
            pairs = zip(other.buffers, group.buffers, strict=True)
            buffers = [
                [self._joined(self._batch_axis(number, n)[0], *both) for n, both in enumerate(zip(*pair, strict=True))]
                for number, pair in enumerate(pairs)
            ]
            merged[seen] = Group([*other.slots, *group.slots], seen, buffers)
        return list(merged.values())

    @staticmethod
    def _joined(axis: int, one: Any, other: Any) -> Any:
        return pytree.tree_map(lambda a, b: torch.cat((a, b), axis), one, other)


def _leaves(one: Any, two: Any) -> list[tuple[Any, Any]]:
    return list(zip(pytree.tree_leaves(one), pytree.tree_leaves(two), strict=True))


def _close(a: Any, b: Any) -> bool:
    if a.shape != b.shape:
        return False
    return not a.is_floating_point() or torch.allclose(a, b, rtol=1e-3, atol=1e-4, equal_nan=True)


def batch_axis(node: Node) -> tuple[int, int]:
    """The axis of the batch in what an operation gives, and its entries for each row."""
    if node.size.batch:
        return node.size.batch[0]
    return (0 if node.size.time != 0 else 1), 1
