"""Whole networks on a CPU: as they are, accelerated, frozen, by torch.compile and by ONNX Runtime.

Each peer runs in a process of its own, in turns; the least of all turns counts. A live step is fed chunk by chunk:
its median and its 99th percentile, and the real-time factor: the step's time by the chunk's; beforehand
Python's objects are frozen (``gc.freeze``), so that no full collection falls into a step. A training step is
forward and backward, without an optimizer. *Tuned* is accelerated with an example: plans are measured. In bfloat16, torch
computes under autocast, and ours where ``dtype`` allows it.

    python benchmarks/bench_networks.py [--threads 2] [--rounds 5] [--live | --training | --bfloat16] [--name NAME]
                                        [--only NETWORK ...] [--peers PEER ...]

prints a table and writes results/NAME.json with the machine, the versions and the date.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from network_peers import IN_BFLOAT16, Call, peers_of

HERE = Path(__file__).parent
# Plans are those predicted, but for peers that measure; and those keep nothing.
ENVIRONMENT = {**os.environ, "TAPWISE_PLANS": ""}
# What terminals read as colours.
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# Seconds that a peer computes in its turn; longer for live steps, whose 99th percentile needs many.
TURN, LIVE_TURN = 0.4, 2.0


# The work of a process


def work(peer: str, network: str, threads: int, kind: str) -> None:
    """Answer every line of the input with the seconds of runs; first, with what came out."""
    import gc

    import torch

    torch.set_num_threads(threads)
    torch.empty(8_000_000).fill_(1.0)  # see peers.py: freed memory is kept
    sys.path.insert(0, str(HERE))
    import networks

    model, x = networks.make(network)
    with torch.no_grad():
        arguments = (networks.LIVE[network].samples,) if kind == "live" else ()
        call = peers_of(kind)[peer](model, x, *arguments)
        result = torch.as_tensor(call()).double().reshape(-1)
        places = torch.arange(1024) * (result.numel() - 1) // 1023
        sample = [] if kind not in ("offline", "bfloat16") or not result.numel() else result[places].tolist()
        print(json.dumps({"sample": sample}), flush=True)
        call()
        if kind == "live":  # as docs/howto.md says, of every peer
            gc.collect()
            gc.freeze()
        for _ in sys.stdin:
            print(json.dumps(_timed(call, LIVE_TURN if kind == "live" else TURN)), flush=True)


def _timed(call: Call, seconds: float) -> list[float]:
    times, until = [], time.perf_counter() + seconds
    while not times or time.perf_counter() < until:
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return times


def floor(network: str, threads: int) -> float:
    """Seconds that no direct computation can pass: its products, at the rate of a product of matrices."""
    import torch

    sys.path.insert(0, str(HERE))
    from torch.utils.flop_counter import FlopCounterMode

    import networks

    torch.set_num_threads(threads)
    model, x = networks.make(network)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(x)
    a, b, c = torch.ones(1024, 1024), torch.ones(1024, 1024), torch.empty(1024, 1024)
    times = []
    for _ in range(30):
        started = time.perf_counter()
        torch.mm(a, b, out=c)
        times.append(time.perf_counter() - started)
    return float(counter.get_total_flops() / (2 * 1024**3) * min(times))


def live_floor(network: str, threads: int) -> float:
    """Seconds of a step that reads all weights once, at the rate at which as much memory is read, and 2 us an operation."""
    import torch

    sys.path.insert(0, str(HERE))
    import networks
    import tapwise as tw

    torch.set_num_threads(threads)
    model, x = networks.make(network)
    numbers = sum(parameter.numel() for parameter in model.parameters())
    operations = len(tw.freeze(model, x).steps.steps)
    weights, times = torch.ones(numbers), []
    for _ in range(50):
        started = time.perf_counter()
        torch.dot(weights, weights)
        times.append(time.perf_counter() - started)
    return min(times) + 2e-6 * operations


def compare(network: str, peers: list[str], threads: int, rounds: int, kind: str, seconds: float) -> dict[str, Any]:
    """All peers on one network, in turns; ``seconds``: of a chunk."""
    workers: dict[str, Any] = {}
    row: dict[str, Any] = {"network": network, "failed": {}}
    reference: list[float] = []
    for peer in peers:
        arguments = [sys.executable, __file__, "--threads", str(threads), "--work", peer, network]
        arguments += [f"--{kind}"] if kind != "offline" else []
        worker = subprocess.Popen(
            arguments, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT
        )
        assert worker.stdout is not None
        line = worker.stdout.readline()
        if not line.startswith("{"):
            worker.kill()
            assert worker.stderr is not None
            said = _COLOURS.sub("", worker.stderr.read()).strip().splitlines() or ["it gave nothing"]
            row["failed"][peer] = next((line for line in reversed(said) if "Error" in line), said[-1]).strip()[:160]
            continue
        sample = json.loads(line)["sample"]
        reference = reference or sample
        difference = max((abs(a - b) for a, b in zip(reference, sample, strict=True)), default=0.0)
        scale = max(map(abs, reference), default=1.0)
        if peer in IN_BFLOAT16:
            row.setdefault("error", {})[peer] = difference / scale
            assert difference <= 0.1 * scale, f"{network}, {peer}: outputs differ by {difference}, of {scale}"
        else:
            assert difference <= 1e-3 * scale, f"{network}, {peer}: outputs differ by {difference}, of {scale}"
        workers[peer] = worker
    times: dict[str, list[float]] = {peer: [] for peer in workers}
    for _ in range(rounds):
        for peer, worker in workers.items():
            print(file=worker.stdin, flush=True)
            times[peer] += json.loads(worker.stdout.readline())
    for worker in workers.values():
        worker.stdin.close()
        worker.wait()
    row["ms"] = {peer: 1e3 * min(found) for peer, found in times.items()}
    row["median_ms"] = {peer: 1e3 * statistics.median(found) for peer, found in times.items()}
    if kind == "live":
        row["chunk_ms"] = 1e3 * seconds
        row["p99_ms"] = {peer: 1e3 * sorted(found)[int(0.99 * len(found))] for peer, found in times.items()}
    if kind != "training":
        arguments = [sys.executable, __file__, "--threads", str(threads), "--floor", network]
        arguments += ["--live"] if kind == "live" else []
        run = subprocess.run(arguments, capture_output=True, text=True, check=True, env=ENVIRONMENT)
        row["floor_ms"] = 1e3 * float(run.stdout)
    return row


def _print(row: dict[str, Any], peers: list[str], kind: str, seconds: float) -> None:
    name = f"{row['network']:<20}"
    if kind == "live":
        cells = [
            f"{row['median_ms'][p]:8.2f} {row['p99_ms'][p]:8.2f} {row['median_ms'][p] / 1e3 / seconds:6.2f}"
            if p in row["ms"]
            else f"{'-':>24}"
            for p in peers
        ]
        cells += [f"{row['floor_ms']:8.2f}"]
    else:
        base = row["ms"]["eager"]
        cells = [f"{base:10.2f}"] + [
            f"{base / row['ms'][p]:10.2f}" if p in row["ms"] else f"{'-':>10}" for p in peers[1:]
        ]
        cells += [f"{base / row['floor_ms']:10.2f}"] if "floor_ms" in row else []
    print(name + " ".join(cells), *(f"   {p}: {why}" for p, why in row["failed"].items()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--live", action="store_true", help="steps of streams, in chunks of about 10 ms")
    parser.add_argument("--training", action="store_true", help="forward and backward, in training")
    parser.add_argument("--bfloat16", action="store_true", help="in bfloat16, beside float32")
    parser.add_argument("--only", nargs="*", default=[], help="names of networks")
    parser.add_argument("--peers", nargs="*", default=[], help="some of the peers")
    parser.add_argument("--name", default="", help="of the result file; none is written without")
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--floor", help=argparse.SUPPRESS)
    options = parser.parse_args()
    kinds = {"live": options.live, "training": options.training, "bfloat16": options.bfloat16}
    kind = next((name for name, is_asked in kinds.items() if is_asked), "offline")
    if options.work:
        work(*options.work, options.threads, kind)
        return
    if options.floor:
        print((live_floor if options.live else floor)(options.floor, options.threads))
        return
    sys.path.insert(0, str(HERE))
    import networks

    peers = options.peers or list(peers_of(kind))
    if kind == "live":
        print(f"{'network':<20}" + " ".join(f"{p + ' p50, p99 ms, rtf':>24}" for p in peers) + "   floor")
    else:
        print(
            f"{'network':<20}{'eager ms':>10} "
            + " ".join(f"{p.replace(', ', ','):>10.16}" for p in [*peers[1:], "floor"])
        )
    rows = []
    names = {"live": list(networks.LIVE), "training": networks.TRAINED}.get(kind, list(networks.NETWORKS))
    for network in options.only or names:
        seconds = networks.LIVE[network].seconds if kind == "live" else math.nan
        row = compare(network, peers, options.threads, options.rounds, kind, seconds)
        rows.append(row)
        _print(row, peers, kind, seconds)
    if options.name:
        from bench_conv1d import machine

        result = {"machine": machine(), "threads": options.threads, "kind": kind, "rows": rows}
        if kind == "live":
            result["turn_seconds"] = LIVE_TURN
        path = HERE / "results" / f"{options.name}.json"
        path.write_text(json.dumps(result, indent=1) + "\n")
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
