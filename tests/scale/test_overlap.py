"""What is read of a recording, and how often."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import dask.array
import numpy as np
import torch
import zarr
from hypothesis import given
from hypothesis import strategies as st

import tapwise as tw
from tapwise.scale.computation import ModelComputation
from tapwise.scale.out_of_core import run
from tapwise.scale.sources import OverlapReader
from tapwise.signals.stored import MemoryArray, StoredReader, open_stored


def test_the_samples_before_a_part_are_read_once(tmp_path):
    x = np.random.default_rng(0).normal(size=(4, 100_000)).astype("f4")
    stored = zarr.create_array(tmp_path / "in.zarr", data=x, chunks=(2, 1000))
    reads, starts = [], []

    class Counting(StoredReader):
        def read_channels(self, start, stop, channels):
            reads.append((stop - start) * len(channels))
            starts.append(start)
            return super().read_channels(start, stop, channels)

    layer = tw.Conv1d.from_taps(np.hanning(301) / 150)  # padding on both sides
    made = {}
    for workers in (1, 3):
        reads.clear()
        starts.clear()
        reader = Counting(open_stored(stored))
        computation = ModelComputation(lambda: (layer, torch.zeros(1, 1, 1000)), reader)
        done = run(computation, reader, tmp_path / f"{workers}.zarr", max_memory=1_500_000, workers=workers, chunk=1000)
        assert done.n_tasks > 20
        again = sum(reads) - x.size
        assert again <= 300 * 4 * (workers - 1 + 8 * (workers > 1))  # where stripes begin, and threads overtake
        # Each worker has a third of the recording to itself.
        assert sorted(starts[:workers])[-1] >= 100_000 * (workers - 1) // workers - 5000
        made[workers] = zarr.open_array(tmp_path / f"{workers}.zarr")[:]
    np.testing.assert_array_equal(made[1], made[3])
    np.testing.assert_allclose(made[1], layer(torch.from_numpy(x)[:, None])[:, 0].detach().numpy(), atol=1e-5)


@given(
    st.lists(
        st.tuples(st.integers(0, 99), st.integers(1, 30), st.integers(0, 3), st.integers(1, 4)), min_size=1, max_size=12
    ),
    st.integers(1, 40),
    st.integers(1, 4),
)
def test_what_is_kept_of_a_recording_is_what_it_holds(reads, overlap, n_parts):
    x = np.arange(400).reshape(4, 100)
    reader = OverlapReader(StoredReader(MemoryArray(x)), overlap, n_parts)
    for start, count, first, last in reads:
        stop, last = min(start + count, 100), max(first + 1, last)
        np.testing.assert_array_equal(reader.read_channels(start, stop, range(first, last)), x[first:last, start:stop])
    again = pickle.loads(pickle.dumps(reader))
    np.testing.assert_array_equal(again.read(3, 9), x[:, 3:9])


def test_some_channels_of_several_axes():
    x = np.arange(2 * 3 * 2 * 10).reshape(2, 3, 2, 10)
    reader = StoredReader(MemoryArray(x))
    for first in range(12):
        for last in range(first + 1, 13):
            found = reader.read_channels(2, 7, range(first, last))
            np.testing.assert_array_equal(found, x.reshape(12, 10)[first:last, 2:7])


def test_the_number_of_threads_is_as_before(tmp_path):
    def threads():  # what a new thread gets: torch keeps the number of each, and the last that was set
        with ThreadPoolExecutor(1) as pool:
            return torch.get_num_threads(), pool.submit(torch.get_num_threads).result()

    layer, x, before = tw.Conv1d.from_taps(np.ones(8) / 8), np.ones((2, 5000), "f4"), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        tw.scale.apply(layer, x, tmp_path / "out.zarr", workers=2)
        assert threads() == (2, 2)
        tw.scale.map_array(layer, dask.array.from_array(x, chunks=(1, 1000))).compute(scheduler="sync")
        assert threads() == (2, 2)
    finally:
        torch.set_num_threads(before)
