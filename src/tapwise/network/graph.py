"""Graph: a model as operations with timelines, read off real runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from math import floor, lcm
from typing import Any

import torch
from torch.utils import _pytree as pytree

from tapwise.network.operations import Size, Work
from tapwise.network.timeline import Ends, Timeline, Windows


@dataclass(eq=False)
class Node:
    """An operation of a graph.

    Arguments:
        path: the module in which it stands.
        name: what is called there.
        inputs: numbers of the nodes that it reads; none for an input of the model.
        timeline: how it maps time.
        work: what it does to tensors.
        size: of what comes out.
        reference: the node whose length the output follows, where it is cut to another's: as many
            samples for the same time, rounded up or down, and ``extra`` more.
        value: the number, in a recording, of the tensor that comes out.
        dtype: its dtype.
        rate: of an input of the model, its samples for each of the first input's.
        is_bound: whether its timeline says what an output reads at most, as a part of channels that were
            joined may read less.
    """

    path: str
    name: str
    inputs: tuple[int, ...]
    timeline: Timeline
    work: Work
    size: Size
    reference: int | None = None
    extra: int = 0
    rounds_up: bool = False
    value: int | None = None
    dtype: torch.dtype = torch.float32
    rate: Fraction = Fraction(1)
    is_bound: bool = False

    def length_in(self, size: tuple[int, ...], batch: int) -> int:
        """The samples of a tensor of the model's, of this size, that this operation gave."""
        return size[self.size.model_time] // self.size.rows_in_time(batch)

    @property
    def where(self) -> str:
        """The operation in words."""
        return f"{self.name} in {self.path or 'the model itself'}"


@dataclass(frozen=True, slots=True)
class Count:
    """What a model returns beside the signal: how many samples there are, as a number or a tensor of it.

    Arguments:
        node: whose samples are counted.
        scale: what is returned is ``floor(samples * scale + extra)``.
        extra: likewise.
        like: what the model returned when it was read.
        is_per_row: whether it is a tensor (batch,).
    """

    node: int
    scale: Fraction
    extra: Fraction
    like: Any
    is_per_row: bool

    def of(self, count: int, rows: int) -> Any:
        """The value for a count of samples."""
        value = floor(count * self.scale + self.extra)
        if not isinstance(self.like, torch.Tensor):
            return type(self.like)(value)
        return self.like.new_full([rows] if self.is_per_row else list(self.like.shape), value)

    @staticmethod
    def fitted(counts: Sequence[int], values: Sequence[int]) -> tuple[Fraction, Fraction] | None:
        """The scale and what is added, of values that follow the counts; None where they don't.

        Example:
            >>> Count.fitted([64, 65, 66, 67, 68], [32, 32, 33, 33, 34])
            (Fraction(1, 2), Fraction(0, 1))
        """
        low, high = min(range(len(counts)), key=counts.__getitem__), max(range(len(counts)), key=counts.__getitem__)
        if counts[low] == counts[high]:
            return None
        slope = Fraction(values[high] - values[low], counts[high] - counts[low])
        for scale in (slope.limit_denominator(d) for d in (1, 2, 8, 64, 1024, 8192)):
            if scale <= 0:
                continue
            # floor(c * scale + extra) == v: v <= c * scale + extra < v + 1
            rests = [v - c * scale for c, v in zip(counts, values, strict=True)]
            least, most = max(rests), min(rests) + 1
            if least < most:
                return scale, Fraction(0) if least <= 0 < most else least
        return None


# Samples by which any model has settled; one that has not gives no output.
_NEVER = 1 << 40


Counts = list[tuple[int, int]]


