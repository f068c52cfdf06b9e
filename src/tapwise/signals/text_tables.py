"""Tables as text, CSV and the like, read by pieces that end with a row."""

from __future__ import annotations

import codecs
import csv
import io
import re
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tapwise.errors import SignalError
from tapwise.extras import need
from tapwise.signals.base import Array
from tapwise.signals.dialect import NULLS, TableFormat, complete_rows, dialect_of, leading_lines, unpaired_mark
from tapwise.signals.tables import TableReader, dates_as_numbers

if TYPE_CHECKING:
    import polars as pl
else:
    pl = need("polars")

_MOST_COLUMNS = 20_000
# Bytes of a piece, and of the beginning in which the heading is looked for.
_PIECE = 1 << 22
_BEGINNING = 1 << 20
# Characters that a row may have; what is longer is a quotation mark without its pair.
_LONGEST_ROW = 1 << 24
# Characters in which a table's form is looked for.
_LONGEST_BEGINNING = 1 << 26
# Lines after the first comments, of which none is one, from which a table's form is read.
_ENOUGH = 10
# Byte order marks, the longer ones first, and the encodings that they and what follows are in.
_BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


@dataclass(frozen=True)
class _Piece:
    """Where some rows stand in the file.

    Arguments:
        start: the first byte.
        stop: the byte after the last.
        line: the number of its first line, from 0.
    """

    start: int
    stop: int
    line: int


