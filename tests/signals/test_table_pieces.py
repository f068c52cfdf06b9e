"""Tables of any size of pieces: rows, notes, messages and what is written are the same."""

import csv
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tapwise.errors import SignalError
from tapwise.signals import open_reader, open_writer, text_tables
from tapwise.signals import parquet_tables as parquet

TEXTS = {
    "a short row": "at,v,w\n1,2,x\n2\n3,4,x\n4,5\n",
    "a last row cut off": "at,v\n1,2\n2,3\n3",
    "a last row without an end": "at,v\n1,2\n2,3\n3,4",
    "an end sign of DOS": "at,v\n1,2\n2,3\n\x1a",
    "blanks in a line": "at,v\n1,2\n  \n2,3\n",
    "byte order marks within": "a,v\n\ufeffx,1\n\ufeffy,2\n",
    "signs for no value": "x,v\n1,NA\n2,2\nNULL,3\n4,null\n",
    "steps that become shorter": "t,v\n" + "".join(f"{60 * n},{n * n}\n" for n in range(6)) + "".join(f"{300 + n},1.5\n" for n in range(1, 60)),
    "a long first step": "t,v\n0,1.5\n" + "".join(f"{100 + n},{n * n}\n" for n in range(30)),
    "comments in front": "# of a logger\n" * 100 + "at,v\n1,2\n2,3\n",
    "comments after the heading": "at,v\n" + "# of a logger\n" * 100 + "1,2\n2,3\n",
    "rows that begin with #, then others": "at,v\n" + "#1,2\n" * 30 + "2,3\n",
    "rows that all begin with #": "#at,v\n" + "#1,2\n" * 30,
    "wide, with decimal commas": ";".join(f"a column {n}" for n in range(30)) + "\n" + (";".join(["0,5"] * 30) + "\n") * 3,
    "a mark within a cell": 'at,v\n5" pipe,1\nb,2\n"c\nd",3\n',
    "two marks in a cell": 'at,v\n"5"" pipe\n",1\n"""",2\nc,3\n',
    "returns": "at,v\r\n1,2\r\n\r\n# x\r\n2,3\r\n",
    "one column with gaps": "v\n1\n\n3\n\n\n",
    "no number": "at,v\na,1\n# x\nb,2\nc,x\nd,y\n",
    "too many cells": "at,v\na,1\nb,2,3\nc,4\n",
    "an open mark": 'at,v\na,1\n"b,2\nc,3\n',
}  # fmt: skip


def seen(path, target, columns):
    """All that can be seen of a table: what it is read as and written as, or the error."""
    try:
        with open_reader(path, columns) as reader:
            x = reader.read(0, reader.length)
            found = [reader.columns, reader.notes, x.tolist(), [reader.place(n) for n in range(reader.length)]]
            with open_writer(target, reader, reader.length // 2, None, range(1, reader.length, 2)) as writer:
                writer.write(x[:, 1::2])
            return str([*found, target.read_bytes()])
    except SignalError as error:
        return str(error)


@pytest.mark.parametrize("columns", [(), ("v",)])
@pytest.mark.parametrize("name", TEXTS)
def test_the_size_of_pieces_changes_nothing(tmp_path, monkeypatch, name, columns):
    path, target = tmp_path / "t.csv", tmp_path / "o.csv"
    path.write_bytes(TEXTS[name].encode())
    expected = seen(path, target, columns)
    for piece, beginning in ((1, 1), (5, 64), (20, 1 << 20), (1 << 20, 1)):
        monkeypatch.setattr(text_tables, "_PIECE", piece)
        monkeypatch.setattr(text_tables, "_BEGINNING", beginning)
        assert seen(path, target, columns) == expected


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("a last row cut off", [2, 3, np.nan]),
        ("comments after the heading", [2, 3]),
        ("two marks in a cell", [1, 2, 3]),
        ("byte order marks within", [1, 2]),
    ],
)
def test_tables_as_loggers_leave_them(tmp_path, name, values):
    (tmp_path / "t.csv").write_bytes(TEXTS[name].encode())
    with open_reader(tmp_path / "t.csv", ("v",)) as reader:
        np.testing.assert_array_equal(reader.read(0, reader.length), [values])


def test_an_index_and_its_notes(tmp_path):
    (tmp_path / "t.csv").write_text(TEXTS["steps that become shorter"])
    with open_reader(tmp_path / "t.csv") as reader:
        assert reader.columns == ("v",)
        assert "column 't': 5 steps longer than the usual one, the first before line 3" in reader.notes[1]


