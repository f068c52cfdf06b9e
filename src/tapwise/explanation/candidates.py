"""Candidates: each kernel timed on one convolution, beside what the plan predicted of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.utils.benchmark import Timer

from tapwise.engine.kernels import KERNELS
from tapwise.engine.plan import Plan, predict, time_text
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


# What the definition alone would take beyond this number of products is not waited for.
_MOST_PRODUCTS = 200_000


def candidates(
    problem: Problem, plan: Plan, signal: Tensor, weight: Tensor, bias: Tensor | None, seconds: float = 0.05
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
        with torch.no_grad():
            kernel.run(problem.geometry, x, weight, bias)
            least = _least(partial(kernel.run, problem.geometry, x, weight, bias), seconds)
        predicted = predict(name, problem)
        found.append(Candidate(name, name == plan.kernel, predicted, least))
    return found


def _least(call: Callable[[], Tensor], seconds: float) -> float:
    """The least seconds of a call; of a GPU's work the end is waited for."""
    timer = Timer("call()", globals={"call": call}, num_threads=torch.get_num_threads())
    return min(timer.blocked_autorange(min_run_time=seconds).times)


def table(rows: list[Candidate]) -> str:
    """The candidates as text, the fastest first."""
    rows = sorted(rows, key=lambda row: math.inf if row.measured is None else row.measured)
    lines = [f"  {'kernel':<11}{'measured':>12}{'predicted':>12}"]
    for row in rows:
        mark = "* " if row.chosen else "  "
        if row.measured is None:
            lines.append(f"{mark}{row.kernel:<11}{row.note}")
            continue
        predicted = "-" if row.predicted is None else time_text(row.predicted)
        lines.append(f"{mark}{row.kernel:<11}{time_text(row.measured):>12}{predicted:>12}")
    slow = [r.measured / r.predicted for r in rows if r.measured and r.predicted]
    lines.append("* chosen by the plan")
    if slow and min(slow) > 5:
        lines.append("all took many times what was predicted: the machine is busy with something else")
    return "\n".join(lines)
