"""Sources: what a recording may be, as a reader that several threads and other processes may use."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tapwise.signals import open_reader
from tapwise.signals.base import Array, Reader
from tapwise.signals.stored import MemoryArray, StoredReader, open_stored
from tapwise.signals.stored_array import place_of


def open_source(source: Any, axis: int | str | None) -> Reader:
    """A reader of a recording.

    Raises:
        SignalError: what can't be read.
        TypeError: what is no recording.
    """
    if isinstance(source, Reader):
        return source if isinstance(source, StoredReader) else SharedReader(lambda: source)
    package = type(source).__module__.partition(".")[0]
    if package in ("zarr", "h5py"):
        return StoredReader(open_stored(source), axis)
    if isinstance(source, np.ndarray):
        return StoredReader(MemoryArray(source), axis)
    if not isinstance(source, str | os.PathLike):
        raise TypeError(
            f"got {type(source).__name__}, expected a path, a zarr.Array, an h5py.Dataset or a NumPy array; "
            "tapwise.scale.map_array takes Dask and xarray arrays"
        )
    if place_of(source) is not None:
        return StoredReader(open_stored(source), axis)
    if isinstance(axis, str):
        raise TypeError(f"axis must be an integer, got {axis!r}: names belong to stores")
    return SharedReader(partial(open_reader, Path(source), axis=axis))


class OverlapReader(Reader):
    """A reader that keeps the ends of what was read, for parts that begin before the last one's end.

    A store decodes complete chunks: without what is kept, the samples before a part would cost a chunk more. Several
    threads may use it, and it may be pickled, without what it holds.

    Arguments:
        overlap: samples that are kept of each part.
        n_parts: the most parts of the same channels that are read at the same time.
    """

    def __init__(self, reader: StoredReader, overlap: int, n_parts: int) -> None:
        self._reader, self._overlap, self._n_parts = reader, overlap, n_parts
        for name in ("path", "channels", "dtype", "quantum", "full_scale", "rate", "notes", "length", "shape", "axis"):
            setattr(self, name, getattr(reader, name))
        self._lock = threading.Lock()
        self._ends: dict[tuple[int, int], dict[int, Array]] = {}  # by channels, then by where they end

    def __reduce__(self) -> Any:
        return type(self), (self._reader, self._overlap, self._n_parts)

    def read(self, start: int, stop: int) -> Array:
        """The samples [start, stop) of every channel: (channels, stop - start)."""
        return self.read_channels(start, stop, range(self.channels))

    def read_channels(self, start: int, stop: int, channels: range) -> Array:
        """The samples [start, stop) of some channels: (channels, stop - start)."""
        with self._lock:
            ends = self._ends.setdefault((channels.start, channels.stop), {})
            found = [end for end, kept in ends.items() if end - kept.shape[1] <= start < end < stop]
            kept = ends.pop(max(found)) if found else None
        if kept is None:
            block = self._reader.read_channels(start, stop, channels)
        else:
            end = max(found)
            rest = self._reader.read_channels(end, stop, channels)
            block = np.concatenate((kept[:, start - end :], rest), axis=1)
        with self._lock:
            while len(ends) >= self._n_parts:
                del ends[next(iter(ends))]
            ends[stop] = block[:, max(0, stop - start - self._overlap) :].copy()
        return block

    def place(self, sample: int) -> str:
        """Where a sample stands, as the store has it."""
        return self._reader.place(sample)


class SharedReader(Reader):
    """A reader that one thread at a time uses, and that another process opens anew.

    Arguments:
        opener: opens the file.
    """

    def __init__(self, opener: Callable[[], Reader]) -> None:
        self._opener = opener
        self._lock = threading.Lock()
        self._reader = reader = opener()
        for name in ("path", "channels", "dtype", "quantum", "full_scale", "rate", "notes", "length"):
            setattr(self, name, getattr(reader, name))
        for name in ("shape", "axis"):
            if hasattr(reader, name):
                setattr(self, name, getattr(reader, name))

    def __getstate__(self) -> dict[str, Any]:
        return {"_opener": self._opener}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["_opener"])  # type: ignore[misc]

    def read(self, start: int, stop: int) -> Array:
        """The samples [start, stop) of every channel: (channels, stop - start)."""
        with self._lock:
            return self._reader.read(start, stop)

    def read_channels(self, start: int, stop: int, channels: range) -> Array:
        """The samples [start, stop) of some channels: (channels, stop - start)."""
        with self._lock:
            return self._reader.read_channels(start, stop, channels)

    def place(self, sample: int) -> str:
        """Where a sample stands, as the file has it."""
        return self._reader.place(sample)

    def close(self) -> None:
        """Let go of the file."""
        self._reader.close()
