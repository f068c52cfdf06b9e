"""Tables, CSV and Parquet, through polars: some columns are the signal, the others are kept as they stand."""

from __future__ import annotations

import codecs
import csv
import io
import re
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tapwise.errors import SignalError, listed
from tapwise.extras import need
from tapwise.signals.base import Array, Reader
from tapwise.signals.dialect import NULLS, TableFormat, dialect_of

if TYPE_CHECKING:
    import polars as pl
else:
    pl = need("polars")


_MOST_COLUMNS = 20_000


class TableReader(Reader):
    """A table whose named columns are the channels of a signal. What stands for no value is NaN.

    Arguments:
        columns: that are the signal; where one alone holds numbers, beside a first column of times, none need
            be named.

    Raises:
        SignalError: what is no table, or holds no such signal.
    """

    rate = None
    quantum = 0
    dtype: np.dtype[Any] = np.dtype(np.float64)
    # What a user said of the text.
    given: TableFormat | None = None
    # What stood for no value in the signal's columns, as the file writes it.
    gap: str | None = None
    table: pl.DataFrame

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        self.path = path
        if not len(self.table):
            raise SignalError(f"{path}: the table has no rows")
        notes = []
        if not columns:
            columns, note = self._only_numeric()
            notes += note
        self.columns = columns
        if len(set(self.columns)) != len(self.columns):
            raise SignalError(f"{path}: a column is named twice: {listed(map(repr, self.columns))}")
        for name in self.columns:
            if name not in self.table.columns:
                raise SignalError(
                    f"{path}: there is no column {name!r}; the table has {listed(map(repr, self.table.columns))}"
                )
        self.length, self.channels = len(self.table), len(self.columns)
        self._values = np.stack([self._numbers(name) for name in self.columns])
        self.notes = (*self.notes, *notes, *self._missing_rows())

    def _only_numeric(self) -> tuple[tuple[str, ...], list[str]]:
        """The column of numbers, where there is one, beside a first column of times; and what is to be said of it."""
        numeric = [name for name in self.table.columns if self._has_numbers(name)]
        first = self.table.columns[0]
        if len(numeric) == 2 and numeric[0] == first and _is_regular(self._times(first)):
            return (numeric[1],), [f"column {first!r} is taken for the time, and kept (--column says otherwise)"]
        if numeric == [first] and len(self.table.columns) > 1 and _is_regular(self._times(first)):
            others = listed(map(repr, self.table.columns[1:]))
            raise SignalError(
                f"{self.path}: column {first!r} counts time, and no other holds a number: {others}; --column {first} "
                "filters it, and --column with another name says what is wrong there"
            )
        if len(numeric) != 1:
            found = listed(map(repr, numeric)) or "none"
            raise SignalError(
                f"{self.path}: --column must name the signal's column, and again for more: the numeric ones are {found}"
            )
        return (numeric[0],), []

    def _missing_rows(self) -> Iterator[str]:
        """For a column of times whose steps are mostly alike, where they are longer."""
        for name in self.table.columns:
            if name in self.columns or (times := self._times(name)) is None or not _is_regular(times):
                continue
            steps = np.diff(times)
            longer = np.flatnonzero(steps > 1.5 * np.median(steps))
            if len(longer):
                count = len(longer)
                yield (
                    f"column {name!r}: {count:,} step{'s' * (count > 1)} longer than the usual one, the first before "
                    f"{self.place(int(longer[0]) + 1)}: rows are missing there, and neighbours are filtered as if they weren't"
                )

    @abstractmethod
    def _has_numbers(self, name: str) -> bool:
        """Whether a column may be a signal."""

    @abstractmethod
    def _numbers(self, name: str) -> Array:
        """The numbers of a column, NaN where there is none.

        Raises:
            SignalError: what is no number, with its place.
        """

    @abstractmethod
    def _times(self, name: str) -> Array | None:
        """Seconds, days or what else a column counts, where it holds dates or numbers."""

    def read(self, start: int, stop: int) -> Array:
        """The rows [start, stop) of every signal column: (channels, stop - start)."""
        return self._values[:, start:stop]


