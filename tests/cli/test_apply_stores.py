"""tapwise apply from and into stores, as typed."""

import h5py
import numpy as np
import pytest
import soundfile
import zarr

import tapwise as tw

MODELS = """
import torch
from torch import nn

class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.memory = nn.Conv1d(1, 4, 3, padding=1), nn.GRU(4, 1, batch_first=True)

    def forward(self, x):
        return self.memory(self.first(x).transpose(1, 2))[0].transpose(1, 2)

def recurrent():
    torch.manual_seed(0)
    return Recurrent(), torch.randn(1, 1, 500)

def convolutional():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(1, 4, 5, padding=2), nn.ReLU(), nn.Conv1d(4, 1, 4, stride=4)), torch.randn(1, 1, 500)

def attention():
    return nn.Sequential(nn.Conv1d(1, 4, 5), nn.GroupNorm(2, 4)), torch.randn(1, 1, 500)
"""


@pytest.fixture
def typed(here):
    """Run a line as typed: what it prints, of mistakes what it says."""
    return lambda line: here(*line.split())


@pytest.fixture
def stores(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models.py").write_text(MODELS)
    x = (3000 * np.random.default_rng(0).normal(size=(4, 5000))).astype("i2")
    group = zarr.open_group(tmp_path / "eeg.zarr", mode="w", attributes={"sfreq": 250})
    group.create_array("raw", data=x, chunks=(2, 600), dimension_names=("ch", "time"))
    group.create_array("time", data=np.arange(5000) / 250, dimension_names=("time",))
    with h5py.File(tmp_path / "eeg.h5", "w") as file:
        file["a/raw"] = x.T
        file["a/raw"].attrs["fs"] = 250
    np.savez(tmp_path / "eeg.npz", one=x, two=x[0])
    soundfile.write(tmp_path / "s.wav", x[:2].T, 250, "PCM_16")
    return x


def averaged(x, **options):
    return tw.filter(x, np.ones(8) / 8, padding=(4, 3), padding_mode="shorter", **options)


@pytest.mark.parametrize("source", ["eeg.zarr", "eeg.zarr:raw", "eeg.h5:a/raw --axis 0", "eeg.npz:one"])
@pytest.mark.parametrize("target", ["out.zarr", "out.h5:slow", "out.npy"])
def test_every_store_to_every_other(stores, tmp_path, typed, source, target):
    done = typed(f"apply {source} {target} --taps mean:8")
    assert "5,000 samples" in done
    expected = np.clip(np.rint(averaged(stores)), -(2**15), 2**15 - 1)
    if target == "out.zarr":
        found = zarr.open(tmp_path / "out.zarr", mode="r")
        found = (found if hasattr(found, "shape") else found["raw"])[:]
    elif target == "out.npy":
        found = np.load(tmp_path / "out.npy")
    else:
        with h5py.File(tmp_path / "out.h5") as file:
            found = file["slow"][:]
    found = found.T if found.shape[0] == 5000 else found
    assert found.dtype == np.int16
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_a_sound_into_a_store_and_back(stores, tmp_path, typed):
    done = typed("apply s.wav s.zarr --taps 1 --workers 2")
    assert "2 workers" in done
    assert dict(zarr.open_array(tmp_path / "s.zarr").attrs)["sampling_rate"] == 250
    done = typed("apply s.zarr back.wav --taps 1")
    assert "at 250 Hz" in done
    np.testing.assert_array_equal(soundfile.read(tmp_path / "back.wav", dtype="int16")[0].T, stores[:2])


def test_a_model_by_parts_and_one_from_beginning_to_end(stores, tmp_path, typed):
    typed("apply eeg.zarr parts.zarr --model models.py:convolutional --workers 2 --chunk 100 --max-memory 1MB")
    typed("apply eeg.zarr parts.npy --model models.py:convolutional")
    np.testing.assert_allclose(
        zarr.open_group(tmp_path / "parts.zarr")["raw"][:], np.load(tmp_path / "parts.npy"), rtol=1e-4, atol=1e-2
    )
    assert dict(zarr.open_group(tmp_path / "parts.zarr").attrs)["sfreq"] == 62.5
    done = typed("apply eeg.zarr states.h5:y --model models.py:recurrent")
    assert "from beginning to end, since it carries a state" in done
    typed("apply eeg.zarr states.npy --model models.py:recurrent")
    with h5py.File(tmp_path / "states.h5") as file:
        np.testing.assert_allclose(file["y"][:], np.load(tmp_path / "states.npy"), atol=1e-5)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("apply eeg.zarr o.zarr --model models.py:recurrent --workers 2", "gru in memory: carries a state"),
        ("apply eeg.zarr o.zarr --model models.py:attention", "group_norm in 1"),
        ("apply eeg.zarr o.npy --taps 1 --workers 2", "belong to stores"),
        ("apply eeg.zarr:nope o.zarr --taps 1", "there is no array 'nope'; the store has raw, time"),
        ("apply nothing.zarr o.zarr --taps 1", "there is no such store"),
        ("apply models.py o.zarr --taps 1", "got the suffix '.py'"),
        ("apply eeg.npz o.zarr --taps 1", "name the array, as eeg.npz:one; the file has one, two"),
        ("apply eeg.h5 o.zarr --taps 1", "--axis 0 the second"),
        ("apply eeg.zarr eeg.zarr --taps 1", "is the recording itself"),
        ("apply eeg.zarr o.zarr --taps 1 --column a", "belong to tables"),
        ("apply eeg.zarr nowhere/o.zarr --taps 1", "there is no folder"),
        ("apply eeg.zarr o.zarr --taps 1 --max-memory tiny", "an amount of memory"),
        ("apply eeg.zarr o.zarr --taps 1 --chunk 0", "chunk must be at least 1"),
    ],
)
def test_mistakes(stores, tmp_path, typed, line, said):
    before = {path.name for path in tmp_path.iterdir()}
    done = typed(line)
    assert said in done
    assert "Traceback" not in done
    assert before == {path.name for path in tmp_path.iterdir()} - {"__pycache__"}


