"""Targets: arrays in stores being written region by region; one is begun, gone on with after a kill, and finished."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from tapwise.errors import SignalError
from tapwise.scale.layout import Layout
from tapwise.signals.base import Array


class Target(ABC):
    """An array being written by regions. Regions that don't share a chunk may be written at the same time.

    Arguments:
        writes_here: whether only the process that began it may write.
    """

    layout: Layout
    place: str
    writes_here: bool

    @abstractmethod
    def is_written(self, start: int, stop: int, channels: range) -> bool:
        """Whether a region was written, by this run or by one before it."""

    @abstractmethod
    def write(self, block: Array, start: int, channels: range) -> None:
        """Write (channels, n) outputs from ``start`` on: complete chunks."""

    @abstractmethod
    def finish(self, record: Mapping[str, Any]) -> None:
        """Say that all is written, and what made it."""

    def close(self) -> None:  # noqa: B027
        """Let go of the store; what isn't finished can be gone on with."""


class FinishedError(Exception):
    """The target was made before, by the same run to its end."""


def refused(place: str, what: str, remedy: str) -> SignalError:
    """An error that says what a target is, and what to do."""
    return SignalError(f"{place}: {what}: {remedy}")


ANOTHER = "give another name, or say overwrite (--overwrite)"


def made_otherwise(place: str, before: Any, is_same: bool, existing: Any, layout: Layout) -> SignalError:
    """What is said of a target that holds something else.

    Arguments:
        before: its record, where it has one.
        is_same: whether the same run began it.
        existing: the array that doesn't fit; None where it does.
    """
    if existing is not None or before is None:
        held = "" if existing is None else f" {np.dtype(existing.dtype)} of shape {existing.shape}"
        what = f"holds{held or ' another array'}, and {layout.dtype} of {layout.shape} is to be written"
        return refused(place, what, ANOTHER)
    if is_same:
        return refused(place, "was begun by the same run", f"say resume (--resume), {ANOTHER}")
    state = "made" if before.get("complete") else "begun"
    layer, source = before.get("layer", "another layer"), before.get("source")
    what = f"was {state} by another run ({layer} on {source}), or its source or weights have changed since"
    return refused(place, what, ANOTHER)
