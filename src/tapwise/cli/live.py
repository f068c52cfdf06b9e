"""Live: samples from a pipe or a file through a model's stream, chunk by chunk, as they come."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from torch import nn

from tapwise.cli.model_files import filled_words, undefined_words, writer_of
from tapwise.signals.base import Reader, Source, Writer
from tapwise.signals.models import ChannelStream, Kind, Summary, kind_of_outputs, run
from tapwise.signals.pcm import ENCODINGS, FULL_SCALES, RAW, SUBTYPES, PipeWriter

Form = Literal["s16", "f32"]


@dataclass
class Report:
    """What a live run took.

    Arguments:
        rate: samples a second of the source.
        chunk: samples of a step.
        left_over: bytes at the end that were no sample.
        notes: what the file that was written can't hold.
    """

    model: ChannelStream
    kind: Kind
    summary: Summary
    rate: float
    chunk: int
    left_over: int = 0
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        summary, model = self.summary, self.model
        if not summary.samples:
            return "no samples came"
        computing, signal = sum(summary.seconds), summary.samples / self.rate
        p99 = float(np.quantile(summary.seconds, 0.99)) * 1e3
        chunk = self.chunk / self.rate * 1e3
        delay = model.delay / self.rate * 1e3
        lines = [
            f"{summary.samples:,} samples in ({model.channels} x {self.rate:g} Hz), {summary.outputs:,} out "
            f"({model.out_channels} x {float(self.rate / model.stride):g} Hz)"
            + ", each channel by itself"
            * model.is_by_channel,
            f"{signal:.1f} s of signal in {computing:.2f} s of computing: real-time factor {computing / signal:.3f}",
            f"a chunk of {chunk:.3g} ms takes {1e3 * float(np.median(summary.seconds)):.3g} ms, 99% of them at "
            f"most {p99:.3g} ms",
            f"latency {chunk + delay + p99:.3g} ms: chunk, look-ahead ({delay:.3g} ms) and computing",
        ]
        if self.left_over:
            lines.append(f"{self.left_over} bytes at the end were no complete sample: is the format right?")
        if summary.clipped:
            lines.append(f"{summary.clipped:,} output samples were clipped")
        if summary.undefined:
            lines.append(undefined_words(summary, self.kind))
        if summary.filled:
            lines.append(filled_words(summary))
        if computing > signal:
            lines.append("slower than real time: a longer chunk, or fewer channels, would help")
        return "\n".join(lines)


def samples_of(rate: float, chunk_ms: float) -> int:
    """Samples of a chunk.

    Raises:
        ValueError: less than one, or numbers that are no rate and no time.
    """
    if not (0 < rate < 1e12 and 0 < chunk_ms < 1e9):
        raise ValueError(f"expected a rate in Hz and a chunk in milliseconds, got {rate:g} and {chunk_ms:g}")
    count = round(rate * chunk_ms / 1000)
    if count < 1:
        raise ValueError(f"a chunk of {chunk_ms:g} ms at {rate:g} Hz holds no sample")
    return count


def stream_samples(
    model: nn.Module,
    example: Any,
    source: Source,
    target: Path | BinaryIO,
    *,
    chunk_ms: float,
    form: Form,
    nan: str | None = None,
) -> Report:
    """Stream a model over a source of samples.

    Arguments:
        target: a file to be written complete or not at all, or one to which samples go at once: a WAV where the
            source is a sound with a header, else raw samples.
        form: of raw samples.
        nan: ``"error"`` or ``"propagate"``; None: an error in a file alone.

    Raises:
        ValueError: a chunk shorter than a sample, or a model or an output that doesn't fit.
    """
    assert source.rate is not None
    chunk = samples_of(source.rate, chunk_ms)
    live = ChannelStream(model, example, source.channels or None, source.path)
    source.channels = live.channels
    rate = float(Fraction(source.rate) / live.stride)
    outputs = live.output_length(source.length) if isinstance(source, Reader) else None
    writer: Writer | PipeWriter
    if isinstance(target, Path):
        writer, kind = writer_of(target, source, live, outputs, rate)
    else:
        writer, kind = _pipe_of(target, source, live, rate, form)
    with writer:
        summary = run(source, writer, live, kind, block=chunk, nan=nan or ("propagate" if outputs is None else "error"))
    return Report(live, kind, summary, source.rate, chunk, getattr(source, "left_over", 0), writer.notes)


def _pipe_of(target: BinaryIO, source: Source, live: ChannelStream, rate: float, form: Form) -> tuple[PipeWriter, Kind]:
    """A pipe like the one or the sound that the samples come from."""
    kind = kind_of_outputs(source, True, live.dtype)
    subtype = getattr(source, "subtype", None)
    if subtype is None or not getattr(source, "is_wav", True):
        encoding = ENCODINGS[RAW[form]]
        kind = Kind(np.dtype(encoding.dtype), encoding.quantum, FULL_SCALES.get(encoding.dtype, 1.0))
        return PipeWriter(target, RAW[form], live.out_channels, None), kind
    if rate != int(rate):
        raise ValueError(
            f"a WAV's rate is a whole number, and the outputs' is {rate:g} Hz: name the file as an argument, and -o FILE.npy"
        )
    if not kind.quantum or subtype not in ENCODINGS:
        subtype = SUBTYPES[kind.dtype.name]
    return PipeWriter(target, subtype, live.out_channels, int(rate)), kind
