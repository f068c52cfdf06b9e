"""Graph: a model as operations with timelines, read off real runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from math import lcm
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
        inputs: numbers of the nodes that it reads; none for the model's input.
        timeline: how it maps time.
        work: what it does to tensors.
        size: of what comes out.
        reference: the node whose length the output follows, where it is cut to another's: as many
            samples for the same time, rounded up or down, and ``extra`` more.
        value: the number, in a recording, of the tensor that comes out.
        dtype: its dtype.
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

    @property
    def where(self) -> str:
        """The operation in words."""
        return f"{self.name} in {self.path or 'the model itself'}"


# Samples by which any model has settled; one that has not gives no output.
_NEVER = 1 << 40


Counts = list[tuple[int, int]]


@dataclass(eq=False)
class Graph:
    """A model as nodes in the order in which it runs them; node 0 is its input.

    Arguments:
        outputs: what the model returns, flattened: numbers of nodes, and what is no part of the signal.
        batch: the batch that the model was read with; ``batches`` whether it takes others.
        calls: how many calls of torch's the model made of the signal.
        every: samples of the signal after which whatever runs the graph is in the same state again.
        shortest: samples of the shortest signal of which the model does what the graph says.
    """

    nodes: list[Node]
    outputs: list[Any]
    spec: pytree.TreeSpec
    batch: int
    batches: bool
    calls: int = 0
    every: int = 1
    shortest: int = 1
    rates: list[Fraction] = field(init=False)
    repeats: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.rates, self.repeats = [], []
        # By node: its samples for each of the signal's; samples of the signal after which its outputs
        # read the same positions again, shifted.
        for node in self.nodes:
            rate = self.rates[node.inputs[0]] if node.inputs else Fraction(1)
            own = 1
            if isinstance(node.timeline, Windows) and not node.timeline.geometry.transposed:
                own = node.timeline.geometry.stride
            self.rates.append(rate * node.timeline.rate)
            before = [self.repeats[n] for n in node.inputs]
            self.repeats.append(lcm(1, *before, (own / rate).numerator))

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
                counts.append((seen, seen))
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
        every = lcm(self.every, *self.repeats)
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
