"""SVG: the three figures of a convolution, drawn from a trace and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np

from tapwise.explanation import diagrams
from tapwise.explanation.canvas import LAYOUT, Canvas
from tapwise.explanation.response import response_of
from tapwise.explanation.steps import Step, Trace
from tapwise.explanation.text import length_of, settings, window_rule
from tapwise.explanation.words import phrase

FIGURES = ("window", "shapes", "sources", "channels", "response")
USUAL = FIGURES[:3]

WIDTH, MARGIN, LABEL, CELL = (LAYOUT[name] for name in ("width", "margin", "label", "row"))
# A row holds this number of cells; what is longer is cut there and the rest counted.
COLUMNS, ROWS = LAYOUT["columns"], LAYOUT["rows"]


def figures(trace: Trace, names: tuple[str, ...]) -> str:
    """The named figures one under the other, as one image."""
    canvas = Canvas(WIDTH)
    draw = {
        "window": _window,
        "shapes": _shapes,
        "sources": _sources,
        "channels": diagrams.channels,
        "response": _response,
    }
    for name in names:
        canvas.height += MARGIN
        # Samples are drawn with the outputs that are dropped.
        draw[name](canvas, trace.within or trace if name in ("window", "sources") else trace)
    canvas.height += MARGIN
    return canvas.svg(f"Convolution with {settings(trace.geometry)}")


def _response(canvas: Canvas, trace: Trace) -> None:
    """The response from the first input channel to the first output channel."""
    if np.iscomplexobj(trace.weight) or trace.geometry.transposed or trace.pooling:
        canvas.heading("The taps over time and frequency", "drawn for real taps that slide over x")
        return
    several = trace.weight.shape[0] * trace.weight.shape[1] > 1
    words = "from input channel 0 to output channel 0; " if several else ""
    answer = response_of(trace.weight[0, 0].astype(np.float64), trace.geometry)
    diagrams.response(canvas, answer, f"{words}at stride 1, the left padding counted in")


class _Axis:
    """Which positions a figure shows, and where: from ``first`` on, as many as fit."""

    def __init__(self, trace: Trace) -> None:
        geometry = trace.geometry
        self.inputs = trace.input.shape[1]
        self.outputs = trace.output.shape[1]
        self.spread = geometry.stride if geometry.transposed else 1  # columns from input to input
        self.stride = 1 if geometry.transposed else geometry.stride
        self.shift = geometry.left if geometry.transposed else 0
        left = 0 if geometry.transposed else geometry.left
        right = 0 if geometry.transposed else geometry.right
        # Long padding is shown from its last few samples on, unless it is all that the window has.
        self.first = -min(left, COLUMNS // 2)
        if geometry.transposed:
            self.first = min(0, -geometry.left)
        last = max((self.inputs - 1) * self.spread - self.shift + right, (self.outputs - 1) * self.stride)
        self.columns = min(last - self.first + 1, COLUMNS)
        self.cell = min(float(LAYOUT["cell"]), (WIDTH - 2 * MARGIN - LABEL - 36) / max(self.columns, 1))
        low = 0 if geometry.transposed else self.first
        self.input_positions = [p for p in range(low, self.inputs + right) if self._fits(p * self.spread - self.shift)]
        self.output_positions = [i for i in range(self.outputs) if self._fits(i * self.stride)]
        self.hidden_inputs = self.inputs + right - 1 - max(self.input_positions, default=-1)
        self.hidden_outputs = self.outputs - len(self.output_positions)

    def _fits(self, column: int) -> bool:
        return bool(self.first <= column < self.first + self.columns)

    def input_x(self, position: int) -> float:
        return self._x(position * self.spread - self.shift)

    def output_x(self, output: int) -> float:
        return self._x(output * self.stride)

    def end(self) -> float:
        return self._x(self.first + self.columns)

    def _x(self, column: int) -> float:
        return float(MARGIN + LABEL + (column - self.first) * self.cell)


def _window(canvas: Canvas, trace: Trace) -> None:
    """The samples, the taps laid over the first window, and the outputs that they slide to."""
    axis = _Axis(trace)
    step = trace.step(0) if axis.outputs else None
    dropped = f"; grey: {sum(trace.dropped)} outputs that are dropped" if any(trace.dropped) else ""
    heading = "The first window" if trace.pooling else "The taps over the first window"
    canvas.heading(heading, window_rule(trace.geometry) + dropped)
    channels = trace.input.shape[0] // trace.geometry.groups
    top = canvas.height
    for row in range(min(channels, ROWS)):
        taps_y = canvas.height
        samples_y = taps_y + CELL + 10
        name = "" if channels == 1 else f" {row}"
        if step is not None:
            canvas.text(MARGIN, taps_y + 21, f"{trace.pooling or 'taps'}{name}", anchor="start")
            for n, position in enumerate(step.positions):
                if position in axis.input_positions:
                    x = axis.input_x(position)
                    canvas.box(
                        x + 2, taps_y, axis.cell - 4, CELL, "tap", "" if trace.pooling else _short(step.taps[row, n])
                    )
                    middle = x + axis.cell / 2
                    canvas.line(middle, taps_y + CELL, middle, samples_y, "link strong")
        canvas.text(MARGIN, samples_y + 21, f"input{name}", anchor="start")
        _input_cells(canvas, trace, axis, row, samples_y)
        canvas.height = samples_y + CELL + 22
    hidden = [p for p in step.positions if p not in axis.input_positions] if step else []
    if hidden:
        canvas.text(
            MARGIN + LABEL,
            canvas.height + 6,
            phrase("hidden_taps", n=len(hidden), taps=len(step.positions) if step else 0),
            "note",
            "start",
        )
        canvas.height += 20
    if channels > ROWS:
        more = phrase("more_inputs", n=channels - ROWS)
        words = f"... {more}, each with its own taps, are added to the same sum"
        canvas.text(MARGIN + LABEL, canvas.height + 6, words, "note", "start")
        canvas.height += 20
    _slide(canvas, trace, axis, step, top)


def _slide(canvas: Canvas, trace: Trace, axis: _Axis, step: Step | None, top: float) -> None:
    outputs_y = canvas.height + 40
    if step is not None:
        for position in step.positions:
            if position in axis.input_positions:
                x = axis.input_x(position) + axis.cell / 2
                canvas.line(x, canvas.height - 4, axis.output_x(0) + axis.cell / 2, outputs_y, "link", arrow=True)
    canvas.text(MARGIN, outputs_y + 21, _channel("output", trace.output.shape[0]), anchor="start")
    _output_cells(canvas, trace, axis, outputs_y)
    if len(axis.output_positions) > 1:
        y = outputs_y + CELL + 30
        start, end = axis.output_x(0), axis.output_x(axis.output_positions[-1])
        canvas.line(start + axis.cell / 2, y - 6, end + axis.cell / 2, y - 6, arrow=True)
        stride = trace.geometry.stride
        every = "one sample" if stride == 1 else f"{stride} samples"
        steps = f"the {'window slides' if trace.pooling else 'taps slide'} by {every} from output to output"
        if trace.geometry.transposed:
            steps = f"each input spreads its taps {stride} outputs after the input before"
        canvas.text(start, y + 12, steps, "note", "start")
        canvas.height = y + 22
    else:
        canvas.height = outputs_y + CELL + 20


def _sources(canvas: Canvas, trace: Trace) -> None:
    """Each output tied to the samples that it reads."""
    axis = _Axis(trace)
    geometry = trace.geometry
    causal = not geometry.transposed and geometry.left >= geometry.effective_kernel_size - 1
    causal = causal and (geometry.padding_mode in ("zeros", "replicate") or geometry.left == 0)
    note = "each output stands under input i*stride" if not geometry.transposed else ""
    if causal:
        note = (
            f"causal: {geometry.left} positions of padding on the left, (kernel_size - 1)*dilation "
            f"= {geometry.effective_kernel_size - 1}; no line comes from the right, the future"
        )
    canvas.heading("Which samples each output reads", note)
    inputs_y = canvas.height + 8
    outputs_y = inputs_y + CELL + 92
    canvas.text(MARGIN, inputs_y + 21, _channel("input", trace.input.shape[0]), anchor="start")
    canvas.text(MARGIN, outputs_y + 21, _channel("output", trace.output.shape[0]), anchor="start")
    for i in axis.output_positions:
        for position in trace.step(i).positions:
            if position in axis.input_positions:
                canvas.line(
                    axis.input_x(position) + axis.cell / 2, inputs_y + CELL, axis.output_x(i) + axis.cell / 2, outputs_y
                )
    _input_cells(canvas, trace, axis, 0, inputs_y, index_above=True)
    _output_cells(canvas, trace, axis, outputs_y)
    canvas.height = outputs_y + CELL + 22


def _shapes(canvas: Canvas, trace: Trace) -> None:
    """The shapes of x, weight and output as sheets of channels."""
    formula = length_of(trace)
    canvas.heading("The shapes", f"output length = {formula}")
    weight = trace.weight.shape
    axes = ("out_channels", "in_channels/groups", "kernel_size")
    if trace.geometry.transposed:
        axes = ("in_channels", "out_channels/groups", "kernel_size")
    x0, y0 = MARGIN, canvas.height + 4
    sheets: tuple[tuple[str, str, tuple[int, ...], tuple[str, str, str], int], ...] = (
        ("x", "input", (1, *trace.input.shape), ("batch", "in_channels", "length"), 200),
        ("weight", "tap", weight, axes, 150),
        ("output", "output", (1, *trace.output.shape), ("batch", "out_channels", "length"), 200),
    )
    depth = min(weight[0], 3)
    below = y0 + 8 * (depth - 1) + 17 * min(max(sheet[2][1] for sheet in sheets), 4) + 16
    if trace.pooling:
        sheets = (sheets[0], sheets[2])
    for n, (name, kind, shape, axes, width) in enumerate(sheets):
        layers = depth if name == "weight" else 1
        for sheet in reversed(range(layers)):
            for row in range(min(shape[1], 4)):
                top = y0 + 8 * (layers - 1 - sheet) + row * 17
                canvas.box(x0 + 8 * sheet, top, width, 14, kind)
        canvas.text(x0, below, f"{name} ({', '.join(map(str, shape))})", anchor="start")
        for line, (size, axis) in enumerate(zip(shape, axes, strict=True)):
            canvas.text(x0, below + 19 + 16 * line, f"{size} {axis}", "note", "start")
        if n < len(sheets) - 1:
            canvas.text(x0 + width + 46, y0 + 13, trace.pooling or ("*" if n == 0 else "="))
        x0 += width + 76
    bottom = below + 56
    canvas.height = bottom


def _channel(name: str, channels: int) -> str:
    """Which channel a row shows, where there are several: the first."""
    return name if channels == 1 else f"{name} 0 of {channels}"


def _short(value: Any) -> str:
    """A number in few characters, for a cell."""
    if np.iscomplexobj(value):
        return f"{value:.2g}"
    number = float(value)
    if np.isfinite(number) and number == int(number) and abs(number) < 1e5:
        return str(int(number))
    if 0.01 <= abs(number) < 100:
        return f"{number:.2f}"
    return f"{number:.0e}".replace("e-0", "e-").replace("e+0", "e")


def _input_cells(canvas: Canvas, trace: Trace, axis: _Axis, row: int, y: float, index_above: bool = False) -> None:
    geometry, length = trace.geometry, trace.input.shape[1]
    for position in axis.input_positions:
        source = geometry.source(position, length)
        value = "0" if source is None else _short(trace.input[row, source])
        if source is None and trace.pooling:  # which leaves it out
            value = ""
        inside = 0 <= position < length
        tip = f"input {position}" if inside else f"padding at position {position}"
        kind = "input" if inside else "pad"
        if inside and not geometry.feeds(position, length):
            kind, tip = "unread", f"{tip}, {phrase('unread')}"
        x = axis.input_x(position)
        canvas.box(x + 1, y, axis.cell - 2, CELL, kind, value, tip)
        label_y = y - 5 if index_above else y + CELL + 12
        canvas.text(x + axis.cell / 2, label_y, str(position) if inside else "pad", "index")
    if axis.hidden_inputs > 0:
        canvas.text(axis.end() + 4, y + 20, f"+{axis.hidden_inputs}", "note", "start")


def _output_cells(canvas: Canvas, trace: Trace, axis: _Axis, y: float) -> None:
    for i in axis.output_positions:
        x = axis.output_x(i)
        is_dropped = not trace.dropped[0] <= i < trace.output.shape[1] - trace.dropped[1]
        kind, tip = ("unread", f"output {i}, dropped") if is_dropped else ("output", f"output {i}")
        canvas.box(x + 1, y, axis.cell - 2, CELL, kind, _short(trace.output[0, i]), tip)
        canvas.text(x + axis.cell / 2, y + CELL + 12, str(i), "index")
    if axis.hidden_outputs > 0:
        canvas.text(axis.end() + 4, y + 20, f"+{axis.hidden_outputs}", "note", "start")
