"""Machine code: loops compiled by Numba once, kept on disk, and loaded in later processes without it.

To import Numba and set up its types takes longer than any loop compiled here takes to load; so LLVM's
binding alone, a small library under Numba, loads what an earlier process compiled. A folder that can't
be written, or a file that isn't what was written, costs time and nothing else.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import time
from contextlib import suppress
from functools import cache, lru_cache
from hashlib import sha256
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from threading import RLock
from typing import Any

from tapwise.files import WholeFile

_LOOPS = Path(__file__).parent / "kernels"
_A_MONTH = 30 * 24 * 3600
_lock = RLock()
_kept: list[Any] = []  # engines whose code is in use: all of them, as long as the process lives
_bodies: dict[tuple[str, str], Body] = {}


def _after_fork() -> None:
    """A lock that another thread held at the fork would never open in the child."""
    global _lock
    _lock = RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Body:
    """A compiled function of one address, that of a job's numbers; the interpreter's lock is let go."""

    def __init__(self, address: int) -> None:
        self.address = address
        self.call = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)


def body(module: str, name: str) -> Body:
    """The function of that name in that module of ``tapwise.engine.kernels``, as machine code."""
    known = _bodies.get((module, name))
    if known is None:
        with _lock:
            known = _bodies.get((module, name))
            if known is None:
                known = _bodies[module, name] = _ready(module, name)
    return known


def folder() -> Path:
    """Where compiled code is kept: ``TAPWISE_CACHE_DIR``, or the user's cache folder."""
    if chosen := os.environ.get("TAPWISE_CACHE_DIR"):
        return Path(chosen)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "tapwise" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "tapwise"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tapwise"


def kept(module: str, name: str) -> bool:
    """Whether the disk holds the machine code already."""
    return _read(module, name) is not None


@lru_cache(maxsize=64)
def why_not(module: str, name: str) -> str | None:
    """Why that function can't be had here; None where it is kept, or Numba can compile it."""
    if find_spec("numba") is None:
        return "Numba is not installed"
    try:
        if kept(module, name):
            return None
        import numba
    except Exception as error:  # whatever a broken installation raises
        return f"Numba can't be imported: {error}"
    if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
        return "NUMBA_DISABLE_JIT turns the compiler off"
    return None


def _ready(module: str, name: str) -> Body:
    code = _read(module, name)
    if code is None:
        code = _compile(module, name)
        _write(module, name, code)
    return Body(_load(code, name))


def _file(module: str, name: str) -> Path:
    return folder() / f"{module.strip('_')}-{name}-{_fingerprint()}.o"


@cache
def _fingerprint() -> str:
    """What the machine code depends on: our sources, the compiler and the processor."""
    cpu, features = processor()
    digest = sha256(
        f"{version('numba')} {version('llvmlite')} {cpu} {features} {vector_bytes()}".encode()
    )
    threads = Path(__file__).with_name("threads.py")  # the head of a job
    for source in (*sorted(_LOOPS.glob("_*.py")), threads, Path(__file__)):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:24]


def processor() -> tuple[str, str]:
    """The name and the features of the processor to compile for, as LLVM writes them.

    ``NUMBA_CPU_NAME`` and ``NUMBA_CPU_FEATURES`` choose another, as they do for Numba.
    """
    from llvmlite import binding

    if name := os.environ.get("NUMBA_CPU_NAME"):
        return name, os.environ.get("NUMBA_CPU_FEATURES", "")
    return binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten()


@cache
def vector_bytes() -> int:
    """Bytes of the processor's vectors, which our loops are made of."""
    _, features = processor()
    wide = {"+avx512f": 64, "+avx": 32}
    known = [size for feature, size in wide.items() if feature in features.split(",")]
    # A name alone, given to compile for another processor, is taken for one of x86-64-v3.
    return max(known, default=16 if features or "86" not in platform.machine() else 32)


def _read(module: str, name: str) -> bytes | None:
    try:
        path = _file(module, name)
        data = path.read_bytes()
    except (OSError, RuntimeError):  # RuntimeError: the user has no home
        return None
    with suppress(OSError):
        os.utime(path)  # in use: see _forget_others
    digest, code = data[:32], data[32:]
    return code if sha256(code).digest() == digest else None


def _write(module: str, name: str, code: bytes) -> None:
    try:
        path = _file(module, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = WholeFile(path)
        try:
            whole.file.write(sha256(code).digest() + code)
            whole.commit()
        except OSError:
            whole.discard()
        _forget_others(path, f"{module.strip('_')}-{name}-")
    except (OSError, RuntimeError):
        pass  # a later process compiles again


def _forget_others(path: Path, beginning: str) -> None:
    """Delete what other versions kept of the same function and nobody has read for a month."""
    for other in path.parent.glob(f"{beginning}*.o"):
        if other != path and time.time() - other.stat().st_mtime > _A_MONTH:
            other.unlink(missing_ok=True)


def _compile(module: str, name: str) -> bytes:
    """The object file of the function, whose symbol is ``name``."""
    import numba
    from llvmlite import binding
    from numba import types

    function = getattr(import_module(f"tapwise.engine.kernels.{module}"), name)
    signature = types.void(types.CPointer(types.int64))  # type: ignore[no-untyped-call]
    options: Any = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}
    compiled: Any = numba.cfunc(signature, **options)(function)
    code = binding.parse_assembly(compiled.inspect_llvm())
    # Numba wraps the function for Python's errors, which it has none of; what is kept is the function
    # alone, under a name of its own, so that it needs nothing but the C library where it is loaded.
    # Its arrays are views of memory that it doesn't own: there is nothing to destroy.
    inner = compiled.native_name.removeprefix("cfunc.")
    code.link_in(binding.parse_assembly(_ENTRY.format(inner=inner, name=name)))
    for other in code.functions:
        if not other.is_declaration and other.name != name:
            other.linkage = "internal"
    passes = binding.create_new_module_pass_manager()
    passes.add_global_dead_code_eliminate_pass()
    builder = binding.create_pass_builder(_target(), binding.create_pipeline_tuning_options())
    passes.run(code, builder)
    return bytes(_target().emit_object(code))


_ENTRY = """
declare i32 @"{inner}"(ptr, ptr, ptr)
define void @"{name}"(ptr %job) {{
  %result = alloca ptr
  %error = alloca ptr
  %status = call i32 @"{inner}"(ptr %result, ptr %error, ptr %job)
  ret void
}}
define void @NRT_MemInfo_call_dtor(ptr %memory) {{
  ret void
}}
"""


@cache
def _target() -> Any:
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    cpu, features = processor()
    target = binding.Target.from_default_triple()
    return target.create_target_machine(
        cpu=cpu, features=features, opt=3, reloc="default", codemodel="jitdefault", jit=True
    )


def _load(code: bytes, name: str) -> int:
    from llvmlite import binding

    _target()
    empty = binding.parse_assembly("")
    engine = binding.create_mcjit_compiler(empty, _target())
    engine.add_object_file(binding.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _kept.append(engine)
    return int(engine.get_function_address(name))
