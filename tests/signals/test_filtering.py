from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.signal
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import oracle
import tapwise as tw
from tapwise.engine import compiled, preparing
from tapwise.engine.options import current_options
from tapwise.engine.problem import Problem
from tapwise.geometry import Geometry
from tapwise.padding import PADDING_MODES
from tapwise.partition import rows_of_outputs
from tapwise.signals import filtering as blocks
from tapwise.signals import open_reader, open_writer


def applied(source: Path, target: Path, taps, geometry, rate=None, progress=lambda n: None, **options):
    with open_reader(source) as reader:
        filter = blocks.Filter(reader, np.asarray(taps, float), geometry, **options)
        length = geometry.output_length(reader.length)
        rate = reader.rate / geometry.stride if reader.rate else rate
        with open_writer(target, reader, length, rate, None) as writer:
            return blocks.run(reader, writer, filter, progress)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(
    st.integers(1, 40),
    st.integers(1, 7),
    st.integers(1, 3),
    st.sampled_from(["valid", "same", "causal", "semicausal", "full", (3, 50)]),
    st.sampled_from(PADDING_MODES),
    st.integers(1, 300),
    st.integers(60, 90),
    st.integers(1, 3),
)
def test_any_block_gives_the_whole_run_bit_for_bit(
    tmp_path, monkeypatch, kernel_size, stride, dilation, padding, mode, block, length, channels
):
    monkeypatch.setattr(blocks, "BLOCK", block)
    random = np.random.default_rng(length)
    x = random.integers(-99, 99, (channels, length)).astype(np.float32)
    taps = random.integers(-9, 9, kernel_size)
    np.save(tmp_path / "x.npy", x)
    geometry = Geometry(kernel_size, stride, dilation, padding, padding_mode=mode)
    if length < geometry.input_length(1):
        return
    summary = applied(tmp_path / "x.npy", tmp_path / "y.npy", taps, geometry)
    expected = oracle.conv1d(x[:, None], taps[None, None], None, stride, geometry.padding, dilation, 1, mode)[:, 0]
    y = np.load(tmp_path / "y.npy")
    assert np.array_equal(y, expected)
    assert y.dtype == np.float32
    assert summary.outputs == expected.shape[1]
    assert summary.clipped == 0


@pytest.mark.parametrize(
    "dtype",
    [
        "int8",
        "uint8",
        "int16",
        "uint16",
        "int32",
        "uint32",
        "int64",
        "float16",
        "float32",
        "float64",
        "complex64",
        "complex128",
    ],
)
def test_the_dtype_stays(tmp_path, dtype):
    x = np.random.default_rng(0).integers(0, 100, 500).astype(dtype)
    np.save(tmp_path / "x.npy", x)
    applied(tmp_path / "x.npy", tmp_path / "y.npy", [0.25, 0.5, 0.25], Geometry(3, padding="same"))
    y = np.load(tmp_path / "y.npy")
    assert y.dtype == x.dtype
    exact = np.convolve(x.astype(complex), [0.25, 0.5, 0.25], "same")
    exact = exact if x.dtype.kind == "c" else exact.real
    expected = np.rint(exact) if x.dtype.kind in "iu" else exact
    np.testing.assert_allclose(y, expected, rtol=1e-3 if dtype == "float16" else 1e-6)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_U8", "PCM_32"])
def test_what_is_beyond_full_scale_is_clipped_and_counted(tmp_path, subtype):
    sound = np.sin(np.arange(1000) / 5) * 0.9
    soundfile.write(tmp_path / "x.wav", sound, 8000, subtype=subtype)
    summary = applied(tmp_path / "x.wav", tmp_path / "y.wav", [2.0], Geometry(1))
    x, _ = soundfile.read(tmp_path / "x.wav", dtype="int32")
    y, _ = soundfile.read(tmp_path / "y.wav", dtype="int32")
    full = 2**31
    step = {"PCM_16": 2**16, "PCM_24": 2**8, "PCM_U8": 2**24, "PCM_32": 1}[subtype]
    assert np.array_equal(y, np.clip(2.0 * x, -full, full - step))
    beyond = int(((2.0 * x > full - step) | (2.0 * x < -full)).sum())
    assert summary.clipped == beyond > 0
    assert summary.loudest == pytest.approx(1.8, rel=0.02)
    assert applied(tmp_path / "x.wav", tmp_path / "z.wav", [1.0], Geometry(1)).clipped == 0
    assert np.array_equal(soundfile.read(tmp_path / "z.wav", dtype="int32")[0], x)


