"""SVG: the three figures of a convolution, drawn from a trace and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tapwise.explanation import diagrams
from tapwise.explanation.canvas import LAYOUT, Canvas
from tapwise.explanation.printed_sum import PrintedSum
from tapwise.explanation.response import response_of
from tapwise.explanation.steps import Step, Trace
from tapwise.explanation.text import length_of, settings, window_rule
from tapwise.explanation.words import phrase

FIGURES = ("window", "shapes", "sources", "channels", "response", "kernel")
USUAL = FIGURES[:3]

WIDTH, MARGIN, LABEL, CELL = (LAYOUT[name] for name in ("width", "margin", "label", "row"))
# A row holds this number of cells; what is longer is cut there and the rest counted.
COLUMNS, ROWS = LAYOUT["columns"], LAYOUT["rows"]


def figures(trace: Trace, names: tuple[str, ...], output: int = 0, hidden: bool = False) -> Canvas:
    """The named figures one under the other.

    Arguments:
        output: whose window is drawn.
        hidden: whether the outputs after it are left empty, as they are before they are computed.
    """
    canvas = Canvas(WIDTH, f"Convolution with {settings(trace.geometry)}")
    draw: dict[str, Callable[[Canvas, Trace], None]] = {
        # Of the convolution within a module that drops outputs, those before are counted, too.
        "window": lambda canvas, shown: _window(canvas, shown, output + _dropped_before(trace), hidden),
        "shapes": _shapes,
        "sources": _sources,
        "channels": diagrams.channels,
        "response": _response,
        "kernel": _kernel,
    }
    for name in names:
        canvas.height += MARGIN
        # Samples are drawn with the outputs that are dropped.
        draw[name](canvas, trace.within or trace if name in ("window", "sources") else trace)
    canvas.height += MARGIN
    return canvas


def _dropped_before(trace: Trace) -> int:
    """Outputs of the convolution within a module that the module drops at the beginning."""
    return trace.within.dropped[0] if trace.within else 0


def shown_outputs(trace: Trace) -> list[int]:
    """The outputs that the figure of a window has room for, from the first on."""
    before = _dropped_before(trace)
    return [
        i - before for i in _Axis(trace.within or trace).output_positions if 0 <= i - before < trace.output.shape[1]
    ]


def _kernel(canvas: Canvas, trace: Trace) -> None:
    """The taps of each pair of channels, to scale."""
    if np.iscomplexobj(trace.weight) or trace.pooling:
        canvas.heading("The kernel", "drawn for real taps")
        return
    diagrams.kernel(canvas, trace)


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
    """Which positions a figure shows, and where: as many as fit, from the first on or around an output's window."""

    def __init__(self, trace: Trace, output: int = 0) -> None:
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
        at = output * self.stride
        places = [at, *(p * self.spread - self.shift for p in geometry.window(output))]
        if output and max(places) >= self.first + self.columns:
            # Around the window; where it is too wide, the output stays in the picture.
            middle = (min(places) + max(places)) // 2
            start = min(max(middle - self.columns // 2, at - self.columns + 1), at)
            self.first = max(self.first, min(start, last - self.columns + 1))
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


def _window(canvas: Canvas, trace: Trace, output: int = 0, hidden: bool = False) -> None:
    """The samples, the taps laid over one output's window, their products and sum, and the outputs."""
    axis = _Axis(trace, 0 if hidden else output)  # frames of an animation have one axis
    step = trace.step(output) if axis.outputs else None
    dropped = f"; grey: {sum(trace.dropped)} outputs that are dropped" if any(trace.dropped) else ""
    which = "first window" if output == 0 else f"window of output {output}"
    heading = f"The {which}" if trace.pooling else f"The taps over the {which}"
    canvas.heading(heading, window_rule(trace.geometry) + dropped)
    channels = trace.input.shape[0] // trace.geometry.groups
    printed = None
    if step is not None and not trace.pooling and not np.iscomplexobj(step.products):
        bias = [] if step.bias is None else [_plain(step.bias)]
        printed = PrintedSum([*map(_plain, step.products.flatten()), *bias])
    for row in range(min(channels, ROWS)):
        _window_row(canvas, trace, axis, step, row, printed)
    shown = [p for p in step.positions if p in axis.input_positions] if step else []
    notes = []
    if step and len(shown) < len(step.positions):
        notes.append(phrase("hidden_taps", n=len(step.positions) - len(shown), taps=len(step.positions)))
    if channels > ROWS:
        more = phrase("more_inputs", n=channels - ROWS)
        notes.append(f"... {more}, each with its own taps, are added to the same sum")
    for words in notes:
        canvas.text(MARGIN + LABEL, canvas.height + 6, words, "note", "start")
        canvas.height += 20
    _slide(canvas, trace, axis, step, shown, printed, output, hidden)


def _window_row(
    canvas: Canvas, trace: Trace, axis: _Axis, step: Step | None, row: int, printed: PrintedSum | None
) -> None:
    """The taps of one input channel, its samples, and the products."""
    channels = trace.input.shape[0] // trace.geometry.groups
    several_inputs = trace.input.shape[0] > 1
    several = several_inputs or trace.output.shape[0] > 1
    taps_y = canvas.height
    samples_y = taps_y + CELL + 10
    products_y = samples_y + CELL + 18
    _input_cells(canvas, trace, axis, row, samples_y)
    canvas.text(MARGIN, samples_y + 21, f"input ch. {row}" if several_inputs else "input", anchor="start")
    canvas.height = samples_y + CELL + 22
    if step is None:
        return
    place = f"{row}, 0" if trace.geometry.transposed else f"0, {row}"
    name = trace.pooling or (f"weight[{place}]" if several else "taps")
    canvas.text(MARGIN, taps_y + 21, name, anchor="start")
    end = 0.0
    for n, position in enumerate(step.positions):
        if position not in axis.input_positions:
            continue
        x = axis.input_x(position)
        middle, end = x + axis.cell / 2, x + axis.cell
        content = "" if trace.pooling else _short(step.taps[row, n])
        canvas.box(x + 1, taps_y, axis.cell - 2, CELL, "tap", content)
        canvas.line(middle, taps_y + CELL, middle, samples_y, "link strong")
        if printed is not None:
            product = printed.text(printed.units(_plain(step.products[row, n])))
            canvas.box(x + 1, products_y, axis.cell - 2, CELL, "product", product)
    if printed is None:
        return
    canvas.text(MARGIN, products_y + 21, "products", anchor="start")
    if channels > 1 or step.bias is not None:
        subtotal = printed.text(sum(printed.units(_plain(value)) for value in step.products[row]))
        canvas.text(end + 10, products_y + 21, f"add up to {subtotal}", "note", "start")
    canvas.height = products_y + CELL + 12


def _slide(
    canvas: Canvas,
    trace: Trace,
    axis: _Axis,
    step: Step | None,
    shown: list[int],
    printed: PrintedSum | None,
    output: int,
    hidden: bool,
) -> None:
    """The sum, and the outputs that it is one of."""
    outputs_y = canvas.height + 40
    if step is not None and output in axis.output_positions:
        target = axis.output_x(output) + axis.cell / 2
        middles = [axis.input_x(position) + axis.cell / 2 for position in shown]
        channels = trace.input.shape[0] // trace.geometry.groups
        if printed is not None:
            units = [printed.units(_plain(product)) for product in step.products[0]]
            if channels > 1 or step.bias is not None:
                units = [sum(printed.units(_plain(product)) for product in row) for row in step.products]
                units += [] if step.bias is None else [printed.units(_plain(step.bias))]
            line = _fitting(printed, units)
            middle = canvas.pill(sum(middles) / len(middles) if middles else target, canvas.height + 16, line)
            reach = 4.0 * len(line)
            for x in middles:
                canvas.line(x, canvas.height - 10, max(middle - reach, min(middle + reach, x)), canvas.height + 16)
            outputs_y = canvas.height + 66
            start = max(middle - reach, min(middle + reach, target))
            canvas.line(start, canvas.height + 40, target, outputs_y, "link strong", arrow=True)
        else:
            for x in middles:
                canvas.line(x, canvas.height - 4, target, outputs_y, "link", arrow=True)
    canvas.text(MARGIN, outputs_y + 21, _channel("output", trace.output.shape[0]), anchor="start")
    _output_cells(canvas, trace, axis, outputs_y, output, hidden)
    if len(axis.output_positions) > 1:
        y = outputs_y + CELL + 30
        start, end = axis.output_x(axis.output_positions[0]), axis.output_x(axis.output_positions[-1])
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


def _fitting(printed: PrintedSum, units: list[float]) -> str:
    """The line of a sum that fits into the image, addends in the middle left out where it must."""
    lines = [printed.line(units, most) for most in (12, 8, 3)]
    return next((line for line in lines if 8 * len(line) + 20 <= WIDTH - 2 * MARGIN), f"= {printed.text(sum(units))}")


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
    return name if channels == 1 else f"{name} ch. 0"


def _plain(value: Any) -> float:
    """The number as it is written: 0.3 of a float32's 0.30000001192."""
    return float(str(value))


def _short(value: Any) -> str:
    """A number in few characters, for a cell."""
    if np.iscomplexobj(value):
        return f"{value:.2g}"
    number = float(value)
    if np.isfinite(number) and number == int(number) and abs(number) < 1e5:
        return str(int(number))
    if 0.01 <= abs(number) < 100:
        return f"{number:.2f}".rstrip("0").rstrip(".")
    if 0.001 <= abs(number) < 0.01:
        return f"{number:.3f}"
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


def _output_cells(
    canvas: Canvas, trace: Trace, axis: _Axis, y: float, chosen: int | None = None, hidden: bool = False
) -> None:
    """The outputs, the chosen one in a thick frame; those after it empty, where they are hidden."""
    for i in axis.output_positions:
        x = axis.output_x(i)
        is_dropped = not trace.dropped[0] <= i < trace.output.shape[1] - trace.dropped[1]
        kind, tip = ("unread", f"output {i}, dropped") if is_dropped else ("output", f"output {i}")
        is_empty = hidden and chosen is not None and i > chosen
        content = "" if is_empty else _short(trace.output[0, i])
        kind += " chosen" if i == chosen else ""
        canvas.box(x + 1, y, axis.cell - 2, CELL, "hole" if is_empty else kind, content, tip)
        canvas.text(x + axis.cell / 2, y + CELL + 12, str(i), "index")
    if axis.hidden_outputs > 0:
        canvas.text(axis.end() + 4, y + 20, f"+{axis.hidden_outputs}", "note", "start")
