"""tapwise apply: what the taps are, which axis is time, what stands beyond the ends."""

import os
import re
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
import scipy.signal
import soundfile


def test_apply_on_a_table(here, tmp_path):
    (tmp_path / "t.csv").write_text("month,ppm\n" + "".join(f"{i},{i * i}\n" for i in range(20)))
    printed = here(
        "apply", tmp_path / "t.csv", "--taps", "mean:4", "--padding", "causal", "--column", "ppm", "--stride", 2
    )
    assert "20 samples, column 'ppm'" in printed
    table = pl.read_csv(tmp_path / "t.filtered.csv")
    assert table.columns == ["month", "ppm"]
    assert table["month"].to_list() == list(range(0, 20, 2))
    assert table["ppm"].to_list() == pytest.approx(
        [np.mean([j * j for j in range(max(i - 3, 0), i + 1)]) for i in range(0, 20, 2)]
    )


def test_flip_convolves_as_numpy(here, tmp_path):
    np.save(tmp_path / "x.npy", np.arange(5.0))
    here("apply", tmp_path / "x.npy", "--taps", "1,2,3", "--flip", "--padding", "full", "-o", tmp_path / "y.npy")
    assert np.load(tmp_path / "y.npy").tolist() == np.convolve(np.arange(5.0), [1, 2, 3]).tolist()
    here("apply", tmp_path / "x.npy", "--taps", "1,2,3", "--padding", "2,0", "-o", tmp_path / "y.npy")
    assert np.load(tmp_path / "y.npy").tolist() == [0, 3, 8, 14, 20]
    for taps in ([2.0], [1.0, 2.0], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0]):
        text = ",".join(map(str, taps))
        here("apply", tmp_path / "x.npy", "--taps", text, "--flip", "--padding", "same", "-o", tmp_path / "y.npy")
        assert np.load(tmp_path / "y.npy").tolist() == np.convolve(np.arange(5.0), taps, "same").tolist()


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("responses", [1, 2, 4])
def test_impulse_responses_of_several_channels(here, tmp_path, channels, responses):
    rng = np.random.default_rng(0)
    x, h = rng.standard_normal((400, channels)), rng.standard_normal((30, responses))
    soundfile.write(tmp_path / "x.wav", x, 8000, "DOUBLE")
    soundfile.write(tmp_path / "h.wav", h, 8000, "DOUBLE")
    names = ("x.wav", "--taps", "h.wav", "--flip", "--padding", "full", "-o", "y.wav")
    here("apply", *(tmp_path / name if name.endswith(".wav") else name for name in names))
    y, _ = soundfile.read(tmp_path / "y.wav", always_2d=True)

    def convolved(source, response):
        return np.convolve(x[:, source], h[:, response])

    if responses == 1:
        want = [convolved(c, 0) for c in range(channels)]
    elif channels == 1:
        want = [convolved(0, r) for r in range(responses)]
    elif responses == 2:
        want = [convolved(0, 0), convolved(1, 1)]
    else:  # left to left, left to right, right to left, right to right
        want = [convolved(0, 0) + convolved(1, 2), convolved(0, 1) + convolved(1, 3)]
    np.testing.assert_allclose(y.T, want, atol=1e-9)


def test_the_form_of_taps_decides_how_they_are_used(here, tmp_path):
    """In every command alike: filters are convolved, centred or causal; weights are a layer's."""
    x = np.arange(6.0) ** 2
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "filter.npy", np.array([1.0, 2.0, 4.0]))
    np.save(tmp_path / "weight.npy", np.array([[[1.0, 2.0, 4.0]]]))
    rows = {
        "1,2,4": np.correlate(x, [1, 2, 4], "valid"),
        f"{tmp_path}/weight.npy": np.correlate(x, [1, 2, 4], "valid"),
        f"{tmp_path}/filter.npy": np.convolve(x, [1, 2, 4])[:6],
        "diff": np.convolve(x, [1, -1])[:6],
        "lowpass:0.5:5": np.convolve(x, scipy.signal.firwin(5, 0.5), "same"),
        "lowpass:0.5:4": np.convolve(x, scipy.signal.firwin(4, 0.5), "same"),
    }
    for taps, expected in rows.items():
        here("apply", tmp_path / "x.npy", tmp_path / "y.npy", "--taps", taps)
        np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, atol=1e-12)
        final = here("explain", tmp_path / "x.npy", "--taps", taps).partition("Final : [")[2].partition("]")[0]
        np.testing.assert_allclose([float(n) for n in final.split()], expected, rtol=1e-3, atol=1e-4)
    for options, expected in (
        (["--flip", "--causal"], np.convolve(x, [1, 2, 4])[:6]),
        (["--causal"], np.correlate(np.r_[0, 0, x], [1, 2, 4], "valid")),
    ):
        here("apply", tmp_path / "x.npy", tmp_path / "y.npy", "--taps", "1,2,4", *options)
        assert np.load(tmp_path / "y.npy").tolist() == expected.tolist()
    said = here("apply", tmp_path / "x.npy", tmp_path / "y.npy", "--taps", f"{tmp_path}/filter.npy", "--no-flip")
    assert "a filter, used as it stands, zeros beyond the ends" in said
    assert np.load(tmp_path / "y.npy").tolist() == np.correlate(np.r_[0, 0, x], [1, 2, 4], "valid").tolist()
    assert "given twice" in here("apply", tmp_path / "x.npy", "a.npy", "-o", "b.npy", "--taps", "1")
    assert "a padding of its own" in here("apply", tmp_path / "x.npy", "--taps", "1", "--causal", "--padding", "same")


