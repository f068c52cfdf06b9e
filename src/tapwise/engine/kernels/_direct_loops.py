"""The loops of the direct kernel, compiled by Numba at first use.

Compiled with "contract" alone: products and sums may fuse, but NaN and infinity stay what they are.
Arrays are flat and indices unsigned: slices would count references and signed indices would be
tested for wrapping around, each several times the cost of the arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

# One block of outputs stays in the first-level cache while every tap passes over it.
BLOCK = 1024
# Partial sums of so many taps are added up apart, so that rounding doesn't grow with K.
TAPS_A_SUM = 256

_u = np.uint64
_OPTIONS: dict[str, Any] = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}
_inline = numba.njit(inline="always")


def _jit(function: Callable[..., None]) -> Callable[..., None]:
    """Compiled, and kept on disk where there is a place to write."""
    try:
        compiled = numba.njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # no folder can be written, as in a read-only container
        compiled = numba.njit(**_OPTIONS)(function)
    typed: Callable[..., None] = compiled
    return typed


@_inline
def _add_taps(x, offsets, x0, weight, w0, k0, k1, sums, s0, count):
    """sums[s0 + t] += weight[w0 + k] * x[x0 + offsets[k] + t] for k0 <= k < k1, t < count.

    Four taps a pass, since the sums then stay in registers between them.
    """
    k = k0
    while k + 4 <= k1:
        a, xa = weight[w0 + _u(k)], x0 + offsets[k]
        b, xb = weight[w0 + _u(k + 1)], x0 + offsets[k + 1]
        c, xc = weight[w0 + _u(k + 2)], x0 + offsets[k + 2]
        d, xd = weight[w0 + _u(k + 3)], x0 + offsets[k + 3]
        for t in range(count):
            sums[s0 + t] += a * x[xa + t] + b * x[xb + t] + c * x[xc + t] + d * x[xd + t]
        k += 4
    rest = k1 - k
    if rest == 0:
        return
    a, xa = weight[w0 + _u(k)], x0 + offsets[k]
    if rest == 1:
        for t in range(count):
            sums[s0 + t] += a * x[xa + t]
        return
    b, xb = weight[w0 + _u(k + 1)], x0 + offsets[k + 1]
    if rest == 2:
        for t in range(count):
            sums[s0 + t] += a * x[xa + t] + b * x[xb + t]
        return
    c, xc = weight[w0 + _u(k + 2)], x0 + offsets[k + 2]
    for t in range(count):
        sums[s0 + t] += a * x[xa + t] + b * x[xb + t] + c * x[xc + t]


@_inline
def _gather(x, row, length, first, span, stride, phase, sources, left, room, r0):
    """Write the positions [first, first + span) of one input row to ``room``, padding filled in.

    # stride 3:  x     a b c d e f g h ...
    #            room  a d g ... | b e h ... | c f ...     ``phase`` apart, so that every tap of a
    #                                                      strided window is a contiguous run
    """
    for r in range(stride):
        many = (span - r + stride - 1) // stride
        start = first + r
        # Positions start + q*stride lie within the row for q in [q0, q1).
        q0 = min(many, max(0, (stride - 1 - start) // stride))
        q1 = min(many, max(q0, (length - 1 - start) // stride + 1))
        at = r0 + _u(r) * phase
        if q1 > q0:
            here, there = row + _u(start + q0 * stride), at + _u(q0)
            if stride == 1:
                for t in range(_u(q1 - q0)):
                    room[there + t] = x[here + t]
            else:
                for t in range(_u(q1 - q0)):
                    room[there + t] = x[here + t * _u(stride)]
        for begin, end in ((0, q0), (q1, many)):
            for q in range(begin, end):
                if sources.shape[0] == 0:
                    room[at + _u(q)] = 0
                else:
                    j = start + q * stride
                    j = sources[j + left] if j < 0 else sources[j - length + left]
                    room[at + _u(q)] = x[row + _u(j)]


@_jit
def convolve(x, weight, bias, y, shape, stride, dilation, left, groups, sources):
    """y (B, C_out, L_out) = x (B, C_in, L) convolved with weight (C_out, C_in/groups, K) + bias.

    All arrays flat; ``shape`` is (B, C_in, L, C_out, K, L_out). ``sources`` holds, for padding modes
    other than zeros, the inputs that fill the left padding and then the right.
    """
    batch, in_channels, length, out_channels, taps, outputs = shape
    channels = in_channels // groups
    outputs_in_group = out_channels // groups
    reach = dilation * (taps - 1) + 1
    phase = min(BLOCK, outputs) + (reach - 1) // stride + 1
    room = np.empty(channels * stride * phase, x.dtype)
    partial = np.empty(BLOCK, x.dtype)
    apart = np.empty(taps, np.uint64)  # where tap k's run begins: in x, and in the room
    together = np.empty(taps, np.uint64)
    for k in range(taps):
        apart[k] = ((k * dilation) % stride) * phase + (k * dilation) // stride
        together[k] = k * dilation
    for b in range(batch):
        for g in range(groups):
            for begin in range(0, outputs, BLOCK):
                many = min(BLOCK, outputs - begin)
                count = _u(many)
                first = begin * stride - left
                span = (many - 1) * stride + reach
                row = (b * in_channels + g * channels) * length
                inside = stride == 1 and first >= 0 and first + span <= length
                if inside:
                    block, offsets, base, pitch = x, together, row + first, length
                else:
                    block, offsets, base, pitch = room, apart, 0, stride * phase
                    for c in range(channels):
                        _gather(
                            x, _u(row + c * length), length, first, span, stride, _u(phase),
                            sources, left, room, _u(c * pitch),
                        )  # fmt: skip
                for o in range(g * outputs_in_group, (g + 1) * outputs_in_group):
                    out = _u((b * out_channels + o) * outputs + begin)
                    for t in range(count):
                        y[out + t] = bias[o]
                    for c in range(channels):
                        x0, w0 = _u(base + c * pitch), _u((o * channels + c) * taps)
                        if taps <= TAPS_A_SUM:
                            _add_taps(block, offsets, x0, weight, w0, 0, taps, y, out, count)
                            continue
                        for k in range(0, taps, TAPS_A_SUM):
                            partial[:] = 0
                            last = min(k + TAPS_A_SUM, taps)
                            _add_taps(
                                block, offsets, x0, weight, w0, k, last, partial, _u(0), count
                            )
                            for t in range(count):
                                y[out + t] += partial[t]
