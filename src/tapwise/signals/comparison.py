"""Comparison: a signal before and after, and their difference, over time; and the spectra of both. An SVG image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from tapwise.errors import SignalError
from tapwise.explanation.canvas import LAYOUT, Canvas
from tapwise.explanation.ticks import round_numbers
from tapwise.signals.base import Array, Reader

WIDTH, MARGIN, LABEL = (LAYOUT[name] for name in ("width", "margin", "label"))
_LEFT, _RIGHT = MARGIN + LABEL, WIDTH - MARGIN
# Columns over time, samples of a spectrum's segments, and samples read at a time.
_COLUMNS, _SEGMENT, _BLOCK = 640, 4096, 1 << 18
# Below the loudest frequency, decibels that are drawn.
_RANGE = 100.0


@dataclass
class Seen:
    """What a picture shows of one channel.

    Arguments:
        low: the least value in each column; NaN where there is none.
        high: the largest.
        power: of each frequency from 0 to half the rate, the mean of segments under Hann's window,
            each without its own mean (Welch).
        rms: the root of the mean square.
    """

    low: Array
    high: Array
    power: Array
    rms: float


def picture(before: Reader, after: Reader, stride: float, offset: float, rate: float | None, title: str) -> Canvas:
    """The picture of a signal before and after.

    Arguments:
        stride: samples of ``before`` for each of ``after``.
        offset: the place in ``before`` of the first of ``after``.
        rate: samples a second of ``before``; None: time is counted in samples.

    Raises:
        SignalError: complex signals.
    """
    for reader in (before, after):
        if reader.dtype.kind == "c":
            raise SignalError(f"{reader.path}: complex samples are not drawn: plot their magnitude")
    unit = rate or 1.0
    end = max(before.length, offset + after.length * stride)
    start = min(0.0, offset)
    span = end - start or 1.0
    # Integers that a filter made of a sound's are in the sound's units.
    scale = before.full_scale if after.dtype == before.dtype else after.full_scale
    width, place = before.length / span, -start / span
    rows = [
        ("before", "input", look(_channel_of(before, before.full_scale), before.length, place, width)),
        (
            "after",
            "output",
            look(_channel_of(after, scale), after.length, (offset - start) / span, after.length * stride / span),
        ),
    ]
    bounds = [_bounds([seen for *_, seen in rows])] * 2
    is_alike = before.length == after.length and stride == 1
    if is_alike:
        seen = look(_difference(before, after, scale), before.length, place, width)
        rows.append(("difference", "product", seen))
        bounds.append(_bounds([seen]))
    canvas = Canvas(WIDTH, f"{title}: before, after and their spectra")
    canvas.height = MARGIN
    channels = f"channel 0 of {before.channels}; " * (before.channels > 1)
    rest = "" if is_alike else "; no difference: the lengths differ"
    canvas.heading(title, f"{channels}the range of the samples in each column{rest}")
    for (name, kind, seen), (low, high) in zip(rows, bounds, strict=True):
        _waveform(canvas, name, kind, seen, low, high)
    _time_axis(canvas, start / unit, end / unit, "s" if rate else "samples")
    _spectra(canvas, rows[:2], rate, stride)
    canvas.height += MARGIN
    return canvas


def look(blocks: Iterable[Array], length: int, first: float, share: float) -> Seen:
    """What is drawn of one channel.

    Arguments:
        blocks: its samples in order.
        length: how many.
        first: where they begin, as a share of the picture's width.
        share: of the width that they take.
    """
    low, high = np.full(_COLUMNS, np.nan), np.full(_COLUMNS, np.nan)
    segment = min(_SEGMENT, length)
    window = np.hanning(segment + 1)[:segment] if segment > 1 else np.ones(segment)
    power, n_segments, squares, done = np.zeros(segment // 2 + 1), 0, 0.0, 0
    waiting = np.empty(0)
    for values in blocks:
        block = np.where(np.isfinite(values), values, np.nan)
        places = (first + (done + np.arange(len(block)) + 0.5) / length * share) * _COLUMNS
        columns = np.clip(places.astype(int), 0, _COLUMNS - 1)
        starts = np.flatnonzero(np.diff(columns, prepend=-1))
        low[columns[starts]] = np.fmin(low[columns[starts]], np.fmin.reduceat(block, starts))
        high[columns[starts]] = np.fmax(high[columns[starts]], np.fmax.reduceat(block, starts))
        done += len(block)
        samples = np.nan_to_num(block)
        squares += float(samples @ samples)
        waiting = np.concatenate((waiting, samples))
        while len(waiting) >= segment:
            part = waiting[:segment]
            power += np.abs(np.fft.rfft((part - part.mean()) * window)) ** 2
            n_segments += 1
            waiting = waiting[max(segment // 2, 1) :]
    return Seen(low, high, power / max(n_segments * float((window**2).sum()), 1e-300), (squares / length) ** 0.5)


def _bounds(parts: list[Seen]) -> tuple[float, float]:
    """The least and the largest value, with 0 where it isn't far from them."""
    low = min((float(np.nanmin(seen.low)) for seen in parts if np.isfinite(seen.low).any()), default=0.0)
    high = max((float(np.nanmax(seen.high)) for seen in parts if np.isfinite(seen.high).any()), default=0.0)
    if 0 < low < 2 * (high - low):
        low = 0.0
    if 0 > high > -2 * (high - low):
        high = 0.0
    return low, high


