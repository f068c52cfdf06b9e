"""HDF5 datasets being written."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from tapwise.errors import listed
from tapwise.extras import need
from tapwise.scale.layout import AT_ONCE, Layout
from tapwise.scale.target import ANOTHER, FinishedError, Target, made_otherwise, refused
from tapwise.signals.base import Array, Reader
from tapwise.signals.stored import StoredReader
from tapwise.signals.stored_array import RECORD, Place


class Hdf5Target(Target):
    """A dataset of an HDF5 file of its own, which gets its name when it is complete.

    Until then it is a hidden file beside its place, all of it allocated, so that a killed run leaves no damaged
    one; a second hidden file lists the regions that were written.
    """

    writes_here = True

    def __init__(self, place: Place, name: str, layout: Layout, record: Mapping[str, Any], is_begun: bool) -> None:
        h5py = need("h5py")
        self.layout, self.place, self._name = layout, str(place), name
        self._path = Path(place.store).absolute()
        self._partial, self._list = _hidden(self._path)
        self._lock = threading.Lock()
        self._written: set[tuple[int, ...]] = set()
        self._journal = self._list.open("a")
        _refuse_second_run(self._journal, self.place)
        if is_begun:
            self._written = {tuple(map(int, line.split())) for line in _lines(self._list)[1:]}
            self._file = h5py.File(self._partial, "r+", rdcc_nbytes=0)
        else:
            self._journal.truncate(0)
            self._partial.unlink(missing_ok=True)
            try:
                self._file = h5py.File(self._partial, "w", libver="earliest", rdcc_nbytes=0)
                _make_dataset(h5py, self._file, name, layout, record)
                self._file.flush()
            except BaseException:
                self.close()
                self._partial.unlink(missing_ok=True)
                self._list.unlink(missing_ok=True)
                raise
        self._data = self._file[name]
        self.layout = replace(layout, chunks=self._data.chunks)
        if not is_begun:
            self._journal.write(json.dumps(dict(record)) + "\n")
            self._journal.flush()

    def is_written(self, start: int, stop: int, channels: range) -> bool:
        """Whether this region was written."""
        return (start, stop, channels.start, channels.stop) in self._written

    def write(self, block: Array, start: int, channels: range) -> None:
        """Write a region, then say so in the list."""
        stop = start + block.shape[1]
        with self._lock:
            self._data[self.layout.region(start, stop, channels)] = self.layout.placed(block, channels)
            self._file.flush()
            self._journal.write(f"{start} {stop} {channels.start} {channels.stop}\n")
            self._journal.flush()

    def finish(self, record: Mapping[str, Any]) -> None:
        """Give the file its name."""
        self._data.attrs[RECORD] = json.dumps({**record, "complete": True})
        self._file.flush()
        self.close()
        descriptor = os.open(self._partial, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(self._partial, self._path)
        self._list.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the files."""
        with suppress(OSError, ValueError):
            if hasattr(self, "_file"):
                self._file.close()
        if hasattr(self, "_journal"):
            self._journal.close()


def _hidden(path: Path) -> tuple[Path, Path]:
    """The names of an unfinished file, and of the list of what it holds."""
    return path.with_name(f".{path.name}.partial"), path.with_name(f".{path.name}.regions")


def _lines(path: Path) -> list[str]:
    """The lines that are complete: a killed run may have left half of one."""
    text = path.read_text()
    return text[: text.rfind("\n") + 1].splitlines()


def _make_dataset(h5py: Any, file: Any, name: str, layout: Layout, record: Mapping[str, Any]) -> None:
    """All of the dataset on the disk at once, so that later writes touch numbers alone."""
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    settings.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    data = file.create_dataset(name, shape=layout.shape, dtype=layout.dtype, chunks=layout.chunks, dcpl=settings)
    _set_attributes(data, layout.attributes)
    _set_attributes(data.parent, layout.group_attributes)
    data.attrs[RECORD] = json.dumps({**record, "complete": False})
    for axis, label in enumerate(layout.dims):
        if label and axis not in layout.coordinates:
            data.dims[axis].label = label
    for axis, coordinate in layout.coordinates.items():
        length = layout.shape[axis]
        scale = data.parent.create_dataset(coordinate.name, shape=(length,), dtype=coordinate.values.dtype)
        for start in range(0, length, AT_ONCE):
            stop = min(start + AT_ONCE, length)
            scale[start:stop] = coordinate.values[start:stop]
        _set_attributes(scale, coordinate.attributes)
        scale.make_scale(coordinate.name)
        data.dims[axis].attach_scale(scale)
        data.dims[axis].label = coordinate.name


def _set_attributes(item: Any, attributes: Mapping[str, Any]) -> None:
    """Attributes as HDF5 has them; what it has no type for, as JSON."""
    for name, value in attributes.items():
        if name == RECORD:
            continue
        try:
            item.attrs[name] = value
        except (TypeError, ValueError):
            item.attrs[name] = json.dumps(value, default=str)


def _refuse_second_run(journal: Any, place: str) -> None:
    """One run at a time writes a file; a killed one holds nothing."""
    try:
        import fcntl
    except ImportError:  # a system without
        return
    try:
        fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        journal.close()
        raise refused(place, "is being written by another run", "wait for it, or give another name") from None


def begin_hdf5(
    place: Place, layout: Layout, record: Mapping[str, Any], resume: bool, overwrite: bool, source: Reader | None
) -> Target:
    """A dataset as a target.

    Raises:
        SignalError: a file that holds something else.
        FinishedError: the same run has made it already.
    """
    h5py = need("h5py")
    name, path = place.name or layout.name, Path(place.store).absolute()
    record = {**record, "name": name}
    partial, regions = _hidden(path)
    if path.exists():
        if isinstance(source, StoredReader) and source.array.place.store and _is_same(path, source.array.place.store):
            raise refused(
                str(place), "is the recording's own file, and a target is a file of its own", "give another name"
            )
        before = _record_of(h5py, path, name)
        if before is not None and before.get("recipe") == record["recipe"]:
            raise FinishedError(str(place))
        if others := _others(h5py, path, name):
            what = f"holds {listed(others, 4)} too, and a target is a file of its own"
            raise refused(str(place), what, "give another name")
        if not overwrite:
            raise refused(str(place), "is there already", ANOTHER)
    if partial.exists() and regions.exists():
        lines = _lines(regions)
        before = json.loads(lines[0]) if lines else None
        is_same = before is not None and all(before.get(key) == record[key] for key in ("recipe", "name"))
        if is_same and resume:
            return Hdf5Target(place, name, layout, record, True)
        if before is not None and not overwrite:
            raise made_otherwise(str(place), before, is_same, None, layout)
    return Hdf5Target(place, name, layout, record, False)


def _is_same(path: Path, other: str) -> bool:
    try:
        return path.samefile(other)
    except OSError:
        return False


def _others(h5py: Any, path: Path, name: str) -> list[str]:
    """Datasets of a file besides one and the scales of axes."""
    found: list[str] = []

    def visit(other: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and not item.is_scale and other != name:
            found.append(other)

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)
    except OSError:
        return []
    return found


def _record_of(h5py: Any, path: Path, name: str) -> Any:
    """What a finished dataset says of its making; None where it says nothing."""
    try:
        with h5py.File(path, "r") as file:
            data = file.get(name)
            return json.loads(data.attrs[RECORD]) if data is not None and RECORD in data.attrs else None
    except (OSError, ValueError):
        return None
