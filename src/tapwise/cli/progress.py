"""Progress: what the terminal shows while a long run lasts."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import rich.progress
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

from tapwise.cli.terminal import say

if TYPE_CHECKING:
    from tapwise.geometry import Geometry
    from tapwise.signals import Reader
    from tapwise.signals.filtering import Summary


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


def print_summary(
    reader: Reader, target: Path, geometry: Geometry, summary: Summary, rate: float | None, seconds: float
) -> None:
    """Print what a run did: what came in and out, how fast, and what was clipped or overflowed."""
    channels = f"{reader.channels} channel" + "s" * (reader.channels != 1)
    at = f" at {rate:g} Hz" if rate else ""
    say(f"{reader.path}: {reader.length:,} samples, {channels} -> {target}: {summary.outputs:,} samples{at}")
    kernel = f"kernel {summary.plan.kernel}, " if summary.plan else ""
    say(
        f"  K={geometry.kernel_size}, padding {geometry.padding}, {kernel}{seconds:.2f} s, "
        f"{speed(summary.outputs, seconds, rate)}"
    )
    if summary.overflowed:
        say(
            f"  {summary.overflowed:,} outputs are beyond the range of {reader.dtype} and were "
            "written as infinite or NaN",
            error=True,
        )
    if summary.clipped:
        total = summary.outputs * summary.channels
        say(
            f"  clipped {summary.clipped:,} of {total:,} samples to the range of {reader.dtype}: "
            f"the loudest was {summary.loudest:.3g} times full scale",
            error=True,
        )
