import pytest

from tapwise.signals import open_reader


@pytest.mark.parametrize(
    ("times", "place"),
    [
        (["2026-01-01", "2026-01-02", "2026-01-03", "2026-01-06", "2026-01-07"], "line 5"),
        ([f"2026-01-01 00:0{n}:00" for n in (0, 1, 2, 3, 5, 6)], "line 6"),
        ([f"2026-01-01T0{n}:00:00" for n in (0, 1, 2, 5, 6)], "line 5"),
        (["0.0", "0.1", "0.2", "0.4", "0.5"], "line 5"),
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
        assert note.startswith(
            f"column 'at': 1 step longer than the usual one, the first before {place}: rows are missing"
        )
