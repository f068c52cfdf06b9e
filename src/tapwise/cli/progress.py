"""Progress: what the terminal shows while a long run lasts."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich.progress
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

from tapwise.cli.terminal import say

if TYPE_CHECKING:
    from tapwise.signals import Source
    from tapwise.signals.samples import Losses


class Progress:
    """A line on the terminal while a run lasts: samples a second, times real time, time left."""

    def __init__(self, outputs: int, rate: float | None) -> None:
        self._outputs, self._rate = outputs, rate
        self._started = time.perf_counter()

    def __enter__(self) -> Callable[[int], None]:
        self._bar = rich.progress.Progress(
            TextColumn("filtering"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=Console(stderr=True),
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        self._bar.start()
        self._task = self._bar.add_task("", total=self._outputs, speed="")
        return self._advance

    def _advance(self, done: int) -> None:
        now = speed(done, time.perf_counter() - self._started, self._rate)
        self._bar.update(self._task, completed=done, speed=now)

    def __exit__(self, *error: object) -> None:
        self._bar.stop()


def speed(outputs: int, seconds: float, rate: float | None) -> str:
    speed = outputs / max(seconds, 1e-9)
    text = f"{speed:,.0f} samples/s"
    return text + (f", {speed / rate:,.0f}x real time" if rate else "")


def print_outputs(source: Source, samples: int, target: Path, outputs: int, rate: float | None) -> None:
    """Print what went in and what came out."""
    channels = f"{source.channels} channel" + "s" * (source.channels != 1)
    at = f" at {rate:g} Hz" if rate else ""
    say(f"{source.path}: {samples:,} samples, {channels} -> {target}: {outputs:,} samples{at}")


def print_losses(losses: Losses, dtype: Any, total: int) -> None:
    """Print what was clipped or overflowed.

    Arguments:
        dtype: of the file's samples.
        total: samples of all channels.
    """
    if losses.overflowed:
        say(
            f"  {losses.overflowed:,} outputs are beyond the range of {dtype} and were written as infinite or NaN",
            error=True,
        )
    if losses.clipped:
        say(
            f"  clipped {losses.clipped:,} of {total:,} samples to the range of {dtype}: "
            f"the loudest was {losses.loudest:.3g} times full scale",
            error=True,
        )
