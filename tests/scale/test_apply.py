"""Layers and models over stores, by parts: what one run over all of the recording gives."""

import h5py
import numpy as np
import pytest
import torch
import xarray
import zarr
from torch import nn

import tapwise as tw
from tapwise.errors import SignalError, TimelineError


def recording(shape, seed=0, dtype=np.float32):
    return (1000 * np.random.default_rng(seed).normal(size=shape)).astype(dtype)


def offline(model, x):
    with torch.no_grad():
        return model(torch.from_numpy(x)).numpy()


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("target", ["out.zarr", "out.h5:deep/signal"])
def test_coordinates_attributes_and_the_rate_follow_the_stride(tmp_path, zarr_format, target):
    x = recording((3, 10_001))
    group = zarr.open_group(tmp_path / "in.zarr", mode="w", attributes={"subject": "7"}, zarr_format=zarr_format)
    dims = ("channel", "time")
    named = {"dimension_names": dims} if zarr_format == 3 else {}
    attributes = {"sfreq": 500, "unit": "uV"} | ({} if zarr_format == 3 else {"_ARRAY_DIMENSIONS": list(dims)})
    group.create_array("eeg", data=x, chunks=(2, 999), attributes=attributes, **named)
    for name, values in (("channel", np.array([4, 5, 6])), ("time", 7 + np.arange(10_001) / 500)):
        named = {"dimension_names": (name,)} if zarr_format == 3 else {"attributes": {"_ARRAY_DIMENSIONS": [name]}}
        group.create_array(name, data=values, **named)
    layer = tw.Conv1d(1, 1, 9, stride=4, padding="causal")
    done = tw.scale.apply(layer, tmp_path / "in.zarr", tmp_path / target)
    expected = offline(layer, x[:, None])[:, 0]
    assert done.n_outputs == 2501
    if target.endswith("zarr"):
        found = zarr.open_group(tmp_path / "out.zarr", mode="r")
        data, attributes, at = found["eeg"], dict(found["eeg"].attrs), found["time"][:]
        assert found["channel"][:].tolist() == [4, 5, 6]
        assert data.metadata.zarr_format == zarr_format
        if zarr_format == 3:
            assert data.metadata.dimension_names == dims
        assert set(xarray.open_zarr(tmp_path / "out.zarr", consolidated=False)["eeg"].coords) == set(dims)
        assert dict(found.attrs)["subject"] == "7"
        values = data[:]
    else:
        with h5py.File(tmp_path / "out.h5") as file:
            data = file["deep/signal"]
            values, attributes, at = data[:], dict(data.attrs), data.dims[1]["time"][:]
            assert [dim.label for dim in data.dims] == list(dims)
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(at, 7 + np.arange(2501) * 4 / 500)
    assert attributes["sfreq"] == 125
    assert attributes["unit"] == "uV"


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_any_axis_is_time(tmp_path, axis):
    x = recording((4, 6, 5))
    x = np.moveaxis(np.repeat(x, 300, axis=2), 2, axis)
    source = zarr.create_array(tmp_path / "in.zarr", data=x, chunks=tuple(min(7, n) for n in x.shape))
    layer = tw.Conv1d.from_taps(np.hanning(11))
    tw.scale.apply(layer, source, tmp_path / "out.zarr", axis=axis)
    flat = np.moveaxis(x, axis, -1).reshape(-1, 1, 1500)
    expected = np.moveaxis(offline(layer, flat).reshape(4, 6, 1500), -1, axis)
    np.testing.assert_allclose(zarr.open_array(tmp_path / "out.zarr")[:], expected, rtol=1e-5, atol=1e-3)


def test_trials_of_several_channels_are_rows_of_a_batch(tmp_path):
    x = recording((5, 3, 400))
    model = nn.Sequential(nn.Conv1d(3, 4, 5, padding=2), nn.ELU(), nn.ConvTranspose1d(4, 2, 4, stride=2))
    done = tw.scale.apply(model, x, tmp_path / "out.zarr", chunk=64, max_memory="100kB")
    found = zarr.open_array(tmp_path / "out.zarr")
    assert found.shape == (5, 2, 802) == done.shape
    assert found.chunks[2] == 64
    np.testing.assert_allclose(found[:], offline(model, x), rtol=1e-4, atol=1e-2)


