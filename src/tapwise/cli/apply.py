"""tapwise apply: a recording filtered by blocks."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from tapwise.cli.options import Dilation, Mode, PaddingOption, Stride, padding_of
from tapwise.cli.terminal import say


def apply(
    signal: Annotated[Path, Parameter(help="A .wav, .flac, .npy or .csv file.")],
    /,
    *,
    taps: Annotated[str, Parameter(help="The filter; its forms are listed below.", allow_leading_hyphen=True)],
    output: Annotated[
        Path | None, Parameter(name=["--output", "-o"], help="Default: NAME.filtered.SUFFIX beside it.")
    ] = None,
    padding: PaddingOption = "same",
    stride: Stride = 1,
    dilation: Dilation = 1,
    padding_mode: Mode = "zeros",
    flip: Annotated[bool, Parameter(negative="", help="Reverse the taps, to convolve as NumPy and SciPy do.")] = False,
    column: Annotated[
        list[str] | None, Parameter(help="A table's column to filter; repeat for more.", negative="")
    ] = None,
    rate: Annotated[float | None, Parameter(help="Samples a second, where the file has no rate.")] = None,
    nan: Annotated[Literal["error", "propagate"], Parameter(help="Stop at a NaN or gap, or let it through.")] = "error",
) -> None:
    """Filter every channel of a recording, by blocks: its size doesn't matter.

    One filter is every channel's. Several, as those of a stereo impulse response, are a filter for each channel, or make as many channels of one. Four on a stereo recording are true stereo: L to L, L to R, R to L, R to R. An impulse response has to have the signal's rate.

    The dtype stays, the rate is divided by the stride, a table keeps its other columns. Integers are rounded, and what is beyond their range is clipped and counted. The output appears complete or not at all.

    Taps are used as they stand (cross-correlation, as nn.Conv1d); --flip reverses them. With --flip, 'same' is scipy.signal.convolve's, which is numpy.convolve's where the signal is the longer. With an even number of taps its outputs stand one sample later than those of torch's 'same', which --padding LEFT,RIGHT gives.
    """
    from tapwise import signals
    from tapwise.cli import taps as designs
    from tapwise.cli.progress import Progress, print_summary
    from tapwise.geometry import Geometry
    from tapwise.signals import filtering

    target = output or signal.with_suffix(f".filtered{signal.suffix}")
    if target.exists() and signal.exists() and target.samefile(signal):
        raise ValueError(f"-o {target} is the recording itself: give another name")
    if rate is not None and not 0 < rate < math.inf:
        raise ValueError(f"--rate must be a positive number of samples a second, got {rate:g}")
    with signals.open_reader(signal, tuple(column or ())) as reader:
        if rate is not None and reader.rate not in (None, rate):
            raise ValueError(f"{signal} says {reader.rate:g} Hz: --rate is for files without a rate")
        rate = reader.rate if reader.rate is not None else rate
        filter, groups = designs.for_channels(designs.parse(taps, rate), reader.channels, taps)
        pads = padding_of(padding)
        if flip and padding == "same":  # centred as numpy.convolve centres: one sample on for an even K
            span = dilation * (filter.shape[-1] - 1)
            pads = (span - span // 2, span // 2)
        geometry = Geometry(filter.shape[-1], stride, dilation, pads, groups, padding_mode)
        outputs = geometry.output_length(reader.length)
        rows = None
        if target.suffix.lower() == signal.suffix.lower() == ".csv":
            rows = filtering.rows_of_outputs(geometry, reader.length)
        rate_out = None if rate is None else rate / stride
        started = time.perf_counter()
        with (
            signals.open_writer(
                target, reader, outputs, rate_out, rows, reader.channels if filter.ndim == 1 else len(filter)
            ) as writer,
            Progress(outputs, rate_out) as progress,
        ):
            summary = filtering.run(
                reader,
                writer,
                filter[..., ::-1] if flip else filter,
                geometry,
                refuse_nan=nan == "error",
                progress=progress,
            )
    print_summary(reader, target, geometry, summary, rate_out, time.perf_counter() - started)
    for note in (*reader.notes, *writer.notes):
        say(f"  {note}", error=True)
