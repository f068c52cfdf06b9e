"""Signals: files read and written in blocks, one module for each family of formats."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tapwise.errors import SignalError
from tapwise.signals.base import Reader as Reader
from tapwise.signals.base import Source as Source
from tapwise.signals.base import Writer as Writer
from tapwise.signals.stored_array import HDF5, ZARR, place_of

if TYPE_CHECKING:
    import numpy as np

    from tapwise.signals.dialect import TableFormat

SOUNDS = (".wav", ".flac")
TABLES = (".csv", ".tsv", ".parquet")
_NPZ = re.compile(r"(.+\.npz)(?::(.+))?", re.IGNORECASE)
STORES = (*ZARR, *HDF5)
SUFFIXES = (*SOUNDS, ".npy", *TABLES, *STORES)


def open_reader(
    path: Path, columns: tuple[str, ...] = (), axis: int | None = None, table: TableFormat | None = None
) -> Reader:
    """A reader for the file, chosen by its suffix.

    Arguments:
        columns: of a table, the columns that are the signal; where there is one numeric column, none
            need be named.
        axis: of an array, the axis of time; None: the last, unless it is far shorter than the others.
        table: how a table of text is written; None: it is detected.

    Raises:
        SignalError: a file that is missing, empty, damaged or of an unsupported kind.
    """
    if (stored := _open_stored(path, columns, axis, table)) is not None:
        return stored
    if not path.is_file():
        raise SignalError(f"{path}: there is no such file")
    if path.stat().st_size == 0:
        raise SignalError(f"{path}: the file is empty")
    suffix = suffix_of(path)
    if columns and suffix not in TABLES:
        raise SignalError(f"{path}: columns belong to tables ({', '.join(TABLES)})")
    if table is not None and suffix not in (".csv", ".tsv"):
        raise SignalError(f"{path}: separators, headings and the like belong to tables of text (.csv, .tsv)")
    if axis is not None and suffix != ".npy":
        raise SignalError(f"{path}: an axis belongs to arrays (.npy)")
    if suffix == ".npy":
        from tapwise.signals.arrays import ArrayReader, refuse_far_shorter

        reader = ArrayReader(path, -1 if axis is None else axis)
        if axis is None:
            refuse_far_shorter(reader, reader.shape)
        return reader
    if suffix == ".parquet":
        from tapwise.signals.parquet_tables import ParquetReader

        return ParquetReader(path, columns)
    if suffix in TABLES:
        from tapwise.signals.dialect import TableFormat
        from tapwise.signals.text_tables import TextTableReader

        return TextTableReader(path, columns, table or TableFormat())
    from tapwise.signals.audio import AudioReader

    return AudioReader(path)


def _open_stored(path: Path, columns: tuple[str, ...], axis: int | None, table: TableFormat | None) -> Reader | None:
    """A reader of an array in a store or in an NPZ file; None where the path names none."""
    npz = _NPZ.fullmatch(str(path))
    if npz is None and place_of(path) is None:
        return None
    if columns or table is not None:
        raise SignalError(f"{path}: columns, separators and the like belong to tables ({', '.join(TABLES)})")
    from tapwise.signals.stored import StoredReader, open_npz, open_stored

    array = open_stored(path) if npz is None else open_npz(Path(npz[1]), npz[2] or "")
    return StoredReader(array, axis)


def open_result(path: Path, source: Reader) -> Reader:
    """A reader of what was written from a source, its axis or its columns alike."""
    suffix = suffix_of(path)
    if suffix in STORES:
        return open_reader(path, axis=getattr(source, "axis", None))
    if suffix == ".npy":
        from tapwise.signals.arrays import ArrayReader

        return ArrayReader(path, source.axis if isinstance(source, ArrayReader) else -1)
    if suffix not in TABLES:
        return open_reader(path)
    if keeps_rows(source.path, path):
        is_alike = suffix == source.path.suffix.lower()
        try:
            return open_reader(path, source.columns, None, source.given if is_alike else None)  # type: ignore[attr-defined]
        except SignalError:  # other channels than the source's
            pass
    return open_reader(path, ("channel_0",))


def open_writer(
    path: Path,
    source: Source,
    length: int,
    rate: float | None,
    rows: range | None,
    channels: int | None = None,
    dtype: np.dtype[Any] | None = None,
) -> Writer:
    """A writer of ``length`` samples. Nothing stands until commit.

    Arguments:
        channels: of the outputs; None: those of the source.
        dtype: of the outputs; None: that of the source, a sound's in as many bits.
        rate: samples a second; audio files need one.
        rows: of a table, the source's row that belongs to each output; one beyond its ends is none.

    Raises:
        SignalError: a kind of file that can't hold the signal.
    """
    suffix = suffix_of(path)
    channels, dtype = source.channels if channels is None else channels, dtype or source.dtype
    if not path.parent.is_dir():
        raise SignalError(f"{path}: there is no folder {path.parent}")
    if suffix == ".npy":
        from tapwise.signals.arrays import ArrayWriter

        return ArrayWriter(path, source, length, channels, dtype)
    if suffix in TABLES:
        from tapwise.signals.table_writer import ParquetWriter, TextTableWriter

        kind = ParquetWriter if suffix == ".parquet" else TextTableWriter
        return kind(path, source, rows, channels, dtype)
    from tapwise.signals.audio import AudioWriter

    return AudioWriter(path, source, length, rate, channels, dtype)


def keeps_rows(source: Path, target: Path) -> bool:
    """Whether both are tables: then other columns are kept, a row for each output."""
    return {source.suffix.lower(), target.suffix.lower()} <= set(TABLES)


def suffix_of(path: Path) -> str:
    """The suffix of a file, in small letters.

    Raises:
        SignalError: a kind of file that is neither read nor written.
    """
    place = place_of(path)
    if place is not None:
        return Path(place.store).suffix.lower() or ".zarr"
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise SignalError(f"{path}: got the suffix {path.suffix!r}, expected one of {', '.join(SUFFIXES)}")
    return suffix
