"""tapwise explain: every step of a convolution, printed or written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tapwise.cli.options import ConvolutionOptions, Signal
from tapwise.cli.terminal import say


def explain(
    signal: Signal = None,
    /,
    *,
    convolution: ConvolutionOptions = ConvolutionOptions(),  # noqa: B008 (frozen)
    save: Annotated[
        Path | None, Parameter(help="Write the page (.html), the figures (.svg) or the text (.txt) there.")
    ] = None,
) -> None:
    """Print every step of a convolution: its products and their sum.

    tapwise explain --input 0:10 --taps 1,1,1
    """
    explanation = convolution.explained(signal)
    if save is None:
        say(explanation.text)
    else:
        say(f"wrote {explanation.save(save)}")
