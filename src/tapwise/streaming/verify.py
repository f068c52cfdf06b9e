"""Verify: a model's stream held against the model itself, operation by operation."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor, nn

from tapwise.errors import StreamMismatchError
from tapwise.network.reading import read
from tapwise.streaming.stream import Stream


def verify_stream(
    model: nn.Module, example: Any, *, time: int | None = None, tries: int = 3,
    rtol: float | None = None, atol: float | None = None,
) -> float:  # fmt: skip
    """Stream a model in random chunks and compare with one run; returns the largest difference.

    Arguments:
        example: as ``tapwise.stream`` takes it; its length is the signal's.
        tries: how many random ways to cut the signal.
        rtol, atol: what may differ, as ``torch.testing.assert_close`` has it; tighter for float64.

    Raises:
        StreamMismatchError: naming the first operation that differs, by how much and where.
        TimelineError: a model that can't be streamed.

    Example:
        >>> import torch, tapwise as tw
        >>> model = torch.nn.Conv1d(1, 1, 5, padding=2).double()
        >>> tw.verify_stream(model, torch.zeros(1, 1, 50, dtype=torch.float64)) < 1e-12
        True
    """
    graph, runs = read(model, example, time)
    length = int(runs.example.shape[runs.time])
    dice = random.Random(0)
    worst = 0.0
    for attempt in range(tries):
        signal = runs.signal(length)
        offline = runs.run(signal, keep=True)
        live = Stream(graph, runs.example)
        parts: list[list[Tensor]] = [[] for _ in graph.nodes]
        live._engine.watch = lambda number, chunk, parts=parts: parts[number].append(chunk.clone())
        at = 0
        while at < length:
            many = min(dice.choice([0, 1, 2, 3, dice.randrange(1, length + 1)]), length - at)
            many = many if attempt else min(max(1, length // 7), length - at)
            live.step(signal.narrow(runs.time, at, many))
            at += many
        live.flush()
        worst = max(worst, _compare(graph, offline, parts, rtol, atol))
    return worst


def _compare(graph: Any, offline: Any, parts: list[list[Tensor]], rtol: Any, atol: Any) -> float:
    worst = 0.0
    for node, chunks in zip(graph.nodes, parts, strict=True):
        if node.value is None or not node.inputs:
            continue
        wanted = offline.kept[node.value]
        streamed = torch.cat(chunks, node.size.time)
        if streamed.shape[node.size.time] != wanted.shape[node.size.time]:
            raise StreamMismatchError(
                f"{node.where}: the stream gave {streamed.shape[node.size.time]} samples, the model "
                f"{wanted.shape[node.size.time]}"
            )
        try:
            torch.testing.assert_close(
                streamed, wanted, rtol=rtol, atol=atol, equal_nan=True, check_dtype=False
            )
        except AssertionError as error:
            raise StreamMismatchError(
                f"{node.where}: the stream differs from the model: {error}"
            ) from None
        if wanted.is_floating_point() and wanted.numel():
            worst = max(worst, float((streamed - wanted).abs().max()))
    return worst
