"""The page: an explanation as one HTML file that works offline, for a reader who wants to change it.

Its JavaScript is the files beside this one, put together as one ES module in the form that anywidget
takes. ``convolution.js`` is the twin of geometry and convolution; the figures read it alone.
"""

from __future__ import annotations

import base64
import json
import re
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any

import numpy as np

from tapwise.explanation.canvas import escape, variables
from tapwise.explanation.page.cut import cut_to
from tapwise.explanation.steps import Array, Trace
from tapwise.explanation.words import WORDS
from tapwise.geometry import Geometry

# Each after those that it imports, the page itself last.
_MODULES = [
    "convolution.js",
    "numbers.js",
    "gradients.js",
    "words.js",
    "canvas.js",
    "ties.js",
    "figure_parts.js",
    "figure_sums.js",
    "figure_window.js",
    "figure_spread.js",
    "figure_overview.js",
    "figure_channels.js",
    "figure_gradient.js",
    "figure_stack.js",
    "figure_response.js",
    "code.js",
    "state.js",
    "dom.js",
    "share.js",
    "controls.js",
    "formula.js",
    "steps_panel.js",
    "keyboard.js",
    "channels_panel.js",
    "gradient_panel.js",
    "panels.js",
    "lesson.js",
    "lecture.js",
    "page.js",
]
# What begins: a notebook's widget, and the page of a network; a convolution's page begins by page.js.
_WIDGET, _NETWORK = "widget.js", "network.js"
# Numbers that a page holds: what is beyond them is left out, and the page says so.
_SAMPLES, _WEIGHTS = 200_000, 300_000
# Sentences that printed explanations alone have.
_FOR_TEXT = ("brackets", "dropped")
# In the style sheet, between what figures need and the rest.
_PAGE_MARK = "/* the page */"


def _file(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")


@cache
def module() -> str:
    """The page's ES module, which needs nothing else: ``export default {render}``, for anywidget."""
    return f"const CSS = {json.dumps(style())};\n{_code()}\n{_with_imports(_file(_WIDGET))}"


@cache
def _code(*more: str) -> str:
    """The modules, and ``more`` of them, as one; but for ``CSS``, the style sheet: a document has it already."""
    layout = json.dumps(json.loads(_file("layout.json")), separators=(",", ":"))
    unused = ("network_", *_FOR_TEXT) if not more else _FOR_TEXT
    words = {name: text for name, text in WORDS.items() if not name.startswith(unused)}
    parts = [
        f"const LAYOUT = {layout};",
        f"const LESSON = {json.dumps(json.loads(_file('lesson.json')), ensure_ascii=False, separators=(',', ':'))};",
        f"const WORDS = {json.dumps(words, ensure_ascii=False)};",
        f"const FIGURE_CSS = CSS.split({json.dumps(_PAGE_MARK)})[0];",
    ]
    parts += [_scoped(name) for name in (*_MODULES, *more)]
    return _without_spaces("\n".join(parts))


def _without_spaces(code: str) -> str:
    """The code without what is for who reads the source; no text of the page spans lines or has a brace and a space."""
    code = re.sub(r"^ *//.*\n| +$|(?<=[;,{]) +// .*$", "", code, flags=re.MULTILINE)
    code = re.sub(r"^ +", "", code, flags=re.MULTILINE)
    code = re.sub(r"(?<=[;,{(\[])\n|\n(?=[})\]])", "", code)
    return re.sub(r"(?<=\{) | (?=\})", "", code)


def _scoped(name: str) -> str:
    """A module as a scope of its own, from which others take what it exports."""
    text = _with_imports(_file(name))
    exported = re.findall(r"^export (?:const|class|function) (\w+)", text, flags=re.MULTILINE)
    inside = re.sub(r"^export ", "", text, flags=re.MULTILINE)
    return f"const {_variable(name)} = (() => {{\n{inside}return {{ {', '.join(exported)} }};\n}})();"


def _with_imports(text: str) -> str:
    """The same module, which takes what it imports from the scopes before it."""

    def taken(match: re.Match[str]) -> str:
        names = " ".join(match[1].split()).rstrip(", ")
        return f"const {{ {names} }} = {_variable(match[2])};"

    return re.sub(r'^import \{([^}]*)\} from "\./([\w.]+)";', taken, text, flags=re.MULTILINE)


def _variable(name: str) -> str:
    return f"module_{name.removesuffix('.js')}"


@cache
def style() -> str:
    """The page's style sheet, its figures' included."""
    sheet = variables(".tw,.twp,.twb") + _file("figure.css") + _PAGE_MARK + _file("page.css")
    return sheet.replace("\n", "")


def document(state: dict[str, Any]) -> str:
    """A whole page of that state, which asks no network for anything."""
    code, begin = (
        (_code(_NETWORK), "module_network.openNetwork") if "network" in state else (_code(), "module_page.open")
    )
    taken = 'const CSS = document.querySelector("style").textContent;'
    script = f'{taken}\n{code}\n{begin}(document.getElementById("tapwise"));\n'
    sheet = style()
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(sheet)}'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    data = json.dumps(state, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for letter in ("<", ">", "&", "\u2028", "\u2029"):
        data = data.replace(letter, f"\\u{ord(letter):04x}")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(str(state.get('title', 'Tapwise')))}</title><style>{sheet}</style>"
        '</head><body class="twb"><div id="tapwise"></div>'
        "<noscript>This page draws its figures with JavaScript.</noscript>"
        f'<script type="application/json" id="tapwise-state">{data}</script>'
        f'<script type="module">{script}</script></body></html>\n'
    )


