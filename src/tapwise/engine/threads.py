"""Threads: tasks of a compiled loop, shared out over the pool that torch itself uses.

torch brings an OpenMP runtime along and keeps a pool of its threads busy. A second pool would spin
against it, so ours is the same one: the runtime's own entry points, which every program compiled with
OpenMP by GCC calls, are called here. Where they are missing (another platform's runtime), in a forked
child (whose pool did not survive the fork) and under ``torch.set_num_threads(1)``, the calling thread
does all tasks itself. The bits are the same in every case: no two tasks write to the same place.

torch's own operations would wait for the lost pool in a forked child, for ever. So the first call of ours
there sets ``torch.set_num_threads(1)``, as torch's DataLoader does in its workers.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from tapwise import forks
from tapwise.engine import memory
from tapwise.engine.compiled import CompiledLoop

Ranges = Callable[..., Iterator[memory.Range]]


def job_type(name: str, fields: str, ranges: Ranges) -> Any:
    """A record of 64-bit integers that a compiled loop reads by name: the head, then ``fields``.

    # begin  end  next_tasks  end_tasks  failed | fields ...
    #
    # begin, end              the tasks, where the calling thread does them all
    # next_tasks, end_tasks   addresses of the pool's functions, or 0
    # failed                  set by a thread that found no memory

    Arguments:
        ranges: of a job, its tasks, and the bits of its loop's numbers, the memory that it may touch.
    """
    names = ["begin", "end", "next_tasks", "end_tasks", "failed", *fields.split()]
    return type(name, (ctypes.Structure,), {"_fields_": [(n, ctypes.c_int64) for n in names], "ranges": ranges})


def leave_lost_pool() -> None:
    """In a forked child: let torch do without the threads that it lost, however many are asked for."""
    if forks.is_forked and torch.get_num_threads() > 1:
        torch.set_num_threads(1)


@dataclass(frozen=True, slots=True)
class Pool:
    """The runtime's functions, by address; ``start`` can be called too."""

    start: Callable[..., None]
    start_address: int
    next_tasks: int
    end_tasks: int


@cache
def find_pool() -> Pool | None:
    """The OpenMP runtime's loop over tasks that idle threads fetch; None where there is none."""
    if not torch.backends.openmp.is_available():  # type: ignore[no-untyped-call]
        return None
    runtime = ctypes.CDLL(None)
    try:
        start = runtime.GOMP_parallel_loop_dynamic
        following, end = runtime.GOMP_loop_dynamic_next, runtime.GOMP_loop_end_nowait
    except AttributeError:
        return None
    start.restype = None
    long = ctypes.c_long
    start.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, *[long] * 4, ctypes.c_uint]
    return Pool(start, _address(start), _address(following), _address(end))


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def count() -> int:
    """Threads that a kernel may use now: torch's, or one where its pool can't be reached."""
    return 1 if forks.is_forked or find_pool() is None else torch.get_num_threads()


def run(loop: CompiledLoop, job: Any, tasks: int, threads: int) -> None:
    """Do ``tasks`` tasks of a compiled loop with at most ``threads`` threads.

    Arguments:
        job: a record of ``job_type``, whose head is written here.

    Raises:
        MemoryError: a thread found no memory to work in; what the job writes is then incomplete.
    """
    if memory.IS_CHECKED:
        memory.check(type(job).__name__, job.ranges(tasks, *loop.bits))
    pool = find_pool() if threads > 1 and tasks > 1 else None
    job.end = tasks
    address = ctypes.addressof(job)
    if pool is None:
        loop.call(address)
    else:
        job.next_tasks, job.end_tasks = pool.next_tasks, pool.end_tasks
        tasks_a_turn = max(1, tasks // (threads * 8))
        pool.start(loop.address, address, threads, 0, tasks, 1, tasks_a_turn, 0)
    if job.failed:
        raise MemoryError("no memory for the blocks that a convolution works in")
