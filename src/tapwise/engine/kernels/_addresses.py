"""Memory and threads for compiled loops: numbers at addresses, and tasks from the pool."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_I64 = ir.IntType(64)


@intrinsic
def peek(typing, address, item):  # type: ignore[no-untyped-def]
    """The number of item's type at an address."""

    def codegen(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        return b.load(
            b.inttoptr(arguments[0], context.get_value_type(signature.args[1]).as_pointer())
        )

    return item(types.int64, item), codegen


@intrinsic
def poke(typing, address, value):  # type: ignore[no-untyped-def]
    """Write a number at an address."""

    def codegen(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        b.store(arguments[1], b.inttoptr(arguments[0], arguments[1].type.as_pointer()))
        return context.get_dummy_value()

    return types.void(types.int64, value), codegen


@intrinsic
def copy(typing, target, source, size):  # type: ignore[no-untyped-def]
    """Copy so many bytes from one address to another."""

    def codegen(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        name = "llvm.memcpy.p0.p0.i64"
        function = b.module.globals.get(name) or ir.Function(
            b.module, ir.FunctionType(ir.VoidType(), [byte, byte, _I64, ir.IntType(1)]), name
        )
        target, source, size = arguments
        b.call(
            function, [b.inttoptr(target, byte), b.inttoptr(source, byte), size, ir.IntType(1)(0)]
        )
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def fetch_tasks(typing, function, begin, end):  # type: ignore[no-untyped-def]
    """Whether the pool has more tasks; their range is then written to two addresses.

    ``function`` is where the pool's function stands, as ``threads`` found it.
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
def pointer(typing, address, item):  # type: ignore[no-untyped-def]
    """A pointer to numbers of item's type, for ``numba.carray``."""

    def codegen(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        return b.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(item)(types.int64, item), codegen


@intrinsic
def allocate(typing, size):  # type: ignore[no-untyped-def]
    """The address of so many bytes of the C library's memory, until ``release``."""

    def codegen(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        return b.call(_c_function(b.module, "malloc", _I64, [_I64]), arguments)

    return types.int64(types.int64), codegen


@intrinsic
def release(typing, address):  # type: ignore[no-untyped-def]
    """Give back what ``allocate`` gave."""

    def codegen(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        b.call(_c_function(b.module, "free", ir.VoidType(), [_I64]), arguments)
        return context.get_dummy_value()

    return types.void(types.int64), codegen


def _c_function(module: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    found = module.globals.get(name)
    return found or ir.Function(module, ir.FunctionType(result, arguments), name)


@intrinsic
def pair(typing):  # type: ignore[no-untyped-def]
    """The address of room for two integers, as long as the function runs."""

    def codegen(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        return b.ptrtoint(cgutils.alloca_once(b, ir.ArrayType(_I64, 2)), _I64)

    return types.int64(), codegen
