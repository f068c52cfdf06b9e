"""Canvas: the few SVG shapes that the figures are made of, and how they look in light and dark."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

_PAGE = files("tapwise.explanation") / "page"
# One specification of sizes and colours for these images and for the page's.
LAYOUT: dict[str, Any] = json.loads((_PAGE / "layout.json").read_text(encoding="utf-8"))


def variables(selector: str) -> str:
    """The colours as style sheet variables, light and dark."""
    light, dark = (
        ";".join(f"--{name}:{colour}" for name, colour in LAYOUT[theme].items()) for theme in ("light", "dark")
    )
    return f"{selector}{{{light}}}\n@media (prefers-color-scheme:dark){{{selector}{{{dark}}}}}\n"


@cache
def style_of_figures() -> str:
    """The style sheet that every figure carries along."""
    return variables(".tw") + (_PAGE / "figure.css").read_text(encoding="utf-8")


DEFINITIONS = (
    '<defs><pattern id="tw-hatch" width="6" height="6" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)"><line class="hatch" x1="0" y1="0" x2="0" y2="6"/></pattern>'
    '<marker id="tw-head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="9" markerHeight="9" markerUnits="userSpaceOnUse" '
    'orient="auto-start-reverse"><path class="head" d="M0 0L8 4L0 8z"/></marker></defs>'
)


# What XML can't hold, and a terminal would obey.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def escape(text: str, quote: bool = True) -> str:
    """The text for an SVG or a page, with a mark in place of each control character."""
    return html.escape(_CONTROL.sub("\ufffd", text), quote)


class Text(NamedTuple):
    """Words at a baseline; with a width, squeezed to it where they are longer."""

    x: float
    y: float
    content: str
    kind: str
    anchor: str
    width: float | None = None

    @property
    def is_squeezed(self) -> bool:
        return self.width is not None and len(self.content) * 8.9 > self.width - 6

    def svg(self) -> str:
        squeeze = ""
        if self.width is not None and self.is_squeezed:
            squeeze = f' textLength="{self.width - 6:.1f}" lengthAdjust="spacingAndGlyphs"'
        return (
            f'<text x="{self.x:.1f}" y="{self.y:.1f}" class="{self.kind}" text-anchor="{self.anchor}"{squeeze}>'
            f"{escape(self.content)}</text>"
        )


class Box(NamedTuple):
    """A rectangle with round corners; ``tip`` is what it says when pointed at."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    tip: str
    radius: float = 3

    def svg(self) -> str:
        title = f"<title>{escape(self.tip)}</title>" if self.tip else ""
        return (
            f'<rect x="{self.x:.1f}" y="{self.y:.1f}" width="{self.width:.1f}" height="{self.height:.1f}" '
            f'rx="{self.radius:g}" class="{self.kind}">{title}</rect>'
        )


class Line(NamedTuple):
    """From one point to another, with a head at its end or without."""

    x1: float
    y1: float
    x2: float
    y2: float
    kind: str
    has_head: bool

    def svg(self) -> str:
        head = ' marker-end="url(#tw-head)"' if self.has_head else ""
        ends = f'x1="{self.x1:.1f}" y1="{self.y1:.1f}" x2="{self.x2:.1f}" y2="{self.y2:.1f}"'
        return f'<line {ends} class="{self.kind}"{head}/>'


class Curve(NamedTuple):
    """A line through points, broken where one is None."""

    points: Sequence[tuple[float, float] | None]
    kind: str

    def svg(self) -> str:
        words, drawing = [], False
        for point in self.points:
            if point is not None:
                words.append(f"{'L' if drawing else 'M'}{point[0]:.1f} {point[1]:.1f}")
            drawing = point is not None
        return f'<path d="{"".join(words)}" class="{self.kind}"/>'


Shape = Text | Box | Line | Curve


class Canvas:
    """Shapes are added from top to bottom; ``svg`` closes the image around them.

    Arguments:
        label: what a screen reader says of the image.
    """

    def __init__(self, width: int, label: str) -> None:
        self.width = width
        self.height = 0.0
        self.label = label
        self.shapes: list[Shape] = []

    def heading(self, title: str, note: str) -> None:
        """A figure's title and what is to be seen in it; the figure goes on below."""
        margin = LAYOUT["margin"]
        self.text(margin, self.height + 16, title, "title", "start")
        if note:
            self.text(margin, self.height + 36, note, "note", "start")
        self.height += 56

    def text(self, x: float, y: float, content: str, kind: str = "", anchor: str = "middle") -> None:
        self.shapes.append(Text(x, y, content, kind, anchor))

    def box(self, x: float, y: float, width: float, height: float, kind: str, content: str = "", tip: str = "") -> None:
        self.shapes.append(Box(x, y, width, height, kind, tip))
        if content:
            minus = content.replace("-", "\u2212")
            self.shapes.append(Text(x + width / 2, y + height / 2 + 5, minus, "number", "middle", width))

    def pill(self, middle: float, y: float, content: str) -> float:
        """A sum in a frame of its own around that middle, within the image; returns where its middle is."""
        width = 8.0 * len(content) + 20
        margin = float(LAYOUT["margin"])
        middle = max(margin + width / 2, min(self.width - margin - width / 2, middle))
        self.shapes.append(Box(middle - width / 2, y, width, 24, "sum", "", 12))
        self.text(middle, y + 17, content, "number")
        return middle

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str = "link", arrow: bool = False) -> None:
        self.shapes.append(Line(x1, y1, x2, y2, kind, arrow))

    def path(self, points: Sequence[tuple[float, float] | None], kind: str) -> None:
        """A line through points, broken where one is None."""
        self.shapes.append(Curve(points, kind))

    def frame(self, slide: bool = False) -> tuple[float, float, float, float]:
        """(x, y, width, height) of the image; as a slide, 16 to 9, with the figure in its middle."""
        width, height = float(self.width), float(round(self.height))
        if not slide:
            return 0.0, 0.0, width, height
        wide, tall = max(width, height * 16 / 9), max(height, width * 9 / 16)
        return (width - wide) / 2, (height - tall) / 2, wide, tall

    def svg(self, slide: bool = False) -> str:
        """The whole image."""
        x, y, width, height = self.frame(slide)
        ground = '<rect class="page" width="100%" height="100%"/>'
        if slide:
            ground = f'<rect class="page" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"/>'
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="tw" viewBox="{x:g} {y:g} {width:g} {height:g}" '
            f'width="{width:g}" height="{height:g}" role="img" '
            f'aria-label="{escape(self.label, quote=True)}"><style>{style_of_figures()}</style>{DEFINITIONS}'
            f"{ground}{''.join(shape.svg() for shape in self.shapes)}</svg>\n"
        )
