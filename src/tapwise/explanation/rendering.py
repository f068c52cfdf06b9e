"""Rendering: a canvas as PNG, PDF or an animation, by matplotlib, in the colours of the style sheet."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from importlib.resources import files
from typing import Any

from tapwise.explanation.canvas import LAYOUT, Box, Canvas, Curve, Line, Text
from tapwise.extras import need

# Pixels of the style sheet an inch, and points a pixel.
_DPI, _POINT = 96, 0.75
# How much finer a picture is than the style sheet's pixels.
_SCALE = 2
# Seconds that a frame of an animation stays, and the last one.
_STEP, _LAST = 0.9, 2.5


def picture_forms(draw: Callable[[], Canvas], slide: bool = False) -> dict[str, Callable[[], str | bytes]]:
    """By the ending of a file's name: what writes that canvas."""
    return {
        ".svg": lambda: draw().svg(slide),
        ".png": lambda: picture(draw(), "png", slide),
        ".pdf": lambda: picture(draw(), "pdf", slide),
    }


def picture(canvas: Canvas, kind: str, slide: bool = False) -> bytes:
    """The bytes of a ``"png"`` or a ``"pdf"``.

    Raises:
        MissingPackageError: matplotlib is not installed: ``pip install 'tapwise[figures]'``.
    """
    file = io.BytesIO()
    # No date: the same figure gives the same file.
    metadata = {"CreationDate": None} if kind == "pdf" else {"Software": None}
    _figure(canvas, slide).savefig(file, format=kind, metadata=metadata)
    return file.getvalue()


def animation(canvases: Sequence[Canvas], kind: str, slide: bool = False) -> bytes:
    """The bytes of a ``"gif"`` or an ``"apng"`` that shows one canvas after the other, and begins again.

    Raises:
        MissingPackageError: matplotlib, which brings Pillow, is not installed: ``pip install 'tapwise[figures]'``.
    """
    need("matplotlib")
    image = import_module("PIL.Image")
    frames = [image.open(io.BytesIO(picture(canvas, "png", slide))).convert("RGB") for canvas in canvases]
    file = io.BytesIO()
    times = [int(1000 * _STEP)] * (len(frames) - 1) + [int(1000 * _LAST)]
    form = "GIF" if kind == "gif" else "PNG"
    frames[0].save(file, form, save_all=True, append_images=frames[1:], duration=times, loop=0)
    return file.getvalue()


def _figure(canvas: Canvas, slide: bool) -> Any:
    need("matplotlib")
    figures, patches = import_module("matplotlib.figure"), import_module("matplotlib.patches")
    x, y, width, height = canvas.frame(slide)
    figure = figures.Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI * _SCALE, facecolor=_colour("var(--page)"))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(x, x + width), ylim=(y + height, y))
    axes.set_axis_off()
    for order, shape in enumerate(canvas.shapes):
        # Drawn in the order in which they were added.
        if isinstance(shape, Text):
            axes.text(shape.x, shape.y, shape.content, zorder=order, **_text(shape))
        elif isinstance(shape, Box):
            look = _look(shape.kind)
            round_ = f"round,pad=0,rounding_size={min(shape.radius, shape.width / 2, shape.height / 2)}"
            place = (shape.x, shape.y), shape.width, shape.height
            patch = patches.FancyBboxPatch(*place, boxstyle=round_, zorder=order, mutation_aspect=1, **_painted(look))
            patch.set_hatch_linewidth(0.4)
            axes.add_patch(patch)
        elif isinstance(shape, Line):
            axes.plot((shape.x1, shape.x2), (shape.y1, shape.y2), zorder=order, **_stroked(_look(shape.kind)))
            if shape.has_head:
                head = {"headwidth": 5, "headlength": 6, "width": 0.1, "facecolor": _colour("var(--soft)"), "lw": 0}
                axes.annotate("", (shape.x2, shape.y2), (shape.x1, shape.y1), arrowprops=head, zorder=order)
        elif isinstance(shape, Curve):
            nothing = (float("nan"), float("nan"))
            xs, ys = zip(*(point or nothing for point in shape.points), strict=True) if shape.points else ((), ())
            axes.plot(xs, ys, zorder=order, **_stroked(_look(shape.kind)))
    return figure


@cache
def _rules() -> list[tuple[frozenset[str], dict[str, str]]]:
    """The rules of figure.css for classes, those that hold for more of them later."""
    sheet = (files("tapwise.explanation") / "page" / "figure.css").read_text(encoding="utf-8")
    rules = []
    for classes, body in re.findall(r"^\.tw ((?:\.[\w-]+)+)\{([^}]*)\}", sheet, flags=re.MULTILINE):
        settings = dict(part.split(":", 1) for part in body.split(";") if part)
        rules.append((frozenset(classes.strip(".").split(".")), settings))
    return sorted(rules, key=lambda rule: len(rule[0]))


@cache
def _look(kind: str) -> dict[str, str]:
    """What the style sheet says of a shape of these classes."""
    classes = set(kind.split())
    found: dict[str, str] = {}
    for needed, settings in _rules():
        if needed <= classes:
            found |= settings
    return found


def _colour(value: str) -> str:
    """A colour of the light theme, as the style sheet names it."""
    name = re.fullmatch(r"var\(--(\w+)\)", value)
    return str(LAYOUT["light"][name[1]]) if name else value


def _stroked(look: dict[str, str]) -> dict[str, Any]:
    """The settings of a line."""
    dashes = look.get("stroke-dasharray", "none")
    settings: dict[str, Any] = {
        "color": _colour(look.get("stroke", "var(--ink)")),
        "linewidth": float(look.get("stroke-width", 1)) * _POINT,
        "alpha": float(look.get("opacity", 1)),
    }
    if dashes != "none":
        settings["linestyle"] = (0, tuple(float(part) for part in dashes.split()))
    return settings


def _painted(look: dict[str, str]) -> dict[str, Any]:
    """The settings of an area."""
    settings = _stroked(look)
    edge = settings.pop("color") if "stroke" in look else "none"
    fill = look.get("fill", "none")
    if fill.startswith("url"):  # a hatch
        return {**settings, "facecolor": "none", "edgecolor": edge, "hatch": "//////"}
    return {**settings, "facecolor": "none" if fill == "none" else _colour(fill), "edgecolor": edge}


def _text(text: Text) -> dict[str, Any]:
    """The settings of words."""
    look = _look(text.kind)
    size = float(look.get("font-size", "14px").removesuffix("px")) * _POINT
    if text.width is not None and text.is_squeezed:
        size *= (text.width - 6) / (8.9 * len(text.content))
    return {
        "fontsize": size,
        "color": _colour(look.get("fill", "var(--ink)")),
        "fontweight": "bold" if int(look.get("font-weight", 400)) >= 600 else "normal",
        "ha": {"start": "left", "middle": "center", "end": "right"}[text.anchor],
        "va": "baseline",
        "parse_math": False,
    }
