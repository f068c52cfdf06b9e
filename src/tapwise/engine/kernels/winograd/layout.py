"""Layout: how a filter is cut into segments, where its transformed weight lies, and the memory that a block needs."""

from __future__ import annotations

import torch
from torch import Tensor

from tapwise.engine.compiled import vector_bytes
from tapwise.engine.kernels.program.packing import LANES, WIDEST, packed, padded, panels
from tapwise.engine.kernels.winograd.interpolation import minimal_filtering

# Outputs of a tile, and taps of a segment where a filter has several.
OUTPUTS = SEGMENT = 4
# By how much fewer the products have to be.
_LEAST_SAVING = 1.15
# Rows of a chunk of tiles, at most: a block holds full chunks.
LONGEST_CHUNK = 128
_SIZE = 4  # bytes of a number
# Rows of a block: the weight is read once for each, and what is transformed has to stay in the cache.
_MOST_ROWS, _FEWEST_ROWS, _CACHED = 192, 96, 1 << 19


def unstrided(inputs: int, taps: int, stride: int) -> tuple[int, int]:
    """The inputs and taps of a filter of stride 1 that does what one of a stride does: its rows are ``stride`` rows each.

    Example:
        >>> unstrided(128, 8, 4), unstrided(128, 3, 2), unstrided(128, 7, 1)
        ((512, 2), (256, 2), (128, 7))
    """
    return inputs * stride, (taps + stride - 1) // stride


def saving(taps: int, stride: int = 1) -> float:
    """The products of a filter by those of its tiles.

    Example:
        >>> saving(3), saving(2), saving(8, 4), saving(5, 4)
        (2.0, 1.6, 1.6, 1.0)
    """
    _, own = unstrided(1, taps, stride)
    return OUTPUTS * taps / (points_of(own) * segments_of(own) * stride)


def why_not(taps: int, stride: int = 1, dilation: int = 1) -> str | None:
    """Why windows aren't filtered; None where they are.

    Example:
        >>> why_not(5, 4)
        'saves few products of 5 taps at stride 4'
    """
    if stride > 1 < dilation:
        return "does a stride or a dilation, not both"
    if saving(taps, stride) < _LEAST_SAVING:
        return f"saves few products of {taps} taps at stride {stride}"
    if OUTPUTS * dilation > LONGEST_CHUNK:
        return f"does dilations of at most {LONGEST_CHUNK // OUTPUTS}"
    return None


def segments_of(taps: int) -> int:
    """The segments of a filter: one of up to five taps, or some of four.

    Example:
        >>> [segments_of(taps) for taps in (3, 5, 6, 8, 11)]
        [1, 1, 2, 2, 3]
    """
    return 1 if taps < 6 else -(-taps // SEGMENT)


def taps_of(taps: int) -> int:
    """The taps of a segment."""
    return taps if taps < 6 else SEGMENT


def points_of(taps: int) -> int:
    """Products of a tile and a segment, instead of ``OUTPUTS * taps_of(taps)``."""
    return OUTPUTS + taps_of(taps) - 1


def transformed_row(inputs: int) -> int:
    """Bytes from one transformed row to the next: no multiple of what would let rows meet in the same lines of a cache."""
    return -(-inputs * _SIZE // 64) * 64 + 64


def zeros_of(inputs: int) -> int:
    """Numbers of the zeros before a transformed weight: for a row of inputs, or the bias of a panel."""
    return max(transformed_row(inputs), WIDEST * vector_bytes()) // _SIZE


def numbers_of(inputs: int, outputs: int, taps: int) -> int:
    """Numbers of a transformed weight, with the zeros before it."""
    return zeros_of(inputs) + points_of(taps) * segments_of(taps) * inputs * padded(outputs)


def _of_stride_1(weight: Tensor, stride: int) -> Tensor:
    """The weight (C_out, C_in, K) of a stride as that of stride 1: (C_out, stride * C_in, taps)."""
    if stride == 1:
        return weight
    outputs, inputs, taps = weight.shape
    wide, own = unstrided(inputs, taps, stride)
    full = weight.new_zeros((outputs, inputs, own * stride))
    full[..., :taps] = weight
    return full.reshape(outputs, inputs, own, stride).permute(0, 3, 1, 2).reshape(outputs, wide, own)


def transformed(weight: Tensor, stride: int = 1) -> Tensor:
    """The transformed weight of (C_out, C_in, K): zeros, then panels, each point by point.

    # panel 0: point 0 (segments, C_in, columns) | point 1 | ...        panel 1: ...
    """
    weight = _of_stride_1(weight, stride)
    outputs, inputs, taps = weight.shape
    segments, r = segments_of(taps), taps_of(taps)
    points = torch.tensor([[float(v) for v in row] for row in minimal_filtering(OUTPUTS, r).taps], dtype=torch.float64)
    wide = weight.new_zeros((outputs, inputs, segments * r), dtype=torch.float64)
    wide[..., :taps] = weight
    by_point = torch.einsum("pt,oist->psio", points, wide.reshape(outputs, inputs, segments, r)).float()
    parts, start = [weight.new_zeros(zeros_of(inputs))], 0
    for n in panels(outputs):
        parts += [packed(part[..., start : start + n * LANES]) for part in by_point]
        start += n * LANES
    return torch.cat(parts)


def block_of(inputs: int, dilation: int, count: int) -> int:
    """Rows of a task, full chunks, where ``count`` are computed."""
    chunk = OUTPUTS * dilation
    most = max(_FEWEST_ROWS, min(_MOST_ROWS, _CACHED // (8 * inputs)))
    rows = min(most, max(_FEWEST_ROWS, -(-count // 16)))
    return -(-rows // chunk) * chunk


def rows_read(rows: int, taps: int, dilation: int) -> int:
    """Rows of inputs that the tiles of some rows of outputs reach."""
    chunks = -(-rows // (OUTPUTS * dilation))
    return ((chunks + segments_of(taps) - 1) * OUTPUTS + taps_of(taps) - 1) * dilation


def memory_of(rows: int, inputs: int, taps: int, dilation: int) -> int:
    """Bytes in which the filtering of some rows works."""
    chunks = -(-rows // (OUTPUTS * dilation))
    tiles, outputs = (chunks + segments_of(taps) - 1) * dilation, chunks * dilation
    each = tiles * transformed_row(inputs) + outputs * WIDEST * vector_bytes() + 64
    return points_of(taps) * each + 8 * chunks
