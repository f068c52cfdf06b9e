"""`filter`: what comes back is what was given, with NumPy's, SciPy's and pandas' numbers."""

import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.signal
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import tapwise as tw

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128", "int16", "uint8", "bool", ">f8"])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_it_is_scipys_lfilter(dtype, axis):
    x = (10 * RANDOM.normal(size=(30, 20))).astype(dtype)
    taps = RANDOM.normal(size=7)
    y = tw.filter(x, taps, axis=axis)
    expected = scipy.signal.lfilter(taps, 1, x.astype(np.result_type(dtype, "f8")), axis=axis)
    assert y.dtype == (np.dtype(dtype).newbyteorder("=") if np.dtype(dtype).kind in "fc" else np.float64)
    np.testing.assert_allclose(
        y, expected, rtol=0, atol=1e-3 if y.dtype.itemsize == 4 or dtype == "complex64" else 1e-11
    )


@given(st.integers(1, 12), st.integers(1, 40), st.sampled_from(["same", "full", "valid"]))
def test_it_is_numpys_convolve(kernel_size, length, mode):
    x, taps = RANDOM.normal(size=length), RANDOM.normal(size=kernel_size)
    if length < kernel_size:
        return
    y = tw.filter(x, taps, padding=mode)
    np.testing.assert_allclose(y, np.convolve(x, taps, mode), atol=1e-12)


def test_taps_as_they_stand_and_scipys_correlate():
    x, taps = RANDOM.normal(size=40), RANDOM.normal(size=5)
    y = tw.filter(x, taps, flip=False, padding="valid", stride=2, dilation=3)
    expected = [taps @ x[i : i + 13 : 3] for i in range(0, 28, 2)]
    np.testing.assert_allclose(y, expected, atol=1e-12)


@pytest.mark.parametrize("is_centred", [False, True])
@pytest.mark.parametrize("kernel_size", [1, 3, 4, 12])
def test_a_moving_average_is_pandas(is_centred, kernel_size):
    values = RANDOM.normal(size=50)
    values[[3, 4, 20]] = np.nan
    series = pd.Series(values, index=pd.date_range("2026-01-01", periods=50, freq="h"), name="celsius")
    y = tw.filter(
        series,
        np.ones(kernel_size) / kernel_size,
        padding="same" if is_centred else "causal",
        padding_mode="shorter",
        nan="skip",
    )
    expected = series.rolling(kernel_size, min_periods=1, center=is_centred).mean()
    pd.testing.assert_series_equal(y, expected)


def test_series_and_frames_keep_their_index_and_names():
    index = pd.date_range("2026-01-01", periods=10, freq="D")
    series = pd.Series(np.arange(10), index=index, name="n")
    y = tw.filter(series, [0.5, 0.5], padding="valid")
    pd.testing.assert_series_equal(y, pd.Series(np.arange(9) + 0.5, index=index[1:], name="n"), check_freq=False)
    y = tw.filter(series, [1.0, 1.0, 1.0], padding="same", stride=3)
    pd.testing.assert_index_equal(y.index, index[::3], exact="equiv")
    frame = pd.DataFrame({"who": list("abcdefghij"), "v": np.arange(10.0), "w": np.arange(10, dtype="f4")}, index=index)
    y = tw.filter(frame, [1.0, 1.0])
    assert y.columns.tolist() == ["who", "v", "w"]
    assert y["who"].tolist() == list("abcdefghij")
    np.testing.assert_array_equal(y["v"], scipy.signal.lfilter([1, 1], 1, np.arange(10.0)))
    pd.testing.assert_index_equal(y.index, index, exact="equiv")
    nullable = pd.Series([1, None, 3, 4], dtype="Int64")
    assert tw.filter(nullable, [1.0]).isna().tolist() == [False, True, False, False]
    twice = pd.DataFrame(np.ones((4, 2)), columns=["a", "a"])
    assert tw.filter(twice, [2.0]).to_numpy().tolist() == [[2, 2]] * 4


def test_polars_keeps_names_and_other_columns():
    series = pl.Series("v", [1.0, None, 3.0])
    y = tw.filter(series, [1.0, 1.0])
    assert y.name == "v"
    np.testing.assert_array_equal(y.to_numpy(), [1, np.nan, np.nan])
    frame = pl.DataFrame({"at": ["a", "b", "c"], "v": [1, 2, 3], "w": [1.0, 2.0, 4.0]})
    y = tw.filter(frame, [1.0, 1.0], padding="valid")
    assert y.to_dict(as_series=False) == {"at": ["b", "c"], "v": [3.0, 5.0], "w": [3.0, 6.0]}


