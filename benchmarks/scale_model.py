"""The cost model of docs/scale.md: bytes, seconds and memory of recordings by parts and of sequences over ranks.

Machine rates are measured here first (read, write, compute, exchange), then the formulas are held against runs on this
machine and carried on to machines that nobody here has.

    python benchmarks/scale_model.py [--name scale-model]

prints the tables and writes results/NAME.json; benchmarks/scale_report.py puts them into docs/scale.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CHANNELS, TAPS, DILATION, SAMPLES = 16, 3, 512, 800_000


# Ranks: a program of its own, started by torchrun


def rank_program() -> None:
    """Seconds of a layer's forward and backward: alone on the shard, and over ranks; and of the exchange alone."""
    import torch
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh

    import tapwise as tw

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    ranks, rank = dist.get_world_size(), dist.get_rank()
    mesh = init_device_mesh("cpu", (ranks,))
    n = SAMPLES // ranks
    layers = [tw.CausalConv1d(CHANNELS, CHANNELS, TAPS, dilation=DILATION) for _ in range(4)]
    alone = torch.nn.Sequential(*layers)
    x = torch.randn(1, CHANNELS, n, requires_grad=True)
    halo = DILATION * (TAPS - 1)

    def local() -> None:
        alone(x).sum().backward()

    def best(run: Any, rounds: int = 7) -> float:
        run()
        times = []
        for _ in range(rounds):
            dist.barrier()
            started = time.perf_counter()
            run()
            dist.barrier()
            times.append(time.perf_counter() - started)
        return min(times)

    compute = best(local)
    copy = best(x.detach().clone)
    small, large = torch.zeros(ranks, 1), torch.zeros(ranks, 1 << 18)

    def exchange(t: Any) -> Any:
        return lambda: dist.all_to_all_single(torch.empty_like(t), t)

    def forward(wait: Any) -> Any:
        def run() -> None:
            y = x.detach()
            for layer in layers:
                y = layer(y)
                wait()

        return run

    # Between ranks that compute: where they share cores, each waits until the other has its turn.
    idle = best(exchange(small))
    with torch.no_grad():
        latency = max(idle, (best(forward(exchange(small))) - best(forward(lambda: None))) / len(layers))
    rate = max(large.numel() * 4 * (ranks - 1) / ranks, 1) / max(best(exchange(large)) - idle, 1e-9)
    together = tw.scale.parallelize(torch.nn.Sequential(*layers), mesh)
    before = together.sequence_ranks.sent_bytes
    together(x).sum().backward()
    sent = together.sequence_ranks.sent_bytes - before
    measured = best(lambda: together(x).sum().backward())
    if rank == ranks - 1:
        found = {
            "ranks": ranks,
            "compute": compute,
            "latency": latency,
            "rate": rate,
            "copy": copy,
            "measured": measured,
            "sent": sent,
        }
        found["halo_bytes"] = len(layers) * 2 * halo * CHANNELS * 4 if ranks > 1 else 0
        print("RESULT " + json.dumps(found), flush=True)
    dist.destroy_process_group()


