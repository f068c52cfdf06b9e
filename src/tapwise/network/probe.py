"""Probe: the real model is asked, by a number that is none, which outputs an input reaches.

NaN put at one moment of the signal goes through every operation that reads it. Where it arrives, after
each operation, must be what the timelines say; the first that differs is named.
"""

from __future__ import annotations

import random

import numpy as np

from tapwise.errors import TimelineError
from tapwise.network.graph import Graph
from tapwise.network.reading import check_lengths
from tapwise.network.runs import Runs
from tapwise.network.timeline import Ends, Mask


def marks(graph: Graph, length: int, position: int) -> list[Mask]:
    """By node, which of its samples an input reaches."""
    found: list[Mask] = []
    totals = graph.totals(length)
    for node, total in zip(graph.nodes, totals, strict=True):
        if not node.inputs:
            mask = np.zeros(length, bool)
            mask[position] = True
        else:
            whole = found[node.inputs[0]]
            for n in node.inputs[1:]:
                whole = whole | found[n]
            if node.reference is None:
                mask = node.timeline.spread(whole)
            else:
                left = node.timeline.left if isinstance(node.timeline, Ends) else 0
                added = total - left - len(whole)
                mask = Ends(left, (added,)).spread(whole)
        found.append(mask)
    return found


def probe(graph: Graph, runs: Runs, length: int, positions: int = 4) -> None:
    """Hold the graph against runs of the real model with NaN at some positions.

    Raises:
        TimelineError: the first operation that a NaN reached elsewhere than its timeline says.
    """
    if not runs.example.is_floating_point():
        return
    dice = random.Random(1)
    inner = [dice.randrange(length) for _ in range(positions)]
    for position in dict.fromkeys((0, length - 1, *inner)):
        signal = runs.signal(length)
        signal.select(runs.time, position).fill_(float("nan"))
        run = runs.run(signal, keep=True)
        check_lengths(graph, run, length)
        for node, mask in zip(graph.nodes, marks(graph, length, position), strict=True):
            if node.value is None or not node.inputs:
                continue
            came = run.kept[node.value]
            if not came.is_floating_point():
                continue  # whole numbers and truth values know no NaN
            others = tuple(axis for axis in range(came.ndim) if axis != node.size.time)
            reached = came.isnan().any(dim=others).numpy() if others else came.isnan().numpy()
            if not np.array_equal(reached, mask):
                place = int(np.flatnonzero(reached != mask)[0])
                verb = "reaches" if reached[place] else "doesn't reach"
                raise TimelineError(
                    f"a NaN at sample {position} {verb} its sample {place}, against its timeline",
                    node.path, node.name,
                    "the model holds the truth: this is a mistake in the timeline, registered or ours",
                )  # fmt: skip
