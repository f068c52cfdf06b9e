"""Convolutions of a stream: windows over what was kept and the chunk; sums that later inputs add to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tapwise import partition
from tapwise.engine.autograd import convolve
from tapwise.network.graph import Node
from tapwise.network.operations import Convolve
from tapwise.network.timeline import Windows, without_ends
from tapwise.streaming.runners import Kept, Span, State, cut, held, joined


class Convolution(Kept):
    """A convolution: windows over what was kept and the chunk, padding at the true ends."""

    def __init__(self, node: Node, axes: tuple[int, ...]) -> None:
        super().__init__(node, axes)
        assert isinstance(node.timeline, Windows)
        assert isinstance(node.work, Convolve)
        self.geometry = node.timeline.geometry
        self.weight, self.bias = node.work.weight, node.work.bias

    def move(self, span: Span) -> Any:
        first, later = self.borders(span)
        start, stop = span.given
        keep = later - first
        if start == stop:
            return None, keep
        part = partition.part(self.geometry, start, stop, span.certain)
        low, high = (end - first for end in part.inputs)
        return (low, high, part.geometry), keep

    def run(self, move: Any, state: State, chunks: Sequence[Tensor]) -> tuple[Tensor | None, State]:
        how, keep = move
        known = joined(state[0], chunks[0], -1)
        if how is None:
            return None, [held(known, known.ndim - 1, keep)]
        low, high, geometry = how
        inside = cut(known, known.ndim - 1, low, high)
        if inside.ndim == 2:
            y = convolve(geometry, inside[None], self.weight, self.bias)[0]
        else:
            y = convolve(geometry, inside, self.weight, self.bias)
        return y, [held(known, known.ndim - 1, keep)]


class Transposed:
    """A transposed convolution: what inputs add to outputs that later ones reach as well is kept.

    # full     [ cut | given ... | sums, not whole yet )
    """

    def __init__(self, node: Node, axes: tuple[int, ...]) -> None:
        assert isinstance(node.timeline, Windows)
        assert isinstance(node.work, Convolve)
        self.geometry = node.timeline.geometry
        self.whole = without_ends(self.geometry)
        self.weight, self.bias = node.work.weight, node.work.bias

    def start(self, batch: int, like: Sequence[Tensor]) -> State:
        x = like[0]
        channels = self.weight.shape[1] * self.geometry.groups
        return [x.new_zeros((*x.shape[:-2], channels, 0), dtype=self.weight.dtype)]

    def move(self, span: Span) -> Any:
        (known, _), (start, stop) = span.known[0], span.given
        # Where the chunk's outputs begin among the sums, which begin with the next output to give.
        return known * self.geometry.stride - self.geometry.left - start, stop - start

    def run(self, move: Any, state: State, chunks: Sequence[Tensor]) -> tuple[Tensor | None, State]:
        at, count = move
        sums, x = state[0], chunks[0]
        if x.shape[-1]:
            one = x if x.ndim == 3 else x[None]
            new = convolve(self.whole, one, self.weight, None)
            new = new if x.ndim == 3 else new[0]
            new, at = new[..., max(-at, 0) :], max(at, 0)
            sums = _added(sums, new, at)
        y = None
        if count:
            y = sums[..., :count]
            # Gaps between strides that no tap reaches, and output_padding, hold zeros.
            y = torch.nn.functional.pad(y, (0, count - y.shape[-1])) if y.shape[-1] < count else y
            y = y.clone() if self.bias is None else y + self.bias[:, None]
        return y, [sums[..., count:].clone()]


def _added(sums: Tensor, new: Tensor, at: int) -> Tensor:
    """The sums with ``new`` added from ``at`` on."""
    if at == 0 and sums.shape[-1] == 0:
        return new
    length = max(sums.shape[-1], at + new.shape[-1])
    both = torch.nn.functional.pad(sums, (0, length - sums.shape[-1]))
    both.narrow(-1, at, new.shape[-1]).add_(new)
    return both
