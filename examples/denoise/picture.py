"""The denoiser's picture: waves before and after, and a look at the seams."""

from __future__ import annotations

from html import escape

import numpy as np
from numpy.typing import NDArray

Wave = NDArray[np.float64]
WIDTH, LEFT, RIGHT, ROW, GAP = 780, 96, 16, 66, 10
STYLE = """
svg{--ink:#1b1f24;--soft:#5b6570;--grid:#d5dae0;--page:#fff;--noisy:#8a949e;--good:#0072b2;--bad:#b3261e}
@media (prefers-color-scheme:dark){svg{--ink:#eceff2;--soft:#a9b3bd;--grid:#39424b;--page:#15191e;
--noisy:#7d8894;--good:#6cb8ee;--bad:#ff8a80}}
text{font:13px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;fill:var(--soft)}
.title{font-size:16px;font-weight:600;fill:var(--ink)}path{fill:none;stroke-width:1.4;stroke-linejoin:round}
.noisy{stroke:var(--noisy)}.clean{stroke:var(--soft)}.streamed{stroke:var(--good)}.naive{stroke:var(--bad)}
.seam{stroke:var(--grid)}.middle{text-anchor:middle}.name{fill:var(--ink)}
"""


def _line(x: Wave, y: Wave, kind: str) -> str:
    points = " ".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True))
    return f'<path class="{kind}" d="M{points}"/>'


def _row(wave: Wave, top: float, kind: str, loudest: float) -> str:
    """A whole wave: for each column its lowest and highest sample."""
    columns = np.array_split(wave, WIDTH - LEFT - RIGHT)
    x = LEFT + np.repeat(np.arange(len(columns)), 2)
    ends = np.array([(c.min(), c.max()) for c in columns]).reshape(-1)
    return _line(x, top + ROW / 2 - ends / loudest * ROW / 2, kind)


def picture(clean: Wave, rows: dict[str, Wave], offline: Wave, rate: int, chunk: int) -> str:
    """The picture as an SVG image.

    Arguments:
        rows: waves by name: ``noisy``, ``streamed`` and ``naive``.
        offline: what the model gives for the whole signal.
        rate: samples a second; ``chunk`` samples between two seams.
    """
    loudest = float(np.abs(rows["noisy"]).max())
    shapes, top = [], 62.0
    waves = {"noisy": rows["noisy"], "streamed": rows["streamed"], "clean": clean}
    for name, wave in waves.items():
        shapes.append(f'<text class="name" x="16" y="{top + ROW / 2 + 4:.0f}">{name}</text>')
        shapes.append(_row(wave, top, name, loudest))
        top += ROW + GAP
    shapes.append(f'<text x="{LEFT}" y="{top + 6:.0f}">{len(clean) / rate:.0f} seconds</text>')
    # Five chunks where the naive way is furthest off.
    off = np.abs(rows["naive"] - offline)
    per_chunk = off[: len(off) // chunk * chunk].reshape(-1, chunk).max(1)
    first = max(0, int(per_chunk.argmax()) - 2) * chunk
    cut = slice(first, first + 5 * chunk)
    top += 40
    shapes.append(
        f'<text class="title" x="16" y="{top:.0f}">Difference from the output of the whole signal, over five '
        "chunks</text>"
    )
    top += 20
    shapes.append(
        f'<text x="16" y="{top:.0f}">both on one scale; lines mark the borders of chunks, '
        f"{1000 * chunk / rate:.0f} ms apart</text>"
    )
    top += 14
    x = LEFT + np.arange(5 * chunk) / (5 * chunk) * (WIDTH - LEFT - RIGHT)
    height = 2 * ROW + GAP
    for n in range(6):
        at = LEFT + n / 5 * (WIDTH - LEFT - RIGHT)
        shapes.append(f'<line class="seam" x1="{at:.1f}" x2="{at:.1f}" y1="{top:.0f}" y2="{top + height:.0f}"/>')
    scale = float(off[cut].max()) or 1.0
    words = {"naive": "each chunk by itself", "streamed": "tapwise.stream"}
    for n, (name, label) in enumerate(words.items()):
        middle = top + ROW / 2 + n * (ROW + GAP)
        wrong = rows[name][cut] - offline[cut]
        shapes.append(f'<line class="seam" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{middle:.0f}" y2="{middle:.0f}"/>')
        shapes.append(_line(x, middle - wrong / scale * ROW / 2, name))
        apart = float(np.abs(rows[name] - offline).max())
        shapes.append(f'<text class="name" x="16" y="{middle - 4:.0f}">{name}</text>')
        shapes.append(f'<text x="16" y="{middle + 12:.0f}">peak {apart:.0e}</text>')
        shapes.append(
            f'<text x="{WIDTH - RIGHT}" y="{middle - ROW / 2 + 10:.0f}" text-anchor="end">{escape(label)}</text>'
        )
    height = top + height + 20
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" '
        f'height="{height:.0f}" role="img" aria-label="A noisy wave, the streamed result, and the seams of '
        f'naive chunks"><style>{STYLE}</style><rect width="100%" height="100%" fill="var(--page)"/>'
        '<text class="title" x="16" y="28">A sound in noise, denoised live in chunks of 10 ms</text>'
        f'<text x="16" y="48">noise was added to the clean sound, below; in training the model heard neither</text>{"".join(shapes)}</svg>\n'
    )
