"""Arrays of Zarr's, on a disk or at an address."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from tapwise.errors import SignalError, listed
from tapwise.extras import need
from tapwise.signals.base import Array
from tapwise.signals.stored_array import Coordinate, Place, StoredArray, plain


class ZarrArray(StoredArray):
    """An array of Zarr's, of version 2 or 3.

    Arguments:
        group: that holds it, and its coordinates; None where it stands alone.
    """

    def __init__(self, array: Any, group: Any = None, label: str = "") -> None:
        self.array, self._group = array, group
        self.place = Place(label or str(array.store_path), "")
        self.name = array.path.rpartition("/")[2]
        self.zarr_format: int = array.metadata.zarr_format
        self.shape, self.dtype = array.shape, np.dtype(array.dtype)
        # What is written at once: shards, where there are any.
        self.chunks = array.shards or array.chunks
        self.attributes = plain(array.attrs)
        self.is_consolidated = getattr(getattr(group, "metadata", None), "consolidated_metadata", None) is not None
        self.group_attributes = {} if group is None else plain(group.attrs)
        names = getattr(array.metadata, "dimension_names", None) or self.attributes.get("_ARRAY_DIMENSIONS")
        self.dims = tuple(names or (None,) * len(self.shape))

    def read(self, index: tuple[slice, ...]) -> Array:
        values: Array = np.asarray(self.array[index])
        return values

    def coordinates(self) -> dict[int, Coordinate]:
        found = {}
        for axis, name in enumerate(self.dims):
            if name is None or self._group is None or name not in self._group:
                continue
            values = self._group[name]
            if getattr(values, "shape", None) == (self.shape[axis],) and values.path != self.array.path:
                found[axis] = Coordinate(name, values, plain(values.attrs))
        return found

    def mark(self) -> Any:
        folder = local_folder(self.array)
        if folder is None:
            # Of a store that tells no times: the description, and the values of three chunks.
            digest = hashlib.sha256()
            for at in (0.0, 0.5, 1.0):
                first = [int(at * max(n - c, 0)) for n, c in zip(self.shape, self.chunks or self.shape, strict=True)]
                ends = [f + c for f, c in zip(first, self.chunks or self.shape, strict=True)]
                region = self.read(tuple(slice(a, b) for a, b in zip(first, ends, strict=True)))
                digest.update(np.ascontiguousarray(region).tobytes())
            return [list(self.shape), str(self.dtype), digest.hexdigest()]
        files = [path.stat() for path in folder.rglob("*") if path.is_file()]
        return [len(files), sum(f.st_size for f in files), max((f.st_mtime_ns for f in files), default=0)]


def open_zarr(place: Place) -> StoredArray:
    zarr = need("zarr")
    if place.is_local and not Path(place.store).exists():
        raise SignalError(f"{place.store}: there is no such store")
    try:
        found = zarr.open(place.absolute().store, mode="r")
        found = found[place.name] if place.name else found
    except KeyError:
        names = _array_names(found)
        raise SignalError(f"{place.store}: there is no array {place.name!r}; the store has {listed(names)}") from None
    except Exception as error:
        raise SignalError(f"{place.store}: not a Zarr store: {str(error).partition(chr(10))[0]}") from error
    if not hasattr(found, "shape"):
        return only_array(found, place)
    return ZarrArray(found, group_of(found), str(place))


def only_array(group: Any, place: Place) -> ZarrArray:
    """The one array of a group that is no coordinate."""
    arrays = dict(group.arrays())
    dims = {n for array in arrays.values() for n in ZarrArray(array).dims if len(array.shape) > 1}
    names = [name for name, array in arrays.items() if name not in dims and np.dtype(array.dtype).kind in "fiuc"]
    if len(names) != 1:
        raise SignalError(
            f"{place}: name the array, as {place.store}:{(names or ['NAME'])[0]}; the group has "
            f"{listed(_array_names(group)) or 'none'}"
        )
    return ZarrArray(arrays[names[0]], group, f"{place.store}:{'/'.join(filter(None, (place.name, names[0])))}")


def _array_names(group: Any) -> list[str]:
    return [] if hasattr(group, "shape") else sorted(name for name, _ in group.arrays())


def group_of(array: Any) -> Any:
    """The group that holds an array; None where there is none."""
    zarr = need("zarr")
    parent, _, _ = array.path.rpartition("/")
    if not array.path:
        return None
    try:
        return zarr.open_group(array.store, path=parent, mode="r")
    except Exception:  # an array in a folder that is no group
        return None


def local_folder(array: Any) -> Path | None:
    """The folder in which a Zarr array lies; None of a store elsewhere."""
    root = getattr(array.store, "root", None)
    return root / array.path if isinstance(root, Path) else None
