"""Write docs/gallery.md, its figures, and, where there is a Chromium, the page's pictures.

python docs/make_gallery.py [--pictures]
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import torch

import tapwise as tw

DOCS = Path(__file__).parent
IMAGES = DOCS / "images" / "gallery"


def figures() -> dict[str, tuple[str, str, str]]:
    """Each figure's name: its title, the code that makes it, and the image."""
    cases = {
        "window": ("The window", 'tw.explain([1.0, 2.0, 1.0], torch.arange(10.0)).svg("window")'),
        "strided": (
            "A stride that doesn't divide: what no window reaches is grey",
            'tw.explain([1.0, 1.0, 1.0], torch.arange(10.0), stride=3, dilation=2).svg("window")',
        ),
        "shapes": ("Shapes", 'tw.explain(tw.CausalConv1d(2, 4, 3), ramps(2)).svg("shapes")'),
        "causal": (
            "Causal, dilated: no line comes from the future",
            'tw.explain([1.0, 1.0, 1.0], torch.arange(10.0), padding="causal", dilation=2).svg("sources")',
        ),
        "transposed": (
            "Transposed: each input spreads its taps",
            'tw.explain([1.0, 2.0, 1.0], torch.arange(5.0), transposed=True, stride=2).svg("sources")',
        ),
        "channels": ("Channels and groups", 'tw.explain(tw.Conv1d(6, 9, 3, groups=3), ramps(6)).svg("channels")'),
        "response": (
            "What the taps do to a sound",
            'tw.explain([0.1, 0.2, 0.4, 0.2, 0.1], torch.arange(10.0), padding="causal").svg("response")',
        ),
        "kernel": (
            "The kernel, to scale",
            'tw.explain([0.5, 1.0, -0.5], torch.arange(20.0), dilation=2).svg("kernel")',
        ),
        "slide": (
            "Any output's window, as a slide",
            'tw.explain([1.0, 2.0, 1.0], torch.arange(10.0), padding=1).svg("window", output=4, slide=True)',
        ),
        "stack": (
            "A stack's receptive field",
            'tw.Stack([tw.Geometry(2, dilation=d, padding="causal") for d in (1, 2, 4)]).svg()',
        ),
        "holes": (
            "Holes, and a look into the future",
            'tw.Stack([tw.Geometry(3, dilation=4, padding="same"), tw.Geometry(2, dilation=3)]).svg()',
        ),
    }
    found = {}
    for name, (title, code) in cases.items():
        torch.manual_seed(0)
        found[name] = (title, code, eval(code, {"tw": tw, "torch": torch, "ramps": _ramps}))
    return found


def _ramps(channels: int) -> torch.Tensor:
    return torch.arange(10.0).repeat(channels, 1)


def error() -> str:
    """The picture that a shape error carries in a notebook."""
    try:
        tw.conv1d(torch.zeros(1, 3, 10), torch.zeros(4, 5, 3))
    except tw.ShapeError as caught:
        return caught._repr_svg_()
    raise AssertionError


def page() -> str:
    """The gallery's text."""
    parts = [
        "# Gallery\n\nEvery figure is an SVG of its own, light or dark as its reader's screen; "
        "`python docs/make_gallery.py` draws them anew. In the code, `ramps(n)` is "
        "`torch.arange(10.0).repeat(n, 1)`.\n"
    ]
    for name, (title, code, _) in figures().items():
        parts.append(f"## {title}\n\n`{code}`\n\n![{title}](images/gallery/{name}.svg)\n")
    parts.append(
        "## A shape error in a notebook\n\n![Squares: 3 channels of x, 5 that weight reads](images/gallery/error.svg)\n"
    )
    for name, (title, _, _) in SHOTS.items():
        parts.append(f"## {title}\n\n![{title}](images/gallery/{name}.png)\n")
    return "\n".join(parts)


