"""Clusters of Dask: processes that compute and write, and one that is killed."""

import os
import signal

import distributed
import h5py
import numpy as np
import pytest
import zarr

import tapwise as tw


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def expected(x):
    return np.stack([np.convolve(row, np.hanning(65) / 32)[: len(row)] for row in x])


def test_the_only_worker_is_killed_with_all_that_the_tasks_share(tmp_path):
    x = np.random.default_rng(0).normal(size=(2, 40_000)).astype("f4")
    zarr.create_array(tmp_path / "in.zarr", data=x, chunks=(2, 1000))
    reports = []
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster,
        distributed.Client(cluster) as alone,
    ):

        def kill_it(n_outputs):
            reports.append(n_outputs)
            if len(reports) == 8:
                (pid,) = alone.run(os.getpid).values()
                os.kill(pid, signal.SIGKILL)

        done = tw.scale.apply(
            tw.Conv1d.from_taps(np.hanning(65) / 32),
            tmp_path / "in.zarr",
            tmp_path / "out.zarr",
            client=alone,
            max_memory="100kB",
            chunk=500,
            progress=kill_it,
        )
    assert len(reports) == done.n_tasks + 1
    np.testing.assert_allclose(zarr.open_array(tmp_path / "out.zarr")[:], expected(x), atol=1e-5)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_a_killed_worker_is_replaced(tmp_path, client, suffix):
    x = np.random.default_rng(0).normal(size=(2, 200_000)).astype("f4")
    zarr.create_array(tmp_path / "in.zarr", data=x, chunks=(2, 1000))
    layer = tw.Conv1d.from_taps(np.hanning(65) / 32)
    client.wait_for_workers(2)
    pids = list(client.run(os.getpid).values())
    reports = []

    def kill_one(n_outputs):
        reports.append(n_outputs)
        if len(reports) == 8:
            os.kill(pids[0], signal.SIGKILL)

    done = tw.scale.apply(
        layer,
        tmp_path / "in.zarr",
        tmp_path / f"out{suffix}",
        client=client,
        max_memory="100kB",
        chunk=500,
        progress=kill_one,
    )
    assert done.n_tasks > 50
    assert len(reports) == done.n_tasks + 1
    assert reports[-1] == 200_000
    if suffix == ".zarr":
        found = zarr.open_array(tmp_path / "out.zarr")[:]
    else:
        with h5py.File(tmp_path / "out.h5") as file:
            found = file["signal"][:]
    np.testing.assert_allclose(found, expected(x), atol=1e-5)


def test_what_a_cluster_and_threads_make_is_the_same(tmp_path, client):
    x = np.random.default_rng(0).normal(size=(2, 50_000)).astype("f4")
    zarr.create_array(tmp_path / "in.zarr", data=x, chunks=(1, 5000))
    layer = tw.Conv1d.from_taps(np.hanning(65) / 32)
    tw.scale.apply(layer, tmp_path / "in.zarr", tmp_path / "one.zarr", client=client)
    tw.scale.apply(layer, tmp_path / "in.zarr", tmp_path / "two.zarr", workers=3)
    one, two = (zarr.open_array(tmp_path / name)[:] for name in ("one.zarr", "two.zarr"))
    np.testing.assert_array_equal(one, two)
