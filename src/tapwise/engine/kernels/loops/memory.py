"""Memory and tasks for compiled loops: what Numba has no words for, as a few LLVM instructions each.

# load(address, item)     item's type:   [address] ->  number
# store(address, value)                  number    ->  [address]
# copy(target, source, n)                n bytes   ->  [target]
# allocate(n) / release(address)         malloc and free of the C library
# fetch_tasks / end_tasks                the thread pool's own functions, called at their address

``item`` is a number of the element's type, zero by convention: it carries the type, as templates do.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_I64 = ir.IntType(64)
_BYTES = ir.IntType(8).as_pointer()


@intrinsic
def size_of(typing, item):  # type: ignore[no-untyped-def]
    """Bytes of a number of item's type, a constant of the compiled loop."""

    def codegen(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        return _I64(signature.args[0].bitwidth // 8)

    return types.int64(item), codegen


@intrinsic
def load(typing, address, item):  # type: ignore[no-untyped-def]
    """The number of item's type at an address."""

    def codegen(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        kind = context.get_value_type(signature.args[1]).as_pointer()
        return b.load(b.inttoptr(arguments[0], kind))

    return item(types.int64, item), codegen


@intrinsic
def store(typing, address, value):  # type: ignore[no-untyped-def]
    """Write a number at an address."""

    def codegen(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        b.store(arguments[1], b.inttoptr(arguments[0], arguments[1].type.as_pointer()))
        return context.get_dummy_value()

    return types.void(types.int64, value), codegen


@intrinsic
def copy(typing, target, source, size):  # type: ignore[no-untyped-def]
    """Copy ``size`` bytes from one address to another."""

    def codegen(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        signature = [_BYTES, _BYTES, _I64, ir.IntType(1)]
        function = _function(b.module, "llvm.memcpy.p0.p0.i64", ir.VoidType(), signature)
        target, source, size = arguments
        not_volatile = ir.IntType(1)(0)
        b.call(function, [b.inttoptr(target, _BYTES), b.inttoptr(source, _BYTES), size, not_volatile])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def move(typing, target, source, size):  # type: ignore[no-untyped-def]
    """Copy ``size`` bytes from one address to another, which may overlap."""

    def codegen(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        signature = [_BYTES, _BYTES, _I64, ir.IntType(1)]
        function = _function(b.module, "llvm.memmove.p0.p0.i64", ir.VoidType(), signature)
        target, source, size = arguments
        not_volatile = ir.IntType(1)(0)
        b.call(function, [b.inttoptr(target, _BYTES), b.inttoptr(source, _BYTES), size, not_volatile])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def array_at(typing, address, item):  # type: ignore[no-untyped-def]
    """A pointer to numbers of item's type, for ``numba.carray``."""

    def codegen(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        return b.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(item)(types.int64, item), codegen


@intrinsic
def pointer_at(typing, address):  # type: ignore[no-untyped-def]
    """A pointer without a type, for ``numba.carray`` of records."""

    def codegen(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        return b.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.voidptr(types.int64), codegen


@intrinsic
def allocate(typing, size):  # type: ignore[no-untyped-def]
    """The address of ``size`` bytes until ``release``; 0 where there is no memory."""

    def codegen(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        return b.call(_function(b.module, "malloc", _I64, [_I64]), arguments)

    return types.int64(types.int64), codegen


@intrinsic
def release(typing, address):  # type: ignore[no-untyped-def]
    """Give back what ``allocate`` gave."""

    def codegen(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        b.call(_function(b.module, "free", ir.VoidType(), [_I64]), arguments)
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def two_integers(typing):  # type: ignore[no-untyped-def]
    """The address of space for two integers, as long as the function runs."""

    def codegen(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        return b.ptrtoint(cgutils.alloca_once(b, ir.ArrayType(_I64, 2)), _I64)

    return types.int64(), codegen


@intrinsic
def fetch_tasks(typing, function, begin, end):  # type: ignore[no-untyped-def]
    """Whether the pool has more tasks; their range is then written to two addresses.

    ``function`` is the address of the pool's function, as ``threads`` found it.
    """

    def codegen(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(8), [_I64, _I64])
        answer = b.call(b.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])
        return b.zext(b.and_(answer, ir.IntType(8)(1)), _I64)

    return types.int64(types.int64, types.int64, types.int64), codegen


@intrinsic
def end_tasks(typing, function):  # type: ignore[no-untyped-def]
    """Tell the pool that this thread has fetched its last task."""

    def codegen(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [])
        b.call(b.inttoptr(arguments[0], kind.as_pointer()), [])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def call_loop(typing, function, job):  # type: ignore[no-untyped-def]
    """Call a compiled loop, at its address, with a job."""

    def codegen(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [_I64])
        b.call(b.inttoptr(arguments[0], kind.as_pointer()), [arguments[1]])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def start_tasks(typing, start, function, job, threads, tasks, tasks_a_turn):  # type: ignore[no-untyped-def]
    """Let the pool's threads call a compiled loop with a job; ``start`` is the address of the pool's function."""

    def codegen(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        start, function, job, threads, tasks, tasks_a_turn = arguments
        i32 = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [_I64, _I64, i32, _I64, _I64, _I64, _I64, i32])
        values = [function, job, b.trunc(threads, i32), _I64(0), tasks, _I64(1), tasks_a_turn, i32(0)]
        b.call(b.inttoptr(start, kind.as_pointer()), values)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), codegen


def _function(module: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    found = module.globals.get(name)
    return found or ir.Function(module, ir.FunctionType(result, arguments), name)
