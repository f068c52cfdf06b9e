import codecs
import csv
import io
import re

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tapwise.errors import SignalError
from tapwise.signals import open_reader, open_writer, parquet_tables, table_writer, text_tables
from tapwise.signals.dialect import TableFormat


@pytest.fixture(autouse=True, params=["at once", "by pieces"])
def pieces(request, monkeypatch):
    """Every table is read and written in one piece, and in as small ones as there can be."""
    if request.param == "by pieces":
        for module, name, size in (
            (text_tables, "_PIECE", 5),
            (text_tables, "_BEGINNING", 600),
            (parquet_tables, "_CELLS", 6),
            (table_writer, "_GROUP", 4),
        ):
            monkeypatch.setattr(module, name, size)


@pytest.mark.parametrize(
    ("times", "place"),
    [
        (["2026-01-01", "2026-01-02", "2026-01-03", "2026-01-06", "2026-01-07"], "line 5"),
        ([f"2026-01-01 00:0{n}:00" for n in (0, 1, 2, 3, 5, 6)], "line 6"),
        ([f"2026-01-01T0{n}:00:00" for n in (0, 1, 2, 5, 6)], "line 5"),
        (["0.0", "0.1", "0.2", "0.4", "0.5"], "line 5"),
        (["0", "1", "2", "3", "4", "9", "10", "12", "13"], "line 7"),
        (["2026-01-01", "2026-01-02", "2026-01-03"], None),
        (["3", "1", "2", "9"], None),  # not times
        (["a", "b", "c", "e"], None),
        (["1", "10", "100", "1000"], None),  # no usual step
        (["2026-01-31", "2026-02-28", "2026-03-31", "2026-04-30"], None),  # months
    ],
)
def test_missing_rows_are_noticed(tmp_path, times, place):
    path = tmp_path / "t.csv"
    path.write_text("at,v\n" + "".join(f"{at},{n}.5\n" for n, at in enumerate(times)))
    with open_reader(path, ("v",)) as reader:
        notes = reader.notes
    if place is None:
        assert notes == ()
    else:
        (note,) = notes
        assert re.match(
            rf"column 'at': \d steps? longer than the usual one, the first before {place}: rows are missing", note
        )


def written(path, source, rows=None, **given):
    """A table read and written as it is; with what was said of it."""
    with open_reader(source, table=TableFormat(**given) if given else None) as reader:
        x = reader.read(0, reader.length)
        rows = range(reader.length) if rows is None else rows
        with open_writer(path, reader, len(rows), None, rows) as writer:
            writer.write(x[:, rows])
    return path.read_bytes(), x, reader.notes


