"""Segments: filters longer than a transform may hold, cut up; the segments' results are summed.

# taps     |-- segment 0 --|-- segment 1 --|-- 2 --|
# inputs   x x x x x x x x x x x x x x x x x x x x        each segment reads the same inputs, later
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

from tapwise.engine.kernels import native
from tapwise.geometry import Geometry

# Samples from the first to the last tap of a segment: a transform is then of 2**18 numbers at most.
LONGEST = 1 << 17

_Run = Callable[[Geometry, Tensor, Tensor, Tensor | None], Tensor]


def span_of(geometry: Geometry) -> int:
    """Samples from the first to the last tap of the longest segment."""
    return min(geometry.effective_kernel_size, LONGEST)


def count(geometry: Geometry) -> int:
    """Segments that the filters are cut into."""
    return -(-geometry.kernel_size // _taps(geometry))


def _taps(geometry: Geometry) -> int:
    return max((LONGEST - 1) // geometry.dilation + 1, 1)


def summed(run: _Run, geometry: Geometry, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution of ``input`` (B, C_in, L), segment by segment of the taps: (B, C_out, L_out)."""
    outputs = geometry.output_length(input.shape[-1])
    total = input.new_zeros((input.shape[0], weight.shape[0], outputs))
    if bias is not None:
        total += bias[:, None]
    for start, stop, segment, part in _segments(geometry, input, outputs):
        total += run(segment, part, weight[..., start:stop], None)
    return total


def gradient(
    run: Callable[[Geometry, Tensor, Tensor, Tensor], Tensor],
    geometry: Geometry,
    grad: Tensor,
    input: Tensor,
    weight: Tensor,
) -> Tensor:
    """The gradient of the weight (C_out, C_in / groups, K), segment by segment of the taps."""
    result = weight.new_zeros(weight.shape)
    for start, stop, segment, part in _segments(geometry, input, grad.shape[-1]):
        result[..., start:stop] = run(segment, grad, part, weight[..., start:stop])
    return result


def _segments(geometry: Geometry, input: Tensor, outputs: int) -> Iterator[tuple[int, int, Geometry, Tensor]]:
    """First and last tap of each segment, its geometry, and the inputs that it reads, if any."""
    left = geometry.left
    if geometry.padding_mode != "zeros":
        input, left = native.pad(geometry, input), 0
    length = input.shape[-1]
    for start in range(0, geometry.kernel_size, _taps(geometry)):
        stop = min(start + _taps(geometry), geometry.kernel_size)
        begin = start * geometry.dilation - left
        end = begin + (outputs - 1) * geometry.stride + (stop - start - 1) * geometry.dilation + 1
        if begin >= length or end <= 0:
            continue  # zeros alone
        padding = (max(-begin, 0), max(end - length, 0))
        segment = Geometry(stop - start, geometry.stride, geometry.dilation, padding, geometry.groups)
        yield start, stop, segment, input[..., max(begin, 0) : min(end, length)]
