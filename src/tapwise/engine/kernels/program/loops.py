"""The loops of programs, compiled by Numba at first use: instructions, block by block of rows.

# a sequence   groups, one after the other
# a group      tasks of (signal of the batch, block of rows, share of the columns)
# a task       of a recurrence: a share of the units of a row, or of the signals; else
#              every instruction of the group on rows [r0, r1); scratch holds what no other group reads
"""

from __future__ import annotations

import numba
import numpy as np

from tapwise.engine.kernels.loops.jobs import allocate_for, jit, next_tasks
from tapwise.engine.kernels.loops.memory import call_loop, load, pointer_at, release, size_of, start_tasks, two_integers
from tapwise.engine.kernels.program import record
from tapwise.engine.kernels.program.copies import edges, keep, largest, transpose, zeros
from tapwise.engine.kernels.program.maps import apply_map
from tapwise.engine.kernels.program.matrices import by_matrices, transposed_by_matrices
from tapwise.engine.kernels.program.normalising import finish, layer_norm, moments
from tapwise.engine.kernels.program.packing import LANES, WIDEST
from tapwise.engine.kernels.program.products import depthwise, few_outputs, few_transposed, grouped_product, transposed
from tapwise.engine.kernels.program.recurrences import recurrence
from tapwise.engine.kernels.program.winograd import winograd, winograd_transposed

_JOB, _SEQUENCE = np.dtype(record.GroupJob), np.dtype(record.SequenceJob)
_INSTRUCTION = record.INSTRUCTION
# Columns of the widest panel, by which shares are cut.
_PANEL = WIDEST * LANES


@jit
def _base(job, space, scratch):
    if space == record.ARENA:
        return job.arena
    if space >= record.STATE:
        return job.state + load(job.offsets + 8 * (space - record.STATE), np.int64(0))
    return scratch if space == record.SCRATCH else 0


@jit
def _place(job, address, row_bytes, batch_bytes, space, batch, row, r0, scratch):
    if space == record.SCRATCH:
        return scratch + address + (row - r0) * row_bytes
    return _base(job, space, scratch) + address + batch * batch_bytes + row * row_bytes


@jit
def _at_ends(job, i, block, r1, batch, item):
    """Rows of padding: at the first block of a signal, or at its last."""
    y = _base(job, i.y_space, 0) + i.y + batch * i.y_batch
    if i.code == record.EDGES:
        edges(i, y, item)
    elif (i.third == 0 and block == 0) or (i.third == 1 and r1 == job.last):
        zeros(i, y, item)


