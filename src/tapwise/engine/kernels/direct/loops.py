"""The loops of the direct kernel, compiled by Numba at first use.

# a job      tasks of (piece, group, share)      piece: ``span`` outputs of ``rows`` rows of the batch
#                                                share: some of a group's output channels
# a task     blocks of outputs [t0, t1)          inputs read in place, or gathered into scratch first
# a block    rows of outputs                     ``rows.sums``, or correlations added to ``totals``
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from tapwise.engine.kernels.direct.record import SHORT, DirectJob
from tapwise.engine.kernels.direct.rows import IS_AVX512, Rows, sums
from tapwise.engine.kernels.direct.tiles import end_tile
from tapwise.engine.kernels.loops.jobs import allocate_for, gather, jit, next_tasks
from tapwise.engine.kernels.loops.memory import array_at, load, release, size_of, two_integers
from tapwise.engine.kernels.loops.vectors import VECTOR, make_correlation

_RECORD = np.dtype(DirectJob)

_COLUMNS = 6 if IS_AVX512 else 2
_correlate_4_rows, _correlate_4_1 = make_correlation(4, _COLUMNS), make_correlation(4, 1)
_correlate_1_8, _correlate_1_4 = make_correlation(1, 8), make_correlation(1, 4)
_correlate_1_1 = make_correlation(1, 1)


class Scratch(NamedTuple):
    """Memory of one thread, as addresses.

    Arguments:
        inputs: gathered inputs, each phase of the stride ``phase_length`` samples apart.
        in_place: by product (input channel, tap), the offset of its samples in the signal.
        gathered: the same in ``inputs``.
    """

    inputs: int
    phase_length: int
    in_place: int
    gathered: int


class Block(NamedTuple):
    """Outputs [t0, t1) of the channels [o0, o1) of one group in one row of the batch, for one piece."""

    piece: int
    row: int
    group: int
    o0: int
    o1: int
    t0: int
    t1: int


@jit
def _correlate(x, offsets, products, grads, totals, count, item):
    """totals[o, q] += the sum over t of grads[o, t] * x[t + offsets[q]], for all rows and products."""
    lanes, totals_row = VECTOR // size_of(item), products * 8
    steps, tail = count // lanes, count % lanes
    o, g_row = 0, grads.y_row
    while o + 4 <= grads.count:
        g, t, q = grads.y + o * g_row, totals + o * totals_row, 0
        while q + _COLUMNS <= products:
            _correlate_4_rows(x, offsets, q, g, g_row, steps, tail, t + q * 8, totals_row, item)
            q += _COLUMNS
        while q < products:
            _correlate_4_1(x, offsets, q, g, g_row, steps, tail, t + q * 8, totals_row, item)
            q += 1
        o += 4
    while o < grads.count:
        g, t, q = grads.y + o * g_row, totals + o * totals_row, 0
        while q + 8 <= products:
            _correlate_1_8(x, offsets, q, g, g_row, steps, tail, t + q * 8, totals_row, item)
            q += 8
        while q + 4 <= products:
            _correlate_1_4(x, offsets, q, g, g_row, steps, tail, t + q * 8, totals_row, item)
            q += 4
        while q < products:
            _correlate_1_1(x, offsets, q, g, g_row, steps, tail, t + q * 8, totals_row, item)
            q += 1
        o += 1


@jit
def _rows_of(job, block, item):
    """Where the rows of a block lie: their weights, outputs and bias."""
    size = size_of(item)
    channel = block.group * job.fan_out + block.o0
    weight_row, y_row = job.fan_in * job.taps * size, job.outputs * size
    y = job.y + block.row * job.groups * job.fan_out * y_row + channel * y_row + block.t0 * size
    bias = job.bias + channel * size if job.bias else 0
    weight = job.weight + channel * weight_row
    return Rows(weight, weight_row, y, y_row, bias, block.o1 - block.o0)


@jit
def _block(job, block, is_inside, scratch, item):
    """The outputs of a block, whose windows lie inside of the signal or reach beyond it."""
    size, products = size_of(item), job.fan_in * job.taps
    first = block.t0 * job.stride - job.left
    x = job.x + block.row * job.x_row + block.group * job.fan_in * job.x_channel
    if is_inside and not job.gathers:
        source, offsets = x + first * size, scratch.in_place
    else:
        source, offsets = scratch.inputs, scratch.gathered
        window = job.dilation * (job.taps - 1) + 1
        length = (block.t1 - block.t0 - 1) * job.stride + window
        step = 1 if job.dilation % job.stride else job.stride
        channel_bytes = job.stride * scratch.phase_length * size
        for c in range(job.fan_in):
            gather(
                job,
                x + c * job.x_channel,
                first,
                length,
                window,
                step,
                scratch.phase_length,
                source + c * channel_bytes,
                item,
            )
    rows, count = _rows_of(job, block, item), block.t1 - block.t0
    if job.totals:
        channel = (block.piece * job.groups + block.group) * job.fan_out + block.o0
        totals = job.totals + channel * products * 8
        _correlate(source, offsets, products, rows, totals, count, item)
    else:
        sums(source, offsets, products, rows, count, item)


@jit
def _short_row(job, block, left, right, offsets, item):
    """A row of few outputs of one input channel, without a copy of it.

    # outputs     |- ends -|- windows inside [left, right) -|- ends -|      ends read zeros outside
    """
    size = size_of(item)
    lanes, outputs, taps = VECTOR // size, job.outputs, job.taps
    left = min(left, outputs)
    right = max(right, left)
    start = job.x + block.row * job.x_row + block.group * job.x_channel
    first, rows = start - job.left * size, _rows_of(job, block, item)
    if left < right:
        at = left * size
        inner = Rows(rows.weight, rows.weight_row, rows.y + at, rows.y_row, rows.bias, rows.count)
        sums(first + at, offsets, taps, inner, right - left, item)
    for r in range(rows.count):
        t = 0 if left > 0 else right
        while t < outputs:
            at = t * size
            end_tile(
                first + at,
                offsets,
                taps,
                rows.weight + r * rows.weight_row,
                rows.y + r * rows.y_row + at,
                rows.bias + r * size if rows.bias else 1,
                min(lanes, (left if t < left else outputs) - t),
                start,
                job.length * size,
                item,
            )
            t += lanes
            if t == left:
                t = right


@jit
def _tasks(job, begin, end, scratch, item):
    """The tasks [begin, end), counted on by hand: dividing for each would cost short rows too much."""
    lanes = VECTOR // size_of(item)
    # Windows of the outputs [left, right) lie inside the signal.
    left = job.left + -job.left % lanes
    right = job.length - job.dilation * (job.taps - 1) + job.left
    inner_left, inner_right = left, right
    if job.gathers or ((left > 0 or right < job.outputs) and job.outputs <= SHORT):
        left, right = job.outputs, 0
    share, group = begin % job.shares, begin // job.shares % job.groups
    piece = begin // (job.shares * job.groups)
    span, rows = piece % job.spans, piece // job.spans
    for _ in range(begin, end):
        o0 = share * job.share
        o1 = min(o0 + job.share, job.fan_out)
        start, row0 = span * job.span, rows * job.rows
        stop = min(start + job.span, job.outputs)
        for row in range(row0, min(row0 + job.rows, job.batch)):
            if job.ends_in_place:
                block = Block(piece, row, group, o0, o1, 0, job.outputs)
                _short_row(job, block, inner_left, inner_right, scratch.in_place, item)
                continue
            t0, block_end = start, start - start % job.block + job.block
            while t0 < stop:
                is_inside = left <= t0 < right
                t1 = min(block_end, stop)
                if is_inside:
                    t1 = min(t1, right)
                elif t0 < left < right:
                    t1 = min(t1, left)
                block = Block(piece, row, group, o0, o1, t0, t1)
                _block(job, block, is_inside, scratch, item)
                t0 = t1
                block_end += job.block if t0 == block_end else 0
        share += 1
        if share == job.shares:
            share, group = 0, group + 1
        if group == job.groups:
            group, piece, span = 0, piece + 1, span + 1
        if span == job.spans:
            span, rows = 0, rows + 1


@jit
def convolve(pointer, item):
    """The convolutions of a job on numbers of item's type."""
    job = numba.carray(pointer, (1,), _RECORD)[0]
    size, taps, stride = size_of(item), job.taps, job.stride
    products = job.fan_in * taps
    window = job.dilation * (taps - 1)
    phase_length = min(job.block, job.outputs) + window // stride + 1
    inputs_bytes = job.fan_in * stride * phase_length * size
    memory = allocate_for(job, 2 * products * 8 + inputs_bytes + 192)
    if memory == 0:
        return
    in_place = memory + -memory % 64
    gathered = in_place + products * 8
    inputs = gathered + products * 8
    inputs += -inputs % 64
    scratch = Scratch(inputs, phase_length, in_place, gathered)
    offsets_in_place = numba.carray(array_at(in_place, np.int64(0)), (products,))
    offsets_gathered = numba.carray(array_at(gathered, np.int64(0)), (products,))
    for c in range(job.fan_in):
        for k in range(taps):
            position = k * job.dilation
            phase = c * stride + position % stride
            offsets_in_place[c * taps + k] = c * job.x_channel + position * size
            offsets_gathered[c * taps + k] = (phase * phase_length + position // stride) * size
    span = two_integers()
    more = next_tasks(job, span, True)
    while more:
        _tasks(job, load(span, np.int64(0)), load(span + 8, np.int64(0)), scratch, item)
        more = next_tasks(job, span, False)
    release(memory)
