"""tapwise stream: a model live, from standard input or a file to standard output or a file."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from tapwise.cli.options import (
    NO_TABLE_OPTIONS,
    Axis,
    Model,
    Size,
    TableOptions,
    Weights,
    rate_of,
    refuse_missing,
    refuse_target,
)
from tapwise.cli.terminal import say, separate_samples

_RAW_RATE = 16_000


def stream(
    model: Model,
    signal: Annotated[Path | None, Parameter(help="A file, instead of standard input.")] = None,
    /,
    *,
    weights: Weights = None,
    size: Size = "",
    output: Annotated[
        Path | None, Parameter(name=["--output", "-o"], help="A file to write, instead of standard output.")
    ] = None,
    rate: Annotated[
        float | None, Parameter(help="Samples a second, where no header says it; default: 16000 for raw samples.")
    ] = None,
    chunk: Annotated[float, Parameter(help="Milliseconds of a chunk.")] = 10,
    form: Annotated[
        Literal["s16", "f32"],
        Parameter(name="--format", help="Raw samples: 16-bit, or 32-bit floats; channels interleaved."),
    ] = "s16",
    channels: Annotated[
        int | None, Parameter(help="Channels of raw samples on standard input. Default: the model's.")
    ] = None,
    threads: Annotated[int, Parameter(help="For one chunk; more than 1 wait for each other where others compute.")] = 1,
    nan: Annotated[
        Literal["error", "propagate"] | None,
        Parameter(help="At a NaN: stop, or let it through. Default: stop in a file, go on in a pipe."),
    ] = None,
    axis: Axis = None,
    table: TableOptions = NO_TABLE_OPTIONS,
) -> None:
    """Run a model live, chunk by chunk, and say what each chunk takes.

    arecord -t raw -f S16_LE -r 16000 | tapwise stream model.py:factory --weights w.safetensors | aplay -t raw -f S16_LE -r 16000

    tapwise stream model.py:factory noisy.wav -o clean.wav

    Standard input is a WAV or raw samples. A WAV says its rate and channels. The same kind goes to standard output.

    A file is written complete or not at all. A model of one channel runs on each channel by itself. tapwise apply --model runs over a file as fast as it goes.
    """
    if threads < 1 or (channels is not None and channels < 1):
        raise ValueError(f"--threads and --channels are at least 1, got {threads if threads < 1 else channels}")
    refuse_missing(model, weights)
    if output is not None:
        refuse_target(signal, output)
    elif sys.stdout is not None and sys.stdout.isatty():
        raise ValueError("samples would fill the terminal: give -o FILE, or pipe them to a program that plays them")
    with ExitStack() as stack:
        reader = None
        if signal is not None:
            reader = stack.enter_context(table.open_reader(signal, axis))
            reader.rate = rate_of(signal, reader.rate, rate)
            if reader.rate is None:
                raise ValueError(f"{signal} has no rate, and a chunk is measured in milliseconds: give --rate")
        elif table != NO_TABLE_OPTIONS or axis is not None:
            raise ValueError("--axis and the options of tables belong to a file")
        elif sys.stdin is None:
            raise ValueError("standard input is closed: the samples come from there")
        target = output or stack.enter_context(separate_samples())  # before the model is made, which may print
        import torch

        from tapwise.cli import live, models
        from tapwise.engine.compiled import announce_by
        from tapwise.signals.pcm import PipeSource

        announce_by(lambda text: say(text, error=True))
        torch.set_num_threads(threads)
        loaded = models.load(model, weights, size)
        source = reader or PipeSource(sys.stdin.buffer, form)
        if channels is not None and source.channels not in (0, channels):
            raise ValueError(f"{source.path} has {source.channels} channels: --channels is for raw samples")
        source.channels = source.channels or channels or 0
        if reader is None:
            source.rate = rate_of(source.path, source.rate, rate) or _RAW_RATE
        report = live.stream_samples(*loaded, source, target, chunk_ms=chunk, form=form, nan=nan)
        notes = (*(reader.notes if reader else ()), *report.notes)
    say("\n".join([str(report), *notes]), error=True)