class TextTableReader(TableReader):
    """A table as text, in a dialect that is given or detected."""

    def __init__(self, path: Path, columns: tuple[str, ...], given: TableFormat) -> None:
        self.path = path
        self.given = None if given == TableFormat() else given
        text = ""
        try:
            text, self.encoding, self.mark = _decoded(path.read_bytes())
            if "\0" in text:
                raise SignalError(f"{path}: not a CSV table that can be read: save it as UTF-8 text")
            self.dialect = dialect_of(text, given)
            self._refuse_headings()
            # As text: what is not the signal is written back to the letter.
            self.table = self._table()
        except (pl.exceptions.PolarsError, UnicodeError, csv.Error) as error:
            raise SignalError(f"{path}: not a CSV table: {self._reason(text, error)}") from error
        self._nulls = NULLS | {value.strip() for value in given.null_values}
        self._null_numbers = [number for value in given.null_values if (number := _number_or_none(value)) is not None]
        self.notes = self.dialect.notes
        if self.dialect.comments:
            count = len(self.dialect.comments)
            self.notes += (f"{count:,} line{'s' * (count > 1)} between the rows, comments or blank, not written again",)
        super().__init__(path, columns)

    def _refuse_headings(self) -> None:
        names = self.dialect.names
        if len(names) > _MOST_COLUMNS:
            raise SignalError(
                f"{self.path}: the table has {len(names):,} columns, of at most {_MOST_COLUMNS:,}: "
                "save it as .npy, or with a row for each moment"
            )
        line = self.dialect.head.count("\n") or 1
        if twice := [name for name in names if names.count(name) > 1][:1]:
            raise SignalError(f"{self.path}: line {line} names two columns {twice[0]!r}: rename one of them")

    def _table(self) -> pl.DataFrame:
        dialect = self.dialect
        if not dialect.body or not dialect.names:
            return pl.DataFrame()
        return pl.read_csv(
            dialect.body.encode(),
            separator=dialect.separator,
            has_header=False,
            infer_schema=False,
            schema=dict.fromkeys(dialect.names, pl.String),
        )

    def _reason(self, text: str, error: Exception) -> str:
        """Why a text is no table, in words that name the line."""
        separator = self.dialect.separator if hasattr(self, "dialect") else ","
        lines = csv.reader(io.StringIO(text), delimiter=separator)
        try:
            columns = len(self.dialect.names if hasattr(self, "dialect") else next(lines, []))
            for cells in lines:
                if len(cells) > columns and not cells[0].startswith("#"):
                    return (
                        f"line {lines.line_num} has {len(cells)} cells, the table {columns} columns, "
                        f"separated by {separator!r} (--separator says otherwise)"
                    )
        except csv.Error as found:
            return f"line {lines.line_num}: {found}"
        return str(error).partition("\n")[0]

    def _cells(self, name: str, table: pl.DataFrame | None = None) -> tuple[pl.Series, pl.Series, pl.Series]:
        """A column's cells, None for no value; written with a decimal point; as numbers, None where they are none."""
        text = (self.table if table is None else table)[name].str.strip_chars()
        text = text.set(text.is_in(list(self._nulls)), None)
        pointed = text
        if self.dialect.decimal == ",":
            pointed = text.set(text.str.contains(".", literal=True), "a point").str.replace(",", ".", literal=True)
        numbers = pointed.cast(pl.Float64, strict=False)
        if self._null_numbers:
            is_gap = numbers.is_in(self._null_numbers).fill_null(False)
            text, pointed, numbers = (series.set(is_gap, None) for series in (text, pointed, numbers))
        return text, pointed, numbers

    def typed(self, table: pl.DataFrame) -> pl.DataFrame:
        """Some of the rows with columns of numbers as numbers, where all their cells are."""
        columns = []
        for name in table.columns:
            if table[name].dtype == pl.String and name not in self.columns:
                text, _, numbers = self._cells(name, table)
                if text.null_count() == numbers.null_count() < len(numbers):
                    is_whole = text.str.contains(r"^[+-]?\d{1,18}$").fill_null(True).all()
                    columns.append(text.cast(pl.Int64) if is_whole else numbers)
        return table.with_columns(columns)

    def _has_numbers(self, name: str) -> bool:
        return bool(self._cells(name)[2].is_not_null().any())

    def _numbers(self, name: str) -> Array:
        text, pointed, numbers = self._cells(name)
        wrong = (text.is_not_null() & numbers.is_null()).arg_true()
        if len(wrong):
            row = int(wrong[0])
            raise SignalError(
                f"{self.path}: {self.place(row)}, column {name!r}: {text[row]!r} is not a number{self._advice(text[row])}"
            )
        self._refuse_inexact(name, pointed, numbers)
        gaps = (numbers.is_null() | numbers.is_nan()).arg_true()
        if self.gap is None and len(gaps):
            self.gap = self.table[name][int(gaps[0])] or ""
        return numbers.fill_null(np.nan).to_numpy()

    def _advice(self, cell: str) -> str:
        """How a cell that is no number may be read."""
        other = "." if self.dialect.decimal == "," else ","
        if re.fullmatch(rf"[+-]?\d*\{other}\d+", cell):
            return f" with the decimal sign {self.dialect.decimal!r}: --decimal {other} reads it"
        if re.fullmatch(r"[+-]?\d{1,3}([., ']\d{3})+([.,]\d+)?", cell):
            return ": save the table without separators of thousands"
        if re.search(r"\d", cell):
            return ""
        return f": --null-value {cell} says that it stands for a gap"

    def _refuse_inexact(self, name: str, text: pl.Series, numbers: pl.Series) -> None:
        """Refuse what a float can't hold: it would be written back as another number, or as infinity."""
        beyond = (numbers.is_infinite() & text.str.contains(r"\d")).fill_null(False).arg_true()
        large = ((numbers.abs() >= 2.0**53) & text.str.contains(r"^[+-]?\d+(\.0*)?$")).fill_null(False).arg_true()
        inexact = [row for row in large if int(text[int(row)].partition(".")[0]) != int(numbers[int(row)])]
        for row in (*beyond, *inexact):
            reason = "is beyond the range of float64" if row in beyond else "can't be held exactly in float64"
            raise SignalError(f"{self.path}: {self.place(int(row))}, column {name!r}: {text[int(row)]} {reason}")

    def _times(self, name: str) -> Array | None:
        text, _, numbers = self._cells(name)
        return _as_times(text) if numbers.null_count() else numbers.to_numpy()

    def place(self, sample: int) -> str:
        """``line 7``, the file's first being line 1; a cell may hold lines of its own."""
        before = self.table.head(sample).select(pl.all().str.count_matches("\n").sum())
        line = self.dialect.head.count("\n") + sample + sum(number or 0 for number in before.row(0))
        for comment in self.dialect.comments:
            line += comment <= line
        return f"line {line + 1}"


