"""Program: the steps of a network for one batch and length, with their memory planned, ready to run.

# arena     | value 0 ............ | value 3 ... |        values live from the group that gives them to the last that
#           | value 2 ... | value 4 ............ |        reads them; then their memory serves others
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tapwise.engine import compiled
from tapwise.engine import threads as pool
from tapwise.engine.kernels.program import record
from tapwise.engine.kernels.program.packing import LANES
from tapwise.engine.kernels.program.record import INSTRUCTION, GroupJob
from tapwise.frozen.groups import Group, Range, grouped, kept_values, reads_of
from tapwise.frozen.layout import from_rows, inner_columns, strides_of
from tapwise.frozen.steps import Ref, Step, Steps, TorchStep
from tapwise.geometry import Geometry
from tapwise.network.execution import OPERATIONS, Part, complete
from tapwise.network.graph import Graph

LOOPS = ("program.loops", "program_32")

_SIZE = 4  # bytes of a number
_LINE = 64  # bytes of a line of the cache
# Bytes of the values of one block, which are to stay in the second-level cache.
_CACHED = 1 << 19
_MOST_ROWS, _FEWEST_ROWS, _ROWS = 96, 12, 12


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value lies.

    Arguments:
        offset: bytes from the arena's or the scratch memory's beginning to its row 0.
        row: bytes from row to row.
        batch: bytes from signal to signal.
        rows: which rows are there, padding too.
    """

    offset: int
    row: int
    batch: int
    rows: Range
    is_scratch: bool = False


