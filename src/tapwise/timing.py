"""Timing: the short benchmark that a user runs on their own machine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tapwise.engine.plan import choose
from tapwise.engine.problem import Problem
from tapwise.layers import Conv1d


@dataclass(frozen=True)
class Case:
    """A layer that people use: its shape, and what it is known for."""

    name: str
    batch: int
    channels: tuple[int, int]
    length: int
    taps: int
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    padding: tuple[int, int] = (0, 0)


CASES = (
    Case("ten samples, three taps", 1, (1, 1), 10, 3),
    Case("31-tap filter, a million samples", 1, (1, 1), 1_000_000, 31, padding=(30, 0)),
    Case("1001-tap filter, a million samples", 1, (1, 1), 1_000_000, 1001, padding=(1000, 0)),
    Case("12-lead ECG filter bank", 8, (12, 12), 50_000, 51, groups=12, padding=(25, 25)),
    Case("Mamba, depthwise", 2, (1536, 1536), 2048, 4, groups=1536, padding=(3, 0)),
    Case("Conformer, depthwise", 8, (256, 256), 500, 31, groups=256, padding=(15, 15)),
    Case("wav2vec2, first layer", 1, (1, 512), 160_000, 10, stride=5),
    Case("EnCodec, first layer", 1, (1, 32), 48_000, 7, padding=(6, 0)),
    Case("EnCodec, residual unit", 1, (32, 16), 48_000, 3, padding=(2, 0)),
    Case("HiFi-GAN, residual block", 1, (128, 128), 8192, 11, dilation=5, padding=(25, 25)),
)


def table(seconds: float) -> Iterator[str]:
    """The lines of the table, one case after another. Each time is the least of many.

    Both run in this process, in turns: a rough picture. The repository's ``make bench`` gives each
    peer a process of its own.
    """
    threads = torch.get_num_threads()
    yield f"float32, forward, {threads} threads; ms, the least of many"
    yield f"{'':<36}{'torch':>9}{'Tapwise':>9}{'ratio':>8}{'spread':>8}  kernel"
    ratios = []
    for case in CASES:
        theirs, ours, spread, kernel = _timed(case, seconds)
        ratios.append(theirs / ours)
        yield (
            f"{case.name:<36}{theirs * 1e3:>9.3f}{ours * 1e3:>9.3f}{ratios[-1]:>8.2f}{spread:>8.2f}"
            f"  {kernel}"
        )
    yield f"geometric mean of the ratios: {math.exp(sum(map(math.log, ratios)) / len(ratios)):.2f}"
    yield "native is torch's own kernel; spread: its two times over one another, as much says nothing"


def _timed(case: Case, seconds: float) -> tuple[float, float, float, str]:
    """Seconds of torch's layer and of ours, torch's spread, and the kernel of ours."""
    left, right = case.padding
    first = case.padding if left != right else (0, 0)
    plain = nn.Conv1d(
        *case.channels, case.taps, case.stride, 0 if any(first) else left, case.dilation,
        case.groups, bias=False,
    )  # fmt: skip
    ours = Conv1d(
        *case.channels, case.taps, case.stride, case.padding, case.dilation, case.groups, bias=False
    )
    ours.load_state_dict(plain.state_dict())
    x = torch.randn(case.batch, case.channels[0], case.length)

    def theirs() -> Tensor:
        y: Tensor = plain(F.pad(x, first) if any(first) else x)
        return y

    with torch.no_grad():
        one, least, other = _least([theirs, lambda: ours(x), theirs], seconds)
        settings = (case.stride, case.padding, case.dilation, case.groups)
        kernel = choose(Problem.of(x, ours.weight, None, *settings)).kernel
    return min(one, other), least, max(one, other) / min(one, other), kernel


def _least(calls: list[Callable[[], Tensor]], seconds: float) -> list[float]:
    least = [math.inf] * len(calls)
    for call in calls:
        call()
    until, turns = time.perf_counter() + seconds * len(calls), 0
    while turns < 2 or time.perf_counter() < until:
        turns += 1
        for number, call in enumerate(calls):
            for _ in range(3):
                started = time.perf_counter()
                call()
                least[number] = min(least[number], time.perf_counter() - started)
    return least
