"""Gathering: channels of a signal as rows of channels, in the cache, with their padding."""

from __future__ import annotations

from tapwise.engine.kernels.loops.jobs import jit, read
from tapwise.engine.kernels.loops.memory import size_of, store
from tapwise.engine.kernels.loops.transposing import transposed


@jit
def zero(target, row, rows, columns, item):
    """Zeros in the first ``columns`` numbers of some rows, ``row`` bytes apart."""
    size = size_of(item)
    for r in range(rows):
        for c in range(columns):
            store(target + r * row + c * size, item)


@jit
def _padded(job, x, channels, first, count, target, row, item):
    """The positions [first, first + count), which lie outside of the signal."""
    if job.n_sources == 0:
        zero(target, row, count, channels, item)
        return
    size = size_of(item)
    for r in range(count):
        for c in range(channels):
            store(target + r * row + c * size, read(job, x + c * job.x_channel, first + r, item))


@jit
def gathered(job, x, channels, first, count, target, row, item):
    """The positions [first, first + count) of the channels at ``x`` as rows, ``row`` bytes apart, padding included."""
    a = min(max(-first, 0), count)
    b = max(a, min(count, job.length - first))
    size = size_of(item)
    _padded(job, x, channels, first, a, target, row, item)
    transposed(x + (first + a) * size, job.x_channel, target + a * row, row, channels, b - a, item)
    _padded(job, x, channels, first + b, count - b, target + b * row, row, item)


@jit
def gathered_by_tap(job, x, channels, first, count, stride, target, row, item):
    """What ``count`` rows of sums read from ``first`` on; the bytes from a tap's first row to the next tap's.

    Where ``job.span`` says so, taps lie so far apart that only their own rows are gathered: see ``spans``.
    """
    rows = (count - 1) * stride + 1
    if not job.span:
        gathered(job, x, channels, first, rows + job.reach, target, row, item)
        return job.dilation * row
    for k in range(job.taps):
        gathered(job, x, channels, first + k * job.dilation, rows, target + k * rows * row, row, item)
    return rows * row
