"""Bounds: whether every instruction of a program stays within the memory that it is given.

With ``TAPWISE_CHECK_MEMORY=1`` each program is checked when it is made; see ``engine/memory.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tapwise.engine.kernels.program import record
from tapwise.engine.kernels.program.packing import LANES
from tapwise.frozen.memory import SIZE

_SPACES = {record.SCRATCH: "scratch", record.ARENA: "arena", record.STATE: "state"}
_WINDOWED = (record.PRODUCT, record.DEPTHWISE, record.FEW_OUTPUTS, record.LARGEST, record.WINOGRAD, record.MATRICES)
_SUMS = (record.PRODUCT, record.WINOGRAD, record.MATRICES, record.FEW_OUTPUTS, *record.TRANSPOSING)
_NAMES = {number: name for name, number in record.CODES.items()} | {
    getattr(record, name): name.lower()
    for name in (
        "PRODUCT DEPTHWISE FEW_OUTPUTS TRANSPOSED LAYER_NORM LARGEST MOMENTS FINISH NORMALISE IMPORT EXPORT ZEROS EDGES KEEP FEW_TRANSPOSED WINOGRAD MATRICES MATRICES_TRANSPOSED LSTM GRU WINOGRAD_TRANSPOSED"
    ).split()
}


def check(job: Any, table: Any, batch: int, sizes: dict[int, int], slacks: dict[int, int]) -> None:
    """Refuse a group whose instructions would leave their memory.

    Arguments:
        batch: signals.
        sizes: by space, its bytes; those of all histories together.
        slacks: by space of a history, the bytes by which its rows may move on.

    Raises:
        AssertionError: naming the instruction and the operand.
    """
    for i in table:
        if i["code"] in record.GATES:
            _check_sums(i, sizes[record.SCRATCH])
        for name, low, high in _rows(job, i):
            own_space, row = int(i[name + "_space"]), int(i[name + "_row"])
            space = min(own_space, record.STATE)
            if space not in sizes or low >= high:
                continue
            width = int(i["columns"]) * SIZE
            if name == "x" and i["code"] in _SUMS:
                width = int(i["inputs"] * i["groups"]) * SIZE
            if name == "z" and i["code"] in record.GATES:
                width = int(i["inputs"] * i["groups"]) * SIZE
            if i["code"] == record.KEEP:
                width = row
            first, last = (low, high) if space != record.SCRATCH else (0, min(job.block, high - low))
            start = int(i[name]) + first * row
            stop = int(i[name]) + (last - 1) * row + width
            stop += 0 if space == record.SCRATCH else (batch - 1) * int(i[name + "_batch"])
            stop += slacks[own_space] if space == record.STATE else 0
            if not 0 <= start < stop <= sizes[space]:
                # Raised, not asserted: it must hold under -O too.
                raise AssertionError(
                    f"{_NAMES[int(i['code'])]}: {name} spans [{start}, {stop}) of the {sizes[space]} bytes of its "
                    f"{_SPACES[space]}"
                )


def _check_sums(i: Any, size: int) -> None:
    """Refuse a recurrence whose sums over h would leave its scratch."""
    start, stop = int(i["third"]), int(i["third"] + i["count"] * i["groups"] * LANES * SIZE)
    if not 0 <= start < stop <= size:
        raise AssertionError(
            f"{_NAMES[int(i['code'])]}: its sums span [{start}, {stop}) of the {size} bytes of its scratch"
        )


def _rows(job: Any, i: Any) -> Iterator[tuple[str, int, int]]:
    """By operand, the rows that an instruction reads or writes."""
    code, first, last = int(i["code"]), job.first, job.last
    if code in (record.ZEROS, record.KEEP):
        yield "y", 0, int(i["count"])
        if code == record.KEEP:
            yield "x", 0, int(i["count"])
        return
    if code in (record.EDGES, record.FINISH):
        return  # pairs of rows, and tables, are placed with the values that have them
    if code != record.MOMENTS:
        yield "y", first, last
    if code in record.GATES or (code >= record.MAP and i["z_row"]):
        yield "z", first, last
    if code in record.TRANSPOSING:
        taps, stride = int(i["taps"]), int(i["stride"])
        start, stop = first + int(i["shift"]), last + int(i["shift"])
        yield "x", min(-(-(start - taps + 1) // stride), start // stride), (stop - 1) // stride + 1
    elif code in _WINDOWED:
        stride = int(i["stride"])
        reach = (int(i["taps"]) - 1) * int(i["tap"]) // max(int(i["x_row"]), 1)
        yield "x", first * stride, (last - 1) * stride + reach + 1
    elif code != record.IMPORT:
        yield "x", first, last
