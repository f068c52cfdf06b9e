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

# Made of compiled code that is set up once in a process.
_ONCE = ("torch", "numpy", "numba", "llvmlite", "scipy")
_half_imported: list[str] = []
# Of the process that forked, where it had imported torch: its threads, until torch is told to do without them.
is_forked = False
lost_threads = 0


def _before_fork() -> None:
    global lost_threads
    get_num_threads = getattr(sys.modules.get("torch"), "get_num_threads", None)
    lost_threads = get_num_threads() if get_num_threads else 0


def _after_fork_in_parent() -> None:
    global lost_threads
    lost_threads = 0


def _after_fork_in_child() -> None:
    global is_forked
    is_forked = lost_threads > 0
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
            "here: import tapwise.Conv1d, or torch, before the fork, or start processes by 'spawn'"
        )


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
