"""Candidates: each kernel timed on one convolution, beside what the plan predicted of it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from tapwise.engine.kernels import KERNELS
from tapwise.engine.plan import Plan
from tapwise.engine.problem import Problem


@dataclass(frozen=True, slots=True)
class Candidate:
    """One kernel for one convolution.

    Arguments:
        kernel: its name.
        chosen: whether the plan chose it.
        predicted: seconds, None where nothing was predicted.
        measured: seconds, None where it can't run, or would take too long.
        note: why it didn't run; empty where it did.
    """

    kernel: str
    chosen: bool
    predicted: float | None
    measured: float | None
    note: str = ""


# What the definition alone would take beyond so many products is not waited for.
_MOST_PRODUCTS = 200_000


def candidates(
    problem: Problem,
    plan: Plan,
    signal: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    seconds: float = 0.05,
) -> list[Candidate]:
    """Every kernel's time on one signal (C_in, L): the minimum of as many runs as fit ``seconds``."""
    found = []
    x = signal[None].detach()
    for name, kernel in KERNELS.items():
        obstacle = kernel.why_not(problem)
        if name == "reference" and problem.multiplications > _MOST_PRODUCTS:
            obstacle = obstacle or "is the definition in a loop, and would take long"
        if obstacle is not None:
            found.append(Candidate(name, name == plan.kernel, None, None, obstacle))
            continue
        least, until, runs = math.inf, time.perf_counter() + seconds, 0
        with torch.no_grad():
            kernel.run(problem.geometry, x, weight, bias)
            while runs < 10 or time.perf_counter() < until:
                _finish(x)
                started = time.perf_counter()
                kernel.run(problem.geometry, x, weight, bias)
                _finish(x)
                least = min(least, time.perf_counter() - started)
                runs += 1
        predicted = kernel.cost(problem, torch.get_num_threads())
        found.append(Candidate(name, name == plan.kernel, predicted, least))
    return found


def _finish(x: Tensor) -> None:
    """Wait for what a GPU still computes."""
    if x.is_cuda:
        torch.cuda.synchronize(x.device)


def table(rows: list[Candidate]) -> str:
    """The candidates as text, the fastest first."""
    rows = sorted(rows, key=lambda row: math.inf if row.measured is None else row.measured)
    lines = [f"  {'kernel':<11}{'measured':>12}{'predicted':>12}"]
    for row in rows:
        mark = "* " if row.chosen else "  "
        if row.measured is None:
            lines.append(f"{mark}{row.kernel:<11}{row.note}")
            continue
        predicted = "-" if row.predicted is None else _time(row.predicted)
        lines.append(f"{mark}{row.kernel:<11}{_time(row.measured):>12}{predicted:>12}")
    slow = [r.measured / r.predicted for r in rows if r.measured and r.predicted]
    lines.append("* chosen by the plan")
    if slow and min(slow) > 5:
        lines.append(
            "all took many times what was predicted: the machine is busy with something else"
        )
    return "\n".join(lines)


def _time(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "-"
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"
