"""Rows: sums of products for rows of outputs, by the tiles that fit their number and length.

# outputs of four rows        |--- tile ---|--- tile ---|- half -|one|part|
"""

from __future__ import annotations

from typing import NamedTuple

from tapwise.engine.kernels.direct.record import PRODUCTS_A_SUM
from tapwise.engine.kernels.direct.tiles import make_tile
from tapwise.engine.kernels.loops.jobs import jit
from tapwise.engine.kernels.loops.memory import size_of
from tapwise.engine.kernels.loops.vectors import VECTOR

# Eight rows pay where there are registers for 24 sums and their operands.
IS_AVX512 = VECTOR == 64
# Vectors of a strip of outputs: with many rows, all of them read its inputs before the next strip begins.
# Short strips keep those in the first-level cache; where rows are four at a time, longer runs matter more.
_STRIP = 6 if IS_AVX512 else 24


class Rows(NamedTuple):
    """Rows of outputs to compute: addresses, and bytes from one row to the next.

    Arguments:
        weight: of the first row's first product; its rows lie ``weight_row`` apart.
        y: of the first row's first output; its rows lie ``y_row`` apart.
        bias: of the first row; 0: none.
        count: how many rows.
    """

    weight: int
    weight_row: int
    y: int
    y_row: int
    bias: int
    count: int


def _make_rows(rows, vectors):
    """The outputs of ``rows`` rows at a time: tiles of ``vectors`` vectors, of half, of one, and part of one."""
    full, one, part = make_tile(rows, vectors), make_tile(rows, 1), make_tile(rows, 1, True)
    half_vectors = max(vectors // 2, 1)
    half = make_tile(rows, half_vectors)

    @jit
    def sums_of_rows(x, offsets, q0, q1, w, w_row, y, y_row, bias, count, item):
        lanes = VECTOR // size_of(item)
        t, at = 0, 0
        while t + vectors * lanes <= count:
            full(x + at, offsets, q0, q1, w, w_row, y + at, y_row, bias, 0, item)
            t, at = t + vectors * lanes, at + vectors * VECTOR
        if t > 0 and t < count and bias != 0:
            # The last tile ends with the outputs: some are computed twice, with the same result.
            at = (count - vectors * lanes) * (VECTOR // lanes)
            full(x + at, offsets, q0, q1, w, w_row, y + at, y_row, bias, 0, item)
            return
        if t + half_vectors * lanes <= count:
            half(x + at, offsets, q0, q1, w, w_row, y + at, y_row, bias, 0, item)
            t, at = t + half_vectors * lanes, at + half_vectors * VECTOR
        while t + lanes <= count:
            one(x + at, offsets, q0, q1, w, w_row, y + at, y_row, bias, 0, item)
            t, at = t + lanes, at + VECTOR
        if t < count:
            part(x + at, offsets, q0, q1, w, w_row, y + at, y_row, bias, count - t, item)

    return sums_of_rows


_rows_8 = _make_rows(8, 3 if IS_AVX512 else 1)
_rows_4 = _make_rows(4, 6 if IS_AVX512 else 3)
_rows_2 = _make_rows(2, 8 if IS_AVX512 else 4)
_rows_1 = _make_rows(1, 8)


@jit
def sums(x, offsets, products, rows, count, item):
    """``count`` outputs of each of some ``Rows``, from inputs at ``x + offsets[q]``."""
    size = size_of(item)
    strip = count if rows.count < 16 else _STRIP * (VECTOR // size)
    q0 = 0  # counted by hand, here and in tasks: a range with a step divides, which a short row feels
    while q0 < products:
        q1, t = min(q0 + PRODUCTS_A_SUM, products), 0
        while t < count:
            n = min(strip, count - t)
            inputs, o = x + t * size, 0
            while o < rows.count:
                w, y, bias = (rows.weight + o * rows.weight_row, rows.y + o * rows.y_row + t * size, 0)
                if q0 == 0:  # the first sum begins with the bias, or with zero
                    bias = rows.bias + o * size if rows.bias else 1
                left = rows.count - o
                if IS_AVX512 and left >= 8:
                    _rows_8(inputs, offsets, q0, q1, w, rows.weight_row, y, rows.y_row, bias, n, item)
                    o += 8
                elif left >= 4:
                    _rows_4(inputs, offsets, q0, q1, w, rows.weight_row, y, rows.y_row, bias, n, item)
                    o += 4
                elif left >= 2:
                    _rows_2(inputs, offsets, q0, q1, w, rows.weight_row, y, rows.y_row, bias, n, item)
                    o += 2
                else:
                    _rows_1(inputs, offsets, q0, q1, w, rows.weight_row, y, rows.y_row, bias, n, item)
                    o += 1
            t += strip
        q0 = q1