TABLES = {
    "semicolons and decimal commas": ("at;v\nMo;1,5\nDi;-2,0\n", [1.5, -2]),
    "thousand rows of them": ("at;v\n" + "Mo;1,5\n" * 1000, [1.5] * 1000),
    "one column with decimal commas": ("v\n1,5\n2,25\n", [1.5, 2.25]),
    "tabs": ("at\tv\nMo, early\t1.5\nDi\t2.0\n", [1.5, 2]),
    "bars": ("at|v\nMo|1.5\nDi|2.0\n", [1.5, 2]),
    "a mark and CRLF": ("\ufeffat;v\r\nMo;1,5\r\nDi;2,0\r\n", [1.5, 2]),
    "comments before the heading": ("# station 7\n# height: 3; 4\nat;v\nMo;1.5\nDi;2.0\n", [1.5, 2]),
    "a heading that is a comment": ("# station 7\n# at,v\n1,1.5\n2,2.0\n3,3.0\n", [1.5, 2, 3]),
    "a heading whose first name is #": ("#;v;note\n1;1.5;a\n2;2.0;b\n3;2.5;c\n", [1.5, 2, 2.5]),
    "no heading": ("2026-01-01,1.5\n2026-01-02,2.0\n", [1.5, 2]),
    "no heading, semicolons": ("2026-01-01;1,5\n2026-01-02;2,0\n", [1.5, 2]),
    "gaps as NA": ("at,v\na,1.5\nb,NA\nc,2.0\n", [1.5, np.nan, 2]),
    "one column with gaps as #N/A": ("v\n1.5\n#N/A\n2.0\n", [1.5, np.nan, 2]),
    "gaps as empty cells": ("at,v\na,1.5\nb,\nc,2.0\n", [1.5, np.nan, 2]),
    "gaps in the first row": ("at,v\na,NA\nb,1.0\n", [np.nan, 1]),
    "quoted names": ('"at, UTC","v ""raw"""\na,1.5\nb,2.0\n', [1.5, 2]),
    "a name of two lines": ('"at\nUTC",v\na,1.5\nb,2.0\n', [1.5, 2]),
    "rows that begin with #": ("#,v\n#1,1.5\n#2,2.0\n", [1.5, 2]),
    "blank lines at the end": ("at,v\na,1.5\nb,2.0\n\n\n", [1.5, 2]),
    "text with separators": ('at,v\n"a,b",1.5\nc;d,2.0\n', [1.5, 2]),
    "times in front": ("t,v\n0.0,1.5\n0.1,3.0\n0.2,2.0\n", [1.5, 3, 2]),
    "no heading, a text and a fraction": ("20240101 00:00,1.5\n20240101 00:10,2.5\n", [1.5, 2.5]),
    "years as names": ("at,2020,note\na,1.5,x\nb,2.5,y\n", [1.5, 2.5]),
    "a separator that is said": ("sep=|\nat;x|v\na;y|1.5\nb;z|2.5\n", [1.5, 2.5]),
    "blank lines in front": ("\n\nat,v\na,1.5\nb,2.5\n", [1.5, 2.5]),
    "a quoted cell with a line that begins with #": ('at,v\n"a\n# b",1.5\nc,2.5\n', [1.5, 2.5]),
    "numbers with exponents": ("at;v\na;1,5e-9\nb;1e+20\n", [1.5e-9, 1e20]),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_read_and_written_as_it_is(tmp_path, name):
    text, expected = TABLES[name]
    (tmp_path / "t.csv").write_bytes(text.encode())
    again, x, _ = written(tmp_path / "o.csv", tmp_path / "t.csv")
    np.testing.assert_array_equal(x, [expected])
    again = again.decode()
    if name == "blank lines at the end":
        text = text.rstrip("\n") + "\n"
    if name == "numbers with exponents":  # as polars writes them
        text, again = (re.sub(r"1e\+20|100000000000000000000,0|1,0e20", "1e20", t) for t in (text, again))
    assert again == text


@pytest.mark.parametrize(
    ("text", "given", "expected"),
    [
        ("a;v\n1;1,5\n2;2,5\n3;4,5\n", {"separator": ";", "decimal": ","}, [1.5, 2.5, 4.5]),
        ("a;b,c\nx,1\ny,2\n", {}, [1, 2]),
        (
            "a;v\nx;1,5\ny;2.5\n",
            {"decimal": ","},
            "line 3, column 'v': '2.5' is not a number with the decimal sign ','",
        ),
        ("v\n-999\n1.5\n-999.0\n", {"null_values": ("-999",)}, [np.nan, 1.5, np.nan]),
        ("v\nmissing\n1.5\n", {"null_values": ("missing",)}, [np.nan, 1.5]),
        ("2020\n1\n2\n", {"has_header": True}, [1, 2]),
        ("2020\n1\n2\n", {}, [2020, 1, 2]),
        ("v\n1\n2\n", {"has_header": False}, "line 1, column 'column_1': 'v' is not a number"),
    ],
)
def test_what_is_given_goes_before_what_is_detected(tmp_path, text, given, expected):
    (tmp_path / "t.csv").write_text(text)
    if isinstance(expected, str):
        with pytest.raises(SignalError, match=expected):
            written(tmp_path / "o.csv", tmp_path / "t.csv", **given)
    else:
        np.testing.assert_array_equal(written(tmp_path / "o.csv", tmp_path / "t.csv", **given)[1], [expected])


@pytest.mark.parametrize(
    ("text", "notes"),
    [
        ("at;v\nMo;1,5\nDi;2,0\n", ["';' separates the columns", "numbers have a decimal comma"]),
        ("at\tv\na\t1\nb\t2\n", ["tab separates the columns"]),
        ("2026-01-01,1.5\n2026-01-03,2.0\n", ["line 1 holds values, so the columns are column_1, column_2"]),
        ("# at,v\n7,1.5\n3,2.0\n", ["the last comment names the columns: 'at', 'v'"]),
        ("t,v\n0,1\n1,3\n2,2\n", ["column 't' is taken for the time, and kept"]),
        ("at,v\na,1\n# lost\n# lost too\nb,2\n", ["2 lines between the rows, comments or blank, not written again"]),
        ("at,v\na,1\nb,2\n", []),
    ],
)
def test_what_was_detected_is_told(tmp_path, text, notes):
    (tmp_path / "t.csv").write_text(text)
    with open_reader(tmp_path / "t.csv", ("v",) if "7,1.5" in text else ()) as reader:
        said = reader.notes
    assert len(said) == len(notes)
    for note, beginning in zip(said, notes, strict=True):
        assert note.startswith(beginning)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("at;v\na;1,5\nb;2.5\n", "line 2, column 'v': '1,5' is not a number with the decimal sign '.'"),
        (
            "at;v\na;1.5\nb;2,5\n",
            "line 3, column 'v': '2,5' is not a number with the decimal sign '.': --decimal , reads it",
        ),
        (
            "at;v\na;1.234,5\nb;2,5\n",
            "line 2, column 'v': '1.234,5' is not a number: save the table without separators of",
        ),
        ("# c\n# c\nat;v\na;1\n# c\nb;x\n", "line 6, column 'v': 'x' is not a number"),
        ('at;v\n"a\nb";1\n# c\nb;x\n', "line 5, column 'v': 'x' is not a number"),
        ("at;v\na;1\nb;2;3\nc;4\n", "line 3 has 3 cells, the table 2 columns, separated by ';'"),
        ("at;v;v\na;1;2\n", "line 1 names two columns 'v': rename one of them"),
        ("# one\n# two\n", "the numeric ones are none"),
        ('"t","v"\n0,"1,5"\n1,"2,5"\n2,"4,5"\n', "column 't' counts time, and no other holds a number: 'v'"),
        ("\n\n", "the table has no rows"),
    ],
)
def test_messages_name_line_and_column(tmp_path, text, words):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(SignalError, match=re.escape(words)):
        open_reader(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"separator": ";;"}, "a separator is one character"),
        ({"separator": '"'}, "a separator is one character"),
        ({"decimal": ";"}, "the decimal sign is"),
        ({"decimal": ",", "separator": ","}, "can't be both"),
    ],
)
def test_formats_that_can_not_be(given, words):
    with pytest.raises(ValueError, match=words):
        TableFormat(**given)


