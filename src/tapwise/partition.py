"""Partition: which inputs a range of outputs needs, and how to compute just that range.

Integers alone. Files read by blocks, streams and, later, ranks all ask here.

    # outputs  [a, b)          a . . b
    # inputs   [lo, hi)    l l lo . . . hi r      l, r: padding, at the true ends of the signal only
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tapwise.geometry import Geometry


@dataclass(frozen=True, slots=True)
class Part:
    """How to compute the outputs ``[outputs[0], outputs[1])`` of a longer signal.

    Run ``geometry`` over the values of ``left``, then the inputs ``[inputs[0], inputs[1])``, then the
    values of ``right``: that gives exactly these outputs. ``left`` and ``right`` are inputs that padding
    copies, by their positions in the full signal (empty for zeros, which ``geometry`` pads itself).
    """

    outputs: tuple[int, int]
    inputs: tuple[int, int]
    geometry: Geometry
    left: tuple[int, ...] = ()
    right: tuple[int, ...] = ()


def part(geometry: Geometry, start: int, stop: int, length: int) -> Part:
    """What the outputs ``[start, stop)`` of a signal of ``length`` inputs need.

    Raises:
        ValueError: outputs that the signal doesn't have.

    Example:
        >>> cut = part(Geometry(3, padding="causal"), 0, 4, 10)
        >>> cut.inputs, cut.geometry.padding
        ((0, 4), (2, 0))
        >>> cut = part(Geometry(3, padding="causal"), 4, 8, 10)
        >>> cut.inputs, cut.geometry.padding
        ((2, 8), (0, 0))
    """
    outputs = geometry.output_length(length)
    if not 0 <= start <= stop <= outputs:
        raise ValueError(f"outputs [{start}, {stop}) are not within [0, {outputs})")
    if start == stop:
        return Part((start, stop), (0, 0), geometry)
    if geometry.transposed:
        return _part_transposed(geometry, start, stop, length)
    first, last = window_span(geometry, start, stop)  # some of it may lie outside the signal
    inputs = (min(max(first, 0), length), min(max(last, 0), length))
    before = range(min(first, 0), min(last, 0))
    after = range(max(first, length), max(last, length))
    if geometry.padding_mode == "zeros":
        local = replace(geometry, padding=(len(before), len(after)))
        return Part((start, stop), inputs, local)
    sources = [tuple(j for p in side if (j := geometry.source(p, length)) is not None) for side in (before, after)]
    local = replace(geometry, padding=(0, 0), padding_mode="zeros")
    return Part((start, stop), inputs, local, *sources)


def rows_of_outputs(geometry: Geometry, length: int) -> range:
    """The row of a table that each output belongs to; those below 0 and from ``length`` on lie beyond the table.

    That is the last row that its window reads, as of a causal filter; where padding lets windows
    reach over both ends ("same"), the row in the window's middle.

    Example:
        >>> rows_of_outputs(Geometry(3), 5), rows_of_outputs(Geometry(3, padding="same"), 5)
        (range(2, 5), range(0, 5))
    """
    first = first_row_of(geometry)
    return range(first, first + geometry.output_length(length) * geometry.stride, geometry.stride)


def first_row_of(geometry: Geometry) -> int:
    """The row that the first output belongs to, as ``rows_of_outputs`` counts; it may lie before the table."""
    effective = geometry.effective_kernel_size
    centred = geometry.right > 0 and geometry.left < effective - 1
    if centred and geometry.left + geometry.right == effective - 1:
        return 0
    return ((effective - 1) // 2 if centred else effective - 1) - geometry.left


def window_span(geometry: Geometry, start: int, stop: int) -> tuple[int, int]:
    """The positions [first, last) that the windows of the outputs [start, stop) span, padding included.

    Example:
        >>> window_span(Geometry(3, padding="causal"), 4, 8)
        (2, 8)
        >>> window_span(Geometry(4, 2, transposed=True), 4, 8)
        (1, 4)
    """
    stride, effective = geometry.stride, geometry.effective_kernel_size
    if not geometry.transposed:
        first, last = start * stride - geometry.left, (stop - 1) * stride - geometry.left
        return first, last + effective
    # Counted from the first output of the first input, as if nothing were cut: input j reaches the
    # outputs [j * stride, j * stride + effective).
    begin, end = start + geometry.left, stop + geometry.left
    first = -(-(begin - effective + 1) // stride)
    # Where strides leave gaps, some outputs read no input: the input before them is taken, since a
    # convolution of no input has no outputs.
    return min(first, begin // stride), (end - 1) // stride + 1


def _part_transposed(geometry: Geometry, start: int, stop: int, length: int) -> Part:
    first, last = window_span(geometry, start, stop)
    first, last = min(max(first, 0), length - 1), min(last, length)
    cut = start + geometry.left - first * geometry.stride
    full_length = (last - 1 - first) * geometry.stride + geometry.effective_kernel_size
    surplus = full_length - cut - (stop - start)
    local = replace(geometry, padding=(cut, max(surplus, 0)), output_padding=max(-surplus, 0))
    return Part((start, stop), (first, last), local)


def determined(geometry: Geometry, seen: int, certain: int | None = None) -> int:
    """How many outputs are fixed once ``seen`` inputs have come, whatever follows them.

    At least ``certain`` inputs will come in all; where it is not given, as many as have come.

    Example:
        >>> determined(Geometry(3), 10), determined(Geometry(3, padding="same"), 10)
        (8, 9)
    """
    if seen == 0:
        return 0
    if geometry.transposed:
        fixed = seen * geometry.stride - geometry.left
    else:
        if geometry.padding_mode == "reflect" and seen <= geometry.left:
            return 0  # the left padding mirrors samples that are still to come
        fixed = (seen + geometry.left - geometry.effective_kernel_size) // geometry.stride + 1
    return min(max(fixed, 0), geometry.output_length(seen if certain is None else certain))


def first_needed(geometry: Geometry, emitted: int, seen: int) -> int:
    """The earliest of ``seen`` inputs that any output from ``emitted`` on may still read.

    Example:
        >>> first_needed(Geometry(3, padding="causal"), 10, 10)
        8
    """
    stride = geometry.stride
    if geometry.transposed:
        needed = min(window_span(geometry, emitted, emitted + 1)[0], seen - 1)
    else:
        needed = emitted * stride - geometry.left
        if geometry.right and geometry.padding_mode == "reflect":
            needed = min(needed, seen - 1 - geometry.right)
        elif geometry.right and geometry.padding_mode == "replicate":
            needed = min(needed, seen - 1)
    return min(max(needed, 0), seen)
