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
# Numbers that a page holds: what is beyond them is left out, and the page says so.
_SAMPLES, _WEIGHTS = 200_000, 300_000
# In the style sheet, between what figures need and the rest.
_PAGE_MARK = "/* the page */\n"


def _file(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")


@cache
def module() -> str:
    """The page's ES module, which needs nothing else: ``export default {render}``, for anywidget."""
    return f"const CSS = {json.dumps(style())};\n{_code()}"


@cache
def _code() -> str:
    """The modules as one, but for ``CSS``, the style sheet: a document has it already."""
    layout = json.dumps(json.loads(_file("layout.json")), separators=(",", ":"))
    parts = [
        f"const LAYOUT = {layout};",
        f"const LESSON = {json.dumps(json.loads(_file('lesson.json')), ensure_ascii=False, separators=(',', ':'))};",
        f"const WORDS = {json.dumps(WORDS, ensure_ascii=False)};",
        f"const FIGURE_CSS = CSS.split({json.dumps(_PAGE_MARK)})[0];",
    ]
    parts += [_scoped(name) for name in _MODULES[:-1]]
    last = _with_imports(_file(_MODULES[-1]))
    parts.append(re.sub(r"^export (?=const|class|function)", "", last, flags=re.MULTILINE))
    # Comments and indentation are for who reads the source.
    return re.sub(r"^(?: *//.*\n| +)", "", "\n".join(parts), flags=re.MULTILINE)


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
    return variables(".tw,.twp,.twb") + _file("figure.css") + _PAGE_MARK + _file("page.css")


def document(state: dict[str, Any]) -> str:
    """A whole page of that state, which asks no network for anything."""
    script = f'const CSS = document.querySelector("style").textContent;\n{_code()}\nopen(document.getElementById("tapwise"));\n'
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


def state_of(trace: Trace, title: str, plan: str) -> dict[str, Any]:
    """What the page starts with: the numbers of a trace, and the plan that ran it.

    Raises:
        ValueError: complex numbers or pooling, which the page doesn't compute with.
    """
    if np.iscomplexobj(trace.input) or np.iscomplexobj(trace.weight):
        raise ValueError("the page computes with real numbers, and these are complex: save as .svg or .txt")
    if trace.pooling:
        raise ValueError("the page computes sums of products, and pooling has none: save as .svg or .txt")
    geometry, weight, bias = trace.geometry, trace.weight, trace.bias
    x, said = trace.input, []
    if x.shape[1] * x.shape[0] > _SAMPLES:
        keep = max(_SAMPLES // x.shape[0], geometry.input_length(1), 1)
        said.append(f"the first {keep} of {x.shape[1]} samples")
        x = x[:, :keep]
    groups = geometry.groups
    if weight.size > _WEIGHTS:
        x, weight, bias, groups, words = _fewer_channels(geometry, x, weight, bias)
        said.append(words)
    state: dict[str, Any] = {
        "title": title,
        "x": _numbers(x),
        "weight": _numbers(weight),
        "bias": None if bias is None else _numbers(bias),
        "stride": geometry.stride,
        "dilation": geometry.dilation,
        "padding": _padding(geometry),
        "padding_mode": geometry.padding_mode,
        "groups": groups,
        "transposed": geometry.transposed,
        "output_padding": geometry.output_padding,
        "plan": plan,
        "about": f"Shown: {', '.join(said)}." if said else "",
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


def _fewer_channels(
    geometry: Geometry, x: Array, weight: Array, bias: Array | None
) -> tuple[Array, Array, Array | None, int, str]:
    """The first groups, or the first output channels: as many as fit."""
    share = _WEIGHTS / weight.size
    if geometry.groups > 1:
        groups = max(1, int(geometry.groups * share))
        ins, outer = (n // geometry.groups * groups for n in (x.shape[0], weight.shape[0]))
        outs = weight.shape[1] * groups if geometry.transposed else outer
        bias = None if bias is None else bias[:outs]
        words = f"the first {groups} of {geometry.groups} groups"
        return x[:ins], weight[:outer], bias, groups, words
    axis = 1 if geometry.transposed else 0
    outs = max(1, int(weight.shape[axis] * share))
    words = f"the first {outs} of {weight.shape[axis]} output channels"
    weight = weight[:, :outs] if geometry.transposed else weight[:outs]
    return x, weight, None if bias is None else bias[:outs], 1, words


def _numbers(values: Array) -> Any:
    """Nested lists of the shortest numbers that stand for the values; what JSON can't hold, as words."""
    if values.dtype.kind in "iub":
        return values.astype(np.int64).tolist()
    if values.ndim > 1:
        return [_numbers(row) for row in values]
    return [
        float(str(value)) if np.isfinite(value) else str(value)
        for value in values.astype(values.dtype if values.dtype.itemsize >= 4 else np.float32)
    ]