def test_xarray_keeps_coordinates_and_attributes():
    array = xr.DataArray(
        RANDOM.normal(size=(20, 3)),
        dims=("time", "station"),
        coords={"time": np.arange(20) / 10, "station": ["a", "b", "c"]},
        name="v",
        attrs={"unit": "m"},
    )
    y = tw.filter(array, [0.5, 0.5], axis="time", padding="valid", stride=2)
    assert (y.dims, y.name, y.attrs) == (("time", "station"), "v", {"unit": "m"})
    np.testing.assert_allclose(y.time, np.arange(1, 20, 2) / 10)
    np.testing.assert_allclose(y, (array.to_numpy()[:-1:2] + array.to_numpy()[1::2]) / 2)
    mapped = array.to_dataset().map(tw.filter, taps=[0.5, 0.5], axis="time")
    np.testing.assert_allclose(mapped["v"], tw.filter(array, [0.5, 0.5], axis=0))


def test_tensors_keep_their_gradients():
    x = torch.randn(2, 9, 3, dtype=torch.float64, requires_grad=True)
    taps = torch.randn(4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, taps: tw.filter(x, taps, axis=1), (x, taps))
    positive = taps.detach().abs().requires_grad_()
    shorter = {"axis": 1, "padding_mode": "shorter"}
    assert torch.autograd.gradcheck(lambda x, taps: tw.filter(x, taps, **shorter), (x, positive))
    y = tw.filter(torch.arange(6), [1.0, 1.0])
    assert (y.dtype, y.tolist()) == (torch.float64, [0, 1, 3, 5, 7, 9])
    assert tw.filter(torch.ones(5, dtype=torch.bfloat16), [0.5, 0.5]).dtype == torch.bfloat16
    assert tw.filter(torch.ones(3), [1j]).tolist() == [1j] * 3


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular", "shorter"])
def test_gaps_are_left_out(mode):
    x = RANDOM.normal(size=(2, 30))
    x[0, [0, 7, 8]] = np.nan
    taps = np.array([0.5, 1, 0.25, 2])
    y = tw.filter(x, taps, padding=(3, 2), padding_mode=mode, nan="skip")
    filled = np.pad(x, ((0, 0), (3, 2)), **_numpy_mode(mode))
    for row, out in zip(filled, y, strict=True):
        for i, value in enumerate(out):
            window, weights = row[i : i + 4], taps[::-1]
            there = ~np.isnan(window)
            expected = weights[there] @ window[there] * taps.sum() / weights[there].sum() if there.any() else np.nan
            np.testing.assert_allclose(value, expected, atol=1e-12)