def test_parquet_keeps_types_and_gaps(tmp_path):
    at = pl.datetime_range(pl.datetime(2026, 1, 1), pl.datetime(2026, 1, 1, 4), "1h", eager=True)
    table = pl.DataFrame({"at": at, "v": [1.0, None, 3.0, 4.0, 5.0], "n": pl.Series([1, 2, 3, 4, 5], dtype=pl.Int8)})
    table.write_parquet(tmp_path / "t.parquet")
    with open_reader(tmp_path / "t.parquet", ("v", "n")) as reader:
        x = reader.read(0, 5)
        np.testing.assert_array_equal(x, [[1, np.nan, 3, 4, 5], [1, 2, 3, 4, 5]])
        for suffix in ("parquet", "csv"):
            with open_writer(tmp_path / f"o.{suffix}", reader, 3, None, range(3, 6)) as writer:
                writer.write(2 * np.c_[x, [9, 9]][:, 3:6])
    again = pl.read_parquet(tmp_path / "o.parquet")
    assert again.to_dict(as_series=False) == {"at": [*at[3:5], None], "v": [8.0, 10.0, 18.0], "n": [8.0, 10.0, 18.0]}
    assert (tmp_path / "o.csv").read_text().splitlines()[2] == "2026-01-01T04:00:00.000000,10.0,10.0"
    with pytest.raises(SignalError, match="column 'at' holds Datetime"):
        open_reader(tmp_path / "t.parquet", ("at",))
    table.filter(pl.col("n") != 4).write_parquet(tmp_path / "t.parquet")
    with open_reader(tmp_path / "t.parquet", ("v",)) as reader:
        assert reader.notes[0].startswith("column 'at': 1 step longer than the usual one, the first before row 4")
    (tmp_path / "t.parquet").write_bytes(b"no such thing")
    with pytest.raises(SignalError, match="not a Parquet file"):
        open_reader(tmp_path / "t.parquet")
    with pytest.raises(SignalError, match="belong to tables of text"):
        open_reader(tmp_path / "t.parquet", table=TableFormat(separator=";"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    st.sampled_from([(";", ","), (";", "."), ("\t", "."), (",", "."), ("|", ",")]),
    st.lists(
        st.tuples(
            st.text(st.characters(categories=["L", "N", "P", "Zs"], exclude_characters="#"), min_size=1, max_size=6),
            st.floats(allow_nan=False, allow_infinity=False, width=32),
        ),
        min_size=1,
        max_size=8,
    ),
    st.booleans(),
)
def test_any_table_is_read_as_it_was_written(tmp_path, how, rows, has_mark):
    separator, decimal = how
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, lineterminator="\n")
    writer.writerow(["name of it", "v"])
    for name, number in rows:
        writer.writerow([name, str(number).replace(".", decimal)])
    (tmp_path / "t.csv").write_bytes((codecs.BOM_UTF8 if has_mark else b"") + text.getvalue().encode())
    with open_reader(tmp_path / "t.csv", ("v",)) as reader:
        np.testing.assert_array_equal(reader.read(0, len(rows)), [[number for _, number in rows]])
        assert reader.rows(0, len(rows))["name of it"].fill_null("").to_list() == [name for name, _ in rows]


