"""Timeline: how an operation maps time. Pure integers and fractions; tensors are nowhere here.

An operation turns a sequence of N inputs into one of ``total(N)`` outputs. While a stream runs, some
inputs have been ``seen``, and at least ``certain`` will come in all (more than have been seen where an
earlier operation holds some back).

# inputs   [ dropped | kept ........... | not seen ... )        kept from ``first_needed`` on
# outputs  [ determined ....... | not yet ............ )        no later input changes the determined ones
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import gcd
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tapwise import partition
from tapwise.geometry import Geometry

Positions = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class Timeline(Protocol):
    """What the rest asks of every operation."""

    @property
    def rate(self) -> Fraction:
        """Outputs for each input."""

    @property
    def endless(self) -> bool:
        """Whether an output reads all inputs before it."""

    def total(self, length: int) -> int:
        """Outputs for ``length`` inputs."""

    def determined(self, seen: int, certain: int) -> int:
        """Outputs that are fixed once ``seen`` inputs have come, of at least ``certain`` in all."""

    def first_needed(self, output: int, seen: int) -> int:
        """The earliest of ``seen`` inputs that any output from ``output`` on may still read."""

    def reads(self, outputs: Positions) -> Positions:
        """The inputs that each output reads, far from both ends: (outputs, reads)."""

    def sources(self, marks: Mask, first: int) -> tuple[Mask, int]:
        """The inputs that any of the outputs marked reads, far from both ends.

        Arguments:
            marks: (rows, n) of outputs from position ``first`` on.

        Returns:
            (rows, m) of inputs, and the position of the first.
        """

    def spread(self, mask: Mask) -> Mask:
        """The outputs that read any of the inputs marked."""


def widened(marks: Mask, taps: int, dilation: int) -> Mask:
    """(rows, n + dilation * (taps - 1)): marks at 0, dilation, ... dilation * (taps - 1) after each mark.

    Example:
        >>> widened(np.array([[True, False, False]]), 2, 2).astype(int).tolist()
        [[1, 0, 1, 0, 0]]
    """
    covered = 1
    while covered < taps:  # twice as many taps each time
        step = min(covered, taps - covered)
        longer = np.zeros((marks.shape[0], marks.shape[1] + step * dilation), bool)
        longer[:, : marks.shape[1]] = marks
        longer[:, step * dilation :] |= marks
        marks, covered = longer, covered + step
    return marks


@dataclass(frozen=True, slots=True)
class Windows:
    """A convolution, a pooling, an upsampling: each output reads the window of a geometry.

    What pads otherwise than by zeros is ``Ends``, before the windows.
    """

    geometry: Geometry

    @property
    def rate(self) -> Fraction:
        stride = self.geometry.stride
        return Fraction(stride) if self.geometry.transposed else Fraction(1, stride)

    @property
    def endless(self) -> bool:
        return False

    def total(self, length: int) -> int:
        return self.geometry.output_length(length)

    def determined(self, seen: int, certain: int) -> int:
        return partition.determined(self.geometry, seen, certain)

    def first_needed(self, output: int, seen: int) -> int:
        return partition.first_needed(self.geometry, output, seen)

    def reads(self, outputs: Positions) -> Positions:
        g, o = self.geometry, outputs[:, None]
        taps = np.arange(g.kernel_size, dtype=np.int64) * g.dilation
        if not g.transposed:
            return o * g.stride - g.left + taps
        # Taps that reach an output from an input: those an integer number of strides away.
        shifted = o + g.left - taps
        met = shifted % g.stride == 0
        most = max(int(met.sum(1).max(initial=0)), 1)
        order = np.argsort(~met, axis=1, kind="stable")[:, :most]
        at = np.where(met, shifted // g.stride, NOWHERE)
        return np.take_along_axis(at, order, 1)

    def sources(self, marks: Mask, first: int) -> tuple[Mask, int]:
        g = self.geometry
        if not g.transposed:
            spaced = np.zeros((marks.shape[0], (marks.shape[1] - 1) * g.stride + 1), bool)
            spaced[:, :: g.stride] = marks
            return widened(spaced, g.kernel_size, g.dilation), first * g.stride - g.left
        # Every tap before an output, then those places at which an input begins.
        places = widened(marks, g.kernel_size, g.dilation)
        begin = first + g.left - g.effective_kernel_size + 1
        skipped = -begin % g.stride
        return places[:, skipped :: g.stride], (begin + skipped) // g.stride

    def spread(self, mask: Mask) -> Mask:
        g, outputs = self.geometry, self.total(len(mask))
        if g.transposed:
            length = max(len(mask) - 1, 0) * g.stride + g.effective_kernel_size + g.output_padding
            full = np.zeros(length, bool)
            for k in range(g.kernel_size):
                at = k * g.dilation
                full[at : at + (len(mask) - 1) * g.stride + 1 : g.stride] |= mask
            return full[g.left : g.left + outputs]
        padded = np.pad(mask, g.padding)
        spread = np.zeros(outputs, bool)
        for k in range(g.kernel_size):
            at = k * g.dilation
            spread |= padded[at : at + (outputs - 1) * g.stride + 1 : g.stride]
        return spread


# In ``reads``, where an output reads fewer inputs than another.
NOWHERE = np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True)
class Ends:
    """Padding and cropping: positions added to both ends, or, where negative, cut from them.

    Arguments:
        left: positions added before the first input.
        right: positions added after the last, by the remainder of the length by the table's size:
            ``(2,)`` always, ``(0, 3, 2, 1)`` up to a multiple of four.
        padding_mode: what stands there: ``"zeros"`` (or another constant), ``"reflect"``, ``"replicate"``.
    """

    left: int
    right: tuple[int, ...]
    padding_mode: str = "zeros"

    @property
    def rate(self) -> Fraction:
        return Fraction(1)

    @property
    def endless(self) -> bool:
        return False

    def added(self, length: int) -> int:
        """Positions added on the right of ``length`` inputs; negative: cut."""
        return self.right[length % len(self.right)]

    def total(self, length: int) -> int:
        return max(0, self.left + length + self.added(length)) if length else 0

    def determined(self, seen: int, certain: int) -> int:
        if seen == 0 or (self.padding_mode == "reflect" and seen <= self.left):
            return 0
        return max(0, min(seen + self.left, self.total(certain)))

    def first_needed(self, output: int, seen: int) -> int:
        needed = output - self.left
        most = max(self.right)
        if most > 0 and self.padding_mode == "reflect":
            needed = min(needed, seen - 1 - most)
        elif most > 0 and self.padding_mode == "replicate":
            needed = min(needed, seen - 1)
        return min(max(needed, 0), seen)

    def reads(self, outputs: Positions) -> Positions:
        return outputs[:, None] - self.left

    def sources(self, marks: Mask, first: int) -> tuple[Mask, int]:
        return marks, first - self.left

    def spread(self, mask: Mask) -> Mask:
        right = self.added(len(mask))
        padded = _padded(mask, max(self.left, 0), max(right, 0), self.padding_mode)
        return padded[max(-self.left, 0) : len(padded) - max(-right, 0)]


@dataclass(frozen=True, slots=True)
class Aligned:
    """Sample by sample, and recurrences: output i belongs to input i.

    Arguments:
        endless: whether it reads all inputs before as well.
    """

    endless: bool = False

    @property
    def rate(self) -> Fraction:
        return Fraction(1)

    def total(self, length: int) -> int:
        return length

    def determined(self, seen: int, certain: int) -> int:
        return seen

    def first_needed(self, output: int, seen: int) -> int:
        return min(output, seen)

    def reads(self, outputs: Positions) -> Positions:
        return outputs[:, None]

    def sources(self, marks: Mask, first: int) -> tuple[Mask, int]:
        return marks, first

    def spread(self, mask: Mask) -> Mask:
        return np.logical_or.accumulate(mask) if self.endless else mask


@dataclass(frozen=True, slots=True)
class Entire:
    """Each output reads all inputs, as a normalisation over time does: it is determined at the end alone."""

    @property
    def rate(self) -> Fraction:
        return Fraction(1)

    @property
    def endless(self) -> bool:
        return True

    def total(self, length: int) -> int:
        return length

    def determined(self, seen: int, certain: int) -> int:
        return 0

    def first_needed(self, output: int, seen: int) -> int:
        return 0

    def reads(self, outputs: Positions) -> Positions:
        return outputs[:, None]

    def sources(self, marks: Mask, first: int) -> tuple[Mask, int]:
        return np.ones_like(marks), first

    def spread(self, mask: Mask) -> Mask:
        return np.full_like(mask, bool(mask.any()))


def _padded(mask: Mask, left: int, right: int, mode: str) -> Mask:
    if mode == "zeros" or (left, right) == (0, 0):
        return np.pad(mask, (left, right))
    length = len(mask)
    at = np.arange(-left, length + right)
    outside = (at < 0) | (at >= length)
    folded = Geometry(1, padding_mode=mode).fold(at, length)
    return mask[np.where(outside, folded, at)]


def fit_ends(lengths: Sequence[int], amounts: Sequence[int]) -> tuple[int, ...] | None:
    """What is added on the right for each length, as a table by remainder; None where nothing fits.

    Tried: always the same; up to a multiple; down to a multiple (a crop).

    Example:
        >>> fit_ends([5, 6, 7, 8, 9], [3, 2, 1, 0, 3])
        (0, 3, 2, 1)
    """
    if len(set(amounts)) == 1:
        return (amounts[0],)
    pairs = list(zip(lengths, amounts, strict=True))
    # With its padding every length is a multiple, up to something that is always the same.
    multiple = gcd(*(n + r - lengths[0] - amounts[0] for n, r in pairs))
    if multiple < 2 or max(amounts) - min(amounts) >= multiple:
        return None
    return _table(pairs, multiple, (lengths[0] + amounts[0]) % multiple)


def _table(pairs: list[tuple[int, int]], multiple: int, rest: int) -> tuple[int, ...] | None:
    """The amounts by remainder: ``low`` to ``low + multiple - 1``, for a ``low`` that all lengths allow."""
    seen = [r for _, r in pairs]
    lows = range(max(seen) - multiple + 1, min(seen) + 1)
    # Zero is where padding usually begins, and where cropping ends.
    for low in sorted(lows, key=lambda low: (low != 0, low + multiple - 1 != 0, abs(low))):
        table = tuple(low + (rest - n - low) % multiple for n in range(multiple))
        if all(table[n % multiple] == r for n, r in pairs):
            return table
    return None


def without_ends(geometry: Geometry) -> Geometry:
    """The geometry with nothing padded or cut: its windows alone."""
    return replace(geometry, padding=(0, 0), padding_mode="zeros", output_padding=0)
