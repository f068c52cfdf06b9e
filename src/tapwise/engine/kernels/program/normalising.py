"""Normalising: means and deviations, of each row over its channels, or of all rows together."""

from __future__ import annotations

import math

import numpy as np

from tapwise.engine.kernels.loops.jobs import jit
from tapwise.engine.kernels.loops.memory import load, size_of, store
from tapwise.engine.kernels.program.maps import map_of, sum_of_differences

_normalise = map_of("normalise")


@jit
def layer_norm(i, x, y, count, item):
    for _ in range(count):
        mean = sum_of_differences(x, i.columns, 0.0, 1, item) / i.columns
        variance = sum_of_differences(x, i.columns, mean, 2, item) / i.columns
        scale = 1.0 / math.sqrt(variance + i.p)
        _normalise(x, i.x_row, i.weight, 0, i.bias, y, i.y_row, i.columns, 1, mean, scale, item)
        x += i.x_row
        y += i.y_row


@jit
def moments(i, x, place, count, item):
    """The mean of a block of rows, by group of channels, and the sum of squares about it: (count, mean, sum)."""
    size = size_of(item)
    columns = i.columns // i.groups
    for g in range(i.groups):
        total, at = 0.0, x + g * columns * size
        for r in range(count):
            total += sum_of_differences(at + r * i.x_row, columns, 0.0, 1, item)
        mean, squares = total / (count * columns), 0.0
        for r in range(count):
            squares += sum_of_differences(at + r * i.x_row, columns, mean, 2, item)
        store(place + g * 24, np.float64(count * columns))
        store(place + g * 24 + 8, mean)
        store(place + g * 24 + 16, squares)


@jit
def finish(i, x, y, item):
    """From the moments of all blocks, by channel: what a normalisation multiplies by, then what it adds."""
    size, zero = size_of(item), np.float64(0)
    columns = i.columns // i.groups
    for g in range(i.groups):
        n, mean, squares = 0.0, 0.0, 0.0
        for block in range(i.count):
            place = x + (block * i.groups + g) * 24
            m, other, more = load(place, zero), load(place + 8, zero), load(place + 16, zero)
            difference = other - mean
            squares += more + difference * difference * n * m / (n + m)
            mean += difference * m / (n + m)
            n += m
        inverse = 1.0 / math.sqrt(squares / n + i.p)
        for c in range(g * columns, (g + 1) * columns):
            scale = inverse * load(i.weight + c * size, item)
            store(y + c * size, np.float32(scale))
            store(y + (i.columns + c) * size, np.float32(load(i.bias + c * size, item) - mean * scale))
