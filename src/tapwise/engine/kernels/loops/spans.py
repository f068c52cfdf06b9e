"""Spans: which rows of inputs the taps of a block read, and how they lie in memory."""

from __future__ import annotations


def span_of(count: int, taps: int, dilation: int, stride: int) -> int:
    """Rows of inputs that a tap reads for ``count`` rows of sums, where taps share none of them; 0 where they do.

    # taps 3, dilation 5, count 2     rows 0 1 . . . 5 6 . . . 10 11
    #                                 in memory 0 1 | 5 6 | 10 11
    """
    span = (count - 1) * stride + 1
    return span if taps * span < span + (taps - 1) * dilation else 0


def rows_read(count: int, taps: int, dilation: int, stride: int) -> int:
    """Rows of inputs that ``count`` rows of sums read."""
    span = (count - 1) * stride + 1
    return min(taps * span, span + (taps - 1) * dilation)
