"""The forward convolution on the CPU: ours beside torch's, on the shapes of shapes.csv.

Each peer runs in a process of its own, since thread pools that spin slow their neighbours; they
take turns, and the minimum of all turns counts. Torch runs twice: how far it is from itself is the
spread that a ratio must be read with.

    python benchmarks/bench_conv1d.py [--rounds 5] [--seconds 0.15] [--only NAME ...]

prints a table and writes results/conv1d-cpu.json, with the machine, the versions and the date.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULT = HERE / "results" / "conv1d-cpu.json"
PEERS = ("torch", "tapwise", "torch again")
THREADS = 2


def shapes() -> list[dict[str, Any]]:
    """The rows of shapes.csv, numbers as numbers."""
    with (HERE / "shapes.csv").open() as file:
        rows = list(csv.DictReader(file))
    texts = ("name", "model", "family")
    return [{k: v if k in texts else int(v) for k, v in row.items()} for row in rows]


def work(peer: str) -> None:
    """A worker: reads rows, answers with seconds, until the input ends."""
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(THREADS)
    for line in sys.stdin:
        row = json.loads(line)
        torch.manual_seed(0)
        pads, groups = (row["left"], row["right"]), row["groups"]
        x = torch.randn(row["B"], row["Cin"], row["L"])
        w = torch.randn(row["Cout"], row["Cin"] // groups, row["K"])
        b = torch.randn(row["Cout"])
        settings = (row["stride"], row["dilation"], groups)
        answer: dict[str, Any] = {}
        if peer == "tapwise":
            import tapwise as tw
            from tapwise.engine.kernels import KERNELS
            from tapwise.engine.plan import choose
            from tapwise.engine.problem import Problem

            stride, dilation, groups = settings
            padding = pads[0] if pads[0] == pads[1] else pads
            runs = [lambda: tw.conv1d(x, w, b, stride, padding, dilation, groups)]  # noqa: B023
            problem = Problem.of(x, w, b, stride, padding, dilation, groups)
            answer["kernel"] = choose(problem).kernel
            kernel = KERNELS[answer["kernel"]]
            answer["predicted"] = kernel.cost(problem, THREADS) * row["B"]
        else:
            runs = _torch_runs(F, x, w, b, pads, *settings)
        with torch.no_grad():
            answer["seconds"] = min(_best(run, row["seconds"]) for run in runs)
            answer["checksum"] = float(runs[0]().double().abs().sum())
        print(json.dumps(answer), flush=True)


def _torch_runs(F: Any, x: Any, w: Any, b: Any, pads: Any, stride: int, dilation: int, groups: int):  # type: ignore[no-untyped-def]  # noqa: N803
    """What a torch user would write; where the sides differ, pad first, or pad both and crop."""
    left, right = pads
    if left == right:
        return [lambda: F.conv1d(x, w, b, stride, left, dilation, groups)]
    runs = [lambda: F.conv1d(F.pad(x, pads), w, b, stride, 0, dilation, groups)]
    if right == 0 and stride == 1:
        n = x.shape[-1] + left - dilation * (w.shape[-1] - 1)
        runs.append(lambda: F.conv1d(x, w, b, 1, left, dilation, groups)[..., :n])
    return runs


def _best(run: Any, seconds: float) -> float:
    started = time.perf_counter()
    run()
    if time.perf_counter() - started > 5:
        return time.perf_counter() - started
    best, until = math.inf, time.perf_counter() + seconds
    while True:
        started = time.perf_counter()
        run()
        now = time.perf_counter()
        best = min(best, now - started)
        if now > until:
            return best


def compare(row: dict[str, Any], workers: dict[str, Any], rounds: int) -> dict[str, Any]:
    """The minimum of each peer over the rounds, and what follows from it."""
    best = dict.fromkeys(PEERS, math.inf)
    answers: dict[str, Any] = {}
    for _ in range(rounds):
        for peer, worker in workers.items():
            worker.stdin.write(json.dumps(row) + "\n")
            worker.stdin.flush()
            answers[peer] = json.loads(worker.stdout.readline())
            best[peer] = min(best[peer], answers[peer]["seconds"])
        if max(answer["seconds"] for answer in answers.values()) > 0.5:
            break  # so long a run is its own minimum of many
    assert math.isclose(answers["torch"]["checksum"], answers["tapwise"]["checksum"], rel_tol=1e-4)
    theirs, again = best["torch"], best["torch again"]
    return {
        "name": row["name"],
        "family": row["family"],
        "kernel": answers["tapwise"]["kernel"],
        "torch_ms": theirs * 1e3,
        "tapwise_ms": best["tapwise"] * 1e3,
        "ratio": theirs / best["tapwise"],
        "torch_spread": max(theirs, again) / min(theirs, again),
        "predicted_ms": answers["tapwise"]["predicted"] * 1e3,
    }


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    from tapwise.doctor import report

    lines = [line for line in report().splitlines() if line[:1].strip() and ":" not in line[:13]]
    facts = {line[:12].strip(): line[13:].strip() for line in lines}
    wanted = ("python", "tapwise", "torch", "numpy", "numba", "processor", "vector units")
    return {"date": date.today().isoformat(), **{name: facts[name] for name in wanted}}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--worker", choices=PEERS, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.15, help="for each peer in each round")
    parser.add_argument("--only", nargs="*", default=[], help="names of rows")
    options = parser.parse_args()
    if options.worker:
        work(options.worker)
        return
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = {
        peer: subprocess.Popen([sys.executable, __file__, "--worker", peer], **pipes)
        for peer in PEERS
    }
    print(f"{'row':<13}{'family':<13}{'kernel':<8}{'torch ms':>10}{'ours ms':>10}{'ratio':>8}"
          f"{'spread':>8}{'predicted':>11}")  # fmt: skip
    rows = []
    for shape in shapes():
        if options.only and shape["name"] not in options.only:
            continue
        row = compare({**shape, "seconds": options.seconds}, workers, options.rounds)
        rows.append(row)
        print(
            f"{row['name']:<13}{row['family']:<13}{row['kernel']:<8}{row['torch_ms']:>10.3f}"
            f"{row['tapwise_ms']:>10.3f}{row['ratio']:>8.2f}{row['torch_spread']:>8.2f}"
            f"{row['predicted_ms']:>11.3f}",
            flush=True,
        )
    for worker in workers.values():
        worker.stdin.close()
        worker.wait()
    for family in dict.fromkeys(row["family"] for row in rows):
        ratios = [row["ratio"] for row in rows if row["family"] == family]
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        print(f"{family:<13} geometric mean of the ratio {mean:.2f}")
    if not options.only:
        RESULT.parent.mkdir(exist_ok=True)
        result = {"machine": machine(), "threads": THREADS, "dtype": "float32", "rows": rows}
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
        print(f"wrote {RESULT}")


if __name__ == "__main__":
    main()
