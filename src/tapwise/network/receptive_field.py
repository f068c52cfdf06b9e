"""Receptive fields: what one output of a graph reads of its input, far from both ends."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil

import numpy as np
import numpy.typing as npt

from tapwise.network.graph import Graph
from tapwise.network.timeline import NOWHERE, Positions

_Array = npt.NDArray[np.int64]


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


@dataclass(frozen=True)
class _Reads:
    """What outputs read of a node, far from both ends: rows of marks, each row shared by outputs that read alike.

    Arguments:
        row: by output, its row.
        marks: (rows, n): which positions are read, counted from ``first``.
    """

    row: _Array
    marks: npt.NDArray[np.bool_]
    first: int


def _read_by(graph: Graph, number: int, outputs: Positions) -> list[_Reads | None]:
    """By node, what ``outputs`` of node ``number`` read of it; positions below 0 stand before the first sample."""
    count = int(outputs[-1] - outputs[0]) + 1
    marks = np.zeros((len(outputs), count), bool)
    marks[np.arange(len(outputs)), outputs - outputs[0]] = True
    waiting: list[list[_Reads]] = [[] for _ in graph.nodes]
    waiting[number].append(_Reads(np.arange(len(outputs)), marks, int(outputs[0])))
    found: list[_Reads | None] = [None] * len(graph.nodes)
    for n in range(number, -1, -1):
        if not waiting[n]:
            continue
        found[n] = reads = _without_repeats(_joined(waiting[n]))
        waiting[n] = []
        node = graph.nodes[n]
        if node.inputs:
            sources = _Reads(reads.row, *node.timeline.sources(reads.marks, reads.first))
            for source in dict.fromkeys(node.inputs):
                waiting[source].append(sources)
            if n != number:
                found[n] = None
    return found


def _joined(parts: list[_Reads]) -> _Reads:
    """What any of the parts reads."""
    if len(parts) == 1:
        return parts[0]
    pairs, row = np.unique(np.stack([part.row for part in parts]), axis=1, return_inverse=True)
    first = min(part.first for part in parts)
    stop = max(part.first + part.marks.shape[1] for part in parts)
    marks = np.zeros((pairs.shape[1], stop - first), bool)
    for own, part in zip(pairs, parts, strict=True):
        begin = part.first - first
        marks[:, begin : begin + part.marks.shape[1]] |= part.marks[own]
    return _Reads(row.reshape(-1), marks, first)


def _without_repeats(reads: _Reads) -> _Reads:
    """The same, of fewer rows and of no more positions than are read."""
    used = np.flatnonzero(reads.marks.any(0))
    if not len(used):
        return reads
    marks = reads.marks[:, used[0] : used[-1] + 1]
    packed = np.ascontiguousarray(np.packbits(marks, axis=1))
    _, kept, row = np.unique(
        packed.view([("", packed.dtype, packed.shape[1])]).reshape(-1), return_index=True, return_inverse=True
    )
    return _Reads(row.reshape(-1)[reads.row], marks[kept], reads.first + int(used[0]))


# Marks that are held at a time.
_MOST_MARKS = 30_000_000


def receptive_field_of(graph: Graph, number: int | None = None) -> ReceptiveField:
    """What the outputs of a node, by default the model's first result, read of the model's inputs."""
    number = graph.results[0] if number is None else number
    rate = graph.rates[number]
    phases = np.arange(int(rate * graph.repeats[number]), dtype=np.int64)
    now = phases * rate.denominator // rate.numerator
    extent = extents(graph)[number]
    width = (extent.latest - (extent.earliest or 0) + 2) * max(1, ceil(max(graph.rates)))
    at_once = max(1, _MOST_MARKS // width)
    firsts, lasts, most, holes = [], [], 0, 0
    for start in range(0, len(phases), at_once):
        outputs = phases[start : start + at_once]
        for n, reads in enumerate(_read_by(graph, number, outputs)):
            if reads is None or graph.nodes[n].inputs or not reads.marks.any():
                continue
            counts = reads.marks.sum(1)
            low, high = reads.marks.argmax(1), reads.marks.shape[1] - 1 - reads.marks[:, ::-1].argmax(1)
            own = graph.nodes[n].rate
            moments = [(reads.first + x) * own.denominator // own.numerator for x in (low, high)]
            has = counts[reads.row] > 0
            firsts.append(int((moments[0][reads.row] - now[start : start + at_once])[has].min()))
            lasts.append(int((moments[1][reads.row] - now[start : start + at_once])[has].max()))
            best = int(counts.argmax())
            if int(counts[best]) > most:
                most = int(counts[best])
                holes = int(high[best] - low[best] + 1) - most
    if not firsts:
        return ReceptiveField(1 / rate, 0, 0, 0, 0, 0)
    first, last = min(firsts), max(lasts)
    if _endless(graph, number):
        return ReceptiveField(1 / rate, None, last, None, None, max(last, 0))
    return ReceptiveField(1 / rate, first, last, most, holes, max(last, 0))


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
