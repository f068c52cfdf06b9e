"""The loop of programs, compiled by Numba at first use: instructions, block by block of rows.

# a job        tasks of (signal of the batch, block of rows)
# a task       every instruction of the group on rows [r0, r1); scratch holds what no other group reads
"""

from __future__ import annotations

import math

import numba
import numpy as np

from tapwise.engine.kernels.loops.jobs import allocate_for, jit, next_tasks
from tapwise.engine.kernels.loops.memory import (
    call_loop,
    copy,
    load,
    move,
    pointer_at,
    release,
    size_of,
    start_tasks,
    store,
    two_integers,
)
from tapwise.engine.kernels.loops.vectors import VECTOR
from tapwise.engine.kernels.program import record
from tapwise.engine.kernels.program.maps import make_map, sum_of_differences
from tapwise.engine.kernels.program.names import MAPS
from tapwise.engine.kernels.program.packing import WIDEST
from tapwise.engine.kernels.program.tiles import make_depthwise, make_dot, make_product

_JOB, _SEQUENCE = np.dtype(record.GroupJob), np.dtype(record.SequenceJob)
_INSTRUCTION = record.INSTRUCTION
IS_AVX512 = VECTOR == 64
# Columns of the widest panel, by which shares are cut.
PANEL = WIDEST * VECTOR // 4


def _make_panel(vectors, sizes):
    """All rows of one panel, of ``vectors`` vectors of columns, by tiles of ``sizes`` rows."""
    tiles = [make_product(n, vectors) for n in sizes]
    full, half, pair, one = tiles
    n_full, n_half, _, _ = sizes

    @jit
    def panel(x, x_row, taps, tap, inputs, weight, bias, y, y_row, columns, count, item):
        r = 0
        while r + n_full <= count:
            full(x + r * x_row, x_row, taps, tap, inputs, weight, bias, y + r * y_row, y_row, columns, item)
            r += n_full
        if r < count and count >= n_full and count - r > n_half:
            # The last tile ends with the rows: some are computed twice, with the same result.
            r = count - n_full
            full(x + r * x_row, x_row, taps, tap, inputs, weight, bias, y + r * y_row, y_row, columns, item)
            return
        if r + n_half <= count:
            half(x + r * x_row, x_row, taps, tap, inputs, weight, bias, y + r * y_row, y_row, columns, item)
            r += n_half
        while r + 2 <= count:
            pair(x + r * x_row, x_row, taps, tap, inputs, weight, bias, y + r * y_row, y_row, columns, item)
            r += 2
        if r < count:
            one(x + r * x_row, x_row, taps, tap, inputs, weight, bias, y + r * y_row, y_row, columns, item)

    return panel


_SIZES = {4: (6, 4, 2, 1), 3: (8, 4, 2, 1), 2: (12, 6, 2, 1), 1: (12, 6, 2, 1)}
if not IS_AVX512:
    _SIZES = {2: (6, 4, 2, 1), 1: (8, 4, 2, 1)}
_panel_1, _panel_2 = _make_panel(1, _SIZES[1]), _make_panel(2, _SIZES[2])
_panel_3, _panel_4 = (_make_panel(n, _SIZES[n]) if IS_AVX512 else None for n in (3, 4))
_depthwise_8, _depthwise_1 = make_depthwise(8), make_depthwise(1)
_dot_8, _dot_1 = make_dot(8), make_dot(1)


@jit
def _panel_vectors(vectors):
    """The vectors of the next panel, of ``vectors`` that are left: see ``packing.panels``."""
    if vectors > WIDEST and vectors < 2 * WIDEST and vectors - WIDEST == 1 and WIDEST > 2:
        return WIDEST - 1
    return min(vectors, WIDEST)


@jit
def _product(x, x_row, taps, tap, inputs, weight, bias, y, y_row, columns, count, item):
    """``count`` rows of a product with a packed weight, panel by panel."""
    size = size_of(item)
    lanes = VECTOR // size
    vectors = (columns + lanes - 1) // lanes
    while vectors > 0:
        n = _panel_vectors(vectors)
        own = min(columns, n * lanes) - (n - 1) * lanes
        if n == 1:
            _panel_1(x, x_row, taps, tap, inputs, weight, bias, y, y_row, own, count, item)
        elif n == 2:
            _panel_2(x, x_row, taps, tap, inputs, weight, bias, y, y_row, own, count, item)
        elif IS_AVX512 and n == 3:
            _panel_3(x, x_row, taps, tap, inputs, weight, bias, y, y_row, own, count, item)
        elif IS_AVX512:
            _panel_4(x, x_row, taps, tap, inputs, weight, bias, y, y_row, own, count, item)
        weight += taps * inputs * n * VECTOR
        bias += n * VECTOR
        y += n * VECTOR
        columns -= n * lanes
        vectors -= n


