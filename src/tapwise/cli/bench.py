"""tapwise bench: a short benchmark for the reader's own machine."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tapwise.cli.terminal import say

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Layer:
    """A layer that people use: its shape, and its name in the table."""

    name: str
    batch: int
    channels: tuple[int, int]
    length: int
    taps: int
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    padding: tuple[int, int] = (0, 0)


LAYERS = (
    Layer("ten samples, three taps", 1, (1, 1), 10, 3),
    Layer("31-tap filter, a million samples", 1, (1, 1), 1_000_000, 31, padding=(30, 0)),
    Layer("1001-tap filter, a million samples", 1, (1, 1), 1_000_000, 1001, padding=(1000, 0)),
    Layer("12-lead ECG filter bank", 8, (12, 12), 50_000, 51, groups=12, padding=(25, 25)),
    Layer("Mamba, depthwise", 2, (1536, 1536), 2048, 4, groups=1536, padding=(3, 0)),
    Layer("Conformer, depthwise", 8, (256, 256), 500, 31, groups=256, padding=(15, 15)),
    Layer("wav2vec2, first layer", 1, (1, 512), 160_000, 10, stride=5),
    Layer("EnCodec, first layer", 1, (1, 32), 48_000, 7, padding=(6, 0)),
    Layer("EnCodec, residual unit", 1, (32, 16), 48_000, 3, padding=(2, 0)),
    Layer("HiFi-GAN, residual block", 1, (128, 128), 8192, 11, dilation=5, padding=(25, 25)),
)


def table(seconds: float) -> Iterator[str]:
    """The lines of the table, one layer after another. Each time is the least of many.

    Both run in this process, in turns: a rough picture. The repository's ``make bench`` gives each
    peer a process of its own.
    """
    import torch

    threads = torch.get_num_threads()
    yield f"float32, forward, {threads} threads; ms, the least of many"
    yield f"{'':<36}{'torch':>9}{'Tapwise':>9}{'ratio':>8}{'spread':>8}  kernel"
    ratios = []
    for layer in LAYERS:
        theirs, ours, spread, kernel = _timed(layer, seconds)
        ratios.append(theirs / ours)
        yield (f"{layer.name:<36}{theirs * 1e3:>9.3f}{ours * 1e3:>9.3f}{ratios[-1]:>8.2f}{spread:>8.2f}  {kernel}")
    yield f"geometric mean of the ratios: {math.exp(sum(map(math.log, ratios)) / len(ratios)):.2f}"
    yield "native is torch's own kernel; spread: its two times over one another, as much says nothing"


def _timed(layer: Layer, seconds: float) -> tuple[float, float, float, str]:
    """Seconds of torch's layer and of ours, torch's spread, and the kernel of ours."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    from tapwise.engine.plan import choose_kernel
    from tapwise.engine.problem import Problem
    from tapwise.layers import Conv1d

    left, right = layer.padding
    pads = layer.padding if left != right else (0, 0)
    first = (*layer.channels, layer.taps, layer.stride)
    rest = (layer.dilation, layer.groups, False)
    theirs_layer = nn.Conv1d(*first, 0 if any(pads) else left, *rest)
    ours = Conv1d(*first, layer.padding, *rest)
    ours.load_state_dict(theirs_layer.state_dict())
    x = torch.randn(layer.batch, layer.channels[0], layer.length)

    def theirs() -> Tensor:
        y: Tensor = theirs_layer(F.pad(x, pads) if any(pads) else x)
        return y

    with torch.no_grad():
        one, seconds_ours, other = _least([theirs, lambda: ours(x), theirs], seconds)
        problem = Problem.of(x, ours.weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)
        kernel = choose_kernel(problem)
    return min(one, other), seconds_ours, max(one, other) / min(one, other), kernel


def _least(calls: list[Callable[[], Tensor]], seconds: float) -> list[float]:
    """The least seconds of each call, timed in turns for ``seconds`` each."""
    import torch
    from torch.utils.benchmark import Timer

    timers = [Timer("call()", globals={"call": call}, num_threads=torch.get_num_threads()) for call in calls]
    turns = [[t.blocked_autorange(min_run_time=seconds / 4) for t in timers] for _ in range(4)]
    return [min(min(m.times) for m in column) for column in zip(*turns, strict=True)]


def bench(*, seconds: float = 0.3) -> None:
    """Time ten well-known layers here, torch's beside Tapwise's.

    Parameters
    ----------
    seconds
        How long to time each.
    """
    for line in table(seconds):
        say(line)
