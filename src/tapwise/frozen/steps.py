"""Steps: what a program does with rows, whatever their number; and the values that they give.

A step gives one value from one or two others. An alias is a node whose rows lie in another node's value: cut
from its channels, shifted by what was padded or cropped.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from tapwise import partition
from tapwise.geometry import Geometry


@dataclass(frozen=True, slots=True)
class Ref:
    """Rows of a value.

    Arguments:
        value: whose.
        column: of the first of its columns.
        shift: row j of what is meant is row j + shift of the value.
    """

    value: int
    column: int = 0
    shift: int = 0

    def cut(self, column: int) -> Ref:
        return replace(self, column=self.column + column)

    def moved(self, rows: int) -> Ref:
        return replace(self, shift=self.shift + rows)


@dataclass(eq=False)
class Value:
    """Rows that a step gives.

    Arguments:
        node: whose range and length they have.
        columns: numbers of a row; of an LSTM, h and then c of all units.
        fill: what stands before the first row and after the last: a number, or a padding mode; None: nothing reads it.
        table: whether it is numbers of all rows together, as their mean: ``columns`` of 4 bytes for each block of rows,
            or, where ``is_per_block`` isn't set, for all.
    """

    node: int
    columns: int
    fill: float | str | None = None
    is_table: bool = False
    is_per_block: bool = False


@dataclass(eq=False)
class Step:
    """One instruction, for rows to come.

    Arguments:
        code: what is done: a number of ``record``.
        out: the value that it gives.
        x: what it reads.
        z: a second operand: rows, or a constant by column.
        window: the geometry of the rows that it reads; None: those of its output.
        weight, bias: packed; of a layer's normalisation, by column.
        third: the third operand of a map, by column.
        p, q: numbers.
        groups: of channels; of a recurrence, its gates.
        source: weight and bias as the model has them, where something may still be folded into them.
        filters: the weight of a product as it was packed, as the model has it; ``filtered``: packed for Winograd's filtering.
        columns: how many it writes.
        out_column: the first of them.
        inputs: channels that a product sums over, of a group.
        dots: of a product's columns, the last ones that are packed as dot products.
    """

    code: int
    out: int
    x: Ref
    z: Ref | Tensor | None = None
    window: Geometry | None = None
    weight: Tensor | None = None
    bias: Tensor | None = None
    third: Tensor | None = None
    p: float = 0.0
    q: float = 0.0
    groups: int = 1
    source: tuple[Tensor, Tensor | None] | None = None
    filters: Tensor | None = None
    filtered: Tensor | None = None
    columns: int = 0
    out_column: int = 0
    inputs: int = 0
    dots: int = 0

    @property
    def reads(self) -> list[Ref]:
        return [self.x, *([self.z] if isinstance(self.z, Ref) else [])]

    def rows_of_phase(self, count: int) -> int:
        """Of ``count`` rows that the step gives, those of the same taps: a transposed one has taps for each phase of its stride."""
        return -(-count // self.window.stride) if self.window is not None and self.window.transposed else count

    def rows_read(self, ref: Ref, start: int, stop: int) -> tuple[int, int]:
        """The rows of a value, padding included, that are read for the rows [start, stop) of what the step gives."""
        is_windowed = self.window is not None and ref is self.x
        first, last = partition.window_span(self.window, start, stop) if is_windowed else (start, stop)  # type: ignore[arg-type]
        return first + ref.shift, last + ref.shift


@dataclass(eq=False)
class TorchStep:
    """A node that torch runs.

    Arguments:
        out: the value that it gives, where compiled steps read it; None: tensors alone.
    """

    node: int
    out: int | None


@dataclass(eq=False)
class Steps:
    """A network as steps, in the order in which they run."""

    values: list[Value] = field(default_factory=list)
    steps: list[Any] = field(default_factory=list)
    # By node, where its rows lie; None: in a tensor of torch's.
    refs: dict[int, Ref | None] = field(default_factory=dict)
