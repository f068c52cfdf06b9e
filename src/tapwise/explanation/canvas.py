"""Canvas: the few SVG shapes that the figures are made of, and how they look in light and dark."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

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
    '<marker id="tw-head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
    'orient="auto-start-reverse"><path class="head" d="M0 0L8 4L0 8z"/></marker></defs>'
)


# What XML can't hold, and a terminal would obey.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def escape(text: str, quote: bool = True) -> str:
    """The text for an SVG or a page, with a mark in place of each control character."""
    return html.escape(_CONTROL.sub("\ufffd", text), quote)


class Canvas:
    """Shapes are added from top to bottom; ``svg`` closes the image around them."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.height = 0.0
        self._shapes: list[str] = []

    def heading(self, title: str, note: str) -> None:
        """A figure's title and what is to be seen in it; the figure goes on below."""
        margin = LAYOUT["margin"]
        self.text(margin, self.height + 16, title, "title", "start")
        if note:
            self.text(margin, self.height + 36, note, "note", "start")
        self.height += 56

    def text(self, x: float, y: float, content: str, kind: str = "", anchor: str = "middle") -> None:
        self._shapes.append(
            f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(content)}</text>'
        )

    def box(self, x: float, y: float, width: float, height: float, kind: str, content: str = "", tip: str = "") -> None:
        title = f"<title>{escape(tip)}</title>" if tip else ""
        self._shapes.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="3" '
            f'class="{kind}">{title}</rect>'
        )
        if content:
            squeeze = ""
            if len(content) * 7.8 > width - 4:
                squeeze = f' textLength="{width - 6:.1f}" lengthAdjust="spacingAndGlyphs"'
            self._shapes.append(
                f'<text x="{x + width / 2:.1f}" y="{y + height / 2 + 5:.1f}" class="number" '
                f'text-anchor="middle"{squeeze}>{escape(content)}</text>'
            )

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str = "link", arrow: bool = False) -> None:
        head = ' marker-end="url(#tw-head)"' if arrow else ""
        self._shapes.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"{head}/>')

    def path(self, points: Sequence[tuple[float, float] | None], kind: str) -> None:
        """A line through points, broken where one is None."""
        words, drawing = [], False
        for point in points:
            if point is not None:
                words.append(f"{'L' if drawing else 'M'}{point[0]:.1f} {point[1]:.1f}")
            drawing = point is not None
        self._shapes.append(f'<path d="{"".join(words)}" class="{kind}"/>')

    def svg(self, label: str) -> str:
        """The whole image; ``label`` is what a screen reader says."""
        size = f"{self.width} {self.height:.0f}"
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="tw" viewBox="0 0 {size}" '
            f'width="{self.width}" height="{self.height:.0f}" role="img" '
            f'aria-label="{escape(label, quote=True)}"><style>{style_of_figures()}</style>{DEFINITIONS}'
            f'<rect class="page" width="100%" height="100%"/>{"".join(self._shapes)}</svg>\n'
        )