class TextTableReader(TableReader):
    """A table as text, in a dialect that is given or detected."""

    def __init__(self, path: Path, columns: tuple[str, ...], given: TableFormat) -> None:
        self.path = path
        self.opened = self.mark()
        self.given = None if given == TableFormat() else given
        self._nulls = NULLS | {value.strip() for value in given.null_values}
        self._null_numbers = [number for value in given.null_values if (number := _number_or_none(value)) is not None]
        with path.open("rb") as file:
            beginning = file.read(4)
        self.bom, encodings = b"", ["utf-8", "cp1252", "latin-1"]  # the second as spreadsheets of Western Europe write
        for bom, encoding in _BOMS:
            if beginning.startswith(bom):
                self.bom, encodings = bom, [encoding]
                break
        # By column: what stands for no value first, as the file writes it.
        self._null_values: dict[str, str] = {}
        for self.encoding in encodings:
            try:
                self._find_pieces(given)
                break
            except UnicodeError as error:
                if self.encoding == encodings[-1]:
                    raise SignalError(f"{path}: not a CSV table: {error}") from error
        self.notes = self.dialect.notes
        if self._n_comments:
            count = self._n_comments
            self.notes += (f"{count:,} line{'s' * (count > 1)} between the rows, comments or blank, not written again",)
        super().__init__(path, columns)

    def _find_pieces(self, given: TableFormat) -> None:
        """Read all of the text once: how it is written, and where its pieces begin.

        Raises:
            UnicodeError: text in another encoding.
            SignalError: what is no table.
        """
        beginning = self._beginning()
        try:
            self.dialect = dialect_of(beginning, given)
        except csv.Error as error:
            raise SignalError(f"{self.path}: not a CSV table: {self._reason(beginning, 0, error)}") from error
        self._refuse_headings()
        self.names = list(self.dialect.names)
        self._text_pieces, self.starts, self._n_comments = list[_Piece](), [0], 0
        line, text = self.dialect.head.count("\n"), ""
        start = len(self.bom) + len(self.dialect.head.encode(self.encoding))
        decoder = codecs.getincrementaldecoder(self.encoding)()
        with self.path.open("rb") as file:
            size = file.seek(0, io.SEEK_END)
            file.seek(start)
            is_last = False
            while not is_last:
                data = file.read(_PIECE)
                is_last = file.tell() >= size
                text += decoder.decode(data, final=is_last)
                if "\0" in text:
                    raise SignalError(f"{self.path}: not a CSV table that can be read: save it as UTF-8 text")
                lines = complete_rows(text, line, self.dialect, is_last)
                if not lines.end and len(text) > _LONGEST_ROW:
                    raise SignalError(
                        f"{self.path}: not a CSV table: line {line + 1} has a quotation mark without its pair"
                    )
                stop = start + len(text[: lines.end].encode(self.encoding))
                if lines.rows and self.names:
                    n_rows = lines.n_rows or len(self._parsed(lines.rows, text[: lines.end], line))
                    self._text_pieces.append(_Piece(start, stop, line))
                    self.starts.append(self.starts[-1] + n_rows)
                self._n_comments += len(lines.comments)
                start, line, text = stop, line + text.count("\n", 0, lines.end), text[lines.end :]

    def _beginning(self) -> str:
        """The text up to some lines that are no comments, in complete lines where it isn't all."""
        decoder, text, data, size = codecs.getincrementaldecoder(self.encoding)(), "", b"begin", _BEGINNING
        with self.path.open("rb") as file:
            file.seek(len(self.bom))
            while data and len(text) < _LONGEST_BEGINNING:
                data = file.read(size)
                text += decoder.decode(data, final=not data)
                end = text.rfind("\n") + 1
                rows = io.StringIO(text[leading_lines(text[:end])[1] : end])
                if data and sum(bool(line.strip()) and not line.startswith("#") for line in rows) >= _ENOUGH:
                    return text[:end]
                size = len(text) + 1
        return text

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

    def _parsed(self, rows: str, text: str, line: int) -> pl.DataFrame:
        """Rows as a table of text: what is not the signal is written back to the letter.

        Arguments:
            text: the rows with the comments between them, as the file has them.
            line: the number of its first line, from 0.
        """
        # A first row with all its cells: what is read begins neither with a shorter one nor with a byte order mark.
        full = self.dialect.separator.join("0" * len(self.names)) + "\n"
        try:
            return pl.read_csv(
                (full + rows).encode(),
                separator=self.dialect.separator,
                has_header=False,
                infer_schema=False,
                schema=dict.fromkeys(self.names, pl.String),
            ).slice(1)
        except pl.exceptions.PolarsError as error:
            raise SignalError(f"{self.path}: not a CSV table: {self._reason(text, line, error)}") from error

    def _text_of(self, n: int) -> str:
        piece = self._text_pieces[n]
        with self.path.open("rb") as file:
            file.seek(piece.start)
            return file.read(piece.stop - piece.start).decode(self.encoding)

    def _read_piece(self, n: int, columns: tuple[str, ...] | None) -> pl.DataFrame:
        try:
            text = self._text_of(n)
        except (OSError, UnicodeError) as error:
            raise SignalError(f"{self.path}: the file has changed while it was read: {error}") from error
        line = self._text_pieces[n].line
        return self._parsed(complete_rows(text, line, self.dialect, is_last=True).rows, text, line)

    def _reason(self, text: str, line: int, error: Exception) -> str:
        """Why a text is no table, in words that name the line; ``line`` is the number of its first, from 0."""
        separator = self.dialect.separator if hasattr(self, "dialect") else ","
        lines = csv.reader(io.StringIO(text), delimiter=separator)
        try:
            columns = len(self.dialect.names if hasattr(self, "dialect") else next(lines, []))
            for cells in lines:
                if len(cells) > columns and not cells[0].startswith("#"):
                    return (
                        f"line {line + lines.line_num} has {len(cells)} cells, the table {columns} columns, "
                        f"separated by {separator!r} (--separator says otherwise)"
                    )
        except csv.Error as found:
            return f"line {line + lines.line_num}: {found}"
        if (number := unpaired_mark(text, separator)) is not None:
            return f"line {line + number + 1} has a quotation mark without its pair"
        return str(error).partition("\n")[0]

    def _cells(self, column: pl.Series) -> tuple[pl.Series, pl.Series, pl.Series]:
        """A column's cells, None for no value; written with a decimal point; as numbers, None where they are none."""
        text = column.str.strip_chars()
        text = text.set(text.is_in(list(self._nulls)), None)
        pointed = text
        if self.dialect.decimal == ",":
            pointed = text.set(text.str.contains(".", literal=True), "a point").str.replace(",", ".", literal=True)
        numbers = pointed.cast(pl.Float64, strict=False)
        if self._null_numbers:
            is_gap = numbers.is_in(self._null_numbers).fill_null(False)
            text, pointed, numbers = (series.set(is_gap, None) for series in (text, pointed, numbers))
        return text, pointed, numbers

    def numeric_columns(self) -> dict[str, pl.DataType]:
        """Columns besides the signal all of whose cells are numbers, and of which type."""
        integer = {name: True for name in self.names if name not in self.columns}
        counts = dict.fromkeys(integer, 0)
        for _, table in self._all_pieces():
            for name in list(integer):
                text, _, numbers = self._cells(table[name])
                if text.null_count() != numbers.null_count():
                    del integer[name]
                    continue
                counts[name] += len(numbers) - numbers.null_count()
                integer[name] &= bool(text.str.contains(r"^[+-]?\d{1,18}$").fill_null(True).all())
        return {name: pl.Int64() if integer[name] else pl.Float64() for name in integer if counts[name]}

    def typed(self, table: pl.DataFrame, types: dict[str, pl.DataType]) -> pl.DataFrame:
        """Some of the rows with columns of numbers as numbers."""
        columns = []
        for name, dtype in types.items():
            text, _, numbers = self._cells(table[name])
            columns.append(numbers if dtype.is_float() else text.cast(pl.Int64))
        return table.with_columns(columns)

    def _numeric_names(self) -> list[str]:
        found: set[str] = set()
        for _, table in self._all_pieces():
            others = (name for name in self.names if name not in found)
            found |= {name for name in others if self._cells(table[name])[2].is_not_null().any()}
        return [name for name in self.names if name in found]

    @property
    def null_value(self) -> str | None:
        """What stands for no value in the signal's columns, as the file writes it; None where none is missing."""
        return next((self._null_values[name] for name in self.columns if name in self._null_values), None)

    def _numbers(self, column: pl.Series, first: int) -> Array:
        text, pointed, numbers = self._cells(column)
        wrong = (text.is_not_null() & numbers.is_null()).arg_true()
        if len(wrong):
            row = int(wrong[0])
            raise SignalError(
                f"{self.path}: {self.place(first + row)}, column {column.name!r}: {text[row]!r} is not a number"
                f"{self._advice(text[row])}"
            )
        self._refuse_inexact(pointed, numbers, first)
        gaps = (numbers.is_null() | numbers.is_nan()).arg_true()
        if len(gaps) and column.name not in self._null_values:
            self._null_values[column.name] = column[int(gaps[0])] or ""
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

    def _refuse_inexact(self, text: pl.Series, numbers: pl.Series, first: int) -> None:
        """Refuse what a float can't hold: it would be written back as another number, or as infinity."""
        beyond = (numbers.is_infinite() & text.str.contains(r"\d")).fill_null(False).arg_true()
        large = ((numbers.abs() >= 2.0**53) & text.str.contains(r"^[+-]?\d+(\.0*)?$")).fill_null(False).arg_true()
        inexact = [row for row in large if int(text[int(row)].partition(".")[0]) != int(numbers[int(row)])]
        for row in (*beyond, *inexact):
            reason = "is beyond the range of float64" if row in beyond else "can't be held exactly in float64"
            at = f"{self.place(first + int(row))}, column {text.name!r}"
            raise SignalError(f"{self.path}: {at}: {text[int(row)]} {reason}")

    def _times(self, column: pl.Series) -> Array | None:
        text, _, numbers = self._cells(column)
        return dates_as_numbers(text) if numbers.null_count() else numbers.to_numpy()

    def place(self, sample: int) -> str:
        """``line 7``, the file's first being line 1; a cell may hold lines of its own."""
        n = bisect_right(self.starts, sample, hi=len(self._text_pieces)) - 1
        piece, rows = self._text_pieces[n], sample - self.starts[n]
        before = self._piece(n).head(rows).select(pl.all().str.count_matches("\n").sum())
        line = piece.line + rows + sum(number or 0 for number in before.row(0))
        for comment in complete_rows(self._text_of(n), piece.line, self.dialect, is_last=True).comments:
            line += comment <= line
        return f"line {line + 1}"


def _number_or_none(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
