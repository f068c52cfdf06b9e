"""The loops of the implicit_gemm kernel, compiled by Numba at first use.

# packing     (C_out, C_in, K)  ->  by panel of output channels: (tap, C_in, columns)
# products    a block:  inputs (C_in, t) -> rows (t, C_in) -> by panel: sums (t, columns) -> outputs (columns, t)
"""

from __future__ import annotations

import numba
import numpy as np

from tapwise.engine.kernels.implicit_gemm import layout, record
from tapwise.engine.kernels.implicit_gemm.tiles import add_row
from tapwise.engine.kernels.loops.gathering import gathered_by_tap, zero
from tapwise.engine.kernels.loops.jobs import allocate_for, jit, next_tasks
from tapwise.engine.kernels.loops.memory import copy, load, release, size_of, store, two_integers
from tapwise.engine.kernels.loops.transposing import transposed
from tapwise.engine.kernels.loops.vectors import VECTOR
from tapwise.engine.kernels.program.packing import WIDEST
from tapwise.engine.kernels.program.products import panel_vectors, product_of_panel

_PACKING, _PRODUCT = np.dtype(record.PackingJob), np.dtype(record.ProductJob)
_ZERO = np.int64(0)


@jit
def panel_at(panel, columns, item):
    """The vectors of a panel, and its first column."""
    lanes = VECTOR // size_of(item)
    vectors, column = (columns + lanes - 1) // lanes, 0
    n = panel_vectors(vectors)
    for _ in range(panel):
        column, vectors = column + n * lanes, vectors - n
        n = panel_vectors(vectors)
    return n, column


