"""The weight's gradient by products of matrices, compiled by Numba at first use.

# a task      output channels o ... o + share of a group, and a panel of its input channels
# some outputs at a time:   inputs (c, t) -> rows (t, c) -> tap by tap: sums (o, c), added to totals (K, o, c) in float64
"""

from __future__ import annotations

import numba
import numpy as np

from tapwise.engine.kernels.implicit_gemm import record
from tapwise.engine.kernels.implicit_gemm.loops import panel_at
from tapwise.engine.kernels.implicit_gemm.tiles import make_outer_products
from tapwise.engine.kernels.loops.gathering import gathered_by_tap, zero
from tapwise.engine.kernels.loops.jobs import allocate_for, jit, next_tasks
from tapwise.engine.kernels.loops.memory import load, release, size_of, store, two_integers
from tapwise.engine.kernels.loops.vectors import VECTOR
from tapwise.engine.kernels.program.packing import WIDEST

_GRADIENT = np.dtype(record.GradientJob)
_IS_AVX512 = VECTOR == 64
_ZERO = np.int64(0)


def _make_panel(vectors, n_full):
    """All output channels of a panel of ``vectors`` vectors, by tiles of ``n_full``, or of two and one where they are fewer."""
    full, pair, one = (make_outer_products(rows, vectors) for rows in (n_full, 2, 1))

    @jit
    def panel(grad, grad_row, x, x_row, count, y, y_row, channels, item):
        o = 0
        while o + n_full <= channels:
            full(grad + o * grad_row, grad_row, x, x_row, count, y + o * y_row, y_row, item)
            o += n_full
        while o + 2 <= channels:
            pair(grad + o * grad_row, grad_row, x, x_row, count, y + o * y_row, y_row, item)
            o += 2
        if o < channels:
            one(grad + o * grad_row, grad_row, x, x_row, count, y + o * y_row, y_row, item)

    return panel


_SIZES = {4: 6, 3: 8, 2: 12, 1: 12} if _IS_AVX512 else {2: 6, 1: 12}
_panel_1, _panel_2 = _make_panel(1, _SIZES[1]), _make_panel(2, _SIZES[2])
_panel_3, _panel_4 = (_make_panel(n, _SIZES[n]) if _IS_AVX512 else None for n in (3, 4))


@jit
def _outer_products(n, grad, grad_row, x, x_row, count, y, y_row, channels, item):
    if n == 1:
        _panel_1(grad, grad_row, x, x_row, count, y, y_row, channels, item)
    elif n == 2:
        _panel_2(grad, grad_row, x, x_row, count, y, y_row, channels, item)
    elif _IS_AVX512 and n == 3:
        _panel_3(grad, grad_row, x, x_row, count, y, y_row, channels, item)
    elif _IS_AVX512:
        _panel_4(grad, grad_row, x, x_row, count, y, y_row, channels, item)


@jit
def _gradient(job, task, x, totals, item):
    size = size_of(item)
    lanes = VECTOR // size
    o0, panel = task % job.shares * job.share, task // job.shares
    group = panel // job.panels
    n, column = panel_at(panel % job.panels, job.fan_in, item)
    channels, own = min(job.share, job.fan_out - o0), min(n * lanes, job.fan_in - column)
    row, grad_row = n * VECTOR, job.outputs * size
    totals_row = n * lanes * 8
    zero(totals, totals_row, job.taps * job.share, n * lanes, np.float64(0))
    for b in range(job.batch):
        source = job.x + b * job.x_row + (group * job.fan_in + column) * job.x_channel
        grad = job.grad + ((b * job.groups + group) * job.fan_out + o0) * grad_row
        for t in range(0, job.outputs, job.summed):
            count = min(job.summed, job.outputs - t)
            tap = gathered_by_tap(job, source, own, t * job.stride - job.left, count, job.stride, x, row, item)
            for k in range(job.taps):
                place = totals + k * job.share * totals_row
                _outer_products(
                    n,
                    grad + t * size,
                    grad_row,
                    x + k * tap,
                    job.stride * row,
                    count,
                    place,
                    totals_row,
                    channels,
                    item,
                )
    for o in range(channels):
        target = job.result + ((group * job.fan_out + o0 + o) * job.fan_in + column) * job.taps * size
        for c in range(own):
            for k in range(job.taps):
                place = totals + (k * job.share + o) * totals_row + c * 8
                store(target + (c * job.taps + k) * size, np.float32(load(place, np.float64(0))))


@jit
def gradients(pointer, item):
    """The weight's gradient of a job."""
    job = numba.carray(pointer, (1,), _GRADIENT)[0]
    row = WIDEST * VECTOR
    x_bytes = job.rows * row
    memory = allocate_for(job, x_bytes + job.taps * job.share * 2 * row + 128)
    if memory == 0:
        return
    x = memory + -memory % 64
    # Lanes beyond a panel's channels are multiplied too, and not read.
    zero(x, row, job.rows, row // size_of(item), item)
    span = two_integers()
    more = next_tasks(job, span, True)
    while more:
        for task in range(load(span, _ZERO), load(span + 8, _ZERO)):
            _gradient(job, task, x, x + x_bytes, item)
        more = next_tasks(job, span, False)
    release(memory)
