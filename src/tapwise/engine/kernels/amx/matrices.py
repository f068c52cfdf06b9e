"""The processor's matrices (Intel AMX) for Numba: sums of products of bfloat16 numbers, as LLVM instructions.

Eight registers hold a matrix each, of 16 rows of 64 bytes. One instruction multiplies 16 x 32 by 32 x 16 numbers
and adds the products to 16 x 16 sums in float32.

# registers   0 1   sums of a step: 32 rows, 32 columns        4 5   inputs, rows 0...15 and 16...31
#             2 3                                              6 7   weight, columns 0...15 and 16...31

A thread that uses the registers first says their shapes (``configure``), and gives them back (``release_matrices``).
Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from tapwise.engine.kernels.amx.layout import MATRIX_BYTES, ROW_BYTES, ROWS, SUMS
from tapwise.engine.kernels.loops.transposing import transposed_vectors
from tapwise.engine.kernels.loops.vectors import Vectors

_I8, _I16, _I32, _I64 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)
_POINTER = _I8.as_pointer()
_LANES = 16


class _BFloat(ir.Type):
    """LLVM's type of the numbers, which llvmlite doesn't have."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


_FLOATS, _INTEGERS = ir.VectorType(ir.FloatType(), _LANES), ir.VectorType(_I32, _LANES)
_SHORTS, _BFLOATS = ir.VectorType(_I16, _LANES), ir.VectorType(_BFloat(), _LANES)


def _call(b: Any, name: str, arguments: list[Any]) -> None:
    kind = ir.FunctionType(ir.VoidType(), [a.type for a in arguments])
    b.call(b.module.globals.get(name) or ir.Function(b.module, kind, name), arguments)


def _load(b: Any, register: int, address: Any, row: Any) -> None:
    _call(b, "llvm.x86.tileloadd64", [_I8(register), b.inttoptr(address, _POINTER), row])


