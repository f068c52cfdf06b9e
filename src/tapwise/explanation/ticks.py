"""Ticks: round numbers along an axis."""

from __future__ import annotations

from math import ceil, floor, log10


def round_numbers(low: float, high: float, count: int = 8) -> list[float]:
    """Round numbers from one to the other, about so many: steps of 1, 2 or 5 times a power of ten.

    Example:
        >>> round_numbers(0.0, 3.1)
        [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    """
    if not high > low:
        return [low]
    step = _step(low, high, count)
    return [n * step for n in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)]


def ticks_around(low: float, high: float, count: int = 3) -> list[float]:
    """Round numbers that reach from ``low`` or below it to ``high`` or above it.

    Example:
        >>> ticks_around(-1.0, 0.3)
        [-1.0, -0.5, 0.0, 0.5]
    """
    if not high > low:
        return [low, low + 1]
    step = _step(low, high, count)
    return [n * step for n in range(floor(low / step + 1e-9), ceil(high / step - 1e-9) + 1)]


def _step(low: float, high: float, count: int) -> float:
    rough = (high - low) / count
    power = 10.0 ** floor(log10(rough))
    return next(n * power for n in (1, 2, 5, 10) if n * power >= rough)
