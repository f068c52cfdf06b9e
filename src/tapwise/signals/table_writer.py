"""Tables written: in the source's dialect where there is one, else as CSV, TSV or Parquet usually are."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from tapwise.errors import SignalError
from tapwise.extras import need
from tapwise.signals.base import Array, Source, Writer
from tapwise.signals.parquet_tables import ParquetReader
from tapwise.signals.tables import TableReader
from tapwise.signals.text_tables import TextTableReader

if TYPE_CHECKING:
    import polars as pl
else:
    pl = need("polars")

# Cells of a row group, all its columns together.
_GROUP = 1 << 20


class TableWriter(Writer):
    """Writes the source's table with the signal's columns replaced, a row for each output.

    Arguments:
        rows: the source's row that belongs to each output, none where it lies beyond the table; None: the outputs
            alone are written.
    """

    def __init__(self, path: Path, source: Source, rows: range | None, channels: int, dtype: np.dtype[Any]) -> None:
        if rows is not None and channels != source.channels:
            raise SignalError(f"{path}: {channels} channels of {source.channels} can't stand in the table's columns")
        super().__init__(path)
        self.source = source
        self.table = source if isinstance(source, TableReader) and rows is not None else None
        self.names = [f"channel_{c}" for c in range(channels)] if self.table is None else list(self.table.columns)
        self._rows, self._nothing, self._n_written = rows, np.empty((channels, 0), dtype), 0

    def write(self, block: Array) -> None:
        """Append a row for each of (channels, n) samples."""
        start, self._n_written = self._n_written, self._n_written + block.shape[1]
        numbers = pl.DataFrame(dict(zip(self.names, block, strict=True)))
        self.write_rows(numbers, self._others(start, self._n_written))

    def _others(self, start: int, stop: int) -> pl.DataFrame | None:
        """The source's rows for some outputs; without a source's row, of nulls."""
        if self.table is None or self._rows is None:
            return None
        rows = np.array(self._rows[start:stop], dtype=np.int64)
        there = (rows >= 0) & (rows < self.table.length)
        first, last = (int(rows[there][0]), int(rows[there][-1]) + 1) if there.any() else (0, 1)
        places = pl.Series(rows - first, dtype=pl.Int64).set(pl.Series(~there), None)
        return self.table.rows(first, last)[places.cast(pl.UInt32)]

    @abstractmethod
    def write_rows(self, numbers: pl.DataFrame, others: pl.DataFrame | None) -> None:
        """Append rows.

        Arguments:
            others: the rows of the source with all its columns; None: there are none.
        """

    def finish(self) -> None:
        """Write the heading of a table that has no rows."""
        if not self._n_written:
            self.write(self._nothing)


class TextTableWriter(TableWriter):
    """Writes a table as text, in the source's dialect where it has one."""

    def write_rows(self, numbers: pl.DataFrame, others: pl.DataFrame | None) -> None:
        """Append rows; the heading goes before the first."""
        source, is_first = self.source, not self.output.file.tell()
        null_value, decimal, line_end, head, encoding, bom = None, ".", "\n", None, "utf-8", b""
        separator = "\t" if self.output.path.suffix.lower() == ".tsv" else ","
        if isinstance(source, TextTableReader):
            dialect, null_value, encoding, bom = source.dialect, source.null_value, source.encoding, source.bom
            decimal, line_end = dialect.decimal, dialect.line_end
            if source.path.suffix.lower() == self.output.path.suffix.lower():
                separator, head = dialect.separator, dialect.head
            elif decimal == separator:  # as spreadsheets do
                separator = ";"
        # As text, so that they are written as the source's are.
        lines = numbers.write_csv(include_header=False, separator=";").splitlines()
        cells = zip(*(line.split(";") for line in lines), strict=True) if lines else ()
        columns = [
            pl.Series(name, [_cell(cell, decimal, null_value) for cell in column], dtype=pl.String)
            for name, column in zip(numbers.columns, cells, strict=bool(lines))
        ]
        table = pl.DataFrame(columns) if others is None else others.with_columns(columns)
        is_kept = head is not None and others is not None
        text = table.write_csv(separator=separator, line_terminator=line_end, include_header=is_first and not is_kept)
        if is_first:
            self.output.file.write(bom + ((head or "") * is_kept).encode(encoding))
        self.output.file.write(text.encode(encoding))


class ParquetWriter(TableWriter):
    """Writes a table as Parquet: each row group to a file of its own, which are then joined."""

    def __init__(self, path: Path, source: Source, rows: range | None, channels: int, dtype: np.dtype[Any]) -> None:
        is_typed = isinstance(source, TextTableReader) and rows is not None
        self._types = source.numeric_columns() if isinstance(source, TextTableReader) and is_typed else {}
        super().__init__(path, source, rows, channels, dtype)
        self._folder: TemporaryDirectory[str] | None = None
        self._waiting: list[pl.DataFrame] = []
        self._parts: list[Path] = []

    def write_rows(self, numbers: pl.DataFrame, others: pl.DataFrame | None) -> None:
        """Keep rows until there are enough for a row group."""
        if others is not None and self.table is not None:
            numbers = others.with_columns(self._typed(numbers[name], others[name]) for name in self.names)
        if isinstance(self.table, TextTableReader):
            numbers = self.table.typed(numbers, self._types)
        self._waiting.append(numbers)
        if sum(table.height * table.width for table in self._waiting) >= _GROUP:
            self._write_part()

    def _typed(self, numbers: pl.Series, before: pl.Series) -> pl.Series:
        """Outputs as the column that they replace has them: of its floats, and null where it has nulls or is text."""
        if not isinstance(self.source, ParquetReader) or numbers.name in self.source.with_nulls:
            numbers = numbers.fill_nan(None)
        return numbers.cast(before.dtype) if before.dtype.is_float() else numbers

    def _write_part(self) -> None:
        if self._folder is None:
            self._folder = TemporaryDirectory(prefix=".", suffix=".partial", dir=self.output.path.parent)
        self._parts.append(Path(self._folder.name) / f"{len(self._parts)}.parquet")
        pl.concat(self._waiting).write_parquet(self._parts[-1])
        self._waiting = []

    def finish(self) -> None:
        """Write the parts to one file."""
        super().finish()
        if not self._parts:
            pl.concat(self._waiting).write_parquet(self.output.file)
            return
        if self._waiting:
            self._write_part()
        pl.scan_parquet(self._parts, glob=False).sink_parquet(self.output.file)

    def release(self) -> None:
        """Remove the parts."""
        if self._folder is not None:
            self._folder.cleanup()


def _cell(number: str, decimal: str, null_value: str | None) -> str | None:
    if number == "NaN" and null_value is not None:
        return null_value or None
    return number if decimal == "." else number.replace(".", decimal)
