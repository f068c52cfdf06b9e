"""Zarr arrays being written: on a disk, or at an address."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tapwise.errors import SignalError
from tapwise.extras import need
from tapwise.scale.layout import AT_ONCE, Layout, jsonable
from tapwise.scale.target import FinishedError, Target, made_otherwise, refused
from tapwise.signals.base import Array
from tapwise.signals.stored_array import RECORD
from tapwise.signals.zarr_array import local_folder


class ZarrTarget(Target):
    """A Zarr array. What is there of it is told by its chunks alone, which stores write complete or not at all."""

    writes_here = False

    def __init__(self, array: Any, layout: Layout, place: str) -> None:
        self.array, self.layout, self.place = array.with_config({"write_empty_chunks": True}), layout, place
        self._written = _chunk_keys(array)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_written": frozenset()}

    def is_written(self, start: int, stop: int, channels: range) -> bool:
        """Whether all chunks of a region are there."""
        if not self._written:
            return False
        return all(key in self._written for key in self._keys(self.layout.region(start, stop, channels)))

    def _keys(self, region: tuple[slice, ...]) -> Iterator[str]:
        prefix = f"{self.array.path}/" if self.array.path else ""
        spans = [range(s.start // c, -(-s.stop // c)) for s, c in zip(region, self.layout.chunks, strict=True)]
        for place in np.ndindex(*map(len, spans)):
            at = tuple(span[n] for span, n in zip(spans, place, strict=True))
            yield prefix + self.array.metadata.encode_chunk_key(at)

    def write(self, block: Array, start: int, channels: range) -> None:
        """Write complete chunks."""
        region = self.layout.region(start, start + block.shape[1], channels)
        self.array[region] = self.layout.placed(block, channels)

    def finish(self, record: Mapping[str, Any]) -> None:
        """Say that all is written."""
        there = _chunk_keys(self.array)
        every = self._keys(tuple(slice(0, n) for n in self.layout.shape))
        missing = sum(key not in there for key in every)
        if missing:
            raise SignalError(
                f"{self.place}: {missing:,} chunks aren't there, though they were written: the workers reach another store "
                "of this name; give one that all processes share"
            )
        folder = local_folder(self.array)
        if folder is not None:  # what a killed run had not given its name
            for path in folder.rglob("*.partial"):
                path.unlink(missing_ok=True)
        self.array.attrs.update({RECORD: {**record, "complete": True}})
        parent, _, name = self.array.path.rpartition("/")
        if name and self.layout.is_consolidated:
            with warnings.catch_warnings(action="ignore"):  # that version 3 has no standard for it
                need("zarr").consolidate_metadata(self.array.store, path=parent)


def _chunk_keys(array: Any) -> frozenset[str]:
    """The keys of an array's chunks that are there."""
    sync = need("zarr.core.sync").sync
    prefix = f"{array.path}/" if array.path else ""

    async def listed() -> set[str]:
        return {key async for key in array.store.list_prefix(prefix)}

    keys: set[str] = sync(listed())
    return frozenset(key for key in keys if not key.endswith((".json", ".zarray", ".zattrs", ".partial")))


