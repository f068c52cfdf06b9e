"""The picture of a signal before and after: its numbers against NumPy's and SciPy's, and what it says."""

import re

import numpy as np
import pytest
import scipy.signal
import soundfile

from tapwise.errors import SignalError
from tapwise.explanation.ticks import round_numbers
from tapwise.signals import comparison, open_reader
from tapwise.signals.comparison import look, picture


@pytest.mark.parametrize("length", [1, 2, 5, 639, 640, 5000, 300_000])
def test_ranges_and_spectra(length):
    x = np.random.default_rng(length).normal(size=length)
    seen = look(np.array_split(x, min(7, length)), length, 0.0, 1.0)
    assert np.nanmin(seen.low) == x.min()
    assert np.nanmax(seen.high) == x.max()
    columns = np.minimum(((np.arange(length) + 0.5) / length * 640).astype(int), 639)
    for column in np.unique(columns)[:: max(length // 100, 1)]:
        assert (seen.low[column], seen.high[column]) == (x[columns == column].min(), x[columns == column].max())
    np.testing.assert_allclose(seen.rms, np.sqrt(np.mean(x**2)))
    if length >= 5:
        segment = min(4096, length)
        _, power = scipy.signal.welch(x, nperseg=segment, scaling="density", return_onesided=False)
        np.testing.assert_allclose(seen.power, power[: len(seen.power)], rtol=1e-6, atol=1e-12)


def test_gaps_are_left_out():
    x = np.ones(6400)
    x[1000:2000] = np.nan
    seen = look([x], 6400, 0.0, 1.0)
    assert np.flatnonzero(np.isnan(seen.low)).tolist() == list(range(100, 200))


def test_infinities_are_no_numbers_of_the_picture(tmp_path):
    x = np.ones(100)
    x[50] = np.inf
    assert "nan" not in drawn(tmp_path, x, x)


def drawn(tmp_path, before, after, rate=None, **options):
    np.save(tmp_path / "a.npy", before)
    np.save(tmp_path / "b.npy", after)
    options = {"stride": 1.0, "offset": 0.0, **options}
    with open_reader(tmp_path / "a.npy") as one, open_reader(tmp_path / "b.npy") as other:
        return picture(one, other, options["stride"], options["offset"], rate, "t").svg()


def test_what_the_picture_says(tmp_path):
    x = np.sin(np.arange(1000) / 5)
    image = drawn(tmp_path, x, x / 2, rate=100.0)
    words = re.findall(r">([^<>]+)</text>", image)
    for word in ("before", "after", "difference", "time (s)", "Spectra", "rms 0.708", "rms 0.354", "10"):
        assert word in words, word
    assert image.count('class="wave input"') == 3  # its wave, its spectrum and the legend
    shorter = drawn(tmp_path, np.stack([x, x]), np.stack([x, x])[:, ::2], stride=2.0)
    assert "no difference: the lengths differ" in shorter
    assert "channel 0 of 2" in shorter
    assert "time (samples)" in shorter
    assert "difference</text>" not in shorter.replace("no difference", "")
    constant = drawn(tmp_path, np.full(10, 300.0), np.full(10, 300.0))
    assert "nan" not in constant
    assert "300" in constant
    with pytest.raises(SignalError, match="complex samples are not drawn"):
        drawn(tmp_path, x * 1j, x)


def test_the_unit_of_a_sound_is_full_scale(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.full(100, 0.5), 8000, subtype="PCM_24")
    np.save(tmp_path / "b.npy", np.full(100, 1 << 29, np.int32))  # what a filter writes of it
    with open_reader(tmp_path / "a.wav") as one, open_reader(tmp_path / "b.npy") as other:
        image = picture(one, other, 1.0, 0.0, 8000.0, "t").svg()
    assert re.findall(r"rms ([\d.]+)", image) == ["0.5", "0.25", "0.25"]


def test_marks():
    for low, high in ((0.0, 1.0), (-3.2, 7.0), (0.0, 1e-9), (5.0, 5.0), (0.0, 12345.0)):
        found = round_numbers(low, high)
        assert 1 <= len(found) <= 12
        assert all(low - 1e-9 <= mark <= high * (1 + 1e-9) for mark in found)


def test_it_reads_by_blocks(tmp_path, monkeypatch):
    x = np.random.default_rng(0).normal(size=(3, 5000))
    images = []
    for block in (1 << 18, 300):
        monkeypatch.setattr(comparison, "_BLOCK", block)
        images.append(drawn(tmp_path, x, x**2))
    assert images[0] == images[1]
