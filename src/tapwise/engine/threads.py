"""Threads: tasks of a compiled kernel, shared out over the pool that torch itself uses.

torch brings an OpenMP runtime along and keeps a pool of its threads busy. A second pool would spin
against it, so ours is the same one: the runtime's own entry points, which every program compiled with
OpenMP by GCC calls, are called here. Where they are missing (another platform's runtime), in a forked
child (whose pool did not survive the fork) and under ``torch.set_num_threads(1)``, the calling thread
does all tasks itself. The bits are the same in every case: tasks write apart from each other.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from tapwise.engine.machine_code import Body

# The first numbers of every job: its tasks [BEGIN, END), where the pool's functions stand or 0, and
# whether a thread found no memory.
BEGIN, END, NEXT, FINISH, FAILED = range(5)
HEAD = 5

_forked = False


def _after_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@dataclass(frozen=True, slots=True)
class _Pool:
    start: Callable[..., None]
    next: int
    finish: int


@cache
def _pool() -> _Pool | None:
    """The OpenMP runtime's loop over tasks that idle threads fetch; None where there is no such one."""
    if not torch.backends.openmp.is_available():  # type: ignore[no-untyped-call]
        return None
    runtime = ctypes.CDLL(None)
    try:
        start = runtime.GOMP_parallel_loop_dynamic
        next, finish = runtime.GOMP_loop_dynamic_next, runtime.GOMP_loop_end_nowait
    except AttributeError:
        return None
    start.restype = None
    start.argtypes = [
        ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_long, ctypes.c_long,
        ctypes.c_long, ctypes.c_long, ctypes.c_uint,
    ]  # fmt: skip
    return _Pool(start, _address(next), _address(finish))


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def count() -> int:
    """Threads that a kernel may use now: torch's, or one where its pool can't be reached."""
    return 1 if _forked or _pool() is None else torch.get_num_threads()


def run(body: Body, job: list[int], tasks: int, threads: int) -> None:
    """Do ``tasks`` tasks of a compiled ``body`` with at most so many threads.

    Arguments:
        body: does the tasks between two of the job's numbers, or those that it fetches.
        job: the numbers after the first ones, which are written here.

    Raises:
        MemoryError: a thread found no room to work in; what the job writes is then incomplete.
    """
    pool = _pool() if threads > 1 and tasks > 1 else None
    head = (0, tasks, 0, 0, 0) if pool is None else (0, tasks, pool.next, pool.finish, 0)
    numbers = (ctypes.c_int64 * (HEAD + len(job)))(*head, *job)
    if pool is None:
        body.call(ctypes.addressof(numbers))
    else:
        a_turn = max(1, tasks // (threads * 8))
        pool.start(body.address, ctypes.addressof(numbers), threads, 0, tasks, 1, a_turn, 0)
    if numbers[FAILED]:
        raise MemoryError("no memory for the blocks that a convolution works in")