@jit
def _packed_transposed(job, group, c0, c1, column, own, target, row, item):
    """The channels [c0, c1) of a panel at ``target``, from a weight (C_in, C_out, K)."""
    size, taps = size_of(item), job.table + 16 * job.phases
    for slot in range(job.taps):
        k = load(taps + 8 * slot, _ZERO)
        for c in range(c0, c1):
            source = job.weight + (((group * job.fan_in + c) * job.fan_out + column) * job.taps + k) * size
            place = target + (slot * job.fan_in + c) * row
            for o in range(own):
                store(place + o * size, load(source + o * job.taps * size, item))
            zero(place + own * size, 0, 1, row // size - own, item)


@jit
def _packed(job, group, c0, c1, column, own, target, row, scratch, item):
    """The same from a weight (C_out, C_in, K): vectors of columns, transposed."""
    size = size_of(item)
    lanes = VECTOR // size
    numbers = (c1 - c0) * job.taps
    for v in range(row // VECTOR):
        columns = min(own - v * lanes, lanes)
        if columns < lanes:
            zero(scratch, VECTOR, numbers, lanes, item)
        first = group * job.fan_out + column + v * lanes
        source = job.weight + (first * job.fan_in + c0) * job.taps * size
        transposed(source, job.fan_in * job.taps * size, scratch, VECTOR, columns, numbers, item)
        for c in range(c0, c1):
            for k in range(job.taps):
                place = target + (k * job.fan_in + c) * row + v * VECTOR
                copy(place, scratch + ((c - c0) * job.taps + k) * VECTOR, VECTOR)


@jit
def packing(pointer, item):
    """The packed weight of a job."""
    job = numba.carray(pointer, (1,), _PACKING)[0]
    size = size_of(item)
    lanes = VECTOR // size
    memory = allocate_for(job, job.share * job.taps * VECTOR + 64)
    if memory == 0:
        return
    scratch = memory + -memory % 64
    columns = (job.fan_out + lanes - 1) // lanes * lanes
    span = two_integers()
    more = next_tasks(job, span, True)
    while more:
        for task in range(load(span, _ZERO), load(span + 8, _ZERO)):
            c0, panel = task % job.shares * job.share, task // job.shares
            c1, group = min(c0 + job.share, job.fan_in), panel // job.panels
            n, column = panel_at(panel % job.panels, job.fan_out, item)
            own = min(n * lanes, job.fan_out - column)
            target = job.packed + job.taps * job.fan_in * (group * columns + column) * size
            if job.transposed:
                _packed_transposed(job, group, c0, c1, column, own, target, n * VECTOR, item)
            else:
                _packed(job, group, c0, c1, column, own, target, n * VECTOR, scratch, item)
        more = next_tasks(job, span, False)
    release(memory)


@jit
def _summed(job, n, x, taps, tap, weight, bias, zeros, y, columns, count, more, item):
    """Rows of sums of one panel and phase; long ones are split, and the parts after the first summed at ``more``."""
    row, y_row, x_row = n * VECTOR, job.phases * layout.SUMS_ROW, job.row * job.advance
    some_taps = max(layout.PRODUCTS_A_SUM // job.fan_in, 1)
    some_channels = job.fan_in if some_taps > 1 else layout.PRODUCTS_A_SUM
    size = size_of(item)
    for k in range(0, taps, some_taps):
        for c in range(0, job.fan_in, some_channels):
            source, part = x + k * tap + c * size, weight + (k * job.fan_in + c) * row
            n_taps, channels = min(some_taps, taps - k), min(some_channels, job.fan_in - c)
            if k == 0 and c == 0:
                product_of_panel(n, source, x_row, n_taps, tap, channels, part, bias, y, y_row, columns, count, item)
                continue
            product_of_panel(
                n, source, x_row, n_taps, tap, channels, part, zeros, more, layout.SUMS_ROW, columns, count, item
            )
            for r in range(count):
                add_row(y + r * y_row, more + r * layout.SUMS_ROW, n, item)


@jit
def _empty_phase(n, bias, y, y_row, count, item):
    """Sums of no products."""
    for r in range(count):
        copy(y + r * y_row, bias, n * VECTOR)


@jit
def _block(job, task, x, y, zeros, item):
    size, more = size_of(item), y + job.block * job.phases * layout.SUMS_ROW
    lanes = VECTOR // size
    r0, group = task % job.blocks * job.block, task // job.blocks % job.groups
    row, count = task // job.blocks // job.groups, min(job.block, job.count - r0)
    source = job.x + row * job.x_row + group * job.fan_in * job.x_channel
    first = job.first + r0 * job.advance
    tap = gathered_by_tap(job, source, job.fan_in, first, count, job.advance, x, job.row, item)
    counts, firsts = job.table, job.table + 8 * job.phases
    columns = (job.fan_out + lanes - 1) // lanes * lanes
    weight = job.packed + group * job.taps * job.fan_in * columns * size
    bias = job.bias + group * columns * size
    # Of the rows of sums, those that are outputs.
    start = job.start + r0 * job.phases
    a, b = max(0, -start), min(count * job.phases, job.outputs - start)
    target = job.y + ((row * job.groups + group) * job.fan_out * job.outputs + start + a) * size
    o = 0
    while o < job.fan_out:
        n = panel_vectors((job.fan_out - o + lanes - 1) // lanes)
        own = min(job.fan_out - o, n * lanes)
        for phase in range(job.phases):
            taps, place = load(counts + 8 * phase, _ZERO), y + phase * layout.SUMS_ROW
            if taps == 0:
                _empty_phase(n, bias, place, job.phases * layout.SUMS_ROW, count, item)
                continue
            begin = x + (load(firsts + 8 * phase, _ZERO) - job.lowest) * job.row
            columns_of_last = own - (n - 1) * lanes
            _summed(job, n, begin, taps, tap, weight, bias, zeros, place, columns_of_last, count, more, item)
            weight += taps * job.fan_in * n * VECTOR
        bias += n * VECTOR
        transposed(y + a * layout.SUMS_ROW, layout.SUMS_ROW, target, job.outputs * size, b - a, own, item)
        target += own * job.outputs * size
        o += own


@jit
def products(pointer, item):
    """The convolutions of a job."""
    job = numba.carray(pointer, (1,), _PRODUCT)[0]
    x_bytes = job.rows * job.row
    memory = allocate_for(job, x_bytes + job.block * (job.phases + 1) * layout.SUMS_ROW + WIDEST * VECTOR + 128)
    if memory == 0:
        return
    zeros = memory + -memory % 64
    zero(zeros, 0, 1, WIDEST * VECTOR // size_of(item), item)
    x = zeros + WIDEST * VECTOR
    span = two_integers()
    more = next_tasks(job, span, True)
    while more:
        for task in range(load(span, _ZERO), load(span + 8, _ZERO)):
            _block(job, task, x, x + x_bytes, zeros, item)
        more = next_tasks(job, span, False)
    release(memory)
