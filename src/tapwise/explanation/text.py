"""Text: an explanation in words: shapes, geometry, the length formula, the steps, and last the plan."""

from __future__ import annotations

from tapwise.explanation.steps import Trace
from tapwise.explanation.words import phrase
from tapwise.geometry import Geometry


def text_of_explanation(trace: Trace, title: str, plan: str = "") -> str:
    """Shapes, geometry, the length formula with the numbers put in, the trace, and the plan where it is given."""
    geometry = trace.geometry
    layout = (
        "in_channels, out_channels/groups, kernel_size"
        if geometry.transposed
        else "out_channels, in_channels/groups, kernel_size"
    )
    rows = [
        ("x", trace.input.shape, "in_channels, length"),
        ("weight", None if trace.pooling else trace.weight.shape, layout),
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
        f"  {settings(geometry)}" if not trace.pooling else f"  {_pooled(geometry)}",
        f"  effective kernel size = dilation*(kernel_size - 1) + 1 = {_effective(geometry)}",
        f"  output length = {length_of(trace)}",
        f"  {window_rule(geometry)}",
        "",
        "Steps",
        str(trace),
    ]
    if plan:
        lines += ["", "Plan", *(f"  {line}" for line in plan.splitlines())]
    return "\n".join(lines)


def settings(geometry: Geometry) -> str:
    """The settings in a line: ``kernel_size=3, stride=1, ...``."""
    names = ["kernel_size", "stride", "dilation", "padding", "groups"]
    names += ["output_padding"] if geometry.transposed else ["padding_mode"]
    return ", ".join(f"{name}={getattr(geometry, name)}" for name in names)


def _pooled(geometry: Geometry) -> str:
    names = ("kernel_size", "stride", "dilation", "padding")
    left_out = "; what lies in the padding is left out of its window" if any(geometry.padding) else ""
    return ", ".join(f"{name}={getattr(geometry, name)}" for name in names) + left_out


def length_of(trace: Trace) -> str:
    """The formula of a trace's output length; of pooling it may be rounded up."""
    g, n_outputs = trace.geometry, trace.output.shape[1]
    if n_outputs == g.output_length(trace.input.shape[1]):
        return length_formula(g, trace.input.shape[1])
    reach = f"{trace.input.shape[1]} + {g.left} + {g.right} - {g.effective_kernel_size}"
    return f"ceil(({reach}) / {g.stride}) + 1 = {n_outputs}"


def length_formula(geometry: Geometry, length: int) -> str:
    """The output length with the numbers put in, and what remains unread of the input."""
    g, effective = geometry, geometry.effective_kernel_size
    outputs = g.output_length(length)
    values = {
        "length": length,
        "left": g.left,
        "right": g.right,
        "effective": effective,
        "stride": g.stride,
        "outputs": outputs,
    }
    if g.transposed:
        return phrase("length_transposed", output_padding=g.output_padding, **values)
    unread = (length + g.left + g.right - effective) % g.stride if outputs else 0
    return phrase("length", **values) + (f"   (the last {unread} not reached)" if unread else "")


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


def _size(shape: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, shape))}{',' * (len(shape) == 1)})"


def _effective(geometry: Geometry) -> str:
    g = geometry
    return f"{g.dilation}*({g.kernel_size} - 1) + 1 = {g.effective_kernel_size}"