def test_an_index_without_a_name_is_called_by_its_sign(tmp_path):
    (tmp_path / "t.csv").write_text(TABLES["a heading whose first name is #"][0])
    with open_reader(tmp_path / "t.csv", ("v",)) as reader:
        assert reader.names == ["#", "v", "note"]


@pytest.mark.parametrize(
    ("text", "expected", "place"),
    [
        ("t,v\n0,2\n1,2\n# gain changed, 50\n2,2\n3,x\n", None, "line 6"),
        ("at,v\na,1\n\nb,2\n\n\nc,3\n\n", [1, 2, 3], None),
        ("v\n1\n\n3\n\n\n", [1, np.nan, 3], None),
    ],
)
def test_comments_and_blank_lines_are_no_rows(tmp_path, text, expected, place):
    (tmp_path / "t.csv").write_text(text)
    if place:
        with pytest.raises(SignalError, match=place):
            open_reader(tmp_path / "t.csv", ("v",))
        (tmp_path / "t.csv").write_text(text.replace("x", "2"))
        expected = [2, 2, 2, 2]
    with open_reader(tmp_path / "t.csv", ("v",)) as reader:
        np.testing.assert_array_equal(reader.read(0, reader.length), [expected])


def copied(source, target, column):
    with open_reader(source, (column,)) as reader, open_writer(target, reader, 2, None, range(2)) as writer:
        writer.write(reader.read(0, 2))


