"""Arrays in stores as signals: any part of a Zarr array or an HDF5 dataset is read by itself."""

from __future__ import annotations

import hashlib
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from tapwise.errors import SignalError, listed
from tapwise.signals.arrays import refuse_far_shorter
from tapwise.signals.base import Array, Reader
from tapwise.signals.hdf5_array import Hdf5Array, open_hdf5
from tapwise.signals.stored_array import HDF5, TIMES, ZARR, Coordinate, Place, StoredArray, place_of
from tapwise.signals.zarr_array import ZarrArray, group_of, only_array, open_zarr


def open_stored(path: object) -> StoredArray:
    """The array of a path, of a ``zarr.Array`` or of an ``h5py.Dataset``.

    Raises:
        SignalError: no such store or array, or one of several that isn't named.
    """
    kind = type(path).__module__.partition(".")[0]
    if kind == "zarr":
        array: Any = path
        if not hasattr(array, "shape"):
            return only_array(array, Place(str(array.store_path), ""))
        return ZarrArray(array, group_of(array))
    if kind == "h5py":
        data: Any = path
        if not hasattr(data, "shape"):
            raise SignalError(f"got an h5py {type(data).__name__}, expected a Dataset")
        if data.file.driver == "core":
            raise SignalError(
                f"{data.name}: lies in an HDF5 file in memory, which no other thread opens: give its values, data[:]"
            )
        return Hdf5Array(Place(data.file.filename, data.name.strip("/")))
    place = place_of(path)
    if place is None:
        raise SignalError(f"{path}: expected a name ending in {listed((*ZARR, *HDF5))}, or an address of a Zarr store")
    return open_zarr(place) if place.is_zarr else open_hdf5(place)


class MemoryArray(StoredArray):
    """An array in memory, as those in stores are.

    Arguments:
        place: the file that it was read from.
    """

    def __init__(self, values: Array, place: str = "the array") -> None:
        self._values, self.name = values, ""
        self.place, self.shape, self.dtype = Place(place, ""), values.shape, values.dtype
        self.chunks, self.dims = None, (None,) * values.ndim
        self.attributes, self.group_attributes = {}, {}

    def read(self, index: tuple[slice, ...]) -> Array:
        """The values of a region."""
        return self._values[index]

    def coordinates(self) -> dict[int, Coordinate]:
        """None."""
        return {}

    def mark(self) -> Any:
        """Of the values."""
        digest = hashlib.sha256()
        for part in np.array_split(self._values.reshape(-1), max(1, self._values.size >> 20)):
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()


def open_npz(path: Path, name: str) -> MemoryArray:
    """An array of an NPZ file, in memory.

    Raises:
        SignalError: no such file or array, or one of several that isn't named.
    """
    try:
        with np.load(path) as file:
            names = [n for n in file.files if not name or n == name]
            if len(names) != 1:
                raise SignalError(
                    f"{path}: name the array, as {path}:{(file.files or ['NAME'])[0]}; the file has "
                    f"{listed(file.files) or 'none'}"
                )
            return MemoryArray(file[names[0]], f"{path}:{names[0]}")
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, SignalError):
            raise
        raise SignalError(f"{path}: not an NPZ file: {str(error).partition(chr(10))[0]}") from error


class StoredReader(Reader):
    """An array in a store as a signal: one axis is time, all others are channels, in C order.

    Arguments:
        axis: of time; None: the dimension that is named so, else the last.
    """

    def __init__(self, array: StoredArray, axis: int | str | None = None) -> None:
        self.array, self.path = array, Path(str(array.place))
        shape, dtype = array.shape, array.dtype
        if dtype.kind not in "fiuc" or not shape:
            raise SignalError(f"{self.path}: got {dtype} of shape {shape}, expected numbers of at least one axis")
        if dtype.name in ("float128", "float96", "complex256", "complex192"):
            raise SignalError(f"{self.path}: got {dtype} numbers, which are computed in no more than 64 bits a part")
        if math.prod(shape) == 0:
            raise SignalError(f"{self.path}: the array is empty: its shape is {shape}")
        self.axis = _axis_of(array, axis, self.path)
        self.shape, self.length = shape, shape[self.axis]
        self.channels = math.prod(shape) // self.length
        self.dtype = dtype.newbyteorder("=")
        self.quantum = 1 if dtype.kind in "iu" else 0
        self.rate = array.rate[1] if array.rate else None
        if axis is None and self.axis == len(shape) - 1 and array.dims[-1] not in TIMES:
            refuse_far_shorter(self, shape)

    @property
    def has_rows(self) -> bool:
        """Some channels can be read without the others."""
        return True

    def read(self, start: int, stop: int) -> Array:
        """The samples [start, stop) of every channel: (channels, stop - start)."""
        return self.read_channels(start, stop, range(self.channels))

    def read_channels(self, start: int, stop: int, channels: range) -> Array:
        """The samples [start, stop) of some channels: (channels, stop - start)."""
        index = [slice(None)] * len(self.shape)
        index[self.axis] = slice(start, stop)
        others = [n for axis, n in enumerate(self.shape) if axis != self.axis]
        cut = slice(0, None)
        if others:
            inner = math.prod(others[1:])
            first, last = channels.start // inner, -(-channels.stop // inner)
            index[0 if self.axis > 0 else 1] = slice(first, last)
            cut = slice(channels.start - first * inner, channels.stop - first * inner)
        values = np.moveaxis(self.array.read(tuple(index)), self.axis, -1)
        block = values.reshape(math.prod(values.shape[:-1]), stop - start)[cut]
        return block.astype(self.dtype, copy=False)

    def mark(self) -> Any:
        """What changes when the array does."""
        return self.array.mark()

    def close(self) -> None:
        """Let go of the file."""
        if isinstance(self.array, Hdf5Array):
            self.array.close()


def _axis_of(array: StoredArray, axis: int | str | None, path: Path) -> int:
    ndim, dims = len(array.shape), [str(name) for name in array.dims]
    if axis is None:
        named = [n for n, name in enumerate(dims) if name.lower() in TIMES]
        return named[0] if len(named) == 1 else ndim - 1
    if isinstance(axis, str):
        if axis not in dims:
            raise SignalError(f"{path}: there is no dimension {axis!r}; the array has {listed(dims)}")
        return dims.index(axis)
    if not -ndim <= axis < ndim:
        raise SignalError(f"{path}: there is no axis {axis} in the shape {array.shape}")
    return axis % ndim