@pytest.mark.parametrize(
    ("dtype", "x", "tap", "y"),
    [
        ("int64", 2**52, 4096, 2**63 - 1),
        ("int64", -(2**52), 4096, -(2**63)),
        ("uint64", 7, 1e19, 2**64 - 1),
        ("uint64", 7, -1, 0),
        ("int16", 300, 200, 2**15 - 1),
    ],
)
def test_clipping_at_the_ends_of_every_range(tmp_path, dtype, x, tap, y):
    np.save(tmp_path / "x.npy", np.full(3, x, dtype))
    summary = applied(tmp_path / "x.npy", tmp_path / "y.npy", [tap], Geometry(1))
    assert np.load(tmp_path / "y.npy").tolist() == [y] * 3
    exact = x * tap == y
    assert summary.clipped == (0 if exact else 3)


def test_what_overflows_is_said(tmp_path):
    np.save(tmp_path / "x.npy", np.full(5, 60000, np.float16))
    summary = applied(tmp_path / "x.npy", tmp_path / "y.npy", [2.0, 2.0], Geometry(2))
    assert summary.overflowed == 4
    np.save(tmp_path / "x.npy", np.ones(5, np.float32))
    with pytest.raises(tw.SignalError, match="beyond the range of"):
        applied(tmp_path / "x.npy", tmp_path / "y.npy", [1e39, 0], Geometry(2))
    np.save(tmp_path / "x.npy", np.full(5, 30000, np.int16))
    with pytest.raises(tw.SignalError, match="too large to be computed"):
        applied(tmp_path / "x.npy", tmp_path / "y.npy", [3e38, 1], Geometry(2))


def test_a_designed_filter_is_scipys(tmp_path):
    sound = np.random.default_rng(0).standard_normal((3000, 2)).astype(np.float32)
    soundfile.write(tmp_path / "x.wav", sound, 8000, subtype="FLOAT")
    taps = scipy.signal.firwin(101, 1000, fs=8000)
    applied(tmp_path / "x.wav", tmp_path / "y.wav", taps, Geometry(101, 2, padding="same"))
    y, rate = soundfile.read(tmp_path / "y.wav")
    expected = scipy.signal.convolve(sound, taps[:, None], "same")[::2]
    np.testing.assert_allclose(y, expected, atol=1e-5)
    assert rate == 4000


def test_nan_is_refused_by_place_or_reaches_its_outputs(tmp_path):
    x = np.ones((2, 100))
    x[1, 40] = np.nan
    np.save(tmp_path / "x.npy", x)
    geometry = Geometry(3, padding="causal")
    with pytest.raises(tw.SignalError, match="channel 1, sample 40: no value"):
        applied(tmp_path / "x.npy", tmp_path / "y.npy", [1, 1, 1], geometry)
    assert not (tmp_path / "y.npy").exists()
    applied(tmp_path / "x.npy", tmp_path / "y.npy", [1, 1, 1], geometry, nan="propagate")
    y = np.load(tmp_path / "y.npy")
    assert np.argwhere(np.isnan(y)).tolist() == [[1, 40], [1, 41], [1, 42]]


