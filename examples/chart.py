"""A line chart as SVG, for the demo: a few lines over one time axis, named where they end."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 780, 400
LEFT, RIGHT, TOP, BOTTOM = 58, 118, 74, 34

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
"""


@dataclass(frozen=True)
class Line:
    """One line: its name, its values, and how it is drawn: ``thin``, ``solid`` or ``dashed``."""

    name: str
    values: NDArray[np.float64]
    kind: str


def chart(title: str, note: str, unit: str, x: NDArray[np.float64], lines: list[Line]) -> str:
    """The chart as an SVG image."""
    low = min(line.values.min() for line in lines)
    high = max(line.values.max() for line in lines)
    step = 10 ** np.floor(np.log10((high - low) / 3))
    step *= 5 if (high - low) / step > 15 else 2 if (high - low) / step > 6 else 1
    low, high = np.floor(low / step) * step, np.ceil(high / step) * step

    def across(value: float) -> float:
        return float(LEFT + (value - x[0]) / (x[-1] - x[0]) * (WIDTH - LEFT - RIGHT))

    def up(value: float) -> float:
        return float(HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM))

    shapes = [
        f'<text x="{LEFT}" y="28" class="title">{escape(title)}</text>',
        f'<text x="{LEFT}" y="50">{escape(note)}</text>',
        f'<text x="{LEFT - 8}" y="{TOP - 8}" text-anchor="end">{escape(unit)}</text>',
    ]
    for value in np.arange(low, high + step / 2, step):
        y = up(value)
        shapes.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        shapes.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for year in range(int(np.ceil(x[0])), int(x[-1]) + 1, 2):
        shapes.append(
            f'<text x="{across(year):.1f}" y="{HEIGHT - 12}" text-anchor="middle">{year}</text>'
        )
    ends = sorted(range(len(lines)), key=lambda n: up(lines[n].values[-1]))
    below = -np.inf
    for n in ends:
        line = lines[n]
        points = " L".join(
            f"{across(t):.1f} {up(v):.1f}" for t, v in zip(x, line.values, strict=True)
        )
        shapes.append(f'<path class="{line.kind}" d="M{points}"/>')
        below = max(below + 17, up(line.values[-1]) + 4)
        shapes.append(f'<text x="{WIDTH - RIGHT + 10}" y="{below:.1f}">{escape(line.name)}</text>')
    body = "\n".join(shapes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" role="img" aria-label="{escape(title, quote=True)}"><style>{STYLE}</style>'
        f'<rect width="100%" height="100%" style="fill:var(--page)"/>\n{body}\n</svg>\n'
    )
