"""Interrupts (Ctrl-C, a request to end) that wait while a library is at a point where it can't be left."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGALRM", "SIGUSR1") if hasattr(signal, name)
)


@contextmanager
def deferred() -> Iterator[None]:
    """Handlers written in Python run at the end of the block, not within it.

    A handler that raises, as Ctrl-C's does, would else leave a C library's handle closed there and open here.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python runs handlers in the main thread alone
        return
    came: list[tuple[int, FrameType | None]] = []
    before: dict[signal.Signals, Callable[..., object]] = {}
    try:
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            if callable(handler):
                before[number] = handler
                signal.signal(number, lambda n, frame: came.append((n, frame)))
        yield
    finally:
        for number in reversed(before):  # Ctrl-C's last: nothing interrupts what is put back before it
            signal.signal(number, before[number])
        errors = []
        for number, frame in came:
            try:
                before[signal.Signals(number)](number, frame)
            except BaseException as error:  # the others are called too
                errors.append(error)
        if errors:
            raise errors[0]
