"""The loops around the transforms of the fft kernel: inputs to frames, and frames to outputs."""

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
    BEFORE_ROW,
    INPUTS,
    LEFT,
    X_CHANNEL,
    X_ROW,
    X,
    gather,
    next_tasks,
    plain,
    room_for,
)  # fmt: skip
from tapwise.engine.kernels._vectors import peak
from tapwise.engine.threads import HEAD

# Samples over whose peak a frame's quietest part is found, and how much louder its loudest may be.
QUIET = 32
LOUDEST = 1e7

# Frames: rows (b, c) of ``CHANNELS`` each; ``COUNT`` frames a row from frame ``FIRST`` on, each of
# ``KEPT`` inputs and zeros up to ``SIZE``, as they stand or mirrored.
FRAMES, SIZE, STEP, KEPT, FIRST, COUNT, CHANNELS, WILD, BESIDE_ZEROS, MIRRORED = range(
    INPUTS, INPUTS + 10
)
FRAMES_JOB = INPUTS + 10

# Filters: rows of ``TAPS`` taps, laid mirrored into frames, ``DILATION`` apart.
FILTERS, FILTER_FRAMES, TAPS, DILATION, FILTER_SIZE = range(HEAD, HEAD + 5)
FILTERS_JOB = HEAD + 5

# Outputs: of each frame the first ``OUT_STEP`` numbers, every ``OUT_STRIDE``-th, bias added.
(
    FROM, TO, BIAS, OUT_CHANNELS, OUT_STEP, OUT_SIZE, OUT_STRIDE, OUT_FIRST, OUT_COUNT, OUTPUTS,
    TO_ROW,
) = range(HEAD, HEAD + 11)  # fmt: skip
OUTPUTS_JOB = HEAD + 11


@plain
def _mirror(frame, samples, apart):
    """Write sample q to time -q * apart of the frame, whose spectrum is then the conjugate one."""
    length = len(frame)
    for q in range(length):
        frame[q] = 0
    frame[0] = samples[0]
    for q in range(1, len(samples)):
        frame[length - q * apart] = samples[q]


@plain
def _filters(numbers, size, item, wide, wide_size):
    job = numba.carray(numbers, (FILTERS_JOB,))
    span, taps, length = pair(), job[TAPS], job[FILTER_SIZE]
    more = next_tasks(job, span, True)
    while more:
        for task in range(peek(span, np.int64(0)), peek(span + 8, np.int64(0))):
            samples = numba.carray(pointer(job[FILTERS] + task * taps * size, item), (taps,))
            frame_at = job[FILTER_FRAMES] + task * length * wide_size
            _mirror(numba.carray(pointer(frame_at, wide), (length,)), samples, job[DILATION])
        more = next_tasks(job, span, False)


@plain
def _frame(job, row, f, inner, size, item, wide, wide_size):
    channels, kept, length = job[CHANNELS], job[KEPT], job[SIZE]
    b, c = row // channels, row % channels
    first = (job[FIRST] + f) * job[STEP] - job[LEFT]
    gather(
        job, job[X] + b * job[X_ROW] + c * job[X_CHANNEL],
        job[BEFORE] + b * job[BEFORE_ROW] + c * job[BEFORE_CHANNEL], first, kept, kept, 1,
        kept, inner, size, item,
    )  # fmt: skip
    whole = kept + -kept % QUIET
    samples = numba.carray(pointer(inner, item), (whole,))
    for q in range(kept, whole):
        samples[q] = 0
    at = row * job[COUNT] + f
    frame = numba.carray(pointer(job[FRAMES] + at * length * wide_size, wide), (length,))
    if job[MIRRORED]:
        _mirror(frame, samples[:kept], 1)
    else:
        for q in range(kept):
            frame[q] = samples[q]
        for q in range(kept, length):
            frame[q] = 0
    loudest, quietest, silent = 0.0, np.inf, False
    for q in range(0, kept, QUIET):
        here = peak(inner + q * size, QUIET, item)
        loudest = max(loudest, here)
        if here > 0:
            quietest = min(quietest, here)
        else:
            silent = True
    wild = numba.carray(pointer(job[WILD] + at, np.uint8(0)), (1,))
    limit = job[BESIDE_ZEROS] if silent else (1e150 if wide_size == 8 else 1e15)
    wild[0] = loudest > limit or loudest > LOUDEST * quietest


@plain
def _frames(numbers, size, item, wide, wide_size):
    job = numba.carray(numbers, (FRAMES_JOB,))
    scratch = room_for(job, (job[KEPT] + QUIET) * size + 64)
    if scratch == 0:
        return
    inner, span, count = scratch + -scratch % 64, pair(), job[COUNT]
    more = next_tasks(job, span, True)
    while more:
        for task in range(peek(span, np.int64(0)), peek(span + 8, np.int64(0))):
            _frame(job, task // count, task % count, inner, size, item, wide, wide_size)
        more = next_tasks(job, span, False)
    release(scratch)


@plain
def _output(job, row, f, size, item, wide, wide_size):
    """Write the outputs of one frame of one row (b, o)."""
    frame_at = job[FROM] + (row * job[OUT_COUNT] + f) * job[OUT_SIZE] * wide_size
    frame = numba.carray(pointer(frame_at, wide), (job[OUT_SIZE],))
    channels, stride, step = job[OUT_CHANNELS], job[OUT_STRIDE], job[OUT_STEP]
    start = (job[OUT_FIRST] + f) * step  # among outputs of stride 1
    i0 = (start + stride - 1) // stride
    i1 = min((start + step - 1) // stride + 1, job[OUTPUTS])
    b, o = row // channels, row % channels
    to = job[TO] + b * job[TO_ROW] + (o * job[OUTPUTS] + i0) * size
    if i1 <= i0:
        return
    y = numba.carray(pointer(to, item), (i1 - i0,))
    bias = wide
    if job[BIAS]:
        bias = wide + numba.carray(pointer(job[BIAS] + o * size, item), (1,))[0]
    begin = i0 * stride - start
    if stride == 1:
        for i in range(i1 - i0):
            y[i] = frame[begin + i] + bias
    else:
        for i in range(i1 - i0):
            y[i] = frame[begin + i * stride] + bias


@plain
def _outputs(numbers, size, item, wide, wide_size):
    job = numba.carray(numbers, (OUTPUTS_JOB,))
    span, count = pair(), job[OUT_COUNT]
    more = next_tasks(job, span, True)
    while more:
        for task in range(peek(span, np.int64(0)), peek(span + 8, np.int64(0))):
            _output(job, task // count, task % count, size, item, wide, wide_size)
        more = next_tasks(job, span, False)


def filters_32_32(numbers):
    _filters(numbers, 4, np.float32(0), np.float32(0), 4)


def filters_32_64(numbers):
    _filters(numbers, 4, np.float32(0), np.float64(0), 8)


def filters_64_64(numbers):
    _filters(numbers, 8, np.float64(0), np.float64(0), 8)


def frames_32_32(numbers):
    _frames(numbers, 4, np.float32(0), np.float32(0), 4)


def frames_32_64(numbers):
    _frames(numbers, 4, np.float32(0), np.float64(0), 8)


def frames_64_64(numbers):
    _frames(numbers, 8, np.float64(0), np.float64(0), 8)


def outputs_32_32(numbers):
    _outputs(numbers, 4, np.float32(0), np.float32(0), 4)


def outputs_32_64(numbers):
    _outputs(numbers, 4, np.float32(0), np.float64(0), 8)


def outputs_64_64(numbers):
    _outputs(numbers, 8, np.float64(0), np.float64(0), 8)
