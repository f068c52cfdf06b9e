"""Jobs in compiled loops: tasks from the pool, scratch memory, and inputs gathered with their padding."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from tapwise.engine.kernels.loops.memory import allocate, copy, end_tasks, fetch_tasks, load, size_of, store

OPTIONS: dict[str, Any] = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}
jit = numba.njit(**OPTIONS)


@jit
def next_tasks(job, span, is_first):
    """Whether this thread has tasks to do; their range is then written to ``span``.

    With a pool they are fetched from it; without one, all of them are done the first time.
    """
    if job.next_tasks:
        if fetch_tasks(job.next_tasks, span, span + 8):
            return True
        end_tasks(job.end_tasks)
        return False
    store(span, job.begin)
    store(span + 8, job.end)
    return is_first


@jit
def allocate_for(job, size):
    """The address of ``size`` bytes, until released; 0 where there is no memory, and the job has failed."""
    address = allocate(size)
    if address == 0:
        job.failed = 1
        if job.next_tasks:
            end_tasks(job.end_tasks)
    return address


@jit
def read(job, x, position, item):
    """The input at a position of the channel at ``x``, from the padding where it lies outside."""
    length = job.length
    if position < 0 or position >= length:
        place = position + job.left if position < 0 else position - length + job.left
        if place >= job.n_sources:
            return item  # zero
        position = load(job.sources + place * 8, np.int64(0))
    return load(x + position * size_of(item), item)


@jit
def fill(job, x, target, start, q0, q1, item):
    """Write the positions start + q*stride outside of the channel at ``x`` to ``target + q``."""
    size = size_of(item)
    if job.n_sources == 0:
        for q in range(q0, q1):
            store(target + q * size, item)  # zero
        return
    for q in range(q0, q1):
        store(target + q * size, read(job, x, start + q * job.stride, item))


@jit
def gather(job, x, first, length, window, step, phase_length, target, item):
    """Write the positions [first, first + length) of the channel at ``x`` to ``target``, padding included.

    # stride 3:  x       a b c d e f g h ...
    #            target  a d g ... | b e h ... | c f ...     a phase each, ``phase_length`` apart: the
    #                                                        samples of a tap lie side by side
    # Only phases that taps read are written: every ``step``-th of the first ``window`` positions.
    """
    stride, size = job.stride, size_of(item)
    for phase in range(0, min(stride, window), step):
        count = (length - phase + stride - 1) // stride
        start = first + phase
        # Positions start + q*stride lie inside x for q in [q0, q1).
        q0 = min(count, max(0, (-start + stride - 1) // stride))
        q1 = min(count, max(q0, (job.length - start + stride - 1) // stride))
        row = target + phase * phase_length * size
        fill(job, x, row, start, 0, q0, item)
        source = x + (start + q0 * stride) * size
        if stride == 1:
            copy(row + q0 * size, source, (q1 - q0) * size)
        else:
            for q in range(q1 - q0):
                store(row + (q0 + q) * size, load(source + q * stride * size, item))
        fill(job, x, row, start, q1, count, item)
