"""Layers over sequences in shards: convolutions, pooling, padding, upsampling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tapwise.chunks import narrowed
from tapwise.engine.dispatch import convolve
from tapwise.errors import ShapeError, listed
from tapwise.geometry import Geometry
from tapwise.padding import single
from tapwise.scale import costs
from tapwise.scale.exchange import Link, Ranks, begin, end, split, swapped, tied
from tapwise.scale.shards import Edge, Piece, Shards, transfer

# From a window of exactly the samples that outputs read, and the geometry of these, to the outputs.
Compute = Callable[[Tensor, Geometry], Tensor]


@dataclass
class Sequences:
    """What a model's sequences are divided like, since its forward began.

    Arguments:
        seen: all divisions that its inputs and its layers gave.
    """

    ranks: Ranks
    seen: set[Shards] = field(default_factory=set)

    def begin(self, tensors: list[Tensor]) -> None:
        """A forward begins with these inputs: their last axes are divided."""
        self.ranks.path = "the model's input"
        self.seen.clear()
        if tensors:
            found = self.ranks.lengths([x.shape[-1] for x in tensors], tensors[0].device)
            self.seen.update(map(Shards.of_lengths, found))

    def end(self, tensors: list[Tensor]) -> None:
        """A forward ends with these outputs.

        Raises:
            ShapeError: outputs along none of whose axes a sequence is divided as a layer divided it.
        """
        self.ranks.path = "the model's output"
        sizes = [n for x in tensors for n in x.shape]
        if not sizes or not self.seen or self.ranks.size == 1:
            return
        found = iter(map(Shards.of_lengths, self.ranks.lengths(sizes, tensors[0].device)))
        for x in tensors:
            divisions = [next(found) for _ in x.shape]
            if not self.seen & set(divisions):
                raise ShapeError(
                    "the model's output was cut or padded by each rank for itself",
                    got=f"shards of {listed(map(str, divisions[-1].lengths()))} samples",
                    expected=self._expected(),
                    fix="cut after tapwise.scale.gather, or let the last layer give as many samples",
                )

    def _expected(self) -> str:
        return " or ".join(sorted(listed(map(str, s.lengths())) for s in self.seen))

    def shards_of(self, x: Tensor, path: str) -> Shards:
        """How a layer's input is divided.

        Raises:
            ShapeError: a division that no layer before has given.
        """
        self.ranks.path = path
        lengths, *others = self.ranks.lengths([x.shape[-1], *x.shape[:-1], x.element_size()], x.device)
        if any(len(set(sizes)) > 1 for sizes in others):
            raise ShapeError(
                f"{path}: its input differs between ranks in more than its time",
                got=f"{list(x.shape)} of {x.dtype} on rank {self.ranks.rank}",
                expected="the same batch, channels and dtype on every rank",
            )
        shards = Shards.of_lengths(lengths)
        if self.seen and shards not in self.seen:
            raise ShapeError(
                f"{path}: its input was cut or padded by each rank for itself",
                got=f"shards of {listed(map(str, shards.lengths()))} samples",
                expected=self._expected(),
                fix="pad within the convolution (tapwise.CausalConv1d, padding=(left, right)) or by a padding module",
            )
        return shards

    def through(self, x: Tensor, geometry: Geometry, path: str) -> tuple[Shards, Shards, Link]:
        """How a layer's input and its output are divided, and what the ranks exchange for it.

        Arguments:
            geometry: the operation as a convolution: which samples each output reads.
        """
        shards = self.shards_of(x, path)
        rate = Fraction(geometry.stride) if geometry.transposed else Fraction(1, geometry.stride)
        outputs = shards.outputs(rate, geometry.output_length(shards.length))
        self.seen.add(outputs)
        return shards, outputs, Link(self.ranks, transfer(geometry, shards, outputs, self.ranks.rank), path)


def by_halos(x: Tensor, link: Link, compute: Compute, channels: int, weights: tuple[Tensor | None, ...] = ()) -> Tensor:
    """The outputs that belong to this rank, from its own shard and what its windows need of others.

    Arguments:
        x: (batch, channels, n) of the rank's own shard.
        channels: of the outputs.
        weights: all that the outputs depend on besides.
    """
    moves, rank = link.transfer, link.ranks.rank
    edges, received = x[..., :0], None
    own = [piece for part in moves.parts if isinstance(part, Edge) for piece in part.pieces if piece.source == rank]
    n_sent = sum(link.n_sent)
    if own or not moves.is_local:
        runs = [run for to_rank in moves.sends for run in to_rank]
        x, edges = split(x, [*runs, *((piece.start, piece.start + piece.count) for piece in own)])
    if not moves.is_local:
        received = begin(edges[..., :n_sent], link, weights[0] if weights else None)
    # The interior is computed while the halo travels.
    parts: list[Tensor | None] = [
        None if isinstance(part, Edge) else compute(narrowed(x, part.start, part.stop), part.geometry)
        for part in moves.parts
    ]
    halo = None if received is None else end(received, link)
    windows = _Windows(edges[..., n_sent:], halo, moves.receives, rank)
    for n, part in enumerate(moves.parts):
        if isinstance(part, Edge):
            parts[n] = compute(windows.next(part.pieces), part.geometry)
    made = [part for part in parts if part is not None]
    if not made:
        return tied(x.new_zeros((x.shape[0], channels, 0)), (halo, x), weights)
    y = torch.cat(made, -1) if len(made) > 1 else made[0]
    return y if halo is None else tied(y, (halo,), weights)


class _Windows:
    """The windows of edges, put together from samples of the own shard, in order, and from what was received."""

    def __init__(self, own: Tensor, halo: Tensor | None, receives: tuple[int, ...], rank: int) -> None:
        self._own, self._halo, self._rank, self._at = own, halo, rank, 0
        self._first = [sum(receives[:source]) for source in range(len(receives))]

    def next(self, pieces: tuple[Piece, ...]) -> Tensor:
        """The window of the next edge."""
        parts = []
        for piece in pieces:
            if piece.source == self._rank:
                parts.append(self._own.narrow(-1, self._at, piece.count))
                self._at += piece.count
            else:
                assert self._halo is not None
                parts.append(self._halo.narrow(-1, self._first[piece.source] + piece.start, piece.count))
        return torch.cat(parts, -1) if parts else self._own[..., :0]


def _windowed(x: Tensor, geometry: Geometry, sequences: Sequences, path: str, compute: Compute) -> Tensor:
    """A function of windows, of each channel by itself."""
    return _batched(x, lambda x: by_halos(x, sequences.through(x, geometry, path)[2], compute, x.shape[1]))


def _batched(x: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
    return run(x) if x.ndim == 3 else run(x[None])[0]


def convolution(layer: Any, sequences: Sequences, path: str, x: Tensor) -> Tensor:
    """A convolution, transposed or not."""
    geometry, weight, bias = Geometry.of(layer), layer.weight, layer.bias
    refuse_dtensors(path, x, weight, bias)
    return _batched(x, lambda x: _convolution(x, weight, bias, geometry, layer.out_channels, sequences, path))


def _convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, fan_out: int, sequences: Sequences, path: str
) -> Tensor:
    shards, outputs, link = sequences.through(x, geometry, path)
    batch, fan_in = x.shape[:2]
    if geometry.groups == fan_in > 1 and not link.transfer.is_local:
        by_channels = costs.swap_bytes(shards, outputs, batch, fan_in, fan_out, x.element_size())
        if by_channels < costs.halo_bytes(link.transfer, batch, fan_in, x.element_size()):
            return _by_channels(x, weight, bias, geometry, fan_out, sequences.ranks, shards, outputs)

    def compute(window: Tensor, local: Geometry) -> Tensor:
        return convolve(window, weight, bias, local)

    return by_halos(x, link, compute, fan_out, (weight, bias))


def _by_channels(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    geometry: Geometry,
    fan_out: int,
    ranks: Ranks,
    shards: Shards,
    outputs: Shards,
) -> Tensor:
    """A depthwise convolution whose windows are longer than the shards: each rank computes some channels of all time."""
    ranks.swaps += 1
    bounds, multiple = costs.channel_bounds(x.shape[1], ranks.size), fan_out // x.shape[1]
    first, last = bounds[ranks.rank], bounds[ranks.rank + 1]
    own = swapped(x, ranks, shards, bounds, True)
    if first == last:
        y = tied(own.new_zeros((x.shape[0], 0, outputs.length)), (own,), (weight, bias))
    else:
        some = weight[first:last] if geometry.transposed else weight[first * multiple : last * multiple]
        of = None if bias is None else bias[first * multiple : last * multiple]
        y = convolve(own, some, of, replace(geometry, groups=last - first))
    return swapped(y, ranks, outputs, tuple(bound * multiple for bound in bounds), False)


def convolution_of_input(
    layer: Any, sequences: Sequences, path: str, x: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor:
    """A convolution of a layer whose own forward calls it."""
    return convolution(layer, sequences, path, x)


def max_pooling(layer: Any, sequences: Sequences, path: str, x: Tensor) -> Tensor:
    """The largest of each window."""
    geometry = _pooling_geometry(layer, single("dilation", layer.dilation))
    refuse_dtensors(path, x)

    def compute(window: Tensor, local: Geometry) -> Tensor:
        lowest = float("-inf") if window.is_floating_point() else torch.iinfo(window.dtype).min
        padded = functional.pad(window, local.padding, value=lowest)
        return functional.max_pool1d(padded, local.kernel_size, local.stride, 0, local.dilation)

    return _windowed(x, geometry, sequences, path, compute)


def average_pooling(layer: Any, sequences: Sequences, path: str, x: Tensor) -> Tensor:
    """The mean of each window."""
    geometry = _pooling_geometry(layer, 1)
    refuse_dtensors(path, x)

    def compute(window: Tensor, local: Geometry) -> Tensor:
        return functional.avg_pool1d(functional.pad(window, local.padding), local.kernel_size, local.stride)

    return _windowed(x, geometry, sequences, path, compute)


def _pooling_geometry(layer: Any, dilation: int) -> Geometry:
    kernel_size = single("kernel_size", layer.kernel_size)
    stride = kernel_size if layer.stride is None else single("stride", layer.stride)
    return Geometry(kernel_size, stride, dilation, single("padding", layer.padding))


def padding(layer: Any, sequences: Sequences, path: str, x: Tensor) -> Tensor:
    """Padding at the true ends of the sequence."""
    pads = layer.padding if isinstance(layer.padding, tuple) else (layer.padding,) * 2
    mode = _PADDING_MODES[next(kind for kind in _PADDING_MODES if isinstance(layer, kind))]
    geometry, value = Geometry(1, padding=pads, padding_mode=mode), getattr(layer, "value", 0.0)
    refuse_dtensors(path, x)

    def compute(window: Tensor, local: Geometry) -> Tensor:
        return functional.pad(window, local.padding, value=value) if any(local.padding) else window

    return _windowed(x, geometry, sequences, path, compute)


_PADDING_MODES: dict[Any, str] = {
    nn.ReflectionPad1d: "reflect",
    nn.ReplicationPad1d: "replicate",
    nn.CircularPad1d: "circular",
    nn.ConstantPad1d: "zeros",
}


def upsampling(layer: Any, sequences: Sequences, path: str, x: Tensor) -> Tensor:
    """Each sample several times."""
    refuse_dtensors(path, x)
    shards, factor = sequences.shards_of(x, path), int(layer.scale_factor)
    sequences.seen.add(Shards(tuple(bound * factor for bound in shards.bounds)))
    return x.repeat_interleave(factor, -1)


def refuse_dtensors(path: str, *tensors: Tensor | None) -> None:
    """Refuse DTensors, which torch's own convolution computes wrongly where time is divided."""
    for tensor in tensors:
        if type(tensor).__name__ == "DTensor":
            raise TypeError(
                f"{path}: got a DTensor, expected each rank's own part as a tensor: give x.to_local(), "
                "or divide the sequence by tapwise.scale.shard"
            )
