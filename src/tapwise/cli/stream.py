"""tapwise stream: a model live, from standard input to standard output."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

from cyclopts import Parameter

from tapwise.cli.options import Model, Size, Weights, refuse_missing
from tapwise.cli.terminal import say, separate_samples


def stream(
    model: Model,
    /,
    *,
    weights: Weights = None,
    size: Size = "",
    rate: Annotated[float, Parameter(help="Samples a second.")] = 16_000,
    chunk: Annotated[float, Parameter(help="Milliseconds of a chunk.")] = 10,
    form: Annotated[
        Literal["s16", "f32"],
        Parameter(name="--format", help="Raw samples: 16-bit, or 32-bit floats; channels interleaved."),
    ] = "s16",
) -> None:
    """Run a model live: raw samples from standard input, chunk by chunk, to standard output.

    arecord -t raw -f S16_LE -r 16000 | tapwise stream model.py:factory --weights w.safetensors | aplay -t raw -f S16_LE -r 16000
    """
    refuse_missing(model, weights)
    samples = separate_samples()  # before the model is made, which may print
    from tapwise.cli import live, models

    if sys.stdin is None:
        raise ValueError("standard input is closed: the samples come from there")
    loaded = models.load(model, weights, size)
    with samples:
        summary = live.run(*loaded, sys.stdin.buffer, samples, rate=rate, chunk_ms=chunk, form=form)
    say(summary, error=True)
