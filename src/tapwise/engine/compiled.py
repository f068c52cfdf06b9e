"""Compiled loops: compiled by Numba once, cached on disk, and loaded in later processes without it.

To import Numba and set up its types takes longer than any loop compiled here takes to load; so LLVM's
binding alone, a small library under Numba, loads what an earlier process compiled. A folder that can't
be written, or a damaged file, costs time and nothing else.

A file is machine code that this process will run, so it is loaded only where its digest covers what it is
for, and where nobody but its user, or root, may have written it. Of several processes that need a loop,
one compiles it and the others wait for its file.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
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

try:
    import fcntl
except ImportError:  # no such locks here: each process compiles for itself
    fcntl = None  # type: ignore[assignment]

_KERNELS = Path(__file__).parent / "kernels"
_MONTH = 30 * 24 * 3600
_lock = RLock()
_engines: list[Any] = []  # LLVM's engines, which own the code, for as long as the process lives
_loops: dict[tuple[str, str], CompiledLoop] = {}
_is_announced = False
_is_held = False
# Seconds that a fork waits for a loop to be compiled.
_LONGEST_WAIT = 60.0
# What loops take to compile, about, on two cores of an AMD EPYC (Zen 3) of 2026; for messages alone.
_SECONDS = {
    "convolve": 15,
    "program": 25,
    "sequence": 2,
    "weights": 2,
    "filtering": 10,
    "packing": 2,
    "products": 5,
    "gradients": 4,
    "filters": 1,
    "frames": 4,
    "outputs": 1,
}
_LONGEST = 15


def _before_fork() -> None:
    """Let no thread be within LLVM at a fork: its own locks would never open in the child."""
    global _is_held
    _is_held = _lock.acquire(timeout=_LONGEST_WAIT)


def _after_fork() -> None:
    global _is_held
    if _is_held:  # not where this module was imported between the two
        _is_held = False
        _lock.release()


def _after_fork_in_child() -> None:
    global _lock, _is_held
    _lock, _is_held = RLock(), False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)


class CompiledLoop:
    """A compiled function of one address, that of a job; it runs without the interpreter's lock.

    Arguments:
        bits: of each kind of number that it computes with.
    """

    def __init__(self, address: int, bits: tuple[int, ...]) -> None:
        self.address, self.bits = address, bits
        self.call = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)


def loop(module: str, name: str) -> CompiledLoop:
    """A function of a module of ``tapwise.engine.kernels``, compiled for numbers of some sizes.

    Where it has to be compiled, that is said: on a terminal, or as ``announce_by`` says.

    Arguments:
        module: where the function is, imported only to compile it.
        name: the function's, then the bits of each kind of number: ``"frames_32_64"``.
    """
    found = _loops.get((module, name))
    if found is None:
        with _lock:
            found = _loops.get((module, name))
            if found is None:
                found = _loops[module, name] = _prepare(module, name)
    return found


def missing(loops: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those, by module and name, that would have to be compiled."""
    return [key for key in loops if key not in _loops and not is_cached(*key)]


def seconds_of(loops: Iterable[tuple[str, str]]) -> int:
    """About how many seconds it takes to compile some loops, one by one."""
    return sum(_SECONDS.get(name.partition("_")[0], _LONGEST) for _, name in loops)


def announce_by(say: Callable[[str], None]) -> None:
    """Say by a function, not on a terminal alone, that loops have to be compiled."""
    global _say
    _say = say


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


def _prepare(module: str, name: str) -> CompiledLoop:
    code = _read(module, name)
    if code is None:
        with _compiling(module, name):
            code = _read(module, name)  # another process may have compiled it meanwhile
            if code is None:
                announce(seconds_of([(module, name)]))
                code = _compile(module, name)
                _write(module, name, code)
    return CompiledLoop(_load(code, name), _bits(name))


