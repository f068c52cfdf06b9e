"""Dask and xarray arrays: lazy, the outputs of one run, coordinates moved."""

import dask.array as da
import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import tapwise as tw
from tapwise.scale import map_array


def offline(model, x):
    with torch.no_grad():
        return model(torch.from_numpy(np.ascontiguousarray(x))).numpy()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_layer_over_any_chunks(data):
    draw = data.draw
    taps, stride, dilation = draw(st.integers(1, 9)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    length = draw(st.integers(40, 90))
    if draw(st.booleans()):
        layer = tw.ConvTranspose1d(2, 3, taps, stride=stride, dilation=dilation, dtype=torch.float64)
    else:
        padding = draw(st.tuples(st.integers(0, 9), st.integers(0, 9)))
        mode = draw(st.sampled_from(["zeros", "reflect", "replicate"]))
        layer = tw.Conv1d(2, 3, taps, stride, padding, dilation, padding_mode=mode, dtype=torch.float64)
    cuts = sorted(draw(st.sets(st.integers(1, length - 1), max_size=6)))
    chunks = tuple(np.diff([0, *cuts, length]).tolist())
    x = np.random.default_rng(0).normal(size=(4, 2, length))
    y = map_array(layer, da.from_array(x, chunks=((3, 1), (1, 1), chunks)))
    expected = offline(layer, x)
    assert y.shape == expected.shape
    np.testing.assert_allclose(y.compute(scheduler="synchronous"), expected, atol=1e-10)


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_any_axis_each_channel_by_itself(axis):
    x = np.random.default_rng(0).normal(size=(3, 200, 4)).astype("f4")
    layer = tw.Conv1d(1, 1, 3, stride=2, padding="causal")
    y = map_array(layer, da.from_array(x, chunks=(2, 30, 3)), axis=axis)
    moved = np.moveaxis(x, axis, -1)
    expected = offline(layer, moved.reshape(-1, 1, moved.shape[-1])).reshape(*moved.shape[:-1], -1)
    np.testing.assert_allclose(y, np.moveaxis(expected, -1, axis), atol=1e-5)
    np.testing.assert_allclose(y, map_array(layer, x, axis=axis), atol=1e-6)
    assert y.dtype == np.float32


def test_nothing_is_computed_before_it_is_asked_for():
    def loud(block):
        raise AssertionError("computed")

    x = da.zeros((2, 10_000), chunks=(1, 1000)).map_blocks(loud, dtype=float, meta=np.empty((0, 0)))
    y = map_array(tw.Conv1d(1, 1, 5, padding="same"), x)
    with pytest.raises(AssertionError, match="computed"):
        y.compute()


def test_a_chunk_reads_its_own_window_alone():
    read = []

    def noted(block, block_info=None):
        read.append(block_info[0]["array-location"][-1])
        return block

    x = da.zeros((1, 10_000), chunks=(1, 1000)).map_blocks(noted, dtype=float, meta=np.empty((0, 0)))
    y = map_array(tw.Conv1d(1, 1, 5, padding="causal"), x)
    y[:, 4000:4500].compute(scheduler="synchronous")
    assert sorted(read) == [(3000, 4000), (4000, 5000)]


def recording(chunked):
    data = np.random.default_rng(0).normal(size=(3, 1000)).astype("f4")
    array = xr.DataArray(
        data,
        dims=("electrode", "time"),
        coords={
            "electrode": ["Fz", "Cz", "Pz"],
            "time": np.datetime64("2026-01-01", "ns") + np.arange(1000) * np.timedelta64(2_000_000, "ns"),
            "index": ("time", np.arange(1000)),
            "note": ("time", ["x"] * 1000),
        },
        name="eeg",
        attrs={"fs": 500, "unit": "uV"},
    )
    return array.chunk({"time": 150}) if chunked else array


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_data_array_keeps_its_coordinates(is_chunked):
    array = recording(is_chunked)
    layer = tw.Conv1d(1, 1, 5, stride=4, padding="causal")
    y = map_array(layer, array)
    assert y.dims == ("electrode", "time")
    assert y.name == "eeg"
    assert y.attrs == {"fs": 125.0, "unit": "uV"}
    assert y.electrode.values.tolist() == ["Fz", "Cz", "Pz"]
    np.testing.assert_array_equal(y.time, array.time.values[::4])
    np.testing.assert_array_equal(y["index"], np.arange(0, 1000, 4))
    assert "note" not in y.coords
    assert (y.chunks is not None) is is_chunked
    np.testing.assert_allclose(y, offline(layer, array.values[:, None])[:, 0], atol=1e-5)


def test_between_two_samples_time_is_in_proportion():
    array = recording(True).isel(electrode=[0])
    up = map_array(tw.ConvTranspose1d(1, 1, 2, stride=2, bias=False), array)
    steps = np.diff(up.time.values)
    assert (steps == np.timedelta64(1_000_000, "ns")).all()
    np.testing.assert_allclose(up["index"], np.arange(2000) / 2)
    valid = map_array(tw.Conv1d(1, 1, 5), array)
    np.testing.assert_array_equal(valid.time, array.time.values[4:])
    centred = map_array(tw.Conv1d(1, 1, 5, padding="same"), array)
    np.testing.assert_array_equal(centred.time, array.time.values)


def test_other_channels_lose_their_names():
    model = nn.Sequential(nn.Conv1d(3, 2, 3, padding=1), nn.ReLU())
    y = map_array(model, recording(True))
    assert y.shape == (2, 1000)
    assert "electrode" not in y.coords
    single = map_array(nn.Conv1d(1, 2, 3, padding=1), recording(True).isel(electrode=0))
    assert single.dims == ("channel", "time")


@pytest.mark.parametrize("dask", ["allowed", "parallelized"])
def test_under_apply_ufunc(dask):
    array = recording(True)
    array = array if dask == "allowed" else array.chunk({"time": -1, "electrode": 1})
    layer = tw.Conv1d(1, 1, 5, padding="same")
    y = xr.apply_ufunc(
        lambda x: map_array(layer, x),
        array,
        input_core_dims=[["time"]],
        output_core_dims=[["time"]],
        dask=dask,
        output_dtypes=["f4"],
    )
    np.testing.assert_allclose(y, offline(layer, array.values[:, None])[:, 0], atol=1e-5)


def test_what_is_no_array_is_refused():
    layer = tw.Conv1d(1, 1, 3)
    with pytest.raises(TypeError, match="got list"):
        map_array(layer, [1, 2, 3])
    with pytest.raises(TypeError, match="take one of its variables"):
        map_array(layer, recording(False).drop_vars("note").to_dataset())
    with pytest.raises(IndexError, match="no dimension 'tme'"):
        map_array(layer, recording(False), axis="tme")
    with pytest.raises(IndexError, match="no axis 2"):
        map_array(layer, np.ones((2, 50)), axis=2)
    with pytest.raises(TypeError, match=r"tapwise\.scale\.map_array"):
        tw.filter(da.ones(50, chunks=10), [1.0])
