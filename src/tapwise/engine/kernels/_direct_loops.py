"""The loops of the direct kernel, compiled by Numba at first use.

A job is one row of integers, addresses included, so that a compiled body is entered with one number:
by the calling thread, or by all threads of the pool, which fetch tasks until none is left.
"""

from __future__ import annotations

from functools import cache
from pickle import PickleError
from typing import Any

import numba
import numpy as np
from numba import types

from tapwise.engine.kernels._vectors import (
    VECTOR, copy, end_tasks, fetch_tasks, make_tile, peek, poke,
)  # fmt: skip
from tapwise.engine.threads import BEGIN, END, FINISH, NEXT, Body

# Sums of so many products are added up apart, so that rounding doesn't grow with the taps.
PRODUCTS_A_SUM = 256

# The numbers of a job. Strides are in bytes; inputs are those of ``before``, then those of ``x``.
(
    X, X_ROW, X_CHANNEL, BEFORE, BEFORE_ROW, BEFORE_CHANNEL, BEFORE_LENGTH, LENGTH,
    WEIGHT, BIAS, Y, OUTPUTS, GROUPS, CHANNELS, OUT_CHANNELS, TAPS, STRIDE, DILATION, LEFT,
    SOURCES, PACK, BLOCK, BLOCKS, SHARE, SHARES,
) = range(4, 29)  # fmt: skip
JOB = 29

_OPTIONS: dict[str, Any] = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}
_plain = numba.njit(**_OPTIONS)

# Eight rows pay where there are registers for 24 sums and their operands.
_WIDE = VECTOR == 64
# Vectors of a tile of 8, 4, 2 and 1 rows.
_A, _B, _C, _D = (3, 6, 8, 8) if _WIDE else (1, 3, 4, 8)
_tile_8, _tile_8_1, _tile_8_part = make_tile(8, _A), make_tile(8, 1), make_tile(8, 1, True)
_tile_4, _tile_4_1, _tile_4_part = make_tile(4, _B), make_tile(4, 1), make_tile(4, 1, True)
_tile_2, _tile_2_1, _tile_2_part = make_tile(2, _C), make_tile(2, 1), make_tile(2, 1, True)
_tile_1, _tile_1_1, _tile_1_part = make_tile(1, _D), make_tile(1, 1), make_tile(1, 1, True)


@_plain
def _rows_8(x, offsets, q0, q1, weight, row, y, y_row, bias, count, lanes, item):
    t, at = 0, 0
    while t + _A * lanes <= count:
        _tile_8(x + at, offsets, q0, q1, weight, row, y + at, y_row, bias, 0, item)
        t, at = t + _A * lanes, at + _A * VECTOR
    while t + lanes <= count:
        _tile_8_1(x + at, offsets, q0, q1, weight, row, y + at, y_row, bias, 0, item)
        t, at = t + lanes, at + VECTOR
    if t < count:
        _tile_8_part(x + at, offsets, q0, q1, weight, row, y + at, y_row, bias, count - t, item)


@_plain
def _rows_4(x, offsets, q0, q1, weight, row, y, y_row, bias, count, lanes, item):
    t, at = 0, 0
    while t + _B * lanes <= count:
        _tile_4(x + at, offsets, q0, q1, weight, row, y + at, y_row, bias, 0, item)
        t, at = t + _B * lanes, at + _B * VECTOR
    while t + lanes <= count:
        _tile_4_1(x + at, offsets, q0, q1, weight, row, y + at, y_row, bias, 0, item)
        t, at = t + lanes, at + VECTOR
    if t < count:
        _tile_4_part(x + at, offsets, q0, q1, weight, row, y + at, y_row, bias, count - t, item)


@_plain
def _rows_2(x, offsets, q0, q1, weight, row, y, y_row, bias, count, lanes, item):
    t, at = 0, 0
    while t + _C * lanes <= count:
        _tile_2(x + at, offsets, q0, q1, weight, row, y + at, y_row, bias, 0, item)
        t, at = t + _C * lanes, at + _C * VECTOR
    while t + lanes <= count:
        _tile_2_1(x + at, offsets, q0, q1, weight, row, y + at, y_row, bias, 0, item)
        t, at = t + lanes, at + VECTOR
    if t < count:
        _tile_2_part(x + at, offsets, q0, q1, weight, row, y + at, y_row, bias, count - t, item)


