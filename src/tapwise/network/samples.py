"""Samples: signals of any length and batch, made of an example's own numbers.

A model may take positive numbers only, codes, or angles. Each row of each channel is drawn from the numbers
that the example holds in that row, so that range, sign and integers stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

# An example of which so much is one number, as zeros with a click, says little of the others.
_MOSTLY = 0.9


@dataclass(frozen=True)
class Source:
    """An input of the model that is a signal.

    Arguments:
        place: which of the model's inputs it is.
        time: its axis of time.
        rate: its samples for each of the first signal's.
    """

    place: int
    time: int
    rate: Fraction = Fraction(1)

    def length(self, length: int) -> int:
        """Its samples where the first signal has ``length``."""
        return length * self.rate.numerator // self.rate.denominator


def drawn_like(
    example: Tensor, time: int, length: int, rows: int | None, generator: torch.Generator, positive: bool = False
) -> Tensor:
    """A signal of ``length`` samples along the axis ``time``, drawn from the numbers of ``example``.

    Arguments:
        rows: entries of the first axis; None: those of the example.
        positive: of an example of zeros alone, draw positive numbers.
    """
    like = example.cpu().movedim(time, -1)
    if rows is not None and time != 0:
        like = like[torch.arange(rows) % like.shape[0]]
    size = (*like.shape[:-1], length)
    is_float = like.is_floating_point() or like.is_complex()
    if not like.numel() or (is_float and _is_mostly_one_number(like)):
        drawn = _around(like, size, generator, positive)
    else:
        if is_float:  # an example's own NaN is no number of its kind
            finite = like[like.isfinite()]
            like = torch.where(like.isfinite(), like, finite[0] if finite.numel() else torch.ones_like(like))
        places = torch.randint(like.shape[-1], size, generator=generator)
        drawn = like.gather(-1, places)
    return drawn.to(example.dtype).movedim(-1, time).contiguous().to(example.device)


def is_zero(example: Tensor) -> bool:
    """Whether nothing but zeros is in it, which says nothing of the numbers that a model takes."""
    return not bool(example.count_nonzero())


def _is_mostly_one_number(like: Tensor) -> bool:
    values = torch.view_as_real(like) if like.is_complex() else like
    _, counts = np.unique(values.double().numpy(), return_counts=True)
    return bool(counts.max() > _MOSTLY * values.numel())


def _around(like: Tensor, size: tuple[int, ...], generator: torch.Generator, positive: bool) -> Tensor:
    """Normal numbers; of an example that is never negative, and not zero, positive ones up to its largest."""
    if like.is_complex():
        return torch.randn(size, generator=generator, dtype=torch.complex128)
    finite = like[like.isfinite()].double()
    largest = float(finite.abs().max()) if finite.numel() else 0.0
    if largest == 0:
        drawn = torch.randn(size, generator=generator, dtype=torch.float64)
        return drawn.abs() if positive else drawn
    if float(finite.min()) >= 0 or float(finite.max()) <= 0:
        drawn = torch.rand(size, generator=generator, dtype=torch.float64)
        return (0.5 + drawn / 2) * largest * (1 if float(finite.min()) >= 0 else -1)
    return torch.randn(size, generator=generator, dtype=torch.float64) * largest
