"""Printed sums: addends rounded first, so that the printed ones give the printed total; the twin of numbers.js."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor, isfinite, log10


class PrintedSum:
    """How the addends of one sum are printed: all with as many decimals.

    Arguments:
        values: every addend.

    Attributes:
        decimals: all that they have, up to six; else so many that the largest shows four digits, and more of many. None where
            they can't be printed so, as beside NaN.

    Example:
        >>> printed = PrintedSum([0.125, 2.0])
        >>> printed.line([printed.units(0.125), printed.units(2.0)])
        '0.125 + 2.000 = 2.125'
    """

    def __init__(self, values: Sequence[float]) -> None:
        self.decimals = _decimals([float(value) for value in values])

    def units(self, value: float) -> float:
        """The value in units of the last printed decimal."""
        return value if self.decimals is None else floor(value * 10**self.decimals + 0.5)

    def text(self, units: float) -> str:
        """Units as they are printed."""
        if self.decimals is None:
            return f"{units:.4g}".replace("-", "\u2212")
        return f"{(units or 0) / 10**self.decimals:.{self.decimals}f}".replace("-", "\u2212")

    def line(self, units: Sequence[float], most: int = 12) -> str:
        """``3 + 4 + 5 = 12``, of units; of more than ``most`` addends, those in the middle are left out."""
        total = self.text(sum(units))
        if len(units) < 2:
            return total
        words = [self.text(units[0])]
        for count in units[1:]:
            text = self.text(count)
            words.append(f"\u2212 {text[1:]}" if text.startswith("\u2212") else f"+ {text}")
        if len(words) > most:
            words = [*words[:2], "+ \u2026", words[-1]]
        return f"{' '.join(words)} = {total}"


def _decimals(values: Sequence[float]) -> int | None:
    size = max(abs(sum(values)), *map(abs, values), 0.0)
    if not all(map(isfinite, values)) or size >= 1e9:
        return None
    for decimals in range(7):
        scaled = [value * 10**decimals for value in values]
        if all(abs(v - round(v)) <= 1e-12 * abs(v) for v in scaled):
            return decimals
    exponent = floor(log10(size))
    # Of many addends, more: their rounding must not add up to a digit that is printed.
    extra = ceil(log10(max(1, len(values) / 2)))
    decimals = max(0, (2 if exponent < 0 else 3) - exponent + extra)
    return None if decimals > 12 else decimals
