"""Maps: a function of each number of some rows, or of a row as a whole."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from tapwise.engine.kernels.loops.jobs import jit
from tapwise.engine.kernels.loops.memory import size_of
from tapwise.engine.kernels.loops.vectors import VECTOR, Vectors, element_of, splat
from tapwise.engine.kernels.program.functions import MAP_FUNCTIONS, Functions
from tapwise.engine.kernels.program.names import MAPS, OPERANDS
from tapwise.engine.kernels.program.tiles import sum_of_lanes

_I64 = ir.IntType(64)


def over_row(b: Any, element: Any, count: Any, body: Any) -> None:
    """``body(vectors, offset)`` for the vectors of ``count`` numbers, the last of them masked."""
    full = Vectors(b, element, None, False)
    vectors = b.udiv(count, _I64(full.lanes))
    with cgutils.for_range(b, vectors) as loop:
        body(full, b.mul(loop.index, _I64(VECTOR)))
    rest = b.sub(count, b.mul(vectors, _I64(full.lanes)))
    with b.if_then(b.icmp_signed(">", rest, _I64(0))):
        body(Vectors(b, element, rest, True), b.mul(vectors, _I64(VECTOR)))


def make_map(name: str) -> Any:
    """``map(x, x_row, z, z_row, w, y, y_row, columns, count, p, q, item)``, for compiled code: a function of ``MAP_FUNCTIONS``.

    It is applied to ``count`` rows of ``columns`` numbers. Rows lie ``x_row``, ``z_row`` and ``y_row`` bytes apart, 0
    for a row that serves all; w is one row.
    """
    operands = OPERANDS[name]

    def codegen(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        x, z, w, y, count, p, q, _ = arguments
        element = element_of(signature.args[-1])
        lanes = Vectors(b, element, None, False).lanes
        numbers = [splat(b, b.fptrunc(n, element), lanes) for n in (p, q)]

        def body(vectors: Vectors, offset: Any) -> None:
            functions = Functions(b, vectors.vector)
            loaded = [vectors.load(b.add(place, offset)) for place in (x, z, w)[:operands]]
            loaded += [vectors.zero] * (3 - operands)
            vectors.store(MAP_FUNCTIONS[name](functions, *loaded, *numbers), b.add(y, offset))

        over_row(b, element, count, body)
        return context.get_dummy_value()

    @intrinsic
    def apply(typing, x, z, w, y, count, p, q, item):  # type: ignore[no-untyped-def]
        return types.void(*[types.int64] * 5, types.float64, types.float64, item), codegen

    @jit
    def rows(x, x_row, z, z_row, w, y, y_row, columns, count, p, q, item):
        is_dense = x_row == y_row and x_row == columns * size_of(item)
        if is_dense and (operands == 1 or (operands == 2 and z_row == x_row)):
            columns, count = columns * count, 1  # no gaps: one long row
        for _ in range(count):
            apply(x, z, w, y, columns, p, q, item)
            x += x_row
            z += z_row
            y += y_row

    return rows


_MAPS = [make_map(name) for name in MAPS]


def map_of(name: str) -> Any:
    """The map of a name, for compiled code."""
    return _MAPS[MAPS.index(name)]


def _choice() -> Any:
    """A function that applies a map by its number: one chain of comparisons, written out.

    Functions in functions would be optimised once for each that is around them.
    """
    operands = "x, x_row, z, z_row, w, y, y_row, columns, count, p, q, item"
    lines = [f"def apply_map(n, {operands}):"]
    for n in range(len(MAPS)):
        lines += [f"    {'elif' if n else 'if'} n == {n}:", f"        map_{n}({operands})"]
    names: dict[str, Any] = {f"map_{n}": function for n, function in enumerate(_MAPS)}
    exec("\n".join(lines), names)
    return jit(names["apply_map"])


apply_map = _choice()


@intrinsic
def sum_of_differences(typing, x, count, mean, power, item):  # type: ignore[no-untyped-def]
    """The sum of (x - mean) of ``count`` numbers, where ``power`` is 1, or of its squares, where it is 2."""

    def codegen(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        x, count, mean, power, _ = arguments
        element = element_of(signature.args[-1])
        vectors = Vectors(b, element, None, False)
        total = cgutils.alloca_once(b, vectors.vector)
        b.store(vectors.zero, total)
        middle = splat(b, b.fptrunc(mean, element), vectors.lanes)
        is_square = b.icmp_signed("==", power, _I64(2))

        def body(part: Vectors, offset: Any) -> None:
            difference = b.fsub(part.load(b.add(x, offset)), middle)
            if part.mask is not None:
                difference = b.select(part.mask, difference, part.zero)
            value = b.select(is_square, b.fmul(difference, difference), difference)
            b.store(b.fadd(b.load(total), value), total)

        over_row(b, element, count, body)
        return b.fpext(sum_of_lanes(b, b.load(total), vectors.lanes), ir.DoubleType())

    return types.float64(types.int64, types.int64, types.float64, types.int64, item), codegen
