"""Products: convolutions of rows of channels by packed weights, panel by panel and tile by tile."""

from __future__ import annotations

from tapwise.engine.kernels.loops.jobs import jit
from tapwise.engine.kernels.loops.memory import copy, size_of
from tapwise.engine.kernels.loops.vectors import VECTOR
from tapwise.engine.kernels.program.maps import map_of
from tapwise.engine.kernels.program.packing import WIDEST, WIDEST_OF_PRODUCTS
from tapwise.engine.kernels.program.tiles import make_depthwise, make_dot, make_product

_IS_AVX512 = VECTOR == 64
_FEW_REGISTERS = not _IS_AVX512
_copy = map_of("copy")


def _make_panel(vectors, sizes, packed=None):
    """All rows of one panel, or of ``vectors`` vectors of a wider one, by tiles of ``sizes`` rows."""
    tiles = {n: make_product(n, vectors, packed) for n in sizes}
    full, half, pair, one = (tiles[n] for n in sizes)
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
if _FEW_REGISTERS:  # panels of 3 and 4 vectors serve recurrences, of a few rows
    _SIZES = {4: (2, 2, 2, 1), 3: (4, 2, 2, 1), 2: (6, 4, 2, 1), 1: (8, 4, 2, 1)}
_panel_1, _panel_2, _panel_3, _panel_4 = (_make_panel(n, _SIZES[n]) for n in (1, 2, 3, 4))
_half_of_4 = _make_panel(2, _SIZES[2], 4)
_depthwise_8, _depthwise_1 = make_depthwise(8), make_depthwise(1)
_dot_8, _dot_4, _dot_1 = make_dot(8), make_dot(4), make_dot(1)


@jit
def panel_vectors(vectors):
    """The vectors of the next panel, of ``vectors`` that are left: see ``packing.panels``."""
    if vectors > WIDEST and vectors < 2 * WIDEST and vectors - WIDEST == 1 and WIDEST > 2:
        return WIDEST - 1
    return min(vectors, WIDEST)


@jit
def product_of_panel(n, x, x_row, taps, tap, inputs, weight, bias, y, y_row, columns, count, item):
    """``count`` rows of one panel of ``n`` vectors, the last of which has ``columns`` columns of its own."""
    if n == 1:
        _panel_1(x, x_row, taps, tap, inputs, weight, bias, y, y_row, columns, count, item)
    elif n == 2:
        _panel_2(x, x_row, taps, tap, inputs, weight, bias, y, y_row, columns, count, item)
    elif _FEW_REGISTERS and n == 4 and count > 2:  # of so many rows they hold the sums of two vectors
        _half_of_4(x, x_row, taps, tap, inputs, weight, bias, y, y_row, columns, count, item)
        weight, bias, y = weight + 2 * VECTOR, bias + 2 * VECTOR, y + 2 * VECTOR
        _half_of_4(x, x_row, taps, tap, inputs, weight, bias, y, y_row, columns, count, item)
    elif n == 3:
        _panel_3(x, x_row, taps, tap, inputs, weight, bias, y, y_row, columns, count, item)
    else:
        _panel_4(x, x_row, taps, tap, inputs, weight, bias, y, y_row, columns, count, item)


@jit
def product(x, x_row, taps, tap, inputs, weight, bias, y, y_row, columns, count, item):
    """``count`` rows of a product with a packed weight, panel by panel."""
    size = size_of(item)
    lanes = VECTOR // size
    vectors = (columns + lanes - 1) // lanes
    while vectors > 0:
        n = vectors if vectors <= WIDEST_OF_PRODUCTS else panel_vectors(vectors)
        own = min(columns, n * lanes) - (n - 1) * lanes
        product_of_panel(n, x, x_row, taps, tap, inputs, weight, bias, y, y_row, own, count, item)
        weight += taps * inputs * n * VECTOR
        bias += n * VECTOR
        y += n * VECTOR
        columns -= n * lanes
        vectors -= n


@jit
def _dots(x, x_row, taps, tap, inputs, weight, bias, y, y_row, columns, count, item):
    """Columns one by one, each of which has its weights side by side."""
    size = size_of(item)
    for _ in range(columns):
        r = 0
        while r + 8 <= count:
            _dot_8(x + r * x_row, x_row, taps, tap, inputs, weight, bias, y + r * y_row, y_row, item)
            r += 8
        if r + 4 <= count:
            _dot_4(x + r * x_row, x_row, taps, tap, inputs, weight, bias, y + r * y_row, y_row, item)
            r += 4
        while r < count:
            _dot_1(x + r * x_row, x_row, taps, tap, inputs, weight, bias, y + r * y_row, y_row, item)
            r += 1
        weight += taps * inputs * size
        bias += size
        y += size


