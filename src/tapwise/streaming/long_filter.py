"""Long filters live, chunk by chunk, without delay.

The taps are cut into segments of P. The last ones, the head, read the newest samples directly; all others
need only samples of blocks that are complete, and are applied once a block, by spectra.

# taps      [ first segment | ... | second last | head ]      the newest sample meets the last tap
# samples   [ block b-n ...  | b-2 | b-1    | b, being filled ]
#             spectra of each pair of blocks        P - 1 samples and the chunk

Source: W. G. Gardner, Efficient convolution without input-output delay, 1995; uniformly partitioned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tapwise.chunks import joined
from tapwise.engine.dispatch import convolve
from tapwise.geometry import Geometry
from tapwise.network.execution import Buffers, Counts
from tapwise.network.graph import Node
from tapwise.network.operations import Convolve
from tapwise.network.timeline import Windows

# Fewer taps are convolved directly, by the engine.
FEWEST = 1024
# Blocks louder than the quietest by more are summed directly, as the engine's fft has it.
_LOUDER = 1e7


def block_of(node: Node) -> int:
    """Samples of a segment; 0 where the operation is no long filter."""
    if not (isinstance(node.work, Convolve) and isinstance(node.timeline, Windows)):
        return 0
    g = node.timeline.geometry
    is_simple = not g.transposed and g.stride == g.dilation == 1 and g.padding_mode == "zeros"
    is_real = node.work.weight.dtype in (torch.float32, torch.float64)
    if not (is_simple and is_real and g.kernel_size >= FEWEST and g.left < g.kernel_size):
        return 0
    # One transform a block, and products for each segment: least work near the root of the taps.
    return max(64, min(1024, 1 << math.isqrt(g.kernel_size).bit_length()))


class LongFilter:
    """A convolution of stride 1 by many taps."""

    def __init__(self, node: Node, axes: tuple[int, ...]) -> None:
        assert isinstance(node.timeline, Windows)
        assert isinstance(node.work, Convolve)
        g = node.timeline.geometry
        self.left, self.groups, self.block = g.left, g.groups, block_of(node)
        self.weight, self.bias, self.taps = node.work.weight, node.work.bias, g.kernel_size
        self.n_segments = -(-self.taps // self.block)
        self.head = Geometry(self.block, groups=g.groups)
        self.tail = Geometry(self.taps - self.block, groups=g.groups)
        self._spectra: tuple[Tensor, Tensor] | None = None  # the weight of which they are, as a copy, and they

    def spectra(self) -> Tensor:
        """Of all segments but the head: (C_out, C_in / groups, segments - 1, block + 1), the nearest first."""
        # Compared with a copy: a write to the weight may leave no trace.
        if self._spectra is None or not torch.equal(self._spectra[0], self.weight):
            weight = self.weight.detach().clone()
            far = weight[..., : self.taps - self.block].double().flip(-1)
            missing = (self.n_segments - 1) * self.block - far.shape[-1]
            far = torch.nn.functional.pad(far, (0, missing))
            # Both at once and last: an interrupted transform leaves those of before.
            self._spectra = weight, torch.fft.rfft(_split(far, -1, self.block), 2 * self.block)
        return self._spectra[1]

    def start(self, batch: int, like: Sequence[Tensor]) -> Buffers:
        x = like[0]
        channels, outputs = x.shape[-2], self.weight.shape[0]
        lead = x.shape[:-2]
        spectra = (*lead, channels, self.n_segments - 1, self.block + 1)
        return [
            # The last samples; the spectra of pairs of blocks, the newest first, as real and imaginary
            # parts, which any file can hold; the far taps' part of the outputs of this block.
            x.new_zeros((*lead, channels, self.n_segments * self.block)),
            x.new_zeros((*spectra, 2), dtype=torch.float64),
            x.new_zeros((*lead, outputs, self.block), dtype=torch.float64),
        ]

    def schedule(self, counts: Counts) -> Any:
        (seen, seen_after), (emitted, stop) = counts.inputs[0], counts.outputs
        # Output i is fixed by input i + taps - 1 - left; at the end, zeros stand for inputs to come.
        offset = self.taps - 1 - self.left
        last = stop + offset if stop > emitted else seen_after
        zeros = max(last - seen_after, 0) if counts.is_end else 0
        first = emitted + offset - seen  # of the new samples, the first that determines an output
        return seen % self.block, zeros, max(first, 0), stop - emitted

    def run(self, schedule: Any, buffers: Buffers, inputs: Sequence[Tensor]) -> tuple[Tensor | None, Buffers]:
        at, zeros, first, count = schedule
        x = inputs[0]
        if zeros:
            x = torch.nn.functional.pad(x, (0, zeros))
        samples, spectra, far = buffers
        outputs, done = [], 0
        while done < x.shape[-1]:
            part = x[..., done : done + self.block - at]
            near = samples[..., samples.shape[-1] - self.block + 1 :]
            y = convolve(joined(near, part), self._near(), None, self.head)
            outputs.append(y + far[..., at : at + part.shape[-1]].to(y.dtype))
            samples = torch.cat((samples[..., part.shape[-1] :], part), -1)
            done, at = done + part.shape[-1], at + part.shape[-1]
            if at == self.block:
                at = 0
                spectra, far = self._next(samples, spectra)
        if not count:
            return None, [samples, spectra, far]
        y = torch.cat(outputs, -1)[..., first : first + count]
        y = y.clone() if self.bias is None else y + self.bias[:, None]
        return y, [samples, spectra, far]

    def _near(self) -> Tensor:
        return self.weight[..., self.taps - self.block :]

    def _next(self, samples: Tensor, spectra: Tensor) -> tuple[Tensor, Tensor]:
        """A block is complete: its spectrum, and what the far taps give for the next."""
        pair = samples[..., -2 * self.block :].double()
        newest = torch.fft.rfft(pair)[..., None, :]
        blocks = torch.cat((newest, torch.view_as_complex(spectra)[..., :-1, :]), -2)
        spectra = torch.view_as_real(blocks)
        if not self._is_narrow_range(samples):
            # The next block's outputs, by the far taps alone, as sums.
            history = samples[..., samples.shape[-1] - self.taps + 1 :]
            weight = self.weight[..., : self.taps - self.block]
            return spectra, convolve(history, weight, None, self.tail).double()
        blocks = _split(blocks, -3, blocks.shape[-3] // self.groups)  # (..., G, C, segments, F)
        taps = self.spectra()
        taps = _split(taps, 0, taps.shape[0] // self.groups)  # (G, O, C, segments, F)
        if blocks.shape[-3] == taps.shape[1] == 1:
            total = (blocks * taps[:, 0]).sum(-2)  # (..., G, 1, F)
        else:
            total = torch.einsum("...gcpf,gocpf->...gof", blocks, taps)
        far = torch.fft.irfft(total, 2 * self.block)[..., self.block :]
        return spectra, far.flatten(-3, -2)

    def _is_narrow_range(self, samples: Tensor) -> bool:
        """Whether every block is loud enough beside the others for transforms, and all are finite."""
        peaks = _split(samples, -1, self.block).abs().amax(-1)
        loudest = peaks.amax()
        quietest = torch.where(peaks > 0, peaks, loudest).amin()
        return bool(loudest <= quietest * _LOUDER) and bool(loudest < 1e150)


def _split(x: Tensor, axis: int, inner: int) -> Tensor:
    """One axis as two, of which the second has ``inner`` entries."""
    axis %= x.ndim
    return x.reshape(*x.shape[:axis], -1, inner, *x.shape[axis + 1 :])