def _numpy_mode(mode):
    if mode in ("zeros", "shorter"):
        return {"mode": "constant", "constant_values": 0 if mode == "zeros" else np.nan}
    return {"mode": {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}[mode]}


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: tw.filter(["a", "b"], [1.0]), TypeError, "a signal is of real or complex numbers"),
        (lambda: tw.filter(np.ma.array([1.0, 2], mask=[0, 1]), [1.0]), TypeError, "masked array"),
        (lambda: tw.filter(np.ones(3, np.longdouble), [1.0]), TypeError, "up to 64 bits"),
        (lambda: tw.filter(3.0, [1.0]), IndexError, "no axis -1"),
        (lambda: tw.filter(np.ones(3), "mean:3"), TypeError, "taps must be numbers"),
        (lambda: tw.filter(np.ones(3), [[1.0]]), tw.ShapeError, "taps must be one list"),
        (lambda: tw.filter(np.ones(3), []), tw.ShapeError, "taps must be one list"),
        (lambda: tw.filter(np.ones(3), [1.0], axis=2), IndexError, "no axis 2"),
        (lambda: tw.filter(np.ones(3), [1.0], axis="time"), TypeError, "names belong to a DataArray"),
        (lambda: tw.filter(np.ones(3), [1.0], nan="drop"), ValueError, "nan must be"),
        (lambda: tw.filter(np.ones(3), [1.0], padding_mode="mirror"), ValueError, "padding_mode must be 'shorter'"),
        (lambda: tw.filter(np.ones(3), [1.0, -1], padding_mode="shorter"), ValueError, "for averages"),
        (lambda: tw.filter(np.ones(3), [1.0, -1], nan="skip"), ValueError, "for averages"),
        (lambda: tw.filter([[1.0, 2], [3, np.nan]], [1.0], nan="error"), ValueError, "at sample 1 of row 1"),
        (lambda: tw.filter(np.ones(3), np.ones(5), padding="valid"), tw.ShapeError, "5"),
        (lambda: tw.filter(np.ones(3), [1.0], stride=0), tw.ShapeError, "stride"),
        (lambda: tw.filter(pd.Series([1.0, 2]), [1.0, 1], padding="full"), ValueError, "1 outputs lie beyond the ends"),
        (lambda: tw.filter(pd.Series([1.0, 2]), [1.0, 1], padding=(3, 0)), ValueError, "2 outputs lie beyond the ends"),
        (lambda: tw.filter(pd.Series(["a"]), [1.0]), TypeError, "a signal is of"),
        (lambda: tw.filter(pd.DataFrame({"a": ["x"]}), [1.0]), TypeError, "no column of numbers"),
        (lambda: tw.filter(pd.DataFrame({"a": [1.0]}), [1.0], axis=1), ValueError, "transpose it"),
        (lambda: tw.filter(pl.Series(["a"]), [1.0]), TypeError, "got a Series of String"),
        (lambda: tw.filter(pl.DataFrame({"a": ["x"]}), [1.0]), TypeError, "no column of numbers"),
        (lambda: tw.filter(pl.LazyFrame({"a": [1]}), [1.0]), TypeError, "got a polars LazyFrame"),
        (lambda: tw.filter(xr.DataArray([1.0]), [1.0], axis="time"), IndexError, "no dimension 'time'"),
        (
            lambda: tw.filter(xr.DataArray(np.ones((9, 2)), dims=("time", "ch")), [1.0]),
            ValueError,
            "axis='time': it has",
        ),
    ],
)
def test_mistakes_are_told(call, kind, words):
    with pytest.raises(kind, match=words):
        call()


def test_no_package_is_imported_for_it():
    code = "import tapwise as tw, sys; tw.filter([1.0, 2], [1.0]); sys.exit(bool({'pandas', 'polars', 'xarray'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("kernel_size", [1, 3, 5, 7])
def test_the_table_of_the_documents_is_true(kernel_size):
    import scipy.ndimage

    x, taps = RANDOM.normal(size=30), RANDOM.normal(size=kernel_size)
    y = tw.filter(x, taps, padding="same", padding_mode="replicate")
    np.testing.assert_allclose(y, scipy.ndimage.convolve1d(x, taps, mode="nearest"), atol=1e-12)
    np.testing.assert_allclose(tw.filter(x, taps, flip=False, padding="valid"), np.correlate(x, taps), atol=1e-12)
    np.testing.assert_allclose(tw.filter(x, taps, stride=3), tw.filter(x, taps)[::3], atol=1e-12)


def test_subclasses_are_what_they_extend():
    class MyFrame(pd.DataFrame):
        @property
        def _constructor(self):
            return MyFrame

    y = tw.filter(MyFrame({"a": [1.0, 2, 3], "b": np.array([10, 20, 30], "f4"), "n": [1, 2, 3]}), [0.5, 0.5])
    assert type(y) is MyFrame
    assert y["b"].tolist() == [5, 15, 25]
    assert [str(dtype) for dtype in y.dtypes] == ["float64", "float32", "float64"]


def test_half_precision_with_complex_taps_is_complex():
    y = tw.filter(np.array([1, 2, 3], np.float16), [1j, 1])
    np.testing.assert_allclose(y, [1j, 1 + 2j, 2 + 3j])


def test_gradients_where_nothing_can_be_averaged():
    x = torch.tensor([torch.nan] * 3 + [1.0, 2, 3])
    taps = torch.ones(2, requires_grad=True)
    y = tw.filter(x, taps, padding_mode="shorter", nan="skip")
    assert y.isnan().tolist() == [True] * 3 + [False] * 3
    y[y.isfinite()].sum().backward()
    assert taps.grad.isfinite().all()