@_plain
def _rows_1(x, offsets, q0, q1, weight, row, y, y_row, bias, count, lanes, item):
    t, at = 0, 0
    while t + _D * lanes <= count:
        _tile_1(x + at, offsets, q0, q1, weight, row, y + at, y_row, bias, 0, item)
        t, at = t + _D * lanes, at + _D * VECTOR
    while t + lanes <= count:
        _tile_1_1(x + at, offsets, q0, q1, weight, row, y + at, y_row, bias, 0, item)
        t, at = t + lanes, at + VECTOR
    if t < count:
        _tile_1_part(x + at, offsets, q0, q1, weight, row, y + at, y_row, bias, count - t, item)


@_plain
def _sums(x, offsets, products, weight, y, y_row, bias, rows, count, size, item):
    """So many rows of outputs, ``count`` of them each, from inputs at ``x + offsets[q]``."""
    row, lanes = products * size, VECTOR // size
    # With many rows, a strip of the inputs stays in the first-level cache while all rows read it.
    strip = count if rows < 16 else 6 * lanes
    for q0 in range(0, products, PRODUCTS_A_SUM):
        q1 = min(q0 + PRODUCTS_A_SUM, products)
        for t in range(0, count, strip):
            many = min(strip, count - t)
            here, o = x + t * size, 0
            while o < rows:
                w, out, b = weight + o * row, y + o * y_row + t * size, 0
                if q0 == 0:
                    b = bias + o * size if bias else 1
                if _WIDE and o + 8 <= rows:
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


@_plain
def _read(job, x, before, position, size, item):
    """The input at a position of one channel: of the padding, of ``before``, or of ``x``."""
    length = job[LENGTH]
    if position < 0 or position >= length:
        if job[SOURCES] == 0:
            return item  # which is zero
        place = position + job[LEFT] if position < 0 else position - length + job[LEFT]
        position = peek(job[SOURCES] + place * 8, np.int64(0))
    if position < job[BEFORE_LENGTH]:
        return peek(before + position * size, item)
    return peek(x + (position - job[BEFORE_LENGTH]) * size, item)