def row_bytes(columns: int) -> int:
    """Bytes of a row: full vectors, and no multiple of what would let all rows meet in the same lines of a cache."""
    if columns < LANES:
        return columns * _SIZE
    size = -(-columns // LANES) * LANES * _SIZE
    return size + _LINE if size % 1024 == 0 else size


class Ranges:
    """Which rows of every node are needed, for all of its outputs.

    Arguments:
        rows: by node.
        parts: by node, how torch computes them.
        totals: by node, how many there are.
    """

    def __init__(self, graph: Graph, operations: Sequence[Any], length: int) -> None:
        self.totals = graph.totals(length)
        self.rows: list[Range] = [(0, 0)] * len(graph.nodes)
        self.parts: list[Part | None] = [None] * len(graph.nodes)
        for number in graph.results:
            self.rows[number] = (0, self.totals[number])
        for number in range(len(graph.nodes) - 1, -1, -1):
            operation, (first, last) = operations[number], self.rows[number]
            if operation is None or first == last:
                continue
            inputs = graph.nodes[number].inputs
            totals = [self.totals[n] for n in inputs]
            if hasattr(operation, "part"):
                part = operation.part(first, last, totals)
            else:  # it carries a state through all of the signal
                part = Part(tuple((0, total) for total in totals), None)
                self.rows[number] = (0, self.totals[number])
            self.parts[number] = part
            for n, needed in zip(inputs, part.inputs, strict=True):
                self.rows[n] = _hull(self.rows[n], needed)


def _hull(one: Range, other: Range) -> Range:
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


class Program:
    """A network for one batch and length. One thread at a time runs it.

    Arguments:
        operations: by node, what computes it in torch.
    """

    def __init__(self, graph: Graph, steps: Steps, operations: Sequence[Any], batch: int, length: int) -> None:
        self.graph, self.steps, self.operations = graph, steps, operations
        self.batch, self.length = batch, length
        self.ranges = Ranges(graph, operations, length)
        self.groups, self.group_of = grouped(steps, self.ranges.rows, self.ranges.totals)
        self._import_inputs()
        self._plan()
        self._write()

    # Planning

    def _import_inputs(self) -> None:
        """Groups that copy the model's inputs into rows come first."""
        read = {ref.value for g in self.groups for s in g.steps if isinstance(s, Step) for ref in s.reads}
        read |= {ref.value for n in self.graph.results if (ref := self.steps.refs[n]) is not None}
        first: list[Group] = []
        for number in range(self.graph.n_sources):
            ref = self.steps.refs[number]
            rows = self.ranges.rows[number]
            if ref is None or ref.value not in read or rows[0] == rows[1]:
                continue
            columns = self.steps.values[ref.value].columns
            first.append(Group(rows, self.ranges.totals[number], [Step(record.IMPORT, ref.value, ref, columns=columns)]))
        self.groups = [*first, *self.groups]
        self.group_of = {value: number + len(first) for value, number in self.group_of.items()}
        for number, group in enumerate(first):
            self.group_of[group.steps[0].out] = number

    def _plan(self) -> None:
        """Where every value lies."""
        steps, last_group = self.steps, len(self.groups)
        extents: dict[int, Range] = {}
        lives: dict[int, list[int]] = {}

        def needs(value: int, rows: Range, group: int) -> None:
            extents[value] = _hull(extents.get(value, (0, 0)), rows)
            life = lives.setdefault(value, [group, group])
            life[:] = [min(life[0], group), max(life[1], group)]

        by_torch: set[int] = set()
        for number, group in enumerate(self.groups):
            for step in group.steps:
                if isinstance(step, TorchStep):
                    if step.out is not None:
                        needs(step.out, group.rows, number)
                        by_torch.add(step.out)
                    part = self.ranges.parts[step.node]
                    assert part is not None
                    for n, (low, high) in zip(self.graph.nodes[step.node].inputs, part.inputs, strict=True):
                        ref = self._ref_for_torch(n)
                        if ref is not None and low < high:
                            needs(ref.value, (low + ref.shift, high + ref.shift), number)
                            by_torch.add(ref.value)
                    continue
                needs(step.out, (0, 1) if steps.values[step.out].is_table else group.rows, number)
                if step.code != record.IMPORT:
                    for ref in step.reads:
                        is_table = steps.values[ref.value].is_table
                        needs(ref.value, (0, 1) if is_table else reads_of(step, ref, group.rows), number)
        for n in self.graph.results:
            ref = steps.refs[n]
            if ref is not None and self.ranges.rows[n][0] < self.ranges.rows[n][1]:
                low, high = self.ranges.rows[n]
                needs(ref.value, (low + ref.shift, high + ref.shift), last_group)
                by_torch.add(ref.value)
        kept = kept_values(steps, self.groups, self.group_of, by_torch)
        self.places: dict[int, Place] = {}
        self._place_kept(kept, extents, lives)
        self._scratch = [self._place_scratch(number, group, kept) for number, group in enumerate(self.groups)]

    def _ref_for_torch(self, node: int) -> Ref | None:
        """Where a node's rows lie for a step of torch's; None where it takes the model's own input."""
        return None if node < self.graph.n_sources else self.steps.refs[node]

    def _place_kept(self, kept: set[int], extents: dict[int, Range], lives: dict[int, list[int]]) -> None:
        """Memory of the values that are kept: the first gap that no value of the same time has."""
        taken: list[tuple[int, int, list[int]]] = []
        self.arena_bytes = 0
        order = sorted((v for v in kept if v in extents), key=lambda v: lives[v][0])
        for value in order:
            low, high = extents[value]
            own = self.steps.values[value]
            row = row_bytes(own.columns)
            if own.is_table:
                count = self.ranges.rows[own.node]
                blocks = -(-(count[1] - count[0]) // _FEWEST_ROWS) if own.is_per_block else 1
                row = own.columns * _SIZE * blocks
            each = -(-(high - low) * row // _LINE) * _LINE
            size = each * self.batch + _LINE
            begin = 0
            for start, stop, life in sorted(taken, key=lambda item: item[0]):
                overlaps = life[0] <= lives[value][1] and lives[value][0] <= life[1]
                if overlaps and start < begin + size and begin < stop:
                    begin = stop
            taken.append((begin, begin + size, lives[value]))
            self.arena_bytes = max(self.arena_bytes, begin + size)
            self.places[value] = Place(begin - low * row, row, each, (low, high))

    def _place_scratch(self, number: int, group: Group, kept: set[int]) -> int:
        """Memory of a block's own values, by row of the block; the bytes of a row of all of them."""
        if group.is_torch:
            return 0
        last = {ref.value: n for n, step in enumerate(group.steps) for ref in step.reads}
        free: list[tuple[int, int]] = []  # (bytes of a row, where)
        top = 0
        for n, step in enumerate(group.steps):
            if step.out in kept or step.out in self.places:
                continue
            row = -(-row_bytes(self.steps.values[step.out].columns) // _LINE) * _LINE
            slot = next((s for s in sorted(free) if s[0] >= row), None)
            if slot is None:
                slot = (row, top)
                top += row
            else:
                free.remove(slot)
            self.places[step.out] = Place(slot[1], slot[0], 0, group.rows, True)
            for ref in step.reads:
                place = self.places[ref.value]
                if place.is_scratch and last[ref.value] == n and self.group_of[ref.value] == number:
                    freed = (place.row, place.offset)
                    if freed not in free:
                        free.append(freed)
            if step.out not in last:
                free.append(slot)
        block = self._block(group, top)
        for value in {step.out for step in group.steps} - kept:  # in a block's memory, the rows of a value lie together
            place = self.places[value]
            self.places[value] = replace(place, offset=place.offset * block)
        return top

    # Instructions

    def _write(self) -> None:
        self.arena = torch.empty(self.arena_bytes + 2 * _LINE, dtype=torch.uint8)
        self.base = self.arena.data_ptr() + -self.arena.data_ptr() % _LINE
        self.runs: list[Callable[[], None]] = []
        self.tensors: dict[int, Tensor] = {}
        self._imports: dict[int, Any] = {}
        self._exports: list[tuple[int, Any]] = []
        self._alive: list[Any] = []
        self.loop = compiled.loop(*LOOPS)
        self._last_writer = {step.out: step for group in self.groups for step in group.steps if step.out is not None}
        for number, group in enumerate(self.groups):
            if group.is_torch:
                self._write_torch(group)
            else:
                self._write_group(number, group)
        for n in self.graph.results:
            self._write_export(n)

    def _write_group(self, number: int, group: Group) -> None:
        instructions = []
        for step in group.steps:
            instructions.append(self._instruction(step))
            if step.code == record.IMPORT:
                self._imports[self.steps.values[step.out].node] = (len(self.runs), len(instructions) - 1)
            if self._last_writer[step.out] is step:
                instructions += self._margins(step.out, group)
        block = self._block(group, self._scratch[number])
        self._add_group(instructions, group.rows, block, self._scratch[number] * block)
        for step in group.steps:
            if self._last_writer[step.out] is step:
                self._write_edges(step.out)

    def _block(self, group: Group, scratch: int) -> int:
        count = group.rows[1] - group.rows[0]
        most = max(_FEWEST_ROWS, min(_MOST_ROWS, _CACHED // max(scratch, 1) // _ROWS * _ROWS))
        wanted = -(-count // 16)
        return max(1, min(most, max(_FEWEST_ROWS, -(-wanted // _ROWS) * _ROWS)))

    def _add_group(self, instructions: list[Any], rows: Range, block: int, scratch: int) -> None:
        table = np.array(instructions, dtype=INSTRUCTION)
        blocks = -(-(rows[1] - rows[0]) // block)
        scratch = -(-scratch // _LINE) * _LINE + block * _LINE
        job = GroupJob(
            instructions=table.ctypes.data, count=len(table), first=rows[0], last=rows[1], block=block, blocks=blocks,
            scratch=scratch,
        )  # fmt: skip
        self._alive += [table, job]
        tasks = blocks * self.batch
        loop = self.loop

        def run() -> None:
            pool.run(loop, job, tasks, pool.count() if tasks > 1 else 1)

        run.table = table  # type: ignore[attr-defined]
        self.runs.append(run)

    def _operand(self, ref: Ref) -> tuple[int, int, int, int]:
        place = self.places[ref.value]
        base = 0 if place.is_scratch else self.base
        address = base + place.offset + ref.column * _SIZE + ref.shift * place.row * (not place.is_scratch)
        return address, place.row, place.batch, int(place.is_scratch)

    def _constant(self, tensor: Tensor) -> int:
        tensor = tensor.contiguous()
        self._alive.append(tensor)
        return tensor.data_ptr()

    def _instruction(self, step: Step) -> Any:
        i = np.zeros((), dtype=INSTRUCTION)
        i["code"], i["columns"], i["p"], i["q"] = step.code, step.columns, step.p, step.q
        i["stride"], i["groups"], i["taps"] = 1, step.groups, 1
        for name, value in zip(("y", "y_row", "y_batch", "y_scratch"), self._operand(Ref(step.out, step.out_column)), strict=True):
            i[name] = value
        if step.code == record.FINISH:
            group = self.groups[self.group_of[step.x.value]]
            i["count"] = -(-(group.rows[1] - group.rows[0]) // self._block(group, self._scratch[self.group_of[step.x.value]]))
        if step.code == record.IMPORT:
            return i
        for name, value in zip(("x", "x_row", "x_batch", "x_scratch"), self._operand(step.x), strict=True):
            i[name] = value
        if isinstance(step.z, Ref):
            for name, value in zip(("z", "z_row", "z_batch", "z_scratch"), self._operand(step.z), strict=True):
                i[name] = value
        elif step.z is not None:
            i["z"] = self._constant(step.z)
        for name in ("weight", "bias", "third"):
            tensor = getattr(step, name)
            if tensor is not None:
                i[name] = self._constant(tensor)
        if step.source is not None:
            weight = step.source[0]
            i["inputs"] = weight.shape[0] if step.code == record.TRANSPOSED else weight.shape[1]
        if (window := step.window) is not None:
            self._write_window(i, window)
        return i

    @staticmethod
    def _write_window(i: Any, window: Geometry) -> None:
        i["taps"], i["stride"] = window.kernel_size, window.stride
        i["tap"] = window.dilation * i["x_row"]
        if window.transposed:
            i["shift"] = window.left
            return
        i["x"] -= window.left * i["x_row"]
        dense = i["x_row"] == i["inputs"] * _SIZE and window.dilation == 1
        if i["code"] in (record.PRODUCT, record.FEW_OUTPUTS) and dense and i["groups"] == 1:
            i["inputs"] *= window.kernel_size  # a window is one piece of memory
            i["taps"], i["tap"] = 1, 0

    def _margins(self, value: int, group: Group) -> list[Any]:
        """Instructions that write a number before the first row of a value and after its last."""
        place, fill = self.places[value], self.steps.values[value].fill
        if place.is_scratch or not isinstance(fill, float):
            return []
        found = []
        for end, (low, high) in enumerate(((place.rows[0], 0), (max(group.total, place.rows[0]), place.rows[1]))):
            if low < high:
                found.append(self._fill_of(value, low, min(high, place.rows[1]), end, fill))
        return found

    def _fill_of(self, value: int, low: int, high: int, end: int, fill: float) -> Any:
        i = np.zeros((), dtype=INSTRUCTION)
        address, row, batch, _ = self._operand(Ref(value, 0, low))
        i["code"], i["y"], i["y_row"], i["y_batch"] = record.ZEROS, address, row, batch
        i["columns"], i["count"], i["third"], i["p"] = self.steps.values[value].columns, high - low, end, fill
        return i

    def _write_edges(self, value: int) -> None:
        """Copies of rows around a value, as a padding mode says."""
        place, fill = self.places[value], self.steps.values[value].fill
        if not isinstance(fill, str):
            return
        total, (low, high) = self.ranges.totals[self.steps.values[value].node], place.rows
        outside = [*range(low, min(0, high)), *range(max(total, low), high)]
        if not outside:
            return
        fold = Geometry(1, padding_mode=fill).fold
        pairs = np.array([(row, int(fold(row, total))) for row in outside], dtype=np.int64)
        i = np.zeros((), dtype=INSTRUCTION)
        address, row_size, batch, _ = self._operand(Ref(value))
        i["code"], i["y"], i["y_row"], i["y_batch"] = record.EDGES, address, row_size, batch
        i["columns"], i["count"], i["third"] = self.steps.values[value].columns, len(pairs), pairs.ctypes.data
        self._alive.append(pairs)
        self._add_group([i], (0, 1), 1, 0)

    # Steps of torch's

    def view(self, ref: Ref, node: int, rows: Range) -> Tensor:
        """Some rows of a value as the tensor of a node."""
        place = self.places[ref.value]
        count = rows[1] - rows[0]
        offset = self.base - self.arena.data_ptr() + place.offset + (rows[0] + ref.shift) * place.row
        flat = self.arena.view(torch.float32)
        size = self.graph.nodes[node].size
        view = flat.as_strided(
            (self.batch, count, inner_columns(size)),
            (place.batch // _SIZE, place.row // _SIZE, 1),
            offset // _SIZE + ref.column,
        )
        return from_rows(view, size)

    def _write_torch(self, group: Group) -> None:
        (step,) = group.steps
        node, part = self.graph.nodes[step.node], self.ranges.parts[step.node]
        assert part is not None
        operation = self.operations[step.node]
        sources = []
        for n, rows in zip(node.inputs, part.inputs, strict=True):
            ref = self._ref_for_torch(n)
            sources.append((n, rows, None if ref is None or rows[0] >= rows[1] else self.view(ref, n, rows)))
        target = None
        if step.out is not None:
            target = self.view(Ref(step.out), step.node, group.rows)
        tensors, first = self.tensors, {n: self.ranges.rows[n][0] for n in node.inputs}
        axes = [self.graph.nodes[n].size.time for n in node.inputs]
        empties = [self.graph.nodes[n].size.of(self.batch, 0) for n in node.inputs]

        def run() -> None:
            inputs, nothing = [], []
            for (n, rows, view), axis, empty in zip(sources, axes, empties, strict=True):
                x = view
                if x is None:
                    x = tensors[n] if n in tensors else torch.empty(empty)
                    x = x.narrow(axis, rows[0] - first[n], rows[1] - rows[0]) if rows[0] < rows[1] else x.narrow(axis, 0, 0)
                inputs.append(x)
                nothing.append(x.narrow(axis, 0, 0))
            if part.schedule is None:
                y = complete(operation, node, inputs, axes, self.batch)
            else:
                y, _ = operation.run(part.schedule, nothing, inputs)
            if target is not None:
                target.copy_(y)
            tensors[step.node] = y

        self.runs.append(run)
        if step.out is not None:
            fills = self._margins(step.out, group)
            if fills:
                self._add_group(fills, (0, 1) if False else (group.rows[0], group.rows[1]), group.rows[1] - group.rows[0], 0)
            self._write_edges(step.out)

    def _write_export(self, number: int) -> None:
        ref = self.steps.refs[number]
        rows = self.ranges.rows[number]
        if ref is None or rows[0] == rows[1]:
            return
        i = np.zeros((), dtype=INSTRUCTION)
        i["code"], i["stride"] = record.EXPORT, 1
        for name, value in zip(("x", "x_row", "x_batch", "x_scratch"), self._operand(ref), strict=True):
            i[name] = value
        columns = inner_columns(self.graph.nodes[number].size)
        i["columns"] = columns
        block = max(16, min(256, -(-(rows[1] - rows[0]) // 16)))
        self._exports.append((number, len(self.runs)))
        self._add_group([i], rows, block, 0)

    # Running

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """By result of the graph, what the network gives for these signals."""
        self.tensors.clear()
        nodes = self.graph.nodes
        for number, x in enumerate(inputs):
            low, high = self.ranges.rows[number]
            self.tensors[number] = x.narrow(nodes[number].size.time, low, high - low)
            if number in self._imports:
                self._aim(self._imports[number], x, number, "x")
        results: dict[int, Tensor] = {}
        for number, run in self._exports:
            size = nodes[number].size.of(self.batch, self.ranges.totals[number])
            results[number] = torch.empty(size)
            self._aim((run, 0), results[number], number, "y")
        for run_group in self.runs:
            run_group()
        found = []
        for number in self.graph.results:
            if number in results:
                found.append(results[number])
            elif number in self.tensors:
                found.append(self.tensors[number])
            else:
                found.append(torch.empty(nodes[number].size.of(self.batch, 0), dtype=nodes[number].dtype))
        self.tensors.clear()
        return found

    def _aim(self, place: tuple[int, int], x: Tensor, number: int, name: str) -> None:
        """Let an instruction read, or write, a tensor."""
        run, n = place
        table = self.runs[run].table  # type: ignore[attr-defined]
        size = self.graph.nodes[number].size
        strides = strides_of(x, size)
        if strides is None:
            x = x.contiguous()
            self.tensors[number] = x
            strides = strides_of(x, size)
            assert strides is not None
        batch, row, channel = (step * _SIZE for step in strides)
        table[name][n], table[f"{name}_row"][n], table[f"{name}_batch"][n] = x.data_ptr(), row, batch
        table["tap"][n] = channel
        if name == "x":
            self._inputs_alive = x
