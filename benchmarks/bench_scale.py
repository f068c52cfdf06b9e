"""Recordings on disk: a filter over a Zarr store, beside copying the store and beside Dask's map_overlap.

Each subject runs in a process of its own, in turns; the least of the rounds counts. All read the same store and
write one like it, chunk by chunk, on as many threads. Memory is the most that a process held, above what it held
once everything was imported.

    python benchmarks/bench_scale.py [--samples 64e6 ...] [--threads 2] [--rounds 3] [--name NAME] [--folder FOLDER]

prints a table and writes results/NAME.json with the machine, the versions and the date.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TAPS, DILATION, CHUNK = 129, 16, 1 << 20
# Longer recordings are run once.
_LONG = 100_000_000
SUBJECTS = ("copy", "apply", "map_overlap")


def _layer() -> Any:
    import numpy as np

    import tapwise as tw

    layer = tw.CausalConv1d(1, 1, TAPS, dilation=DILATION, bias=False)
    layer.weight.data.copy_(layer.weight.new_tensor(np.hanning(TAPS) / 64))
    return layer.requires_grad_(False)


def _copy(source: Path, target: Path, threads: int) -> None:
    import zarr

    a = zarr.open_array(source, mode="r")
    b = zarr.create_array(target, shape=a.shape, chunks=a.chunks, dtype=a.dtype)

    def one(start: int) -> None:
        b[start : start + CHUNK] = a[start : start + CHUNK]

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, range(0, a.shape[0], CHUNK)))


def _apply(source: Path, target: Path, threads: int) -> None:
    import tapwise as tw

    tw.scale.apply(_layer(), source, target, workers=threads)


def _map_overlap(source: Path, target: Path, threads: int) -> None:
    import dask
    import dask.array as da
    import torch

    torch.set_num_threads(1)
    layer, depth = _layer(), DILATION * (TAPS - 1)
    x = da.from_zarr(str(source))
    with dask.config.set(scheduler="threads", num_workers=threads):
        y = da.map_overlap(
            lambda part: layer(torch.from_numpy(part)[None])[0].numpy(),
            x,
            depth={0: (depth, 0)},
            boundary="none",
            dtype=x.dtype,
            meta=x._meta,
        )
        y.to_zarr(str(target))


RUNS = {"copy": _copy, "apply": _apply, "map_overlap": _map_overlap}


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class _Peak:
    """The most memory that this process holds, looked at every 2 ms."""

    def __enter__(self) -> _Peak:
        self.before = self.most = _resident()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._ended.wait(0.002):
            self.most = max(self.most, _resident())

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()


def subject(name: str, source: Path, folder: Path, threads: int) -> dict[str, Any]:
    """One subject in this process: seconds, and memory above the imports."""
    import dask.array  # noqa: F401
    import torch
    import zarr

    torch.set_num_threads(threads)
    # Everything is imported and compiled before the clock starts.
    small = folder / "small.zarr"
    zarr.create_array(small, shape=(3 * CHUNK,), chunks=(CHUNK,), dtype="f4", overwrite=True)[:] = 1.0
    for run in RUNS.values() if name != "copy" else (_copy,):
        run(small, folder / "small-out.zarr", threads)
        shutil.rmtree(folder / "small-out.zarr")
    target = folder / f"{name}.zarr"
    with _Peak() as peak:
        started = time.perf_counter()
        RUNS[name](source, target, threads)
        seconds = time.perf_counter() - started
    digest = float(abs(zarr.open_array(target, mode="r")[-CHUNK:]).sum())
    shutil.rmtree(target)
    return {"seconds": seconds, "bytes": peak.most - peak.before, "sum": digest}


def make(path: Path, samples: int) -> None:
    """Noise as a 16-bit converter gives it, in float32: it compresses as recordings do."""
    import numpy as np
    import zarr

    array = zarr.create_array(path, shape=(samples,), chunks=(CHUNK,), dtype="f4")
    noise = np.random.default_rng(0)
    for start in range(0, samples, CHUNK):
        count = min(CHUNK, samples - start)
        array[start : start + count] = np.rint(1000 * noise.standard_normal(count, dtype=np.float32)) / 32768


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=float, nargs="+", default=[1e6, 4e6, 16e6, 64e6, 256e6, 1e9])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--subjects", nargs="+", default=list(SUBJECTS), choices=SUBJECTS)
    parser.add_argument("--name")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--subject", nargs=3, metavar=("NAME", "SOURCE", "FOLDER"))
    options = parser.parse_args()
    if options.subject:
        name, source, folder = options.subject
        print(json.dumps(subject(name, Path(source), Path(folder), options.threads)))
        return
    rows = []
    for samples in map(int, options.samples):
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            folder = Path(name)
            make(folder / "source.zarr", samples)
            found: dict[str, list[dict[str, Any]]] = {name: [] for name in options.subjects}
            for _ in range(options.rounds if samples <= _LONG else 1):
                for kind in options.subjects:
                    command = [sys.executable, __file__, "--threads", str(options.threads)]
                    command += ["--subject", kind, str(folder / "source.zarr"), str(folder)]
                    done = subprocess.run(command, check=True, capture_output=True, text=True)
                    found[kind].append(json.loads(done.stdout.splitlines()[-1]))
            row = {"samples": samples} | {
                kind: {key: min(run[key] for run in runs) for key in ("seconds", "bytes")}
                for kind, runs in found.items()
            }
            rows.append(row)
            print(
                f"{samples:>13,}  "
                + "  ".join(
                    f"{k} {row[k]['seconds']:7.2f} s {row[k]['bytes'] / 1e6:6.0f} MB" for k in options.subjects
                ),
                flush=True,
            )
    if options.name:
        from bench_conv1d import machine

        result = {"machine": machine(), "threads": options.threads, "taps": TAPS, "dilation": DILATION, "rows": rows}
        (HERE / "results" / f"{options.name}.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
