"""tapwise apply: a recording filtered by blocks."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from tapwise.cli.options import Axis, Causal, Dilation, Flip, PaddingMode, PaddingOption, Stride, as_used, usual_mode
from tapwise.cli.terminal import say


def apply(
    signal: Annotated[Path, Parameter(help="A .wav, .flac, .npy or .csv file.")],
    result: Annotated[Path | None, Parameter(help="The file to write, as -o.")] = None,
    /,
    *,
    taps: Annotated[str, Parameter(help="The filter; its forms are listed below.", allow_leading_hyphen=True)],
    output: Annotated[
        Path | None, Parameter(name=["--output", "-o"], help="Default: NAME.filtered.SUFFIX beside it.")
    ] = None,
    padding: PaddingOption = None,
    causal: Causal = False,
    stride: Stride = 1,
    dilation: Dilation = 1,
    padding_mode: Annotated[
        Literal[PaddingMode, "shorter"] | None,
        Parameter(
            help="What stands in the padding; shorter: nothing, the window is shortened and its weights grow. "
            "Default: shorter for mean and gauss, else replicate for tables and zeros for others."
        ),
    ] = None,
    flip: Flip = None,
    axis: Axis = None,
    column: Annotated[
        list[str] | None, Parameter(help="A table's column to filter; repeat for more.", negative="")
    ] = None,
    rate: Annotated[float | None, Parameter(help="Samples a second, where the file has no rate.")] = None,
    nan: Annotated[
        Literal["error", "propagate", "skip"],
        Parameter(help="At a NaN or gap: stop, let it through, or average what else is in the window (mean, gauss)."),
    ] = "error",
) -> None:
    """Filter every channel of a recording, by blocks: its size doesn't matter.

    One filter is every channel's. Several, as those of a stereo impulse response, are a filter for each channel, or make as many channels of one. Four on a stereo recording are true stereo: L to L, L to R, R to L, R to R. An impulse response has to have the signal's rate.

    The dtype stays, the rate is divided by the stride, a table keeps its other columns. Integers are rounded, and what is beyond their range is clipped and counted. The output appears complete or not at all.

    An array has the shape (length,) or (channels, length); with --axis 0, (length, channels).
    """
    if output is not None and result is not None:
        raise ValueError(f"the file to write is given twice: {result} and -o {output}")
    output = output or result
    from tapwise import signals
    from tapwise.cli import taps as designs

    target = output or signal.with_suffix(f".filtered{signal.suffix}")
    signals.suffix_of(target)
    if target.exists() and signal.exists() and target.samefile(signal):
        raise ValueError(f"-o {target} is the recording itself: give another name")
    if rate is not None and not 0 < rate < math.inf:
        raise ValueError(f"--rate must be a positive number of samples a second, got {rate:g}")
    with signals.open_reader(signal, tuple(column or ()), axis) as reader:
        if rate is not None and reader.rate not in (None, rate):
            raise ValueError(f"{signal} says {reader.rate:g} Hz: --rate is for files without a rate")
        rate = reader.rate if reader.rate is not None else rate
        filter, groups = designs.for_channels(designs.parse(taps, rate), reader.channels, taps)
        used = as_used(taps, filter, flip, padding, causal, dilation)
        mode = padding_mode or ("shorter" if used.is_average else usual_mode(signal))
        if (mode == "shorter" or nan == "skip") and (filter.ndim > 1 or not _weighs(filter)):
            named = "--nan skip" if nan == "skip" else "--padding-mode shorter"
            raise ValueError(f"{named} is for averages, one filter of taps of 0 and above, as mean and gauss")
        from tapwise.geometry import Geometry

        geometry = Geometry(
            filter.shape[-1], stride, dilation, used.padding, groups, "zeros" if mode == "shorter" else mode
        )
        outputs = geometry.output_length(reader.length)
        from tapwise.cli.progress import Progress, print_summary
        from tapwise.signals import filtering  # torch, after what may be wrong

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
                reader, writer, used.weight, geometry, nan=nan, is_shortened=mode == "shorter", progress=progress
            )
    print_summary(reader, target, geometry, summary, rate_out, time.perf_counter() - started)
    ends = f", {_ENDS[mode]} beyond the ends" if any(geometry.padding) else ", no padding"
    say(f"  taps: {used.words}{ends}")
    for note in (*reader.notes, *writer.notes):
        say(f"  {note}", error=True)


def _weighs(filter: Any) -> bool:
    """Whether the taps are weights of an average: not negative, not complex, not all 0."""
    return filter.dtype.kind != "c" and bool((filter >= 0).all() and filter.any())


_ENDS = {
    "zeros": "zeros",
    "reflect": "the signal reflected",
    "replicate": "the nearest sample",
    "circular": "the other end",
    "shorter": "nothing (shorter windows)",
}