@intrinsic
def configure(typing):  # type: ignore[no-untyped-def]
    """Let all eight registers have 16 rows of 64 bytes."""

    def codegen(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        # palette, first row, 14 bytes of zeros; bytes of a row, for each of 16 registers; rows, for each of them
        shape = [1, 0, *[0] * 14, *([ROW_BYTES, 0] * 8), *[0] * 16, *[ROWS] * 8, *[0] * 8]
        kind = ir.ArrayType(_I8, len(shape))
        place = cgutils.alloca_once(b, kind)
        b.store(ir.Constant(kind, shape), place)
        _call(b, "llvm.x86.ldtilecfg", [b.bitcast(place, _POINTER)])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def release_matrices(typing):  # type: ignore[no-untyped-def]
    """Give the registers back."""

    def codegen(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        _call(b, "llvm.x86.tilerelease", [])
        return context.get_dummy_value()

    return types.void(), codegen


def make_step(tiles: int, columns: int) -> Any:
    """``step(x, x_row, taps, tap, chunks, weight, bias, y, y_row)``, for compiled code: 32 rows of a panel, or 16.

    ``y[r, o] = bias[o] + sum over k, c of x[r, k, c] * weight[k, c, o]``: rows lie ``x_row`` and ``y_row`` bytes
    apart, taps ``tap``. A row has ``chunks`` matrices of channels.

    Arguments:
        tiles: matrices of rows, 1 or 2.
        columns: matrices of columns, 1 or 2.
    """

    def codegen(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        x, x_row, taps, tap, chunks, weight, bias, y, y_row = arguments
        second = b.mul(x_row, _I64(ROWS))
        for r in range(tiles):
            for c in range(columns):  # a row of the bias, 16 times
                _load(b, 2 * r + c, b.add(bias, _I64(c * ROW_BYTES)), _I64(0))
        with cgutils.for_range(b, taps) as over_taps:
            row = b.add(x, b.mul(over_taps.index, tap))
            panel = b.add(weight, b.mul(b.mul(over_taps.index, chunks), _I64(2 * MATRIX_BYTES)))
            with cgutils.for_range(b, chunks) as over_chunks:
                a = b.add(row, b.mul(over_chunks.index, _I64(ROW_BYTES)))
                w = b.add(panel, b.mul(over_chunks.index, _I64(2 * MATRIX_BYTES)))
                _load(b, 4, a, x_row)
                for c in range(columns):
                    _load(b, 6 + c, b.add(w, _I64(c * MATRIX_BYTES)), _I64(ROW_BYTES))
                if tiles > 1:
                    _load(b, 5, b.add(a, second), x_row)
                for r in range(tiles):
                    for c in range(columns):
                        _call(b, "llvm.x86.tdpbf16ps", [_I8(2 * r + c), _I8(4 + r), _I8(6 + c)])
        for r in range(tiles):
            start = b.add(y, b.mul(y_row, _I64(r * ROWS)))
            for c in range(columns):
                place = b.inttoptr(b.add(start, _I64(c * ROW_BYTES)), _POINTER)
                _call(b, "llvm.x86.tilestored64", [_I8(2 * r + c), place, y_row])
        return context.get_dummy_value()

    @intrinsic
    def step(typing, x, x_row, taps, tap, chunks, weight, bias, y, y_row):  # type: ignore[no-untyped-def]
        return types.void(*[types.int64] * 9), codegen

    return step


def _rounded(b: Any, vector: Any) -> Any:
    """Numbers as bfloat16, in 16 bits each."""
    return b.bitcast(b.fptrunc(vector, _BFLOATS), _SHORTS)


def _loaded_shorts(b: Any, vectors: Vectors, address: Any, count: Any) -> Any:
    """16 numbers of 16 bits, those from ``count`` on zeros."""
    pointer = _SHORTS.as_pointer()
    kind = ir.FunctionType(_SHORTS, [pointer, _I32, vectors.mask.type, _SHORTS])
    name = "llvm.masked.load.v16i16.p0"
    function = b.module.globals.get(name) or ir.Function(b.module, kind, name)
    return b.call(function, [b.inttoptr(address, pointer), _I32(2), vectors.mask, ir.Constant(_SHORTS, [0] * _LANES)])


def make_import(size: int) -> Any:
    """``rows(x, channel, channels, zeros, count, y, y_row)``, for compiled code: 32 channels as rows of bfloat16.

    The first ``count`` of 16 numbers of each channel, ``channel`` bytes apart, become rows of 64 bytes; ``count`` of
    them are written. Channels from ``channels`` on are read at ``zeros``.

    Arguments:
        size: bytes of a number: 4, float32, which is rounded; or 2.
    """

    def codegen(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        x, channel, channels, zeros, count, y, y_row = arguments
        masked = Vectors(b, ir.FloatType(), count, True)

        def halves(c: int) -> Any:
            address = b.select(b.icmp_signed("<", _I64(c), channels), b.add(x, b.mul(channel, _I64(c))), zeros)
            if size == 2:
                return b.zext(_loaded_shorts(b, masked, address, count), _INTEGERS)
            return b.zext(_rounded(b, masked.load(address)), _INTEGERS)

        sixteen = ir.Constant(_INTEGERS, [16] * _LANES)
        pairs = [b.or_(halves(c), b.shl(halves(c + 1), sixteen)) for c in range(0, 2 * _LANES, 2)]
        whole = ir.VectorType(_I32, _LANES).as_pointer()
        for t, row in enumerate(transposed_vectors(b, pairs)):
            with b.if_then(b.icmp_signed("<", _I64(t), count), likely=True):
                b.store(row, b.inttoptr(b.add(y, b.mul(y_row, _I64(t))), whole), align=4)
        return context.get_dummy_value()

    @intrinsic
    def rows(typing, x, channel, channels, zeros, count, y, y_row):  # type: ignore[no-untyped-def]
        return types.void(*[types.int64] * 7), codegen

    return rows


def make_export(size: int) -> Any:
    """``columns(x, x_row, channels, count, y, channel)``, for compiled code: 16 rows of sums as channels.

    The first ``channels`` of 16 sums of each row, of which ``count`` rows count, become ``count`` numbers of each
    channel, ``channel`` bytes apart.

    Arguments:
        size: bytes of a number: 4, or 2 of bfloat16, to which sums are rounded.
    """

    def codegen(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        x, x_row, channels, count, y, channel = arguments
        full, masked = Vectors(b, ir.FloatType(), None, False), Vectors(b, ir.FloatType(), count, True)
        rows = [full.load(b.add(x, b.mul(x_row, _I64(r)))) for r in range(SUMS)]
        for c, column in enumerate(transposed_vectors(b, rows)):
            with b.if_then(b.icmp_signed("<", _I64(c), channels), likely=True):
                place = b.add(y, b.mul(channel, _I64(c)))
                if size == 4:
                    masked.store(column, place)
                    continue
                pointer = _SHORTS.as_pointer()
                kind = ir.FunctionType(ir.VoidType(), [_SHORTS, pointer, _I32, masked.mask.type])
                name = "llvm.masked.store.v16i16.p0"
                function = b.module.globals.get(name) or ir.Function(b.module, kind, name)
                b.call(function, [_rounded(b, column), b.inttoptr(place, pointer), _I32(2), masked.mask])
        return context.get_dummy_value()

    @intrinsic
    def columns(typing, x, x_row, channels, count, y, channel):  # type: ignore[no-untyped-def]
        return types.void(*[types.int64] * 6), codegen

    return columns


@intrinsic
def round_to_bfloat16(typing, x, y, count):  # type: ignore[no-untyped-def]
    """The first ``count`` of 16 float32 numbers at an address, as bfloat16, and zeros to 16, at another."""

    def codegen(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        x, y, count = arguments
        value = Vectors(b, ir.FloatType(), count, True).load(x)
        b.store(_rounded(b, value), b.inttoptr(y, _SHORTS.as_pointer()), align=2)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), codegen
