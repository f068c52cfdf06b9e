"""FrozenScheduler: a frozen network advanced by chunks, by the programs that also run it offline.

What a step keeps lies in a stream's own memory, where the next step's program reads it; as tensors it exists only where
a snapshot, or another batch, asks for it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from tapwise.errors import TimelineError
from tapwise.forks import Turns
from tapwise.frozen.memory import Block, Place, State, StateLayout
from tapwise.frozen.program import Program
from tapwise.frozen.spans import live_span, settled, steady
from tapwise.frozen.steps import Steps, TorchStep
from tapwise.network.execution import Counts
from tapwise.network.graph import Graph
from tapwise.network.operation_names import MIXES
from tapwise.network.operations import OverTime
from tapwise.streaming.scheduler import MOST_SCHEDULES, Group, Scheduler


class Machine:
    """The memory of one group of slots.

    A step leaves the histories that it read where they are, and writes rows after them: the group before it can be
    stepped again. Only when the group after it goes on do rows count as moved on, or are moved back where the slack is used up.

    Arguments:
        layout: where histories lie.
        turns: of the scheduler.
    """

    def __init__(self, layout: StateLayout, turns: Turns) -> None:
        self.layout, self.turns = layout, turns
        self.state = State()
        self.kept: dict[int, int] = {}  # by value, rows before the next chunk's first
        self.version = -1
        self.places: dict[int, Place] = {}
        self.at: LiveGroup | None = None  # whose histories are at their places
        self.next: LiveGroup | None = None  # the group after the last step

    def histories(self) -> dict[int, Tensor]:
        """By value, what is kept of it: (B, rows, columns), copies."""
        return {value: self._view(value, count).clone() for value, count in self.kept.items()}

    def load(self, histories: dict[int, Tensor]) -> None:
        """Let these rows be what is kept, at the places of the layout as it is now."""
        self.state.ensure(self.layout.size)
        self.state.begin(len(self.layout.places))
        self.version, self.places = self.layout.version, self.layout.places
        self.kept = {value: rows.shape[1] for value, rows in histories.items()}
        for value, rows in histories.items():
            self._view(value, rows.shape[1]).copy_(rows)

    def ready(self) -> None:
        """Move what is kept where the layout has changed."""
        if self.version != self.layout.version:
            self.load(self.histories())

    def go_on_from(self, group: LiveGroup) -> None:
        """Let what a group keeps be at its place.

        Raises:
            RuntimeError: a group that was left behind.
        """
        if self.next is group:
            assert group.program is not None
            group.program.keep(self.state)
            self.kept, self.at, self.next = group.kept, group, None
        if self.at is not group:
            raise RuntimeError("the stream has gone on from here")

    def holds(self, group: LiveGroup) -> bool:
        """Whether a group can go on from here."""
        return group is self.at or group is self.next

    def _view(self, value: int, count: int) -> Tensor:
        place, columns = self.places[value], self.layout.steps.values[value].columns
        return self.state.view(place.offset - count * place.row, self.layout.batch, place, (0, count), columns)


class LiveGroup(Group):
    """A group of slots whose histories lie in a machine's memory.

    Arguments:
        beside: by node, what its operation in torch remembers.
        program: the step that gave it; None where its histories were loaded.
        kept: by value, rows that are kept.
    """

    machine: Machine
    beside: list[Any]
    program: Program | None
    kept: dict[int, int]

    def __init__(
        self,
        slots: list[int],
        seen: int,
        machine: Machine,
        beside: list[Any],
        program: Program | None,
        kept: dict[int, int],
    ) -> None:
        fields = {"slots": slots, "seen": seen, "machine": machine, "beside": beside, "program": program, "kept": kept}
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    @property
    def buffers(self) -> list[Any]:
        """By node, what its operation remembers, then the histories of its values."""
        with self.machine.turns:
            self.machine.go_on_from(self)
            histories = self.machine.histories()
        found = [list(buffer) for buffer in self.beside]
        steps = self.machine.layout.steps
        for value, rows in sorted(histories.items()):
            found[steps.values[value].node].append(rows)
        return found


class FrozenScheduler(Scheduler):
    """What runs a frozen network's graph chunk by chunk.

    Raises:
        TimelineError: an operation that reads all of time.
    """

    def __init__(self, graph: Graph, likes: Sequence[Tensor], steps: Steps) -> None:
        for node in graph.nodes:
            if isinstance(node.work, OverTime):
                reason, remedy = MIXES[node.name]
                raise TimelineError(reason, node.path, node.name, remedy)
        super().__init__(graph, likes)
        self.steps = steps
        self._arena, self._turns = Block(), Turns()
        self._layouts: dict[int, StateLayout] = {}
        self._programs: OrderedDict[Any, tuple[Program, dict[int, Any], int]] = OrderedDict()
        self._torch_nodes = {step.node for step in steps.steps if isinstance(step, TorchStep)}

    @cached_property
    def _settled(self) -> int:
        return settled(self.graph, self.steps)

    @cached_property
    def _kept_at_first(self) -> dict[int, int]:
        """By value, the first of the rows that stand before row 0."""
        return live_span(self.graph, self.steps, 0, 0, False).kept_after

    @cached_property
    def _steady(self) -> int:
        """The least count of samples from which on programs of steps repeat with the period."""
        return self._settled if self._torch_nodes else steady(self.graph, self.steps)

    def canonical(self, seen: int) -> int:
        """The smallest count of samples at which the end of the signal and snapshots are what they are at ``seen``."""
        period = self.graph.period
        return seen if seen < self._settled + period else self._settled + (seen - self._settled) % period

    def begin(self, slots: Sequence[int]) -> Group:
        """A group of slots before their first chunk: the histories of values are what stands before their first rows."""
        group = super().begin(slots)
        buffers = [
            buffer if number < self.n_sources or number in self._torch_nodes else []
            for number, buffer in enumerate(group.buffers)
        ]
        for value, first in sorted(self._kept_at_first.items()):
            own = self.steps.values[value]
            assert isinstance(own.fill, float)
            rows = torch.full((len(slots), -first, own.columns), own.fill, dtype=torch.float32, device="cpu")
            buffers[own.node] = [*buffers[own.node], rows]
        return Group(group.slots, 0, buffers)

    def run(self, group: Group, chunks: Sequence[Tensor] | None, is_end: bool) -> tuple[list[Tensor], Group]:
        """By result of the graph, what a chunk of each source determines; and the group after them.

        Streams that were forked share the programs: one at a time runs them.
        """
        with self._turns:
            return super().run(self._live(group), chunks, is_end)

    def _remembered(self, group: Group) -> Sequence[Any]:
        assert isinstance(group, LiveGroup)
        return group.beside

    def _advanced(
        self, group: Group, chunks: Sequence[Tensor], beginning: list[Any], seen: int, is_end: bool
    ) -> tuple[list[Tensor], Group]:
        assert isinstance(group, LiveGroup)
        machine, beside = group.machine, group.beside
        program, schedules = self._program(len(group.slots), group.seen, seen - group.seen, is_end)
        machine.ready()
        after = [*beginning, *beside[self.n_sources :]]

        def run_node(number: int, inputs: list[Tensor]) -> Tensor | None:
            y, after[number] = self.operations[number - self.n_sources].run(schedules[number], beside[number], inputs)
            return y

        with torch.autocast("cpu", enabled=False):
            results = program.run(chunks, self._arena, machine.state, run_node)
        span = program.span
        kept = {value: span.rows[self.steps.values[value].node][1] - first for value, first in span.kept_after.items()}
        machine.next = LiveGroup(group.slots, seen, machine, after, program, kept)
        return results, machine.next

    def _live(self, group: Group) -> LiveGroup:
        """The group with its histories in a machine's memory, at their places."""
        if isinstance(group, LiveGroup) and group.machine.holds(group):
            group.machine.go_on_from(group)
            return group
        rows = len(group.slots)
        if rows not in self._layouts:
            self._layouts[rows] = StateLayout(self.steps, rows)
        machine = Machine(self._layouts[rows], self._turns)
        histories, beside = self._split(group)
        machine.layout.ensure({value: (kept.shape[1], 0) for value, kept in histories.items()})
        machine.load(histories)
        machine.at = LiveGroup(group.slots, group.seen, machine, beside, None, machine.kept)
        return machine.at

    def _split(self, group: Group) -> tuple[dict[int, Tensor], list[Any]]:
        """Of a group's buffers, the histories by value, and the rest."""
        kept: dict[int, list[int]] = {}
        span = live_span(self.graph, self.steps, self.canonical(group.seen), 0, False)
        for value in sorted(span.kept_after):
            kept.setdefault(self.steps.values[value].node, []).append(value)
        histories: dict[int, Tensor] = {}
        beside = []
        for number, buffer in enumerate(group.buffers):
            values = kept.get(number, [])
            n = len(buffer) - len(values)
            histories.update(zip(values, buffer[n:], strict=True))
            beside.append(list(buffer[:n]))
        return histories, beside

    def _program(self, rows: int, seen: int, length: int, is_end: bool) -> tuple[Program, dict[int, Any]]:
        seen = self.canonical(seen)
        if not is_end and seen >= self._steady:
            seen = self._steady + (seen - self._steady) % self.graph.period
        layout = self._layouts[rows]
        key = (rows, seen, length, is_end)
        found: Any = self._programs.get(key)
        if found is None or found[2] != layout.version:
            span = live_span(self.graph, self.steps, seen, length, is_end)
            program = Program(self.graph, self.steps, span, rows, layout)
            found = (program, self._torch_schedules(seen, length, is_end), layout.version)
            self._programs[key] = found
            if len(self._programs) > MOST_SCHEDULES:
                self._programs.popitem(last=False)
        return found[:2]  # type: ignore[no-any-return]

    def _torch_schedules(self, seen: int, length: int, is_end: bool) -> dict[int, Any]:
        if not self._torch_nodes:
            return {}
        graph = self.graph
        before, after = graph.counts(seen), graph.counts(seen + length, is_end)
        schedules = {}
        for number in self._torch_nodes:
            node = graph.nodes[number]
            inputs = tuple((before[n][0], after[n][0]) for n in node.inputs)
            certain = max(after[n][1] for n in node.inputs)
            counts = Counts(inputs, (before[number][0], after[number][0]), certain, is_end)
            schedules[number] = self.operations[number - self.n_sources].schedule(counts)
        return schedules

    def _batch_axis(self, number: int, place: int) -> tuple[int, int]:
        if number < self.n_sources and place == 0 and self.graph.shortest > 1:
            return super()._batch_axis(number, place)
        if number not in self._torch_nodes or place >= self._n_beside(number):
            return 0, 1
        return super()._batch_axis(number, place)

    def _n_beside(self, number: int) -> int:
        return len(super().begin([0]).buffers[number])
