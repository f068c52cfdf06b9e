"""Canvas: the few SVG shapes that the figures are made of, and how they look in light and dark."""

from __future__ import annotations

from html import escape

STYLE = """
.tw{--ink:#1b1f24;--soft:#5b6570;--line:#8a949e;--page:#ffffff;--x:#dcebf7;--xe:#0072b2;
--w:#fbe3b5;--we:#b06f00;--y:#cfeadf;--ye:#00795a}
@media (prefers-color-scheme:dark){.tw{--ink:#eceff2;--soft:#a9b3bd;--line:#6d7781;--page:#15191e;
--x:#173a56;--xe:#6cb8ee;--w:#513a0c;--we:#f0b541;--y:#10402f;--ye:#4fd0a5}}
.tw text{font:14px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;fill:var(--ink)}
.tw .title{font-size:16px;font-weight:600}
.tw .note{font-size:12.5px;fill:var(--soft)}
.tw .index{font-size:11px;fill:var(--soft)}
.tw .number{font-variant-numeric:tabular-nums}
.tw .input{fill:var(--x);stroke:var(--xe)}
.tw .tap{fill:var(--w);stroke:var(--we)}
.tw .output{fill:var(--y);stroke:var(--ye)}
.tw .pad{fill:url(#tw-hatch);stroke:var(--line);stroke-dasharray:3 2}
.tw .link{stroke:var(--soft);fill:none;stroke-width:1.1;opacity:.75}
.tw .strong{stroke:var(--we);stroke-width:1.8;opacity:1}
.tw .page{fill:var(--page)}
.tw .hatch{stroke:var(--line);stroke-width:1;opacity:.7}
.tw .head{fill:var(--soft)}
"""

DEFINITIONS = (
    '<defs><pattern id="tw-hatch" width="6" height="6" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)"><line class="hatch" x1="0" y1="0" x2="0" y2="6"/></pattern>'
    '<marker id="tw-head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
    'orient="auto-start-reverse"><path class="head" d="M0 0L8 4L0 8z"/></marker></defs>'
)


class Canvas:
    """Shapes are added from top to bottom; ``svg`` closes the image around them."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.height = 0.0
        self._shapes: list[str] = []

    def text(
        self, x: float, y: float, content: str, kind: str = "", anchor: str = "middle"
    ) -> None:
        self._shapes.append(
            f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">'
            f"{escape(content)}</text>"
        )

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        kind: str,
        content: str = "",
        tip: str = "",
    ) -> None:
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

    def line(
        self, x1: float, y1: float, x2: float, y2: float, kind: str = "link", arrow: bool = False
    ) -> None:
        head = ' marker-end="url(#tw-head)"' if arrow else ""
        self._shapes.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"{head}/>'
        )

    def svg(self, label: str) -> str:
        """The whole image; ``label`` is what a screen reader says."""
        size = f"{self.width} {self.height:.0f}"
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="tw" viewBox="0 0 {size}" '
            f'width="{self.width}" height="{self.height:.0f}" role="img" '
            f'aria-label="{escape(label, quote=True)}"><style>{STYLE}</style>{DEFINITIONS}'
            f'<rect class="page" width="100%" height="100%"/>{"".join(self._shapes)}</svg>\n'
        )
