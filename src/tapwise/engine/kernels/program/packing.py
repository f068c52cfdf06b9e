"""Packing: weights in the order in which the tiles read them.

# weight (C_out, C_in, K)   ->   panels of up to WIDEST vectors of output channels, each (K, C_in, columns)
"""

from __future__ import annotations

import torch
from torch import Tensor

from tapwise.engine.compiled import vector_bytes
from tapwise.engine.kernels.program.interpolation import minimal_filtering

LANES = vector_bytes() // 4
# Vectors of a panel: as the registers allow.
WIDEST = 4 if vector_bytes() == 64 else 2
# Outputs of a tile of Winograd's filtering, and taps of a segment where a filter has more than one.
OUTPUTS = SEGMENT = 4
_SIZE = 4  # bytes of a number


def panels(columns: int) -> list[int]:
    """The vectors of each panel of a product of some columns.

    Example:
        >>> sum(panels(100)) == -(-100 // LANES)
        True
    """
    left, found = -(-columns // LANES), []
    while left:
        n = WIDEST - 1 if left == WIDEST + 1 and WIDEST > 2 else min(left, WIDEST)
        found.append(n)
        left -= n
    return found


def padded(columns: int) -> int:
    """Columns with those that fill the last vector."""
    return -(-columns // LANES) * LANES


def packed(weight: Tensor) -> Tensor:
    """A weight (K, C_in, C_out) in panels, one after the other."""
    taps, inputs, columns = weight.shape
    wide = weight.new_zeros((taps, inputs, padded(columns)))
    wide[..., :columns] = weight
    parts, start = [], 0
    for n in panels(columns):
        parts.append(wide[..., start : start + n * LANES].reshape(-1))
        start += n * LANES
    return torch.cat(parts) if parts else weight.new_zeros(0)


def packed_bias(bias: Tensor | None, columns: int, groups: int = 1) -> Tensor:
    """A bias (C_out,), or zeros, filled up to full vectors by group."""
    each = columns // groups
    wide = torch.zeros((groups, padded(each)), dtype=torch.float32, device="cpu")
    if bias is not None:
        wide[:, :each] = bias.reshape(groups, each)
    return wide.reshape(-1)


def packed_groups(weight: Tensor, groups: int) -> Tensor:
    """The weight (C_out, C_in / groups, K) of a convolution, packed group by group."""
    each = weight.shape[0] // groups
    return torch.cat([packed(part.permute(2, 1, 0)) for part in torch.split(weight, each)])


def segments_of(taps: int) -> int:
    """The segments of a filter for Winograd's filtering: one of up to five taps, or some of four."""
    return 1 if taps < 6 else -(-taps // SEGMENT)


def packed_winograd(weight: Tensor) -> Tensor:
    """The weight (C_out, C_in, K) of Winograd's filtering: zeros for a row or a panel, then panels, each point by point.

    # panel 0: point 0 (segments, C_in, columns) | point 1 | ...        panel 1: ...
    """
    outputs, inputs, taps = weight.shape
    segments = segments_of(taps)
    r = taps if segments == 1 else SEGMENT
    points = torch.tensor([[float(v) for v in row] for row in minimal_filtering(OUTPUTS, r).taps], dtype=torch.float64)
    wide = weight.new_zeros((outputs, inputs, segments * r), dtype=torch.float64)
    wide[..., :taps] = weight
    by_point = torch.einsum("pt,oist->psio", points, wide.reshape(outputs, inputs, segments, r)).float()
    parts, start = [weight.new_zeros(max(winograd_row(inputs), WIDEST * vector_bytes()) // _SIZE)], 0
    for n in panels(outputs):
        parts += [packed(part[..., start : start + n * LANES]) for part in by_point]
        start += n * LANES
    return torch.cat(parts)


def winograd_row(inputs: int) -> int:
    """Bytes from one transformed row to the next: full lines of the cache, an odd number of them for most."""
    return -(-inputs * _SIZE // 64) * 64 + 64


def winograd_memory(rows: int, inputs: int, taps: int, dilation: int) -> int:
    """Bytes in which Winograd's filtering of some rows works."""
    segments = segments_of(taps)
    points = OUTPUTS + (taps if segments == 1 else SEGMENT) - 1
    chunks = -(-rows // (OUTPUTS * dilation))
    tiles, outputs = (chunks + segments - 1) * dilation, chunks * dilation
    each = tiles * winograd_row(inputs) + outputs * WIDEST * vector_bytes() + 64
    return points * each + 8 * chunks


def packed_depthwise(weight: Tensor) -> Tensor:
    """The weight (C, 1, K) of a depthwise convolution as (K, C), each tap filled up to full vectors."""
    channels, _, taps = weight.shape
    wide = weight.new_zeros((taps, padded(channels)))
    wide[:, :channels] = weight[:, 0].T
    return wide.reshape(-1)


def packed_few_transposed(weight: Tensor, stride: int) -> Tensor:
    """The same of few outputs and taps that are a multiple of the stride: (taps / stride, C_in, stride * C_out), packed."""
    inputs, outputs, taps = weight.shape
    by_phase = weight.reshape(inputs, outputs, taps // stride, stride).permute(2, 0, 3, 1).flip(0)
    return packed(by_phase.reshape(taps // stride, inputs, stride * outputs))


def packed_transposed(weight: Tensor, stride: int) -> Tensor:
    """The weight (C_in, C_out, K) of a transposed convolution, packed by phase of its stride, the last tap first."""
    parts = []
    for phase in range(stride):
        taps = weight[..., phase::stride].flip(-1)
        if taps.shape[-1]:
            parts.append(packed(taps.permute(2, 0, 1)))
    return torch.cat(parts)
