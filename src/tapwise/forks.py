"""Forks: a child process of a program with threads must not wait for one that it doesn't have.

A thread that imports a module holds the module's lock. A fork in that moment leaves the lock held in the
child for ever, and the child's own import waits for it. So a fork first waits until other threads have
imported what Tapwise is made of.
"""

from __future__ import annotations

import os
import sys
import threading
import time

_PACKAGES = ("tapwise", "torch", "numpy", "numba", "llvmlite")
# A module that takes longer has other troubles; the fork then goes on.
_LONGEST_WAIT = 120.0


def _imported_by_others() -> bool:
    """Whether another thread is importing a module of ours, or one that we need."""
    locks = getattr(sys.modules.get("_frozen_importlib"), "_module_locks", {})
    for name, reference in list(locks.items()):
        lock = reference()
        owner = getattr(lock, "owner", None)
        if isinstance(name, str) and name.partition(".")[0] in _PACKAGES:  # noqa: SIM102
            if owner is not None and owner != threading.get_ident():
                return True
    return False


def _wait_for_imports() -> None:
    if threading.active_count() == 1:
        return
    end = time.monotonic() + _LONGEST_WAIT
    while _imported_by_others() and time.monotonic() < end:
        time.sleep(0.002)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_wait_for_imports)
