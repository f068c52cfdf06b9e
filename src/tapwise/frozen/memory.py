"""Memory of a program: where every value lies.

# arena     | value 0 ............ | value 3 ... |        values live from the group that gives them to the last that
#           | value 2 ... | value 4 ............ |        reads them; then their memory serves others
# scratch   | value 1 | value 5 |                         of one block of rows, on the processor that computes it
# state     | history, chunk, slack | ...                 of a stream: rows that later steps read
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from tapwise.engine.kernels.program import record
from tapwise.engine.kernels.program.packing import LANES
from tapwise.frozen.groups import Group
from tapwise.frozen.spans import Range
from tapwise.frozen.steps import Steps

SIZE = 4  # bytes of a number
LINE = 64  # bytes of a line of the cache


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value lies.

    Arguments:
        space: what its address counts from: a number of ``record``.
        offset: bytes from there to its row 0, whether that row is there or not.
        row: bytes from row to row.
        batch: bytes from signal to signal.
        rows: which rows are there, padding too.
        slack: bytes by which the rows of a history may move on before they are moved back.
    """

    space: int
    offset: int
    row: int
    batch: int
    rows: Range
    slack: int = 0


def _numbers(count: int) -> Tensor:
    return torch.empty(count, dtype=torch.float32, device="cpu")  # whatever the defaults are


class Block:
    """A block of memory that grows: ``ensure`` makes it large enough, its contents are then lost."""

    def __init__(self) -> None:
        self.numbers = _numbers(0)
        self.first = 0  # of the numbers, where a line of the cache begins

    def ensure(self, size: int) -> None:
        count = size // SIZE + 2 * LINE // SIZE
        if self.numbers.numel() < count:
            self.numbers = _numbers(count)
            self.first = -self.numbers.data_ptr() % LINE // SIZE

    @property
    def address(self) -> int:
        return self.numbers.data_ptr() + self.first * SIZE

    def view(self, offset: int, batch: int, place: Place, rows: Range, columns: int) -> Tensor:
        """(B, rows, columns) at ``offset`` bytes."""
        strides = (place.batch // SIZE, place.row // SIZE, 1)
        return self.numbers.as_strided((batch, rows[1] - rows[0], columns), strides, self.first + offset // SIZE)


class State(Block):
    """The histories of a stream, and by how many bytes the rows of each have moved on since they lay at their places.

    # a value    | history | chunk | slack ................. |      after one step or several:
    #            | .. offset .. | history | chunk | slack .. |      when the slack is used up, rows are moved back
    """

    def __init__(self) -> None:
        super().__init__()
        self.begin(0)

    def begin(self, count: int) -> None:
        """Let the rows of ``count`` values be at their places."""
        self.offsets = np.zeros(max(count, 1), dtype=np.int64)
        self.offsets_address = self.offsets.ctypes.data

    def view(self, offset: int, batch: int, place: Place, rows: Range, columns: int) -> Tensor:
        """(B, rows, columns) at ``offset`` bytes and as many as the rows have moved on."""
        return super().view(offset + int(self.offsets[place.space - record.STATE]), batch, place, rows, columns)


def row_bytes(columns: int) -> int:
    """Bytes of a row: full vectors, and no multiple of what would let all rows meet in the same lines of a cache."""
    if columns < LANES:
        return columns * SIZE
    size = -(-columns // LANES) * LANES * SIZE
    return size + LINE if size % 1024 == 0 else size


def lines(size: int) -> int:
    """Bytes, rounded up to full lines of the cache."""
    return -(-size // LINE) * LINE


def place_in_arena(values: Sequence[tuple[int, int, Range, Range]], batch: int) -> tuple[dict[int, Place], int]:
    """Places for values, and the arena's bytes: each in the first gap that no value of the same time has.

    Arguments:
        values: (value, bytes of a row, rows, first and last group that needs it), in the order of their first groups.
    """
    taken: list[tuple[int, int, Range]] = []
    places, top = {}, 0
    for value, row, (low, high), life in values:
        each = lines((high - low) * row)
        size = each * batch + LINE
        begin = 0
        for start, stop, other in sorted(taken):
            if other[0] <= life[1] and life[0] <= other[1] and start < begin + size and begin < stop:
                begin = stop
        taken.append((begin, begin + size, life))
        top = max(top, begin + size)
        places[value] = Place(record.ARENA, begin - low * row, row, each, (low, high))
    return places, top


def place_in_scratch(steps: Steps, group: Group, placed: set[int]) -> tuple[dict[int, Place], int]:
    """Places for the values that only this group needs, by row of a block; and the bytes of a row of all of them.

    Arguments:
        placed: the values that lie elsewhere.
    """
    last = {ref.value: n for n, step in enumerate(group.steps) for ref in step.reads}
    free: list[tuple[int, int]] = []  # (bytes of a row, where)
    places: dict[int, Place] = {}
    top = 0
    for n, step in enumerate(group.steps):
        if step.out not in placed and step.out not in places:
            row = lines(row_bytes(steps.values[step.out].columns))
            slot = next((s for s in sorted(free) if s[0] >= row), None)
            if slot is None:
                slot = (row, top)
                top += row
            else:
                free.remove(slot)
            places[step.out] = Place(record.SCRATCH, slot[1], slot[0], 0, group.rows)
        for ref in step.reads:
            place = places.get(ref.value)
            if place is not None and last[ref.value] == n and (place.row, place.offset) not in free:
                free.append((place.row, place.offset))
    return places, top


def spread(places: dict[int, Place], block: int) -> dict[int, Place]:
    """Places in scratch memory for blocks of some rows: the rows of a value lie together."""
    return {value: replace(place, offset=place.offset * block) for value, place in places.items()}


def _power_of_two(count: int) -> int:
    """The least power of two that is no less than a count; 0 for 0."""
    return 1 << (count - 1).bit_length() if count else 0


class StateLayout:
    """Where histories lie in a stream's memory, for one batch: it grows with what steps need.

    # of a value   | rows before the chunk's first | the chunk's rows | slack |
    """

    def __init__(self, steps: Steps, batch: int) -> None:
        self.steps, self.batch = steps, batch
        self.capacity: dict[int, Range] = {}  # by value, rows before the chunk's first row, and from it on
        # Places of values whose row 0 is the chunk's first: another dictionary for each version.
        self.places: dict[int, Place] = {}
        self.size = self.version = 0

    def ensure(self, needs: dict[int, Range]) -> None:
        """Memory for ``needs``: by value, rows before and from the chunk's first row on.

        It grows to powers of two, since programs and histories belong to one version.
        """
        grown = dict(self.capacity)
        for value, need in needs.items():
            before, after = self.capacity.get(value, (0, 0))
            if before < need[0] or after < need[1] or value not in grown:
                grown[value] = max(before, _power_of_two(need[0])), max(after, _power_of_two(need[1]))
        if grown == self.capacity:
            return
        self.capacity = grown
        places, top = {}, 0
        for slot, (value, (before, after)) in enumerate(sorted(grown.items())):
            row = row_bytes(self.steps.values[value].columns)
            # As much slack as history: over time, no more rows are moved than steps add.
            front, slack = lines(before * row), before * row
            each = front + lines(after * row + slack) + LINE
            places[value] = Place(record.STATE + slot, top + front, row, each, (-before, after), slack)
            top += each * self.batch + LINE
        self.places, self.size, self.version = places, top, self.version + 1

    def place(self, value: int, first: int, rows: Range) -> Place:
        """The place of a value whose row ``first`` is the chunk's first."""
        place = self.places[value]
        return replace(place, offset=place.offset - first * place.row, rows=rows)