def begin_zarr(
    store: Any,
    name: str,
    place: str,
    layout: Layout,
    record: Mapping[str, Any],
    resume: bool,
    overwrite: bool,
    source: Any,
) -> Target:
    zarr = need("zarr")
    in_group = bool(name) or bool(layout.coordinates) or bool(layout.group_attributes)
    if in_group and not name:
        name = layout.name
    _refuse_array_above(zarr, store, name, place)
    is_empty_group = False
    try:
        existing = zarr.open(store, path=name, mode="r")
    except FileNotFoundError:
        existing = None
    if existing is not None and not hasattr(existing, "shape"):
        is_empty_group = not list(existing.members())
        if not is_empty_group:
            raise refused(place, "is a group with members", "name the array, as NAME.zarr:name")
        existing = None
    if existing is not None:
        if source is not None and existing.store == source.store and existing.path == source.path:
            raise refused(place, "is the recording itself", "give another name")
        before = existing.attrs.get(RECORD)
        same = isinstance(before, dict) and before.get("recipe") == record["recipe"]
        fits = existing.shape == layout.shape and np.dtype(existing.dtype) == layout.dtype
        if same and fits and before["complete"]:
            raise FinishedError(place)
        if same and fits and resume:
            array = zarr.open_array(store, path=name, mode="r+")
            unit = array.shards or array.chunks
            return ZarrTarget(array, replace(layout, chunks=tuple(unit)), place)
        if before is None and fits and not _chunk_keys(existing):  # made for this
            array = zarr.open_array(store, path=name, mode="r+")
            array.attrs.update({RECORD: {**record, "complete": False}})
            return ZarrTarget(array, replace(layout, chunks=tuple(array.shards or array.chunks)), place)
        if not overwrite:
            raise made_otherwise(place, before, same, None if fits and before else existing, layout)
    zarr_format = layout.zarr_format
    group = None
    if in_group:
        parent = name.rpartition("/")[0]
        group = zarr.open_group(store, path=parent, mode="a", zarr_format=_format_of(zarr, store, parent, zarr_format))
        zarr_format = group.metadata.zarr_format
        there = dict(group.attrs)
        group.attrs.update({k: v for k, v in jsonable(layout.group_attributes).items() if k not in there})
        layout = _with_coordinates(group, layout, name.rpartition("/")[2], zarr_format)
        # What the group says otherwise, as of another rate, the array says for itself.
        differing = {k: v for k, v in layout.group_attributes.items() if k in there and there[k] != v}
        layout = replace(layout, attributes={**differing, **layout.attributes})
    attributes = {**jsonable(layout.attributes), RECORD: {**record, "complete": False}}
    array = zarr.create_array(
        store,
        name=name or None,
        shape=layout.shape,
        chunks=layout.chunks,
        dtype=layout.dtype,
        zarr_format=zarr_format,
        fill_value=np.nan if layout.dtype.kind in "fc" else 0,
        overwrite=overwrite or is_empty_group,
        **_named(layout.dims, attributes, zarr_format),
    )
    return ZarrTarget(array, layout, place)


def _format_of(zarr: Any, store: Any, path: str, usual: int) -> int:
    """The version of Zarr of a group that is there; else the usual one."""
    try:
        found: int = zarr.open_group(store, path=path, mode="r").metadata.zarr_format
    except FileNotFoundError:
        return usual
    return found


def _refuse_array_above(zarr: Any, store: Any, name: str, place: str) -> None:
    """Refuse a place within an array, which is no group."""
    parts = name.split("/")[:-1] if name else []
    for n in range(len(parts) + bool(name)):
        path = "/".join(parts[:n])
        try:
            above = zarr.open(store, path=path, mode="r")
        except FileNotFoundError:
            continue
        if hasattr(above, "shape"):
            raise refused(
                place, f"is an array, and a group is needed for {name!r} and its coordinates", "give another name"
            )


def _named(dims: tuple[str | None, ...], attributes: Mapping[str, Any], zarr_format: int) -> dict[str, Any]:
    """Names of dimensions as each version of Zarr has them."""
    if not any(dims):
        return {"attributes": dict(attributes)}
    if zarr_format == 2:
        return {"attributes": {**attributes, "_ARRAY_DIMENSIONS": [d or f"dim_{n}" for n, d in enumerate(dims)]}}
    return {"attributes": dict(attributes), "dimension_names": dims}


def _with_coordinates(group: Any, layout: Layout, name: str, zarr_format: int) -> Layout:
    """Write the coordinates, and give an axis another name where its own is taken by other values."""
    dims = list(layout.dims)
    for axis, coordinate in layout.coordinates.items():
        label, length = coordinate.name, layout.shape[axis]
        if label in group and not _may_write(group[label], name, coordinate.values, length):
            label = f"{label}_{name}"
        dims[axis] = label
        if label in group and _are_equal(group[label], coordinate.values, length):
            continue
        with warnings.catch_warnings(action="ignore"):  # that there is no standard for text
            array = group.create_array(
                label,
                shape=(length,),
                dtype=np.dtype(coordinate.values.dtype),
                chunks=(max(1, min(length, AT_ONCE)),),
                overwrite=True,
                **_named((label,), {**jsonable(coordinate.attributes), RECORD: {"coordinate_of": name}}, zarr_format),
            )
        for start in range(0, length, AT_ONCE):
            array[start : start + AT_ONCE] = coordinate.values[start : min(start + AT_ONCE, length)]
    return replace(layout, dims=tuple(dims))


def _may_write(array: Any, name: str, values: Any, length: int) -> bool:
    """Whether a coordinate is the same, or was made for an array of this name, perhaps by a run that was killed."""
    record = array.attrs.get(RECORD)
    is_own = isinstance(record, dict) and record.get("coordinate_of") == name
    return is_own or _are_equal(array, values, length)


def _are_equal(array: Any, values: Any, length: int) -> bool:
    if getattr(array, "shape", None) != (length,):
        return False
    spans = (slice(start, min(start + AT_ONCE, length)) for start in range(0, length, AT_ONCE))
    return all(np.array_equal(array[span], values[span]) for span in spans)
