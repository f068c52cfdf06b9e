"""How a table is written as text: separators, decimal commas, comments, a heading or none; given, or detected."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from tapwise.errors import listed

# Cells that stand for no value: pandas' own list.
NULLS = frozenset(
    (
        "",
        "#N/A",
        "#N/A N/A",
        "#NA",
        "-1.#IND",
        "-1.#QNAN",
        "-NaN",
        "-nan",
        "1.#IND",
        "1.#QNAN",
        "<NA>",
        "N/A",
        "NA",
        "NULL",
        "NaN",
        "None",
        "n/a",
        "nan",
        "null",
    )
)
SEPARATORS = (";", "\t", ",", "|")
_NAMES = {";": "';'", "\t": "tab", ",": "','", "|": "'|'"}
# Lines that are looked at to find out how a table is written.
_MOST_LINES = 100

_POINT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_COMMA = re.compile(r"[+-]?(\d+,?\d*|,\d+)([eE][+-]?\d+)?")
_FRACTION = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")
_DATE = re.compile(r"\d{1,4}[-/.:]\d{1,2}\b.*")


@dataclass(frozen=True)
class TableFormat:
    """What a user says of a table; None and nothing: it is detected.

    Arguments:
        separator: of cells, one character.
        decimal: ``"."`` or ``","``.
        has_header: whether the first line names the columns.
        null_values: cells, as text or as numbers, that stand for no value, beside pandas' usual ones.

    Raises:
        ValueError: what no table can be written with.
    """

    separator: str | None = None
    decimal: str | None = None
    has_header: bool | None = None
    null_values: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.separator is not None and (
            len(self.separator) != 1 or self.separator in '"\n\r' or self.separator > "~"
        ):
            raise ValueError(f"a separator is one character, as ';' or tab, got {self.separator!r}")
        if self.decimal not in (None, ".", ","):
            raise ValueError(f"the decimal sign is '.' or ',', got {self.decimal!r}")
        if self.decimal is not None and self.decimal == self.separator:
            raise ValueError(f"{self.decimal!r} can't be both the separator and the decimal sign")


class Dialect(NamedTuple):
    """How a table is written.

    Arguments:
        names: of the columns.
        head: the text before the first row, as it stands: comments and the heading.
        body: the rows, without comments.
        comments: numbers of the lines, counted from 0, that are comments between rows.
        has_header: whether the names stand in the file.
        line_end: of each line.
        notes: what was detected, where it isn't the usual.
    """

    separator: str
    decimal: str
    names: list[str]
    head: str
    body: str
    comments: list[int]
    has_header: bool
    line_end: str
    notes: tuple[str, ...]


def dialect_of(text: str, given: TableFormat) -> Dialect:
    """How a text is written, as a table.

    Example:
        >>> found = dialect_of("at;v\\n1;2,5\\n", TableFormat())
        >>> found.separator, found.decimal, found.names
        (';', ',', ['at', 'v'])
    """
    line_end = "\r\n" if "\r\n" in text[:10_000] else "\n"
    head, first = _leading_comments(text)
    lines = list(islice(io.StringIO(text[first:]), _MOST_LINES))
    sample = [line for line in lines if not line.startswith("#")] or lines
    separator = given.separator or _separator_of(sample)
    rows = list(csv.reader(sample, delimiter=separator))
    decimal = given.decimal or ("." if separator == "," else _decimal_of(rows[1:] or rows))
    notes = []
    if given.separator is None and separator != ",":
        notes.append(f"{_NAMES[separator]} separates the columns (--separator says otherwise)")
    if given.decimal is None and decimal == ",":
        notes.append("numbers have a decimal comma (--decimal . says otherwise)")
    cells = rows[0] if rows else []
    has_header, names = True, cells
    in_comment = _names_in_comment(head, cells, separator, decimal, given.has_header)
    if in_comment:
        names = in_comment
        notes.append(f"the last comment names the columns: {listed(map(repr, names))} (--no-header says otherwise)")
    elif given.has_header is False or (given.has_header is None and is_row(cells, decimal)):
        has_header, names = False, [f"column_{n}" for n in range(1, len(cells) + 1)]
        if given.has_header is None:
            notes.append(
                f"line {head.count(chr(10)) + 1} holds values, so the columns are {listed(names)} (--header says otherwise)"
            )
    else:
        reader = csv.reader(io.StringIO(text[first:]), delimiter=separator)
        next(reader, None)
        end = first + _length_of_lines(text, first, reader.line_num)
        head, first = text[:end], end
    body, comments = _without_comments(text[first:], head.count("\n"), separator, len(names))
    if len(names) > 1:
        body = body.rstrip("\r\n") + "\n" if body.strip("\r\n") else ""
    return Dialect(separator, decimal, names, head, body, comments, has_header, line_end, tuple(notes))


def is_row(cells: list[str], decimal: str) -> bool:
    """Whether cells are values of a row, not names: numbers, times and gaps, at least one a number."""
    number = _COMMA if decimal == "," else _POINT
    cells = [cell.strip() for cell in cells]
    numbers = [cell for cell in cells if number.fullmatch(cell)]
    return bool(numbers) and all(number.fullmatch(c) or _DATE.fullmatch(c) or c in NULLS for c in cells)


def _leading_comments(text: str) -> tuple[str, int]:
    """The lines at the beginning that begin with #, and where they end."""
    end = 0
    for line in io.StringIO(text, newline=""):
        if not line.startswith("#"):
            break
        end += len(line)
    if end == len(text):  # nothing else: a heading perhaps
        end = 0
    return text[:end], end


