"""Where outputs are written: a path, an address, a Zarr store, group or array."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tapwise.errors import SignalError
from tapwise.scale.hdf5_target import begin_hdf5
from tapwise.scale.layout import Layout
from tapwise.scale.target import Target
from tapwise.scale.zarr_target import begin_zarr
from tapwise.signals.base import Reader
from tapwise.signals.stored import StoredReader
from tapwise.signals.stored_array import place_of
from tapwise.signals.zarr_array import ZarrArray


def begin(
    target: Any, layout: Layout, record: Mapping[str, Any], *, source: Reader | None, resume: bool, overwrite: bool
) -> Target:
    """Make an array, or go on with one that the same run began.

    Arguments:
        target: a path, an address, a Zarr store, group or array.
        record: what makes the array; its ``recipe`` decides whether two runs are the same.
        source: the recording, which is never overwritten.
        resume: go on with what was begun; False: refuse it.
        overwrite: replace an array that something else made.

    Raises:
        SignalError: a target that holds something else.
        FinishedError: the same run has made it already.
    """
    array = source.array if isinstance(source, StoredReader) else None
    recording = array.array if isinstance(array, ZarrArray) else None
    if type(target).__module__.partition(".")[0] == "zarr":
        store = getattr(target, "store", target)
        name = getattr(target, "path", "")
        if hasattr(target, "arrays"):  # a group
            name = f"{name}/{layout.name}".strip("/")
        return begin_zarr(store, name, str(store), layout, record, resume, overwrite, recording)
    place = place_of(target)
    if place is None:
        raise SignalError(f"{target}: expected a name ending in .zarr or .h5, or an address of a Zarr store")
    if place.is_local and not Path(place.store).absolute().parent.is_dir():
        raise SignalError(f"{place.store}: there is no folder {Path(place.store).parent}")
    if place.is_zarr:
        store = place.absolute().store
        return begin_zarr(store, place.name, str(place), layout, record, resume, overwrite, recording)
    return begin_hdf5(place, layout, record, resume, overwrite, source)
