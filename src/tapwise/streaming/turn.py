"""One thread at a time."""

from __future__ import annotations

import os
from contextlib import suppress
from threading import Lock
from weakref import WeakSet


class Turn:
    """A context that one thread at a time may be in; a second one is refused, not made to wait.

    Two threads that step one stream would mix two signals: an order of their chunks can't be told.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        _turns.add(self)

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise RuntimeError(
                "this stream is at work already, in another thread or below this call: give each signal a stream of its "
                "own (stream.fork()), or step it from one place"
            )

    def __exit__(self, *error: object) -> None:
        with suppress(RuntimeError):  # a child that was forked within a step has another lock
            self._lock.release()


_turns: WeakSet[Turn] = WeakSet()


def _after_fork_in_child() -> None:
    """No thread that was at work before the fork is in the child."""
    for turn in list(_turns):
        turn._lock = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
