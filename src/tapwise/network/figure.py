"""The picture of a report: what one output reads, operation by operation, on the model's own time."""

from __future__ import annotations

from typing import Any

from tapwise.explanation.canvas import Canvas
from tapwise.explanation.diagrams import MARGIN, WIDTH
from tapwise.network.graph import Graph
from tapwise.network.receptive_field import Extent
from tapwise.network.timeline import Windows

# The operations that are shown at most; of more, those that widen what is read most.
_ROWS = 24
_ROW = 26


def figure(graph: Graph, extents: list[Extent], title: str) -> Canvas:
    """Bars from the earliest to the latest input that each operation's outputs read."""
    rows, every = _rows(graph, extents)
    lows = [e.earliest for _, e in rows if e.earliest is not None]
    low, high = min([0, *lows]), max([1, *(e.latest for _, e in rows)])
    if any(e.earliest is None for _, e in rows):
        low = min(low, -max(high, 8)) * 2  # all of the past: a bar that leaves the picture
    canvas = Canvas(WIDTH, f"{title}: receptive field by operation")
    canvas.height = MARGIN
    canvas.heading(
        f"{title}: what an output of each layer reads",
        "in samples of the signal, from the output's own moment, 0; dashed: the future"
        + ("" if len(rows) == every else f"; {len(rows)} of {every} layers"),
    )
    label = 250
    left, right = MARGIN + label, WIDTH - MARGIN
    scale = (right - left) / (high - low + 1)
    top = canvas.height + 8

    def place(sample: float) -> Any:
        return left + (sample - low) * scale

    for n, (name, extent) in enumerate(rows):
        y = top + n * _ROW
        canvas.text(MARGIN, y + 14, _short(name), "", "start")
        first = low if extent.earliest is None else extent.earliest
        words = f"{name}: {'all of the past' if extent.earliest is None else first} to {extent.latest}"
        past = min(extent.latest, 0)
        canvas.box(place(first), y + 3, max((past - first + 1) * scale, 1.5), 14, "input", tip=words)
        if extent.latest > 0:
            canvas.box(place(1), y + 3, max(extent.latest * scale, 1.5), 14, "leak", tip=words)
    bottom = top + len(rows) * _ROW
    x = place(0.5)
    canvas.line(x, top - 4, x, bottom)
    for sample, anchor in ((low, "start"), (0, "middle"), (high, "end")):
        if sample and abs(place(sample + 0.5) - x) < 40:
            continue  # it would stand on the 0
        canvas.text(place(sample + 0.5), bottom + 16, f"{sample:+d}" if sample else "0", "quiet", anchor)
    canvas.height = bottom + 28
    return canvas


def _rows(graph: Graph, extents: list[Extent]) -> tuple[list[tuple[str, Extent]], int]:
    """The operations that widen what is read, in the order in which they run, and how many there are."""
    found = []
    for node, extent in zip(graph.nodes, extents, strict=True):
        if (node.inputs and isinstance(node.timeline, Windows)) or node.timeline.endless:
            found.append((f"{node.path or node.name}", extent))
    if len(found) <= _ROWS:
        return found, len(found)
    step = (len(found) - 1) / (_ROWS - 1)
    return [found[round(n * step)] for n in range(_ROWS)], len(found)


def _short(name: str) -> str:
    return name if len(name) <= 34 else f"{name[:14]}...{name[-17:]}"
