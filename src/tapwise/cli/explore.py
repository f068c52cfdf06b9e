"""tapwise explore: the page of a convolution, opened in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tapwise.cli.options import ConvolutionOptions, Signal
from tapwise.cli.terminal import say


def explore(
    signal: Signal = None,
    /,
    *,
    convolution: ConvolutionOptions = ConvolutionOptions(),  # noqa: B008 (frozen)
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="The page to write; it needs no network.")] = Path(
        "tapwise.html"
    ),
    open: Annotated[bool, Parameter(help="Show the page in the browser.")] = True,
) -> None:
    """Write a page in which every number of a convolution can be seen and changed, and open it.

    tapwise explore                              a lesson: ten samples, three taps, eight stations

    tapwise explore --taps 1,2,1 speech.wav      your own
    """
    if output.suffix.lower() != ".html":
        raise ValueError(f"the page is an .html file, got {output.name!r}")
    if signal is None and convolution == ConvolutionOptions():
        from tapwise.atomic_file import write_atomically
        from tapwise.explanation.page import document
        from tapwise.explanation.words import WORDS

        page = write_atomically(output, {".html": lambda: document({"lesson": 0, "title": WORDS["lesson_title"]})})
    else:
        page = convolution.explained(signal).save(output)
    say(f"wrote {page}")
    if open:
        import webbrowser

        webbrowser.open(page.resolve().as_uri())
