"""Diagrams: blocks of channels, a filter's response, a stack's cone, drawn from values alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil

import numpy as np

from tapwise.explanation.canvas import LAYOUT, Canvas
from tapwise.explanation.response import Response
from tapwise.explanation.steps import Array, Trace
from tapwise.explanation.ticks import ticks_around
from tapwise.explanation.words import phrase

WIDTH, MARGIN, LABEL = (LAYOUT[name] for name in ("width", "margin", "label"))
_MOST = 32


def channels(canvas: Canvas, trace: Trace) -> None:
    """Which output channel reads which input channel, a square a pair."""
    geometry = trace.geometry
    ins, outs = trace.input.shape[0], trace.output.shape[0]
    fan_in, fan_out = ins // geometry.groups, outs // geometry.groups
    size = min(26.0, (WIDTH - 2 * MARGIN - LABEL) / min(ins, _MOST))
    left, top = MARGIN + LABEL, canvas.height + 96
    words = f"each output channel reads {fan_in} of {ins} input channels, each with taps of its own"
    canvas.heading("Channels", words)
    canvas.text(left, top - 22, "input channels", "note", "start")
    for i in range(min(ins, _MOST)):
        if size > 17 or i % 4 == 0:
            canvas.text(left + i * size + size / 2, top - 7, str(i), "index")
    for o in range(min(outs, _MOST)):
        y = top + o * size
        if size > 12 or o % 4 == 0:
            canvas.text(left - 8, y + size / 2 + 4, f"output {o}", "index", "end")
        for i in range(min(ins, _MOST)):
            read = i // fan_in == o // fan_out
            tip = f"output {o} {'reads' if read else 'does not read'} input {i}"
            side = size - 2
            canvas.box(left + i * size, y, side, side, "tap" if read else "hole", "", tip)
    canvas.height = top + min(outs, _MOST) * size + 8
    if max(ins, outs) > _MOST:
        canvas.text(left, canvas.height + 12, f"... the first {_MOST} of each", "note", "start")
        canvas.height += 24


def kernel(canvas: Canvas, trace: Trace) -> None:
    """The taps from the first few input channels to output channel 0, to one scale, a dilation's gaps between them."""
    geometry = trace.geometry
    n_rows = trace.input.shape[0] // geometry.groups
    rows = min(n_rows, LAYOUT["rows"])
    several = n_rows * trace.output.shape[0] > 1
    words = "as high as they are large" + (f"; to output channel 0 from the first {rows} of {n_rows} inputs" * several)
    canvas.heading("The kernel", words)
    taps = [np.asarray(trace.weight[(r, 0) if geometry.transposed else (0, r)], np.float64) for r in range(rows)]
    finite = [np.where(np.isfinite(row), row, 0.0) for row in taps]
    low, high = float(min(0.0, *map(np.min, finite))), float(max(0.0, *map(np.max, finite)))
    left, right = MARGIN + LABEL, WIDTH - MARGIN
    step = min(60.0, (right - left) / geometry.effective_kernel_size)
    height = 100.0
    every = max(1, ceil(24 / (step * geometry.dilation)))  # labels that don't touch

    for r, row in enumerate(finite):
        canvas.text(left, canvas.height + 4, f"from input channel {r}" if several else "taps", "note", "start")
        top = canvas.height + 16

        def place(value: float, top: float = top) -> float:
            return top + height * (high - value) / (high - low or 1.0)

        for mark in sorted({low, 0.0, high}):
            canvas.line(left, place(mark), left + step * geometry.effective_kernel_size, place(mark), "grid")
            canvas.text(left - 6, place(mark) + 4, f"{mark:.3g}", "index", "end")
        for k, tap in enumerate(row.tolist()):
            x = left + k * geometry.dilation * step
            bar = max(abs(place(tap) - place(0)), 0.8)
            canvas.box(
                x + 0.15 * step, min(place(tap), place(0)), 0.7 * step, bar, "tap", "", f"tap {k}: {taps[r][k]:.6g}"
            )
            if k % every == 0:
                canvas.text(x + step / 2, top + height + 16, str(k), "index")
        canvas.height = top + height + 26


def response(canvas: Canvas, answer: Response, words: str) -> None:
    """Impulse, magnitude and delay, one under the other."""
    canvas.heading("The taps over time and frequency", words)
    left, right = MARGIN + LABEL, WIDTH - MARGIN
    top = canvas.height + 6
    _impulse(canvas, answer, left, right, top, 90)
    top += 128
    share = answer.frequency / 0.5
    low, high = 0.0, float(answer.magnitude.max()) or 1.0
    _plot(canvas, ("magnitude", "out / in"), share, answer.magnitude, top, 110, low, high)
    top += 140
    heard = answer.delay[np.isfinite(answer.delay)]
    low, high = min(0.0, *heard, 0.0), max(1.0, *heard, 1.0)
    _plot(canvas, ("delay", "samples"), share, answer.delay, top, 70, low, high)
    for mark in (0, 0.125, 0.25, 0.375, 0.5):
        canvas.text(left + mark / 0.5 * (right - left), top + 90, str(mark), "index")
    middle = (left + right) / 2
    canvas.text(middle, top + 108, phrase("frequency"), "note")
    canvas.height = top + 118


