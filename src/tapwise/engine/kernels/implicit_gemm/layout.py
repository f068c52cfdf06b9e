"""Layout: how a convolution is cut into blocks, phases and tasks for products of matrices in the cache.

# inputs    a block of positions as rows of channels: (t, C_in)
# weight    panels of output channels, each (tap, C_in, columns); transposed: the taps phase by phase
# sums      a block of rows of a panel: (t, columns)
"""

from __future__ import annotations

from functools import lru_cache
from math import gcd
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tapwise.engine.compiled import vector_bytes
from tapwise.engine.kernels.loops.spans import rows_read
from tapwise.engine.kernels.program.packing import WIDEST, panels
from tapwise.geometry import Geometry

# Rows of a block, at most, and the bytes of its inputs, which stay in the cache. Where it has more rows than these,
# they are a multiple: of every tile's rows.
_MOST_ROWS, _FULL_TILES, _CACHED = 192, 48, 1 << 19
# Longer sums are split into sums of this number of products, so that rounding doesn't grow with the taps and channels.
PRODUCTS_A_SUM = 256
# Outputs, at most, that a tile of the weight's gradient sums before their sum is added to the others'.
_SUMMED = 256
# Output channels of a task of the weight's gradient, and where tasks would be few. Each task gathers its inputs anew.
_ROWS, _FEW_ROWS, _MOST_GRAD_ROWS, _ENOUGH_TASKS = 24, 12, 96, 8
# Rows of products, taps times output channels, that are worth gathering inputs for.
_WORTH_GATHERING = 144
# Bytes from one row of sums to the next.
SUMS_ROW = WIDEST * vector_bytes() + 64


class Phases(NamedTuple):
    """How taps meet inputs: a convolution has one phase, a transposed one a phase for each output of a stride.

    # stride 2, K 5   outputs 2m     inputs m-2, m-1, m  times taps 4, 2, 0
    #                 outputs 2m+1   inputs m-1, m       times taps 3, 1

    Arguments:
        taps: in the order in which products are summed, phase by phase.
        counts: of the taps of each phase.
        firsts: the input of each phase's first tap, for m = 0.
        step: inputs from one tap of a phase to the next.
    """

    taps: tuple[int, ...]
    counts: tuple[int, ...]
    firsts: tuple[int, ...]
    step: int

    @property
    def reach(self) -> int:
        """The last input less the first that outputs of one m read."""
        lasts = [f + (n - 1) * self.step for f, n in zip(self.firsts, self.counts, strict=True) if n]
        return max(lasts) - self.first

    @property
    def first(self) -> int:
        """The first input that an output of any phase reads, for m = 0."""
        return min(f for f, n in zip(self.firsts, self.counts, strict=True) if n)

    def table(self) -> npt.NDArray[np.int64]:
        """Counts, firsts and taps, for compiled code."""
        return np.array([*self.counts, *self.firsts, *self.taps], np.int64)


@lru_cache(maxsize=256)
def phases_of(geometry: Geometry) -> Phases:
    """The phases of a geometry.

    Example:
        >>> phases_of(Geometry(5, 2, transposed=True))
        Phases(taps=(4, 2, 0, 3, 1), counts=(3, 2), firsts=(-2, -1), step=1)
    """
    taps, stride, dilation = geometry.kernel_size, geometry.stride, geometry.dilation
    if not geometry.transposed:
        return Phases(tuple(range(taps)), (taps,), (0,), dilation)
    by_phase: list[list[int]] = [[] for _ in range(stride)]
    for k in reversed(range(taps)):
        by_phase[k * dilation % stride].append(k)
    firsts = tuple((phase - own[0] * dilation) // stride if own else 0 for phase, own in enumerate(by_phase))
    step = dilation // gcd(dilation, stride)
    return Phases(tuple(k for own in by_phase for k in own), tuple(map(len, by_phase)), firsts, step)


def input_row(fan_in: int) -> int:
    """Bytes from one row of inputs to the next: no multiple of what would let rows meet in the same lines of a cache."""
    return -(-fan_in * 4 // 64) * 64 + 64


def block_of(geometry: Geometry, fan_in: int, outputs: int) -> int:
    """Rows of each phase of a block."""
    phases, advance = (geometry.stride, 1) if geometry.transposed else (1, geometry.stride)
    rows = -(-outputs // phases)
    most = min(_MOST_ROWS // phases, _CACHED // (input_row(fan_in) * advance))
    if most > _FULL_TILES:
        most = max(_FULL_TILES, min(most, -(-rows // 16)) // _FULL_TILES * _FULL_TILES)
    return max(1, min(most, rows))


def grad_rows(fan_out: int, fan_in: int, groups: int, taps: int) -> int:
    """Output channels of a task of the weight's gradient."""
    rows = min(-(-_WORTH_GATHERING // (taps * _ROWS)) * _ROWS, _MOST_GRAD_ROWS)
    tasks = groups * len(panels(fan_in)) * -(-fan_out // rows)
    return _FEW_ROWS if tasks < _ENOUGH_TASKS else rows


def outputs_a_sum(stride: int) -> int:
    """Outputs that a task of the weight's gradient gathers inputs for, and sums, at a time."""
    return max(64, min(_SUMMED, _CACHED // (2 * WIDEST * vector_bytes() * stride)))


def packed_channels(fan_in: int, taps: int) -> int:
    """Input channels of a task that packs the weight, which transposes them in the cache."""
    return max(1, min(16, fan_in, _CACHED // (taps * vector_bytes())))


def scratch_bytes(geometry: Geometry, fan_in: int, block: int) -> int:
    """Bytes in which a thread computes a block: its inputs and its sums."""
    sums = block * ((geometry.stride if geometry.transposed else 1) + 1) * SUMS_ROW
    return input_rows(geometry, block) * input_row(fan_in) + sums


def grad_scratch_bytes(geometry: Geometry, share: int, summed: int) -> int:
    """Bytes in which a thread computes a task of the weight's gradient: its inputs and its totals, in float64."""
    row = WIDEST * vector_bytes()
    return input_rows(geometry, summed) * row + geometry.kernel_size * share * 2 * row


def input_rows(geometry: Geometry, block: int) -> int:
    """Rows of inputs that a block reads."""
    if geometry.transposed:
        return block + phases_of(geometry).reach
    return rows_read(block, geometry.kernel_size, geometry.dilation, geometry.stride)