@jit
def _grouped_product(i, x, y, count, c0, c1, item):
    """The columns [c0, c1), full panels but for the last; of several groups, all of them."""
    size = size_of(item)
    lanes = VECTOR // size
    if i.groups == 1:
        weight = i.weight + c0 * i.taps * i.inputs * size
        y, bias, x_row = y + c0 * size, i.bias + c0 * size, i.x_row * i.stride
        _product(x, x_row, i.taps, i.tap, i.inputs, weight, bias, y, i.y_row, c1 - c0, count, item)
        return
    columns = i.columns // i.groups
    padded = (columns + lanes - 1) // lanes * lanes
    for g in range(i.groups):
        weight = i.weight + g * i.taps * i.inputs * padded * size
        bias = i.bias + g * padded * size
        x_group, y_group = x + g * i.inputs * size, y + g * columns * size
        _product(
            x_group, i.x_row * i.stride, i.taps, i.tap, i.inputs, weight, bias, y_group, i.y_row, columns, count, item
        )


@jit
def _depthwise(i, x, y, count, item):
    size = size_of(item)
    lanes = VECTOR // size
    padded = (i.columns + lanes - 1) // lanes * lanes * size
    x_row = i.x_row * i.stride
    c = 0
    while c < i.columns:
        at, own = c * size, min(i.columns - c, lanes)
        r = 0
        while r + 8 <= count:
            _depthwise_8(
                x + at + r * x_row, x_row, i.taps, i.tap, i.weight + at, padded, i.bias + at,
                y + at + r * i.y_row, i.y_row, own, item,
            )  # fmt: skip
            r += 8
        while r < count:
            _depthwise_1(
                x + at + r * x_row, x_row, i.taps, i.tap, i.weight + at, padded, i.bias + at,
                y + at + r * i.y_row, i.y_row, own, item,
            )  # fmt: skip
            r += 1
        c += lanes


@jit
def _few_outputs(i, x, y, count, item):
    size, x_row = size_of(item), i.x_row * i.stride
    for o in range(i.columns):
        weight, bias = i.weight + o * i.taps * i.inputs * size, i.bias + o * size
        r = 0
        while r + 8 <= count:
            _dot_8(
                x + r * x_row, x_row, i.taps, i.tap, i.inputs, weight, bias,
                y + o * size + r * i.y_row, i.y_row, item,
            )  # fmt: skip
            r += 8
        while r < count:
            _dot_1(
                x + r * x_row, x_row, i.taps, i.tap, i.inputs, weight, bias,
                y + o * size + r * i.y_row, i.y_row, item,
            )  # fmt: skip
            r += 1


@jit
def _transposed(i, x, y, r0, r1, c0, c1, item):
    """Rows [r0, r1) of a transposed convolution; ``x`` is its first input's row, ``shift`` what is cut at the left.

    # stride 2, K 4    output j + shift = 2m      reads inputs m-1, m with taps 2, 0
    #                  output j + shift = 2m + 1  reads inputs m-1, m with taps 3, 1
    """
    size = size_of(item)
    lanes = VECTOR // size
    padded = (i.columns + lanes - 1) // lanes * lanes
    weight = i.weight
    for phase in range(i.stride):
        taps = (i.taps - phase + i.stride - 1) // i.stride
        first = r0 + (phase - (r0 + i.shift)) % i.stride
        count = (r1 - first + i.stride - 1) // i.stride
        if count > 0:
            m = (first + i.shift) // i.stride
            _product(
                x + (m - taps + 1) * i.x_row, i.x_row, taps, i.x_row, i.inputs,
                weight + c0 * taps * i.inputs * size, i.bias + c0 * size,
                y + (first - r0) * i.y_row + c0 * size, i.y_row * i.stride, c1 - c0, count, item,
            )  # fmt: skip
        weight += taps * i.inputs * padded * size


_maps = [make_map(name) for name in MAPS]
_copy, _add, _larger = (_maps[MAPS.index(name)] for name in ("copy", "add", "larger"))
_normalise = _maps[MAPS.index("normalise")]


