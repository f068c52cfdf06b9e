"""Winograd's filtering as an instruction: chunks with outputs that aren't finite are computed anew by products."""

from __future__ import annotations

from tapwise.engine.kernels.loops.jobs import jit
from tapwise.engine.kernels.loops.memory import load, size_of
from tapwise.engine.kernels.loops.vectors import VECTOR
from tapwise.engine.kernels.program.products import grouped_product, product
from tapwise.engine.kernels.winograd.filtering import Filter, filtered, sums_of_tiles, tiles_in, transform_rows
from tapwise.engine.kernels.winograd.layout import OUTPUTS, segments_of, taps_of, unstrided

_segments, _taps, _unstrided = jit(segments_of), jit(taps_of), jit(unstrided)


@jit
def _filter_of(i, taps, stride):
    """The taps of a filter of stride 1, and its points and segments."""
    _, own = _unstrided(i.inputs, taps, stride)
    return own, OUTPUTS + _taps(own) - 1, _segments(own)


@jit
def winograd(i, x, y, r0, r1, c0, c1, last, memory, item):
    """Rows [r0, r1) and columns [c0, c1) of a product whose rows end at ``last``.

    ``third``: zeros, and from ``z_row`` bytes on the transformed weight; ``weight``: the weight for products;
    ``z_batch``: rows at once, full chunks.
    """
    size = size_of(item)
    _, points, segments = _filter_of(i, i.taps, i.stride)
    own = c0 * points * segments * i.inputs * i.stride * size
    f = Filter(
        i.third, i.third + i.z_row + own, i.bias + c0 * size, i.x_row, i.y_row, i.tap, i.taps, i.stride, i.inputs, c1 - c0
    )  # fmt: skip
    chunk = OUTPUTS * (i.tap // i.x_row)
    for start in range(r0, r1, i.z_batch):
        stop = min(start + i.z_batch, r1)
        x_rows, y_rows = x + (start - r0) * i.stride * i.x_row, y + (start - r0) * i.y_row
        checks = filtered(f, x_rows, y_rows + c0 * size, start, stop, last, memory, item)
        for n in range((stop - start + chunk - 1) // chunk):
            if load(checks + 8 * n, 0.0) != 0.0:
                row = n * chunk
                count = min(chunk, stop - start - row)
                grouped_product(
                    i, x_rows + row * i.stride * i.x_row, y_rows + row * i.y_row, count, c0, c1, item
                )  # fmt: skip


@jit
def winograd_transposed(i, x, y, r0, r1, c0, c1, last, memory, item):
    """Rows [r0, r1) of a transposed convolution whose taps are a multiple of its stride; rows end at ``last``.

    ``x`` is its first input's row, ``shift`` what is cut at the left; the others are those of ``winograd``, by phase.
    """
    for start in range(r0, r1, i.z_batch):
        stop = min(start + i.z_batch, r1)
        _transposed_rows(i, x, y + (start - r0) * i.y_row, start, stop, c0, c1, last, memory, item)


@jit
def _transposed_rows(i, x, y, r0, r1, c0, c1, last, memory, item):
    """``z_batch`` of these rows.

    # stride 4, r0 + shift = 4m + 1      phases 1 2 3 begin with input m, phase 0 with input m + 1
    """
    size, stride = size_of(item), i.stride
    lanes = VECTOR // size
    taps, points, segments = _filter_of(i, i.taps // stride, 1)
    padded, lead = (i.columns + lanes - 1) // lanes * lanes, (r0 + i.shift) % stride
    bias, filter_bytes, product_bytes = i.bias + c0 * size, points * segments * i.inputs * size, taps * i.inputs * size
    for half in range(2):
        low, high = (lead, stride) if half == 0 else (0, lead)
        m = (r0 + i.shift) // stride + half - taps + 1  # the first row that is read
        start = r0 + low - lead + half * stride
        if low >= high or start >= r1:
            continue
        tiles = tiles_in(memory, (r1 - start + stride - 1) // stride, i.inputs, taps, 1)
        left = (last - 1 + i.shift) // stride + 1 - m
        transform_rows(tiles, x + m * i.x_row, i.x_row, i.x_row, 1, left, i.inputs, i.third, item)
        for phase in range(low, high):
            first = start + phase - low
            count = (r1 - first + stride - 1) // stride
            if count < 1:
                continue
            column = phase * padded + c0
            place, step = y + (first - r0) * i.y_row + c0 * size, i.y_row * stride
            weight = i.third + i.z_row + column * filter_bytes
            sums_of_tiles(tiles, weight, i.third, bias, place, step, c1 - c0, count, item)
            for n in range(tiles.chunks):
                row = n * OUTPUTS
                if row < count and load(tiles.checks + 8 * n, 0.0) != 0.0:
                    product(
                        x + (m + row) * i.x_row, i.x_row, taps, i.x_row, i.inputs, i.weight + column * product_bytes,
                        bias, place + row * step, step, c1 - c0, min(OUTPUTS, count - row), item,
                    )  # fmt: skip
