"""Live: samples from one file through a model's stream to another, as they come."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from torch import Tensor, nn

from tapwise.streaming.stream import stream

Form = Literal["s16", "f32"]
_DTYPES: dict[str, Any] = {"s16": np.dtype("<i2"), "f32": np.dtype("<f4")}
_FULL = 32768.0


@dataclass
class Summary:
    """What a run took.

    Arguments:
        rate: samples a second.
        seconds: of each step.
    """

    rate: float
    chunk: int
    delay: int
    first: int = 0
    samples: int = 0
    outputs: int = 0
    clipped: int = 0
    channels: tuple[int, int] = (1, 1)
    stride: Fraction = Fraction(1)
    left_over: int = 0
    seconds: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        if not self.seconds or not self.samples:
            return "no samples came"
        computing, signal = sum(self.seconds), self.samples / self.rate
        p99 = float(np.quantile(self.seconds, 0.99)) * 1e3
        chunk = self.chunk / self.rate * 1e3
        lines = [
            f"{self.samples:,} samples in ({self.channels[0]} x {self.rate:g} Hz), {self.outputs:,} out "
            f"({self.channels[1]} x {float(self.rate / self.stride):g} Hz)",
            f"{signal:.1f} s of signal in {computing:.2f} s of computing: real-time factor {computing / signal:.3f}",
            f"a chunk of {chunk:.3g} ms takes {1e3 * float(np.median(self.seconds)):.3g} ms, 99% of them at "
            f"most {p99:.3g} ms",
            f"latency {chunk + self.delay / self.rate * 1e3 + p99:.3g} ms: chunk, look-ahead "
            f"({self.delay / self.rate * 1e3:.3g} ms) and computing",
        ]
        if self.left_over:
            lines.append(f"{self.left_over} bytes at the end were no complete sample: is the format right?")
        if self.clipped:
            lines.append(f"{self.clipped:,} output samples were clipped")
        if computing > signal:
            lines.append("slower than real time: a longer chunk, or fewer channels, would help")
        return "\n".join(lines)


def run(
    model: nn.Module, example: Any, source: BinaryIO, target: BinaryIO, *, rate: float, chunk_ms: float, form: Form
) -> Summary:
    """Stream a model from one file of samples to another, raw, interleaved, little-endian.

    Arguments:
        example: an example of the model's input: a batch of one, time, and channels perhaps.
        rate: samples a second of the input.
        chunk_ms: of each step.
        form: ``"s16"`` for 16-bit integers, from -1 to 1 in the model, or ``"f32"``.

    Raises:
        ValueError: a chunk shorter than a sample, an example of other axes, or outputs that are no samples.
    """
    first = example[0] if isinstance(example, tuple) else example
    if not isinstance(first, Tensor):
        raise ValueError(f"the example must be a tensor (1, channels, time), got {type(first).__name__}")
    if not (0 < rate < 1e12 and 0 < chunk_ms < 1e9):
        raise ValueError(f"expected a rate in Hz and a chunk in milliseconds, got {rate:g} and {chunk_ms:g}")
    if first.ndim not in (2, 3) or first.shape[0] != 1:
        raise ValueError(f"expected an example (1, channels, time) or (1, time), got {list(first.shape)}")
    if not first.is_floating_point():
        raise ValueError(f"samples are real numbers: the model's example is of {first.dtype}")
    count = round(rate * chunk_ms / 1000)
    if count < 1:
        raise ValueError(f"a chunk of {chunk_ms:g} ms at {rate:g} Hz holds no sample")
    live = stream(model, example)
    if live.n_signals > 1:
        raise ValueError(
            f"the model takes {live.n_signals} signals at once, and the command reads one: use tapwise.stream in Python"
        )
    time_axis = live.time_axes[0]
    channels = first.shape[3 - time_axis] if first.ndim == 3 else 1  # axes 0, 1 and 2: of the batch, and these
    summary = Summary(rate, count, live.delay, stride=live.stride, channels=(channels, 1))
    size, dtype = _DTYPES[form].itemsize * channels, _DTYPES[form]
    while data := _read(source, count * size):
        if not summary.samples and data[:4] in (b"RIFF", b"fLaC", b"OggS"):
            raise ValueError(
                "this is an audio file with a header: raw samples are expected, as "
                "`sox in.wav -t raw -e signed -b 16 -c 1 -r 16000 -` writes them"
            )
        summary.left_over = len(data) % size
        data = data[: len(data) // size * size]
        x = np.frombuffer(data, dtype).reshape(-1, channels).astype(np.float32)
        x = x / _FULL if form == "s16" else x
        signal = torch.from_numpy(x.T if time_axis == first.ndim - 1 else x).contiguous().to(first.dtype)
        started = time.perf_counter()
        y = live.step(signal[None] if first.ndim == 3 else signal)
        summary.seconds.append(time.perf_counter() - started)
        summary.samples += x.shape[0]
        _write(target, y, live.time_axes[1], form, summary)
    _write(target, live.flush(), live.time_axes[1], form, summary)
    return summary


def _read(source: BinaryIO, count: int) -> bytes:
    """``count`` bytes, fewer only at the end, even from a pipe."""
    parts = []
    while count and (data := source.read(count)):
        parts.append(data)
        count -= len(data)
    return b"".join(parts)


def _write(target: BinaryIO, y: Any, time_axis: int, form: Form, summary: Summary) -> None:
    if not isinstance(y, Tensor):
        raise ValueError("the model returns more than one tensor: let its factory return one that doesn't")
    if not y.is_floating_point() or y.ndim not in (1, 2, 3) or (y.ndim > 1 and y.shape[0] != 1 and time_axis != 0):
        raise ValueError(
            f"the model gives {y.dtype} of size {list(y.shape)}: samples are real numbers of (1, channels, time)"
        )
    frames = y.detach().cpu().float().movedim(time_axis, 0)
    frames = frames.flatten(1) if y.ndim > 1 else frames[:, None]  # (time, channels)
    samples = frames.numpy()
    if form == "s16":
        scaled = np.rint(samples * _FULL)
        summary.clipped += int(((scaled > _FULL - 1) | (scaled < -_FULL)).sum())
        samples = np.clip(np.nan_to_num(scaled), -_FULL, _FULL - 1)
    summary.outputs += samples.shape[0]
    summary.channels = (summary.channels[0], samples.shape[1])
    target.write(np.ascontiguousarray(samples, _DTYPES[form]).tobytes())
    target.flush()
