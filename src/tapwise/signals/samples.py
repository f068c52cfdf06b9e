"""Samples of a signal as numbers to compute with, and results as samples again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tapwise.errors import SignalError
from tapwise.signals.base import Array, Reader, Source

# Beyond this, float64 doesn't hold every integer.
_EXACT = 2**53

_NUMPY = {
    torch.float32: np.float32,
    torch.float64: np.float64,
    torch.complex64: np.complex64,
    torch.complex128: np.complex128,
}


@dataclass
class Losses:
    """What results lost when they became samples.

    Arguments:
        clipped: samples of all channels that were beyond the range of the file's integers.
        overflowed: outputs beyond the range of the file's floats, made infinite or NaN.
        loudest: the largest magnitude before clipping, in units of that range.
    """

    clipped: int = 0
    overflowed: int = 0
    loudest: float = 0.0

    def add(self, other: Losses) -> None:
        """Count another part's losses too."""
        self.clipped += other.clipped
        self.overflowed += other.overflowed
        self.loudest = max(self.loudest, other.loudest)


class Samples:
    """Reads samples as the dtype to compute in, and looks at them on the way."""

    def __init__(self, reader: Reader, dtype: torch.dtype, refuse_nan: bool, channels: range | None) -> None:
        self._reader, self._dtype, self._refuse_nan = reader, dtype, refuse_nan
        self.finite = True  # as long as all that was read is
        self.channels = channels  # that are read; None: all

    def __call__(self, start: int, stop: int) -> Tensor:
        """The samples [start, stop): (channels, stop - start)."""
        if self.channels is None:
            block = self._reader.read(start, stop)
        else:
            block = self._reader.read_channels(start, stop, self.channels)
        if block.dtype.kind in "fc":
            self.finite = self.finite and bool(np.isfinite(block).all())
            if self._refuse_nan:
                first = 0 if self.channels is None else self.channels.start
                refuse_nan(self._reader, block, start, first, ", or average without it with --nan skip")
        elif block.dtype.itemsize == 8 and block.size and np.abs(block.astype(float)).max() > _EXACT:
            raise SignalError(f"{self._reader.path}: integers beyond 2**53 can't be filtered exactly")
        return torch.from_numpy(block.astype(_NUMPY[self._dtype], copy=False))


def refuse_nan(source: Source, block: Array, start: int, first_channel: int = 0, remedy: str = "") -> None:
    """Refuse a block, (channels, n) samples from ``start`` on, in which a value is missing.

    Raises:
        SignalError: with the place.
    """
    if block.dtype.kind not in "fc" or not np.isnan(block).any():
        return
    channel, sample = np.argwhere(np.isnan(block))[0]
    at = f"channel {channel + first_channel}, " * (source.channels > 1)
    if columns := getattr(source, "columns", ()):
        at = f"column {columns[channel + first_channel]!r}, "
    raise SignalError(
        f"{source.path}: {at}{source.place(start + int(sample))}: no value (NaN): "
        f"fill the gap, let it through with --nan propagate{remedy}"
    )


def as_stored(y: Array, dtype: np.dtype[Any], quantum: int, finite: bool, losses: Losses, path: Path) -> Array:
    """Results as samples of a file: integers rounded, what is beyond its range counted.

    Arguments:
        quantum: the step between two values of the file, 0 for floats.
        finite: whether all that went in was.
        path: of the signal, for errors.

    Raises:
        SignalError: results that no integer stands for.
    """
    if not quantum:
        with np.errstate(over="ignore"):
            stored = y.astype(dtype, copy=False)
        if finite:
            losses.overflowed += int((~np.isfinite(stored)).sum())
        return stored
    if not np.isfinite(y).all():
        raise SignalError(f"{path}: the filter's outputs are too large to be computed")
    info = np.iinfo(dtype)
    low, top = info.min, info.max // quantum * quantum
    rounded = np.rint(y.astype(np.float64) / quantum) * quantum
    # A float can't hold the largest numbers of 64 bits: the next one above is already beyond.
    above = rounded > top if int(float(top)) == top else rounded >= float(top)
    below = rounded < low
    losses.clipped += int((above | below).sum())
    losses.loudest = max(losses.loudest, float(np.abs(rounded / top).max(initial=0)))
    stored = np.where(above | below, 0, rounded).astype(dtype)
    stored[above], stored[below] = top, low
    return stored
