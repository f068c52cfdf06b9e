"""Memory is bounded by what is allowed, whatever the length."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

RUN = """
import sys, threading, time, dask.array, numpy as np, torch, zarr, tapwise as tw
from pathlib import Path

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

kind, folder, allowed = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
if kind == "layer":
    model = tw.CausalConv1d(1, 1, 129, dilation=16)
else:
    model = torch.nn.Sequential(
        tw.CausalConv1d(1, 16, 9), torch.nn.ReLU(), tw.CausalConv1d(16, 16, 9), torch.nn.ReLU(), tw.CausalConv1d(16, 1, 4, stride=4)
    )
tw.scale.apply(model, np.zeros(200_000, "f4"), folder / "small.zarr", workers=2)  # all is imported and compiled
before, peak, ended = resident(), 0, threading.Event()

def watch():
    global peak
    while not ended.wait(0.002):
        peak = max(peak, resident())

thread = threading.Thread(target=watch)
thread.start()
tw.scale.apply(model, folder / "in.zarr", folder / "out.zarr", workers=2, max_memory=allowed)
ended.set()
thread.join()
print(peak - before)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(("kind", "samples"), [("layer", 40_000_000), ("model", 10_000_000)])
def test_memory_stays_below_what_is_allowed_and_150_megabytes(tmp_path, kind, samples):
    source = zarr.create_array(tmp_path / "in.zarr", shape=(samples,), chunks=(500_000,), dtype="f4")
    noise = np.random.default_rng(0).normal(size=500_000).astype("f4")
    for start in range(0, samples, 500_000):
        source[start : start + 500_000] = noise
    command = [sys.executable, "-c", RUN, kind, tmp_path, "100MB"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300, check=True)
    assert int(done.stdout) < 100e6 + 150e6