@contextmanager
def _compiling(module: str, name: str) -> Iterator[None]:
    """Of all processes that share the folder, one at a time; a lock ends with its process."""
    descriptor = None
    try:
        path = _file(module, name).with_suffix(".lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        if fcntl is not None:
            fcntl.lockf(descriptor, fcntl.LOCK_EX)  # by process: a forked child doesn't hold it
    except (OSError, RuntimeError):
        pass  # a folder that can't be written, or has no locks: compile beside the others
    try:
        yield
    finally:
        if descriptor is not None:
            with suppress(OSError):
                path.unlink(missing_ok=True)
            os.close(descriptor)


def _bits(name: str) -> tuple[int, ...]:
    """Of each kind of number, as a loop's name has them: (32, 64) of ``"frames_32_64"``."""
    return tuple(int(n) for n in name.split("_")[1:])


def announce(seconds: int) -> None:
    """Say, once, why the first call takes long."""
    global _is_announced
    if not _is_announced:
        _say(
            f"tapwise: compiling for this processor, once: about {seconds} s (cached in {folder()}; "
            "'tapwise doctor --warm' does it ahead)"
        )
    _is_announced = True


def _say_on_terminal(text: str) -> None:
    if sys.stderr is not None and sys.stderr.isatty():
        print(text, file=sys.stderr, flush=True)


_say: Callable[[str], None] = _say_on_terminal


def _file(module: str, name: str) -> Path:
    return folder() / f"{module.replace('.', '_')}-{name}-{fingerprint()}.o"


@cache
def fingerprint() -> str:
    """What the machine code depends on: our sources, the compiler and the processor."""
    cpu, features = processor()
    digest = sha256(f"{version('numba')} {version('llvmlite')} {cpu} {features} {vector_bytes()}".encode())
    threads = Path(__file__).with_name("threads.py")  # the head of a job
    loops = (
        source
        for name in ("amx", "direct", "fft", "implicit_gemm", "loops", "program", "winograd")
        for source in sorted((_KERNELS / name).glob("*.py"))
    )
    inputs = _KERNELS / "inputs.py"  # the fields of a job that say where its inputs lie
    for source in (*loops, threads, inputs, Path(__file__)):
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
    """Bytes of the processor's vectors, which our loops are made of; without a compiler, none are made."""
    try:
        _, features = processor()
    except (ImportError, OSError):
        return 16
    wide = {"+avx512f": 64, "+avx": 32}
    sizes = [size for feature, size in wide.items() if feature in features.split(",")]
    # A name alone, given to compile for another processor, counts as x86-64-v3.
    return max(sizes, default=16 if features or "86" not in platform.machine() else 32)


@cache
def has_matrices() -> bool:
    """Whether the processor has matrices of bfloat16 (Intel AMX); whether the system lets them be used is not asked."""
    try:
        _, features = processor()
    except (ImportError, OSError):
        return False
    needed = {"+amx-tile", "+amx-bf16", "+avx512f", "+avx512bf16", "+avx512bw", "+avx512vl"}
    return needed <= set(features.split(","))


def _read(module: str, name: str) -> bytes | None:
    try:
        path = _file(module, name)
        with path.open("rb") as file:
            if not _is_trusted(os.fstat(file.fileno())):
                return None
            data = file.read()
    except (OSError, RuntimeError):  # RuntimeError: the user has no home
        return None
    with suppress(OSError):
        os.utime(path)  # in use: see _remove_others
    digest, code = data[:32], data[32:]
    return code if _digest(path, code) == digest else None


def _digest(path: Path, code: bytes) -> bytes:
    """Of the code and of what it is for, which the file's name says."""
    return sha256(path.name.encode() + b"\0" + code).digest()


def _is_trusted(status: os.stat_result) -> bool:
    """Whether nobody but this user, or root, may have written the file."""
    if not hasattr(os, "getuid"):
        return True
    return status.st_uid in (os.getuid(), 0) and not status.st_mode & 0o022


def _write(module: str, name: str, code: bytes) -> None:
    try:
        path = _file(module, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        target = AtomicFile(path, in_place=False)
        try:
            if hasattr(os, "fchmod"):
                os.fchmod(target.file.fileno(), 0o644)  # whatever the umask: see _is_trusted
            target.file.write(_digest(path, code) + code)
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

    function = getattr(import_module(f"tapwise.engine.kernels.{module}"), name.split("_")[0])
    items = tuple(np.dtype(f"f{bits // 8}").type(0) for bits in _bits(name))
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
    address = int(engine.get_function_address(name))
    if not address:
        raise RuntimeError(f"the compiled code holds no function {name}: delete {folder()}")
    _engines.append(engine)
    return address