@jit
def _once(job, i, batch, item):
    """What is done once for each signal of the batch."""
    x = _base(job, i.x_space, 0) + i.x + batch * i.x_batch
    y = _base(job, i.y_space, 0) + i.y + batch * i.y_batch
    if i.code == record.FINISH:
        finish(i, x, y, item)
    else:
        keep(i, x, y, job.offsets + 8 * (i.x_space - record.STATE), batch == job.end // job.blocks - 1)


@jit
def _block(job, instructions, batch, block, share, scratch, item):
    r0 = job.first + block * job.block
    r1 = min(r0 + job.block, job.last)
    count, size = r1 - r0, size_of(item)
    for n in range(job.count):
        i = instructions[n]
        code, c0, c1 = i.code, 0, i.columns
        if code == record.ZEROS or code == record.EDGES:
            if share == 0:
                _at_ends(job, i, block, r1, batch, item)
            continue
        if code == record.FINISH or code == record.KEEP:
            _once(job, i, batch, item)
            continue
        if job.shares > 1:
            each = (i.columns + _PANEL - 1) // _PANEL // job.shares * _PANEL
            c0 = share * each
            c1 = i.columns if share == job.shares - 1 else c0 + each
        y = _place(job, i.y, i.y_row, i.y_batch, i.y_space, batch, r0, r0, scratch)
        if code >= record.MAP or code == record.NORMALISE:
            x = _place(job, i.x, i.x_row, i.x_batch, i.x_space, batch, r0, r0, scratch)
            z, third, at, number = 0, i.third, c0 * size, code - record.MAP
            if code == record.NORMALISE:  # by what a table says of this signal, the same for all rows
                z = _base(job, i.z_space, 0) + i.z + batch * i.z_batch
                third, number = z + i.columns * size, record.AFFINE - record.MAP
            else:
                z = _place(job, i.z, i.z_row, i.z_batch, i.z_space, batch, r0, r0, scratch)
            z_row = 0 if code == record.NORMALISE else i.z_row
            apply_map(
                number, x + at, i.x_row, z + at, z_row, third + at, y + at, i.y_row, c1 - c0, count, i.p, i.q, item
            )
        elif code == record.TRANSPOSED:
            x = _place(job, i.x, i.x_row, i.x_batch, i.x_space, batch, 0, 0, scratch)
            transposed(i, x, y, r0, r1, c0, c1, item)
        elif code == record.FEW_TRANSPOSED:
            x = _place(job, i.x, i.x_row, i.x_batch, i.x_space, batch, 0, 0, scratch)
            few_transposed(i, x, y, r0, r1, scratch + i.z, item)
        elif code == record.WINOGRAD_TRANSPOSED:
            x = _place(job, i.x, i.x_row, i.x_batch, i.x_space, batch, 0, 0, scratch)
            winograd_transposed(i, x, y, r0, r1, c0, c1, job.last, scratch + i.z, item)
        elif code == record.MATRICES_TRANSPOSED:
            x = _place(job, i.x, i.x_row, i.x_batch, i.x_space, batch, 0, 0, scratch)
            transposed_by_matrices(i, x, y, r0, r1, c0, c1, scratch + i.z, item)
        elif code == record.LSTM or code == record.GRU:
            x = _place(job, i.x, i.x_row, i.x_batch, i.x_space, batch, r0, r0, scratch)
            z = _place(job, i.z, i.z_row, i.z_batch, i.z_space, batch, r0, r0, scratch)
            recurrence(i, x, z, y, count, share, job.shares, job.serial, scratch + i.third, item)
        else:
            x = _place(job, i.x, i.x_row, i.x_batch, i.x_space, batch, r0 * i.stride, r0 * i.stride, scratch)
            if code == record.PRODUCT:
                grouped_product(i, x, y, count, c0, c1, item)
            elif code == record.WINOGRAD:
                winograd(i, x, y, r0, r1, c0, c1, job.last, scratch + i.z, item)
            elif code == record.MATRICES:
                by_matrices(i, x, y, count, c0, c1, scratch + i.z)
            elif code == record.DEPTHWISE:
                depthwise(i, x, y, count, item)
            elif code == record.FEW_OUTPUTS:
                few_outputs(i, x, y, count, item)
            elif code == record.LAYER_NORM:
                layer_norm(i, x, y, count, item)
            elif code == record.LARGEST:
                largest(i, x, y, count, item)
            elif code == record.MOMENTS:
                place = _base(job, i.y_space, 0) + i.y + batch * i.y_batch
                moments(i, x, place + block * i.groups * 24, count, item)
            elif code == record.IMPORT:
                transpose(x, i.x_row, i.tap, y, i.y_row, size, i.columns, count, item)
            elif code == record.EXPORT:
                transpose(x, i.x_row, size, y, i.y_row, i.tap, i.columns, count, item)


@jit
def program(pointer, item):
    """The tasks of a group."""
    job = numba.carray(pointer, (1,), _JOB)[0]
    memory = allocate_for(job, job.scratch + 64)
    if memory == 0:
        return
    scratch = memory + -memory % 64
    instructions = numba.carray(pointer_at(job.instructions), (job.count,), _INSTRUCTION)
    span, each = two_integers(), job.blocks * job.shares
    more = next_tasks(job, span, True)
    while more:
        for task in range(load(span, np.int64(0)), load(span + 8, np.int64(0))):
            within = task % each
            _block(job, instructions, task // each, within // job.shares, within % job.shares, scratch, item)
        more = next_tasks(job, span, False)
    release(memory)


@jit
def _run_tasks(job, group, address):
    tasks = group.end
    if job.start != 0 and job.threads > 1 and tasks > 1 and group.parallel:
        group.next_tasks, group.end_tasks = job.pool_next, job.pool_end
        turn = max(1, tasks // (job.threads * 8))
        start_tasks(job.start, job.loop, address, job.threads, tasks, turn)
    else:
        group.next_tasks, group.end_tasks = 0, 0
        call_loop(job.loop, address)


@jit
def sequence(pointer, item):
    """Groups, one after the other, those that are large enough by all threads."""
    job = numba.carray(pointer, (1,), _SEQUENCE)[0]
    zero = np.int64(0)
    for n in range(job.count):
        address = load(job.jobs + 8 * n, zero)
        group = numba.carray(pointer_at(address), (1,), _JOB)[0]
        group.arena, group.state, group.offsets, group.failed = job.arena, job.state, job.offsets, 0
        first, last = group.first, group.last
        if group.serial:
            for row in range(first, last):
                group.first, group.last = row, row + 1
                _run_tasks(job, group, address)
                if group.failed:
                    break
            group.first, group.last = first, last
        else:
            _run_tasks(job, group, address)
        if group.failed:
            job.failed = 1
            return
