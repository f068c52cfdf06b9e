"""The convolution on the CPU, forward and with backward: ours beside its peers.

Each peer runs in a process of its own, since thread pools that spin slow their neighbours; they take
turns, and the minimum of all turns counts. Torch runs twice: how far it is from itself is the spread
that a ratio must be read with.

    python benchmarks/bench_conv1d.py [--threads 2] [--rounds 3] [--seconds 0.1] [--only NAME ...]
                                      [--random 200] [--tuned] [--dtype bfloat16] [--name NAME]

prints a table and writes results/NAME.json with the machine, the versions and the date.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import random
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

from peers import PEERS, TRAINS, overheads

HERE = Path(__file__).parent
OTHERS = [name for name in PEERS if name not in TRAINS and "tapwise" not in name]


def shapes() -> list[dict[str, Any]]:
    """The rows of shapes.csv, numbers as numbers."""
    with (HERE / "shapes.csv").open() as file:
        rows = list(csv.DictReader(file))
    texts = ("name", "model", "family")
    return [{k: v if k in texts else int(v) for k, v in row.items()} for row in rows]


def random_shapes(count: int, seed: int) -> list[dict[str, Any]]:
    """Shapes drawn anew: channels, taps and lengths over the ranges that networks use."""
    rnd = random.Random(seed)

    def between(low: float, high: float) -> int:
        return round(math.exp(rnd.uniform(math.log(low), math.log(high))))

    rows = []
    for number in range(count):
        family = rnd.choice(["few-channel", "depthwise", "long-kernel", "grouped", "dense-small", "dense"])
        taps, groups = between(1, 64), 1
        if family == "few-channel":
            fan_in, fan_out = rnd.choice([(1, 1), (1, 16), (1, 256), (2, 2), (2, 64), (4, 4), (4, 256)])
        elif family in ("depthwise", "long-kernel"):
            fan_in = fan_out = groups = between(2, 1024) if family == "depthwise" else between(1, 64)
            taps = taps if family == "depthwise" else between(500, 8000)
        elif family == "grouped":
            groups = rnd.choice([2, 4, 8, 16])
            fan_in, fan_out = groups * between(2, 48), groups * between(2, 48)
        elif family == "dense-small":
            fan_in, fan_out = between(5, 48), between(5, 48)
        else:
            fan_in, fan_out, taps = between(64, 512), between(64, 512), between(1, 16)
        stride = rnd.choice([1, 1, 1, 1, 2, 4]) if family != "long-kernel" else 1
        dilation = rnd.choice([1, 1, 1, 2, 8]) if stride == 1 and taps < 100 else 1
        batch = rnd.choice([1, 1, 2, 8])
        products = math.exp(rnd.uniform(math.log(3e5), math.log(5e8)))
        length = int(products * stride / (batch * fan_out * (fan_in // groups) * taps))
        reach = dilation * (taps - 1) + 1
        left, right = rnd.choice([(0, 0), (reach // 2, reach // 2), (reach - 1, 0)])
        rows.append(
            {
                "name": f"random{number}",
                "family": family,
                "B": batch,
                "Cin": fan_in,
                "Cout": fan_out,
                "L": min(max(length, reach, 16), 2_000_000 // max(1, batch * fan_out // 16)) + reach,
                "K": taps,
                "stride": stride,
                "dilation": dilation,
                "groups": groups,
                "left": left,
                "right": right,
            }
        )
    return rows


class Worker:
    """A peer in a process of its own."""

    def __init__(self, peer: str, threads: int) -> None:
        command = [sys.executable, str(HERE / "peers.py"), peer, str(threads)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def ask(self, row: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(row), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"error": "the process ended"}  # type: ignore[no-any-return]


def compare(row: dict[str, Any], workers: dict[str, Worker], rounds: int) -> dict[str, Any]:
    """The minimum of each peer over the rounds, and what follows from it.

    A row that looks slower than torch takes as many rounds more, twice at most: of three times of the same
    call, any may be the slowest.
    """
    best: dict[str, dict[str, Any]] = {}
    for turn in range(3 * rounds):
        if turn >= rounds and not (turn % rounds or _looks_slower(best)):
            break
        for peer, worker in workers.items():
            late = turn > 0 and peer in (*OTHERS, "floor")
            if turn >= rounds and peer not in TRAINS:
                continue
            if late and best[peer].get("forward", 9.0) > 0.3:
                continue  # so long a run is its own minimum of many
            found = worker.ask(row)
            known = best.setdefault(peer, found)
            for name, value in found.items():
                if isinstance(value, float) and name != "predicted":
                    known[name] = min(value, known.get(name, math.inf))
        if best["torch"].get("both", best["torch"]["forward"]) > 0.8:
            break
    return _row(row, best)


def _looks_slower(best: dict[str, dict[str, Any]]) -> bool:
    ours, theirs, again = best["tapwise"], best["torch"], best["torch again"]
    return any(
        ours[name] > theirs[name] * _spread(theirs[name], again[name])
        for name in ("forward", "both")
        if all(name in found for found in (ours, theirs, again))
    )


def _row(row: dict[str, Any], best: dict[str, dict[str, Any]]) -> dict[str, Any]:
    ours, theirs, again = best["tapwise"], best["torch"], best["torch again"]
    error = 3e-2 if row.get("dtype") == "bfloat16" else 1e-3
    wrong = [
        peer
        for peer, found in best.items()
        if "sample" in found and not _alike(found["sample"], theirs["sample"], error)
    ]
    assert "tapwise" not in wrong, f"{row['name']}: our outputs are not torch's"
    others = {p: best[p]["forward"] for p in OTHERS if "forward" in best.get(p, ()) and p not in wrong}
    result: dict[str, Any] = {
        "name": row["name"],
        "family": row["family"],
        "kernel": ours["kernel"],
        "training": ours["training"],
        "torch_ms": theirs["forward"] * 1e3,
        "tapwise_ms": ours["forward"] * 1e3,
        "ratio": theirs["forward"] / ours["forward"],
        "spread": _spread(theirs["forward"], again["forward"]),
        "predicted_ms": ours["predicted"] * 1e3,
    }
    if all("both" in found for found in (ours, theirs, again)):  # left out by a process where torch's takes long
        result |= {
            "torch_both_ms": theirs["both"] * 1e3,
            "tapwise_both_ms": ours["both"] * 1e3,
            "ratio_both": theirs["both"] / ours["both"],
            "spread_both": _spread(theirs["both"], again["both"]),
        }
    if "floor" in best:
        least = max(best["floor"]["bytes"], best["floor"]["products"])
        result |= {"floor_ms": least * 1e3, "share_of_floor": least / ours["forward"]}
    if others:
        peer = min(others, key=others.__getitem__)
        result |= {"peer": peer, "peer_ms": others[peer] * 1e3, "ratio_peer": others[peer] / ours["forward"]}
    if "tapwise float32" in best:
        result["tapwise_float32_ms"] = best["tapwise float32"]["forward"] * 1e3
    if row.get("L"):
        result["shape"] = {
            k: row[k] for k in ("B", "Cin", "Cout", "L", "K", "stride", "dilation", "groups", "left", "right")
        }
    return result


def _alike(one: list[float], other: list[float], error: float) -> bool:
    scale = max(map(abs, other)) + 1e-9
    return len(one) == len(other) and max(abs(a - b) for a, b in zip(one, other, strict=True)) < error * scale


def _spread(one: float, other: float) -> float:
    return max(one, other) / min(one, other)


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    from tapwise.cli.doctor import report

    lines = [line for line in report().splitlines() if line[:1].strip() and ":" not in line[:13]]
    facts = {line[:12].strip(): line[13:].strip() for line in lines}
    wanted = ("python", "tapwise", "torch", "numpy", "numba", "processor", "vector units")
    return {"date": date.today().isoformat(), **{name: facts[name] for name in wanted}}


def line(row: dict[str, Any]) -> str:
    """One row of the table."""

    def number(name: str, form: str) -> str:
        return format(row[name], form) if name in row else format("-", ">" + form.split(".")[0])

    return (
        f"{row['name']:<13}{row['family']:<12} {row['kernel']:<7}{row['torch_ms']:>9.3f}"
        f"{row['tapwise_ms']:>9.3f}{row['ratio']:>8.2f}{row['spread']:>7.2f}{number('ratio_both', '9.2f')}"
        f"{number('spread_both', '7.2f')}  {row.get('peer', '-'):<16}{number('ratio_peer', '7.2f')}"
        f"{number('share_of_floor', '7.2f')}"
    )


HEAD = (
    f"{'row':<13}{'family':<12} {'kernel':<7}{'torch ms':>9}{'ours ms':>9}{'ratio':>8}{'spread':>7}"
    f"{'fwd+bwd':>9}{'spread':>7}  {'best peer':<16}{'ratio':>7}{'floor':>7}"
)


def mean(rows: list[dict[str, Any]], name: str) -> float:
    """The geometric mean of a ratio."""
    found = [row[name] for row in rows if name in row]
    return math.exp(sum(map(math.log, found)) / len(found)) if found else math.nan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.1, help="for each peer in each round")
    parser.add_argument("--only", nargs="*", default=[], help="names of rows")
    parser.add_argument("--random", type=int, default=0, help="so many shapes drawn anew instead")
    parser.add_argument("--seed", type=int, help="of the random shapes; another each time without")
    parser.add_argument("--name", default="", help="of the result file; none is written without")
    parser.add_argument("--no-backward", action="store_true")
    parser.add_argument("--no-peers", action="store_true", help="torch alone")
    parser.add_argument("--tuned", action="store_true", help="time our kernels on each shape first, as tw.tune does")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"], help="other peers are left out")
    options = parser.parse_args()
    names = list(TRAINS) if options.no_peers or options.random or options.dtype != "float32" else [*PEERS, "floor"]
    calls = overheads()
    print("ten samples, us: " + ", ".join(f"{name} {us:.2f}" for name, us in calls.items()))
    workers = {peer: Worker(peer, options.threads) for peer in names}
    print(HEAD)
    rows = []
    seed = random.randrange(1 << 16) if options.seed is None else options.seed
    drawn = random_shapes(options.random, seed) if options.random else shapes()
    for shape in drawn:
        if options.only and shape["name"] not in options.only:
            continue
        posed = {**shape, "seconds": options.seconds, "backward": not options.no_backward}
        posed |= {"tuned": options.tuned, "dtype": options.dtype}
        rows.append(compare(posed, workers, options.rounds))
        print(line(rows[-1]), flush=True)
    for family in (*dict.fromkeys(row["family"] for row in rows), "all"):
        some = [row for row in rows if family in (row["family"], "all")]
        print(
            f"{family:<12} geometric means: forward {mean(some, 'ratio'):.2f}, "
            f"forward and backward {mean(some, 'ratio_both'):.2f}"
        )
    if options.name:
        result = {
            "machine": machine(),
            "threads": options.threads,
            "dtype": options.dtype,
            **({"tuned": True} if options.tuned else {}),
            **({"seed": seed} if options.random else {}),
            "calls_us": calls,
            "rows": rows,
        }
        path = HERE / "results" / f"{options.name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n")
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
