"""Tables, CSV and Parquet, through polars: some columns are the signal, the others are kept as they stand.

A table is read by pieces of some thousand rows, so that its size doesn't matter.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tapwise.errors import SignalError, listed
from tapwise.extras import need
from tapwise.signals.base import Array, Reader

if TYPE_CHECKING:
    import polars as pl
else:
    pl = need("polars")

# Pieces that are kept, as a window reaches from one into the next.
_KEPT = 2


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
    # What stood for no value in the signal's columns, as the file writes it.
    gap: str | None = None
    # All columns, and the first row of each piece and the end of the last one.
    names: list[str]
    starts: list[int]

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        self.path = path
        self._pieces: dict[int, pl.DataFrame] = {}
        self.length = self.starts[-1]
        if not self.length:
            raise SignalError(f"{path}: the table has no rows")
        notes = []
        if not columns:
            columns, note = self._only_numeric()
            notes += note
        self.columns, self.channels = columns, len(columns)
        if len(set(columns)) != len(columns):
            raise SignalError(f"{path}: a column is named twice: {listed(map(repr, columns))}")
        for name in columns:
            if name not in self.names:
                raise SignalError(f"{path}: there is no column {name!r}; the table has {listed(map(repr, self.names))}")
        # Columns of the signal that hold nulls.
        self.with_nulls: set[str] = set()
        notes += self._looked_over()
        self.notes = (*self.notes, *notes)

    def rows(self, start: int, stop: int) -> pl.DataFrame:
        """The rows [start, stop), all columns of them.

        Raises:
            SignalError: a file that is damaged, or has changed.
        """
        parts = []
        for n, (first, end) in enumerate(zip(self.starts, self.starts[1:], strict=False)):
            if first < stop and end > start:
                parts.append(self._piece(n).slice(max(start - first, 0), min(stop, end) - max(start, first)))
        return pl.concat(parts, rechunk=False) if parts else self._piece(0).clear()

    def _piece(self, n: int) -> pl.DataFrame:
        if n not in self._pieces:
            while len(self._pieces) >= _KEPT:
                del self._pieces[next(iter(self._pieces))]
            table = self._read_piece(n)
            if len(table) != self.starts[n + 1] - self.starts[n]:
                raise SignalError(f"{self.path}: the file has changed while it was read: run again")
            self._pieces[n] = table
        return self._pieces[n]

    @abstractmethod
    def _read_piece(self, n: int) -> pl.DataFrame:
        """The rows of a piece, from the file."""

    def _all_pieces(self) -> Iterator[tuple[int, pl.DataFrame]]:
        """Every piece, with its first row."""
        for n, first in enumerate(self.starts[:-1]):
            yield first, self._piece(n)

    def _only_numeric(self) -> tuple[tuple[str, ...], list[str]]:
        """The column of numbers, where there is one, beside a first column of times; and what is to be said of it."""
        found, first, steps = set(), self.names[0], _Steps()
        for start, table in self._all_pieces():
            found |= {name for name in self.names if name not in found and self._has_numbers(table[name])}
            steps.add(self._times(table[first]), start)
        numeric = [name for name in self.names if name in found]
        if len(numeric) == 2 and numeric[0] == first and steps.are_regular:
            return (numeric[1],), [f"column {first!r} is taken for the time, and kept (--column says otherwise)"]
        if numeric == [first] and len(self.names) > 1 and steps.are_regular:
            others = listed(map(repr, self.names[1:]))
            raise SignalError(
                f"{self.path}: column {first!r} counts time, and no other holds a number: {others}; --column {first} "
                "filters it, and --column with another name says what is wrong there"
            )
        if len(numeric) != 1:
            words = listed(map(repr, numeric)) or "none"
            raise SignalError(
                f"{self.path}: --column must name the signal's column, and again for more: the numeric ones are {words}"
            )
        return (numeric[0],), []

    def _looked_over(self) -> Iterator[str]:
        """Read all of the signal once, so that what is no number is found before any work.

        Returns:
            where rows are missing: for a column of times whose steps are mostly alike, where they are longer.
        """
        steps = {name: _Steps() for name in self.names if name not in self.columns}
        for start, table in self._all_pieces():
            for name in self.columns:
                self._numbers(table[name], start)
                if table[name].null_count():
                    self.with_nulls.add(name)
            for name, of_column in steps.items():
                if of_column.may_be_regular:
                    of_column.add(self._times(table[name]), start)
        for name, of_column in steps.items():
            if of_column.are_regular and of_column.n_longer:
                count = of_column.n_longer
                yield (
                    f"column {name!r}: {count:,} step{'s' * (count > 1)} longer than the usual one, the first before "
                    f"{self.place(of_column.first_longer)}: rows are missing there, and neighbours are filtered as if "
                    "they weren't"
                )

    @abstractmethod
    def _has_numbers(self, column: pl.Series) -> bool:
        """Whether some rows of a column may be of a signal."""

    @abstractmethod
    def _numbers(self, column: pl.Series, first: int) -> Array:
        """The numbers of some rows of a column, NaN where there is none.

        Arguments:
            first: row of the table.

        Raises:
            SignalError: what is no number, with its place.
        """

    @abstractmethod
    def _times(self, column: pl.Series) -> Array | None:
        """Seconds, days or what else a column counts, where it holds dates or numbers."""

    def read(self, start: int, stop: int) -> Array:
        """The rows [start, stop) of every signal column: (channels, stop - start)."""
        table = self.rows(start, stop)
        return np.stack([self._numbers(table[name], start) for name in self.columns])


class _Steps:
    """The steps of a column of times, piece by piece: whether they are mostly alike, and where they are longer.

    The usual step is the median of the first piece's.
    """

    def __init__(self) -> None:
        self.may_be_regular = True
        self.n_longer, self.first_longer = 0, 0
        self._usual, self._count, self._alike = 0.0, 0, 0
        self._last: Array = np.empty(0)

    def add(self, times: Array | None, first: int) -> None:
        """Look at the next rows, of which ``first`` is the first."""
        if times is None or not np.isfinite(times).all():
            self.may_be_regular = False
            return
        steps = np.diff(np.concatenate((self._last, times)))
        first -= len(self._last)
        self._last = times[-1:] if len(times) else self._last
        if not len(steps):
            return
        if not self._count:
            self._usual = float(np.median(steps))
        self._count += len(steps)
        self._alike += int((np.abs(steps - self._usual) < 0.25 * self._usual).sum())
        self.may_be_regular = self.may_be_regular and bool((steps > 0).all())
        longer = np.flatnonzero(steps > 1.5 * self._usual)
        if len(longer) and not self.n_longer:
            self.first_longer = first + int(longer[0]) + 1
        self.n_longer += len(longer)

    @property
    def are_regular(self) -> bool:
        """Whether the times only grow, by steps that are mostly alike."""
        return self.may_be_regular and self._count > 1 and self._alike > 0.5 * self._count


def dates_as_numbers(text: pl.Series) -> Array | None:
    """Dates as numbers; None where a cell is none."""
    for convert, integer in ((text.str.to_datetime, pl.Int64), (text.str.to_date, pl.Int32)):
        try:
            return convert(strict=True).cast(integer).cast(pl.Float64).to_numpy()
        except pl.exceptions.PolarsError:
            continue
    return None
