"""One thread at a time."""

from __future__ import annotations

import os
from threading import RLock


class Turn:
    """A context that one thread at a time may be in; a second one is refused, not made to wait.

    Two threads that step one stream would mix two signals: an order of their chunks can't be told.
    """

    def __init__(self) -> None:
        self._lock, self._process = RLock(), os.getpid()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            if self._process == os.getpid():
                raise RuntimeError(
                    "another thread is at work on this stream: give each signal a stream of its own "
                    "(stream.fork()), or let one thread step it"
                )
            # Forked while another thread was at work: in this process there is none.
            self._lock, self._process = RLock(), os.getpid()
            self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()
