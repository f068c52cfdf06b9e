"""Probe: a NaN shows which outputs of the real model an input reaches.

NaN put at one moment of the signal goes through every operation that reads it. Where it arrives, after
each operation, must be what the timelines say; the first that differs is named.
"""

from __future__ import annotations

import random

import numpy as np

from tapwise.errors import TimelineError
from tapwise.network.graph import Graph, Node
from tapwise.network.reading import check_lengths
from tapwise.network.runs import Runs
from tapwise.network.timeline import Ends, Mask

# What gives a number where a NaN goes in.
_STOPS = frozenset(
    [
        "argmax",
        "argmin",
        "clamp",
        "embedding",
        "full_like",
        "isfinite",
        "isinf",
        "isnan",
        "masked_fill",
        "maximum",
        "minimum",
        "nan_to_num",
        "one_hot",
        "ones_like",
        "sign",
        "where",
        "zeros_like",
    ]
)


def _spread(graph: Graph, number: int, marked: list[Mask], total: int) -> Mask:
    """The outputs of a node that read any of the marked samples of its inputs."""
    node = graph.nodes[number]
    mask = marked[node.inputs[0]]
    for n in node.inputs[1:]:
        mask = mask | marked[n]
    if node.reference is None:
        return node.timeline.spread(mask)
    left = node.timeline.left if isinstance(node.timeline, Ends) else 0
    return Ends(left, (total - left - len(mask),)).spread(mask)


def probe(graph: Graph, runs: Runs, length: int, positions: int = 4) -> None:
    """Compare the graph with runs of the real model with NaN at some positions.

    Operations that stop a NaN, as a sign or a table of codes, let later ones be reached less than their
    timelines say, never more.

    Raises:
        TimelineError: the first operation that a NaN reached elsewhere than its timeline says.
    """
    if not runs.example.is_floating_point():
        return
    rng = random.Random(1)
    inner = [rng.randrange(length) for _ in range(positions)]
    for position in dict.fromkeys((0, length - 1, *inner)):
        signal = runs.signal(length)
        signal.select(runs.time, position).fill_(float("nan"))
        run = runs.run(signal, keep=True)
        check_lengths(graph, run, length)
        totals = graph.totals(length)
        first = np.zeros(length, bool)
        first[position] = True
        marked, exact = [first], [True]
        for number, node in enumerate(graph.nodes[1:], 1):
            mask = _spread(graph, number, marked, totals[number])
            sure = all(exact[n] for n in node.inputs) and node.name not in _STOPS
            y = None if node.value is None else run.values[node.value]
            if y is not None and y.is_floating_point():
                others = tuple(axis for axis in range(y.ndim) if axis != node.size.time)
                reached = (y.isnan().any(dim=others) if others else y.isnan()).cpu().numpy()
                wrong = reached != mask if sure else reached & ~mask
                if wrong.any():
                    _refuse(node, position, int(np.flatnonzero(wrong)[0]), reached)
            elif y is not None:
                sure = False  # integers and bools have no NaN
            marked.append(mask)
            exact.append(sure)


def _refuse(node: Node, position: int, place: int, reached: Mask) -> None:
    verb = "reaches" if reached[place] else "doesn't reach"
    raise TimelineError(
        f"a NaN at sample {position} {verb} its sample {place}, against its timeline",
        node.path,
        node.name,
        "the model is right: this is a mistake in the timeline, registered or Tapwise's",
    )
