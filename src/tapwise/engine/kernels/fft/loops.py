"""The loops around the transforms of the fft kernel: inputs to frames, and frames to outputs."""

from __future__ import annotations

import numba
import numpy as np

from tapwise.engine.kernels.fft.records import FiltersJob, FramesJob, OutputsJob
from tapwise.engine.kernels.loops.jobs import allocate_for, gather, jit, next_tasks
from tapwise.engine.kernels.loops.memory import array_at, load, release, size_of, two_integers
from tapwise.engine.kernels.loops.vectors import peak

# Samples over whose peak a frame's quietest part is found, and how much louder its loudest may be.
QUIET = 32
LOUDEST = 1e7
# Magnitudes that the transforms' products may reach, in float64 and in float32.
_RANGE, _RANGE32 = 1e150, 1e15

_FILTERS, _FRAMES, _OUTPUTS = np.dtype(FiltersJob), np.dtype(FramesJob), np.dtype(OutputsJob)
_INT = np.int64(0)


@jit
def _mirror(frame, samples, step):
    """Write sample q to time -q * step of the frame, whose spectrum is then the conjugate one."""
    length = len(frame)
    for q in range(length):
        frame[q] = 0
    frame[0] = samples[0]
    for q in range(1, len(samples)):
        frame[length - q * step] = samples[q]


@jit
def filters(pointer, item, frame_item):
    job = numba.carray(pointer, (1,), _FILTERS)[0]
    span, taps, length = two_integers(), job.taps, job.size
    more = next_tasks(job, span, True)
    while more:
        for task in range(load(span, _INT), load(span + 8, _INT)):
            taps_at = job.filters + task * taps * size_of(item)
            frame_at = job.frames + task * length * size_of(frame_item)
            frame = numba.carray(array_at(frame_at, frame_item), (length,))
            _mirror(frame, numba.carray(array_at(taps_at, item), (taps,)), job.dilation)
        more = next_tasks(job, span, False)


@jit
def _frame(job, row, f, scratch, item, frame_item):
    """Write one frame of one channel, and whether it is wild."""
    count, length, size = job.samples, job.size, size_of(item)
    b, c = row // job.channels, row % job.channels
    first = (job.first_frame + f) * job.step - job.left
    x = job.x + b * job.x_row + c * job.x_channel
    gather(job, x, first, count, count, 1, count, scratch, item)
    padded = count + -count % QUIET
    samples = numba.carray(array_at(scratch, item), (padded,))
    for q in range(count, padded):
        samples[q] = 0
    place = row * job.n_frames + f
    frame_at = job.frames + place * length * size_of(frame_item)
    frame = numba.carray(array_at(frame_at, frame_item), (length,))
    if job.is_mirrored:
        _mirror(frame, samples[:count], 1)
    else:
        for q in range(count):
            frame[q] = samples[q]
        for q in range(count, length):
            frame[q] = 0
    loudest, quietest, is_silent = 0.0, np.inf, False
    for q in range(0, count, QUIET):
        part = peak(scratch + q * size, QUIET, item)
        loudest = max(loudest, part)
        if part > 0:
            quietest = min(quietest, part)
        else:
            is_silent = True
    limit = _RANGE if size_of(frame_item) == 8 else _RANGE32
    if is_silent:
        limit = job.loudest_beside_silence
    is_wild = numba.carray(array_at(job.is_wild + place, np.uint8(0)), (1,))
    is_wild[0] = loudest > limit or loudest > LOUDEST * quietest


@jit
def frames(pointer, item, frame_item):
    job = numba.carray(pointer, (1,), _FRAMES)[0]
    memory = allocate_for(job, (job.samples + QUIET) * size_of(item) + 64)
    if memory == 0:
        return
    scratch, span = memory + -memory % 64, two_integers()
    more = next_tasks(job, span, True)
    while more:
        for task in range(load(span, _INT), load(span + 8, _INT)):
            _frame(job, task // job.n_frames, task % job.n_frames, scratch, item, frame_item)
        more = next_tasks(job, span, False)
    release(memory)


@jit
def _output(job, channel, f, item, frame_item):
    """Write the outputs of one frame of one channel."""
    frame_at = job.frames + (channel * job.n_frames + f) * job.size * size_of(frame_item)
    frame = numba.carray(array_at(frame_at, frame_item), (job.size,))
    stride, start = job.stride, (job.first_frame + f) * job.step  # among outputs of stride 1
    i0 = (start + stride - 1) // stride
    i1 = min((start + job.step - 1) // stride + 1, job.outputs)
    if i1 <= i0:
        return
    y_at = job.y + (channel * job.outputs + i0) * size_of(item)
    y = numba.carray(array_at(y_at, item), (i1 - i0,))
    bias = frame_item  # zero
    if job.bias:
        bias = frame_item + load(job.bias + channel * size_of(item), item)
    begin = i0 * stride - start
    if stride == 1:
        for i in range(i1 - i0):
            y[i] = frame[begin + i] + bias
    else:
        for i in range(i1 - i0):
            y[i] = frame[begin + i * stride] + bias


@jit
def outputs(pointer, item, frame_item):
    job = numba.carray(pointer, (1,), _OUTPUTS)[0]
    span, count = two_integers(), job.n_frames
    more = next_tasks(job, span, True)
    while more:
        for task in range(load(span, _INT), load(span + 8, _INT)):
            _output(job, task // count, task % count, item, frame_item)
        more = next_tasks(job, span, False)