@dataclass(eq=False)
class Graph:
    """A model as nodes in the order in which it runs them; the first are its inputs, node 0 the signal.

    Arguments:
        outputs: what the model returns, flattened: numbers of nodes; counts of samples; and, each in a tuple
            of one, what is always the same.
        batch: the batch that the model was read with; ``batches`` whether it takes others.
        calls: how many calls of torch's the model made of the signal.
        every: samples of the signal after which whatever runs the graph is in the same state again.
        shortest: samples of the shortest signal of which the model does what the graph says.
        multiple: signals are longer or shorter than ``example_length`` by multiples of this.
        example_length: a length that the model takes.
        places: which of the model's arguments its inputs are.
    """

    nodes: list[Node]
    outputs: list[Any]
    spec: pytree.TreeSpec
    batch: int
    batches: bool
    calls: int = 0
    every: int = 1
    shortest: int = 1
    multiple: int = 1
    example_length: int = 0
    places: tuple[int, ...] = (0,)
    rates: list[Fraction] = field(init=False)
    repeats: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.rates, self.repeats = [], []
        # By node: its samples for each of the signal's; samples of the signal after which its outputs
        # read the same positions again, shifted.
        for node in self.nodes:
            rate = self.rates[node.inputs[0]] if node.inputs else node.rate
            own = 1
            if isinstance(node.timeline, Windows) and not node.timeline.geometry.transposed:
                own = node.timeline.geometry.stride
            self.rates.append(rate * node.timeline.rate)
            before = [self.repeats[n] for n in node.inputs]
            self.repeats.append(lcm(1, *before, (own / rate).numerator))

    @cached_property
    def n_sources(self) -> int:
        """How many of the model's inputs are signals: the first nodes."""
        return sum(not node.inputs for node in self.nodes)

    def missing(self, seen: int) -> int:
        """Samples without which the model takes no signal of ``seen``, as it takes multiples alone."""
        return (self.example_length - seen) % self.multiple

    @cached_property
    def results(self) -> list[int]:
        """The nodes that the model returns."""
        return [out for out in self.outputs if type(out) is int]

    def totals(self, length: int) -> list[int]:
        """By node, how long what comes out is for a signal of ``length``."""
        return [total for _, total in self.counts(length, ended=True)]

    def counts(self, seen: int, ended: bool = False) -> Counts:
        """By node, outputs that are determined, and outputs that there will be at least.

        Arguments:
            seen: how many samples of the signal have come.
            ended: whether no more will.
        """
        counts: Counts = []
        rates = self.rates
        for node in self.nodes:
            if not node.inputs:
                own = seen * node.rate.numerator // node.rate.denominator
                counts.append((own, own))
                continue
            available = min(counts[n][0] for n in node.inputs)
            certain = max(counts[n][1] for n in node.inputs)
            if node.reference is None:
                total = node.timeline.total(certain)
                fixed = node.timeline.determined(available, certain)
            else:
                # Its own rate stands where the node's will: only the ends are cut.
                ratio = rates[node.inputs[0]] / rates[node.reference]
                total = followed(counts[node.reference][1], ratio, node.rounds_up) + node.extra
                total = max(0, total)
                left = node.timeline.left if isinstance(node.timeline, Ends) else 0
                fixed = max(0, min(available + left, total)) if available else 0
            if ended:
                fixed = total = total if seen else 0
            counts.append((fixed, total))
        return counts

    @cached_property
    def period(self) -> int:
        """Samples after which everything repeats: windows, and padding up to a multiple."""
        every = lcm(self.every, self.multiple, *self.repeats)
        for node in self.nodes[1:]:
            if isinstance(node.timeline, Ends):
                rate = self.rates[node.inputs[0]]
                every = lcm(every, (len(node.timeline.right) / rate).numerator)
        return every

    @cached_property
    def settled(self) -> int:
        """Samples, a multiple of the period, after which no operation reads what stands before the first."""
        seen = -(-self.shortest // self.period) * self.period
        while not self._has_settled(seen) and seen < _NEVER:
            seen *= 2
        return seen

    def _has_settled(self, seen: int) -> bool:
        counts = self.counts(seen)
        for node, (fixed, _) in zip(self.nodes, counts, strict=True):
            if not node.inputs:
                continue
            available = min(counts[n][0] for n in node.inputs)
            if isinstance(node.timeline, Ends | Windows):
                left = abs(node.timeline.left) if isinstance(node.timeline, Ends) else 0
                if fixed <= left or node.timeline.first_needed(fixed, available) <= 0:
                    return False
            elif fixed == 0:
                return False
        return True

    def begin_at(self, shortest: int) -> None:
        """Say how short signals may be for the graph to hold."""
        self.shortest = shortest
        self.__dict__.pop("settled", None)

    def canonical(self, seen: int) -> int:
        """The smallest count of samples at which everything stands as it does at ``seen``."""
        if seen < self.settled + self.period:
            return seen
        return self.settled + (seen - self.settled) % self.period


def followed(length: int, ratio: Fraction, up: bool) -> int:
    """As many samples at ``ratio`` times the rate, rounded up or down."""
    exact = length * ratio
    return -(-exact.numerator // exact.denominator) if up else exact.numerator // exact.denominator
