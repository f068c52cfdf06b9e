"""What every reader and writer of signals has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tapwise.atomic_file import AtomicFile

Array = npt.NDArray[Any]


class Source(ABC):
    """A signal that is read from its beginning to its end. A context manager: it closes its file.

    Arguments:
        dtype: of the samples as stored; a filter's results are written as this dtype again.
        quantum: the step between two neighbouring values that the file can hold, 0 for floats.
        full_scale: the sample that stands for 1.0, of sounds in integers; 1 for others.
        rate: samples a second, or None.
        notes: what a user should know of the file, as that its header gives no length.
    """

    path: Path
    channels: int
    dtype: np.dtype[Any]
    quantum: int
    full_scale: float = 1.0
    rate: float | None
    notes: tuple[str, ...] = ()

    @abstractmethod
    def blocks(self, size: int) -> Iterator[Array]:
        """The samples in order, ``size`` at a time and the rest at last: (channels, n)."""

    def place(self, sample: int) -> str:
        """Where a sample stands: ``sample 24000 (0.500 s)``."""
        return f"sample {sample}" + (f" ({sample / self.rate:.3f} s)" if self.rate else "")

    def close(self) -> None:  # noqa: B027
        """Let go of the file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Reader(Source):
    """A signal on disk, (channels, length), any part of which can be read."""

    length: int

    @property
    def has_rows(self) -> bool:
        """Whether some channels can be read without the others."""
        return False

    def mark(self) -> Any:
        """What changes when the file does, numbers and text; None where there is no file."""
        try:
            status = self.path.stat()
        except OSError:
            return None
        return [status.st_size, status.st_mtime_ns]

    @abstractmethod
    def read(self, start: int, stop: int) -> Array:
        """The samples [start, stop) of every channel: (channels, stop - start)."""

    def read_channels(self, start: int, stop: int, channels: range) -> Array:
        """The samples [start, stop) of some channels: (channels, stop - start)."""
        return self.read(start, stop)[channels.start : channels.stop]

    def blocks(self, size: int) -> Iterator[Array]:
        """The samples in order, ``size`` at a time and the rest at last: (channels, n)."""
        for start in range(0, self.length, size):
            yield self.read(start, min(start + size, self.length))


class Writer(ABC):
    """A signal being written. A context manager: its file appears at the end, or not at all.

    Arguments:
        notes: what a user should know of the file, as what of the source it can't hold.
    """

    notes: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        self.output = AtomicFile(path)

    @abstractmethod
    def write(self, block: Array) -> None:
        """Append (channels, n) samples of the source's dtype."""

    def finish(self) -> None:  # noqa: B027
        """Write what is left to write before the file gets its name."""

    def release(self) -> None:  # noqa: B027
        """Let go of what writes to the file; once more does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if kind is None:
                self.finish()
            self.release()
            if kind is None:
                self.output.commit()
        finally:
            try:
                self.release()
            finally:
                self.output.discard()
