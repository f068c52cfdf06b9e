"""Partitioned: a long filter live, chunk by chunk, without delay.

The taps are cut into partitions of P. Those nearest to the output meet the last samples directly; all
others need only samples of blocks that are complete, and are done once a block, by spectra.

# taps      [ last partition | ... | second | head ]      reversed: the newest sample meets the last tap
# samples   [ block b-n ...  | b-2 | b-1    | b, being filled ]
#             spectra of each pair of blocks        P - 1 samples and the chunk

Source: W. G. Gardner, Efficient convolution without input-output delay, 1995; uniform partitions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tapwise.engine.autograd import convolve
from tapwise.geometry import Geometry
from tapwise.network.graph import Node
from tapwise.network.operations import Convolve
from tapwise.network.timeline import Windows
from tapwise.streaming.runners import Span, State, joined

# Fewer taps are convolved directly, by the engine.
FEWEST = 1024
# Blocks louder than the quietest by more are summed directly, as the engine's fft has it.
_LOUDER = 1e7


def block_of(node: Node) -> int:
    """Samples of a partition; 0 where the operation is no long filter."""
    if not (isinstance(node.work, Convolve) and isinstance(node.timeline, Windows)):
        return 0
    g = node.timeline.geometry
    plain = not g.transposed and g.stride == g.dilation == 1 and g.padding_mode == "zeros"
    real = node.work.weight.dtype in (torch.float32, torch.float64)
    if not (plain and real and g.kernel_size >= FEWEST and g.left < g.kernel_size):
        return 0
    # One transform a block, and products for each partition: least work near the root of the taps.
    return max(64, min(1024, 1 << math.isqrt(g.kernel_size).bit_length()))


class Partitioned:
    """A convolution of stride 1 by many taps."""

    def __init__(self, node: Node, axes: tuple[int, ...]) -> None:
        assert isinstance(node.timeline, Windows)
        assert isinstance(node.work, Convolve)
        g = node.timeline.geometry
        self.left, self.groups, self.block = g.left, g.groups, block_of(node)
        self.weight, self.bias, self.taps = node.work.weight, node.work.bias, g.kernel_size
        self.parts = -(-self.taps // self.block)
        self.head = Geometry(self.block, groups=g.groups)
        self.tail = Geometry(self.taps - self.block, groups=g.groups)
        self._spectra: Tensor | None = None
        self._made_of = self.weight.detach()[..., :0]

    def spectra(self) -> Tensor:
        """Of all partitions but the head: (C_out, C_in / groups, parts - 1, block + 1), the nearest first."""
        # Compared with a copy: weights may be written without a trace.
        if self._spectra is None or not torch.equal(self._made_of, self.weight):
            self._made_of = self.weight.detach().clone()
            far = self.weight[..., : self.taps - self.block].detach().double().flip(-1)
            missing = (self.parts - 1) * self.block - far.shape[-1]
            far = torch.nn.functional.pad(far, (0, missing))
            self._spectra = torch.fft.rfft(_apart(far, -1, self.block), 2 * self.block)
        return self._spectra

    def start(self, batch: int, like: Sequence[Tensor]) -> State:
        x = like[0]
        channels, outputs = x.shape[-2], self.weight.shape[0]
        lead = x.shape[:-2]
        spectra = (*lead, channels, self.parts - 1, self.block + 1)
        return [
            x.new_zeros(
                (*lead, channels, self.parts * self.block)
            ),  # the last samples, as they came
            # of pairs of blocks, the newest first; real and imaginary parts, which any file can hold
            x.new_zeros((*spectra, 2), dtype=torch.float64),
            x.new_zeros((*lead, outputs, self.block), dtype=torch.float64),  # the far taps' part
        ]

    def move(self, span: Span) -> Any:
        (known, more), (start, stop) = span.known[0], span.given
        # Output i is fixed by input i + taps - 1 - left; at the end, zeros stand for inputs to come.
        offset = self.taps - 1 - self.left
        last = stop + offset if stop > start else more
        zeros = max(last - more, 0) if span.ended else 0
        first = start + offset - known  # of the samples that come now, the one that gives an output
        return known % self.block, zeros, max(first, 0), stop - start

    def run(self, move: Any, state: State, chunks: Sequence[Tensor]) -> tuple[Tensor | None, State]:
        at, zeros, first, count = move
        x = chunks[0]
        if zeros:
            x = torch.nn.functional.pad(x, (0, zeros))
        samples, spectra, far = state
        made, done = [], 0
        while done < x.shape[-1]:
            part = x[..., done : done + self.block - at]
            near = samples[..., samples.shape[-1] - self.block + 1 :]
            y = convolve(self.head, _batched(joined(near, part, -1)), self._near(), None)
            y = y if x.ndim == 3 else y[0]
            made.append(y + far[..., at : at + part.shape[-1]].to(y.dtype))
            samples = torch.cat((samples[..., part.shape[-1] :], part), -1)
            done, at = done + part.shape[-1], at + part.shape[-1]
            if at == self.block:
                at = 0
                spectra, far = self._next(samples, spectra)
        if not count:
            return None, [samples, spectra, far]
        whole = torch.cat(made, -1)[..., first : first + count]
        whole = whole.clone() if self.bias is None else whole + self.bias[:, None]
        return whole, [samples, spectra, far]

    def _near(self) -> Tensor:
        return self.weight[..., self.taps - self.block :]

    def _next(self, samples: Tensor, spectra: Tensor) -> tuple[Tensor, Tensor]:
        """A block is complete: its spectrum, and what the far taps give for the next."""
        pair = samples[..., -2 * self.block :].double()
        newest = torch.fft.rfft(pair)[..., None, :]
        complex = torch.cat((newest, torch.view_as_complex(spectra)[..., :-1, :]), -2)
        spectra = torch.view_as_real(complex)
        if not self._tame(samples):
            # The next block's outputs, by the far taps alone, as sums.
            history = samples[..., samples.shape[-1] - self.taps + 1 :]
            weight = self.weight[..., : self.taps - self.block]
            y = convolve(self.tail, _batched(history), weight, None)
            return spectra, (y if samples.ndim == 3 else y[0]).double()
        own = _apart(complex, -3, complex.shape[-3] // self.groups)  # (..., G, C, parts, F)
        taps = self.spectra()
        taps = _apart(taps, 0, taps.shape[0] // self.groups)  # (G, O, C, parts, F)
        if own.shape[-3] == taps.shape[1] == 1:
            total = (own * taps[:, 0]).sum(-2)  # (..., G, 1, F)
        else:
            total = torch.einsum("...gcpf,gocpf->...gof", own, taps)
        far = torch.fft.irfft(total, 2 * self.block)[..., self.block :]
        return spectra, far.flatten(-3, -2)

    def _tame(self, samples: Tensor) -> bool:
        peaks = _apart(samples, -1, self.block).abs().amax(-1)
        loudest = peaks.amax()
        quietest = torch.where(peaks > 0, peaks, loudest).amin()
        return bool(loudest <= quietest * _LOUDER) and bool(loudest < 1e150)


def _apart(x: Tensor, axis: int, inner: int) -> Tensor:
    """One axis as two, of which the second has ``inner`` entries."""
    axis %= x.ndim
    return x.reshape(*x.shape[:axis], -1, inner, *x.shape[axis + 1 :])


def _batched(x: Tensor) -> Tensor:
    return x if x.ndim == 3 else x[None]
