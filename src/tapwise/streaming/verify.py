"""Verify: a model's stream held against the model itself, operation by operation."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor, nn

from tapwise.errors import StreamMismatchError
from tapwise.network.graph import Graph
from tapwise.network.reading import read
from tapwise.network.recording import Recording
from tapwise.streaming.stream import Stream


def verify_stream(
    model: nn.Module, example: Any, *, time: int | None = None, tries: int = 3,
    tolerance: float | None = None,
) -> float:  # fmt: skip
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
    graph, runs = read(model, example, time)
    length = int(runs.example.shape[runs.time])
    dice = random.Random(0)
    worst = 0.0
    for attempt in range(tries):
        signal = runs.signal(length)
        offline = runs.run(signal, keep=True)
        live = Stream(graph, runs.example, (model, example, time))
        parts: list[list[Tensor]] = [[] for _ in graph.nodes]
        live._engine.watch = lambda number, chunk, parts=parts: parts[number].append(chunk.clone())
        at = 0
        while at < length:
            many = min(dice.choice([0, 1, 2, 3, dice.randrange(1, length + 1)]), length - at)
            many = many if attempt else min(max(1, length // 7), length - at)
            live.step(signal.narrow(runs.time, at, many))
            at += many
        live.flush()
        worst = max(worst, _compare(graph, offline, parts, tolerance))
    return worst


_TOLERANCES = {torch.float64: 1e-11, torch.float32: 1e-4, torch.complex128: 1e-11}


def _compare(
    graph: Graph, offline: Recording, parts: list[list[Tensor]], tolerance: float | None
) -> float:
    worst = 0.0
    for node, chunks in zip(graph.nodes, parts, strict=True):
        if node.value is None or not node.inputs:
            continue
        axis = node.size.time
        wanted, came = offline.kept[node.value], torch.cat(chunks, axis)
        if came.shape != wanted.shape:
            raise StreamMismatchError(
                f"{node.where}: the stream gave {came.shape[axis]} samples, the model {wanted.shape[axis]}"
            )
        if not wanted.numel():
            continue
        apart = (
            (came.to(wanted.dtype) - wanted).abs() if wanted.dtype != torch.bool else came ^ wanted
        )
        apart = torch.where(came == wanted, 0, apart.double())  # infinities are alike too
        allowed = _TOLERANCES.get(wanted.dtype, 2e-2) if tolerance is None else tolerance
        finite = wanted[wanted.isfinite()]
        scale = 1 + float(finite.abs().max()) if finite.numel() else 1.0
        most = float(apart.nan_to_num(float("inf")).max())
        if most > allowed * scale:
            place = int(
                apart.nan_to_num(float("inf")).transpose(axis, -1).flatten(0, -2).amax(0).argmax()
            )
            raise StreamMismatchError(
                f"{node.where}: the stream differs from the model by {most:.3g} at its sample {place}; "
                f"{allowed * scale:.3g} is allowed"
            )
        worst = max(worst, most)
    return worst
