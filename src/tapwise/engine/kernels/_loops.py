"""What the compiled loops share: how inputs are gathered, and what a job is.

A job is one row of integers, addresses included, so that a compiled body is entered with one number:
by the calling thread, or by all threads of the pool, which fetch tasks until none is left.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from tapwise.engine.kernels._addresses import (
    allocate,
    copy,
    end_tasks,
    fetch_tasks,
    peek,
    poke,
)
from tapwise.engine.threads import BEGIN, END, FAILED, FINISH, HEAD, NEXT

# The numbers of a job that say where inputs lie: those of ``before``, then those of ``x``. Strides are
# in bytes. ``threads`` writes those before them.
(
    X, X_ROW, X_CHANNEL, BEFORE, BEFORE_ROW, BEFORE_CHANNEL, BEFORE_LENGTH, LENGTH, LEFT, STRIDE,
    SOURCES, SOURCES_END,
) = range(HEAD, HEAD + 12)  # fmt: skip
INPUTS = HEAD + 12

OPTIONS: dict[str, Any] = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}
plain = numba.njit(**OPTIONS)


@plain
def next_tasks(job, span, first):
    """Whether this thread has tasks to do; their range is then written to ``span``.

    Those that it fetches from the pool, or all, the first time, where there is none.
    """
    if job[NEXT]:
        if fetch_tasks(job[NEXT], span, span + 8):
            return True
        end_tasks(job[FINISH])
        return False
    poke(span, job[BEGIN])
    poke(span + 8, job[END])
    return first


@plain
def room_for(job, size):
    """The address of so many bytes, until released; 0 where memory is full, and the job has failed."""
    address = allocate(size)
    if address == 0:
        job[FAILED] = 1
        if job[NEXT]:
            end_tasks(job[FINISH])
    return address


@plain
def read(job, x, before, position, size, item):
    """The input at a position of one channel: of the padding, of ``before``, or of ``x``."""
    length = job[LENGTH]
    if position < 0 or position >= length:
        place = position + job[LEFT] if position < 0 else position - length + job[LEFT]
        if place >= job[SOURCES_END]:
            return item  # which is zero
        position = peek(job[SOURCES] + place * 8, np.int64(0))
    if position < job[BEFORE_LENGTH]:
        return peek(before + position * size, item)
    return peek(x + (position - job[BEFORE_LENGTH]) * size, item)


@plain
def fill(job, x, before, here, start, q0, q1, size, item):
    """Write the positions start + q*stride of one channel, those outside of x, to ``here``."""
    if job[SOURCES_END] == 0 and job[BEFORE_LENGTH] == 0:
        for q in range(q0, q1):
            poke(here + q * size, item)  # which is zero
        return
    for q in range(q0, q1):
        poke(here + q * size, read(job, x, before, start + q * job[STRIDE], size, item))


@plain
def gather(job, x, before, first, span, reach, every, phase, room, size, item):
    """Write the positions [first, first + span) of one channel to ``room``, padding filled in.

    # stride 3:  x     a b c d e f g h ...
    #            room  a d g ... | b e h ... | c f ...     ``phase`` apart, so that every tap of a
    #                                                      strided window is a contiguous run
    # Only runs that taps read are written: each ``every``-th of the first ``reach``.
    """
    stride, start_of_x = job[STRIDE], job[BEFORE_LENGTH]
    for r in range(0, min(stride, reach), every):
        many = (span - r + stride - 1) // stride
        start = first + r
        # Positions start + q*stride are those of x for q in [q0, q1).
        q0 = min(many, max(0, (start_of_x - start + stride - 1) // stride))
        q1 = min(many, max(q0, (job[LENGTH] - start + stride - 1) // stride))
        here = room + r * phase * size
        fill(job, x, before, here, start, 0, q0, size, item)
        source = x + (start + q0 * stride - start_of_x) * size
        if stride == 1:
            copy(here + q0 * size, source, (q1 - q0) * size)
        else:
            for q in range(q1 - q0):
                poke(here + (q0 + q) * size, peek(source + q * stride * size, item))
        fill(job, x, before, here, start, q1, many, size, item)