def _make_dispatch():
    """A function that does a map by its number: a chain of comparisons, written out."""
    lines = ["def dispatch(n, x, x_row, z, z_row, w, y, y_row, columns, count, p, q, item):"]
    for n in range(len(MAPS)):
        lines += [
            f"    {'if' if n == 0 else 'elif'} n == {n}:",
            f"        map_{n}(x, x_row, z, z_row, w, y, y_row, columns, count, p, q, item)",
        ]
    names = {f"map_{n}": function for n, function in enumerate(_maps)}
    exec("\n".join(lines), names)  # Numba compiles text as it compiles functions
    return jit(names["dispatch"])


_dispatch = _make_dispatch()


@jit
def _layer_norm(i, x, y, count, item):
    for _ in range(count):
        mean = sum_of_differences(x, i.columns, 0.0, 1, item) / i.columns
        variance = sum_of_differences(x, i.columns, mean, 2, item) / i.columns
        scale = 1.0 / math.sqrt(variance + i.p)
        _normalise(x, i.x_row, i.weight, 0, i.bias, y, i.y_row, i.columns, 1, mean, scale, item)
        x += i.x_row
        y += i.y_row


@jit
def _largest(i, x, y, count, item):
    """Max pooling: the largest number of each window of rows."""
    for _ in range(count):
        _copy(x, 0, x, 0, x, y, 0, i.columns, 1, 0.0, 0.0, item)
        for k in range(1, i.taps):
            _larger(y, 0, x + k * i.tap, 0, x, y, 0, i.columns, 1, 0.0, 0.0, item)
        x += i.x_row * i.stride
        y += i.y_row


@jit
def _moments(i, x, place, count, item):
    """The mean of a block of rows, by group of channels, and the sum of squares about it: (count, mean, sum)."""
    size = size_of(item)
    columns = i.columns // i.groups
    for g in range(i.groups):
        total, at = 0.0, x + g * columns * size
        for r in range(count):
            total += sum_of_differences(at + r * i.x_row, columns, 0.0, 1, item)
        mean, squares = total / (count * columns), 0.0
        for r in range(count):
            squares += sum_of_differences(at + r * i.x_row, columns, mean, 2, item)
        store(place + g * 24, np.float64(count * columns))
        store(place + g * 24 + 8, mean)
        store(place + g * 24 + 16, squares)


@jit
def _finish(i, x, y, item):
    """From the moments of all blocks, by channel: what a normalisation multiplies by, then what it adds."""
    size, zero = size_of(item), np.float64(0)
    columns = i.columns // i.groups
    for g in range(i.groups):
        n, mean, squares = 0.0, 0.0, 0.0
        for block in range(i.count):
            place = x + (block * i.groups + g) * 24
            m, other, more = load(place, zero), load(place + 8, zero), load(place + 16, zero)
            difference = other - mean
            squares += more + difference * difference * n * m / (n + m)
            mean += difference * m / (n + m)
            n += m
        inverse = 1.0 / math.sqrt(squares / n + i.p)
        for c in range(g * columns, (g + 1) * columns):
            scale = inverse * load(i.weight + c * size, item)
            store(y + c * size, np.float32(scale))
            store(y + (i.columns + c) * size, np.float32(load(i.bias + c * size, item) - mean * scale))


@jit
def _import(i, x, y, count, item):
    """Rows of a tensor whose numbers lie ``tap`` bytes from channel to channel."""
    size = size_of(item)
    if i.tap == size and i.columns > 1:
        for _ in range(count):
            copy(y, x, i.columns * size)
            x += i.x_row
            y += i.y_row
        return
    for r0 in range(0, count, 16):
        r1 = min(r0 + 16, count)
        for c in range(i.columns):
            source, target = x + c * i.tap, y + c * size
            for r in range(r0, r1):
                store(target + r * i.y_row, load(source + r * i.x_row, item))


@jit
def _export(i, x, y, count, item):
    """Rows written to a tensor whose numbers lie ``tap`` bytes from channel to channel."""
    size = size_of(item)
    if i.tap == size and i.columns > 1:
        for _ in range(count):
            copy(y, x, i.columns * size)
            x += i.x_row
            y += i.y_row
        return
    for r0 in range(0, count, 16):
        r1 = min(r0 + 16, count)
        for c in range(i.columns):
            source, target = x + c * size, y + c * i.tap
            for r in range(r0, r1):
                store(target + r * i.y_row, load(source + r * i.x_row, item))


@jit
def _zeros(i, y, item):
    """Rows of padding, before the first of a sequence or after its last."""
    size = size_of(item)
    for _ in range(i.count):
        for c in range(i.columns):
            store(y + c * size, np.float32(i.p))
        y += i.y_row