@pytest.mark.parametrize(("name", "line"), [("an open mark", 3), ("a mark within a cell", 2)])
def test_a_quotation_mark_without_its_pair(tmp_path, monkeypatch, name, line):
    (tmp_path / "t.csv").write_text(TEXTS[name])
    words = f"not a CSV table: line {line} has a quotation mark without its pair"
    with pytest.raises(SignalError, match=words):
        open_reader(tmp_path / "t.csv", ("v",))
    if name == "an open mark":
        (tmp_path / "t.csv").write_text(TEXTS[name] + "c,3\n" * 500)
        monkeypatch.setattr(text_tables, "_LONGEST_ROW", 1000)
        monkeypatch.setattr(text_tables, "_PIECE", 100)
        with pytest.raises(SignalError, match=words):
            open_reader(tmp_path / "t.csv", ("v",))


def test_parquet_into_a_folder_with_signs_of_patterns(tmp_path):
    folder = tmp_path / "a[1]*"
    folder.mkdir()
    pl.DataFrame({"v": np.arange(3_000_000) / 8}).write_parquet(folder / "t.parquet")
    with (
        open_reader(folder / "t.parquet") as reader,
        open_writer(folder / "o.parquet", reader, reader.length, None, range(reader.length)) as writer,
    ):
        for start in range(0, reader.length, 500_000):
            writer.write(2 * reader.read(start, start + 500_000))
    assert (pl.read_parquet(folder / "o.parquet", glob=False)["v"] == pl.Series(np.arange(3_000_000) / 4)).all()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.text('a,"\n#é ', max_size=5), st.integers(0, 99), st.booleans()), min_size=1, max_size=12),
    st.integers(1, 60),
    st.sampled_from(["utf-8", "utf-16", "cp1252"]),
)
def test_rows_of_any_pieces_are_those_of_the_csv_module(tmp_path, rows, size, encoding):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["first", "name", "v"])
    lines = []  # of the file, from 1, where each row begins
    for name, number, has_comment in rows:
        if has_comment:
            text.write("# a comment, of it\n")
        lines.append(text.getvalue().count("\n") + 1)
        writer.writerow(["x", name, number])
    (tmp_path / "t.csv").write_bytes(text.getvalue().encode(encoding))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_tables, "_PIECE", size)
        with open_reader(tmp_path / "t.csv", ("v",)) as reader:
            assert reader.length == len(rows)
            np.testing.assert_array_equal(reader.read(0, len(rows)), [[number for _, number, _ in rows]])
            assert reader.rows(0, len(rows))["name"].fill_null("").to_list() == [name for name, *_ in rows]
            middle = len(rows) // 2
            assert reader.rows(middle, len(rows)).height == len(rows) - middle
            ends = [line + name.count("\n") for line, (name, *_) in zip(lines, rows, strict=True)]
            found = [int(reader.place(n).removeprefix("line ")) for n in range(len(rows))]
            assert all(line <= at <= end for line, at, end in zip(lines, found, ends, strict=True))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_that_changes_while_it_is_read(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(text_tables, "_PIECE", 100)
    monkeypatch.setattr(parquet, "_CELLS", 20)
    path = tmp_path / f"t.{suffix}"

    def save(n_rows, value):
        table = pl.DataFrame({"at": ["a"] * n_rows, "v": [value] * n_rows})
        table.write_csv(path) if suffix == "csv" else table.write_parquet(path)

    for n_rows in (100, 1000):
        save(1000, 1.5)
        with open_reader(path, ("v",)) as reader:
            reader.read(0, 10)
            save(n_rows, 2.5)
            with pytest.raises(SignalError, match="changed"):
                reader.read(0, 1000)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(("kind", "target"), [("csv", "csv"), ("parquet", "parquet"), ("csv", "parquet")])
def test_memory_does_not_grow_with_a_table(tmp_path, kind, target):
    code = (
        "import sys; from tapwise import cli\n"
        "try: cli.main(sys.argv[1:])\n"
        "except SystemExit as ended: assert not ended.code\n"
        "print(next(int(line.split()[1]) / 1024 for line in open('/proc/self/status') if 'VmHWM' in line))"
    )
    used = []
    for length in (1_000_000, 6_000_000) if kind == "csv" else (6_000_000, 16_000_000):  # several pieces
        table = pl.DataFrame({"t": np.arange(length) / 100, "v": np.arange(length) % 1000 / 8})
        path = tmp_path / f"t.{kind}"
        table.write_csv(path) if kind == "csv" else table.write_parquet(path)
        arguments = ["apply", path, "-o", tmp_path / f"o.{target}", "--taps", "mean:9", "--column", "v"]
        run = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, check=True, text=True
        )
        used.append(float(run.stdout.splitlines()[-1]))
    assert used[1] - used[0] < 70, used  # megabytes