def _impulse(canvas: Canvas, answer: Response, left: float, right: float, top: float, height: float) -> None:
    canvas.text(MARGIN, top + 12, "impulse", "", "start")
    canvas.text(MARGIN, top + 29, "response", "", "start")
    first, last = min(0, int(answer.times.min())), max(0, int(answer.times.max()))
    step = (right - left - 40) / max(last - first, 1)
    peak = max(float(abs(answer.taps).max()), 1e-300)
    low = min(0.0, float(answer.taps.min()) / peak)
    span = max(0.0, float(answer.taps.max()) / peak) - low or 1.0
    zero = top + height * (1 + low / span)
    canvas.line(left, zero, right, zero, "axis")
    for time, tap in zip(answer.times, answer.taps, strict=True):
        x, y = left + 20 + (time - first) * step, zero - float(tap) / peak * height / span
        canvas.line(x, zero, x, y, "curve")
        canvas.box(x - 3, y - 3, 6, 6, "leak" if time < 0 else "tap", "", f"{time}: {tap:.6g}")
    taken: list[float] = []
    for time in dict.fromkeys((0, first, last)):  # the ends are left out where they would stand on "now"
        x = left + 20 + (time - first) * step
        if any(abs(x - other) < 56 for other in taken):
            continue
        taken.append(x)
        note = phrase("now" if time == 0 else "later" if time > 0 else "ahead", n=abs(time))
        canvas.text(x, top + height + 18, note, "index")


def _plot(
    canvas: Canvas,
    names: tuple[str, str],
    share: Array,
    values: Array,
    top: float,
    height: float,
    low: float,
    high: float,
) -> None:
    left, right = MARGIN + LABEL, WIDTH - MARGIN
    canvas.text(MARGIN, top + 12, names[0], "note", "start")
    canvas.text(MARGIN, top + 29, names[1], "note", "start")
    ticks = ticks_around(low, high)
    low, high = ticks[0], ticks[-1]

    def place(value: float) -> float:  # no curve lies on the frame
        return top + 6 + (height - 12) * (1 - (value - low) / (high - low or 1))

    for tick in ticks:
        canvas.line(left, place(tick), right, place(tick), "grid")
        canvas.text(left - 6, place(tick) + 4, f"{tick:.3g}", "index", "end")
    points = [
        (left + float(s) * (right - left), place(float(v))) if np.isfinite(v) else None
        for s, v in zip(share, values, strict=True)
    ]
    canvas.path(points, "curve")


def cone(
    levels: Sequence[tuple[int, ...]],
    strides: Sequence[int],
    windows: Sequence[Callable[[int], tuple[int, ...]]],
    words: str,
) -> Canvas:
    """One output of a stack and what it reads; ``levels`` are positions, from the input's on."""
    canvas = Canvas(WIDTH, "What one output of a stack of convolutions reads")
    canvas.height = MARGIN
    canvas.heading("What one output of the stack reads", words)
    now = levels[-1][0] * strides[-1]
    low, high = min(levels[0][0], now), max(levels[0][-1], now)
    left = MARGIN + LABEL
    size = min(24.0, (WIDTH - MARGIN - left) / (high - low + 1))
    top = canvas.height + 10

    def place(position: int, level: int) -> tuple[float, float]:
        x = left + (position * strides[level] - low + 0.5) * size
        return x, top + (len(levels) - 1 - level) * 58

    for level in range(1, len(levels)):
        for i in levels[level]:
            for p in windows[level - 1](i):
                (x1, y1), (x2, y2) = place(i, level), place(p, level - 1)
                canvas.line(x1, y1 + 8, x2, y2 - 8)
    for level, read in enumerate(levels):
        name = f"layer {level}" if level else "input"
        y = place(0, level)[1]
        canvas.text(MARGIN, y + 5, name, "", "start")
        side = min(15.0, size * strides[level] - 2)
        is_read = set(read)
        first, last = -(-low // strides[level]), high // strides[level]
        shown = range(first, last + 1) if side >= 3 else sorted(is_read)
        for p in shown:
            x = place(p, level)[0]
            future = level == 0 and p > now
            kind = "output" if level == len(levels) - 1 else "product" if level else "input"
            kind = ("leak" if future else kind) if p in is_read else "hole"
            tip = f"{name} {p}" + ("" if p in is_read else ", not read") + (", future" if future else "")
            canvas.box(x - max(side, 1.5) / 2, y - 8, max(side, 1.5), 16, kind, "", tip)
    x, y = place(now, 0)
    canvas.line(x, y + 12, x, y + 24, "link strong")
    canvas.text(x, y + 40, f"now: input {now}", "index")
    canvas.height = y + 40 + MARGIN
    return canvas