class ParquetReader(TableReader):
    """A table in a Parquet file, whose columns have types."""

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        try:
            self.table = pl.read_parquet(path)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise SignalError(f"{path}: not a Parquet file: {str(error).partition(chr(10))[0]}") from error
        super().__init__(path, columns)

    def _has_numbers(self, name: str) -> bool:
        return self.table[name].dtype.is_numeric()

    def _numbers(self, name: str) -> Array:
        column = self.table[name]
        if not column.dtype.is_numeric():
            raise SignalError(f"{self.path}: column {name!r} holds {column.dtype}, expected numbers")
        if column.dtype.is_integer() and (column.cast(pl.Int128).abs() > 2**53).any():
            raise SignalError(f"{self.path}: column {name!r}: integers beyond 2**53 can't be filtered exactly")
        return column.cast(pl.Float64).fill_null(np.nan).to_numpy()

    def _times(self, name: str) -> Array | None:
        column = self.table[name]
        if column.dtype.is_temporal():
            return None if column.null_count() else column.to_physical().cast(pl.Float64).to_numpy()
        if column.dtype == pl.String:
            return _as_times(column)
        return column.cast(pl.Float64).to_numpy() if column.dtype.is_numeric() and not column.null_count() else None

    def place(self, sample: int) -> str:
        """``row 7``, the first being row 1."""
        return f"row {sample + 1}"


def _number_or_none(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _as_times(text: pl.Series) -> Array | None:
    """Dates as numbers; None where a cell is none."""
    for convert, integer in ((text.str.to_datetime, pl.Int64), (text.str.to_date, pl.Int32)):
        try:
            return convert(strict=True).cast(integer).cast(pl.Float64).to_numpy()
        except pl.exceptions.PolarsError:
            continue
    return None


def _is_regular(times: Array | None) -> bool:
    """Whether numbers only grow, by steps that are mostly alike."""
    if times is None or len(times) < 3 or not np.isfinite(times).all():
        return False
    steps = np.diff(times)
    usual = np.median(steps)
    return bool((steps > 0).all() and np.mean(np.abs(steps - usual) < 0.25 * usual) > 0.5)


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
