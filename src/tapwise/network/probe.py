"""Probe: the real model is asked, by a number that is none, which outputs an input reaches.

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
_STOPS = {
    "sign", "where", "zeros_like", "ones_like", "full_like", "nan_to_num", "masked_fill", "embedding",
    "one_hot", "isnan", "isfinite", "isinf", "heaviside", "clamp", "maximum", "minimum", "argmax", "argmin",
}  # fmt: skip


def _spread(graph: Graph, number: int, marked: list[Mask], total: int) -> Mask:
    """The outputs of a node that read any of the marked samples of its inputs."""
    node = graph.nodes[number]
    whole = marked[node.inputs[0]]
    for n in node.inputs[1:]:
        whole = whole | marked[n]
    if node.reference is None:
        return node.timeline.spread(whole)
    left = node.timeline.left if isinstance(node.timeline, Ends) else 0
    return Ends(left, (total - left - len(whole),)).spread(whole)


def probe(graph: Graph, runs: Runs, length: int, positions: int = 4) -> None:
    """Hold the graph against runs of the real model with NaN at some positions.

    Operations that stop a NaN, as a sign or a table of codes, let later ones be reached less than their
    timelines say, never more.

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
        totals = graph.totals(length)
        first = np.zeros(length, bool)
        first[position] = True
        marked, exact = [first], [True]
        for number, node in enumerate(graph.nodes[1:], 1):
            mask = _spread(graph, number, marked, totals[number])
            sure = all(exact[n] for n in node.inputs) and node.name not in _STOPS
            came = None if node.value is None else run.kept[node.value]
            if came is not None and came.is_floating_point():
                others = tuple(axis for axis in range(came.ndim) if axis != node.size.time)
                reached = (came.isnan().any(dim=others) if others else came.isnan()).cpu().numpy()
                wrong = reached != mask if sure else reached & ~mask
                if wrong.any():
                    _tell(node, position, int(np.flatnonzero(wrong)[0]), reached)
            elif came is not None:
                sure = False  # whole numbers and truth values know no NaN
            marked.append(mask)
            exact.append(sure)


def _tell(node: Node, position: int, place: int, reached: Mask) -> None:
    verb = "reaches" if reached[place] else "doesn't reach"
    raise TimelineError(
        f"a NaN at sample {position} {verb} its sample {place}, against its timeline",
        node.path, node.name,
        "the model holds the truth: this is a mistake in the timeline, registered or ours",
    )  # fmt: skip
