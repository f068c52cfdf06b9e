"""Corners that reviews found: what is never overwritten, what counts as the same run, what reads no sample."""

import copy

import dask.array as da
import h5py
import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from torch import nn

import tapwise as tw
from tapwise.errors import SignalError, TimelineError
from tapwise.scale import map_array
from tapwise.scale.parts import PartialModel
from tapwise.scale.zarr_target import ZarrTarget


def noise(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("f4")


def day(folder, **attributes):
    """A group as xarray writes it: an array, its coordinates, and an index of all of them."""
    data = xr.DataArray(
        noise(3, 2000), dims=("electrode", "time"), coords={"electrode": ["a", "b", "c"], "time": np.arange(2000) / 500}
    )
    data.attrs["fs"] = 500
    data.to_dataset(name="eeg").assign_attrs(**attributes).to_zarr(folder / "day.zarr", zarr_format=2)
    return folder / "day.zarr"


STRIDED = nn.Conv1d(1, 1, 4, stride=4)


def test_the_recording_is_never_overwritten(tmp_path):
    source = zarr.create_array(tmp_path / "a.zarr", data=noise(2000), chunks=(100,))
    before = source[:]
    for target in (tmp_path / "a.zarr", source):
        with pytest.raises(SignalError, match="is the recording itself"):
            tw.scale.apply(nn.Conv1d(1, 1, 1), tmp_path / "a.zarr", target, overwrite=True)
    np.testing.assert_array_equal(source[:], before)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"], file["other"] = before, before
    with pytest.raises(SignalError, match="the recording's own file"):
        tw.scale.apply(nn.Conv1d(1, 1, 1), tmp_path / "a.h5:x", tmp_path / "a.h5:y", overwrite=True)
    with pytest.raises(SignalError, match="holds other, x too"):
        tw.scale.apply(nn.Conv1d(1, 1, 1), tmp_path / "a.zarr", tmp_path / "a.h5:y", overwrite=True)
    with h5py.File(tmp_path / "a.h5") as file:
        assert sorted(file) == ["other", "x"]


def test_an_array_beside_the_recording_has_coordinates_and_a_rate_of_its_own(tmp_path):
    day(tmp_path, fs=500)
    for overwrite in (False, True):
        layer = copy.deepcopy(STRIDED)
        layer.weight.data += overwrite
        tw.scale.apply(layer, tmp_path / "day.zarr:eeg", tmp_path / "day.zarr:slow", overwrite=overwrite)
    group = zarr.open_group(tmp_path / "day.zarr")
    np.testing.assert_allclose(group["time"][:], np.arange(2000) / 500)
    np.testing.assert_allclose(group["time_slow"][:], np.arange(3, 2000, 4) / 500)
    assert group["slow"].attrs["_ARRAY_DIMENSIONS"] == ["electrode", "time_slow"]
    assert (group.attrs["fs"], group["slow"].attrs["fs"]) == (500, 125)


def test_xarray_opens_the_result_without_a_warning(tmp_path):
    day(tmp_path, fs=500)
    tw.scale.apply(STRIDED, tmp_path / "day.zarr", tmp_path / "slow.zarr")
    slow = xr.open_zarr(tmp_path / "slow.zarr")
    assert slow.attrs["fs"] == slow.eeg.attrs["fs"] == 125
    assert slow.electrode.values.tolist() == ["a", "b", "c"]
    np.testing.assert_allclose(slow.time, np.arange(3, 2000, 4) / 500)


def test_a_run_stopped_among_its_coordinates_goes_on(tmp_path, monkeypatch):
    from tapwise.scale.layout import MovedCoordinate

    day(tmp_path)
    read = MovedCoordinate.__getitem__

    def stopped(self, index):
        raise KeyboardInterrupt

    monkeypatch.setattr(MovedCoordinate, "__getitem__", stopped)
    with pytest.raises(KeyboardInterrupt):
        tw.scale.apply(STRIDED, tmp_path / "day.zarr", tmp_path / "slow.zarr")
    monkeypatch.setattr(MovedCoordinate, "__getitem__", read)
    tw.scale.apply(STRIDED, tmp_path / "day.zarr", tmp_path / "slow.zarr")
    group = zarr.open_group(tmp_path / "slow.zarr")
    assert sorted(group.array_keys()) == ["eeg", "electrode", "time"]
    np.testing.assert_allclose(group["time"][:], np.arange(3, 2000, 4) / 500)


class Scaled(nn.Module):
    def __init__(self, factor, kept=2.0):
        super().__init__()
        self.conv, self.factor = nn.Conv1d(1, 1, 3), factor
        self.conv.weight.data.fill_(1.0)
        self.conv.bias.data.zero_()
        self.register_buffer("kept", torch.tensor(kept), persistent=False)

    def forward(self, x):
        return self.conv(x) * self.factor + self.kept


def fixed(*parts):
    model = nn.Sequential(nn.Conv1d(1, 1, 3), *parts)
    model[0].weight.data.fill_(1.0)
    model[0].bias.data.zero_()
    return model


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (fixed(nn.LeakyReLU(0.1)), fixed(nn.LeakyReLU(0.9))),
        (fixed(nn.ConstantPad1d(1, 1.0)), fixed(nn.ConstantPad1d(1, 7.0))),
        (Scaled(2.0), Scaled(5.0)),
        (Scaled(2.0), Scaled(2.0, 5.0)),
        (fixed(nn.Conv1d(1, 1, 1)), fixed(nn.Conv1d(1, 1, 1))),
    ],
)
def test_another_model_is_another_run(tmp_path, one, other):
    x = noise(500)
    tw.scale.apply(one, x, tmp_path / "o.zarr")
    with pytest.raises(SignalError, match="made by another run"):
        tw.scale.apply(other, x, tmp_path / "o.zarr")
    assert tw.scale.apply(copy.deepcopy(one), x, tmp_path / "o.zarr").n_computed == 0


