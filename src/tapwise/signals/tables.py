"""Tables, CSV and Parquet, through polars: some columns are the signal, the others are kept as they stand.

A table is read by pieces of some thousand rows, so that its size doesn't matter.
"""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

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

T = TypeVar("T")


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
    # All columns, and the first row of each piece and the end of the last one.
    names: list[str]
    starts: list[int]
    # Of the file, before any of it was read.
    opened: Any

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        self._pieces: dict[int, pl.DataFrame] = {}
        self._signals: dict[int, Array] = {}
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
        notes += self._check_signal()
        self.notes = (*self.notes, *notes)

    def rows(self, start: int, stop: int) -> pl.DataFrame:
        """The rows [start, stop), all columns of them.

        Raises:
            SignalError: a file that is damaged, or has changed.
        """
        parts = [self._piece(n)[there] for n, there in self._within(start, stop)]
        return pl.concat(parts, rechunk=False) if parts else self._piece(0).clear()

    def _within(self, start: int, stop: int) -> Iterator[tuple[int, slice]]:
        """The pieces in which rows stand, and where in each."""
        for n in range(bisect_right(self.starts, start) - 1, len(self.starts) - 1):
            first, end = self.starts[n : n + 2]
            if first >= stop:
                break
            yield n, slice(max(start - first, 0), min(stop, end) - first)

    def _piece(self, n: int) -> pl.DataFrame:
        return _kept(self._pieces, n, lambda: self._checked(n, None))

    def _signal(self, n: int) -> Array:
        """The signal's numbers in a piece: (channels, rows)."""

        def numbers() -> Array:
            table = self._pieces[n] if n in self._pieces else self._checked(n, self.columns)
            return np.stack([self._numbers(table[name], self.starts[n]) for name in self.columns])

        return _kept(self._signals, n, numbers)

    def _checked(self, n: int, columns: tuple[str, ...] | None) -> pl.DataFrame:
        table = self._read_piece(n, columns)
        if self.mark() != self.opened or len(table) != self.starts[n + 1] - self.starts[n]:
            raise SignalError(f"{self.path}: the file has changed while it was read: run again")
        return table

    @abstractmethod
    def _read_piece(self, n: int, columns: tuple[str, ...] | None) -> pl.DataFrame:
        """The rows of a piece, from the file.

        Arguments:
            columns: that are needed, others may be there too; None: all.
        """

    def _all_pieces(self) -> Iterator[tuple[int, pl.DataFrame]]:
        """Every piece, with its first row."""
        for n, first in enumerate(self.starts[:-1]):
            yield first, self._piece(n)

    def _only_numeric(self) -> tuple[tuple[str, ...], list[str]]:
        """The column of numbers, where there is one, beside a first column of times; and what is to be said of it."""
        numeric, first, steps = self._numeric_names(), self.names[0], _Steps()
        if numeric[:1] == [first] and len(numeric) < 3:
            for start, table in self._all_pieces():
                if steps.may_be_regular:
                    steps.add(self._times(table[first]), start)
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

    def _check_signal(self) -> list[str]:
        """Read all of the signal once, so that what is no number is found before any work.

        Returns:
            Notes: for a column of times whose steps are mostly alike, where they are longer.
        """
        steps = {name: _Steps() for name in self.names if name not in self.columns}
        for n, start in enumerate(self.starts[:-1]):
            table = self._piece(n)
            self._signal(n)
            self.with_nulls |= {name for name in self.columns if table[name].null_count()}
            for name, of_column in steps.items():
                if of_column.may_be_regular:
                    of_column.add(self._times(table[name]), start)
        notes = []
        for name, of_column in steps.items():
            count, row = of_column.longer()
            if of_column.are_regular and count:
                notes.append(
                    f"column {name!r}: {count:,} step{'s' * (count > 1)} longer than the usual one, the first before "
                    f"{self.place(row)}: rows are missing there, and neighbours are filtered as if they weren't"
                )
        return notes

    @abstractmethod
    def _numeric_names(self) -> list[str]:
        """The columns that may be a signal."""

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
        parts = [self._signal(n)[:, there] for n, there in self._within(start, stop)]
        return np.concatenate(parts, axis=1) if parts else np.empty((self.channels, 0))


def _kept(pieces: dict[int, T], n: int, make: Callable[[], T]) -> T:
    """A piece, from those that are kept or made."""
    if n not in pieces:
        while len(pieces) >= _KEPT:
            del pieces[next(iter(pieces))]
        pieces[n] = make()
    return pieces[n]


class _Steps:
    """The steps of a column of times, piece by piece: whether they are mostly alike, and where they are longer.

    Steps are counted by their size, within one in a hundred.
    """

    def __init__(self) -> None:
        self.may_be_regular = True
        # By size: how many, the row before which the first stands, and that step.
        self._bins: dict[int, tuple[int, int, float]] = {}
        self._last: Array = np.empty(0)

    def add(self, times: Array | None, first: int) -> None:
        """Look at the next rows, of which ``first`` is the first."""
        if times is None or not np.isfinite(times).all():
            self.may_be_regular = False
            return
        steps = np.diff(np.concatenate((self._last, times)))
        first += 1 - len(self._last)
        self._last = times[-1:] if len(times) else self._last
        if not (steps > 0).all():
            self.may_be_regular = False
            return
        sizes, places, counts = np.unique(
            np.rint(64 * np.log2(steps)).astype(int), return_index=True, return_counts=True
        )
        for size, place, count in zip(sizes.tolist(), places.tolist(), counts.tolist(), strict=True):
            before, row, step = self._bins.get(size, (0, first + place, float(steps[place])))
            self._bins[size] = (before + count, row, step)

    @property
    def _count(self) -> int:
        return sum(count for count, *_ in self._bins.values())

    @property
    def _usual(self) -> float:
        """The median."""
        done = 0
        for _, (count, _, step) in sorted(self._bins.items()):
            done += count
            if 2 * done >= self._count:
                return step
        return np.nan

    @property
    def are_regular(self) -> bool:
        """Whether the times only grow, by steps that are mostly alike."""
        usual = self._usual
        alike = sum(count for count, _, step in self._bins.values() if abs(step - usual) < 0.25 * usual)
        return self.may_be_regular and self._count > 1 and alike > 0.5 * self._count

    def longer(self) -> tuple[int, int]:
        """How many steps are longer than usual, and the row before which the first stands."""
        usual = self._usual
        found = [(row, count) for count, row, step in self._bins.values() if step > 1.5 * usual]
        return sum(count for _, count in found), min(found, default=(0, 0))[0]


def dates_as_numbers(text: pl.Series) -> Array | None:
    """Dates as numbers; None where a cell is none."""
    for convert, integer in ((text.str.to_datetime, pl.Int64), (text.str.to_date, pl.Int32)):
        try:
            return convert(strict=True).cast(integer).cast(pl.Float64).to_numpy()
        except pl.exceptions.PolarsError:
            continue
    return None
