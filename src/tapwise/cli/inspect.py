"""tapwise inspect: what a model needs of the past and of the future."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tapwise.cli.options import Model, Size, Weights, refuse_missing
from tapwise.cli.terminal import say


def inspect(
    model: Model,
    /,
    *,
    weights: Weights = None,
    size: Size = "",
    rate: Annotated[float | None, Parameter(help="Samples a second: times are then said in milliseconds too.")] = None,
    save: Annotated[
        Path | None, Parameter(help="Write the report there: .txt, .html (the network's page), .svg, .png or .pdf.")
    ] = None,
) -> None:
    """Say what a model needs of the past and of the future: receptive field, delay, what isn't causal.

    tapwise inspect examples/denoise/model.py:denoiser
    """
    refuse_missing(model, weights)
    from tapwise.cli import models
    from tapwise.network import inspection

    report = inspection.inspect(*models.load(model, weights, size), rate=rate)
    say(report if save is None else f"wrote {report.save(save)}")
