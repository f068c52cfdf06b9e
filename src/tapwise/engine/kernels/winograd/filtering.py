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
from tapwise.engine.kernels.winograd.layout import OUTPUTS, segments_of, taps_of, transformed_row

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


_FILTERINGS = {r: minimal_filtering(OUTPUTS, r) for r in (3, 4, 5)}
_transform_3, _transform_4, _transform_5 = (make_transform(f.inputs) for f in _FILTERINGS.values())
_taps_3, _taps_4, _taps_5 = (make_transform(f.taps) for f in _FILTERINGS.values())
_inverse_3, _inverse_4, _inverse_5 = (make_inverse(f.outputs) for f in _FILTERINGS.values())
_segments, _taps, _row = jit(segments_of), jit(taps_of), jit(transformed_row)


@jit
def _transform(r, x, step, available, zeros, y, point, columns, item):
    if r == 3:
        _transform_3(x, step, available, zeros, y, point, columns, item)
    elif r == 4:
        _transform_4(x, step, available, zeros, y, point, columns, item)
    else:
        _transform_5(x, step, available, zeros, y, point, columns, item)


@jit
def transform_taps(r, x, step, y, point, columns, item):
    """The ``r`` taps of a segment, rows ``step`` bytes apart, at all points, ``point`` bytes apart."""
    if r == 3:
        _taps_3(x, step, r, x, y, point, columns, item)
    elif r == 4:
        _taps_4(x, step, r, x, y, point, columns, item)
    else:
        _taps_5(x, step, r, x, y, point, columns, item)


@jit
def _inverse(r, x, point, bias, y, step, count, columns, item):
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
    """

    zeros: int
    weight: int
    bias: int
    x_row: int
    y_row: int
    tap: int
    taps: int
    inputs: int
    columns: int


@jit
def filtered(f, x, y, r0, r1, last, memory, item):
    """Rows [r0, r1) of those that end at ``last``; r0 begins a chunk. ``x`` is the first row of r0's window.

    # memory   transformed rows, by point | their products with a panel, by point | by chunk: 0, or NaN

    Returns:
        The address of the last of these.
    """
    size = size_of(item)
    dilation, r = f.tap // f.x_row, _taps(f.taps)
    points, segments = OUTPUTS + r - 1, _segments(f.taps)
    chunk = OUTPUTS * dilation
    chunks = (r1 - r0 + chunk - 1) // chunk
    tiles, outputs = (chunks + segments - 1) * dilation, chunks * dilation
    # As ``layout.memory_of`` says.
    v_row = _row(f.inputs)
    v_point = tiles * v_row
    m_row = WIDEST * VECTOR
    m_point = outputs * m_row + 64
    products = memory + points * v_point
    checks = products + points * m_point
    for t in range(tiles):
        row = t // dilation * chunk + t % dilation
        available = (last + (f.taps - 1) * dilation - r0 - row + dilation - 1) // dilation
        _transform(r, x + row * f.x_row, f.tap, available, f.zeros, memory + t * v_row, v_point, f.inputs, item)
    lanes = VECTOR // size
    vectors, c = (f.columns + lanes - 1) // lanes, 0
    weight = f.weight
    for n in range(chunks):
        store(checks + 8 * n, 0.0)
    while vectors > 0:
        n = panel_vectors(vectors)
        own = min(f.columns - c, n * lanes)
        for p in range(points):
            product_of_panel(
                n, memory + p * v_point, v_row, segments, dilation * v_row, f.inputs, weight, f.zeros,
                products + p * m_point, m_row, lanes, outputs, item,
            )  # fmt: skip
            weight += segments * f.inputs * n * VECTOR
        for t in range(outputs):
            row = t // dilation * chunk + t % dilation
            count = (r1 - r0 - row + dilation - 1) // dilation
            place, bias = y + row * f.y_row + c * size, f.bias + c * size
            check = _inverse(r, products + t * m_row, m_point, bias, place, f.y_row * dilation, count, own, item)
            at = checks + t // dilation * 8
            store(at, load(at, 0.0) + check)
        c += own
        vectors -= n
    return checks
