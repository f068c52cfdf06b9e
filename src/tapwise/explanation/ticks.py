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
    rough = (high - low) / count
    power = 10.0 ** floor(log10(rough))
    step = next(n * power for n in (1, 2, 5, 10) if n * power >= rough)
    first = ceil(low / step - 1e-9)
    return [n * step for n in range(first, int(high / step + 1e-9) + 1)]


def ticks_around(low: float, high: float, count: int = 3) -> list[float]:
    """Round numbers that reach from ``low`` or below it to ``high`` or above it.

    Example:
        >>> ticks_around(-1.0, 0.3)
        [-1.0, -0.5, 0.0, 0.5]
    """
    ticks = round_numbers(low, high, count)
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
    if ticks[0] > low + 1e-9 * step:
        ticks.insert(0, ticks[0] - step)
    if ticks[-1] < high - 1e-9 * step:
        ticks.append(ticks[-1] + step)
    return ticks
