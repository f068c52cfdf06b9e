"""Tables written: in the source's dialect where there is one, else as CSV, TSV or Parquet usually are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tapwise.errors import SignalError
from tapwise.extras import need
from tapwise.signals.base import Array, Source, Writer
from tapwise.signals.tables import TableReader, TextTableReader

if TYPE_CHECKING:
    import polars as pl
else:
    pl = need("polars")


class TableWriter(Writer):
    """Writes the source's table with the signal's columns replaced, a row for each output, in the source's dialect."""

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
        source, rows = self._source, self._rows
        if not isinstance(source, TableReader) or rows is None:
            names, others = [f"channel_{c}" for c in range(len(signal))], None
        else:
            names, others = list(source.columns), source.table[pl.Series(rows, dtype=pl.UInt32)]
        numbers = pl.DataFrame(dict(zip(names, signal, strict=True)))
        if self.output.path.suffix.lower() == ".parquet":
            if others is not None and isinstance(source, TableReader):
                numbers = others.with_columns(_typed(numbers[name], source.table[name]) for name in names)
                if isinstance(source, TextTableReader):
                    numbers = source.typed(numbers)
            numbers.write_parquet(self.output.file)
            return
        self.output.file.write(self._text(numbers, others))

    def _text(self, numbers: pl.DataFrame, others: pl.DataFrame | None) -> bytes:
        source = self._source
        gap, decimal, line_end, head = getattr(source, "gap", None), ".", "\n", None
        separator = "\t" if self.output.path.suffix.lower() == ".tsv" else ","
        if isinstance(source, TextTableReader):
            dialect = source.dialect
            decimal, line_end = dialect.decimal, dialect.line_end
            if source.path.suffix.lower() == self.output.path.suffix.lower():
                separator, head = dialect.separator, dialect.head
            elif decimal == separator:  # as spreadsheets do
                separator = ";"
        # As text, so that they are written as the source's are.
        lines = numbers.write_csv(include_header=False, separator=";").splitlines()
        cells = zip(*(line.split(";") for line in lines), strict=True) if lines else ()
        columns = [
            pl.Series(name, [_cell(cell, decimal, gap) for cell in column], dtype=pl.String)
            for name, column in zip(numbers.columns, cells, strict=bool(lines))
        ]
        table = pl.DataFrame(columns) if others is None else others.with_columns(columns)
        is_kept = head is not None and others is not None
        text = table.write_csv(separator=separator, line_terminator=line_end, include_header=not is_kept)
        encoding, mark = getattr(source, "encoding", "utf-8"), getattr(source, "mark", b"")
        return bytes(mark) + ((head or "") * is_kept + text).encode(encoding)


def _typed(numbers: pl.Series, before: pl.Series) -> pl.Series:
    """Outputs as the column that they replace has them: of its floats, and null where it has nulls or is text."""
    if before.null_count() or before.dtype == pl.String:
        numbers = numbers.fill_nan(None)
    return numbers.cast(before.dtype) if before.dtype.is_float() else numbers


def _cell(number: str, decimal: str, gap: str | None) -> str | None:
    if number == "NaN" and gap is not None:
        return gap or None
    return number if decimal == "." else number.replace(".", decimal)