class Skips(nn.Module):
    """Strides, a skip that is cut to length, reflection, pooling and upsampling."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(2, 4, 5, padding=2, padding_mode="reflect")
        self.down, self.up = nn.Conv1d(4, 4, 4, stride=2), nn.ConvTranspose1d(4, 4, 4, stride=2)
        self.pool = nn.AvgPool1d(3, 1, 1)

    def forward(self, x):
        h = self.first(x).relu()
        g = self.up(self.down(h).tanh())
        return self.pool(nn.functional.interpolate(g + h[..., : g.shape[-1]], scale_factor=2))


@pytest.mark.parametrize("length", [40, 1000, 9999])
def test_a_model_of_branches(tmp_path, length):
    x, model = recording((2, length)), Skips()
    tw.scale.apply(model, x, tmp_path / "out.h5", chunk=97, max_memory="200kB", workers=3)
    with h5py.File(tmp_path / "out.h5") as file:
        np.testing.assert_allclose(file["signal"][:], offline(model, x[None])[0], rtol=1e-4, atol=1e-2)


def test_a_recurrence_is_refused_by_its_path(tmp_path):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Conv1d(1, 4, 3)
            self.memory = nn.GRU(4, 4, batch_first=True)

        def forward(self, x):
            return self.memory(self.encoder(x).transpose(1, 2))[0]

    with pytest.raises(TimelineError, match="gru in memory"):
        tw.scale.apply(Recurrent(), recording(500), tmp_path / "out.zarr")
    assert not list(tmp_path.iterdir())


def test_the_same_run_is_not_done_twice(tmp_path):
    x, layer = recording((2, 5000)), tw.Conv1d(1, 1, 3)
    first = tw.scale.apply(layer, x, tmp_path / "out.zarr", chunk=500)
    again = tw.scale.apply(layer, x, tmp_path / "out.zarr", chunk=500)
    assert first.n_computed == first.n_tasks == again.n_tasks > 1
    assert again.n_computed == 0
    record = dict(zarr.open_array(tmp_path / "out.zarr").attrs)["tapwise"]
    assert record["complete"]
    assert record["layer"].startswith("Conv1d(1, 1")


@pytest.mark.parametrize("target", ["out.zarr", "out.h5"])
def test_what_something_else_made_is_left_alone(tmp_path, target):
    x, layer = recording((2, 5000)), tw.Conv1d(1, 1, 3)
    tw.scale.apply(layer, x, tmp_path / target)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    other = tw.Conv1d(1, 1, 3)
    for model, signal in ((other, x), (layer, x + 1), (tw.Conv1d(1, 1, 5), x)):
        with pytest.raises(SignalError, match="overwrite"):
            tw.scale.apply(model, signal, tmp_path / target)
    assert tw.scale.apply(layer, x, tmp_path / target, resume=False).n_computed == 0
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    tw.scale.apply(other, x, tmp_path / target, overwrite=True)


def test_an_empty_array_that_fits_is_filled(tmp_path):
    x, layer = recording((2, 5000)), tw.Conv1d(1, 1, 3)
    array = zarr.create_array(tmp_path / "out.zarr", shape=(2, 4998), chunks=(1, 333), dtype="f4")
    tw.scale.apply(layer, x, array)
    np.testing.assert_allclose(array[:], offline(layer, x[:, None])[:, 0], rtol=1e-5, atol=1e-3)
    short = zarr.create_array(tmp_path / "short.zarr", shape=(2, 4990), chunks=(1, 333), dtype="f4")
    with pytest.raises(SignalError, match=r"\(2, 4990\), and float32 of \(2, 4998\)"):
        tw.scale.apply(layer, x, short)


def test_a_store_in_memory_by_its_address(tmp_path):
    x, layer = recording((2, 5000)), tw.Conv1d(1, 1, 3)
    zarr.create_array("memory://bucket/in.zarr", data=x, chunks=(1, 700))
    tw.scale.apply(layer, "memory://bucket/in.zarr", "memory://bucket/out.zarr")
    found = zarr.open_array("memory://bucket/out.zarr", mode="r")
    np.testing.assert_allclose(found[:], offline(layer, x[:, None])[:, 0], rtol=1e-5, atol=1e-3)


def test_shards_are_written_complete(tmp_path):
    x, layer = recording((2, 5000)), tw.Conv1d(1, 1, 3)
    array = zarr.create_array(tmp_path / "out.zarr", shape=(2, 4998), chunks=(1, 100), shards=(2, 1000), dtype="f4")
    tw.scale.apply(layer, x, array)
    np.testing.assert_allclose(array[:], offline(layer, x[:, None])[:, 0], rtol=1e-5, atol=1e-3)


def test_too_little_memory_is_told_before_anything_is_made(tmp_path):
    with pytest.raises(ValueError, match="max_memory: 20 kB for 2 workers is too little: one chunk"):
        tw.scale.apply(tw.Conv1d(1, 1, 3), recording(50_000), tmp_path / "out.zarr", max_memory="20kB", workers=2)
    for amount in ("much", -1, "5 parsecs"):
        with pytest.raises(ValueError, match="500MB"):
            tw.scale.apply(tw.Conv1d(1, 1, 3), recording(50), tmp_path / "out.zarr", max_memory=amount)
    assert not list(tmp_path.iterdir())


def test_other_channels_than_the_models_are_refused(tmp_path):
    model = nn.Sequential(nn.Conv1d(4, 2, 3), nn.ReLU())
    with pytest.raises(ValueError, match="takes 4 channels, the signal has 3"):
        tw.scale.apply(model, recording((3, 500)), tmp_path / "out.zarr", example=torch.zeros(1, 4, 100))
    with pytest.raises(ValueError, match="give example="):
        tw.scale.apply(model, recording((3, 500)), tmp_path / "out.zarr")
    assert not list(tmp_path.iterdir())