def frame(state: dict[str, Any], height: int = 900) -> str:
    """The page within a frame, for a notebook: it stays there when the notebook is exported."""
    return (
        f'<iframe title="{escape(str(state.get("title", "Tapwise")), quote=True)}" '
        f'style="width:100%;height:{height}px;border:0" sandbox="allow-scripts allow-downloads" '
        f'srcdoc="{escape(document(state), quote=True)}"></iframe>'
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(sha256(text.encode()).digest()).decode()


def state_of(trace: Trace, title: str, plan: str, most: int | None = None) -> dict[str, Any]:
    """What the page starts with: the numbers of a trace, and the plan that ran it.

    Arguments:
        most: numbers that the state may hold, rounded to six digits; None: as many as a page of its own.

    Raises:
        ValueError: complex numbers or pooling, which the page doesn't compute with.
    """
    if np.iscomplexobj(trace.input) or np.iscomplexobj(trace.weight):
        raise ValueError("the page computes with real numbers, and these are complex: save as .svg or .txt")
    if trace.pooling:
        raise ValueError("the page computes sums of products, and pooling has none: save as .svg or .txt")
    samples, weights = _SAMPLES, _WEIGHTS
    if most is not None:
        weights = min(trace.weight.size, most // 2)
        samples = most - weights
    part = cut_to(trace, samples, weights)
    geometry = trace.geometry
    about = [f"Shown: {', '.join(part.left_out)}."] if part.left_out else []
    about += ["Numbers are rounded to six digits."] if most is not None else []
    state: dict[str, Any] = {
        "title": title,
        "x": _numbers(part.input, most is not None),
        "weight": _numbers(part.weight, most is not None),
        "bias": None if part.bias is None else _numbers(part.bias, most is not None),
        "stride": geometry.stride,
        "dilation": geometry.dilation,
        "padding": _padding(geometry),
        "padding_mode": geometry.padding_mode,
        "groups": part.groups,
        "transposed": geometry.transposed,
        "output_padding": geometry.output_padding,
        "plan": plan,
        "about": " ".join(about),
    }
    if not geometry.transposed:
        state["layers"] = [layer_of(geometry)]
    return state


def layer_of(geometry: Geometry, name: str = "") -> dict[str, Any]:
    """A layer of the page's stack."""
    return {
        "name": name or "this layer",
        "kernel_size": geometry.kernel_size,
        "stride": geometry.stride,
        "dilation": geometry.dilation,
        "padding": _padding(geometry),
    }


def _padding(geometry: Geometry) -> str | list[int]:
    """Causal padding by its name, which follows the filter as the reader changes it."""
    causal = not geometry.transposed and geometry.padding == (geometry.effective_kernel_size - 1, 0)
    return "causal" if causal and geometry.left else list(geometry.padding)


def _numbers(values: Array, rounded: bool = False) -> Any:
    """Nested lists of the shortest numbers that stand for the values; what JSON can't hold, as words."""
    if values.dtype.kind in "iub":
        return values.astype(np.int64).tolist()
    if values.ndim > 1:
        return [_numbers(row, rounded) for row in values]
    return [
        float(f"{value:.6g}" if rounded else str(value)) if np.isfinite(value) else str(value)
        for value in values.astype(values.dtype if values.dtype.itemsize >= 4 else np.float32)
    ]
