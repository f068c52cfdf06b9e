"""Sums of products for rows of outputs, as the tiles that fit their number and length."""

from __future__ import annotations

from tapwise.engine.kernels._loops import plain
from tapwise.engine.kernels._tiles import make_tile
from tapwise.engine.kernels._vectors import VECTOR

# Sums of so many products are added up apart, so that rounding doesn't grow with the taps.
PRODUCTS_A_SUM = 256

# Eight rows pay where there are registers for 24 sums and their operands.
WIDE = VECTOR == 64
# Vectors of a strip of outputs: with many rows, all of them read its inputs before the next strip begins.
# Short strips keep those in the first-level cache; where rows are four at a time, longer runs matter more.
_STRIP = 6 if WIDE else 24


def _make_rows(rows, vectors):
    """The outputs of so many rows at a time: tiles of so many vectors, of half, of one, and part of one."""
    whole, one, part = make_tile(rows, vectors), make_tile(rows, 1), make_tile(rows, 1, True)
    less = max(vectors // 2, 1)
    half = make_tile(rows, less)

    @plain
    def sums_of_rows(x, offsets, q0, q1, weight, row, y, y_row, bias, count, lanes, item):
        t, at = 0, 0
        while t + vectors * lanes <= count:
            whole(x + at, offsets, q0, q1, weight, row, y + at, y_row, bias, 0, item)
            t, at = t + vectors * lanes, at + vectors * VECTOR
        if t > 0 and t < count and bias != 0:
            # The last tile ends with the outputs: some are computed twice, and are the same.
            at = (count - vectors * lanes) * (VECTOR // lanes)
            whole(x + at, offsets, q0, q1, weight, row, y + at, y_row, bias, 0, item)
            return
        if t + less * lanes <= count:
            half(x + at, offsets, q0, q1, weight, row, y + at, y_row, bias, 0, item)
            t, at = t + less * lanes, at + less * VECTOR
        while t + lanes <= count:
            one(x + at, offsets, q0, q1, weight, row, y + at, y_row, bias, 0, item)
            t, at = t + lanes, at + VECTOR
        if t < count:
            part(x + at, offsets, q0, q1, weight, row, y + at, y_row, bias, count - t, item)

    return sums_of_rows


_rows_8, _rows_4 = _make_rows(8, 3 if WIDE else 1), _make_rows(4, 6 if WIDE else 3)
_rows_2, _rows_1 = _make_rows(2, 8 if WIDE else 4), _make_rows(1, 8)


@plain
def sums(x, offsets, products, weight, y, y_row, bias, rows, count, size, item):
    """So many rows of outputs, ``count`` of them each, from inputs at ``x + offsets[q]``."""
    row, lanes = products * size, VECTOR // size
    strip = count if rows < 16 else _STRIP * lanes
    q0 = 0  # counted by hand, here and in tasks: a range with a step divides, which a short row feels
    while q0 < products:
        q1, t = min(q0 + PRODUCTS_A_SUM, products), 0
        while t < count:
            many = min(strip, count - t)
            here, o = x + t * size, 0
            while o < rows:
                w, out, b = weight + o * row, y + o * y_row + t * size, 0
                if q0 == 0:
                    b = bias + o * size if bias else 1
                if WIDE and o + 8 <= rows:
                    _rows_8(here, offsets, q0, q1, w, row, out, y_row, b, many, lanes, item)
                    o += 8
                elif o + 4 <= rows:
                    _rows_4(here, offsets, q0, q1, w, row, out, y_row, b, many, lanes, item)
                    o += 4
                elif o + 2 <= rows:
                    _rows_2(here, offsets, q0, q1, w, row, out, y_row, b, many, lanes, item)
                    o += 2
                else:
                    _rows_1(here, offsets, q0, q1, w, row, out, y_row, b, many, lanes, item)
                    o += 1
            t += strip
        q0 = q1
