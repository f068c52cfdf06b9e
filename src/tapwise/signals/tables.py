"""CSV tables, through polars: some columns are the signal, the others are kept as they stand."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tapwise.errors import SignalError, listed
from tapwise.signals.base import Array, Reader, Source, Writer

try:
    import polars as pl
except ImportError as error:
    raise SignalError("CSV needs the package polars: pip install 'tapwise[io]'") from error


_MOST_COLUMNS = 20_000


class TableReader(Reader):
    """A table whose named columns are the channels of a signal. Empty cells are NaN."""

    rate = None
    quantum = 0
    dtype = np.dtype(np.float64)

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        self.path = path
        text = ""
        try:
            text, self.encoding, self.mark = _decoded(path.read_bytes())
            heading = next(csv.reader(io.StringIO(text)), [])
            if len(heading) > _MOST_COLUMNS:
                raise SignalError(
                    f"{path}: the table has {len(heading):,} columns, of at most {_MOST_COLUMNS:,}: "
                    "save it as .npy, or with a row for each moment"
                )
            if "\0" in text:
                raise SignalError(f"{path}: not a CSV table that can be read: save it as UTF-8 text")
            # As text: what is not the signal is written back to the letter.
            self.table = pl.read_csv(text.encode(), infer_schema=False)
        except (pl.exceptions.PolarsError, UnicodeError) as error:
            raise SignalError(f"{path}: not a CSV table: {_reason(text, error)}") from error
        if not len(self.table):
            raise SignalError(f"{path}: the table has no rows")
        names = next(csv.reader(io.StringIO(text)), [])
        if len(names) == len(self.table.columns) == len(set(names)):
            self.table.columns = names  # polars leaves doubled quotes in headings
        self._refuse_headings()
        self.columns = columns or (self._only_numeric(),)
        if len(set(self.columns)) != len(self.columns):
            raise SignalError(f"{path}: a column is named twice: {listed(map(repr, self.columns))}")
        for name in self.columns:
            if name not in self.table.columns:
                raise SignalError(
                    f"{path}: there is no column {name!r}; the table has {listed(map(repr, self.table.columns))}"
                )
        self.length, self.channels = len(self.table), len(self.columns)
        self._values = np.stack([self._numbers(name) for name in self.columns])
        self.notes = tuple(self._missing_rows())

    def _refuse_headings(self) -> None:
        names = pl.Series(self.table.columns)
        if names.cast(pl.Float64, strict=False).is_not_null().all():
            raise SignalError(f"{self.path}: line 1 must name the columns: got the numbers {listed(names)}")
        twice = names.filter(names.str.contains(r"_duplicated_\d+$"))
        if len(twice):
            name = twice[0].rpartition("_duplicated_")[0]
            raise SignalError(f"{self.path}: line 1 names two columns {name!r}")

    def _only_numeric(self) -> str:
        numeric = [
            name
            for name in self.table.columns
            if self.table[name].str.strip_chars().cast(pl.Float64, strict=False).is_not_null().any()
        ]
        if len(numeric) != 1:
            found = listed(map(repr, numeric)) or "none"
            raise SignalError(f"{self.path}: --column must name the signal's column: the numeric ones are {found}")
        return numeric[0]

    def _missing_rows(self) -> Iterator[str]:
        """For a column of times whose steps are mostly alike, where they are longer."""
        for name in self.table.columns:
            if name in self.columns or (times := _times(self.table[name])) is None:
                continue
            steps = np.diff(times)
            usual = np.median(steps) if len(steps) else 0.0
            longer = np.flatnonzero(steps > 1.5 * usual)
            if usual > 0 and len(longer) and np.mean(np.abs(steps - usual) < 0.25 * usual) > 0.5:
                count = len(longer)
                yield (
                    f"column {name!r}: {count:,} step{'s' * (count > 1)} longer than the usual one, the first before "
                    f"{self.place(int(longer[0]) + 1)}: rows are missing there, and neighbours are filtered as if they weren't"
                )

    def _numbers(self, name: str) -> Array:
        text = self.table[name].str.strip_chars().replace("", None)
        numbers = text.cast(pl.Float64, strict=False)
        wrong = (text.is_not_null() & numbers.is_null()).arg_true()
        if len(wrong):
            row = int(wrong[0])
            raise SignalError(f"{self.path}: {self.place(row)}, column {name!r}: {text[row]!r} is not a number")
        self._refuse_inexact(name, text, numbers)
        return numbers.fill_null(np.nan).to_numpy()

    def _refuse_inexact(self, name: str, text: pl.Series, numbers: pl.Series) -> None:
        """Refuse what a float can't hold: it would be written back as another number, or as infinity."""
        beyond = (numbers.is_infinite() & text.str.contains(r"\d")).fill_null(False).arg_true()
        large = ((numbers.abs() >= 2.0**53) & text.str.contains(r"^[+-]?\d+(\.0*)?$")).fill_null(False).arg_true()
        inexact = [row for row in large if int(text[int(row)].partition(".")[0]) != int(numbers[int(row)])]
        for row in (*beyond, *inexact):
            reason = "is beyond the range of float64" if row in beyond else "can't be held exactly in float64"
            raise SignalError(f"{self.path}: {self.place(int(row))}, column {name!r}: {text[int(row)]} {reason}")

    def read(self, start: int, stop: int) -> Array:
        """The rows [start, stop) of every signal column: (channels, stop - start)."""
        return self._values[:, start:stop]

    def place(self, sample: int) -> str:
        """``line 7``, the heading being line 1; a cell may hold lines of its own."""
        before = self.table.head(sample).select(pl.all().str.count_matches("\n").sum())
        within = sum(number or 0 for number in before.row(0))
        return f"line {sample + 2 + within + sum(n.count(chr(10)) for n in self.table.columns)}"


