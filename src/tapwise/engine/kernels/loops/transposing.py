"""Transposing: numbers side by side in one order become side by side in the other, a square of vectors at a time."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from tapwise.engine.kernels.loops.jobs import jit
from tapwise.engine.kernels.loops.memory import load, size_of, store
from tapwise.engine.kernels.loops.vectors import VECTOR, Vectors, element_of

_I32, _I64 = ir.IntType(32), ir.IntType(64)


def transposed_vectors(b: Any, rows: list[Any]) -> list[Any]:
    """As many vectors as each has lanes, transposed in registers.

    # step 1   a0 a1 a2 a3      a0 b0 a2 b2       step 2   a0 b0 c0 d0
    #          b0 b1 b2 b3  ->  a1 b1 a3 b3         ->     a1 b1 c1 d1      of four lanes
    #          c0 c1 c2 c3      c0 d0 c2 d2                a2 b2 c2 d2
    #          d0 d1 d2 d3      c1 d1 c3 d3                a3 b3 c3 d3
    """
    lanes, rows, step = len(rows), list(rows), 1
    while step < lanes:
        low = [lane if not lane & step else lanes + lane - step for lane in range(lanes)]
        high = [lane + step if not lane & step else lanes + lane for lane in range(lanes)]
        for r in range(lanes):
            if not r & step:
                pair = rows[r], rows[r + step]
                rows[r], rows[r + step] = (
                    b.shuffle_vector(*pair, ir.Constant(ir.VectorType(_I32, lanes), order)) for order in (low, high)
                )
        step *= 2
    return rows


@intrinsic
def _square(typing, x, x_row, y, y_row, item):  # type: ignore[no-untyped-def]
    """As many rows as a vector has lanes, transposed in registers."""

    def codegen(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        x, x_row, y, y_row, _ = arguments
        memory = Vectors(b, element_of(signature.args[-1]), None, False)
        lanes = memory.lanes
        rows = [memory.load(b.add(x, b.mul(x_row, _I64(r)))) for r in range(lanes)]
        for r, row in enumerate(transposed_vectors(b, rows)):
            memory.store(row, b.add(y, b.mul(y_row, _I64(r))))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4, item), codegen


@jit
def transposed(x, x_row, y, y_row, rows, columns, item):
    """``y[c, r] = x[r, c]``: rows of x lie ``x_row`` bytes apart, those of y ``y_row``."""
    size = size_of(item)
    lanes = VECTOR // size
    full_rows, full_columns = rows // lanes * lanes, columns // lanes * lanes
    for r in range(0, full_rows, lanes):
        for c in range(0, full_columns, lanes):
            _square(x + r * x_row + c * size, x_row, y + c * y_row + r * size, y_row, item)
    for r in range(rows):
        for c in range(full_columns if r < full_rows else 0, columns):
            store(y + c * y_row + r * size, load(x + r * x_row + c * size, item))
