"""Winograd's filtering: convolutions by fewer products, of rows that are transformed before and after them.

# a tile       4 outputs a dilation apart  <-  n = 4 + r - 1 rows, n products instead of 4 * r
# a chunk      the tiles whose outputs lie side by side: one for each row of the dilation
#
# rows         0 1 2 3 4 5 6 7 8 9 ...         dilation 2, r = 3, n = 6
# tile 0       0   2   4   6 | 8   10          outputs 0 2 4 6
# tile 1         1   3   5   7 | 9   11        outputs 1 3 5 7
# tile 2                       8   10  ...     the next chunk
#
# more taps    segments of r = 4: the sum over segments s of products with the tiles of chunk c + s
# a stride     its rows are one row, of as many times the inputs: a filter of stride 1
# transposed   for each phase of the stride a filter of stride 1; phases that begin at the same row share its tiles

A tile mixes the windows of its outputs: what isn't finite may reach too many of them. Chunks with such outputs are
told, for products alone to compute anew.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from tapwise.engine.kernels.loops.jobs import jit
from tapwise.engine.kernels.loops.memory import load, size_of, store
from tapwise.engine.kernels.loops.vectors import VECTOR, Vectors, add_product, element_of
from tapwise.engine.kernels.program.maps import over_row
from tapwise.engine.kernels.program.packing import WIDEST
from tapwise.engine.kernels.program.products import panel_vectors, product_of_panel
from tapwise.engine.kernels.program.tiles import sum_of_lanes
from tapwise.engine.kernels.winograd.interpolation import Matrix, minimal_filtering
from tapwise.engine.kernels.winograd.layout import OUTPUTS, segments_of, taps_of, transformed_row, unstrided

_I64 = ir.IntType(64)


class _Sums:
    """Sums of vectors times constants, as vector code."""

    def __init__(self, b: Any, vectors: Vectors) -> None:
        self.b, self.vectors = b, vectors

    def constant(self, value: Any) -> Any:
        element = self.vectors.vector.element
        return ir.Constant(self.vectors.vector, [ir.Constant(element, float(value))] * self.vectors.lanes)

    def of(self, terms: list[tuple[Any, Any]]) -> Any:
        """The sum of number * vector; None of no terms."""
        found = None
        for number, vector in sorted(terms, key=lambda term: abs(term[0]) != 1):
            if found is None:
                found = vector if number == 1 else self.b.fmul(self.constant(number), vector)
            elif number == 1:
                found = self.b.fadd(found, vector)
            elif number == -1:
                found = self.b.fsub(found, vector)
            else:
                found = add_product(self.b, found, self.constant(number), vector)
        return found

    def by_rows(self, matrix: Matrix, vectors: list[Any]) -> list[Any]:
        """A matrix times vectors. Of two rows that differ in the signs of every other number, halves are shared.

        # 1  2  3  4      even = 1 3, odd = 2 4:  even + odd
        # 1 -2  3 -4                              even - odd
        """
        found: list[Any] = [None] * len(matrix)
        for p, row in enumerate(matrix):
            if found[p] is not None:
                continue
            mirrored = [value * (-1) ** j for j, value in enumerate(row)]
            partner = next((q for q in range(p + 1, len(matrix)) if _is_multiple(matrix[q], mirrored)), None)
            if partner is None:
                found[p] = self.of([(value, x) for value, x in zip(row, vectors, strict=True) if value])
                continue
            even = self.of([(row[j], vectors[j]) for j in range(0, len(row), 2) if row[j]])
            odd = self.of([(row[j], vectors[j]) for j in range(1, len(row), 2) if row[j]])
            found[p] = self.b.fadd(even, odd)
            is_same = all(a == c for a, c in zip(matrix[partner], mirrored, strict=True))
            found[partner] = self.b.fsub(even, odd) if is_same else self.b.fsub(odd, even)
        return found


def _is_multiple(row: list[Any], other: list[Any]) -> bool:
    """Whether two rows are the same but for the sign of all of them, and have even and odd terms."""
    if not any(row[::2]) or not any(row[1::2]):
        return False
    return row == other or row == [-value for value in other]


def make_transform(matrix: Matrix) -> Any:
    """``transform(x, step, available, zeros, y, point, columns, item)``, for compiled code: a matrix times rows.

    Rows of ``columns`` numbers lie ``step`` bytes apart; those from row ``available`` on are ``zeros``. What is given
    lies ``point`` bytes apart.
    """
    n = len(matrix[0])

    def codegen(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        x, step, available, zeros, y, point, columns, _ = arguments
        element = element_of(signature.args[-1])
        rows = [
            b.select(b.icmp_signed("<", _I64(r), available), b.add(x, b.mul(step, _I64(r))), zeros) for r in range(n)
        ]

        def body(vectors: Vectors, offset: Any) -> None:
            loaded = [vectors.load(b.add(row, offset)) for row in rows]
            for p, value in enumerate(_Sums(b, vectors).by_rows(matrix, loaded)):
                vectors.store(value, b.add(b.add(y, b.mul(point, _I64(p))), offset))

        over_row(b, element, columns, body)
        return context.get_dummy_value()

    @intrinsic
    def transform(typing, x, step, available, zeros, y, point, columns, item):  # type: ignore[no-untyped-def]
        return types.void(*[types.int64] * 7, item), codegen

    return transform


def make_inverse(matrix: Matrix) -> Any:
    """``inverse(x, point, bias, y, step, count, columns, item)``, for compiled code: a matrix times rows, and a bias.

    The first ``count`` rows that it gives are stored, ``step`` bytes apart. It returns 0, or NaN where one of all is
    not finite.
    """
    n = len(matrix[0])

    def codegen(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        x, point, bias, y, step, count, columns, _ = arguments
        element = element_of(signature.args[-1])
        full = Vectors(b, element, None, False)
        checked = cgutils.alloca_once(b, full.vector)
        b.store(full.zero, checked)

        def body(vectors: Vectors, offset: Any) -> None:
            loaded = [vectors.load(b.add(b.add(x, b.mul(point, _I64(p))), offset)) for p in range(n)]
            start = vectors.load(b.add(bias, offset))
            check = b.load(checked)
            for j, value in enumerate(_of_powers(b, vectors, matrix, loaded)):
                check = add_product(b, check, full.zero, value)
                with b.if_then(b.icmp_signed("<", _I64(j), count)):
                    vectors.store(b.fadd(value, start), b.add(b.add(y, b.mul(step, _I64(j))), offset))
            b.store(check, checked)

        over_row(b, element, columns, body)
        return b.fpext(sum_of_lanes(b, b.load(checked), full.lanes), ir.DoubleType())

    @intrinsic
    def inverse(typing, x, point, bias, y, step, count, columns, item):  # type: ignore[no-untyped-def]
        return types.float64(*[types.int64] * 7, item), codegen

    return inverse


def _of_powers(b: Any, vectors: Vectors, matrix: Matrix, loaded: list[Any]) -> list[Any]:
    """A matrix whose columns are the powers of points, times vectors: those of +a and -a are first added and subtracted."""
    sums = _Sums(b, vectors)
    even: list[tuple[list[Any], Any]] = []  # (column, vector) for the even rows
    odd: list[tuple[list[Any], Any]] = []
    used: set[int] = set()
    columns = [[row[p] for row in matrix] for p in range(len(loaded))]
    for p, column in enumerate(columns):
        if p in used:
            continue
        mirrored = [value * (-1) ** j for j, value in enumerate(column)]
        partner = next((q for q in range(p + 1, len(columns)) if columns[q] == mirrored), None)
        if partner is None:
            even.append((column, loaded[p]))
            odd.append((column, loaded[p]))
            continue
        used.add(partner)
        even.append((column, b.fadd(loaded[p], loaded[partner])))
        odd.append((column, b.fsub(loaded[p], loaded[partner])))
    return [
        sums.of([(column[j], vector) for column, vector in (odd if j % 2 else even) if column[j]])
        for j in range(len(matrix))
    ]


_FILTERINGS = {r: minimal_filtering(OUTPUTS, r) for r in (2, 3, 4, 5)}
_transform_2, _transform_3, _transform_4, _transform_5 = (make_transform(f.inputs) for f in _FILTERINGS.values())
_taps_2, _taps_3, _taps_4, _taps_5 = (make_transform(f.taps) for f in _FILTERINGS.values())
_inverse_2, _inverse_3, _inverse_4, _inverse_5 = (make_inverse(f.outputs) for f in _FILTERINGS.values())
_segments, _taps, _row, _unstrided = jit(segments_of), jit(taps_of), jit(transformed_row), jit(unstrided)


@jit
def _transform(r, x, step, available, zeros, y, point, columns, item):
    if r == 2:
        _transform_2(x, step, available, zeros, y, point, columns, item)
    elif r == 3:
        _transform_3(x, step, available, zeros, y, point, columns, item)
    elif r == 4:
        _transform_4(x, step, available, zeros, y, point, columns, item)
    else:
        _transform_5(x, step, available, zeros, y, point, columns, item)


@jit
def transform_taps(r, x, step, y, point, columns, item):
    """The ``r`` taps of a segment, rows ``step`` bytes apart, at all points, ``point`` bytes apart."""
    if r == 2:
        _taps_2(x, step, r, x, y, point, columns, item)
    elif r == 3:
        _taps_3(x, step, r, x, y, point, columns, item)
    elif r == 4:
        _taps_4(x, step, r, x, y, point, columns, item)
    else:
        _taps_5(x, step, r, x, y, point, columns, item)


@jit
def _inverse(r, x, point, bias, y, step, count, columns, item):
    if r == 2:
        return _inverse_2(x, point, bias, y, step, count, columns, item)
    if r == 3:
        return _inverse_3(x, point, bias, y, step, count, columns, item)
    if r == 4:
        return _inverse_4(x, point, bias, y, step, count, columns, item)
    return _inverse_5(x, point, bias, y, step, count, columns, item)


class Filter(NamedTuple):
    """What a filtering computes with: addresses, and bytes from row to row.

    Arguments:
        zeros: as many as a row has, or a panel.
        weight: the transformed weight, by panel, by point, as ``layout.transformed`` makes it.
        tap: bytes from a tap's row to the next tap's.
        stride: rows from window to window; 1 where there is a dilation.
    """

    zeros: int
    weight: int
    bias: int
    x_row: int
    y_row: int
    tap: int
    taps: int
    stride: int
    inputs: int
    columns: int


class Tiles(NamedTuple):
    """The transformed rows of some chunks, and where their products are summed.

    # memory   transformed rows, by point | their products with a panel, by point | by chunk: 0, or NaN

    Arguments:
        r, segments: the taps of a segment, and how they are summed.
        inputs: numbers of a transformed row.
        rows, row, point: the address of these rows, and bytes from one to the next, and from point to point.
        products, products_point, checks: the others' addresses; ``checks`` holds one for each chunk.
    """

    r: int
    segments: int
    dilation: int
    chunks: int
    inputs: int
    rows: int
    row: int
    point: int
    products: int
    products_point: int
    checks: int


@jit
def tiles_in(memory, count, inputs, taps, dilation):
    """The tiles of ``count`` rows of outputs; ``layout.memory_of`` says how much memory that is."""
    r, segments = _taps(taps), _segments(taps)
    points = OUTPUTS + r - 1
    chunk = OUTPUTS * dilation
    chunks = (count + chunk - 1) // chunk
    row = _row(inputs)
    point = (chunks + segments - 1) * dilation * row
    products_point = chunks * dilation * WIDEST * VECTOR + 64
    products = memory + points * point
    checks = products + points * products_point
    return Tiles(r, segments, dilation, chunks, inputs, memory, row, point, products, products_point, checks)


@jit
def transform_rows(tiles, x, x_row, tap, stride, left, inputs, zeros, item):
    """Transform the rows of all tiles: ``x`` is the first of them, and of ``left`` rows from there on.

    Those of a stride, ``inputs`` numbers each, are put together to one.
    """
    size, ahead, chunk = size_of(item), stride * tiles.dilation, OUTPUTS * tiles.dilation
    for t in range((tiles.chunks + tiles.segments - 1) * tiles.dilation):
        row = (t // tiles.dilation * chunk + t % tiles.dilation) * stride
        for phase in range(stride):
            available = (left - row - phase + ahead - 1) // ahead
            source, target = x + (row + phase) * x_row, tiles.rows + t * tiles.row + phase * inputs * size
            _transform(tiles.r, source, tap * stride, available, zeros, target, tiles.point, inputs, item)


@jit
def sums_of_tiles(tiles, weight, zeros, bias, y, y_row, columns, count, item):
    """``count`` rows of outputs, ``y_row`` bytes apart: products of tiles with a transformed weight, panel by panel.

    ``checks`` says of each chunk whether its outputs are finite.
    """
    size = size_of(item)
    lanes = VECTOR // size
    dilation, chunk, m_row = tiles.dilation, OUTPUTS * tiles.dilation, WIDEST * VECTOR
    for n in range(tiles.chunks):
        store(tiles.checks + 8 * n, 0.0)
    vectors, c = (columns + lanes - 1) // lanes, 0
    while vectors > 0:
        n = panel_vectors(vectors)
        own = min(columns - c, n * lanes)
        for p in range(OUTPUTS + tiles.r - 1):
            product_of_panel(
                n, tiles.rows + p * tiles.point, tiles.row, tiles.segments, dilation * tiles.row, tiles.inputs, weight,
                zeros, tiles.products + p * tiles.products_point, m_row, lanes, tiles.chunks * dilation, item,
            )  # fmt: skip
            weight += tiles.segments * tiles.inputs * n * VECTOR
        for t in range(tiles.chunks * dilation):
            row = t // dilation * chunk + t % dilation
            own_rows = (count - row + dilation - 1) // dilation
            source, place = tiles.products + t * m_row, y + row * y_row + c * size
            check = _inverse(
                tiles.r, source, tiles.products_point, bias + c * size, place, y_row * dilation, own_rows, own, item
            )
            at = tiles.checks + t // dilation * 8
            store(at, load(at, 0.0) + check)
        c += own
        vectors -= n


@jit
def filtered(f, x, y, r0, r1, last, memory, item):
    """Rows [r0, r1) of those that end at ``last``; r0 begins a chunk. ``x`` is the first row of r0's window.

    Returns:
        The address of what says of each chunk whether its outputs are finite: 0, or NaN.
    """
    dilation = f.tap // f.x_row
    inputs, taps = _unstrided(f.inputs, f.taps, f.stride)
    tiles = tiles_in(memory, r1 - r0, inputs, taps, dilation)
    left = (last - 1 - r0) * f.stride + (f.taps - 1) * dilation + 1
    transform_rows(tiles, x, f.x_row, f.tap, f.stride, left, f.inputs, f.zeros, item)
    sums_of_tiles(tiles, f.weight, f.zeros, f.bias, y, f.y_row, f.columns, r1 - r0, item)
    return tiles.checks
