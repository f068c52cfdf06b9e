"""Vector code for Numba: sums of products held in registers, as LLVM instructions.

In a loop written in Python the compiler decides where sums are held; for a convolution it then reaches half
of what the processor can do, or a tenth. Here the sums stay in registers over all taps. Addresses are
integers. Products and sums may fuse ("contract"), nothing else: NaN and infinity stay what they are.

# splat       a            ->  a a a a
# load        [address]    ->  x0 x1 x2 x3        with a mask: x0 x1 0 0
# products_over(begin, end, step)                 for q in range(begin, end): sums = step(q, sums)
# correlation                                     sums[r, c] += sum over t of g[r, t] * x[t + offsets[c]]
# peak                                            the largest magnitude of some numbers
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from tapwise.engine.compiled import vector_bytes

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_CONTRACT = ("contract",)

# Bytes of a vector.
VECTOR = vector_bytes()


def element_of(item: types.Type) -> Any:
    return ir.FloatType() if item == types.float32 else ir.DoubleType()


def _bytes(element: Any) -> int:
    return 4 if isinstance(element, ir.FloatType) else 8


def splat(b: Any, value: Any, lanes: int) -> Any:
    vector = ir.VectorType(value.type, lanes)
    undefined = ir.Constant(vector, ir.Undefined)
    zeros = ir.Constant(ir.VectorType(_I32, lanes), [0] * lanes)
    return b.shuffle_vector(b.insert_element(undefined, value, _I32(0)), undefined, zeros)


class Vectors:
    """Loads and stores of one vector at an address, of its first ``count`` lanes alone if masked."""

    def __init__(self, b: Any, element: Any, count: Any, masked: bool) -> None:
        self.b, self.size = b, _bytes(element)
        self.lanes = VECTOR // self.size
        self.vector = ir.VectorType(element, self.lanes)
        self.pointer = self.vector.as_pointer()
        self.zero = ir.Constant(self.vector, [0.0] * self.lanes)
        self.mask = None
        if masked:
            lane = ir.Constant(ir.VectorType(_I32, self.lanes), list(range(self.lanes)))
            self.mask = b.icmp_signed("<", lane, splat(b, b.trunc(count, _I32), self.lanes))

    def load(self, address: Any, mask: Any = None) -> Any:
        """The vector at an address; zeros in the lanes that the mask, given or its own, leaves out."""
        place, mask = self.b.inttoptr(address, self.pointer), mask or self.mask
        if mask is None:
            return self.b.load(place, align=self.size)
        arguments = [self.pointer, _I32, mask.type, self.vector]
        function = self._masked("load", self.vector, arguments)
        return self.b.call(function, [place, _I32(self.size), mask, self.zero])

    def within(self, first: Any, limit: Any) -> Any:
        """Which lanes lie in [0, limit) bytes, where the first lane is at byte ``first``."""
        places = ir.VectorType(_I32, self.lanes)
        lane = ir.Constant(places, list(range(0, VECTOR, self.size)))
        position = self.b.add(lane, splat(self.b, self.b.trunc(first, _I32), self.lanes))
        end = splat(self.b, self.b.trunc(limit, _I32), self.lanes)
        return self.b.icmp_unsigned("<", position, end)  # unsigned, a position below 0 is a large one

    def store(self, value: Any, address: Any) -> None:
        place = self.b.inttoptr(address, self.pointer)
        if self.mask is None:
            self.b.store(value, place, align=self.size)
            return
        arguments = [self.vector, self.pointer, _I32, self.mask.type]
        function = self._masked("store", ir.VoidType(), arguments)
        self.b.call(function, [value, place, _I32(self.size), self.mask])

    def prefetch(self, address: Any) -> None:
        """Ask for the memory at an address, to write it soon: a hint, harmless where there is none."""
        byte = ir.IntType(8).as_pointer()
        function = self._declared("llvm.prefetch.p0", ir.VoidType(), [byte, _I32, _I32, _I32])
        to_write, all_caches, data = _I32(1), _I32(3), _I32(1)
        self.b.call(function, [self.b.inttoptr(address, byte), to_write, all_caches, data])

    def _masked(self, kind: str, result: Any, arguments: list[Any]) -> Any:
        name = f"llvm.masked.{kind}.v{self.lanes}f{8 * self.size}.p0"
        return self._declared(name, result, arguments)

    def _declared(self, name: str, result: Any, arguments: list[Any]) -> Any:
        module = self.b.module
        kind = ir.FunctionType(result, arguments)
        return module.globals.get(name) or ir.Function(module, kind, name)


def products_over(b: Any, sums: int, zero: Any, begin: Any, end: Any, step: Callable[..., Any]) -> Any:
    """The sums after q = begin, ..., end - 1 (at least one), each of which ``step(q, sums)`` adds to."""
    before = b.block
    loop, after = b.append_basic_block("products"), b.append_basic_block("summed")
    b.branch(loop)
    b.position_at_end(loop)
    q = b.phi(_I64)
    q.add_incoming(begin, before)
    phis = [b.phi(zero.type) for _ in range(sums)]
    new = step(q, phis)
    next_q = b.add(q, _I64(1))
    q.add_incoming(next_q, loop)
    for phi, value in zip(phis, new, strict=True):
        phi.add_incoming(zero, before)
        phi.add_incoming(value, loop)
    b.cbranch(b.icmp_signed("<", next_q, end), loop, after)
    b.position_at_end(after)
    return new


def add_product(b: Any, sum: Any, a: Any, x: Any) -> Any:
    return b.fadd(sum, b.fmul(a, x, flags=_CONTRACT), flags=_CONTRACT)


def make_correlation(rows: int, columns: int) -> Any:
    """``correlation(x, offsets, q, g, g_row, steps, tail, sums, sums_row, item)``, for compiled code.

    ``sums[r, c] += sum over t of g[r, t] * x[t + offsets[q + c]]`` for the tile's rows and columns: t runs
    over ``steps`` full vectors, and ``tail`` lanes of one more. ``sums`` are float64.
    """

    def codegen(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        x, offsets, q, g, g_row, steps, tail, sums, sums_row, _ = arguments
        element = element_of(signature.args[-1])
        full = Vectors(b, element, tail, False)
        starts = []
        for c in range(columns):
            place = b.inttoptr(b.add(offsets, b.mul(b.add(q, _I64(c)), _I64(8))), _I64.as_pointer())
            starts.append(b.add(x, b.load(place)))
        rows_of_g = [b.add(g, b.mul(g_row, _I64(r))) for r in range(rows)]

        def products(memory: Vectors, at: Any, sums: list[Any]) -> list[Any]:
            gs = [memory.load(b.add(start, at)) for start in rows_of_g]
            xs = [memory.load(b.add(start, at)) for start in starts]
            return [add_product(b, sums[r * columns + c], gs[r], xs[c]) for r in range(rows) for c in range(columns)]

        places = [cgutils.alloca_once(b, full.vector) for _ in range(rows * columns)]
        for place in places:
            b.store(full.zero, place)
        with b.if_then(b.icmp_signed(">", steps, _I64(0))):
            new = products_over(
                b,
                rows * columns,
                full.zero,
                _I64(0),
                steps,
                lambda t, sums: products(full, b.mul(t, _I64(VECTOR)), sums),
            )
            for place, value in zip(places, new, strict=True):
                b.store(value, place)
        with b.if_then(b.icmp_signed(">", tail, _I64(0))):
            part = Vectors(b, element, tail, True)
            so_far = [b.load(place) for place in places]
            new = products(part, b.mul(steps, _I64(VECTOR)), so_far)
            for place, value in zip(places, new, strict=True):
                b.store(value, place)
        double = ir.DoubleType()
        for r in range(rows):
            for c in range(columns):
                total = _add_lanes(b, b.load(places[r * columns + c]), full.lanes)
                if full.size == 4:
                    total = b.fpext(total, double)
                place = b.add(sums, b.add(b.mul(sums_row, _I64(r)), _I64(8 * c)))
                pointer = b.inttoptr(place, double.as_pointer())
                b.store(b.fadd(b.load(pointer), total), pointer)
        return context.get_dummy_value()

    @intrinsic
    def correlation(typing, x, offsets, q, g, g_row, steps, tail, sums, sums_row, item):  # type: ignore[no-untyped-def]
        return types.void(*[types.int64] * 9, item), codegen

    return correlation


def _halves(b: Any, vector: Any, lanes: int) -> tuple[Any, Any, int]:
    places, undefined = ir.VectorType(_I32, lanes // 2), ir.Constant(vector.type, ir.Undefined)
    low, high = range(lanes // 2), range(lanes // 2, lanes)
    halves = [b.shuffle_vector(vector, undefined, ir.Constant(places, list(h))) for h in (low, high)]
    return halves[0], halves[1], lanes // 2


def _add_lanes(b: Any, vector: Any, lanes: int) -> Any:
    """The sum of the lanes, halves onto halves."""
    while lanes > 1:
        low, high, lanes = _halves(b, vector, lanes)
        vector = b.fadd(low, high)
    return b.extract_element(vector, _I32(0))


@intrinsic
def peak(typing, address, count, item):  # type: ignore[no-untyped-def]
    """The largest magnitude of ``count`` numbers, full vectors of them; infinity for NaN."""

    def codegen(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        address, count, _ = arguments
        element = element_of(signature.args[-1])
        memory = Vectors(b, element, None, False)
        infinite = ir.Constant(memory.vector, [float("inf")] * memory.lanes)

        def step(q: Any, peaks: list[Any]) -> list[Any]:
            signed = memory.load(b.add(address, b.mul(q, _I64(VECTOR))))
            below = b.fcmp_ordered("<", signed, memory.zero)
            value = b.select(below, b.fneg(signed), signed)
            value = b.select(b.fcmp_ordered("<", value, infinite), value, infinite)
            return [b.select(b.fcmp_ordered(">", value, peaks[0]), value, peaks[0])]

        vectors = b.udiv(count, _I64(memory.lanes))
        (largest,) = products_over(b, 1, memory.zero, _I64(0), vectors, step)
        lanes = memory.lanes
        while lanes > 1:
            low, high, lanes = _halves(b, largest, lanes)
            largest = b.select(b.fcmp_ordered(">", low, high), low, high)
        result = b.extract_element(largest, _I32(0))
        return b.fpext(result, ir.DoubleType()) if memory.size == 4 else result

    return types.float64(types.int64, types.int64, item), codegen