def test_a_store_that_is_there_is_replaced_only_when_told(stores, tmp_path, typed):
    typed("apply eeg.zarr o.zarr --taps 1,2")
    done = typed("apply eeg.zarr o.zarr --taps 1,2,3")
    assert "holds int16 of shape (4, 4999)" in done
    assert "--overwrite" in done
    assert "the same run has made it before" in typed("apply eeg.zarr o.zarr --taps 1,2")
    typed("apply eeg.zarr o.zarr --taps 1,2,3 --overwrite")
    assert zarr.open_group(tmp_path / "o.zarr")["raw"].shape == (4, 4998)


def test_a_picture_of_what_a_store_holds(stores, tmp_path, typed):
    typed("apply eeg.zarr o.zarr --taps mean:8 --plot filter.svg")
    typed("apply eeg.zarr o.h5:y --model models.py:convolutional --plot model.svg")
    for name in ("filter.svg", "model.svg"):
        assert "<svg" in (tmp_path / name).read_text()


def test_addresses(stores, tmp_path, typed):
    """Any protocol of fsspec; ``memory`` is this process's, ``file`` the disk's."""
    zarr.create_array("memory://bucket/day.zarr", data=stores, chunks=(2, 600), overwrite=True)
    typed("apply memory://bucket/day.zarr memory://bucket/slow.zarr --taps mean:8")
    np.testing.assert_allclose(zarr.open_array("memory://bucket/slow.zarr")[:], np.rint(averaged(stores)), atol=1)
    typed(f"apply file://{tmp_path}/eeg.zarr:raw file://{tmp_path}/slow.zarr --taps mean:8")
    (found,) = (array for name, array in zarr.open_group("slow.zarr").arrays() if name == "raw")
    np.testing.assert_allclose(found[:], np.rint(averaged(stores)), atol=1)
    assert not (tmp_path / "memory:").exists()
    assert not (tmp_path / "file:").exists()
