"""Engine: a graph advanced by chunks; slots that stand at the same place of their signals go together."""

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

from tapwise.network.graph import Graph, Node
from tapwise.network.operations import Convolve
from tapwise.network.timeline import Windows
from tapwise.streaming.convolutions import Convolution, Transposed
from tapwise.streaming.partitioned import Partitioned, block_of
from tapwise.streaming.runners import KINDS, Runner, Span, State

# Moves that are kept: one for each place in the period and length of chunk that came lately.
_MOVES = 512


@dataclass(eq=False)
class Group:
    """Slots that stand at the same place of their signals.

    Arguments:
        slots: which rows of a chunk.
        seen: samples that have come.
        states: by node, what its runner keeps.
    """

    slots: list[int]
    seen: int
    states: list[State]


def runner_of(node: Node, axes: tuple[int, ...]) -> Runner:
    """What advances an operation. ``axes`` are those of time, of its inputs."""
    kind: Any
    if isinstance(node.work, Convolve):
        assert isinstance(node.timeline, Windows)
        kind = Transposed if node.timeline.geometry.transposed else Convolution
        kind = Partitioned if block_of(node) else kind
    else:
        kind = KINDS[type(node.work)]
    return kind(node, axes)  # type: ignore[no-any-return]


class Engine:
    """What runs a graph chunk by chunk. It holds no stream: groups do.

    Arguments:
        like: a tensor of the signal's dtype and device.
    """

    def __init__(self, graph: Graph, like: Tensor) -> None:
        blocks = [
            (Fraction(block) / graph.rates[node.inputs[0]]).numerator
            for node in graph.nodes
            if (block := block_of(node))
        ]
        self.graph = replace(graph, every=lcm(*blocks)) if blocks else graph
        self.like = like.detach().new_zeros(())
        axes = [node.size.time for node in graph.nodes]
        self.runners = [
            runner_of(node, tuple(axes[n] for n in node.inputs)) for node in graph.nodes[1:]
        ]
        self._moves: OrderedDict[tuple[int, int, bool], list[Any]] = OrderedDict()
        self._nothing: OrderedDict[tuple[int, int], Tensor] = OrderedDict()
        self.watch: Callable[[int, Tensor], None] | None = None
        # The model itself, for signals too short for the graph: results of a whole signal.
        self.model: Callable[[Tensor], list[Tensor]] | None = None

    def holds_from(self, shortest: int) -> None:
        """Say how short signals may be for the graph to hold; shorter ones are the model's own affair."""
        self.graph.begin_at(shortest)
        self._moves.clear()

    @cached_property
    def separable(self) -> bool:
        """Whether rows of a batch can go apart: two together, and one taken out, are two alone."""
        graph = self.graph
        if not graph.batches:
            return False
        length, generator = graph.canonical(graph.settled), torch.Generator().manual_seed(0)
        both = self.empty(0, 2, length)
        if both.is_floating_point():
            both = torch.randn(both.shape, generator=generator, dtype=torch.float64).to(both)
        with torch.no_grad():
            together, alone = self.begin([0, 1]), self.begin([1])
            y = self.run(together, both, False)
            z = self.run(alone, both[1:], False)
            part = self.without(together, [0])
        assert part is not None
        pairs = [(self._rows_of(n, a, [1]), b) for n, a, b in zip(graph.results, y, z, strict=True)]
        for mine, theirs in zip(part.states, alone.states, strict=True):
            if len(mine) != len(theirs):
                return False
            pairs += zip(mine, theirs, strict=True)
        return all(_close(a, b) for one, two in pairs for a, b in _leaves(one, two))

    def _rows_of(self, number: int, tensor: Tensor, rows: Sequence[int]) -> Tensor:
        axis, many = batch_axis(self.graph.nodes[number])
        index = [row * many + n for row in rows for n in range(many)]
        if tensor.shape[axis] <= max(index):
            return tensor
        return tensor.index_select(axis, torch.tensor(index, device=tensor.device))

    def begin(self, slots: Sequence[int]) -> Group:
        """A group of slots before their first chunk."""
        rows = len(slots)
        empty = [self.empty(n, rows) for n in range(len(self.graph.nodes))]
        states: list[State] = [[empty[0]] if self.graph.shortest > 1 else []]
        for node, runner in zip(self.graph.nodes[1:], self.runners, strict=True):
            states.append(list(runner.start(rows, [empty[n] for n in node.inputs])))
        return Group(list(slots), 0, states)

    def empty(self, number: int, rows: int, length: int = 0) -> Tensor:
        """Zeros of the size of what a node gives."""
        node = self.graph.nodes[number]
        return self.like.new_zeros(node.size.of(rows, length), dtype=node.kind)

    def _none(self, number: int, rows: int) -> Tensor:
        """What a node gives where it gives nothing."""
        key = (number, rows)
        if key not in self._nothing:
            self._nothing[key] = self.empty(number, rows)
            if len(self._nothing) > 4 * len(self.graph.nodes):
                self._nothing.popitem(last=False)
        return self._nothing[key]

    def _moves_of(self, seen: int, length: int, ended: bool) -> list[Any]:
        graph = self.graph
        seen = graph.canonical(seen)
        key = (seen, length, ended)
        found = self._moves.get(key)
        if found is not None:
            return found
        before, after = graph.counts(seen), graph.counts(seen + length, ended)
        moves = []
        for number, runner in enumerate(self.runners, 1):
            node = graph.nodes[number]
            known = tuple((before[n][0], after[n][0]) for n in node.inputs)
            certain = max(after[n][1] for n in node.inputs)
            given = (before[number][0], after[number][0])
            moves.append(runner.move(Span(known, given, certain, ended)))
        self._moves[key] = moves
        if len(self._moves) > _MOVES:
            self._moves.popitem(last=False)
        return moves

    def run(self, group: Group, chunk: Tensor | None, ended: bool) -> list[Tensor]:
        """By result of the graph, what a chunk of a group determines; the group then stands after it."""
        nodes, rows, states = self.graph.nodes, len(group.slots), group.states
        if chunk is None:
            chunk = self._none(0, rows)
        length = chunk.shape[nodes[0].size.time]
        seen = group.seen + length
        head = self._head(states[0], chunk, seen)
        if ended and head and seen > 0 and self.model is not None:
            try:
                return self._of_short(self.model(head[0]), seen)
            except (
                RuntimeError,
                ValueError,
            ):  # too short for the model as well: nothing comes of it
                return [self._none(n, rows) for n in self.graph.results]
        moves = self._moves_of(group.seen, length, ended)
        chunks = [chunk]
        after: list[State] = [head]
        for number, (runner, move) in enumerate(zip(self.runners, moves, strict=True), 1):
            y, state = runner.run(move, states[number], [chunks[n] for n in nodes[number].inputs])
            after.append(state)
            chunks.append(self._none(number, rows) if y is None else y)
            if self.watch is not None:
                self.watch(number, chunks[-1])
        # Only now: where a step fails, nothing is changed.
        group.seen, group.states = seen, after
        return [chunks[n] for n in self.graph.results]

    def _head(self, kept: State, chunk: Tensor, seen: int) -> State:
        """The signal's beginning, as long as it may turn out to be too short for the graph."""
        if not kept or seen >= self.graph.shortest:
            return []
        return [torch.cat((kept[0], chunk), self.graph.nodes[0].size.time)]

    def _of_short(self, results: list[Tensor], seen: int) -> list[Tensor]:
        """Of a whole signal's results, what was not given before its end."""
        rest = []
        for number, whole in zip(self.graph.results, results, strict=True):
            axis = self.graph.nodes[number].size.time
            given = min(self.graph.counts(seen)[number][0], whole.shape[axis])
            rest.append(whole.narrow(axis, given, whole.shape[axis] - given))
        return rest

    # Slots

    def without(self, group: Group, chosen: Sequence[int]) -> Group | None:
        """The group without some slots; None where none is left."""
        keep = [n for n, slot in enumerate(group.slots) if slot not in chosen]
        if not keep:
            return None
        if len(keep) == len(group.slots):
            return group
        states = [
            [self._picked(number, place, leaf, keep) for place, leaf in enumerate(state)]
            for number, state in enumerate(group.states)
        ]
        return Group([group.slots[n] for n in keep], group.seen, states)

    def _picked(self, number: int, place: int, leaf: Any, keep: list[int]) -> Any:
        axis, many = self._batch_axis(number, place)
        rows = [row * many + n for row in keep for n in range(many)]
        return pytree.tree_map(
            lambda t: t.index_select(axis, torch.tensor(rows, device=t.device)), leaf
        )

    def _batch_axis(self, number: int, place: int) -> tuple[int, int]:
        """The axis of the batch in what an operation keeps, and its entries for each row."""
        node = self.graph.nodes[number]
        if not node.inputs:
            return batch_axis(node)
        recur = getattr(node.work, "batch", None)
        if recur is not None:
            return int(recur), node.work.many  # type: ignore[union-attr]
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
        """Groups at the same place of the period are one."""
        found: dict[int, Group] = {}
        for group in groups:
            place = self.graph.canonical(group.seen)
            other = found.get(place)
            if other is None:
                found[place] = group
                continue
            pairs = zip(other.states, group.states, strict=True)
            states = [
                [
                    self._joined(self._batch_axis(number, n)[0], *both)
                    for n, both in enumerate(zip(mine, theirs, strict=True))
                ]
                for number, (mine, theirs) in enumerate(pairs)
            ]
            found[place] = Group([*other.slots, *group.slots], place, states)
        return list(found.values())

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