def _channel_of(reader: Reader, scale: float) -> Iterator[Array]:
    """The first channel's samples, in units of ``scale``."""
    for block in reader.blocks(max(1, _BLOCK // reader.channels)):
        yield block[0].astype(np.float64) / scale


def _difference(before: Reader, after: Reader, scale: float) -> Iterator[Array]:
    size = max(1, _BLOCK // max(before.channels, after.channels))
    for one, other in zip(before.blocks(size), after.blocks(size), strict=True):
        with np.errstate(invalid="ignore"):
            yield other[0].astype(np.float64) / scale - one[0].astype(np.float64) / before.full_scale


def _waveform(canvas: Canvas, name: str, kind: str, seen: Seen, low: float, high: float) -> None:
    top, height = canvas.height, 84.0
    scale = height / (high - low or 1.0)
    canvas.text(MARGIN, top + 16, name, "", "start")
    canvas.text(MARGIN, top + 34, f"rms {seen.rms:.3g}", "note", "start")
    zero = {0.0} if low < 0 < high and min(-low, high) * scale > 14 else set()
    for value in sorted({low, high} | zero):
        y = top + (high - value) * scale
        canvas.line(_LEFT, y, _RIGHT, y, "grid")
        canvas.text(_LEFT - 6, y + 4, f"{value:.3g}", "index", "end")
    width = (_RIGHT - _LEFT) / _COLUMNS
    there = np.flatnonzero(~np.isnan(seen.low))
    points: list[tuple[float, float] | None] = []
    last = -1
    for column in there:
        if points and column - last > max(_COLUMNS / max(len(there), 1), 1) * 2:  # a gap
            points.append(None)
        last = int(column)
        x = _LEFT + (column + 0.5) * width
        points += [(x, top + (high - seen.low[column]) * scale), (x, top + (high - seen.high[column]) * scale)]
    canvas.path(points, f"wave {kind}")
    canvas.height = top + height + 16


def _time_axis(canvas: Canvas, start: float, end: float, unit: str) -> None:
    for mark in round_numbers(start, end):
        x = _LEFT + (mark - start) / (end - start or 1.0) * (_RIGHT - _LEFT)
        canvas.text(x, canvas.height + 2, f"{mark:,.6g}", "index")
    canvas.text((_LEFT + _RIGHT) / 2, canvas.height + 20, f"time ({unit})", "note")
    canvas.height += 40


def _spectra(canvas: Canvas, rows: list[tuple[str, str, Seen]], rate: float | None, stride: float) -> None:
    unit = "Hz" if rate else "share of the sampling rate"
    canvas.heading("Spectra", f"power in decibels under the loudest of both; {unit}")
    top, height, highest = canvas.height, 140.0, 0.5 * (rate or 1.0)
    loudest = max(float(seen.power.max(initial=0)) for *_, seen in rows) or 1.0
    for decibels in range(0, int(_RANGE) + 1, 20):
        y = top + height * decibels / _RANGE
        canvas.line(_LEFT, y, _RIGHT, y, "grid")
        canvas.text(_LEFT - 6, y + 4, f"-{decibels}" if decibels else "0", "index", "end")
    for n, (name, kind, seen) in enumerate(rows):
        top_frequency = highest if n == 0 else highest / stride
        shown = np.linspace(0, 1, len(seen.power))
        under = -10 * np.log10(np.maximum(seen.power / loudest, 1e-300))
        reach = (_RIGHT - _LEFT) * min(top_frequency / highest, 1.0)
        points: list[tuple[float, float] | None] = [
            (_LEFT + float(share) * reach, top + height * min(float(value), _RANGE) / _RANGE)
            for share, value in zip(shown, under, strict=True)
        ]
        canvas.path(points, f"wave {kind}")
        canvas.line(MARGIN, top + 12 + 20 * n, MARGIN + 18, top + 12 + 20 * n, f"wave {kind}")
        canvas.text(MARGIN + 24, top + 16 + 20 * n, name, "note", "start")
    for mark in round_numbers(0.0, highest):
        canvas.text(_LEFT + mark / highest * (_RIGHT - _LEFT), top + height + 16, f"{mark:,.6g}", "index")
    canvas.height = top + height + 28
