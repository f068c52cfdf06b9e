"""What varying lengths cost in memory and in time: torch's own convolution, and ways that stay bounded.

oneDNN, which torch's convolution runs on, prepares code for each length and keeps some of it. Each way runs 2,400
lengths of one layer, in a process of its own; the growth is of memory that the process holds at the end, freed
memory given back.

    python benchmarks/bench_lengths.py [--name lengths-cpu]

writes benchmarks/results/NAME.json and prints it.
"""

import argparse
import ctypes
import json
import os
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import torch

import tapwise as tw
from tapwise.engine.rates import processor_name

RESULTS = Path(__file__).with_name("results")
LENGTHS = range(200, 2600)
ROUNDS = 3
WAYS = {"torch": {}, "torch, 64 primitives": {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64"}, "plan": {}, "direct": {}}


def resident():
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 1e6


def measured(way):
    torch.set_num_threads(2)
    layer = tw.Conv1d(64, 64, 5)
    kernel = {"direct": "direct", "plan": None}.get(way, "native")
    with torch.no_grad(), tw.options(kernel=kernel):
        for length in range(100, 110):
            layer(torch.randn(1, 64, length))
        before, started = resident(), time.perf_counter()
        for length in LENGTHS:
            layer(torch.randn(1, 64, length))
        seconds = time.perf_counter() - started
        return {"grown_mb": round(resident() - before, 1), "seconds": round(seconds, 2)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", default="lengths-cpu")
    parser.add_argument("--way", choices=WAYS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(measured(options.way)))
        return
    rows = {}
    for _ in range(ROUNDS):  # in turns; the least of each
        for way, environment in WAYS.items():
            command = [sys.executable, __file__, "--way", way]
            done = subprocess.run(
                command, capture_output=True, text=True, check=True, env={**os.environ, **environment}
            )
            found = json.loads(done.stdout)
            rows[way] = {key: min(value, rows.get(way, found)[key]) for key, value in found.items()}
            print(f"{way:<22}{found['grown_mb']:>8} MB{found['seconds']:>8} s", flush=True)
    result = {
        "date": date.today().isoformat(),
        "processor": processor_name(),
        "torch": torch.__version__,
        "layer": "Conv1d(64, 64, 5), 2,400 lengths, 2 threads, without gradients",
        "ways": rows,
    }
    path = RESULTS / f"{options.name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
