"""Program: the steps of a network for one span of rows and one batch, ready to run.

A run is a list of parts: sequences of compiled groups, each one call, and between them steps of torch's own.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tapwise.engine import compiled, memory
from tapwise.engine import threads as pool
from tapwise.engine.kernels.program import record
from tapwise.engine.kernels.program.record import INSTRUCTION, GroupJob, SequenceJob
from tapwise.engine.memory import address
from tapwise.engine.outputs import new_output
from tapwise.engine.preparing import prepare
from tapwise.frozen import bounds, filtering
from tapwise.frozen.groups import Group
from tapwise.frozen.instructions import Writer
from tapwise.frozen.layout import as_rows, from_rows, inner_columns, strides_of
from tapwise.frozen.memory import SIZE, Block, State, StateLayout
from tapwise.frozen.planning import Plan, beside
from tapwise.frozen.recurrences import is_serial, products_of
from tapwise.frozen.spans import Range, Span
from tapwise.frozen.steps import Ref, Steps, TorchStep
from tapwise.network.graph import Graph
from tapwise.network.operations import Registered

LOOPS = (("program.loops", "program_32"), ("program.loops", "sequence_32"))

# Products of a group below which threads take longer to start than to help.
_FEW_PRODUCTS = 300_000
# Steps that work in a task's memory beside the values.
_BESIDE = (
    record.FEW_TRANSPOSED, record.WINOGRAD, record.WINOGRAD_TRANSPOSED, record.MATRICES, record.MATRICES_TRANSPOSED
)  # fmt: skip

# (node, inputs) -> its rows; of steps that torch runs.
RunNode = Callable[[int, list[Tensor]], Tensor | None]


class Program:
    """A network for one batch and span. One thread at a time runs it.

    Arguments:
        layout: where a stream's histories lie; None offline.
    """

    def __init__(self, graph: Graph, steps: Steps, span: Span, batch: int, layout: StateLayout | None = None) -> None:
        self.graph, self.steps, self.span, self.batch = graph, steps, span, batch
        self.plan = Plan(graph, steps, span, batch, layout)
        self._write()

    # Writing

    def _write(self) -> None:
        self._writer = Writer(self.steps, self.plan.places, self.span.kept_before)
        self._alive: list[Any] = []
        self._parts: list[tuple[str, Any]] = []
        self._jobs: list[Any] = []  # of the sequence that is being written
        self._imports: dict[int, Any] = {}
        self._exports: dict[int, Any] = {}
        self._write_ends()
        for number, group in enumerate(self.plan.groups):
            if group.is_torch:
                self._end_sequence()
                own: TorchStep = group.steps[0]
                self._parts.append(("torch", own))
                if own.out is not None and self.plan.last_writer.get(own.out) is own:
                    self._write_padding(own.out)
            else:
                self._write_group(number, group)
        for n in dict.fromkeys(self.graph.results):
            self._write_export(n)
        self._end_sequence()
        self._write_keeps()

    def _write_group(self, number: int, group: Group) -> None:
        if group.is_recurrent:
            self._write_recurrence(number, group)
            return
        instructions, products = [], 0
        for step in group.steps:
            i = self._writer.step(step)
            if step.code == record.FINISH:
                before = self.plan.group_of[step.x.value]
                first, last = self.plan.groups[before].rows
                i["count"] = -(-(last - first) // self.plan.blocks[before])
            if step.code in _BESIDE:
                i["z"] = self.plan.scratch[number] - beside(group, self.plan.blocks[number], self.batch)
            if step.code in filtering.CODES.values():
                i["z_batch"] = filtering.block_of(step, group.rows[1] - group.rows[0])
            instructions.append(i)
            products += (
                int(i["inputs"] * i["taps"] // max(int(i["stride"]) if step.code in record.TRANSPOSING else 1, 1) + 8)
                * step.columns
            )
            if self.plan.last_writer[step.out] is step:
                instructions += self._writer.zeros(step.out, group.total)
        shares = self.plan.shares_of(group)
        table = self._add_job(
            instructions, group.rows, self.plan.blocks[number], self.plan.scratch[number], products, shares
        )
        for n, step in enumerate(group.steps):
            if step.code == record.IMPORT:
                self._imports[self.steps.values[step.out].node] = table[n : n + 1]
        for step in group.steps:
            if self.plan.last_writer[step.out] is step:
                self._write_edges(step.out)

    def _write_recurrence(self, number: int, group: Group) -> None:
        """Rows that need the row before them; what stands before the first one is written first."""
        (step,) = group.steps
        self._write_padding(step.out)
        i = self._writer.step(step)
        i["count"] = self.batch
        i["third"] = self.plan.scratch[number] - beside(group, self.plan.blocks[number], self.batch)
        block, scratch, shares = self.plan.blocks[number], self.plan.scratch[number], self.plan.shares_of(group)
        self._add_job([i], group.rows, block, scratch, products_of(step), shares, True, is_serial(step))

    def _write_ends(self) -> None:
        """What surrounds values of which no row is computed: of some, padding alone is read."""
        for value, place in sorted(self.plan.places.items()):
            if value not in self.plan.last_writer and place.space != record.SCRATCH:
                self._write_padding(value)

    def _write_padding(self, value: int) -> None:
        """What surrounds a value that no compiled group gives."""
        zeros = self._writer.zeros(value, self.span.totals[self.steps.values[value].node])
        if zeros:
            self._add_job(zeros, (0, 1), 1, 0, 0)
        self._write_edges(value)

    def _write_edges(self, value: int) -> None:
        edges = self._writer.edges(value, self.span.totals[self.steps.values[value].node])
        if edges is not None:
            self._add_job([edges], (0, 1), 1, 0, 0)

    def _write_export(self, number: int) -> None:
        ref, rows = self.steps.refs[number], self.span.rows[number]
        if ref is None or rows[0] == rows[1]:
            return
        columns = inner_columns(self.graph.nodes[number].size)
        i = self._writer.blank(record.EXPORT, columns)
        self._writer.operand(i, "x", ref)
        block = max(16, min(256, -(-(rows[1] - rows[0]) // 16)))
        self._exports[number] = self._add_job([i], rows, block, 0, columns * 8)

    def _write_keeps(self) -> None:
        span = self.span
        found = []
        for value, place in sorted(self.plan.places.items()):
            if place.space >= record.STATE:
                before, after = span.rows[self.steps.values[value].node]
                found.append(self._writer.keep(value, span.kept_after.get(value, after), before, after))
        found = [i for i in found if i is not None]
        self._keeps: Any = None
        if found:
            self._add_job(found, (0, 1), 1, 0, 0)
            self._end_sequence()
            _, self._keeps = self._parts.pop()

    def _add_job(
        self,
        instructions: list[Any],
        rows: Range,
        block: int,
        scratch: int,
        products: int,
        shares: int = 1,
        is_recurrent: bool = False,
        is_serial: bool = False,
    ) -> Any:
        """A group of instructions on rows.

        Arguments:
            is_recurrent: whether shares are all tasks: a task is of all rows and signals.
            is_serial: whether a row is computed when the one before it is.
        """
        tasks = 1 if is_recurrent else self.batch
        rows_at_once = 1 if is_serial else rows[1] - rows[0]
        table = np.array(instructions, dtype=INSTRUCTION)
        blocks = -(-(rows[1] - rows[0]) // block)
        job = GroupJob(
            instructions=table.ctypes.data, count=len(table), first=rows[0], last=rows[1], block=block, blocks=blocks,
            shares=shares, scratch=scratch, end=blocks * tasks * shares, serial=is_serial,
            parallel=products * rows_at_once * self.batch > _FEW_PRODUCTS,
        )  # fmt: skip
        if memory.IS_CHECKED:
            sizes = {record.SCRATCH: scratch, record.ARENA: self.plan.arena_bytes, record.STATE: self.plan.state_bytes}
            slacks = {place.space: place.slack for place in self.plan.places.values()}
            bounds.check(job, table, self.batch, sizes, slacks)
        self._jobs.append(job)
        self._alive += [table, job]
        return table

    def _end_sequence(self) -> None:
        if not self._jobs:
            return
        prepare(LOOPS)
        program = compiled.loop(*LOOPS[0])
        addresses = np.array([ctypes.addressof(job) for job in self._jobs], dtype=np.int64)
        found = pool.find_pool()
        job = SequenceJob(
            jobs=addresses.ctypes.data, count=len(addresses), loop=program.address,
            start=0 if found is None else found.start_address,
            pool_next=0 if found is None else found.next_tasks,
            pool_end=0 if found is None else found.end_tasks,
        )  # fmt: skip
        self._alive += [addresses, self._jobs]
        self._jobs = []
        self._parts.append(("compiled", job))

    # Running

    def run(self, inputs: Sequence[Tensor], arena: Block, state: State | None, run_node: RunNode) -> list[Tensor]:
        """By result of the graph, the rows that are computed.

        Arguments:
            inputs: by signal, the rows of the span.
            run_node: runs a node in torch.
        """
        nodes, span = self.graph.nodes, self.span
        arena.ensure(self.plan.arena_bytes)
        tensors: dict[int, Tensor] = dict(enumerate(inputs))
        alive = [self._aim(table, "x", inputs[n], n) for n, table in self._imports.items()]
        results: dict[int, Tensor] = {}
        unevenly: dict[int, Tensor] = {}  # by result, its rows, where the result itself can't be written
        for number, table in self._exports.items():
            low, high = span.rows[number]
            y = new_output(nodes[number].size.of(self.batch, high - low), torch.float32)
            rows = self._aim(table, "y", y, number)
            results[number] = y
            if rows is not y:
                unevenly[number] = rows
        threads = pool.count()
        for kind, part in self._parts:
            if kind == "torch":
                self._run_torch(part, tensors, arena, state, run_node)
            else:
                self._run_sequence(part, threads, arena, state)
        del alive
        for number, rows in unevenly.items():
            results[number].copy_(from_rows(rows, nodes[number].size))
        found = []
        for number in self.graph.results:
            node = nodes[number]
            if number in results:
                found.append(results[number])
            elif number in tensors:
                found.append(tensors[number])
            else:
                found.append(torch.empty(node.size.of(self.batch, 0), dtype=node.dtype))
        return found

    def keep(self, state: State) -> None:
        """Let later steps find what they read: after a run, before the next."""
        if self._keeps is not None:
            self._run_sequence(self._keeps, 1, Block(), state)

    def _run_sequence(self, job: Any, threads: int, arena: Block, state: State | None) -> None:
        job.threads, job.arena, job.failed = threads, arena.address, 0
        if state is not None:
            job.state, job.offsets = state.address, state.offsets_address
        compiled.loop(*LOOPS[1]).call(ctypes.addressof(job))
        if job.failed:
            raise MemoryError("no memory for the blocks that a network works in")

    def _run_torch(
        self, step: TorchStep, tensors: dict[int, Tensor], arena: Block, state: State | None, run_node: RunNode
    ) -> None:
        nodes = self.graph.nodes
        inputs = []
        for n, rows in zip(nodes[step.node].inputs, self.span.inputs[step.node], strict=True):
            ref, axis = self.plan.ref_for_torch(n), nodes[n].size.time
            if rows[0] >= rows[1]:
                inputs.append(torch.empty(nodes[n].size.of(self.batch, 0), dtype=nodes[n].dtype))
            elif ref is not None:
                view = self.view(ref, n, rows, arena, state)
                inputs.append(view.clone() if isinstance(nodes[step.node].work, Registered) else view)
            else:
                inputs.append(tensors[n].narrow(axis, rows[0] - self.span.rows[n][0], rows[1] - rows[0]))
        y = run_node(step.node, inputs)
        if y is None:
            return
        if step.out is not None:
            self.view(Ref(step.out), step.node, self.span.rows[step.node], arena, state).copy_(y)
            return
        shared = {block.numbers.untyped_storage().data_ptr() for block in (arena, state) if block is not None}
        # A view of a program's memory would change with what is computed next.
        tensors[step.node] = y.clone() if y.untyped_storage().data_ptr() in shared else y

    def view(self, ref: Ref, node: int, rows: Range, arena: Block, state: State | None) -> Tensor:
        """Some rows of a value as the tensor of a node."""
        place, size = self.plan.places[ref.value], self.graph.nodes[node].size
        block = arena if place.space == record.ARENA else state
        assert block is not None
        offset = place.offset + (rows[0] + ref.shift) * place.row + ref.column * SIZE
        return from_rows(block.view(offset, self.batch, place, rows, inner_columns(size)), size)

    def _aim(self, table: Any, name: str, x: Tensor, number: int) -> Tensor:
        """Let an instruction read, or write, a tensor whose first row is the span's.

        Where its channels lie unevenly, that is a copy of its rows.

        Returns:
            The tensor whose memory is read, or written.
        """
        x, size = x.resolve_neg(), self.graph.nodes[number].size
        strides: Sequence[int] | None = strides_of(x, size)
        if strides is None:
            x = as_rows(x, size).contiguous()
            strides = x.stride()
        batch, row, channel = (step * SIZE for step in strides)
        first = address(x) - self.span.rows[number][0] * row
        table[name], table[f"{name}_row"], table[f"{name}_batch"] = first, row, batch
        table["tap"] = channel
        return x
