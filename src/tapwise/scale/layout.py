"""Layouts: the array that holds a recording's outputs, with the source's attributes and coordinates."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from tapwise.signals.base import Array, Reader
from tapwise.signals.stored import StoredReader
from tapwise.signals.stored_array import RATES, RECORD, Coordinate
from tapwise.signals.zarr_array import ZarrArray

# Numbers of a chunk, where the source has none to go by.
_CHUNK = 1 << 20
# Values of a coordinate that are written at once.
AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Moments:
    """Which moment of the signal an output belongs to: output j to sample ``j * stride + offset``."""

    stride: Fraction = Fraction(1)
    offset: int = 0


@dataclass(frozen=True)
class Layout:
    """An array that is to be made.

    Arguments:
        axis: of time.
        name: in its store, where its place names none.
        zarr_format: the version of Zarr, where it is stored so.
        is_consolidated: whether its group keeps a copy of what all its arrays are, as xarray writes it.
    """

    shape: tuple[int, ...]
    axis: int
    dtype: np.dtype[Any]
    chunks: tuple[int, ...]
    dims: tuple[str | None, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    group_attributes: dict[str, Any] = field(default_factory=dict)
    coordinates: dict[int, Coordinate] = field(default_factory=dict)
    name: str = ""
    zarr_format: int = 3
    is_consolidated: bool = False

    @property
    def inner(self) -> int:
        """Channels of one position of the first axis that isn't time."""
        return math.prod([n for axis, n in enumerate(self.shape) if axis != self.axis][1:])

    @property
    def channels(self) -> int:
        """All axes but time."""
        return math.prod(self.shape) // max(self.shape[self.axis], 1) if self.shape[self.axis] else 0

    @property
    def channel_unit(self) -> int:
        """Channels that are written together: as many as share chunks."""
        others = [axis for axis in range(len(self.shape)) if axis != self.axis]
        return self.chunks[others[0]] * self.inner if others else 1

    def region(self, start: int, stop: int, channels: range) -> tuple[slice, ...]:
        """The region of some outputs of channels that are written together."""
        index = [slice(0, n) for n in self.shape]
        index[self.axis] = slice(start, stop)
        others = [axis for axis in range(len(self.shape)) if axis != self.axis]
        if others:
            index[others[0]] = slice(channels.start // self.inner, -(-channels.stop // self.inner))
        return tuple(index)

    def placed(self, block: Array, channels: range) -> Array:
        """(channels, n) as the region has it."""
        others = [n for axis, n in enumerate(self.shape) if axis != self.axis]
        if others:
            others[0] = len(channels) // self.inner
        return np.moveaxis(block.reshape(*others, block.shape[1]), -1, self.axis)


def layout_of(
    source: Reader, n_outputs: int, channels: int, dtype: np.dtype[Any], moments: Moments, chunk: int | None = None
) -> Layout:
    """The array that holds the outputs: as the source's, with its attributes and coordinates.

    Arguments:
        channels: of the outputs.
        chunk: outputs of a chunk; None: as many as a chunk of the source gives.
    """
    shape: tuple[int, ...] = getattr(source, "shape", (source.channels, source.length))
    axis: int = getattr(source, "axis", 1)
    if not hasattr(source, "shape") and source.channels == 1:
        shape, axis = (source.length,), 0
    array = source.array if isinstance(source, StoredReader) else None
    dims = array.dims if array else (None,) * len(shape)
    old_chunks = array.chunks if array and array.chunks else None
    new = list(shape)
    new[axis] = n_outputs
    others = [a for a in range(len(shape)) if a != axis]
    if channels != source.channels:
        if others:
            last = others[-1]
            rest = source.channels // shape[last]
            new[last] = channels // rest
        else:
            new, dims, axis = [channels, n_outputs], (None, *dims), 1
    chunks = _chunks(tuple(new), axis, dtype, old_chunks if len(new) == len(shape) else None, moments.stride, chunk)
    attributes = dict(array.attributes) if array else {}
    group_attributes = dict(array.group_attributes) if array else {}
    for table in (attributes, group_attributes):
        table.pop(RECORD, None)
        table.pop("_ARRAY_DIMENSIONS", None)
    if source.rate:
        rate = _number(Fraction(source.rate) / moments.stride)
        names = [(table, name) for table in (attributes, group_attributes) for name in RATES if name in table]
        for table, name in names or [(attributes, "sampling_rate")]:
            if table.get(name, source.rate) == source.rate:
                table[name] = rate
    coordinates: dict[int, Coordinate] = {}
    if array and len(new) == len(shape):
        for at, coordinate in array.coordinates().items():
            if at == axis:
                values = MovedCoordinate(coordinate.values, n_outputs, moments)
                coordinates[at] = Coordinate(coordinate.name, values, coordinate.attributes)
            elif new[at] == shape[at]:
                coordinates[at] = coordinate
    zarr_format = array.zarr_format if isinstance(array, ZarrArray) else 3
    is_consolidated = isinstance(array, ZarrArray) and array.is_consolidated
    return Layout(
        tuple(new),
        axis,
        dtype,
        chunks,
        tuple(dims),
        attributes,
        group_attributes,
        coordinates,
        array.name if array and array.name else "signal",
        zarr_format,
        is_consolidated,
    )


def jsonable(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes that JSON can hold, as Zarr keeps them."""
    kept = {}
    for name, value in attributes.items():
        if name in (RECORD, "_ARRAY_DIMENSIONS"):
            continue
        try:
            json.dumps(value)
        except (TypeError, ValueError):
            continue
        kept[name] = value
    return kept


def _number(value: Fraction) -> float | int:
    return value.numerator if value.denominator == 1 else float(value)


def _chunks(
    shape: tuple[int, ...],
    axis: int,
    dtype: np.dtype[Any],
    before: tuple[int, ...] | None,
    stride: Fraction,
    chunk: int | None,
) -> tuple[int, ...]:
    if before is not None:
        chunks = [min(c, n) for c, n in zip(before, shape, strict=True)]
        chunks[axis] = max(1, round(before[axis] / stride))
    else:
        chunks = list(shape)
        others = math.prod(shape) // max(shape[axis], 1)
        first = next((a for a in range(len(shape)) if a != axis), None)
        if first is not None and others > _CHUNK // 1024:  # so that a chunk is long in time
            chunks[first] = max(1, min(shape[first], _CHUNK // 1024 * shape[first] // others))
        chunks[axis] = max(1, _CHUNK // max(math.prod(c for a, c in enumerate(chunks) if a != axis), 1))
    chunks[axis] = min(chunk or chunks[axis], max(shape[axis], 1))
    return tuple(max(c, 1) for c in chunks)


class MovedCoordinate:
    """The values of a coordinate at the outputs' moments: between two samples in proportion, beyond the ends by the last step."""

    def __init__(self, values: Any, length: int, moments: Moments) -> None:
        self._values, self.moments, self.shape = values, moments, (length,)
        stride = moments.stride
        self.dtype = np.dtype(values.dtype)
        if stride.denominator != 1 and self.dtype.kind in "iu":
            self.dtype = np.dtype(np.float64)

    def __getitem__(self, index: slice) -> Array:
        # Output j stands at sample j * stride + offset: below, the sample before it, and a part of the way to the next.
        start, stop, _ = index.indices(self.shape[0])
        stride, offset = self.moments.stride, self.moments.offset
        at = np.arange(start, stop, dtype=np.int64) * stride.numerator  # in 1 / denominator samples
        below = at // stride.denominator + offset
        part = (at % stride.denominator) / stride.denominator
        n = self._values.shape[0]
        if not len(at):
            return np.empty(0, self.dtype)
        low = int(np.clip(below[0], 0, max(n - 2, 0)))
        high = int(np.clip(below[-1] + 2, 1, n))
        near = np.asarray(self._values[min(low, high - 1) : high])
        first = min(low, high - 1)
        nearest = np.clip(below, first, high - 1)
        values = near[nearest - first]
        fraction = (below - nearest) + part
        if not fraction.any() or len(near) < 2:
            return values.astype(self.dtype, copy=False)
        left = np.clip(nearest, first, high - 2) - first
        step = near[left + 1] - near[left]
        moved = values + (fraction * step.astype(np.float64)).astype(
            step.dtype if step.dtype.kind == "m" else np.float64
        )
        result: Array = np.rint(moved).astype(self.dtype) if self.dtype.kind in "iu" else moved.astype(self.dtype)
        return result