@jit
def grouped_product(i, x, y, count, c0, c1, item):
    """The columns [c0, c1), full panels but for the last; of several groups, all of them.

    The last ``i.count`` columns are dot products: see ``packing.dots_of``.
    """
    size = size_of(item)
    lanes = VECTOR // size
    if i.groups == 1:
        weight = i.weight + c0 * i.taps * i.inputs * size
        y, bias, x_row = y + c0 * size, i.bias + c0 * size, i.x_row * i.stride
        dots = i.count if c1 == i.columns else 0
        full = c1 - c0 - dots
        product(x, x_row, i.taps, i.tap, i.inputs, weight, bias, y, i.y_row, full, count, item)
        weight += full * i.taps * i.inputs * size
        bias, y = bias + full * size, y + full * size
        _dots(x, x_row, i.taps, i.tap, i.inputs, weight, bias, y, i.y_row, dots, count, item)
        return
    columns = i.columns // i.groups
    padded = (columns + lanes - 1) // lanes * lanes
    for g in range(i.groups):
        weight = i.weight + g * i.taps * i.inputs * padded * size
        bias = i.bias + g * padded * size
        x_group, y_group = x + g * i.inputs * size, y + g * columns * size
        product(
            x_group, i.x_row * i.stride, i.taps, i.tap, i.inputs, weight, bias, y_group, i.y_row, columns, count, item
        )


@jit
def depthwise(i, x, y, count, item):
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
def few_outputs(i, x, y, count, item):
    x_row = i.x_row * i.stride
    _dots(x, x_row, i.taps, i.tap, i.inputs, i.weight, i.bias, y, i.y_row, i.columns, count, item)


@jit
def few_transposed(i, x, y, r0, r1, place, item):
    """Rows [r0, r1) of a transposed convolution to few channels, whose taps are a multiple of the stride.

    All outputs of an input's stride are one row of a product, at ``place``; what lies outside of [r0, r1) is cut.
    """
    size, stride = size_of(item), i.stride
    taps, wide = i.taps // stride, i.columns * stride
    m = (r0 + i.shift) // stride
    count = (r1 - 1 + i.shift) // stride + 1 - m
    first = x + (m - taps + 1) * i.x_row
    product(first, i.x_row, taps, i.x_row, i.inputs, i.weight, i.bias, place, wide * size, wide, count, item)
    source = place + (r0 + i.shift - m * stride) * i.columns * size
    for r in range(r1 - r0):
        copy(y + r * i.y_row, source + r * i.columns * size, i.columns * size)


@jit
def transposed(i, x, y, r0, r1, c0, c1, item):
    """Rows [r0, r1) of a transposed convolution; ``x`` is its first input's row, ``shift`` what is cut at the left.

    # stride 2, K 4    output j + shift = 2m      reads inputs m-1, m with taps 2, 0
    #                  output j + shift = 2m + 1  reads inputs m-1, m with taps 3, 1
    """
    size = size_of(item)
    lanes = VECTOR // size
    padded = (i.columns + lanes - 1) // lanes * lanes
    weight = i.weight
    for phase in range(i.stride):
        taps = max(0, i.taps - phase + i.stride - 1) // i.stride
        first = r0 + (phase - (r0 + i.shift)) % i.stride
        count = (r1 - first + i.stride - 1) // i.stride
        if count > 0:
            m = (first + i.shift) // i.stride
            if taps < 1:  # the stride leaves gaps, which no input reaches
                row = y + (first - r0) * i.y_row + c0 * size
                _copy(i.bias + c0 * size, 0, 0, 0, 0, row, i.y_row * i.stride, c1 - c0, count, 0.0, 0.0, item)
                continue
            product(
                x + (m - taps + 1) * i.x_row, i.x_row, taps, i.x_row, i.inputs,
                weight + c0 * taps * i.inputs * size, i.bias + c0 * size,
                y + (first - r0) * i.y_row + c0 * size, i.y_row * i.stride, c1 - c0, count, item,
            )  # fmt: skip
        weight += taps * i.inputs * padded * size
