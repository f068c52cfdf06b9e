"""Tiles: sums of products for some rows and some vectors of channels, held in registers.

Channels lie side by side, so a number of the input is the same for a vector of outputs, and weights are read in the
order in which they lie:

# y[t, o...o+n]  =  bias  +  sum over taps k and channels c  of  x[t + k*dilation, c] * weight[k, c, o...o+n]
#
# a tile         rows t ... t + rows  x  columns o ... o + vectors*lanes
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from tapwise.engine.kernels.loops.vectors import VECTOR, Vectors, add_product, element_of, splat

_I64 = ir.IntType(64)


def looped(b: Any, name: str, count: Any, values: list[Any], body: Any) -> list[Any]:
    """``values`` after ``count`` rounds, at least one, of ``body(values)``."""
    before = b.block
    loop, after = b.append_basic_block(name), b.append_basic_block(name + "_end")
    b.branch(loop)
    b.position_at_end(loop)
    n = b.phi(_I64)
    phis = [b.phi(value.type) for value in values]
    n.add_incoming(_I64(0), before)
    for phi, value in zip(phis, values, strict=True):
        phi.add_incoming(value, before)
    new = body(phis)
    next_n = b.add(n, _I64(1))
    end = b.block
    n.add_incoming(next_n, end)
    for phi, value in zip(phis, new, strict=True):
        phi.add_incoming(value, end)
    b.cbranch(b.icmp_signed("<", next_n, count), loop, after)
    b.position_at_end(after)
    return list(new)


def make_product(rows: int, vectors: int, packed: int | None = None) -> Any:
    """``product(x, x_row, taps, tap, inputs, weight, bias, y, y_row, columns, item)``, for compiled code.

    ``y[r, o] = bias[o] + sum over k, c of x[r, k, c] * weight[k, c, o]``: rows lie ``x_row`` and ``y_row`` bytes
    apart, taps ``tap``; the last vector has ``columns`` columns of its own.

    Arguments:
        packed: vectors of the panel in which the weight is packed; None: as the tile has.
    """

    def codegen(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        x, x_row, taps, tap, inputs, weight, bias, y, y_row, columns, _ = arguments
        element = element_of(signature.args[-1])
        memory = Vectors(b, element, None, False)
        size = memory.size
        start = [memory.load(b.add(bias, _I64(v * VECTOR))) for v in range(vectors)]

        def channel(values: list[Any]) -> list[Any]:
            at, w, *sums = values
            ws = [memory.load(b.add(w, _I64(v * VECTOR))) for v in range(vectors)]
            new = []
            for r in range(rows):
                place = b.inttoptr(b.add(at, b.mul(x_row, _I64(r))), element.as_pointer())
                a = splat(b, b.load(place), memory.lanes)
                new += [add_product(b, sums[r * vectors + v], a, ws[v]) for v in range(vectors)]
            return [b.add(at, _I64(size)), b.add(w, _I64((packed or vectors) * VECTOR)), *new]

        def one_tap(values: list[Any]) -> list[Any]:
            at, w, *sums = values
            _, w, *sums = looped(b, "channels", inputs, [at, w, *sums], channel)
            return [b.add(at, tap), w, *sums]

        _, _, *sums = looped(b, "taps", taps, [x, weight, *(start * rows)], one_tap)
        last = Vectors(b, element, columns, True)
        for r in range(rows):
            row = b.add(y, b.mul(y_row, _I64(r)))
            for v in range(vectors):
                (last if v == vectors - 1 else memory).store(sums[r * vectors + v], b.add(row, _I64(v * VECTOR)))
        return context.get_dummy_value()

    @intrinsic
    def product(typing, x, x_row, taps, tap, inputs, weight, bias, y, y_row, columns, item):  # type: ignore[no-untyped-def]
        return types.void(*[types.int64] * 10, item), codegen

    return product


def make_depthwise(rows: int) -> Any:
    """``depthwise(x, x_row, taps, tap, weight, weight_row, bias, y, y_row, columns, item)``, for compiled code.

    ``y[r, c] = bias[c] + sum over k of x[r, k, c] * weight[k, c]`` for one vector of channels, of which ``columns`` count.
    """

    def codegen(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        x, x_row, taps, tap, weight, weight_row, bias, y, y_row, columns, _ = arguments
        element = element_of(signature.args[-1])
        memory, last = Vectors(b, element, None, False), Vectors(b, element, columns, True)
        starts = [b.add(x, b.mul(x_row, _I64(r))) for r in range(rows)]

        def one_tap(values: list[Any]) -> list[Any]:
            at, w, *sums = values
            a = memory.load(w)
            new = [add_product(b, sums[r], a, last.load(b.add(starts[r], at))) for r in range(rows)]
            return [b.add(at, tap), b.add(w, weight_row), *new]

        begin = [memory.load(bias)] * rows
        _, _, *sums = looped(b, "taps", taps, [_I64(0), weight, *begin], one_tap)
        for r in range(rows):
            last.store(sums[r], b.add(y, b.mul(y_row, _I64(r))))
        return context.get_dummy_value()

    @intrinsic
    def depthwise(typing, x, x_row, taps, tap, weight, weight_row, bias, y, y_row, columns, item):  # type: ignore[no-untyped-def]
        return types.void(*[types.int64] * 10, item), codegen

    return depthwise


def make_dot(rows: int) -> Any:
    """``dot(x, x_row, taps, tap, inputs, weight, bias, y, y_row, item)``, for compiled code: one column of outputs.

    ``y[r] = bias + sum over k, c of x[r, k, c] * weight[k, c]``: a vector at a time, whose lanes are then added.
    """

    def codegen(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        x, x_row, taps, tap, inputs, weight, bias, y, y_row, _ = arguments
        element = element_of(signature.args[-1])
        memory = Vectors(b, element, None, False)
        full = b.udiv(inputs, _I64(memory.lanes))
        rest = b.sub(inputs, b.mul(full, _I64(memory.lanes)))
        last = Vectors(b, element, rest, True)
        starts = [b.mul(x_row, _I64(r)) for r in range(rows)]
        sums = [cgutils.alloca_once(b, memory.vector) for _ in range(rows)]  # type: ignore[no-untyped-call]
        for place in sums:
            b.store(memory.zero, place)

        def step(vectors: Vectors, at: Any, w: Any, values: list[Any]) -> list[Any]:
            a = vectors.load(w)
            return [add_product(b, values[r], a, vectors.load(b.add(at, starts[r]))) for r in range(rows)]

        def one_tap(values: list[Any]) -> list[Any]:
            at, w = values
            with b.if_then(b.icmp_signed(">", full, _I64(0))):

                def vector(inner: list[Any]) -> list[Any]:
                    place, w_place, *parts = inner
                    new = step(memory, place, w_place, parts)
                    return [b.add(place, _I64(VECTOR)), b.add(w_place, _I64(VECTOR)), *new]

                _, _, *parts = looped(b, "vectors", full, [at, w, *(b.load(s) for s in sums)], vector)
                for place, part in zip(sums, parts, strict=True):
                    b.store(part, place)
            with b.if_then(b.icmp_signed(">", rest, _I64(0))):
                done = b.mul(full, _I64(VECTOR))
                parts = step(last, b.add(at, done), b.add(w, done), [b.load(s) for s in sums])
                for place, part in zip(sums, parts, strict=True):
                    b.store(part, place)
            return [b.add(at, tap), b.add(w, b.mul(inputs, _I64(memory.size)))]

        looped(b, "taps", taps, [x, weight], one_tap)
        start = b.load(b.inttoptr(bias, element.as_pointer()))
        for r in range(rows):
            total = b.fadd(sum_of_lanes(b, b.load(sums[r]), memory.lanes), start)
            b.store(total, b.inttoptr(b.add(y, b.mul(y_row, _I64(r))), element.as_pointer()))
        return context.get_dummy_value()

    @intrinsic
    def dot(typing, x, x_row, taps, tap, inputs, weight, bias, y, y_row, item):  # type: ignore[no-untyped-def]
        return types.void(*[types.int64] * 9, item), codegen

    return dot


def sum_of_lanes(b: Any, vector: Any, lanes: int) -> Any:
    while lanes > 1:
        low = ir.Constant(ir.VectorType(ir.IntType(32), lanes // 2), list(range(lanes // 2)))
        high = ir.Constant(ir.VectorType(ir.IntType(32), lanes // 2), list(range(lanes // 2, lanes)))
        undefined = ir.Constant(vector.type, ir.Undefined)
        vector = b.fadd(b.shuffle_vector(vector, undefined, low), b.shuffle_vector(vector, undefined, high))
        lanes //= 2
    return b.extract_element(vector, ir.IntType(32)(0))
