"""The loops of the winograd kernel, compiled by Numba at first use.

# weights     (C_out, C_in, K)  ->  by panel of output channels, by point: the transformed weight
# filtering   a block of outputs:  inputs (C_in, t) -> rows (t, C_in) -> tiles -> rows (t, C_out) -> outputs (C_out, t)
"""

from __future__ import annotations

import numba
import numpy as np

from tapwise.engine.kernels.loops.gathering import gathered, zero
from tapwise.engine.kernels.loops.jobs import allocate_for, jit, next_tasks
from tapwise.engine.kernels.loops.memory import load, release, size_of, store, two_integers
from tapwise.engine.kernels.loops.transposing import transposed
from tapwise.engine.kernels.loops.vectors import VECTOR
from tapwise.engine.kernels.program.packing import WIDEST
from tapwise.engine.kernels.program.products import panel_vectors
from tapwise.engine.kernels.winograd import layout, record
from tapwise.engine.kernels.winograd.filtering import Filter, filtered, transform_taps

_WEIGHTS, _FILTERING = np.dtype(record.WeightsJob), np.dtype(record.FilteringJob)
_segments, _taps, _unstrided = jit(layout.segments_of), jit(layout.taps_of), jit(layout.unstrided)


@jit
def _transformed_panel(job, panel, c0, c1, taps, item):
    """The inputs [c0, c1) of a panel; ``taps`` is memory for an input's taps, each a row of the panel's columns."""
    size = size_of(item)
    lanes = VECTOR // size
    vectors, o0 = (job.fan_out + lanes - 1) // lanes, 0
    inputs, n_taps = _unstrided(job.fan_in, job.taps, job.stride)
    segments, r = _segments(n_taps), _taps(n_taps)
    points = layout.OUTPUTS + r - 1
    target = job.transformed + job.zeros * size
    n = panel_vectors(vectors)
    for _ in range(panel):
        target += points * segments * inputs * n * VECTOR
        o0, vectors = o0 + n * lanes, vectors - n
        n = panel_vectors(vectors)
    row, columns = WIDEST * VECTOR, min(n * lanes, job.fan_out - o0)
    zero(taps, row, segments * r, n * lanes, item)
    point = segments * inputs * n * VECTOR
    for c in range(c0, c1):
        phase, channel = c // job.fan_in, c % job.fan_in
        for o in range(columns):
            source = job.weight + ((o0 + o) * job.fan_in + channel) * job.taps * size
            for k in range(n_taps):
                place, tap = taps + k * row + o * size, k * job.stride + phase
                store(place, load(source + tap * size, item) if tap < job.taps else item)
        for s in range(segments):
            place = target + (s * inputs + c) * n * VECTOR
            transform_taps(r, taps + s * r * row, row, place, point, n * lanes, item)


@jit
def weights(pointer, item):
    """The transformed weight of a job."""
    job = numba.carray(pointer, (1,), _WEIGHTS)[0]
    inputs, n_taps = _unstrided(job.fan_in, job.taps, job.stride)
    memory = allocate_for(job, _segments(n_taps) * _taps(n_taps) * WIDEST * VECTOR + 64)
    if memory == 0:
        return
    taps = memory + -memory % 64
    span = two_integers()
    more = next_tasks(job, span, True)
    while more:
        for task in range(load(span, np.int64(0)), load(span + 8, np.int64(0))):
            if task == 0:
                zero(job.transformed, 0, 1, job.zeros, item)
            c0 = task % job.shares * job.share
            _transformed_panel(job, task // job.shares, c0, min(c0 + job.share, inputs), taps, item)
        more = next_tasks(job, span, False)
    release(memory)


@jit
def _block(job, task, x, y, memory, item):
    row, r0 = task // job.blocks, task % job.blocks * job.block
    r1, size = min(r0 + job.block, job.outputs), size_of(item)
    reach = (job.outputs - 1 - r0) * job.stride + (job.taps - 1) * job.dilation + 1
    chunk = layout.OUTPUTS * job.dilation
    chunks = (r1 - r0 + chunk - 1) // chunk
    gathered(
        job, job.x + row * job.x_row, job.fan_in, r0 * job.stride - job.left, min(job.rows, reach), x, job.x_rows, item
    )
    tap = job.dilation * job.x_rows
    panels = job.transformed + job.zeros * size
    f = Filter(
        job.transformed, panels, job.bias, job.x_rows, job.y_rows, tap, job.taps, job.stride, job.fan_in, job.fan_out
    )  # fmt: skip
    checks, check = filtered(f, x, y, r0, r1, job.outputs, memory, item), 0.0
    if checks + 8 * chunks > memory + job.memory:
        job.failed = 1
    for n in range(chunks):
        check += load(checks + 8 * n, 0.0)
    store(job.checks + 8 * task, check)
    target = job.y + (row * job.fan_out * job.outputs + r0) * size
    transposed(y, job.y_rows, target, job.outputs * size, r1 - r0, job.fan_out, item)


@jit
def filtering(pointer, item):
    """The convolutions of a job."""
    job = numba.carray(pointer, (1,), _FILTERING)[0]
    x_bytes, y_bytes = job.rows * job.x_rows, job.block * job.y_rows
    memory = allocate_for(job, x_bytes + y_bytes + job.memory + 256)
    if memory == 0:
        return
    x = memory + -memory % 64
    y = x + x_bytes
    span = two_integers()
    more = next_tasks(job, span, True)
    while more:
        for task in range(load(span, np.int64(0)), load(span + 8, np.int64(0))):
            _block(job, task, x, y, y + y_bytes, item)
        more = next_tasks(job, span, False)
    release(memory)
