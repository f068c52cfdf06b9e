"""Preparing: what several loops need is compiled at once, each in a process of its own.

Numba compiles on one thread, under one lock of LLVM. The processes share the folder of compiled code, from which
the loops are then loaded here. Where a process fails, or nothing can be kept, loops are compiled here, one by one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from tapwise.engine import compiled

Loop = tuple[str, str]

# Seconds of compiling below which a process of its own, which imports torch, gains nothing.
_WORTH_A_PROCESS = 4
# Each takes some hundred megabytes.
_MOST_PROCESSES = 4
_PROGRAM = "import sys; from tapwise.engine.compiled import loop; loop(*sys.argv[1:])"


def prepare(loops: Iterable[Loop]) -> None:
    """Compile what is missing of some loops, at once where there are processors for it, and load all of them."""
    loops = list(dict.fromkeys(loops))
    absent = compiled.missing(loops)
    if absent:
        compiled.announce(seconds_of(absent))
        for _ in compiled_beside(absent):
            pass
    for key in loops:
        compiled.loop(*key)


def seconds_of(loops: Sequence[Loop]) -> int:
    """About how many seconds ``prepare`` takes for loops that are missing."""
    alone = [compiled.seconds_of([key]) for key in loops]
    if _processes_for(loops) < 2:
        return sum(alone)
    return max(max(alone), sum(alone) // _processes_for(loops))


def compiled_beside(loops: Sequence[Loop]) -> Iterator[tuple[Loop, float]]:
    """Compile loops in processes of their own; each that was compiled, with its seconds, when it is done.

    Loops that take little are left out, and so are all where no two could be compiled at once.
    """
    waiting = sorted(_worthwhile(loops), key=lambda key: compiled.seconds_of([key]))
    count = _processes_for(loops)
    if count < 2 or not _can_keep():
        return
    running: dict[Loop, tuple[subprocess.Popen[bytes], float]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < count:
                key = waiting.pop()
                with suppress(OSError):  # no such program here, or no more processes
                    running[key] = (_start(key), time.perf_counter())
            done = [key for key, (process, _) in running.items() if process.poll() is not None]
            for key in done:
                process, began = running.pop(key)
                if process.returncode == 0:
                    yield key, time.perf_counter() - began
            if running and not done:
                time.sleep(0.02)
    finally:
        for process, _ in running.values():  # interrupted
            process.kill()
            process.wait()


def _worthwhile(loops: Sequence[Loop]) -> list[Loop]:
    return [key for key in loops if compiled.seconds_of([key]) >= _WORTH_A_PROCESS]


def _processes_for(loops: Sequence[Loop]) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # In a program that was packed into one file, the executable is that program, not Python.
    has_python = bool(sys.executable) and not getattr(sys, "frozen", False)
    return min(cores, _MOST_PROCESSES, len(_worthwhile(loops))) if has_python else 0


def _can_keep() -> bool:
    """Whether the folder of compiled code can be written."""
    try:
        compiled.folder().mkdir(parents=True, exist_ok=True)
        return os.access(compiled.folder(), os.W_OK)
    except (OSError, RuntimeError):  # RuntimeError: the user has no home
        return False


def _start(key: Loop) -> subprocess.Popen[bytes]:
    # Modules are found where this process finds them; "-P": and not in the folder that it happens to run in.
    folders = [folder for folder in sys.path if isinstance(folder, str) and folder]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}
    nowhere = subprocess.DEVNULL
    return subprocess.Popen(
        [sys.executable, "-P", "-c", _PROGRAM, *key], stdin=nowhere, stdout=nowhere, stderr=nowhere, env=environment
    )