def _times(column: pl.Series) -> Array | None:
    """Seconds, days or what else a column counts, where it holds dates or numbers that only grow; else None."""
    text = column.str.strip_chars()
    numbers = text.cast(pl.Float64, strict=False)
    if numbers.null_count():
        try:
            numbers = text.str.to_datetime(strict=True).cast(pl.Int64).cast(pl.Float64)
        except pl.exceptions.PolarsError:
            try:
                numbers = text.str.to_date(strict=True).cast(pl.Int32).cast(pl.Float64)
            except pl.exceptions.PolarsError:
                return None
    times: Array = numbers.to_numpy()
    return times if len(times) > 2 and np.isfinite(times).all() and (np.diff(times) > 0).all() else None


def _reason(text: str, error: Exception) -> str:
    """Why a text is no table, in words that name the line."""
    lines = csv.reader(io.StringIO(text))
    try:
        columns = len(next(lines, []))
        for cells in lines:
            if len(cells) > columns:
                return f"line {lines.line_num} has {len(cells)} cells, line 1 names {columns} columns"
    except csv.Error as found:
        return f"line {lines.line_num}: {found}"
    return str(error).partition("\n")[0]


# Byte order marks, the longer ones first, and the encodings that they and what follows are in.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def _decoded(data: bytes) -> tuple[str, str, bytes]:
    """The text of a table, its encoding and its mark: Unicode, else what spreadsheets of Western Europe write."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding), encoding, mark
    for encoding in ("utf-8", "cp1252"):
        try:
            return data.decode(encoding), encoding, b""
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1"), "latin-1", b""


class TableWriter(Writer):
    """Writes the source's table with the signal's columns replaced, a row for each output."""

    def __init__(
        self, path: Path, source: Source, rows: list[int | None] | None, channels: int, dtype: np.dtype[Any]
    ) -> None:
        if rows is not None and channels != source.channels:
            raise SignalError(f"{path}: {channels} channels of {source.channels} can't stand in the table's columns")
        super().__init__(path)
        self._source, self._rows, self._blocks = source, rows, [np.empty((channels, 0), dtype)]

    def write(self, block: Array) -> None:
        """Keep (channels, n) samples; a table is written in one go."""
        self._blocks.append(block)

    def finish(self) -> None:
        """Write the table."""
        signal = np.concatenate(self._blocks, axis=1)
        if isinstance(self._source, TableReader) and self._rows is not None:
            others = self._source.table[pl.Series(self._rows, dtype=pl.UInt32)]
            named = zip(self._source.columns, signal, strict=True)
            table = others.with_columns([pl.Series(name, row) for name, row in named])
        else:
            table = pl.DataFrame({f"channel_{c}": row for c, row in enumerate(signal)})
        encoding, mark = getattr(self._source, "encoding", "utf-8"), getattr(self._source, "mark", b"")
        self.output.file.write(mark + table.write_csv().encode(encoding))
