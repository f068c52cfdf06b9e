"""Convolutions of a stream: windows over what was kept and the chunk; sums that later inputs add to."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tapwise import partition
from tapwise.engine.autograd import convolve, ready
from tapwise.engine.calls import is_usual
from tapwise.geometry import Geometry
from tapwise.network.graph import Node
from tapwise.network.operations import Convolve
from tapwise.network.timeline import Windows, without_ends
from tapwise.streaming.runners import Kept, Span, State, cut, held, joined

# Sizes of inputs for which a convolution's kernel is remembered.
_READY = 64


class Convolution(Kept):
    """A convolution: windows over what was kept and the chunk, padding at the true ends."""

    def __init__(self, node: Node, axes: tuple[int, ...]) -> None:
        super().__init__(node, axes)
        assert isinstance(node.timeline, Windows)
        assert isinstance(node.work, Convolve)
        self.geometry = node.timeline.geometry
        self.weight, self.bias = node.work.weight, node.work.bias
        self._ready: OrderedDict[Any, Callable[[Tensor], Tensor]] = OrderedDict()

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
        batched = inside if inside.ndim == 3 else inside[None]
        y = self._convolve(geometry, batched)
        y = y if inside.ndim == 3 else y[0]
        return y, [held(known, known.ndim - 1, keep)]

    def _convolve(self, geometry: Geometry, x: Tensor) -> Tensor:
        key = (x.shape, geometry.padding, torch.get_num_threads())
        run = self._ready.get(key)
        if run is None or not is_usual():
            run = ready(geometry, x, self.weight, self.bias)
            if is_usual():
                self._ready[key] = run
                if len(self._ready) > _READY:
                    self._ready.popitem(last=False)
        return run(x)


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