def test_an_impulse_response_echoes_after_the_sound(here, tmp_path):
    click, room = np.zeros(4000), np.zeros(2500)
    click[1000], room[0], room[2400] = 0.5, 1, 0.5
    soundfile.write(tmp_path / "click.wav", click, 8000)
    soundfile.write(tmp_path / "room.wav", room, 8000, subtype="FLOAT")
    said = here("apply", tmp_path / "click.wav", tmp_path / "hall.wav", "--taps", tmp_path / "room.wav")
    assert "an impulse response, convolved" in said
    heard, _ = soundfile.read(tmp_path / "hall.wav")
    assert np.flatnonzero(heard).tolist() == [1000, 3400]
    assert heard[[1000, 3400]].tolist() == [0.5, 0.25]


def test_an_array_may_have_time_first(here, tmp_path):
    x = np.random.default_rng(0).normal(size=(500, 2))
    for name, array in (("c", x), ("f", np.asfortranarray(x))):
        np.save(tmp_path / f"{name}.npy", array)
        said = here("apply", tmp_path / f"{name}.npy", "--taps", "lowpass:0.3:9")
        assert "2 samples of 500 channels" in said
        assert "500 samples of 2: --axis -1 says the first, --axis 0 the second" in said
        for axis in ("0", "-2"):
            here("apply", tmp_path / f"{name}.npy", tmp_path / "y.npy", "--taps", "lowpass:0.3:9", "--axis", axis)
            y = np.load(tmp_path / "y.npy")
            expected = [np.convolve(row, scipy.signal.firwin(9, 0.3), "same") for row in x.T]
            np.testing.assert_allclose(y, np.transpose(expected), atol=1e-12)
        here("apply", tmp_path / f"{name}.npy", tmp_path / "y.npy", "--taps", "1,1", "--axis", "1")
        np.testing.assert_allclose(np.load(tmp_path / "y.npy"), x[:, :1] + x[:, 1:])
    said = here("explain", tmp_path / "c.npy", "--taps", "1,1", "--axis", "0", "--samples", "3")
    assert "x       (2, 3)" in said
    np.save(tmp_path / "planes.npy", np.ones((30, 30, 40)))  # more channels than samples, and no axis is longer
    assert "40 samples, 900 channels" in here("apply", tmp_path / "planes.npy", tmp_path / "y.npy", "--taps", "1")
    np.save(tmp_path / "between.npy", np.moveaxis(np.arange(240.0).reshape(4, 3, 20), 2, 1))
    here("apply", tmp_path / "between.npy", tmp_path / "y.npy", "--taps", "diff", "--axis", "1")
    assert (np.load(tmp_path / "y.npy")[:, 1:] == 1).all()
    assert np.load(tmp_path / "y.npy").shape == (4, 20, 3)
    assert "there is no axis 2" in here("apply", tmp_path / "c.npy", "--taps", "1", "--axis", "2")
    (tmp_path / "t.csv").write_text("v\n1\n")
    assert "belongs to arrays" in here("apply", tmp_path / "t.csv", "--taps", "1", "--axis", "0")


def test_channels_that_lie_together_are_written_as_they_were(here, tmp_path):
    """In Fortran order with time first: read channel by channel, and written moment by moment."""
    x = np.random.default_rng(0).integers(0, 9, (600, 4500)).astype(np.float32)
    np.save(tmp_path / "x.npy", np.asfortranarray(x))
    here("apply", tmp_path / "x.npy", tmp_path / "y.npy", "--taps", "diff", "--axis", "0")
    assert np.array_equal(np.load(tmp_path / "y.npy"), np.diff(x, axis=0, prepend=0))


