"""Receptive fields: what one output of a graph reads of its input, far from both ends."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from tapwise.network.graph import Graph
from tapwise.network.timeline import NOWHERE, Positions, Windows

_Array = npt.NDArray[np.int64]
# Of windows of more taps only the ends are followed.
_MOST_TAPS = 4096


@dataclass(frozen=True)
class ReceptiveField:
    """What outputs read, of the worst of all phases.

    Arguments:
        stride: input samples for each output.
        first: the earliest input that output j reads, relative to ``floor(j * stride)``; None where it
            reads all of the past.
        last: the latest.
        count: the most inputs that one output reads; None where it reads all of the past.
        holes: inputs between its first and last that this output doesn't read.
        delay: input samples by which an output is late: ``last``, at least 0.
    """

    stride: Fraction
    first: int | None
    last: int
    count: int | None
    holes: int | None
    delay: int


def read_by(graph: Graph, number: int, outputs: Positions) -> list[tuple[_Array, _Array] | None]:
    """By node, pairs (which of ``outputs`` of node ``number``, position) of what is read of it.

    Far from both ends: positions below 0 stand for samples before the first.
    """
    which = np.arange(len(outputs), dtype=np.int64)
    pairs: list[list[tuple[_Array, _Array]]] = [[] for _ in graph.nodes]
    pairs[number].append((which, np.asarray(outputs, np.int64)))
    found: list[tuple[_Array, _Array] | None] = [None] * len(graph.nodes)
    for n in range(number, -1, -1):
        if not pairs[n]:
            continue
        owner, position = _unique(pairs[n], len(outputs))
        found[n] = owner, position
        node = graph.nodes[n]
        for source in node.inputs:
            timeline = node.timeline
            if isinstance(timeline, Windows) and timeline.geometry.kernel_size > _MOST_TAPS:
                reads = timeline.reads(position)[:, [0, -1]]
            else:
                reads = timeline.reads(position)
            owners = np.repeat(owner, reads.shape[1])
            flat = reads.reshape(-1)
            met = flat != NOWHERE
            pairs[source].append((owners[met], flat[met]))
    return found


def _unique(pairs: list[tuple[_Array, _Array]], owners: int) -> tuple[_Array, _Array]:
    owner = np.concatenate([o for o, _ in pairs])
    position = np.concatenate([p for _, p in pairs])
    if len(position) == 0:
        return owner, position
    low = position.min()
    keys = np.unique((position - low) * owners + owner)
    return keys % owners, keys // owners + low


def receptive_field_of(graph: Graph, number: int | None = None) -> ReceptiveField:
    """What the outputs of a node, by default the model's first result, read of the model's input."""
    number = graph.results[0] if number is None else number
    rate = graph.rates[number]
    phases = np.arange(int(rate * graph.repeats[number]), dtype=np.int64)
    found = read_by(graph, number, phases)[0]
    now = phases * rate.denominator // rate.numerator
    endless = _endless(graph, number)
    if found is None or len(found[1]) == 0:
        return ReceptiveField(1 / rate, 0, 0, 0, 0, 0)
    owner, position = found
    relative = position - now[owner]
    first, last = int(relative.min()), int(relative.max())
    if endless:
        return ReceptiveField(1 / rate, None, last, None, None, max(last, 0))
    counts = np.bincount(owner, minlength=len(phases))
    most = int(counts.argmax())
    own = position[owner == most]
    holes = int(own.max() - own.min() + 1 - len(own))
    return ReceptiveField(1 / rate, first, last, int(counts[most]), holes, max(last, 0))


def _endless(graph: Graph, number: int) -> bool:
    reached = {number}
    for n in range(number, 0, -1):
        if n in reached:
            if graph.nodes[n].timeline.endless:
                return True
            reached.update(graph.nodes[n].inputs)
    return False


@dataclass(frozen=True)
class Extent:
    """The earliest and the latest input that the outputs of a node read, by phase.

    Arguments:
        rate: outputs of the node for each input sample.
        repeats: samples of the input after which all is the same again, further on.
        first: (rate * repeats,) for outputs 0, 1, ...; None where all of the past is read.
        last: likewise the latest.
    """

    rate: Fraction
    repeats: int
    first: _Array | None
    last: _Array

    def at(self, ends: _Array, outputs: _Array) -> _Array:
        """``first`` or ``last`` of any outputs: every period is like the one before, further on."""
        period = len(ends)
        return ends[outputs % period] + outputs // period * self.repeats

    def _relative(self, ends: _Array) -> _Array:
        phases = np.arange(len(ends), dtype=np.int64)
        return ends - phases * self.rate.denominator // self.rate.numerator

    @property
    def earliest(self) -> int | None:
        """The earliest input read, relative to the output's own moment."""
        return None if self.first is None else int(self._relative(self.first).min())

    @property
    def latest(self) -> int:
        """The latest; above 0 it lies in the future."""
        return int(self._relative(self.last).max())


def extents(graph: Graph) -> list[Extent]:
    """By node, which inputs of the model its outputs read, far from both ends."""
    found: list[Extent] = []
    for number, node in enumerate(graph.nodes):
        rate, repeats = graph.rates[number], graph.repeats[number]
        phases = np.arange(int(rate * repeats), dtype=np.int64)
        if not node.inputs:
            found.append(Extent(rate, repeats, phases.copy(), phases.copy()))
            continue
        reads = node.timeline.reads(phases)
        met = reads != NOWHERE
        firsts: list[_Array | None] = []
        lasts = []
        for source in node.inputs:
            extent = found[source]
            latest = extent.at(extent.last, np.where(met, reads, 0))
            lasts.append(np.where(met, latest, NOWHERE).max(axis=1))
            if extent.first is None or node.timeline.endless:
                firsts.append(None)
            else:
                earliest = extent.at(extent.first, np.where(met, reads, 0))
                firsts.append(np.where(met, earliest, np.iinfo(np.int64).max).min(axis=1))
        finite = [first for first in firsts if first is not None]
        first = None if len(finite) < len(firsts) else np.minimum.reduce(finite)
        found.append(Extent(rate, repeats, first, np.maximum.reduce(lasts)))
    return found