_LAYER = (
    "tapwise.set({weight: [[[1,2,1],[0.5,-1,0.5]],[[1,0,-1],[2,2,2]]], bias: [0.5,-1], output: 2, "
    "x: [[0,1,2,3,4,5,6,7,8,9],[3,1,4,1,5,9,2,6,5,3]], dilation: 2, channel: 1, padding: 'causal', "
    "title: 'Two channels, dilated and causal', pinned: true})"
)
# The page's pictures: title, what is set, and (width, colour scheme).
_TRANSPOSED = (
    "tapwise.set({x: [[1,2,3,4,5]], weight: [[[1,2,4]]], transposed: true, stride: 2, padding: [1,1], output: 3, "
    "title: 'A transposed convolution'})"
)
SHOTS = {
    "page": ("The page", _LAYER, (1180, "light")),
    "page-lesson": ("The lesson", "document.querySelector('[data-control=lesson]').click()", (1180, "light")),
    "page-gradient": ("The gradient", f"{_LAYER}; tapwise.set({{tab: 'gradient'}})", (1180, "light")),
    "page-channels": (
        "The weights of every pair of channels",
        f"{_LAYER}; tapwise.set({{tab: 'channels'}})",
        (900, "light"),
    ),
    "page-transposed": ("A transposed convolution: inputs spread their taps", _TRANSPOSED, (900, "light")),
    "page-response": ("The response", f"{_LAYER}; tapwise.set({{tab: 'response'}})", (900, "dark")),
    "page-dark": ("Its stack, dark", f"{_LAYER}; tapwise.set({{tab: 'stack'}})", (900, "dark")),
    "page-phone": ("On a phone", _LAYER, (390, "light")),
    "network": ("A network", "", (1180, "light")),
    "network-dark": ("A network, dark, on a phone", "", (390, "dark")),
    "notebook": ("In a notebook, as it is exported", "", (900, "light")),
}


def network() -> str:
    """The page of a small network."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv1d(1, 8, 7, padding=3),
        torch.nn.ELU(),
        torch.nn.Conv1d(8, 16, 4, stride=2, padding=1),
        tw.CausalConv1d(16, 16, 3, dilation=2),
        torch.nn.ConvTranspose1d(16, 1, 4, 2, padding=1),
        torch.nn.Tanh(),
    )
    return tw.inspect(model, torch.randn(1, 1, 400)).page()


def pictures() -> None:
    """The page in a browser."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("google-chrome")
    explanation = tw.explain([1.0, 1.0, 1.0], torch.arange(10.0), padding="causal")
    stack = [{"kernel_size": 2, "stride": 1, "dilation": d, "padding": "causal"} for d in (1, 2, 4)]
    from tapwise.explanation.page import document, frame

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        target, notebook, model = (Path(folder) / f"{name}.html" for name in ("page", "notebook", "network"))
        model.write_text(network(), encoding="utf-8")
        target.write_text(document({**explanation.state, "layers": stack}), encoding="utf-8")
        notebook.write_text(_notebook(frame(explanation.state, 620)), encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for name, (_, script, (width, scheme)) in SHOTS.items():
            screen = {"width": width, "height": 700}
            shown = browser.new_page(viewport=screen, color_scheme=scheme)
            shown.goto((target if script else model if "network" in name else notebook).as_uri())
            if script:
                shown.evaluate(script)
            shown.wait_for_timeout(400)
            shown.screenshot(path=IMAGES / f"{name}.png", full_page=name != "notebook")
        browser.close()


def _notebook(output: str) -> str:
    """An exported notebook with that output."""
    import nbformat
    from nbconvert import HTMLExporter

    cell = nbformat.v4.new_code_cell(
        'import tapwise as tw\n\ntw.explain([1.0, 1.0, 1.0], range(10), padding="causal")',
        execution_count=1,
        outputs=[nbformat.v4.new_output("execute_result", {"text/html": output}, execution_count=1)],
    )
    notebook = nbformat.v4.new_notebook(cells=[cell])
    return str(HTMLExporter().from_notebook_node(notebook)[0])


def main() -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    for name, (_, _, svg) in figures().items():
        (IMAGES / f"{name}.svg").write_text(svg, encoding="utf-8")
    (IMAGES / "error.svg").write_text(error(), encoding="utf-8")
    (DOCS / "gallery.md").write_text(page(), encoding="utf-8")
    if "--pictures" in sys.argv:
        pictures()
    print(f"wrote {DOCS / 'gallery.md'} and {IMAGES}")


if __name__ == "__main__":
    main()