def test_what_cant_be_filtered_exactly_is_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.array([2**60, 1, 2]))
    with pytest.raises(tw.SignalError, match=r"2\*\*53"):
        applied(tmp_path / "x.npy", tmp_path / "y.npy", [1], Geometry(1))
    np.save(tmp_path / "x.npy", np.ones(9))
    with open_reader(tmp_path / "x.npy") as reader, pytest.raises(tw.SignalError, match="complex"):
        blocks.Filter(reader, np.array([1j]), Geometry(1))


def test_a_signal_shorter_than_the_window_is_refused_before_a_file_is_written(tmp_path):
    np.save(tmp_path / "x.npy", np.ones(4))
    with pytest.raises(tw.ShapeError, match="at least 9 samples"):
        applied(tmp_path / "x.npy", tmp_path / "y.npy", np.ones(9), Geometry(9))
    assert [p.name for p in tmp_path.iterdir()] == ["x.npy"]


def test_progress_reaches_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 30)
    np.save(tmp_path / "x.npy", np.ones(100))
    seen = []
    applied(tmp_path / "x.npy", tmp_path / "y.npy", [1], Geometry(1), progress=seen.append)
    assert seen == [0, 30, 60, 90, 100]


@pytest.mark.parametrize(
    ("padding", "stride", "rows"),
    [
        ("causal", 3, [0, 3, 6, 9]),
        ("same", 3, [0, 3, 6, 9]),
        (2, 3, [0, 3, 6, 9]),
        ((1, 2), 1, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ("valid", 1, [4, 5, 6, 7, 8, 9]),
        ("full", 2, [0, 2, 4, 6, 8, 10, 12]),
    ],
)
def test_the_row_that_an_output_belongs_to(padding, stride, rows):
    geometry = Geometry(5, stride, padding=padding)
    assert list(rows_of_outputs(geometry, 10)) == rows


def test_a_table_beyond_its_ends(tmp_path):
    (tmp_path / "t.csv").write_text("day,value\na,1\nb,2\nc,3\n")
    geometry = Geometry(2, padding="full")
    with open_reader(tmp_path / "t.csv") as reader:
        rows = rows_of_outputs(geometry, 3)
        with open_writer(tmp_path / "o.csv", reader, 4, None, rows) as writer:
            blocks.run(reader, writer, blocks.Filter(reader, np.array([1.0, 1.0]), geometry))
    table = pl.read_csv(tmp_path / "o.csv")
    assert table["day"].to_list() == ["a", "b", "c", None]
    assert table["value"].to_list() == [1, 3, 5, 3]


def test_an_average_without_weight_on_numbers_is_nan(tmp_path):
    """Transforms leave noise in the sums of taps, which must not be divided by."""
    x = np.full(4000, 7.0)
    x[1000:3000] = np.nan
    bell = np.exp(-0.5 * (np.arange(-1500, 1501) / 40) ** 2)
    np.save(tmp_path / "x.npy", x)
    geometry, skipping = Geometry(3001, padding="same"), {"nan": "skip", "is_shortened": True}
    applied(tmp_path / "x.npy", tmp_path / "y.npy", bell / bell.sum(), geometry, **skipping)
    y = np.load(tmp_path / "y.npy")
    assert np.isnan(y[1400:2600]).all()
    assert np.abs(y[~np.isnan(y)] - 7).max() < 1e-5
    assert not np.isnan(y[:1100]).any()


@pytest.mark.parametrize(("length", "is_compiled"), [(20_000, False), (1 << 40, True)])
def test_a_short_signal_is_not_worth_compiling_for(monkeypatch, length, is_compiled):
    prepared = []
    monkeypatch.setattr(compiled, "missing", list)
    monkeypatch.setattr(preparing, "prepare", prepared.extend)
    problem = Problem(Geometry(301, padding="same"), 1, 1, length, torch.float32, "meta")
    with blocks._prepared(problem, 1):
        assert (current_options().kernel == "native") is not is_compiled
    assert bool(prepared) is is_compiled
    monkeypatch.setattr(compiled, "missing", lambda loops: [])
    with blocks._prepared(problem, 1):
        assert current_options().kernel is None
