"""Tables in Parquet files, read by pieces of their rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tapwise.errors import SignalError
from tapwise.extras import need
from tapwise.signals.base import Array
from tapwise.signals.tables import TableReader, dates_as_numbers

if TYPE_CHECKING:
    import polars as pl
else:
    pl = need("polars")

# Cells of a piece, all its columns together.
_CELLS = 1 << 22


class ParquetReader(TableReader):
    """A table in a Parquet file, whose columns have types."""

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        self.path = path
        self.opened = self.mark()
        self._file = pl.scan_parquet(path, glob=False)
        try:
            self.schema = self._file.collect_schema()
            length = int(self._file.select(pl.len()).collect().item())
        except (pl.exceptions.PolarsError, OSError) as error:
            raise SignalError(f"{path}: not a Parquet file: {str(error).partition(chr(10))[0]}") from error
        self.names = self.schema.names()
        size = max(1, _CELLS // max(len(self.names), 1))
        self.starts = [*range(0, length, size), length]
        super().__init__(path, columns)

    def _read_piece(self, n: int, columns: tuple[str, ...] | None) -> pl.DataFrame:
        start, stop = self.starts[n : n + 2]
        table = self._file if columns is None else self._file.select(columns)
        try:
            return table.slice(start, stop - start).collect()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise SignalError(
                f"{self.path}: the file is damaged, or has changed: {str(error).partition(chr(10))[0]}"
            ) from error

    def _numeric_names(self) -> list[str]:
        return [name for name, dtype in self.schema.items() if dtype.is_numeric()]

    def _numbers(self, column: pl.Series, first: int) -> Array:
        if not column.dtype.is_numeric():
            raise SignalError(f"{self.path}: column {column.name!r} holds {column.dtype}, expected numbers")
        if column.dtype.is_integer() and (column.cast(pl.Int128).abs() > 2**53).any():
            raise SignalError(f"{self.path}: column {column.name!r}: integers beyond 2**53 can't be filtered exactly")
        return column.cast(pl.Float64).fill_null(np.nan).to_numpy()

    def _times(self, column: pl.Series) -> Array | None:
        if column.dtype.is_temporal():
            return None if column.null_count() else column.to_physical().cast(pl.Float64).to_numpy()
        if column.dtype == pl.String:
            return dates_as_numbers(column)
        return column.cast(pl.Float64).to_numpy() if column.dtype.is_numeric() and not column.null_count() else None

    def place(self, sample: int) -> str:
        """``row 7``, the first being row 1."""
        return f"row {sample + 1}"