def test_outputs_that_read_no_sample(tmp_path):
    layer, x = nn.Conv1d(1, 1, 1, padding=64), noise(2, 100)
    tw.scale.apply(layer, x, tmp_path / "o.zarr", chunk=4)
    expected = layer(torch.from_numpy(x)[:, None])[:, 0].detach().numpy()
    np.testing.assert_allclose(zarr.open_array(tmp_path / "o.zarr")[:], expected, atol=1e-6)
    layer = nn.Conv1d(1, 1, 1, padding=4)
    found = map_array(layer, da.from_array(x[:, :20], chunks=(1, 2)))
    np.testing.assert_allclose(found, layer(torch.from_numpy(x[:, None, :20]))[:, 0].detach(), atol=1e-6)


def test_chunks_that_never_arrive_are_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(ZarrTarget, "write", lambda *arguments: None)
    with pytest.raises(SignalError, match=r"1 chunks aren't there.*reach another store"):
        tw.scale.apply(nn.Conv1d(1, 1, 3), noise(500), tmp_path / "o.zarr")
    assert not dict(zarr.open_array(tmp_path / "o.zarr").attrs)["tapwise"]["complete"]


@pytest.mark.parametrize("lost", [0, 3])
def test_a_part_that_lacks_a_chunk_is_computed_again(tmp_path, monkeypatch, lost):
    """Also where the chunk holds nothing but the value that missing ones have."""
    x = noise(8000)
    x[2000:4000] = np.nan
    monkeypatch.setattr(ZarrTarget, "finish", lambda *arguments: 1 / 0)
    layer = nn.Conv1d(1, 1, 1)
    with pytest.raises(ZeroDivisionError):
        tw.scale.apply(layer, x, tmp_path / "o.zarr", chunk=1000, workers=1)
    monkeypatch.undo()
    chunks = sorted((tmp_path / "o.zarr" / "c").iterdir())
    assert len(chunks) == 8
    for path in chunks[:lost]:
        path.unlink()
    done = tw.scale.apply(layer, x, tmp_path / "o.zarr", chunk=1000, workers=1)
    assert done.n_computed == (2 if lost else 0)
    expected = layer(torch.from_numpy(x)[None])[0].detach().numpy()
    np.testing.assert_allclose(zarr.open_array(tmp_path / "o.zarr")[:], expected, atol=1e-6)


def test_a_branch_that_needs_less_before_one_that_needs_more():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.short, self.long = nn.Conv1d(1, 1, 1), nn.Conv1d(1, 1, 9, padding=4)

        def forward(self, x):
            return self.short(x) + self.long(x)

    model = Branches()
    partial = PartialModel(model, torch.zeros(1, 1, 64))
    x = torch.randn(1, 1, 100)
    part = partial.part(40, 50, 100)
    assert part.samples == (36, 54)
    torch.testing.assert_close(partial.run(part, x[..., 36:54]), model(x)[..., 40:50].detach())