@jit
def _edges(i, y, item):
    """Rows of padding that are copies of others: pairs of (row, the row that it copies)."""
    zero = np.int64(0)
    for n in range(i.count):
        target, source = load(i.third + n * 16, zero), load(i.third + n * 16 + 8, zero)
        copy(y + target * i.y_row, y + source * i.y_row, i.columns * size_of(item))


@jit
def _keep(i, x, y):
    """Rows moved to where the next step expects them."""
    move(y, x, i.count * i.x_row)


@jit
def _base(job, space, scratch):
    if space == record.ARENA:
        return job.arena
    if space == record.STATE:
        return job.state
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
        _edges(i, y, item)
    elif (i.third == 0 and block == 0) or (i.third == 1 and r1 == job.last):
        _zeros(i, y, item)


@jit
def _once(job, i, batch, item):
    """What is done once for each signal of the batch."""
    x = _base(job, i.x_space, 0) + i.x + batch * i.x_batch
    y = _base(job, i.y_space, 0) + i.y + batch * i.y_batch
    if i.code == record.FINISH:
        _finish(i, x, y, item)
    else:
        _keep(i, x, y)


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
            each = (i.columns + PANEL - 1) // PANEL // job.shares * PANEL
            c0 = share * each
            c1 = i.columns if share == job.shares - 1 else c0 + each
        y = _place(job, i.y, i.y_row, i.y_batch, i.y_space, batch, r0, r0, scratch)
        if code >= record.MAP:
            x = _place(job, i.x, i.x_row, i.x_batch, i.x_space, batch, r0, r0, scratch)
            z = _place(job, i.z, i.z_row, i.z_batch, i.z_space, batch, r0, r0, scratch)
            at = c0 * size
            _dispatch(
                code - record.MAP, x + at, i.x_row, z + at, i.z_row, i.third + at, y + at, i.y_row, c1 - c0, count,
                i.p, i.q, item,
            )  # fmt: skip
        elif code == record.TRANSPOSED:
            x = _place(job, i.x, i.x_row, i.x_batch, i.x_space, batch, 0, 0, scratch)
            _transposed(i, x, y, r0, r1, c0, c1, item)
        elif code == record.NORMALISE:
            x = _place(job, i.x, i.x_row, i.x_batch, i.x_space, batch, r0, r0, scratch)
            z = _base(job, i.z_space, 0) + i.z + batch * i.z_batch
            _dispatch(
                record.AFFINE - record.MAP, x, i.x_row, z, 0, z + i.columns * size, y, i.y_row,
                i.columns, count, 0.0, 0.0, item,
            )  # fmt: skip
        else:
            x = _place(job, i.x, i.x_row, i.x_batch, i.x_space, batch, r0 * i.stride, r0 * i.stride, scratch)
            if code == record.PRODUCT:
                _grouped_product(i, x, y, count, c0, c1, item)
            elif code == record.DEPTHWISE:
                _depthwise(i, x, y, count, item)
            elif code == record.FEW_OUTPUTS:
                _few_outputs(i, x, y, count, item)
            elif code == record.LAYER_NORM:
                _layer_norm(i, x, y, count, item)
            elif code == record.LARGEST:
                _largest(i, x, y, count, item)
            elif code == record.MOMENTS:
                place = _base(job, i.y_space, 0) + i.y + batch * i.y_batch
                _moments(i, x, place + block * i.groups * 24, count, item)
            elif code == record.IMPORT:
                _import(i, x, y, count, item)
            elif code == record.EXPORT:
                _export(i, x, y, count, item)


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
def sequence(pointer, item):
    """Groups, one after the other, those that are large enough by all threads."""
    job = numba.carray(pointer, (1,), _SEQUENCE)[0]
    zero = np.int64(0)
    for n in range(job.count):
        address = load(job.jobs + 8 * n, zero)
        group = numba.carray(pointer_at(address), (1,), _JOB)[0]
        group.arena, group.state = job.arena, job.state
        tasks = group.end
        if job.start != 0 and job.threads > 1 and tasks > 1 and group.parallel:
            group.next_tasks, group.end_tasks = job.pool_next, job.pool_end
            turn = max(1, tasks // (job.threads * 8))
            start_tasks(job.start, job.loop, address, job.threads, tasks, turn)
        else:
            group.next_tasks, group.end_tasks = 0, 0
            call_loop(job.loop, address)
        if group.failed:
            job.failed = 1
            return
