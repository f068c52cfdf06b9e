"""The loops of the amx kernel, compiled by Numba at first use.

# packing     (C_out, C_in, K)  ->  by panel of output channels, by tap: matrices of pairs of channels
# products    a block of outputs:  inputs (C_in, t) -> rows (t, C_in) -> by panel: sums (t, 32) -> outputs (32, t)
"""

from __future__ import annotations

import numba
import numpy as np

from tapwise.engine.kernels.amx import layout, record
from tapwise.engine.kernels.amx.matrices import configure, make_export, make_import, release_matrices
from tapwise.engine.kernels.amx.sums import sums_of_step
from tapwise.engine.kernels.loops.jobs import allocate_for, jit, next_tasks
from tapwise.engine.kernels.loops.memory import load, release, store, two_integers

_PACKING, _PRODUCT = np.dtype(record.PackingJob), np.dtype(record.ProductJob)
_chunks, _panel_bytes = jit(layout.chunks_of), jit(layout.panel_bytes)
_import_4, _import_2 = make_import(4), make_import(2)
_export_4, _export_2 = make_export(4), make_export(2)
_ZERO = np.int64(0)


@jit
def _zero(target, size):
    for n in range(0, size, 8):
        store(target + n, _ZERO)


@jit
def _rows(x, x_bytes, channel, channels, zeros, count, y, y_row):
    """Channels as rows of bfloat16, 16 of them at a time, and 32 channels."""
    for c in range(0, channels, layout.CHANNELS):
        for t in range(0, count, layout.ROWS):
            source, target = x + c * channel + t * x_bytes, y + t * y_row + 2 * c
            if x_bytes == 4:
                _import_4(source, channel, channels - c, zeros, min(count - t, layout.ROWS), target, y_row)
            else:
                _import_2(source, channel, channels - c, zeros, min(count - t, layout.ROWS), target, y_row)


@jit
def packing(pointer, item):
    """The packed weight of a job.

    # a matrix, of outputs o...o + 16 and channels c...c + 32:     row of pairs (c, c + 1): o, o + 1, ...
    """
    job = numba.carray(pointer, (1,), _PACKING)[0]
    matrix, size, chunks = layout.MATRIX_BYTES, job.weight_bytes, _chunks(job.fan_in)
    row = job.fan_in * job.taps * size
    span = two_integers()
    more = next_tasks(job, span, True)
    while more:
        for task in range(load(span, _ZERO), load(span + 8, _ZERO)):
            panel, k = task // job.taps, task % job.taps
            target = job.packed + panel * _panel_bytes(job.taps, chunks) + k * chunks * 2 * matrix
            for chunk in range(chunks):
                c0 = chunk * layout.CHANNELS
                for half in range(2):
                    o0 = panel * layout.PANEL + half * layout.SUMS
                    source = job.weight + o0 * row + (c0 * job.taps + k) * size
                    _pack(source, row, job.taps * size, size, job.fan_out - o0, job.fan_in - c0, target)
                    target += matrix
        more = next_tasks(job, span, False)


@jit
def _pack(w, row, tap, size, outputs, channels, target):
    """A matrix of the weight: pairs of channels by rows, zeros where there are no more."""
    for p in range(layout.ROWS):
        for o in range(layout.SUMS):
            place = target + p * layout.ROW_BYTES + o * 4
            bits = np.int64(0)
            if o < outputs and 2 * p < channels:
                bits = _bits(w + o * row + 2 * p * tap, size)
                if 2 * p + 1 < channels:
                    bits |= _bits(w + o * row + (2 * p + 1) * tap, size) << 16
            store(place, np.int32(bits))


@jit
def _bits(address, size):
    """The bits of a number as bfloat16: of float32, rounded to the nearest, to even between two."""
    if size == 2:
        return np.int64(load(address, np.uint16(0)))
    bits = np.int64(load(address, np.uint32(0)))
    if bits & 0x7FFFFFFF > 0x7F800000:  # not a number
        return bits >> 16 | 0x40
    return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16


@jit
def _gathered(job, row, first, count, target, zeros):
    """The positions [first, first + count) of all channels as rows of bfloat16, zeros outside of the signal."""
    a = min(max(-first, 0), count)
    b = max(a, min(count, job.length - first))
    _zero(target, a * job.row)
    source = job.x + row * job.x_row + (first + a) * job.x_bytes
    _rows(source, job.x_bytes, job.x_channel, job.fan_in, zeros, b - a, target + a * job.row, job.row)
    _zero(target + b * job.row, (count - b) * job.row)


@jit
def _block(job, task, x, y, zeros):
    row, r0 = task // job.blocks, task % job.blocks * job.block
    count = min(job.block, job.outputs - r0)
    first = r0 * job.stride - job.left
    span = (count - 1) * job.stride + 1
    tap = job.dilation * job.row
    if job.span:
        tap = span * job.row
        for k in range(job.taps):
            _gathered(job, row, first + k * job.dilation, span, x + k * tap, zeros)
    else:
        _gathered(job, row, first, span + (job.taps - 1) * job.dilation, x, zeros)
    chunks, step = _chunks(job.fan_in), job.row * job.stride
    weight, bias = job.packed, job.bias
    size = job.y_bytes
    for o in range(0, job.fan_out, layout.PANEL):
        for r in range(0, count, layout.STEP):
            place = y + r * layout.SUMS_ROW
            sums_of_step(
                x + r * step, step, job.taps, tap, chunks, weight, bias, place, layout.SUMS_ROW,
                job.fan_out - o, count - r,
            )  # fmt: skip
        for c in range(o, min(o + layout.PANEL, job.fan_out), layout.SUMS):
            for t in range(0, count, layout.ROWS):
                sums = y + t * layout.SUMS_ROW + 4 * (c - o)
                target = job.y + ((row * job.fan_out + c) * job.outputs + r0 + t) * size
                outputs, channels = min(layout.ROWS, count - t), job.fan_out - c
                if size == 4:
                    _export_4(sums, layout.SUMS_ROW, channels, outputs, target, job.outputs * size)
                else:
                    _export_2(sums, layout.SUMS_ROW, channels, outputs, target, job.outputs * size)
        weight += _panel_bytes(job.taps, chunks)
        bias += 4 * layout.PANEL


@jit
def products(pointer, item):
    """The convolutions of a job."""
    job = numba.carray(pointer, (1,), _PRODUCT)[0]
    # A step has full matrices: rows after the last that counts are read, and give sums that nobody reads.
    x_bytes = (job.rows + layout.STEP * job.stride) * job.row
    memory = allocate_for(job, x_bytes + (job.block + layout.STEP) * layout.SUMS_ROW + 256)
    if memory == 0:
        return
    zeros = memory + -memory % 64
    _zero(zeros, 64)
    x = zeros + 64
    span = two_integers()
    more = next_tasks(job, span, True)
    configure()
    while more:
        for task in range(load(span, _ZERO), load(span + 8, _ZERO)):
            _block(job, task, x, x + x_bytes, zeros)
        more = next_tasks(job, span, False)
    release_matrices()
    release(memory)