def ranks_measured(ranks: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(ranks), "--rdzv_backend", "c10d"]
    command += ["--rdzv_endpoint", "127.0.0.1:0", __file__, "--as-rank"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    runs = []
    for _ in range(5):
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))
        runs.append(json.loads(line.removeprefix("RESULT ")))
    for run in runs:
        run["predicted"] = seconds_of_ranks(run["compute"], run["latency"], run["rate"], run["sent"], 4, run["copy"])
    runs.sort(key=lambda run: run["measured"] / run["predicted"])
    found: dict[str, Any] = {**runs[len(runs) // 2], "runs": len(runs)}
    return found


def seconds_of_ranks(compute: float, latency: float, rate: float, sent: float, layers: int, copy: float = 0.0) -> float:
    """A step of ``layers`` layers, forward and backward: what is computed, and what can't be hidden behind it.

    A layer asks for the lengths of the shards once, and exchanges twice; samples travel while the interior is computed.
    Where halos are exchanged, edges and interior are joined, and gradients added, in a pass each.
    """
    if not sent:
        return compute
    return layers * (3 * latency + 2 * copy) + max(compute, sent / rate)


# Workers


def workers_measured(folder: Path, workers: int, rates: dict[str, float]) -> dict[str, Any]:
    import shutil

    import bench_scale
    import torch

    import tapwise as tw

    torch.set_num_threads(2)
    times = []
    for _ in range(5):
        shutil.rmtree(folder / "out.zarr", ignore_errors=True)
        started = time.perf_counter()
        tw.scale.apply(
            bench_scale._layer(), folder / "in.zarr", folder / "out.zarr", workers=workers, max_memory="200MB"
        )
        times.append(time.perf_counter() - started)
    predicted = seconds_of_workers(32e6, workers, os.cpu_count() or 1, rates)
    return {"workers": workers, "measured": min(times), "predicted": predicted}


def seconds_of_workers(samples: float, workers: int, cores: int, rates: dict[str, float]) -> float:
    """A recording by parts: what its slower side takes, the workers one after another or all cores together.

    Zarr reads and writes chunks on threads of its own, so that one worker keeps more than one core busy.
    """
    elapsed = sum(rates[f"{step}_elapsed"] for step in ("read", "compute", "write"))
    busy = sum(rates[step] for step in ("read", "compute", "write"))
    return rates["fixed"] + samples * max(elapsed / workers, busy / cores)


def worker_rates(folder: Path) -> dict[str, float]:
    """Seconds a sample, of a processor and elapsed: read, computed, written; and what a run takes before its first part."""
    import bench_scale
    import torch
    import zarr

    import tapwise as tw

    bench_scale.make(folder / "in.zarr", 32_000_000)
    torch.set_num_threads(1)
    layer, chunk, a = bench_scale._layer(), 4 << 20, zarr.open_array(folder / "in.zarr", mode="r")

    rates: dict[str, float] = {}

    def best(name: str, run: Any) -> Any:
        made, busy, elapsed = run(), [], []
        for _ in range(5):
            started, began = time.process_time(), time.perf_counter()
            made = run()
            busy.append(time.process_time() - started)
            elapsed.append(time.perf_counter() - began)
        rates[name], rates[f"{name}_elapsed"] = min(busy) / chunk, min(elapsed) / chunk
        return made

    x = best("read", lambda: a[:chunk])
    y = best("compute", lambda: layer(torch.from_numpy(x)[None])[0].numpy())
    out = zarr.create_array(folder / "part.zarr", shape=(chunk,), chunks=(1 << 20,), dtype="f4")

    def write_all() -> None:
        out[:] = y

    best("write", write_all)
    small = folder / "small.zarr"
    bench_scale.make(small, 1 << 12)
    started = time.perf_counter()
    tw.scale.apply(layer, small, folder / "small-out.zarr")
    return {**rates, "fixed": time.perf_counter() - started}


# What nobody here has


def simulated(rates: dict[str, float]) -> dict[str, Any]:
    """A training step over 1 to 1,024 ranks, and recordings up to a petabyte, by the same formulas."""
    flops, latency, wire = 50e12, 20e-6, 25e9  # of a device: products a second; seconds; bytes a second of a link
    layers, channels, taps = 20, 256, 3
    rows = []
    for ranks in (1, 2, 4, 8, 16, 64, 256, 1024):
        n = 1 << 20  # samples a rank
        halo = sum((taps - 1) * 2 ** (layer % 10) for layer in range(layers)) * channels * 2  # of 2 bytes
        compute = 3 * layers * n * channels**2 * taps * 2 / flops
        sent = 2 * halo if ranks > 1 else 0
        seconds = seconds_of_ranks(compute, latency if ranks > 1 else 0.0, wire, sent, layers)
        rows.append(
            {"ranks": ranks, "samples": n * ranks, "sent": sent, "seconds": seconds, "share": compute / seconds}
        )
    recordings = []
    for size in (1e9, 1e12, 1e15):
        for cores in (16, 1024):
            samples = size / 4
            seconds = seconds_of_workers(samples, cores, cores, rates)
            recordings.append({"bytes": size, "cores": cores, "seconds": seconds, "bytes_a_second": 2 * size / seconds})
    return {"ranks": rows, "recordings": recordings, "device": {"flops": flops, "latency": latency, "wire": wire}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--as-rank", action="store_true")
    parser.add_argument("--name")
    options = parser.parse_args()
    if options.as_rank:
        rank_program()
        return
    ranks = [ranks_measured(n) for n in (1, 2, 4)]
    for row in ranks:
        print(
            f"{row['ranks']} ranks: {row['measured']:.4f} s, predicted {row['predicted']:.4f} s, {row['sent']:,} bytes"
        )
    with tempfile.TemporaryDirectory() as name:
        rates = worker_rates(Path(name))
        workers = [workers_measured(Path(name), n, rates) for n in (1, 2, 4)]
    for row in workers:
        print(f"{row['workers']} workers: {row['measured']:.3f} s, predicted {row['predicted']:.3f} s")
    result = {
        "cores": os.cpu_count(),
        "ranks": ranks,
        "rates": rates,
        "workers": workers,
        "simulated": simulated(rates),
    }
    if options.name:
        from bench_conv1d import machine

        path = HERE / "results" / f"{options.name}.json"
        path.write_text(json.dumps({"machine": machine(), **result}, indent=1) + "\n")
    for row in result["simulated"]["ranks"]:
        print(f"{row['ranks']:>5} ranks {row['samples']:>14,} samples {row['sent']:>12,} bytes {row['seconds']:.3f} s")


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    main()