@_plain
def gather(job, x, before, first, span, phase, room, size, item):
    """Write the positions [first, first + span) of one channel to ``room``, padding filled in.

    # stride 3:  x     a b c d e f g h ...
    #            room  a d g ... | b e h ... | c f ...     ``phase`` apart, so that every tap of a
    #                                                      strided window is a contiguous run
    """
    stride, start_of_x = job[STRIDE], job[BEFORE_LENGTH]
    for r in range(min(stride, span)):
        many = (span - r + stride - 1) // stride
        start = first + r
        # Positions start + q*stride are those of x for q in [q0, q1).
        q0 = min(many, max(0, (start_of_x - start + stride - 1) // stride))
        q1 = min(many, max(q0, (job[LENGTH] - start + stride - 1) // stride))
        here = room + r * phase * size
        for q in range(q0):
            poke(here + q * size, _read(job, x, before, start + q * stride, size, item))
        source = x + (start + q0 * stride - start_of_x) * size
        if stride == 1:
            copy(here + q0 * size, source, (q1 - q0) * size)
        else:
            for q in range(q1 - q0):
                poke(here + (q0 + q) * size, peek(source + q * stride * size, item))
        for q in range(q1, many):
            poke(here + q * size, _read(job, x, before, start + q * stride, size, item))


@_plain
def _outputs(job, b, g, o0, o1, t0, t1, inside, apart, together, room, phase, size, item):
    """Outputs [t0, t1) of the channels [o0, o1) of group g, in row b of the batch."""
    channels, outputs = job[CHANNELS], job[OUTPUTS]
    products = channels * job[TAPS]
    first = t0 * job[STRIDE] - job[LEFT]
    x = job[X] + b * job[X_ROW] + g * channels * job[X_CHANNEL]
    if inside:
        source, offsets = x + (first - job[BEFORE_LENGTH]) * size, together
    else:
        source, offsets = room, apart
        span = (t1 - t0 - 1) * job[STRIDE] + job[DILATION] * (job[TAPS] - 1) + 1
        before = job[BEFORE] + b * job[BEFORE_ROW] + g * channels * job[BEFORE_CHANNEL]
        for c in range(channels):
            gather(
                job, x + c * job[X_CHANNEL], before + c * job[BEFORE_CHANNEL], first, span, phase,
                room + c * job[STRIDE] * phase * size, size, item,
            )  # fmt: skip
    o = g * job[OUT_CHANNELS] + o0
    y = job[Y] + ((b * job[GROUPS] * job[OUT_CHANNELS] + o) * outputs + t0) * size
    bias = job[BIAS] + o * size if job[BIAS] else 0
    weight = job[WEIGHT] + o * products * size
    _sums(
        source, offsets, products, weight, y, outputs * size, bias, o1 - o0, t1 - t0, size, item
    )


@_plain
def _tasks(job, begin, end, apart, together, room, phase, size, item):
    reach = job[DILATION] * (job[TAPS] - 1) + 1
    lanes = VECTOR // size
    # Windows of the outputs [left, right) lie within x, and are read where they stand.
    left = job[LEFT] + job[BEFORE_LENGTH]
    left += -left % lanes
    right = job[LENGTH] - reach + job[LEFT] + 1
    if job[STRIDE] > 1 or job[PACK]:
        left, right = job[OUTPUTS], 0
    for task in range(begin, end):
        block = task // job[SHARES] % job[BLOCKS]
        g = task // (job[SHARES] * job[BLOCKS]) % job[GROUPS]
        b = task // (job[SHARES] * job[BLOCKS] * job[GROUPS])
        o0 = task % job[SHARES] * job[SHARE]
        o1 = min(o0 + job[SHARE], job[OUT_CHANNELS])
        t0 = block * job[BLOCK]
        stop = min(t0 + job[BLOCK], job[OUTPUTS])
        while t0 < stop:
            inside = left <= t0 < right
            t1 = stop
            if inside:
                t1 = min(stop, right)
            elif t0 < left < right:
                t1 = min(stop, left)
            _outputs(job, b, g, o0, o1, t0, t1, inside, apart, together, room, phase, size, item)
            t0 = t1


@_plain
def _body(numbers, size, item):
    job = numba.carray(numbers, (JOB,))
    taps, stride, channels = job[TAPS], job[STRIDE], job[CHANNELS]
    # Where the run of tap k of channel c begins: in x, and in the room.
    together = np.empty(channels * taps, np.int64)
    apart = np.empty(channels * taps, np.int64)
    phase = min(job[BLOCK], job[OUTPUTS]) + (job[DILATION] * (taps - 1)) // stride + 1
    for c in range(channels):
        for k in range(taps):
            reach = k * job[DILATION]
            together[c * taps + k] = c * job[X_CHANNEL] + reach * size
            apart[c * taps + k] = (
                (c * stride + reach % stride) * phase + reach // stride
            ) * size
    room = np.empty(channels * stride * phase * size + 64, np.uint8)
    inner = room.ctypes.data + (-room.ctypes.data) % 64
    here, there = together.ctypes.data, apart.ctypes.data
    if job[NEXT] == 0:
        _tasks(job, job[BEGIN], job[END], there, here, inner, phase, size, item)
    else:
        span = np.empty(2, np.int64)
        while fetch_tasks(job[NEXT], span.ctypes.data, span.ctypes.data + 8):
            _tasks(job, span[0], span[1], there, here, inner, phase, size, item)
        end_tasks(job[FINISH])
    # Memory lives until its last use, and an address is none.
    together[0] = apart[0] = room[0] = 0


_signature = types.void(types.CPointer(types.int64))


def _float32(numbers):
    _body(numbers, 4, np.float32(0))


def _float64(numbers):
    _body(numbers, 8, np.float64(0))


@cache
def body(size: int) -> Body:
    """The loops for numbers of so many bytes, compiled, and kept on disk where there is a place."""
    function = _float32 if size == 4 else _float64
    try:
        return Body(numba.cfunc(_signature, cache=True, **_OPTIONS)(function))
    except (RuntimeError, OSError, EOFError, ValueError, PickleError):
        # No folder can be written, as in a read-only container, or what lies there can't be read.
        return Body(numba.cfunc(_signature, **_OPTIONS)(function))
