"""Page state: a network as the page draws it, a column of operations with the signals that reach its convolutions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tapwise.errors import ShapeError
from tapwise.explanation.model import ModelExplanation
from tapwise.network.graph import Graph
from tapwise.network.operations import Convolve
from tapwise.network.receptive_field import Extent
from tapwise.network.timeline import Ends, Windows

# Numbers that a page holds of all convolutions together, and of one at least.
_NUMBERS, _LEAST = 40_000, 800


def network_state(
    title: str,
    facts: Sequence[tuple[str, str]],
    graph: Graph,
    extents: Sequence[Extent],
    leaks: Mapping[int, int],
    table: ModelExplanation | None,
) -> dict[str, Any]:
    """What the page of a network starts with.

    ``nodes`` are the operations in the order in which they run: their path, name, inputs, shape on the example, samples
    for each of the signal's as ``[numerator, denominator]``, what an output reads of the signal, relative to its own
    moment, by how many samples more than before it looks ahead, and how it maps time.

    Arguments:
        leaks: by the number of an operation, how far its outputs look ahead, where that is further than before.
        table: the convolutions, with the signals that reached them.
    """
    totals = graph.totals(graph.example_length)
    nodes = []
    for number, (node, extent) in enumerate(zip(graph.nodes, extents, strict=True)):
        rate = graph.rates[number]
        nodes.append(
            {
                "path": node.path,
                "name": node.name,
                "inputs": list(node.inputs),
                "shape": list(node.size.of(graph.batch, totals[number])),
                "length": totals[number],
                "rate": [rate.numerator, rate.denominator],
                "reads": [extent.earliest, extent.latest],
                "leak": leaks.get(number, 0),
                "time": _time(node.timeline),
                "convolves": isinstance(node.work, Convolve),
            }
        )
    return {
        "title": title,
        "facts": list(facts),
        "length": graph.example_length,
        "nodes": nodes,
        "results": list(graph.results),
        "layers": {} if table is None else _layers(title, table),
    }


def _time(timeline: Any) -> dict[str, Any]:
    """How an operation maps time, in the numbers that intervals need."""
    if isinstance(timeline, Windows):
        g = timeline.geometry
        names = ("stride", "left", "effective_kernel_size", "transposed", "padding_mode")
        return {"kind": "windows", **{name: getattr(g, name) for name in names}}
    if isinstance(timeline, Ends):
        return {"kind": "ends", "left": timeline.left, "padding_mode": timeline.padding_mode}
    return {"kind": "all of the past" if timeline.endless else "aligned"}


def _layers(title: str, table: ModelExplanation) -> dict[str, Any]:
    """By path: the state of a convolution's own page, on the signal that reached it; or why there is none."""
    most = max(_LEAST, _NUMBERS // max(len(table), 1))
    found: dict[str, Any] = {}
    for layer in table:
        try:
            state = table[layer.path].state_within(most)
        except (TypeError, ValueError, ShapeError) as error:  # a layer that does more than its settings say
            found[layer.path] = {"why_not": str(error)}
            continue
        state["title"] = f"{layer.path or title}: {state['title']}"
        found[layer.path] = state
    return found
