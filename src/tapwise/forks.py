"""Forks: a child process must not wait for a thread that it doesn't have.

A thread that imports a module holds the module's lock. A fork in that moment leaves the lock held in the child
for ever, where an import of the module would wait for it. The child therefore drops such locks, and imports
anew what is written in Python. What can't be imported twice in a process, as torch, is refused with the remedy.
torch's pool of threads isn't in the child either: see ``engine/threads.py``.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from weakref import WeakSet

# Made of compiled code that is set up once in a process.
_ONCE = ("torch", "numpy", "numba", "llvmlite", "scipy")
_half_imported: list[str] = []
# Whether this process was forked from one that had imported torch, whose threads it hasn't.
is_forked = False


def _after_fork_in_child() -> None:
    global is_forked
    is_forked = is_forked or "torch" in sys.modules
    locks = getattr(sys.modules.get("_frozen_importlib"), "_module_locks", {})
    for name, reference in list(locks.items()):
        owner = getattr(reference(), "owner", None)
        if isinstance(owner, tuple | list):  # of later Pythons: one for each time it is held
            owner = owner[0] if owner else None
        if not isinstance(name, str) or owner in (None, threading.get_ident()):
            continue
        locks.pop(name, None)
        if name.partition(".")[0] in _ONCE:
            _half_imported.append(name)
        else:
            sys.modules.pop(name, None)


def refuse_half_imported() -> None:
    """Raise where this process was forked while another thread imported what Tapwise needs.

    Raises:
        ImportError: with the remedy.
    """
    if _half_imported:
        raise ImportError(
            f"this process was forked while another thread imported {_half_imported[0]}, which can't be finished "
            "here: import it before any thread does, or start processes by 'spawn'"
        )


class Turns:
    """A context that one thread at a time is in, and the same thread again; the others wait.

    In a forked child nobody is in it, whoever was in the parent.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        _turns.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        with suppress(RuntimeError):  # a child that was forked within has another lock
            self._lock.release()


_turns: WeakSet[Turns] = WeakSet()


def _after_fork_nobody_is_in() -> None:
    for turns in list(_turns):
        turns._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
    os.register_at_fork(after_in_child=_after_fork_nobody_is_in)
