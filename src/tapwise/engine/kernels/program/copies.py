"""Copies: rows taken from tensors and written to them, rows of padding, rows that are kept, and the largest of some."""

from __future__ import annotations

import numpy as np

from tapwise.engine.kernels.loops.jobs import jit
from tapwise.engine.kernels.loops.memory import copy, load, move, size_of, store
from tapwise.engine.kernels.loops.transposing import transposed
from tapwise.engine.kernels.program.maps import map_of

_copy, _maximum = map_of("copy"), map_of("maximum")


@jit
def largest(i, x, y, count, item):
    """Max pooling: the largest number of each window of rows."""
    for _ in range(count):
        _copy(x, 0, x, 0, x, y, 0, i.columns, 1, 0.0, 0.0, item)
        for k in range(1, i.taps):
            _maximum(y, 0, x + k * i.tap, 0, x, y, 0, i.columns, 1, 0.0, 0.0, item)
        x += i.x_row * i.stride
        y += i.y_row


@jit
def transpose(x, x_row, x_channel, y, y_row, y_channel, columns, count, item):
    """``count`` rows copied; numbers lie ``x_channel`` and ``y_channel`` bytes from channel to channel."""
    size = size_of(item)
    if x_channel == size and y_channel == size and columns > 1:
        for _ in range(count):
            copy(y, x, columns * size)
            x += x_row
            y += y_row
        return
    if x_row == size and y_channel == size:
        transposed(x, x_channel, y, y_row, columns, count, item)
        return
    if x_channel == size and y_row == size:
        transposed(x, x_row, y, y_channel, count, columns, item)
        return
    for r0 in range(0, count, 16):  # so that lines of the cache are used before they leave it
        r1 = min(r0 + 16, count)
        for c in range(columns):
            source, target = x + c * x_channel, y + c * y_channel
            for r in range(r0, r1):
                store(target + r * y_row, load(source + r * x_row, item))


@jit
def zeros(i, y, item):
    """Rows of padding, before the first of a sequence or after its last."""
    size = size_of(item)
    for _ in range(i.count):
        for c in range(i.columns):
            store(y + c * size, np.float32(i.p))
        y += i.y_row


@jit
def edges(i, y, item):
    """Rows of padding that are copies of others: pairs of (row, the row that it copies)."""
    zero = np.int64(0)
    for n in range(i.count):
        target, source = load(i.third + n * 16, zero), load(i.third + n * 16 + 8, zero)
        copy(y + target * i.y_row, y + source * i.y_row, i.columns * size_of(item))


@jit
def keep(i, x, y, offset, is_last):
    """Let the next step find rows where they are; once the slack is used up, move them back to the beginning.

    Arguments:
        offset: the address of the bytes by which the rows of all signals have moved on.
        is_last: whether no signal comes after this one.
    """
    moved = load(offset, np.int64(0))
    next_moved = moved + x - y
    if next_moved > i.z:
        move(y - moved, x, i.count * i.x_row)
        next_moved = 0
    if is_last:
        store(offset, np.int64(next_moved))
