"""A model over a file: a recording in, a recording out, by blocks."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from tapwise import signals
from tapwise.cli import models
from tapwise.cli.progress import Progress, print_losses, print_outputs, speed
from tapwise.cli.terminal import say
from tapwise.engine.compiled import announce_by
from tapwise.signals.base import Reader, Source, Writer
from tapwise.signals.models import BLOCK, ChannelStream, Kind, Summary, kind_of_outputs, run


def run_file(
    name: str,
    weights: Path | None,
    size: str,
    reader: Reader,
    target: Path,
    rate: float | None,
    nan: str,
    block: int = BLOCK,
) -> tuple[ChannelStream, Summary]:
    """Run the model of a name over a file, write another, and say what was done.

    Arguments:
        rate: samples a second of the file, or None.
        block: samples of a step.
    """
    announce_by(lambda text: say(text, error=True))
    model, example = models.load(name, weights, size)
    live = ChannelStream(model, example, reader.channels, reader.path)
    outputs = live.output_length(reader.length)
    if not outputs:
        raise ValueError(f"{reader.path}: of {reader.length:,} samples the model makes no output")
    rate_out = None if rate is None else float(Fraction(rate) / live.stride)
    writer, kind = writer_of(target, reader, live, outputs, rate_out)
    with writer, Progress(outputs, rate_out) as progress:
        summary = run(reader, writer, live, kind, block=block, nan=nan, progress=progress)
    seconds = progress.seconds
    print_outputs(reader, summary.samples, target, summary.outputs, rate_out)
    channels = f", {live.out_channels} channels out" if live.out_channels != reader.channels else ""
    by_channel = ", each channel by itself" if live.is_by_channel else ""
    delay = f"{live.delay:,} samples" + (f" ({1e3 * live.delay / rate:.3g} ms)" if rate else "")
    say(
        f"  {name}{by_channel}{channels}, reads {delay} ahead, {seconds:.2f} s, "
        f"{speed(summary.outputs, seconds, rate_out)}"
    )
    print_losses(summary, kind.dtype, summary.outputs * live.out_channels)
    if summary.undefined:
        say(f"  {undefined_words(summary, kind)}", error=True)
    if summary.filled:
        say(f"  {filled_words(summary)}", error=True)
    for note in (*reader.notes, *writer.notes):
        say(f"  {note}", error=True)
    return live, summary


def writer_of(
    target: Path, source: Source, live: ChannelStream, outputs: int | None, rate: float | None
) -> tuple[Writer, Kind]:
    """A writer of a model's outputs, and how they are written.

    Arguments:
        outputs: how many there will be; None: as many as come.
        rate: of the outputs.
    """
    suffix = signals.suffix_of(target)
    if outputs is None and suffix == ".npy":
        raise ValueError(f"-o {target}: an .npy file begins with its length, which a pipe doesn't tell: write .wav")
    kind = kind_of_outputs(source, suffix in signals.SOUNDS, live.dtype)
    rows: range | None = None
    if (
        signals.keeps_rows(source.path, target)
        and live.stride == 1
        and live.out_channels == source.channels
        and isinstance(source, Reader)
    ):
        rows = range(outputs or 0)
    writer = signals.open_writer(target, source, outputs or 0, rate, rows, live.out_channels, kind.dtype)
    return writer, kind


def undefined_words(summary: Summary, kind: Kind) -> str:
    """What became of outputs that are NaN or infinite."""
    fate = "written as 0 and as full scale" if kind.quantum else "written as they are"
    return f"the model gave {summary.undefined:,} samples that are NaN or infinite, {fate}"


def filled_words(summary: Summary) -> str:
    """What was done for a model that takes multiples of a length alone."""
    return (
        f"the model takes multiples of a length alone: {summary.filled:,} zeros were put after the last sample, and "
        "what they gave was left out"
    )
