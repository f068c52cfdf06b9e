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
        are_comments: whether lines between rows that begin with # are comments; where all do they are rows.
        line_end: of each line.
        notes: what was detected, where it isn't the usual.
    """

    separator: str
    decimal: str
    names: list[str]
    head: str
    are_comments: bool
    line_end: str
    notes: tuple[str, ...]


def dialect_of(text: str, given: TableFormat) -> Dialect:
    """How a text is written, as a table.

    Arguments:
        text: the beginning, with some rows after the first comments and the heading; or all of it.

    Example:
        >>> found = dialect_of("at;v\\n1;2,5\\n", TableFormat())
        >>> found.separator, found.decimal, found.names
        (';', ',', ['at', 'v'])
    """
    line_end = "\r\n" if "\r\n" in text[:10_000] else "\n"
    head, first, named = leading_lines(text)
    if first == len(text) and named is None:  # nothing else: a heading perhaps
        head, first = "", 0
    lines = list(islice(io.StringIO(text[first:]), _MOST_LINES))
    sample = [line for line in lines if not line.startswith("#")] or lines
    separator = given.separator or named or _separator_of(sample)
    rows = list(csv.reader(sample, delimiter=separator))
    decimal = given.decimal or ("." if separator == "," else _decimal_of(rows[1:] or rows))
    notes = []
    if given.separator is None and separator != ",":
        notes.append(f"{_NAMES[separator]} separates the columns (--separator says otherwise)")
    if given.decimal is None and decimal == ",":
        notes.append("numbers have a decimal comma (--decimal . says otherwise)")
    cells = rows[0] if rows else []
    names = cells
    in_comment = _names_in_comment(head, cells, separator, decimal, given.has_header)
    if in_comment:
        names = in_comment
        notes.append(f"the last comment names the columns: {listed(map(repr, names))} (--no-header says otherwise)")
    elif given.has_header is False or (given.has_header is None and _begins_with_values(rows, decimal)):
        names = [f"column_{n}" for n in range(1, len(cells) + 1)]
        if given.has_header is None:
            notes.append(
                f"line {head.count(chr(10)) + 1} holds values, so the columns are {listed(names)} (--header says otherwise)"
            )
    else:
        reader = csv.reader(io.StringIO(text[first:]), delimiter=separator)
        next(reader, None)
        if given.has_header is None and any(_number(decimal).fullmatch(cell.strip()) for cell in cells):
            line = head.count(chr(10)) + 1
            notes.append(f"line {line} names the columns, by numbers too: {listed(names)} (--no-header says otherwise)")
        end = first + _length_of_lines(text, first, reader.line_num)
        head, first = text[:end], end
    are_comments = not all(line.startswith("#") for line in io.StringIO(text[first:].rstrip("\r\n"), newline=""))
    return Dialect(separator, decimal, names, head, are_comments, line_end, tuple(notes))


def _number(decimal: str) -> re.Pattern[str]:
    return _COMMA if decimal == "," else _POINT


def _is_row(cells: list[str], decimal: str) -> bool:
    """Whether cells are values of a row, not names: numbers, times and gaps, at least one a number."""
    number = _number(decimal)
    cells = [cell.strip() for cell in cells]
    numbers = [cell for cell in cells if number.fullmatch(cell)]
    return bool(numbers) and all(number.fullmatch(c) or _DATE.fullmatch(c) or c in NULLS for c in cells)


def _begins_with_values(rows: list[list[str]], decimal: str) -> bool:
    """Whether the first row holds values: nothing else, or a fraction over a number, which no name is."""
    if not rows:
        return False
    if _is_row(rows[0], decimal):
        return True
    number, second = _number(decimal), rows[1] if len(rows) > 1 else []
    return any(
        number.fullmatch(a.strip()) and decimal in a and number.fullmatch(b.strip())
        for a, b in zip(rows[0], second, strict=False)
    )


def leading_lines(text: str) -> tuple[str, int, str | None]:
    """The lines at the beginning that are comments or blank, where they end, and the separator that one names.

    Spreadsheets write ``sep=;`` in the first line.
    """
    end, separator = 0, None
    for line in io.StringIO(text, newline=""):
        if end == 0 and re.fullmatch(r"sep=.\s*", line, re.DOTALL | re.IGNORECASE):
            separator = line[4]
        elif not line.startswith("#") and line.strip("\r\n"):
            break
        end += len(line)
    return text[:end], end, separator


def _names_in_comment(
    head: str, cells: list[str], separator: str, decimal: str, has_header: bool | None
) -> list[str] | None:
    """The names in the last comment, where values follow it in as many columns."""
    number = _number(decimal)
    if not head or has_header is False or not any(number.fullmatch(cell.strip()) for cell in cells):
        return None
    last = head.splitlines()[-1]
    if not last.startswith("#"):
        return None
    last = last.removeprefix("#")
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


class Lines(NamedTuple):
    """Complete rows at the beginning of a text.

    Arguments:
        rows: without comments and blank lines.
        n_rows: how many; None: a cell is quoted, and may hold lines of its own.
        comments: numbers of the lines between them, counted from 0 in the file, that are comments or blank.
        end: characters of the text that they take.
    """

    rows: str
    n_rows: int | None
    comments: list[int]
    end: int


def complete_rows(text: str, first: int, dialect: Dialect, is_last: bool) -> Lines:
    """The complete rows of a text, which begins with one; of the last text, all that is left.

    A line that begins with # is a row where all are, or where its first cell stands for no value, as #N/A. In a
    table of one column a blank line before the last row is a gap.

    Arguments:
        first: the number of the first line.
        is_last: whether the file ends with the text; else its last lines may go on.
    """
    if not ('"' in text or text.startswith(("#", "\n", "\r")) or "\n#" in text or "\n\n" in text or "\n\r\n" in text):
        end = len(text) if is_last else text.rfind("\n") + 1
        rows = text[:end]
        return Lines(rows, rows.count("\n") + (rows[-1:] not in ("", "\n")), [], end)
    kept: list[str] = []
    comments: list[int] = []
    n_kept, n_comments, at, end, is_within = 0, 0, 0, 0, False
    for number, line in enumerate(io.StringIO(text, newline=""), first):
        if not is_last and not line.endswith("\n"):
            break
        at += len(line)
        is_blank = not line.strip("\r\n")
        if not is_within and ((is_blank and len(dialect.names) > 1) or _is_comment(line, dialect)):
            comments.append(number)
        else:
            kept.append(line)
            is_within = _ends_in_cell(line, is_within, dialect.separator)
        if not is_within and not is_blank:  # blank lines at the end of a file are nothing
            n_kept, n_comments, end = len(kept), len(comments), at
    if is_last and is_within:
        n_kept, n_comments, end = len(kept), len(comments), at
    return Lines("".join(kept[:n_kept]), None if '"' in text[:end] else n_kept, comments[:n_comments], end)


def _ends_in_cell(line: str, is_within: bool, separator: str) -> bool:
    """Whether a quoted cell goes on in the next line. A cell is quoted where it begins with a quotation mark.

    Arguments:
        is_within: whether the line begins within one.
    """
    at = 0
    while True:
        if not is_within and line[at : at + 1] == '"':
            is_within, at = True, at + 1
        if is_within:
            at = line.find('"', at) + 1
            if not at:
                return True
            if line[at : at + 1] == '"':  # two stand for one
                at += 1
                continue
            is_within = False
        at = line.find(separator, at) + 1
        if not at:
            return False


def unpaired_mark(text: str, separator: str) -> int | None:
    """The line, from 0, of a quotation mark that has no pair: of a cell that doesn't end, or within another cell."""
    is_within, start, odd = False, 0, None
    for number, line in enumerate(io.StringIO(text, newline="")):
        start = start if is_within else number
        was_within, is_within = is_within, _ends_in_cell(line, is_within, separator)
        if odd is None and not (was_within or is_within) and line.count('"') % 2:
            odd = number
    return start if is_within else odd


def _is_comment(line: str, dialect: Dialect) -> bool:
    if not dialect.are_comments or not line.startswith("#"):
        return False
    return next(_rows([line], dialect.separator), [""])[0].strip() not in NULLS
