"""Progress: what the terminal shows while a long run lasts."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import rich.progress
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

from tapwise.cli.terminal import say
from tapwise.errors import listed

if TYPE_CHECKING:
    from tapwise.signals import Source
    from tapwise.signals.samples import Losses


class Progress:
    """A line on the terminal while a run lasts, from its first report on: samples a second, times real time, time left.

    Arguments:
        seconds: since the first report.
    """

    def __init__(self, outputs: int, rate: float | None) -> None:
        self._outputs, self._rate = outputs, rate
        self._started: float | None = None

    def __enter__(self) -> Self:
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
        return self

    def __call__(self, done: int) -> None:
        """Report how many outputs are written; 0 begins."""
        if self._started is None:
            self._started = time.perf_counter()
            self._bar.start()
            self._task = self._bar.add_task("", total=self._outputs, speed="")
        self._bar.update(self._task, completed=done, speed=speed(done, self.seconds, self._rate))

    @property
    def seconds(self) -> float:
        return 0.0 if self._started is None else time.perf_counter() - self._started

    def __exit__(self, *error: object) -> None:
        self._bar.stop()


def speed(outputs: int, seconds: float, rate: float | None) -> str:
    speed = outputs / max(seconds, 1e-9)
    text = f"{speed:,.0f} samples/s"
    return text + (f", {speed / rate:,.0f}x real time" if rate else "")


def print_outputs(source: Source, samples: int, target: Path, outputs: int, rate: float | None) -> None:
    """Print what went in and what came out."""
    channels = f"{source.channels} channel" + "s" * (source.channels != 1)
    if columns := getattr(source, "columns", ()):
        channels = f"column{'s' * (len(columns) > 1)} {listed(map(repr, columns))}"
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