def test_a_table_goes_from_kind_to_kind(tmp_path):
    (tmp_path / "a.csv").write_text("n;t;v;b\n1;Mo;1,5;7,25\n2;Di;NA;8,5\n")
    for source, target in (("a.csv", "b.tsv"), ("b.tsv", "c.csv"), ("a.csv", "d.parquet")):
        copied(tmp_path / source, tmp_path / target, "v")
    assert (tmp_path / "b.tsv").read_text() == "n\tt\tv\tb\n1\tMo\t1,5\t7,25\n2\tDi\tNA\t8,5\n"
    assert (tmp_path / "c.csv").read_text() == (tmp_path / "a.csv").read_text()
    table = pl.read_parquet(tmp_path / "d.parquet")
    assert table.schema == {"n": pl.Int64, "t": pl.String, "v": pl.Float64, "b": pl.Float64}
    assert table["v"].to_list() == [1.5, None]
    table.select(pl.col("v").fill_null(0).cast(pl.Float32)).write_parquet(tmp_path / "e.parquet")
    copied(tmp_path / "e.parquet", tmp_path / "f.parquet", "v")
    assert pl.read_parquet(tmp_path / "f.parquet").schema == {"v": pl.Float32}


def test_rows_are_written_one_by_one(tmp_path):
    (tmp_path / "a.csv").write_text("n;t;v;b\n1;Mo;1,5;7,25\n2;Di;NA;8\n3;Mi;2,5;9\n")
    for source, target in (
        ("a.csv", "b.tsv"),
        ("a.csv", "c.parquet"),
        ("c.parquet", "d.csv"),
        ("c.parquet", "e.parquet"),
    ):
        with (
            open_reader(tmp_path / source, ("v",)) as reader,
            open_writer(tmp_path / target, reader, 3, None, range(3)) as writer,
        ):
            for row in range(3):
                writer.write(reader.read(row, row + 1))
    assert (tmp_path / "b.tsv").read_text() == "n\tt\tv\tb\n1\tMo\t1,5\t7,25\n2\tDi\tNA\t8\n3\tMi\t2,5\t9\n"
    expected = {"n": [1, 2, 3], "t": ["Mo", "Di", "Mi"], "v": [1.5, None, 2.5], "b": [7.25, 8.0, 9.0]}
    for name in ("c", "e"):
        assert pl.read_parquet(tmp_path / f"{name}.parquet").to_dict(as_series=False) == expected
    assert (tmp_path / "d.csv").read_text() == "n,t,v,b\n1,Mo,1.5,7.25\n2,Di,NaN,8.0\n3,Mi,2.5,9.0\n"


@pytest.mark.parametrize(("values", "expected"), [([1.0, None, 2.0], None), ([1.0, float("nan"), 2.0], float("nan"))])
def test_what_is_no_number_stands_as_the_column_has_it(tmp_path, values, expected):
    pl.DataFrame({"v": values}).write_parquet(tmp_path / "a.parquet")
    with (
        open_reader(tmp_path / "a.parquet") as reader,
        open_writer(tmp_path / "b.parquet", reader, 3, None, range(3)) as writer,
    ):
        writer.write(np.array([[np.nan, 1, 2]]))
    found = pl.read_parquet(tmp_path / "b.parquet")["v"][0]
    assert found is None if expected is None else np.isnan(found)


def test_parts_of_a_table_leave_nothing_behind(tmp_path):
    (tmp_path / "t.csv").write_text(TABLES["thousand rows of them"][0])
    with open_reader(tmp_path / "t.csv", ("v",)) as reader:
        with open_writer(tmp_path / "o.parquet", reader, 1000, None, range(1000)) as writer:
            for start in range(0, 1000, 100):
                writer.write(reader.read(start, start + 100))
        writer = open_writer(tmp_path / "p.parquet", reader, 9, None, range(9))
        writer.write(reader.read(0, 9))
        writer.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert pl.read_parquet(tmp_path / "o.parquet").rows() == [("Mo", 1.5)] * 1000
    assert {path.name for path in tmp_path.iterdir()} == {"t.csv", "o.parquet"}


def test_a_letter_of_another_encoding_far_down(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"at,v\n" + b"a,1\n" * 5000 + "é,2\n".encode("cp1252"))
    with open_reader(tmp_path / "t.csv") as reader:
        assert (reader.encoding, reader.length) == ("cp1252", 5001)
        assert reader.rows(5000, 5001)["at"][0] == "é"
