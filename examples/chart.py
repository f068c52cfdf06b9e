"""A line chart as SVG, for the demo: a few lines over one time axis, named where they end."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 780, 400
LEFT, RIGHT, TOP, BOTTOM = 72, 142, 74, 34

STYLE = """
svg{--ink:#1b1f24;--soft:#5b6570;--grid:#e3e7eb;--page:#fff;--thin:#8a949e;--solid:#0072b2;--dashed:#b06f00}
@media (prefers-color-scheme:dark){svg{--ink:#eceff2;--soft:#a9b3bd;--grid:#2c343c;--page:#15191e;
--thin:#7d8894;--solid:#6cb8ee;--dashed:#f0b541}}
text{font:13px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;fill:var(--soft)}
.title{font-size:16px;font-weight:600;fill:var(--ink)}
path{fill:none;stroke-linejoin:round}
.thin{stroke:var(--thin);stroke-width:1.1}
.solid{stroke:var(--solid);stroke-width:2.4}
.dashed{stroke:var(--dashed);stroke-width:2.4;stroke-dasharray:7 4}
.grid{stroke:var(--grid)}
.shift{stroke:var(--ink);stroke-width:1.6}
.end{text-anchor:end}
.middle{text-anchor:middle}
"""


@dataclass(frozen=True)
class Line:
    """One line: its name, its points, and how it is drawn: ``thin``, ``solid`` or ``dashed``."""

    name: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    kind: str


def chart(
    title: str, note: str, unit: str, lines: list[Line], shift: tuple[float, float, float, str] | None = None
) -> str:
    """The chart as an SVG image.

    Arguments:
        shift: an arrow to the right, (from x, to x, at y, what it means), or None.
    """
    low, low_x = (min(getattr(line, axis).min() for line in lines) for axis in ("y", "x"))
    high, high_x = (max(getattr(line, axis).max() for line in lines) for axis in ("y", "x"))
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100) if (high - low) / s <= 6)
    low, high = np.floor(low / step) * step, np.ceil(high / step) * step

    def across(x: float) -> float:
        return float(LEFT + (x - low_x) / (high_x - low_x) * (WIDTH - LEFT - RIGHT))

    def up(y: float) -> float:
        return float(HEIGHT - BOTTOM - (y - low) / (high - low) * (HEIGHT - TOP - BOTTOM))

    shapes = [
        f'<text x="{LEFT}" y="28" class="title">{escape(title)}</text>',
        f'<text x="{LEFT}" y="50">{escape(note)}</text>',
    ]
    for value in np.arange(low, high + step / 2, step):
        y, label = up(value), f"{value:g}" + f" {unit}" * bool(value == high)
        shapes.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        shapes.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" class="end">{escape(label)}</text>')
    shapes += [
        f'<text x="{across(year):.1f}" y="{HEIGHT - 12}" class="middle">{year}</text>'
        for year in range(int(np.ceil(low_x)), int(high_x) + 1)
    ]
    for n, line in enumerate(lines):
        points = "L".join(f"{across(x):.1f} {up(y):.1f}" for x, y in zip(line.x, line.y, strict=True))
        key = TOP + 14 + 22 * n
        shapes.append(f'<path class="{line.kind}" d="M{points}"/>')
        shapes.append(f'<path class="{line.kind}" d="M{WIDTH - RIGHT + 14} {key}h26"/>')
        shapes.append(f'<text x="{WIDTH - RIGHT + 46}" y="{key + 4}">{escape(line.name)}</text>')
    if shift is not None:
        start, end, level, meaning = shift
        x, y = across(end), up(level)
        shapes.append(
            f'<path class="shift" d="M{across(start):.1f} {y:.1f}H{x:.1f}m-6 -4l6 4l-6 4"/>'
            f'<path class="grid" d="M{x:.1f} {y + 8:.1f}v52"/>'
            f'<text x="{x - 8:.1f}" y="{y + 78:.1f}" class="title">{escape(meaning)}</text>'
        )
    body = "\n".join(shapes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" role="img" aria-label="{escape(title, quote=True)}"><style>{STYLE}</style>'
        f'<rect width="100%" height="100%" style="fill:var(--page)"/>\n{body}\n</svg>\n'
    )
