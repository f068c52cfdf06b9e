"""Layout: how inputs, weights and sums of a block lie for the processor's matrices.

# inputs    rows of channels, filled up with zeros to full matrices: (t, C_in)            16 rows of 32 channels
# weight    panels of 32 output channels, each (K, C_in / 32) pairs of matrices           16 pairs of channels of 16 outputs
# sums      rows of a panel's output channels: (t, 32)                                    16 rows of 16 outputs
"""

from __future__ import annotations

import torch
from torch import Tensor

# Of a matrix: rows, bytes of a row, and how many bfloat16 numbers or float32 sums these are.
ROWS, ROW_BYTES = 16, 64
CHANNELS, SUMS = 32, 16
MATRIX_BYTES = ROWS * ROW_BYTES
# Output channels of a panel, rows of a step.
PANEL, STEP = 2 * SUMS, 2 * ROWS
# Bytes from one row of sums to the next: no multiple of what would let rows meet in the same lines of a cache.
SUMS_ROW = 4 * PANEL + ROW_BYTES
# Rows of a block, at most, and the bytes of its inputs, which stay in the cache while the weight is read.
_MOST_ROWS, _CACHED = 256, 1 << 19


def chunks_of(fan_in: int) -> int:
    """Matrices side by side that hold the channels of a row.

    Example:
        >>> [chunks_of(channels) for channels in (1, 32, 33)]
        [1, 1, 2]
    """
    return -(-fan_in // CHANNELS)


def input_row(fan_in: int) -> int:
    """Bytes from one row of inputs to the next: no multiple of what would let rows meet in the same lines of a cache."""
    return (-(-fan_in // CHANNELS) | 1) * ROW_BYTES


def panels_of(fan_out: int) -> int:
    return -(-fan_out // PANEL)


def panel_bytes(taps: int, chunks: int) -> int:
    """Bytes of a panel of the weight."""
    return taps * chunks * 2 * MATRIX_BYTES


def packed_bytes(fan_in: int, fan_out: int, taps: int) -> int:
    """Bytes of a weight."""
    return panels_of(fan_out) * panel_bytes(taps, chunks_of(fan_in))


def block_of(fan_in: int, stride: int, outputs: int) -> int:
    """Rows of a block, a multiple of a step's."""
    most = min(_MOST_ROWS, _CACHED // (input_row(fan_in) * stride) // STEP * STEP)
    return max(STEP, min(most, -(-outputs // STEP) * STEP))


def packed(weight: Tensor) -> Tensor:
    """A weight (C_out, C_in, K) in panels, rounded to bfloat16."""
    fan_out, fan_in, taps = weight.shape
    panels, chunks = panels_of(fan_out), chunks_of(fan_in)
    wide = weight.new_zeros((panels * PANEL, chunks * CHANNELS, taps), dtype=torch.bfloat16)
    wide[:fan_out, :fan_in] = weight
    # (panel, columns, column, chunk, pair, one of two, tap)
    parts = wide.view(panels, PANEL // SUMS, SUMS, chunks, ROWS, 2, taps)
    return parts.permute(0, 6, 3, 1, 4, 2, 5).reshape(-1)