def test_an_average_is_one_of_what_is_there(here, tmp_path):
    """At the ends as pandas' rolling(3, center=True, min_periods=1), and at gaps where asked for."""
    (tmp_path / "t.csv").write_text("at,celsius\na,10\nb,10.5\nc,11\nd,15.5\n")
    said = here("apply", tmp_path / "t.csv", tmp_path / "u.csv", "--taps", "mean:3")
    assert "shorter windows" in said
    assert pl.read_csv(tmp_path / "u.csv")["celsius"].to_list() == pytest.approx([10.25, 10.5, 37 / 3, 13.25])
    here("apply", tmp_path / "t.csv", tmp_path / "u.csv", "--taps", "lowpass:0.5:3")
    assert pl.read_csv(tmp_path / "u.csv")["celsius"][0] == pytest.approx(scipy.signal.firwin(3, 0.5) @ [10, 10, 10.5])
    assert "padding_mode=replicate" in here("explain", tmp_path / "t.csv", "--taps", "lowpass:0.5:3")
    (tmp_path / "t.csv").write_text("at,celsius\na,10\nb,\nc,\nd,\ne,4\nf,6\n")
    assert "--nan skip" in here("apply", tmp_path / "t.csv", "--taps", "mean:3")
    here("apply", tmp_path / "t.csv", tmp_path / "u.csv", "--taps", "mean:3", "--nan", "skip")
    filled = pl.read_csv(tmp_path / "u.csv")["celsius"].to_list()
    assert filled[2] is None  # a gap as the table has them
    assert filled[:2] + filled[3:] == pytest.approx([10, 10, 4, 5, 5])
    long = ["--taps", "mean:3", "--nan", "skip", "--padding-mode"]
    for mode, (first, last) in {"zeros": (5, 10 / 3), "replicate": (10, 16 / 3), "shorter": (10, 5)}.items():
        here("apply", tmp_path / "t.csv", tmp_path / "u.csv", *long, mode)
        ends = pl.read_csv(tmp_path / "u.csv")["celsius"].to_list()
        assert (ends[0], ends[-1]) == pytest.approx((first, last)), mode
    assert "is for averages" in here("apply", tmp_path / "t.csv", "--taps", "0,0", "--nan", "skip")
    assert "is for averages" in here("apply", tmp_path / "t.csv", "--taps", "diff", "--nan", "skip")


@pytest.mark.slow
def test_the_first_long_filter_says_that_it_compiles(tmp_path):
    """And a short one doesn't compile."""
    random = np.random.default_rng(0)
    np.save(tmp_path / "short.npy", random.normal(size=10_000).astype(np.float32))
    np.save(tmp_path / "long.npy", random.normal(size=6_000_000).astype(np.float32))
    np.save(tmp_path / "ir.npy", random.normal(size=20_000))
    environment = {**os.environ, "TAPWISE_CACHE_DIR": str(tmp_path / "cache")}
    for name, is_compiled in (("short.npy", False), ("long.npy", True), ("long.npy", False)):
        arguments = [sys.executable, "-m", "tapwise", "apply", name, "y.npy", "--taps", "ir.npy"]
        run = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        assert ("tapwise: compiling for this processor, once: about 6 s" in run.stderr) is is_compiled
        assert ("kernel native" in run.stdout) is (name == "short.npy")
        seconds = float(re.search(r"([\d.]+) s, ", run.stdout)[1])
        assert seconds < 8, run.stdout  # without the compiler's


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".npy", ".wav"])
@pytest.mark.parametrize("stride", [1, 2])
def test_plot_draws_before_and_after(here, tmp_path, suffix, stride, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x = np.sin(np.arange(200) / 9)
    pl.DataFrame({"at": [f"{n}h" for n in range(200)], "v": x}).write_csv("x.csv", separator=";")
    for source in ("x.csv", "x.npy"):
        np.save("x.npy", x)
        said = here(
            "apply", source, f"y{suffix}", "--taps", "mean:3", "--stride", stride, "--rate", 10, "--plot", "p.svg"
        )
        assert "wrote p.svg" in said
        image = (tmp_path / "p.svg").read_text()
        assert ("no difference" in image) is (stride == 2)
        assert f"{source} and y{suffix}" in image
    assert "expected the name of an .svg, .png or .pdf file" in here(
        "apply", "x.npy", "--taps", "mean:3", "--plot", "p.bmp"
    )
    assert not list(tmp_path.glob("x.filtered*"))


def test_complex_samples_are_not_drawn_and_nothing_is_written(here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.ones(100, np.complex64))
    assert "complex samples are not drawn" in here("apply", "x.npy", "y.npy", "--taps", "1,1", "--plot", "p.svg")
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]