def test_large_chunks_of_the_source_count(tmp_path):
    source = zarr.create_array(tmp_path / "in.zarr", data=noise(1_000_000), chunks=(1_000_000,))
    with pytest.raises(ValueError, match=r"of which a chunk of the source takes 4 MB"):
        tw.scale.apply(nn.Conv1d(1, 1, 3), source, tmp_path / "o.zarr", chunk=1000, max_memory="4MB", workers=2)
    done = tw.scale.apply(nn.Conv1d(1, 1, 3), source, tmp_path / "o.zarr", chunk=1000, max_memory="60MB", workers=2)
    assert done.n_tasks == 1  # the chunk is read once


def test_a_model_of_multiples_gets_zeros_after_the_end(tmp_path):
    class Frames(nn.Module):
        def forward(self, x):
            return x.reshape(x.shape[0], 1, -1, 8).sum(-1)

    x = noise(1003)
    done = tw.scale.apply(Frames(), x, tmp_path / "o.zarr", example=torch.zeros(1, 1, 64))
    assert done.n_outputs == 126
    expected = np.append(x, np.zeros(5, "f4")).reshape(-1, 8).sum(1)
    np.testing.assert_allclose(zarr.open_array(tmp_path / "o.zarr")[:], expected, atol=1e-5)


def test_what_overflows_is_counted(tmp_path):
    layer = nn.Conv1d(1, 1, 1, bias=False)
    layer.weight.data.fill_(1e30)
    done = tw.scale.apply(layer, 1e10 * np.ones(50, "f4"), tmp_path / "o.zarr")
    assert done.losses.overflowed == 50
    assert "50 outputs are beyond" in str(done)


@pytest.mark.parametrize("value", [{"b": 1}, None, [1, "a"]])
def test_attributes_that_hdf5_has_no_type_for(tmp_path, value):
    zarr.create_array(tmp_path / "in.zarr", data=noise(50), attributes={"note": value, "unit": "V"})
    tw.scale.apply(nn.Conv1d(1, 1, 3), tmp_path / "in.zarr", tmp_path / "o.h5")
    with h5py.File(tmp_path / "o.h5") as file:
        assert file["signal"].attrs["unit"] == "V"
        assert "note" in file["signal"].attrs
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file["x"] = noise(50)
        file["x"].attrs["reference"] = file["x"].ref
    tw.scale.apply(nn.Conv1d(1, 1, 3), tmp_path / "in.h5", tmp_path / "o.zarr")


def test_two_runs_on_one_hdf5_file(tmp_path):
    layer, said = nn.Conv1d(1, 1, 3), []

    def again(n_outputs):
        if not said:
            with pytest.raises(SignalError, match="being written by another run") as error:
                tw.scale.apply(layer, x, tmp_path / "o.h5")
            said.append(str(error.value))

    x = noise(5000)
    tw.scale.apply(layer, x, tmp_path / "o.h5", progress=again)
    assert said
    assert (tmp_path / "o.h5").exists()


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (noise(50).astype(np.longdouble), "no more than 64 bits"),
        (np.ones(50, bool), "got bool"),
        (np.ones((3, 0)), "is empty"),
    ],
)
def test_sources_that_are_refused(tmp_path, source, said):
    with pytest.raises(SignalError, match=said):
        tw.scale.apply(nn.Conv1d(1, 1, 3), source, tmp_path / "o.zarr")
    assert not list(tmp_path.iterdir())


def test_a_folder_of_zarr_needs_no_suffix(tmp_path):
    zarr.create_array(tmp_path / "plain", data=noise(50))
    assert tw.scale.apply(nn.Conv1d(1, 1, 3), tmp_path / "plain", tmp_path / "o.zarr").n_outputs == 48


def test_unknown_chunks_are_told():
    x = da.from_array(noise(50), chunks=10)
    with pytest.raises(ValueError, match="compute_chunk_sizes"):
        map_array(nn.Conv1d(1, 1, 3), x[x > 0])


def test_a_state_is_refused_by_map_array_too():
    class Memory(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(1, 1, batch_first=True)

        def forward(self, x):
            return self.lstm(x.transpose(1, 2))[0].transpose(1, 2)

    with pytest.raises(TimelineError, match="lstm in lstm: carries a state"):
        map_array(Memory(), da.from_array(noise(50), chunks=10))
