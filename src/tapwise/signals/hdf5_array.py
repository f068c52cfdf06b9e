"""Datasets of HDF5 files."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from tapwise.errors import SignalError, listed
from tapwise.extras import need
from tapwise.signals.base import Array
from tapwise.signals.stored_array import Coordinate, Place, StoredArray, plain


class Hdf5Array(StoredArray):
    """A dataset of an HDF5 file. Each process opens the file for itself."""

    def __init__(self, place: Place) -> None:
        self.place, self.name = place, place.name.rpartition("/")[2]
        self._lock = threading.Lock()
        self._file: Any = None
        data = self._dataset()
        self.shape, self.dtype, self.chunks = data.shape, data.dtype, data.chunks
        self.attributes = plain(data.attrs)
        self.group_attributes = plain(data.parent.attrs)
        self.dims = tuple(dim.label or (dim.keys() or [None])[0] for dim in data.dims)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def _dataset(self) -> Any:
        with self._lock:
            if self._file is None:
                self._file = need("h5py").File(self.place.store, "r")
            return self._file[self.place.name]

    def read(self, index: tuple[slice, ...]) -> Array:
        values: Array = self._dataset()[index]
        return values

    def coordinates(self) -> dict[int, Coordinate]:
        found, data = {}, self._dataset()
        for axis, dim in enumerate(data.dims):
            for name, scale in dim.items():
                if scale.shape == (self.shape[axis],):
                    label = name or scale.name.rpartition("/")[2]
                    found[axis] = Coordinate(label, scale, plain(scale.attrs))
                    break
        return found

    def mark(self) -> Any:
        status = Path(self.place.store).stat()
        return [status.st_size, status.st_mtime_ns]

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            if self._file is not None:
                self._file.close()
            self._file = None


def open_hdf5(place: Place) -> StoredArray:
    h5py = need("h5py")
    if not Path(place.store).is_file():
        raise SignalError(f"{place.store}: there is no such file")
    found: list[str] = []

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim and item.dtype.kind in "fiuc" and not item.is_scale:
            found.append(name)

    try:
        with h5py.File(place.store, "r") as file:
            file.visititems(visit)
            name = place.name or (found[0] if len(found) == 1 else "")
            is_there = bool(name) and isinstance(file.get(name), h5py.Dataset)
    except OSError as error:
        raise SignalError(f"{place.store}: not an HDF5 file: {error}") from error
    if not is_there:
        raise SignalError(
            (f"{place.store}: there is no dataset {name!r}" if name else f"{place.store}: name the dataset")
            + f", as {place.store}:{(found or ['NAME'])[0]}; the file has {listed(found) or 'none of numbers'}"
        )
    return Hdf5Array(Place(place.store, name))
