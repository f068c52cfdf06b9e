"""A store written from beginning to end, for models that carry a state through all of the signal."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import numpy as np

from tapwise.scale.target import Target
from tapwise.signals.base import Array, Writer


class SequentialWriter(Writer):
    """Collects outputs until they fill chunks of a target, and writes these.

    Arguments:
        record: what made it, said once all is written.
    """

    def __init__(self, target: Target, record: Mapping[str, Any]) -> None:
        self._target, self._record = target, record
        layout = target.layout
        self._chunk, self._channels = layout.chunks[layout.axis], range(layout.channels)
        self._start, self._waiting = 0, np.empty((layout.channels, 0), layout.dtype)

    def write(self, block: Array) -> None:
        """Append (channels, n) outputs."""
        self._waiting = np.concatenate((self._waiting, block), axis=1)
        complete = self._waiting.shape[1] // self._chunk * self._chunk
        self._write(complete)

    def _write(self, count: int) -> None:
        if count:
            self._target.write(np.ascontiguousarray(self._waiting[:, :count]), self._start, self._channels)
            self._waiting, self._start = self._waiting[:, count:].copy(), self._start + count

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if kind is None:
                self._write(self._waiting.shape[1])
                self._target.finish(self._record)
        finally:
            self._target.close()
