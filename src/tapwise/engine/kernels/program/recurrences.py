"""Recurrences: LSTM and GRU, row after row, whose sums over the input come as rows that are computed before.

# a row        h of all units, then, of an LSTM, c of all units
# a block      LANES units; the weight, the bias and the sums hold its gates one after the other:
#              i i i i f f f f g g g g o o o o | i i i i ...
#              of the last block as many units as there are; those of the weight are filled up with zeros
# LSTM         c' = sigmoid(f) * c + sigmoid(i) * tanh(g)        h' = sigmoid(o) * tanh(c')
# GRU          h' = n + sigmoid(z) * (h - n)                     n = tanh(sums of x + sigmoid(r) * sums of h)
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from tapwise.engine.kernels.loops.jobs import jit
from tapwise.engine.kernels.loops.memory import size_of
from tapwise.engine.kernels.loops.vectors import VECTOR, Vectors, element_of
from tapwise.engine.kernels.program import record
from tapwise.engine.kernels.program.functions import Functions
from tapwise.engine.kernels.program.products import product_of_panel

_I64 = ir.IntType(64)


def _lstm_cell(f: Functions, of_x: list[Any], of_h: list[Any], h: Any, c: Any) -> tuple[Any, Any]:
    b = f.b
    i, forget, g, o = (b.fadd(x, y) for x, y in zip(of_x, of_h, strict=True))
    c = f.fma(f.sigmoid(forget), c, b.fmul(f.sigmoid(i), f.tanh(g)))
    return b.fmul(f.sigmoid(o), f.tanh(c)), c


def _gru_cell(f: Functions, of_x: list[Any], of_h: list[Any], h: Any, c: Any) -> tuple[Any, Any]:
    b = f.b
    r, z = (f.sigmoid(b.fadd(x, y)) for x, y in zip(of_x[:2], of_h[:2], strict=True))
    n = f.tanh(f.fma(r, of_h[2], of_x[2]))
    return f.fma(z, b.fsub(h, n), n), None


def _make_cell(gates: int, cell: Any, has_cell_state: bool) -> Any:
    """``cell(of_x, of_h, before, after, to_c, units, item)``, for compiled code: up to a vector of units.

    Their gates stand one after the other at ``of_x``, a vector each at ``of_h``; c lies ``to_c`` bytes after h.
    """

    def codegen(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        of_x, of_h, before, after, to_c, units, _ = arguments
        vectors = Vectors(b, element_of(signature.args[-1]), units, True)
        steps = (of_x, b.mul(units, _I64(vectors.size))), (of_h, _I64(VECTOR))
        sums = [[vectors.load(b.add(p, b.mul(step, _I64(g)))) for g in range(gates)] for p, step in steps]
        c = vectors.load(b.add(before, to_c)) if has_cell_state else None
        h, c = cell(Functions(b, vectors.vector), *sums, vectors.load(before), c)
        vectors.store(h, after)
        if has_cell_state:
            vectors.store(c, b.add(after, to_c))
        return context.get_dummy_value()

    @intrinsic
    def function(typing, of_x, of_h, before, after, to_c, units, item):  # type: ignore[no-untyped-def]
        return types.void(*[types.int64] * 6, item), codegen

    return function


_lstm = _make_cell(record.GATES[record.LSTM], _lstm_cell, True)
_gru = _make_cell(record.GATES[record.GRU], _gru_cell, False)


@jit
def recurrence(i, x, z, y, count, share, shares, is_serial, place, item):
    """``count`` rows one after the other: a share of the units of all signals, or, if not serial, of the signals.

    ``x`` is the row before the first, ``z`` has the sums over the input, ``place`` serves for those over h.
    """
    size = size_of(item)
    lanes, gates = VECTOR // size, i.groups
    first, last, start, signals = 0, (i.inputs + lanes - 1) // lanes, 0, i.count
    if is_serial:
        first, last = last * share // shares, last * (share + 1) // shares
    else:
        start, signals = signals * share // shares, signals * (share + 1) // shares - signals * share // shares
    wide = gates * VECTOR  # bytes of the gates of a block
    x, z, y = x + start * i.x_batch, z + start * i.z_batch, y + start * i.y_batch
    for _ in range(count):
        for block in range(first, last):
            unit = block * lanes
            units = min(lanes, i.inputs - unit)
            weight, bias = i.weight + block * i.inputs * wide, i.bias + block * wide
            product_of_panel(gates, x, i.x_batch, 1, 0, i.inputs, weight, bias, place, wide, lanes, signals, item)
            for n in range(signals):
                of_x, of_h = z + n * i.z_batch + unit * gates * size, place + n * wide
                before, after = x + n * i.x_batch + unit * size, y + n * i.y_batch + unit * size
                if i.code == record.LSTM:
                    _lstm(of_x, of_h, before, after, i.inputs * size, units, item)
                else:
                    _gru(of_x, of_h, before, after, i.inputs * size, units, item)
        x += i.x_row
        z += i.z_row
        y += i.y_row
