"""Shards: which rank holds which samples, and what travels where. Integers alone.

# rank       0          |  1          |  2
# samples    0 . . . a  |  a . . . b  |  b . . . N
# outputs    those whose moment a rank holds; their windows reach into other shards, its halo:
#            [ halo | own samples | halo ]
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate, pairwise

from tapwise import partition
from tapwise.geometry import Geometry

Run = tuple[int, int]


@dataclass(frozen=True)
class Shards:
    """How a sequence is divided over ranks, in order; some may be empty.

    Arguments:
        bounds: of rank r, the samples [bounds[r], bounds[r + 1]).
    """

    bounds: tuple[int, ...]

    @classmethod
    def of_lengths(cls, lengths: Iterable[int]) -> Shards:
        """Of the length of each shard.

        Example:
            >>> Shards.of_lengths([3, 0, 2]).bounds
            (0, 3, 3, 5)
        """
        return cls((0, *accumulate(lengths)))

    @property
    def length(self) -> int:
        """Of the sequence."""
        return self.bounds[-1]

    @property
    def n_ranks(self) -> int:
        """How many shards there are."""
        return len(self.bounds) - 1

    def range_of(self, rank: int) -> Run:
        """The samples that a rank holds."""
        return self.bounds[rank], self.bounds[rank + 1]

    def lengths(self) -> tuple[int, ...]:
        """Of each shard."""
        return tuple(b - a for a, b in pairwise(self.bounds))

    def outputs(self, rate: Fraction, n_outputs: int) -> Shards:
        """The shards of an operation's outputs: each belongs to the rank that holds its moment.

        Arguments:
            rate: outputs for each sample.

        Example:
            >>> Shards((0, 5, 10)).outputs(Fraction(1, 2), 5).bounds
            (0, 3, 5)
        """
        inner = [min(math.ceil(bound * rate), n_outputs) for bound in self.bounds[1:-1]]
        return Shards((0, *inner, n_outputs))

    def split(self, run: Run) -> Iterator[tuple[int, Run]]:
        """The parts of a run of samples by the rank that holds them."""
        start, stop = run
        rank = bisect_right(self.bounds, start) - 1
        while start < stop:
            end = min(stop, self.bounds[rank + 1])
            if start < end:
                yield rank, (start, end)
            start, rank = max(start, end), rank + 1


@dataclass(frozen=True)
class Piece:
    """Samples of a window in a row: of a rank's own shard, or of what it received.

    Arguments:
        source: the rank that holds them.
        start: counted from the beginning of the own shard, or of what that rank sent.
    """

    source: int
    start: int
    count: int


@dataclass(frozen=True)
class Edge:
    """Outputs whose windows reach into other shards.

    Arguments:
        geometry: of the convolution of its window alone.
        pieces: of the window, in order.
        count: how many outputs.
    """

    geometry: Geometry
    pieces: tuple[Piece, ...]
    count: int


@dataclass(frozen=True)
class Interior:
    """Outputs that a rank computes from its own shard.

    Arguments:
        start: the first sample, counted from the beginning of the shard.
        stop: the end.
    """

    geometry: Geometry
    start: int
    stop: int
    count: int


@dataclass(frozen=True)
class Transfer:
    """What one rank sends and receives for an operation, and what it then computes.

    Arguments:
        sends: by rank, the runs of its own shard that it sends there.
        receives: by rank, how many samples come from there.
        parts: its outputs in order: at an edge, inside, at the other edge.
        halo: samples that all ranks together receive.
    """

    sends: tuple[tuple[Run, ...], ...]
    receives: tuple[int, ...]
    parts: tuple[Edge | Interior, ...]
    halo: int

    @property
    def is_local(self) -> bool:
        """Whether no rank needs a sample of another."""
        return self.halo == 0


@lru_cache(maxsize=1024)
def transfer(geometry: Geometry, shards: Shards, outputs: Shards, rank: int) -> Transfer:
    """What a rank does for a convolution over a sequence in shards.

    Example:
        >>> found = transfer(Geometry(3, padding="causal"), Shards((0, 5, 10)), Shards((0, 5, 10)), 1)
        >>> found.receives, [type(part).__name__ for part in found.parts], found.parts[0].count
        ((2, 0), ['Edge', 'Interior'], 2)
    """
    sends: list[list[Run]] = [[] for _ in range(shards.n_ranks)]
    receives: list[int] = [0] * shards.n_ranks
    own, halo, first = [], 0, shards.bounds[rank]
    for other in range(shards.n_ranks):
        received = [0] * shards.n_ranks
        parts: list[Edge | Interior] = []
        for part in _parts(geometry, shards, outputs, other):
            if isinstance(part, Interior):
                parts.append(part)
                continue
            pieces = []
            for run in _runs(part):
                for source, (start, stop) in shards.split(run):
                    count = stop - start
                    if source == other:
                        pieces.append(Piece(source, start - shards.bounds[other], count))
                        continue
                    pieces.append(Piece(source, received[source], count))
                    received[source] += count
                    halo += count
                    if source == rank:
                        sends[other].append((start - first, stop - first))
            parts.append(Edge(part.geometry, tuple(pieces), part.outputs[1] - part.outputs[0]))
        if other == rank:
            receives, own = received, parts
    return Transfer(tuple(map(tuple, sends)), tuple(receives), tuple(own), halo)


def _parts(geometry: Geometry, shards: Shards, outputs: Shards, rank: int) -> Iterator[partition.Part | Interior]:
    """A rank's outputs: those that need other shards, those that don't, and again those that do."""
    (first, last), (start, stop), length = shards.range_of(rank), outputs.range_of(rank), shards.length
    if start == stop:
        return
    is_zeros = geometry.padding_mode == "zeros"

    def begins(output: int) -> bool:
        """Whether the window begins in the shard, or in the zeros before the sequence."""
        return (first == 0 and is_zeros) or partition.window_span(geometry, output, output + 1)[0] >= first

    def ends_beyond(output: int) -> bool:
        if last == length and is_zeros:
            return False
        return partition.window_span(geometry, output, output + 1)[1] > last

    begin = bisect_left(range(start, stop), True, key=begins) + start
    end = bisect_left(range(start, stop), True, key=ends_beyond) + start
    if first == last or begin >= end:
        yield partition.part(geometry, start, stop, length)
        return
    if start < begin:
        yield partition.part(geometry, start, begin, length)
    inner = partition.part(geometry, begin, end, length)
    yield Interior(inner.geometry, inner.inputs[0] - first, inner.inputs[1] - first, end - begin)
    if end < stop:
        yield partition.part(geometry, end, stop, length)


def _runs(part: partition.Part) -> list[Run]:
    """The samples of a part's window, in order, in runs."""
    return [*_joined(part.left), part.inputs, *_joined(part.right)]


def _joined(positions: Sequence[int]) -> list[Run]:
    """Positions one after the other, as runs.

    Example:
        >>> _joined([3, 2, 7, 8, 9])
        [(3, 4), (2, 3), (7, 10)]
    """
    runs: list[Run] = []
    for position in positions:
        if runs and runs[-1][1] == position:
            runs[-1] = (runs[-1][0], position + 1)
        else:
            runs.append((position, position + 1))
    return runs
