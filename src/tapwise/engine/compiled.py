"""Compiled loops: compiled by Numba once, cached on disk, and loaded in later processes without it.

To import Numba and set up its types takes longer than any loop compiled here takes to load; so LLVM's
binding alone, a small library under Numba, loads what an earlier process compiled. A folder that can't
be written, or a damaged file, costs time and nothing else.
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

import numpy as np
import platformdirs

from tapwise.atomic_file import AtomicFile

_KERNELS = Path(__file__).parent / "kernels"
_MONTH = 30 * 24 * 3600
_lock = RLock()
_engines: list[Any] = []  # LLVM's engines, which own the code, for as long as the process lives
_loops: dict[tuple[str, str], CompiledLoop] = {}
_is_announced = False
# What a loop takes to compile, roughly: for the message alone.
COMPILE_SECONDS = 15


def _after_fork() -> None:
    """A lock that another thread held at the fork would never open in the child."""
    global _lock
    _lock = RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class CompiledLoop:
    """A compiled function of one address, that of a job; it runs without the interpreter's lock."""

    def __init__(self, address: int) -> None:
        self.address = address
        self.call = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)


def loop(module: str, name: str, announce: bool = True) -> CompiledLoop:
    """A function of a module of ``tapwise.engine.kernels``, compiled for numbers of some sizes.

    Arguments:
        module: where the function is, imported only to compile it.
        name: the function's, then the bits of each kind of number: ``"frames_32_64"``.
        announce: say on a terminal that it has to be compiled, where it has.
    """
    found = _loops.get((module, name))
    if found is None:
        with _lock:
            found = _loops.get((module, name))
            if found is None:
                found = _loops[module, name] = _prepare(module, name, announce)
    return found


def folder() -> Path:
    """Where compiled code is cached: ``TAPWISE_CACHE_DIR``, or the user's cache folder."""
    chosen = os.environ.get("TAPWISE_CACHE_DIR")
    return Path(chosen) if chosen else platformdirs.user_cache_path("tapwise", appauthor=False)


def is_cached(module: str, name: str) -> bool:
    """Whether the code is on disk."""
    return _read(module, name) is not None


@lru_cache(maxsize=64)
def obstacle(module: str, name: str) -> str | None:
    """Why that function can't run here; None where it is cached, or Numba can compile it."""
    if find_spec("numba") is None:
        return "Numba is not installed"
    try:
        if is_cached(module, name):
            return None
        import numba
    except Exception as error:  # whatever a broken installation raises
        return f"Numba can't be imported: {error}"
    if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
        return "NUMBA_DISABLE_JIT turns the compiler off"
    return None


def _prepare(module: str, name: str, announce: bool) -> CompiledLoop:
    code = _read(module, name)
    if code is None:
        if announce:
            _announce()
        code = _compile(module, name)
        _write(module, name, code)
    return CompiledLoop(_load(code, name))


def _announce() -> None:
    """Say on a terminal, once, why the first call takes long."""
    global _is_announced
    if not _is_announced and sys.stderr is not None and sys.stderr.isatty():
        print(
            f"tapwise: compiling loops for this processor, about {COMPILE_SECONDS} s each, once; they "
            f"are cached in {folder()}. 'tapwise doctor --warm' does it ahead.",
            file=sys.stderr,
            flush=True,
        )
    _is_announced = True


def _file(module: str, name: str) -> Path:
    return folder() / f"{module.replace('.', '_')}-{name}-{_fingerprint()}.o"


@cache
def _fingerprint() -> str:
    """What the machine code depends on: our sources, the compiler and the processor."""
    cpu, features = processor()
    digest = sha256(f"{version('numba')} {version('llvmlite')} {cpu} {features} {vector_bytes()}".encode())
    threads = Path(__file__).with_name("threads.py")  # the head of a job
    loops = (source for name in ("direct", "fft", "loops") for source in sorted((_KERNELS / name).glob("*.py")))
    for source in (*loops, threads, Path(__file__)):
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
    sizes = [size for feature, size in wide.items() if feature in features.split(",")]
    # A name alone, given to compile for another processor, counts as x86-64-v3.
    return max(sizes, default=16 if features or "86" not in platform.machine() else 32)


def _read(module: str, name: str) -> bytes | None:
    try:
        path = _file(module, name)
        data = path.read_bytes()
    except (OSError, RuntimeError):  # RuntimeError: the user has no home
        return None
    with suppress(OSError):
        os.utime(path)  # in use: see _remove_others
    digest, code = data[:32], data[32:]
    return code if sha256(code).digest() == digest else None


def _write(module: str, name: str, code: bytes) -> None:
    try:
        path = _file(module, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        target = AtomicFile(path)
        try:
            target.file.write(sha256(code).digest() + code)
            target.commit()
        except OSError:
            target.discard()
        _remove_others(path, f"{module.replace('.', '_')}-{name}-")
    except (OSError, RuntimeError):
        pass  # a later process compiles again


def _remove_others(path: Path, prefix: str) -> None:
    """Delete what other versions cached of the same function and nobody has read for a month."""
    for other in path.parent.glob(f"{prefix}*.o"):
        if other != path and time.time() - other.stat().st_mtime > _MONTH:
            other.unlink(missing_ok=True)


def _compile(module: str, name: str) -> bytes:
    """The object file of the function, whose symbol is ``name``."""
    import numba
    from llvmlite import binding
    from numba import types

    function_name, *bits = name.split("_")
    function = getattr(import_module(f"tapwise.engine.kernels.{module}"), function_name)
    items = tuple(np.dtype(f"f{int(n) // 8}").type(0) for n in bits)
    options = import_module("tapwise.engine.kernels.loops.jobs").OPTIONS
    signature = types.void(types.voidptr)
    compiled: Any = numba.cfunc(signature, **options)(lambda pointer: function(pointer, *items))
    code = binding.parse_assembly(compiled.inspect_llvm())
    # Numba wraps the function for Python's errors, and it raises none. The function alone is cached,
    # under a name of its own, so that it needs nothing but the C library where it is loaded. Its arrays
    # are views of memory that it doesn't own: there is nothing to destroy.
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
    _engines.append(engine)
    return int(engine.get_function_address(name))
