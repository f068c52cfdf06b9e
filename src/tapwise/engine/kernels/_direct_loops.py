"""The loops of the direct kernel, compiled by Numba at first use."""

from __future__ import annotations

import numba
import numpy as np

from tapwise.engine.kernels._addresses import (
    pair,
    peek,
    pointer,
    release,
)
from tapwise.engine.kernels._loops import (
    BEFORE,
    BEFORE_CHANNEL,
    BEFORE_LENGTH,
    BEFORE_ROW,
    INPUTS,
    LEFT,
    LENGTH,
    SOURCES_END,
    STRIDE,
    X_CHANNEL,
    X_ROW,
    X,
    gather,
    next_tasks,
    plain,
    room_for,
)  # fmt: skip
from tapwise.engine.kernels._row_sums import PRODUCTS_A_SUM, WIDE, sums
from tapwise.engine.kernels._tiles import end_tile
from tapwise.engine.kernels._vectors import VECTOR, make_correlation

# The numbers of a job after those of its inputs.
# A task is a share of a group's output channels, over a piece: SPAN outputs of so many rows of the batch.
# Where TOTALS is no address but 0, outputs are written to Y; else they are read there, as gradients, and
# their correlation with the inputs is added to TOTALS, piece by piece.
(
    WEIGHT, BIAS, Y, OUTPUTS, GROUPS, CHANNELS, OUT_CHANNELS, TAPS, DILATION, PACK, BLOCK, SPAN,
    SPANS, ROWS, BATCH, SHARE, SHARES, TOTALS,
) = range(INPUTS, INPUTS + 18)  # fmt: skip
JOB = INPUTS + 18

_pairs_4_6, _pairs_4_1 = make_correlation(4, 6 if WIDE else 2), make_correlation(4, 1)
_pairs_1_8, _pairs_1_4 = make_correlation(1, 8), make_correlation(1, 4)
_pairs_1_1 = make_correlation(1, 1)
_MANY = 6 if WIDE else 2


# Rows of at most so many outputs are computed whole, or gathered whole, rather than in pieces.
_SHORT = 1024


@plain
def _correlate(x, offsets, products, g, g_row, totals, rows, count, size, item):
    """totals[o, q] += the sum over t of g[o, t] * x[t + offsets[q]], for all rows and products."""
    lanes, row = VECTOR // size, products * 8
    steps, tail = count // lanes, count % lanes
    o = 0
    while o + 4 <= rows:
        here, there, q = g + o * g_row, totals + o * row, 0
        while q + _MANY <= products:
            _pairs_4_6(x, offsets, q, here, g_row, steps, tail, there + q * 8, row, item)
            q += _MANY
        while q < products:
            _pairs_4_1(x, offsets, q, here, g_row, steps, tail, there + q * 8, row, item)
            q += 1
        o += 4
    while o < rows:
        here, there, q = g + o * g_row, totals + o * row, 0
        while q + 8 <= products:
            _pairs_1_8(x, offsets, q, here, g_row, steps, tail, there + q * 8, row, item)
            q += 8
        while q + 4 <= products:
            _pairs_1_4(x, offsets, q, here, g_row, steps, tail, there + q * 8, row, item)
            q += 4
        while q < products:
            _pairs_1_1(x, offsets, q, here, g_row, steps, tail, there + q * 8, row, item)
            q += 1
        o += 1


@plain
def _outputs(job, piece, b, g, o0, o1, t0, t1, inside, apart, together, room, phase, size, item):
    """Outputs [t0, t1) of the channels [o0, o1) of group g, in row b of the batch."""
    channels, outputs = job[CHANNELS], job[OUTPUTS]
    products = channels * job[TAPS]
    first = t0 * job[STRIDE] - job[LEFT]
    x = job[X] + b * job[X_ROW] + g * channels * job[X_CHANNEL]
    if inside:
        source, offsets = x + (first - job[BEFORE_LENGTH]) * size, together
    else:
        source, offsets = room, apart
        reach = job[DILATION] * (job[TAPS] - 1) + 1
        span = (t1 - t0 - 1) * job[STRIDE] + reach
        every = 1 if job[DILATION] % job[STRIDE] else job[STRIDE]
        before = job[BEFORE] + b * job[BEFORE_ROW] + g * channels * job[BEFORE_CHANNEL]
        for c in range(channels):
            gather(
                job, x + c * job[X_CHANNEL], before + c * job[BEFORE_CHANNEL], first, span, reach,
                every, phase, room + c * job[STRIDE] * phase * size, size, item,
            )  # fmt: skip
    o = g * job[OUT_CHANNELS] + o0
    y = job[Y] + ((b * job[GROUPS] * job[OUT_CHANNELS] + o) * outputs + t0) * size
    if job[TOTALS]:
        at = (piece * job[GROUPS] * job[OUT_CHANNELS] + o) * products
        _correlate(
            source, offsets, products, y, outputs * size, job[TOTALS] + at * 8, o1 - o0, t1 - t0,
            size, item,
        )  # fmt: skip
        return
    bias = job[BIAS] + o * size if job[BIAS] else 0
    weight = job[WEIGHT] + o * products * size
    sums(source, offsets, products, weight, y, outputs * size, bias, o1 - o0, t1 - t0, size, item)


