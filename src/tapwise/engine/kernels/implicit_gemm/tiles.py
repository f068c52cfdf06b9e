"""Tiles of the weight's gradient: sums of outer products, held in registers. And the addition of rows of sums.

# sums[o, c]  =  sum over outputs t  of  grad[o, t] * x[t, c]       rows o ... o + rows,  columns c ... c + vectors*lanes
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from tapwise.engine.kernels.loops.vectors import VECTOR, Vectors, add_product, element_of, splat
from tapwise.engine.kernels.program.tiles import looped

_I64 = ir.IntType(64)


def make_outer_products(rows: int, vectors: int) -> Any:
    """``outer(grad, grad_row, x, x_row, count, y, y_row, item)``, for compiled code.

    ``y[r, c] += sum over t < count of grad[r, t] * x[t, c]``: the sum in registers, then its addition to totals in float64.
    """

    def codegen(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        grad, grad_row, x, x_row, count, y, y_row, _ = arguments
        element = element_of(signature.args[-1])
        memory = Vectors(b, element, None, False)
        starts = [b.mul(grad_row, _I64(r)) for r in range(rows)]

        def step(values: list[Any]) -> list[Any]:
            at, place, *sums = values
            xs = [memory.load(b.add(place, _I64(v * VECTOR))) for v in range(vectors)]
            new = []
            for r in range(rows):
                number = b.load(b.inttoptr(b.add(at, starts[r]), element.as_pointer()))
                g = splat(b, number, memory.lanes)
                new += [add_product(b, sums[r * vectors + v], g, xs[v]) for v in range(vectors)]
            return [b.add(at, _I64(memory.size)), b.add(place, x_row), *new]

        _, _, *sums = looped(b, "outputs", count, [grad, x, *([memory.zero] * rows * vectors)], step)
        wide = ir.VectorType(ir.DoubleType(), memory.lanes)
        for r in range(rows):
            for v in range(vectors):
                place = b.add(b.add(y, b.mul(y_row, _I64(r))), _I64(v * 8 * memory.lanes))
                totals = b.inttoptr(place, wide.as_pointer())
                total = b.fadd(b.load(totals, align=8), b.fpext(sums[r * vectors + v], wide))
                b.store(total, totals, align=8)
        return context.get_dummy_value()

    @intrinsic
    def outer(typing, grad, grad_row, x, x_row, count, y, y_row, item):  # type: ignore[no-untyped-def]
        return types.void(*[types.int64] * 7, item), codegen

    return outer


@intrinsic
def add_row(typing, y, x, vectors, item):  # type: ignore[no-untyped-def]
    """Add ``vectors`` vectors, at least one, at ``x`` to those at ``y``."""

    def codegen(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        y, x, vectors, _ = arguments
        memory = Vectors(b, element_of(signature.args[-1]), None, False)

        def step(values: list[Any]) -> list[Any]:
            target, source = values
            memory.store(b.fadd(memory.load(target), memory.load(source)), target)
            return [b.add(value, _I64(VECTOR)) for value in values]

        looped(b, "vectors", vectors, [y, x], step)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3, item), codegen
