"""Runs that are killed, sources that change, disks that fill: nothing wrong is left, and a run goes on."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

import tapwise as tw
from tapwise.errors import SignalError
from tapwise.scale import out_of_core
from tapwise.scale.hdf5_target import Hdf5Target
from tapwise.scale.zarr_target import ZarrTarget

RUN = """
import sys, numpy as np, tapwise as tw
layer = tw.Conv1d.from_taps(np.hanning(65) / 32)
say = lambda n: print(n, flush=True)
done = tw.scale.apply(layer, sys.argv[1], sys.argv[2], chunk=500, progress=say, workers=2, max_memory="150kB")
print("computed", done.n_computed, done.n_tasks, flush=True)
"""


def started(source, target):
    return subprocess.Popen([sys.executable, "-c", RUN, source, target], stdout=subprocess.PIPE, text=True)


def content(path: Path):
    """All that a finished target holds: of Zarr the bytes of every file, of HDF5 those of its values."""
    if path.is_dir():
        return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}
    with h5py.File(path) as file:
        return {"values": file["signal"][:].tobytes(), "record": file["signal"].attrs["tapwise"]}


def killed_and_resumed(folder, suffix, kills, seed):
    x = np.random.default_rng(0).normal(size=(2, 400_000)).astype("f4")
    zarr.create_array(folder / "in.zarr", data=x, chunks=(2, 500))
    run = started(folder / "in.zarr", folder / f"one{suffix}")
    run.communicate(timeout=120)
    assert run.returncode == 0
    chance, target, n_before = random.Random(seed), folder / f"two{suffix}", []
    for _ in range(kills):
        run = started(folder / "in.zarr", target)
        n_before.append(int(run.stdout.readline()))
        while int(run.stdout.readline().split()[-1]) <= n_before[-1] < 400_000 - 32:  # until it has done something
            pass
        time.sleep(chance.uniform(0, 0.03))
        run.send_signal(signal.SIGKILL)
        run.communicate()
        if suffix == ".h5":
            assert not target.exists() or run.returncode == 0
    run = started(folder / "in.zarr", target)
    *_, last = run.communicate(timeout=120)[0].splitlines()
    _, n_computed, n_tasks = last.split()
    assert sorted(n_before) == n_before  # no run lost what the one before had done
    assert int(n_computed) < int(n_tasks)
    assert content(target) == content(folder / f"one{suffix}")
    assert {p.name for p in folder.iterdir()} == {"in.zarr", f"one{suffix}", f"two{suffix}"}


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_a_killed_run_goes_on(tmp_path, suffix):
    killed_and_resumed(tmp_path, suffix, 1, 0)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_a_run_killed_at_twenty_moments_goes_on(tmp_path, suffix):
    killed_and_resumed(tmp_path, suffix, 20, 1)


@pytest.mark.parametrize(("target", "kind"), [("out.zarr", ZarrTarget), ("out.h5", Hdf5Target)])
def test_a_disk_that_fills(tmp_path, monkeypatch, target, kind):
    x, layer = np.ones((1, 50_000), "f4"), tw.Conv1d(1, 1, 3)
    write, count = kind.write, iter(range(1000))

    def full(self, block, start, channels):
        if next(count) >= 5:
            raise OSError(28, "No space left on device")
        write(self, block, start, channels)

    monkeypatch.setattr(kind, "write", full)
    with pytest.raises(SignalError, match=r"No space left.*gone on with"):
        tw.scale.apply(layer, x, tmp_path / target, chunk=1000, workers=1, max_memory="100kB")
    if target == "out.zarr":
        assert not dict(zarr.open_array(tmp_path / target).attrs)["tapwise"]["complete"]
    else:
        assert not (tmp_path / target).exists()
    monkeypatch.setattr(kind, "write", write)
    done = tw.scale.apply(layer, x, tmp_path / target, chunk=1000, workers=1, max_memory="100kB")
    assert done.n_tasks - done.n_computed == 5
    with pytest.raises(SignalError, match="overwrite"):
        tw.scale.apply(tw.Conv1d(1, 1, 3), x, tmp_path / target, chunk=1000)


@pytest.mark.parametrize("name", ["in.zarr", "in.h5", "in.npy"])
def test_a_source_that_changes_meanwhile(tmp_path, name):
    x, layer = np.ones((1, 50_000), "f4"), tw.Conv1d(1, 1, 3)

    def make(values):
        if name == "in.zarr":
            zarr.create_array(tmp_path / name, data=values, chunks=(1, 5000), overwrite=True)
        elif name == "in.h5":
            with h5py.File(tmp_path / "new.h5", "w") as file:
                file["x"] = values
            os.replace(tmp_path / "new.h5", tmp_path / name)
        else:
            np.save(tmp_path / "new.npy", values)
            os.replace(tmp_path / "new.npy", tmp_path / name)

    make(x)
    changes = iter([lambda: None, lambda: make(x + 1)])

    def change(n_outputs):
        next(changes, lambda: None)()

    with pytest.raises(SignalError, match="changed while it was read"):
        tw.scale.apply(layer, tmp_path / name, tmp_path / "out.zarr", chunk=1000, progress=change, max_memory="200kB")
    with pytest.raises(SignalError, match=r"begun by another run .*or its source or weights have changed since"):
        tw.scale.apply(layer, tmp_path / name, tmp_path / "out.zarr", chunk=1000)
    tw.scale.apply(layer, tmp_path / name, tmp_path / "out.zarr", chunk=1000, overwrite=True)


def test_an_error_in_one_part_ends_the_run(tmp_path, monkeypatch):
    outputs, count = out_of_core._outputs, iter(range(1000))

    def failing(*arguments):
        if next(count) == 7:
            raise ZeroDivisionError
        return outputs(*arguments)

    monkeypatch.setattr(out_of_core, "_outputs", failing)
    x, layer, seen = np.ones((1, 50_000), "f4"), tw.Conv1d(1, 1, 3), []
    with pytest.raises(ZeroDivisionError):
        tw.scale.apply(layer, x, tmp_path / "out.zarr", chunk=1000, workers=2, progress=seen.append, max_memory="200kB")
    assert seen[-1] < 50_000
    assert next(count) < 12


def test_not_resumed_unless_asked(tmp_path, monkeypatch):
    x, layer = np.ones((1, 50_000), "f4"), tw.Conv1d(1, 1, 3)
    monkeypatch.setattr(out_of_core, "_outputs", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tw.scale.apply(layer, x, tmp_path / "out.zarr", chunk=1000)
    monkeypatch.undo()
    with pytest.raises(SignalError, match="begun by the same run: say resume"):
        tw.scale.apply(layer, x, tmp_path / "out.zarr", chunk=1000, resume=False)
