"""Tiles: sums of products for some rows and vectors of outputs, held in registers over all taps.

#            t ->   vector 0   vector 1   vector 2
#   row 0 (o)       s s s s    s s s s    s s s s       s += weight[o, q] * x[t + offsets[q]]
#   row 1           s s s s    s s s s    s s s s       for every product q = (input channel, tap)
#   ...
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from tapwise.engine.kernels.loops.vectors import VECTOR, Vectors, add_product, element_of, products_over, splat

_I64 = ir.IntType(64)

# Several rows are written in turn, more places than some processors predict: the memory this number of bytes
# further on in each row is prefetched. With more products than these the stores have time.
_AHEAD, _LINE, _FEW_PRODUCTS = 1024, 64, 128


def _bias_of(b: Any, place: Any, bias: Any, readable: Any, memory: Vectors) -> Any:
    """A vector of the bias at ``place``, of zeros where ``bias`` is 1; ``readable`` is any address."""
    has_bias = b.icmp_signed("!=", bias, _I64(1))
    safe = b.select(has_bias, place, readable)
    value = b.load(b.inttoptr(safe, memory.vector.element.as_pointer()))
    none = ir.Constant(memory.vector.element, 0.0)
    return splat(b, b.select(has_bias, value, none), memory.lanes)


def make_tile(rows: int, vectors: int, masked: bool = False) -> Any:
    """``tile(x, offsets, q0, q1, weight, row, y, y_row, bias, count, item)``, for compiled code.

    ``y[r, t] (+)= sum over q0 <= q < q1 of weight[r, q] * x[t + offsets[q]]`` for the tile's rows, and t
    over the tile's vectors. ``row`` and ``y_row`` are bytes from one row to the next; ``bias`` is the
    address of the rows' first, 1 for none, or 0 to add to what ``y`` holds; ``count`` lanes are read
    and written if masked; ``item`` is a number of the element's type.
    """

    def codegen(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        x, offsets, q0, q1, weight, row, y, y_row, bias, count, _ = arguments
        element = element_of(signature.args[-1])
        memory = Vectors(b, element, count, masked)
        size, lanes, pointer = memory.size, memory.lanes, element.as_pointer()

        def step(q: Any, sums: list[Any]) -> list[Any]:
            place = b.inttoptr(b.add(offsets, b.mul(q, _I64(8))), _I64.as_pointer())
            start = b.add(x, b.load(place))
            xs = [memory.load(b.add(start, _I64(v * VECTOR))) for v in range(vectors)]
            new = []
            for r in range(rows):
                tap = b.add(weight, b.add(b.mul(row, _I64(r)), b.mul(q, _I64(size))))
                a = splat(b, b.load(b.inttoptr(tap, pointer)), lanes)
                new += [add_product(b, sums[r * vectors + v], a, xs[v]) for v in range(vectors)]
            return new

        if rows >= 4 and not masked:
            with b.if_then(b.icmp_signed("<", b.sub(q1, q0), _I64(_FEW_PRODUCTS))):
                for r in range(rows):
                    row_start = b.add(y, b.mul(y_row, _I64(r)))
                    for line in range(0, vectors * VECTOR, _LINE):
                        memory.prefetch(b.add(row_start, _I64(_AHEAD + line)))
        sums = products_over(b, rows * vectors, memory.zero, q0, q1, step)
        for r in range(rows):
            row_start = b.add(y, b.mul(y_row, _I64(r)))
            places = [b.add(row_start, _I64(v * VECTOR)) for v in range(vectors)]
            row_sums = sums[r * vectors : (r + 1) * vectors]
            with b.if_else(b.icmp_signed("==", bias, _I64(0))) as (more, first):
                with more:
                    for place, value in zip(places, row_sums, strict=True):
                        memory.store(b.fadd(memory.load(place), value), place)
                with first:
                    start = _bias_of(b, b.add(bias, _I64(r * size)), bias, weight, memory)
                    for place, value in zip(places, row_sums, strict=True):
                        memory.store(b.fadd(start, value), place)
        return context.get_dummy_value()

    @intrinsic
    def tile(typing, x, offsets, q0, q1, weight, row, y, y_row, bias, count, item):  # type: ignore[no-untyped-def]
        return types.void(*[types.int64] * 10, item), codegen

    return tile


@intrinsic
def end_tile(typing, x, offsets, products, weight, y, bias, count, start, limit, item):  # type: ignore[no-untyped-def]
    """``y[t] = bias + sum over q < products of weight[q] * x[t + offsets[q]]`` for one vector at an end.

    Positions outside the ``limit`` bytes from ``start`` on count as zero and aren't read. ``count``
    lanes are written; ``bias`` is an address, or 1 for none.
    """

    def codegen(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        x, offsets, products, weight, y, bias, count, start, limit, _ = arguments
        element = element_of(signature.args[-1])
        memory = Vectors(b, element, count, True)

        def step(q: Any, sums: list[Any]) -> list[Any]:
            place = b.inttoptr(b.add(offsets, b.mul(q, _I64(8))), _I64.as_pointer())
            address = b.add(x, b.load(place))
            xs = memory.load(address, memory.within(b.sub(address, start), limit))
            tap = b.add(weight, b.mul(q, _I64(memory.size)))
            a = splat(b, b.load(b.inttoptr(tap, element.as_pointer())), memory.lanes)
            return [add_product(b, sums[0], a, xs)]

        (total,) = products_over(b, 1, memory.zero, _I64(0), products, step)
        memory.store(b.fadd(_bias_of(b, bias, bias, weight, memory), total), y)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 9, item), codegen
