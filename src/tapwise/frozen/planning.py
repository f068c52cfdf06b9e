"""Planning: for a span of rows and a batch, the groups of steps, their blocks of rows, and where every value lies."""

from __future__ import annotations

from tapwise.engine.kernels.program import record
from tapwise.frozen import filtering, matrices, recurrences
from tapwise.frozen.groups import FEW_ROWS, PANEL, Group, grouped, kept_values
from tapwise.frozen.memory import (
    LINE,
    SIZE,
    Place,
    StateLayout,
    lines,
    place_in_arena,
    place_in_scratch,
    row_bytes,
    spread,
)
from tapwise.frozen.spans import Range, Span, hull
from tapwise.frozen.steps import Ref, Step, Steps, TorchStep
from tapwise.network.graph import Graph

# Bytes of the values of one block, which are to stay in the second-level cache.
_CACHED = 1 << 19
_MOST_ROWS, _FEWEST_ROWS = 96, 12
# Products whose columns may be shared out.
_BY_COLUMN = (*matrices.CODES, *matrices.CODES.values(), *filtering.CODES.values())


class Plan:
    """What a program does where, before it is written down.

    Arguments:
        layout: where a stream's histories lie; None offline.
    """

    def __init__(self, graph: Graph, steps: Steps, span: Span, batch: int, layout: StateLayout | None) -> None:
        self.graph, self.steps, self.span, self.batch = graph, steps, span, batch
        self.groups, self.group_of = grouped(steps, span)
        if not span.is_live:
            for group in self.groups:
                group.steps[0] = filtering.of_fewer_products(group.steps[0], group.rows)
        self._add_imports()
        self._place(layout)

    def _add_imports(self) -> None:
        """Groups that copy the model's inputs into rows come first."""
        read = {ref.value for g in self.groups for s in g.steps if isinstance(s, Step) for ref in s.reads}
        read |= {ref.value for n in self.graph.results if (ref := self.steps.refs[n]) is not None}
        read |= set(self.span.kept_after)
        for node in (s.node for g in self.groups for s in g.steps if isinstance(s, TorchStep)):
            refs = (self.ref_for_torch(n) for n in self.graph.nodes[node].inputs)
            read |= {ref.value for ref in refs if ref is not None}
        first: list[Group] = []
        for number in range(self.graph.n_sources):
            ref, rows = self.steps.refs[number], self.span.rows[number]
            if ref is not None and ref.value in read and rows[0] < rows[1]:
                columns = self.steps.values[ref.value].columns
                step = Step(record.IMPORT, ref.value, ref, columns=columns)
                first.append(Group(rows, self.span.totals[number], [step]))
        self.groups = [*first, *self.groups]
        self.group_of = {value: number + len(first) for value, number in self.group_of.items()}
        self.group_of.update({group.steps[0].out: number for number, group in enumerate(first)})
        self.last_writer = {
            step.out: step
            for group in self.groups
            for step in group.steps
            if step.out is not None and group.rows[0] < group.rows[1]
        }

    def _needs(self) -> tuple[dict[int, Range], dict[int, Range], set[int]]:
        """By value, the rows that have to be there, and the groups in which; and the values that torch reads."""
        rows: dict[int, Range] = {}
        lives: dict[int, Range] = {}
        by_torch: set[int] = set()

        def need(value: int, wanted: Range, group: int) -> None:
            if self.steps.values[value].is_table:
                wanted = (0, 1)
            rows[value] = hull(rows.get(value, (0, 0)), wanted)
            low, high = lives.get(value, (group, group))
            lives[value] = min(low, group), max(high, group)

        for number, group in enumerate(self.groups):
            for step in group.steps:
                if step.out is not None and group.rows[0] < group.rows[1]:
                    need(step.out, group.rows, number)
                if isinstance(step, TorchStep):
                    by_torch |= {step.out} if step.out is not None else set()
                    for n, wanted in zip(self.graph.nodes[step.node].inputs, self.span.inputs[step.node], strict=True):
                        ref = self.ref_for_torch(n)
                        if ref is not None and wanted[0] < wanted[1]:
                            need(ref.value, (wanted[0] + ref.shift, wanted[1] + ref.shift), number)
                            by_torch.add(ref.value)
                elif step.code != record.IMPORT:
                    for ref in step.reads:
                        need(ref.value, step.rows_read(ref, *group.rows), number)
        for n in self.graph.results:
            ref, (low, high) = self.steps.refs[n], self.span.rows[n]
            if ref is not None and low < high:
                need(ref.value, (low + ref.shift, high + ref.shift), len(self.groups))
                by_torch.add(ref.value)
        for value, (_, last) in lives.items():
            if value not in self.last_writer:  # padding alone, which is written first
                lives[value] = -1, last
        return rows, lives, by_torch

    def ref_for_torch(self, node: int) -> Ref | None:
        """Where a node's rows lie for a step of torch's; None where it takes the model's own input, or a tensor."""
        return None if node < self.graph.n_sources else self.steps.refs[node]

    def _place(self, layout: StateLayout | None) -> None:
        rows, lives, by_torch = self._needs()
        kept = kept_values(self.steps, self.groups, self.group_of, by_torch)
        self.places: dict[int, Place] = {}
        self.state_bytes = 0
        if layout is not None:
            self._place_state(layout, rows)
            self.state_bytes = layout.size
        waiting = sorted((v for v in kept if v in rows and v not in self.places), key=lambda v: lives[v][0])
        wanted = [(v, self._row_bytes(v), rows[v], lives[v]) for v in waiting]
        in_arena, self.arena_bytes = place_in_arena(wanted, self.batch)
        self.places.update(in_arena)
        self.blocks: list[int] = []
        self.scratch: list[int] = []
        for group in self.groups:
            own, size = ({}, 0) if group.is_torch else place_in_scratch(self.steps, group, set(self.places))
            block = self._block_of(group, size)
            self.places.update(spread(own, block))
            self.blocks.append(block)
            self.scratch.append(lines(size * block) + LINE + beside(group, block, self.batch))

    def _place_state(self, layout: StateLayout, rows: dict[int, Range]) -> None:
        """Values of which rows are kept from step to step lie in the stream's memory."""
        span, needs = self.span, {}
        for value in {*span.kept_before, *span.kept_after, *(v for v in rows if v in layout.capacity)}:
            first, last = span.rows[self.steps.values[value].node]
            wanted = hull(rows.get(value, (first, last)), (span.kept_before.get(value, first), first))
            wanted = hull(wanted, (span.kept_after.get(value, last), last))
            low, high = min(wanted[0], first), max(wanted[1], last)
            rows[value] = low, high
            # Before the chunk's first row: what is there now, and what will be there for the next step.
            needs[value] = max(first - low, last - span.kept_after.get(value, last)), high - first
        layout.ensure(needs)
        for value in needs:
            self.places[value] = layout.place(value, span.rows[self.steps.values[value].node][0], rows[value])

    def _row_bytes(self, value: int) -> int:
        own = self.steps.values[value]
        if not own.is_table:
            return row_bytes(own.columns)
        first, last = self.span.rows[own.node]
        return own.columns * SIZE * (-(-(last - first) // _FEWEST_ROWS) if own.is_per_block else 1)

    def _block_of(self, group: Group, scratch: int) -> int:
        """Rows of a task: the same whatever the number of threads."""
        count = group.rows[1] - group.rows[0]
        if group.is_recurrent or self.shares_of(group) > 1:
            return count
        first = group.steps[0]
        if isinstance(first, Step) and first.code in filtering.CODES.values():
            return filtering.block_of(first, count)
        if isinstance(first, Step) and first.code in matrices.CODES.values():
            return matrices.block_of(count)
        most = max(_FEWEST_ROWS, min(_MOST_ROWS, _CACHED // max(scratch, 1) // _FEWEST_ROWS * _FEWEST_ROWS))
        wanted = -(-count // 16)
        return max(1, min(most, max(_FEWEST_ROWS, -(-wanted // _FEWEST_ROWS) * _FEWEST_ROWS)))

    def shares_of(self, group: Group) -> int:
        """Shares of the columns, of a group of few rows and many columns whose steps work column by column; of a recurrence."""
        count = group.rows[1] - group.rows[0]
        if group.is_recurrent:
            return recurrences.shares_of(group.steps[0], self.batch)
        if group.is_torch:
            return 1
        first = group.steps[0]
        if first.code in filtering.CODES.values():
            shares = filtering.shares_of(first, count)
        else:
            shares = first.columns // PANEL if first.rows_of_phase(count) <= FEW_ROWS else 1
        if shares < 2:
            return 1
        columns: set[int] = {step.columns for step in group.steps}
        outs = {step.out for step in group.steps}
        if len(columns) > 1 or min(columns) < 2 * PANEL:
            return 1
        for step in group.steps:
            is_product = step.code in _BY_COLUMN and step.groups == 1
            if is_product and step.x.value in outs:
                return 1
            if not is_product and step.code < record.MAP:
                return 1
            if not is_product and any(ref.column for ref in step.reads if ref.value in outs):
                return 1
        return shares


def beside(group: Group, block: int, batch: int) -> int:
    """Bytes of a task's memory in which steps work, beside the values: at its end."""
    found = [0]
    for step in group.steps:
        if isinstance(step, Step) and step.code in filtering.CODES.values():
            found.append(filtering.memory_of(step, min(block, filtering.block_of(step, group.rows[1] - group.rows[0]))))
        if isinstance(step, Step) and step.code in matrices.CODES.values():
            found.append(matrices.memory_of(step, block))
        if isinstance(step, Step) and step.code in record.GATES:
            found.append(recurrences.memory_of(step, batch))
        if isinstance(step, Step) and step.code == record.FEW_TRANSPOSED and step.window is not None:
            stride = step.window.stride
            found.append(lines(((block - 1) // stride + 2) * stride * step.columns * SIZE) + LINE)
    return max(found)
