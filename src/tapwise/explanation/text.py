"""Text: a trace in the tutorial's words, and a whole explanation around it."""

from __future__ import annotations

from typing import Any

import numpy as np

from tapwise.explanation.trace import Array, Step, Trace
from tapwise.geometry import Geometry

# How many are shown at all, and how many at the front and the back of more.
STEPS, CHANNELS, SUMMANDS = (24, 8, 3), (8, 3, 1), (4, 2, 1)
# Numbers in a list: how many are shown at all, and how many at either end of more.
NUMBERS, EDGE = 24, 4


def text_of_trace(trace: Trace) -> str:
    """A line for each step, then the output; the middle of what is long is counted, not shown."""
    channels, outputs = trace.output.shape
    lines: list[str] = []
    marked = False
    for channel in _shown(channels, *CHANNELS):
        if channel is None:
            lines.append(f"... {channels - sum(CHANNELS[1:])} more output channels ...")
            continue
        if channels > 1:
            lines.append(_channel_heading(trace, channel))
        for i in _shown(outputs, *STEPS):
            if i is None:
                lines.append(f"... {outputs - sum(STEPS[1:])} more steps ...")
                continue
            step = trace.step(i, channel)
            marked = marked or any(step.padded)
            lines.append(line_of_step(step))
    final = trace.output if channels > 1 else trace.output[0]
    lines.append("Final : " + _numbers(final, indent=8))
    if marked:
        lines.append("Numbers in (round brackets) were put there by padding.")
    return "\n".join(lines)


def line_of_step(step: Step) -> str:
    """One step as the tutorial prints it: ``Step 0: sum([0. 1. 2.]*[1. 1. 1.]) = 3.0``."""
    rows = list(range(len(step.values)))
    shown = [
        f"... {len(rows) - sum(SUMMANDS[1:])} more channels ..." if r is None else _product(step, r)
        for r in _shown(len(rows), *SUMMANDS)
    ]
    if not step.positions or not rows:
        shown = ["0 (no input reaches it)"]
    bias = ""
    if step.bias is not None:
        sign = "-" if step.bias.real < 0 else "+"
        bias = (
            f" {sign} {number(abs(step.bias))}"
            if np.isrealobj(step.bias)
            else f" + {number(step.bias)}"
        )
    return f"Step {step.output}: {' + '.join(shown)}{bias} = {number(step.sum)}"


def text_of_explanation(trace: Trace, title: str, plan: str) -> str:
    """Geometry, shapes, the length formula with the numbers put in, the plan, and the trace."""
    geometry = trace.geometry
    layout = (
        "in_channels, out_channels/groups, kernel_size"
        if geometry.transposed
        else "out_channels, in_channels/groups, kernel_size"
    )
    rows = [
        ("x", trace.input.shape, "in_channels, length"),
        ("weight", trace.weight.shape, layout),
        ("bias", None if trace.bias is None else trace.bias.shape, "out_channels"),
        ("output", trace.output.shape, "out_channels, output length"),
    ]
    width = max(len(_size(size)) for _, size, _ in rows if size is not None)
    shapes = [f"  {n:<7} {_size(s):<{width}}  ({m})" for n, s, m in rows if s is not None]
    lines = [
        title,
        "",
        "Shapes",
        *shapes,
        "",
        "Geometry",
        f"  {settings(geometry)}",
        f"  effective kernel size = dilation*(kernel_size - 1) + 1 = {_reach(geometry)}",
        f"  output length = {length_formula(geometry, trace.input.shape[1])}",
        f"  {window_rule(geometry)}",
        "",
        "Plan",
        *(f"  {line}" for line in plan.splitlines()),
        "",
        "Steps",
        text_of_trace(trace),
    ]
    return "\n".join(lines)


def settings(geometry: Geometry) -> str:
    """The settings in a line: ``kernel_size=3, stride=1, ...``."""
    names = ["kernel_size", "stride", "dilation", "padding", "groups"]
    names += ["output_padding"] if geometry.transposed else ["padding_mode"]
    return ", ".join(f"{name}={getattr(geometry, name)}" for name in names)


def length_formula(geometry: Geometry, length: int) -> str:
    """The output length with the numbers put in, and what remains unread of the input."""
    g, reach = geometry, geometry.effective_kernel_size
    outputs = g.output_length(length)
    if g.transposed:
        return (
            f"({length} - 1)*{g.stride} + {reach} - {g.left} - {g.right} + {g.output_padding}"
            f" = {outputs}"
        )
    formula = f"floor(({length} + {g.left} + {g.right} - {reach}) / {g.stride}) + 1 = {outputs}"
    unread = (length + g.left + g.right - reach) % g.stride if outputs else 0
    return formula + (f"   (the last {unread} not reached)" if unread else "")


def window_rule(geometry: Geometry) -> str:
    """Which inputs an output reads, with the numbers put in."""
    g = geometry
    times = {name: "" if n == 1 else f"*{n}" for name, n in (("s", g.stride), ("d", g.dilation))}
    taps = f"k = 0..{g.kernel_size - 1}" if g.kernel_size > 1 else "k = 0"
    if g.transposed:
        left = f" + {g.left}" if g.left else ""
        return f"output i reads input j through tap k where i{left} - j{times['s']} = k{times['d']}, {taps}"
    left = f" - {g.left}" if g.left else ""
    return f"output i reads the inputs i{times['s']}{left} + k{times['d']} for {taps}"


def number(value: Any) -> str:
    """A number to eight digits, as Python writes it: ``3.0``; large ones in full."""
    scalar = np.asarray(value)
    if scalar.dtype.kind in "iub":
        return str(scalar.item())
    if scalar.dtype.kind == "c":
        return f"({scalar.item():.8g})"
    exact = float(str(scalar[()]))
    return repr(exact if abs(exact) >= 1e8 else float(f"{exact:.8g}"))


def _product(step: Step, row: int) -> str:
    values = _numbers(step.values[row], padded=step.padded)
    return f"sum({values}*{_numbers(step.taps[row])})"


def _numbers(values: Array, padded: tuple[bool, ...] = (), indent: int = 0) -> str:
    style: dict[str, Any] = {"precision": 4, "threshold": NUMBERS, "edgeitems": EDGE}
    if not any(padded):
        prefix = " " * indent
        return np.array2string(values, max_line_width=10**6, prefix=prefix, **style)
    words = [np.array2string(value, **style) for value in values]
    words = [f"({word})" if flag else word for word, flag in zip(words, padded, strict=True)]
    if len(words) > NUMBERS:
        words = [*words[:EDGE], "...", *words[-EDGE:]]
    return f"[{' '.join(words)}]"


def _channel_heading(trace: Trace, channel: int) -> str:
    inputs = trace.step(0, channel).inputs if trace.output.shape[1] else range(0)
    heading = f"Output channel {channel}"
    if trace.geometry.groups > 1 and len(inputs):
        group = inputs.start // len(inputs)
        which = str(inputs[0]) if len(inputs) == 1 else f"{inputs[0]}..{inputs[-1]}"
        heading += f" (group {group}: input channel{'s' * (len(inputs) > 1)} {which})"
    return heading + ":"


def _shown(count: int, most: int, front: int, back: int) -> list[int | None]:
    """The indices to show, None standing for those left out."""
    if count <= most:
        return list(range(count))
    return [*range(front), None, *range(count - back, count)]


def _size(shape: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, shape))}{',' * (len(shape) == 1)})"


def _reach(geometry: Geometry) -> str:
    g = geometry
    return f"{g.dilation}*({g.kernel_size} - 1) + 1 = {g.effective_kernel_size}"