def _names_in_comment(
    head: str, cells: list[str], separator: str, decimal: str, has_header: bool | None
) -> list[str] | None:
    """The names in the last comment, where values follow it in as many columns."""
    number = _COMMA if decimal == "," else _POINT
    if not head or has_header is False or not any(number.fullmatch(cell.strip()) for cell in cells):
        return None
    last = head.splitlines()[-1].removeprefix("#")
    names = next(csv.reader([last.strip(" ") if separator == "\t" else last.strip()], delimiter=separator), [])
    names = [name.strip() or "#" for name in names]
    return names if len(names) == len(cells) and not any(map(number.fullmatch, names)) else None


def _separator_of(lines: list[str]) -> str:
    """The separator that gives every line the same number of cells, several; a comma where none does."""
    best, most = ",", 1
    for separator in SEPARATORS:
        counts = [len(row) for row in _rows(lines, separator) if row]
        if counts and len(set(counts)) == 1 and counts[0] > 1:
            return separator
        if counts and counts[0] > most and Counter(counts).most_common(1)[0][0] == counts[0]:  # but for a mistake
            best, most = separator, counts[0]
    cells = [line.strip() for line in lines[1:]]
    if most == 1 and cells and all(_FRACTION.fullmatch(cell) or cell in NULLS for cell in cells):
        return ";"  # of one column, with decimal commas
    return best


def _rows(lines: list[str], separator: str) -> Iterator[list[str]]:
    try:
        yield from csv.reader(lines, delimiter=separator)
    except csv.Error:
        return


def _decimal_of(rows: list[list[str]]) -> str:
    """A comma where numbers are written with it and none with a point."""
    cells = [cell.strip() for row in rows for cell in row]
    has_comma = any(_FRACTION.fullmatch(cell) for cell in cells)
    return "," if has_comma and not any("." in cell and _POINT.fullmatch(cell) for cell in cells) else "."


def _length_of_lines(text: str, start: int, count: int) -> int:
    """The letters of ``count`` lines from ``start`` on."""
    at = start
    for _ in range(count):
        end = text.find("\n", at)
        at = len(text) if end < 0 else end + 1
    return at - start


def _without_comments(body: str, lines_before: int, separator: str, columns: int) -> tuple[str, list[int]]:
    """The rows without lines that begin with # and have another number of cells; and the numbers of those."""
    if not body.startswith("#") and "\n#" not in body:
        return body, []
    kept, comments = [], []
    for number, line in enumerate(io.StringIO(body, newline=""), lines_before):
        is_gap = columns == 1 and line.strip() in NULLS  # as #N/A
        if line.startswith("#") and not is_gap and (columns == 1 or len(next(_rows([line], separator), [])) != columns):
            comments.append(number)
        else:
            kept.append(line)
    return "".join(kept), comments
