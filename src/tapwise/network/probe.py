"""Probe: a NaN shows which outputs of the real model an input reaches.

NaN put at one moment of the signal goes through every operation that reads it. Where it arrives, after
each operation, must be what the timelines say; the first that differs is named.
"""

from __future__ import annotations

import random

import numpy as np
from torch import Tensor

from tapwise.errors import TimelineError
from tapwise.network.graph import Graph, Node
from tapwise.network.reading import check_lengths
from tapwise.network.record import Recording
from tapwise.network.runs import Runs
from tapwise.network.timeline import Ends, Mask

# What gives a number where a NaN goes in.
_STOPS = frozenset(
    """
    argmax argmin bucketize clamp embedding eq float_power fmax fmin full_like ge gt heaviside hypot isfinite
    isinf isnan kthvalue le logical_and logical_not logical_or logical_xor lt masked_fill maximum minimum mode
    nan_to_num nanmean nanmedian nanquantile nansum ne one_hot pow ones_like sgn sign where xlogy zeros_like
    """.split()
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
        signals = runs.signals(length)
        undisturbed = [signal.clone() for signal in signals]
        clean: Recording | None = None  # the model's run without our NaN, made where it has some of its own
        marked: list[Mask] = []
        for source, signal in zip(runs.sources, signals, strict=True):
            at = source.length(position)
            mask = np.zeros(signal.shape[source.time], bool)
            if signal.is_floating_point() and at < len(mask):
                signal.select(source.time, at).fill_(float("nan"))
                mask[at] = True
            marked.append(mask)
        try:
            run = runs.run(signals, keep=True)
        except TimelineError:
            raise
        except Exception:  # a NaN is no number to look up a table by, or to convert: nothing to compare
            continue
        check_lengths(graph, run, length)
        totals = graph.totals(length)
        exact = [True] * len(marked)
        for number, node in enumerate(graph.nodes[len(marked) :], len(marked)):
            mask = _spread(graph, number, marked, totals[number])
            sure = all(exact[n] for n in node.inputs) and node.name not in _STOPS and not node.is_bound
            y = None if node.value is None else run.values[node.value]
            if y is not None and y.is_floating_point():
                assert node.value is not None
                reached = _moments_of(node, y.isnan(), graph.batch)
                wrong = reached != mask if sure else reached & ~mask
                if wrong.any() or clean is not None:
                    clean = runs.run(undisturbed, keep=True) if clean is None else clean
                    had_nan = clean.values[node.value].isnan()
                    reached = _moments_of(node, y.isnan() & ~had_nan, graph.batch)
                    unsure = _moments_of(node, had_nan, graph.batch)
                    wrong = reached & ~mask | (~reached & mask & ~unsure if sure else False)
                    sure = sure and not unsure.any()
                if wrong.any():
                    _refuse(node, position, int(np.flatnonzero(wrong)[0]), reached)
            elif y is not None:
                sure = False  # integers and bools have no NaN
            marked.append(mask)
            exact.append(sure)


def _moments_of(node: Node, marked: Tensor, batch: int) -> Mask:
    """The moments at which any entry of a node's tensor is marked."""
    y = node.size.like_graph(marked, batch)
    others = tuple(axis for axis in range(y.ndim) if axis != node.size.time)
    mask: Mask = (y.any(dim=others) if others else y).cpu().numpy()
    return mask


def _refuse(node: Node, position: int, place: int, reached: Mask) -> None:
    verb = "reaches" if reached[place] else "doesn't reach"
    raise TimelineError(
        f"a NaN at sample {position} {verb} its sample {place}, against its timeline",
        node.path,
        node.name,
        "the model is right: this is a mistake in the timeline, registered or Tapwise's",
    )
