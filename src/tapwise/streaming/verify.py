"""Verify: a model's stream compared with the model itself, operation by operation."""

from __future__ import annotations

import random
from typing import Any

from torch import nn

from tapwise.network.reading import read
from tapwise.streaming.agreement import by_node, compare
from tapwise.streaming.stream import Stream


def verify_stream(
    model: nn.Module, example: Any, *, time: int | None = None, tries: int = 3, tolerance: float | None = None
) -> float:
    """Stream a model in random chunks and compare with one run; returns the largest difference.

    Arguments:
        example: as ``tapwise.stream`` takes it; its length is the signal's.
        tries: how many random ways to cut the signal.
        tolerance: what may differ, as a share of the largest value that an operation gives; None: 1e-11
            for float64, 1e-4 for float32, 2e-2 for half precision.

    Raises:
        StreamMismatchError: naming the first operation that differs, by how much and where.
        TimelineError: a model that can't be streamed.

    Example:
        >>> import torch, tapwise as tw
        >>> model = torch.nn.Conv1d(1, 1, 5, padding=2).double()
        >>> tw.verify_stream(model, torch.zeros(1, 1, 50, dtype=torch.float64)) < 1e-12
        True
    """
    if tries < 1:
        raise ValueError(f"tries must be at least 1, got {tries}")
    graph, runs = read(model, example, time)
    length = runs.length
    rng = random.Random(0)
    worst = 0.0
    scheduler = Stream(graph, runs.examples, (model, example, time))._scheduler
    for attempt in range(tries):
        signals = runs.signals(length)
        sizes, left = [], length
        while left:
            size = rng.choice([0, 1, 2, 3, rng.randrange(1, length + 1)])
            sizes.append(min(size if attempt else max(1, length // 7), left))
            left -= sizes[-1]
        offline = runs.run(signals, keep=True)
        worst = max(worst, compare(graph, offline, by_node(scheduler, signals, sizes), tolerance))
    return worst