@plain
def _short_row(job, b, g, o0, o1, left, right, offsets, size, item):
    """All outputs of the channels [o0, o1) of group g, which has one input.

    Windows of the outputs [left, right) lie within it; the others read zeros beside it.
    """
    lanes, outputs, taps = VECTOR // size, job[OUTPUTS], job[TAPS]
    left = min(left, outputs)
    right = max(right, left)
    start = job[X] + b * job[X_ROW] + g * job[X_CHANNEL]
    first, o = start - job[LEFT] * size, g * job[OUT_CHANNELS] + o0
    y = job[Y] + (b * job[GROUPS] * job[OUT_CHANNELS] + o) * outputs * size
    weight, bias = job[WEIGHT] + o * taps * size, job[BIAS] + o * size if job[BIAS] else 0
    if left < right:
        at = left * size
        sums(
            first + at, offsets, taps, weight, y + at, outputs * size, bias, o1 - o0, right - left,
            size, item,
        )  # fmt: skip
    for r in range(o1 - o0):
        t = 0 if left > 0 else right
        while t < outputs:
            at = t * size
            end_tile(
                first + at, offsets, taps, weight + r * taps * size, y + r * outputs * size + at,
                bias + r * size if bias else 1, min(lanes, (left if t < left else outputs) - t),
                start, job[LENGTH] * size, item,
            )  # fmt: skip
            t += lanes
            if t == left:
                t = right


@plain
def _tasks(job, begin, end, apart, together, room, phase, size, item):
    reach = job[DILATION] * (job[TAPS] - 1) + 1
    lanes = VECTOR // size
    # Windows of the outputs [left, right) lie within x, and are read where they stand.
    left = job[LEFT] + job[BEFORE_LENGTH]
    left += -left % lanes
    right = job[LENGTH] - reach + job[LEFT] + 1
    edges = left > 0 or right < job[OUTPUTS]
    # Ends of short rows are computed with zeros beside, or else the whole row is copied: whichever
    # takes less, in tenths of a nanosecond.
    ends = left // lanes + (job[OUTPUTS] - right + lanes - 1) // lanes
    whole = edges and job[OUTPUTS] <= _SHORT and 10 * ends * job[TAPS] < 240 + job[OUTPUTS]
    whole = whole and job[STRIDE] == job[CHANNELS] == 1 and job[TAPS] <= PRODUCTS_A_SUM
    whole = whole and not (job[SOURCES_END] or job[BEFORE_LENGTH] or job[TOTALS])
    head, tail = left, right
    if job[STRIDE] > 1 or job[PACK] or (edges and job[OUTPUTS] <= _SHORT):
        left, right = job[OUTPUTS], 0
    share, g = begin % job[SHARES], begin // job[SHARES] % job[GROUPS]
    piece = begin // (job[SHARES] * job[GROUPS])
    span, rows = piece % job[SPANS], piece // job[SPANS]
    for _ in range(begin, end):
        o0 = share * job[SHARE]
        o1 = min(o0 + job[SHARE], job[OUT_CHANNELS])
        start, b0 = span * job[SPAN], rows * job[ROWS]
        for b in range(b0, min(b0 + job[ROWS], job[BATCH])):
            if whole:
                _short_row(job, b, g, o0, o1, head, tail, together, size, item)
                continue
            t0, block = start, start - start % job[BLOCK] + job[BLOCK]
            while t0 < min(start + job[SPAN], job[OUTPUTS]):
                inside = left <= t0 < right
                t1 = min(block, start + job[SPAN], job[OUTPUTS])
                if inside:
                    t1 = min(t1, right)
                elif t0 < left < right:
                    t1 = min(t1, left)
                _outputs(
                    job, piece, b, g, o0, o1, t0, t1, inside, apart, together, room, phase, size,
                    item,
                )  # fmt: skip
                t0 = t1
                block += job[BLOCK] if t0 == block else 0
        share += 1
        if share == job[SHARES]:
            share, g = 0, g + 1
        if g == job[GROUPS]:
            g, piece, span = 0, piece + 1, span + 1
        if span == job[SPANS]:
            span, rows = 0, rows + 1


@plain
def _body(numbers, size, item):
    job = numba.carray(numbers, (JOB,))
    taps, stride, channels = job[TAPS], job[STRIDE], job[CHANNELS]
    products = channels * taps
    phase = min(job[BLOCK], job[OUTPUTS]) + (job[DILATION] * (taps - 1)) // stride + 1
    # Where the run of tap k of channel c begins: in x, and in the room.
    scratch = room_for(job, 2 * products * 8 + channels * stride * phase * size + 192)
    if scratch == 0:
        return
    here = scratch + -scratch % 64
    there = here + products * 8
    room = there + products * 8
    room += -room % 64
    together = numba.carray(pointer(here, np.int64(0)), (products,))
    apart = numba.carray(pointer(there, np.int64(0)), (products,))
    for c in range(channels):
        for k in range(taps):
            reach = k * job[DILATION]
            together[c * taps + k] = c * job[X_CHANNEL] + reach * size
            apart[c * taps + k] = ((c * stride + reach % stride) * phase + reach // stride) * size
    span = pair()
    more = next_tasks(job, span, True)
    while more:
        begin, end = peek(span, np.int64(0)), peek(span + 8, np.int64(0))
        _tasks(job, begin, end, there, here, room, phase, size, item)
        more = next_tasks(job, span, False)
    release(scratch)


def float32(numbers):
    """The convolutions of a job on float32."""
    _body(numbers, 4, np.float32(0))


def float64(numbers):
    """The convolutions of a job on float64."""
    _body(numbers, 8, np.float64(0))
