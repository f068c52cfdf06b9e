"""Partition: which inputs a run of outputs needs, and how to compute just that run.

Engine-neutral integers. The command's block reader, a layer's stream and, later, ranks all ask here.

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
    values of ``right``: that gives exactly these outputs. ``left`` and ``right`` name inputs of the
    whole signal that padding copies (empty for zeros, which ``geometry`` pads itself).
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
    # The positions that the windows of these outputs span, of which some may lie outside the signal.
    first = start * geometry.stride - geometry.left
    last = (stop - 1) * geometry.stride - geometry.left + geometry.effective_kernel_size
    inputs = (min(max(first, 0), length), min(max(last, 0), length))
    before = range(min(first, 0), min(last, 0))
    after = range(max(first, length), max(last, length))
    if geometry.padding_mode == "zeros":
        local = replace(geometry, padding=(len(before), len(after)))
        return Part((start, stop), inputs, local)
    sources = [
        tuple(j for p in side if (j := geometry.source(p, length)) is not None)
        for side in (before, after)
    ]
    local = replace(geometry, padding=(0, 0), padding_mode="zeros")
    return Part((start, stop), inputs, local, *sources)


def _part_transposed(geometry: Geometry, start: int, stop: int, length: int) -> Part:
    stride, reach = geometry.stride, geometry.effective_kernel_size
    # Count from the first output of the first input, as if nothing were cut: input j reaches
    # [j * stride, j * stride + reach).
    begin, end = start + geometry.left, stop + geometry.left
    first = max(0, -(-(begin - reach + 1) // stride))
    # Where strides leave gaps no input may reach a run of outputs: take the one before it, whose
    # outputs are then cut, since a convolution of nothing has no outputs to speak of.
    first = min(first, begin // stride, length - 1)
    last = min(length, (end - 1) // stride + 1)
    cut = begin - first * stride
    surplus = (last - 1 - first) * stride + reach - cut - (stop - start)
    local = replace(
        geometry, padding=(cut, max(surplus, 0)), output_padding=max(-surplus, 0)
    )  # fmt: skip
    return Part((start, stop), (first, last), local)


def determined(geometry: Geometry, seen: int, certain: int | None = None) -> int:
    """How many outputs are fixed once ``seen`` inputs are known, whatever follows them.

    ``certain`` inputs will come in all, at least; where it is not given, no more than are seen.

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
            return 0  # the left padding mirrors samples that have not come yet
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
        begin = emitted + geometry.left
        reach = geometry.effective_kernel_size
        needed = min(-(-(begin - reach + 1) // stride), begin // stride, seen - 1)
    else:
        needed = emitted * stride - geometry.left
        if geometry.right and geometry.padding_mode == "reflect":
            needed = min(needed, seen - 1 - geometry.right)
        elif geometry.right and geometry.padding_mode == "replicate":
            needed = min(needed, seen - 1)
    return min(max(needed, 0), seen)
