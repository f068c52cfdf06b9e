"""Arrays in stores: what a Zarr array and an HDF5 dataset have in common."""

from __future__ import annotations

import math
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tapwise.signals.base import Array

ZARR = (".zarr",)
HDF5 = (".h5", ".hdf5", ".he5", ".nwb", ".nc")
# Names under which a recording's attributes hold its samples a second.
RATES = ("sampling_rate", "sample_rate", "sampling_frequency", "samplerate", "sfreq", "fs", "rate")
# Names of a dimension that is time, where no axis is given.
TIMES = ("time", "t", "sample", "samples")
# The attribute that says what made an array.
RECORD = "tapwise"

_PLACE = re.compile(rf"(?P<store>.*?({'|'.join(map(re.escape, (*ZARR, *HDF5)))}))(?P<name>[:/].+)?/?", re.IGNORECASE)

_FOLDED = re.compile(r"([a-z][a-z0-9+-]+):/([^/].*)")


class Place(NamedTuple):
    """Where an array is stored.

    Arguments:
        store: the file, folder or address.
        name: of the array in it; empty: the only one.
    """

    store: str
    name: str

    @property
    def is_zarr(self) -> bool:
        """Whether the store is Zarr's; else it is an HDF5 file."""
        return not self.store.lower().endswith(HDF5)

    @property
    def is_local(self) -> bool:
        """Whether the store is on this machine's disk."""
        return "://" not in self.store

    def absolute(self) -> Place:
        """The same place for a process that works in another folder."""
        return self._replace(store=os.path.abspath(self.store)) if self.is_local else self

    def __str__(self) -> str:
        return f"{self.store}:{self.name}" if self.name else self.store


def place_of(path: object) -> Place | None:
    """Where a path says that an array is; None where it names no store.

    Example:
        >>> place_of("day.zarr"), place_of("day.h5:eeg/raw"), place_of("day.wav")
        (Place(store='day.zarr', name=''), Place(store='day.h5', name='eeg/raw'), None)
        >>> place_of("s3://bucket/day.zarr/eeg")
        Place(store='s3://bucket/day.zarr', name='eeg')
        >>> place_of(Path("s3://bucket/day.zarr"))
        Place(store='s3://bucket/day.zarr', name='')
    """
    text = str(path)
    if isinstance(path, Path) and (folded := _FOLDED.fullmatch(text)):  # a Path makes one slash of several
        text = f"{folded[1]}://{folded[2]}"
    if text.startswith("file:/"):
        text = "/" + text.removeprefix("file:").lstrip("/")
    match = _PLACE.fullmatch(text)
    if match is None and any(os.path.exists(os.path.join(text, name)) for name in ("zarr.json", ".zarray", ".zgroup")):
        return Place(text, "")
    if match is None:
        return Place(text, "") if "://" in text else None
    return Place(match["store"], (match["name"] or "")[1:].strip("/"))


@dataclass(frozen=True)
class Coordinate:
    """The values that belong to the positions along one axis.

    Arguments:
        name: of the axis.
        values: an array of one axis, read by slices.
    """

    name: str
    values: Any
    attributes: Mapping[str, Any]


class StoredArray(ABC):
    """An array of numbers in a store, its coordinates and attributes. It may be pickled.

    Arguments:
        name: in the group that holds it.
        dims: the name of each axis, or None.
        attributes: its own.
        group_attributes: those of the group that holds it.
    """

    place: Place
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...] | None
    dims: tuple[str | None, ...]
    attributes: dict[str, Any]
    group_attributes: dict[str, Any]

    @abstractmethod
    def read(self, index: tuple[slice, ...]) -> Array:
        """The values of a region."""

    @abstractmethod
    def coordinates(self) -> dict[int, Coordinate]:
        """By axis, where there are any."""

    @abstractmethod
    def mark(self) -> Any:
        """What changes when the array does: numbers and text, for comparison."""

    @cached_property
    def rate(self) -> tuple[str, float] | None:
        """The name and the value of the attribute that says how many samples there are in a second."""
        for attributes in (self.attributes, self.group_attributes):
            for name in RATES:
                value = attributes.get(name)
                if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf:
                    return name, float(value)
        return None


def plain(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as Python's own values, without what HDF5 keeps of its scales."""
    kept = {}
    for name, value in dict(attributes).items():
        if name in ("DIMENSION_LIST", "REFERENCE_LIST", "CLASS", "NAME", "_Netcdf4Dimid", "_Netcdf4Coordinates"):
            continue
        if isinstance(value, bytes):
            value = value.decode(errors="replace")
        kept[name] = value.tolist() if isinstance(value, np.generic | np.ndarray) else value
    return kept
