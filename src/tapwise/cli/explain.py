"""tapwise explain: every step of a convolution, printed or written."""

from __future__ import annotations

from pathlib import Path
from textwrap import indent
from typing import Annotated, Literal

from cyclopts import Parameter

from tapwise.cli.options import ConvolutionOptions, Signal
from tapwise.cli.terminal import say


def explain(
    signal: Signal = None,
    /,
    *,
    convolution: ConvolutionOptions = ConvolutionOptions(),  # noqa: B008 (frozen)
    save: Annotated[
        Path | None,
        Parameter(
            help="Write it there: .html (the page), .svg, .png, .pdf (figures), .gif, .apng (the taps sliding), .txt."
        ),
    ] = None,
    figure: Annotated[
        Literal["window", "shapes", "sources", "channels", "response", "kernel"] | None,
        Parameter(help="One of the figures, in place of the first three."),
    ] = None,
    at: Annotated[int, Parameter(help="The output whose window a figure shows.")] = 0,
    plan: Annotated[
        bool, Parameter(negative="", help="Also which kernel Tapwise runs it by, why, and what each would take.")
    ] = False,
    slide: Annotated[bool, Parameter(negative="", help="A figure of 16 to 9, for a lecture.")] = False,
) -> None:
    """Print every step of a convolution: its products and their sum.

    tapwise explain --input 0:10 --taps 1,1,1
    """
    if save is None and (figure or at or slide):
        raise ValueError(
            "--figure, --at and --slide are of a picture: give --save NAME.svg, or another name that it ends in"
        )
    explanation = convolution.explained(signal)
    if save is None:
        say(explanation.lesson)
        if plan:
            say(f"\nPlan\n{indent(explanation.why(), '  ')}")
    else:
        say(f"wrote {explanation.save(save, figure, output=at, slide=slide)}")
