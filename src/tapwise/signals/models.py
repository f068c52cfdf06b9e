"""Models: a network's stream over the channels of a signal, block by block, equal to one run over it all."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from math import floor
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tapwise.errors import SignalError
from tapwise.signals.base import Array, Source, Writer
from tapwise.signals.pcm import PipeWriter
from tapwise.signals.samples import Losses, as_stored, refuse_nan
from tapwise.streaming.stream import stream

# Samples of a channel in a block, where none are asked for: what a network makes of them fits the memory.
BLOCK = 1 << 16


@dataclass
class Summary(Losses):
    """What a run did.

    Arguments:
        samples: read from each channel.
        outputs: samples written to each channel.
        undefined: outputs that are NaN or infinite.
        filled: zeros that were put at the end for a model that takes multiples of a length alone.
        seconds: that each step took.
    """

    samples: int = 0
    outputs: int = 0
    undefined: int = 0
    filled: int = 0
    seconds: list[float] = field(default_factory=list)


class Kind(NamedTuple):
    """How outputs are written.

    Arguments:
        dtype: of the samples.
        quantum: the step between two of them, 0 for floats.
        full_scale: the sample that stands for 1.0.
    """

    dtype: np.dtype[Any]
    quantum: int = 0
    full_scale: float = 1.0


class ChannelStream:
    """A model's stream, fed the channels of a signal: a model of one channel runs on each by itself.

    Arguments:
        example: of the model's input: a batch of one, time, and channels perhaps.
        channels: of the signal; None: as many as the model takes.
        name: of the signal, for errors.

    Raises:
        ValueError: an example of other axes, or channels that aren't the model's.
        TimelineError: a model that can't be streamed.
    """

    def __init__(self, model: nn.Module, example: Any, channels: int | None = None, name: object = "") -> None:
        first = example[0] if isinstance(example, tuple) else example
        if not isinstance(first, Tensor):
            raise ValueError(f"the example must be a tensor (1, channels, time), got {type(first).__name__}")
        if first.ndim not in (2, 3) or first.shape[0] != 1:
            raise ValueError(f"expected an example (1, channels, time) or (1, time), got {list(first.shape)}")
        if not first.is_floating_point():
            raise ValueError(f"samples are real numbers: the model's example is of {first.dtype}")
        live = stream(model, example)
        if live.n_signals > 1:
            raise ValueError(
                f"the model takes {live.n_signals} signals at once, and the command reads one: "
                "use tapwise.stream in Python"
            )
        self._axis, self._like = live.time_axes[0], first
        expected = first.shape[3 - self._axis] if first.ndim == 3 else 1  # axes 0, 1 and 2: of the batch, and these
        self.channels = expected if channels is None else channels
        if self.channels != expected != 1:
            raise ValueError(f"the model takes {expected} channels, {name} has {self.channels}")
        self.is_by_channel = self.channels > expected
        self._streams = [live] + [live.fork() for _ in range(self.channels - 1 if self.is_by_channel else 0)]
        self.stride, self.delay = live.stride, live.delay
        nothing = self.step(np.empty((self.channels, 0), np.float32))
        self.out_channels, self.dtype = nothing.shape[0], nothing.dtype

    def output_length(self, length: int) -> int:
        """Outputs of a full signal of ``length`` samples; what zeros at its end would give isn't counted."""
        filled = self.missing(length)
        return max(0, self._streams[0].output_length(length + filled) - floor(filled / self.stride))

    def missing(self, length: int) -> int:
        """Zeros that have to follow ``length`` samples, as the model takes multiples alone."""
        return self._streams[0].missing(length)

    def step(self, samples: Array) -> Array:
        """The outputs, (out_channels, m), that some more samples, (channels, n), determine."""
        parts = np.split(samples, len(self._streams))
        return np.concatenate(
            [
                self._outputs(live.step(self._chunk(part)), live.time_axes[1])
                for live, part in zip(self._streams, parts, strict=True)
            ]
        )

    def flush(self) -> Array:
        """The outputs that only the end determines: (out_channels, m)."""
        return np.concatenate([self._outputs(live.flush(), live.time_axes[1]) for live in self._streams])

    def _chunk(self, samples: Array) -> Tensor:
        like = self._like
        signal = torch.from_numpy(np.ascontiguousarray(samples))
        signal = signal if self._axis == like.ndim - 1 else signal.T.contiguous()
        return (signal[None] if like.ndim == 3 else signal).to(like)

    @staticmethod
    def _outputs(y: Any, time_axis: int) -> Array:
        if not isinstance(y, Tensor):
            raise ValueError("the model returns more than one tensor: let its factory return one that doesn't")
        if y.is_complex() or y.ndim not in (1, 2, 3) or (y.ndim > 1 and y.shape[0] != 1 and time_axis != 0):
            raise ValueError(
                f"the model gives {y.dtype} of size {list(y.shape)}: samples are real numbers of (1, channels, time)"
            )
        y = y.detach().cpu()
        y = y.float() if y.dtype == torch.bfloat16 else y
        frames = y.movedim(time_axis, 0)
        frames = frames.flatten(1) if y.ndim > 1 else frames[:, None]  # (time, channels)
        samples: Array = frames.T.numpy()
        return samples


def kind_of_outputs(source: Source, is_sound: bool, dtype: np.dtype[Any]) -> Kind:
    """How a model's outputs are written: as integers where a sound in integers becomes a sound again.

    Arguments:
        is_sound: whether a sound is written.
        dtype: of the model's outputs.

    Raises:
        SignalError: outputs that are no sound.
    """
    if not is_sound:
        return Kind(dtype)
    if dtype.kind != "f":
        raise SignalError(f"the model gives {dtype}, which is no sound: write .npy")
    if source.full_scale != 1:
        return Kind(source.dtype, source.quantum, source.full_scale)
    return Kind(np.dtype("float64" if dtype.itemsize == source.dtype.itemsize == 8 else "float32"))


def run(
    source: Source,
    writer: Writer | PipeWriter,
    model: ChannelStream,
    kind: Kind,
    *,
    block: int = BLOCK,
    nan: str = "error",
    progress: Callable[[int], None] = lambda outputs: None,
) -> Summary:
    """Run a model over a signal and write the outputs.

    Arguments:
        source: a sound in integers is given to the model from -1 to 1, all else as it stands.
        kind: how outputs are written.
        block: samples of a step.
        nan: ``"error"`` stops at the first NaN of the signal, ``"propagate"`` gives it to the model.
        progress: called with the number of outputs written so far, first with 0.

    Raises:
        SignalError: a NaN; of a file nothing is committed.
    """
    if source.dtype.kind == "c":
        raise SignalError(f"{source.path}: got {source.dtype} numbers, the model takes real ones: save two channels")
    summary = Summary()

    def write(y: Array, most: int | None = None) -> None:
        y = y if most is None else y[:, : most - summary.outputs]
        undefined = ~np.isfinite(y) if y.dtype.kind == "f" else np.zeros(0, bool)
        summary.undefined += int(undefined.sum())
        if kind.quantum:
            y = np.where(np.isnan(y), 0, np.clip(y, -1e6, 1e6)).astype(np.float64) * kind.full_scale
        writer.write(as_stored(y, kind.dtype, kind.quantum, not undefined.any(), summary, source.path))
        summary.outputs += y.shape[1]
        progress(summary.outputs)

    progress(0)
    for samples in source.blocks(block):
        if nan == "error":
            refuse_nan(source, samples, summary.samples)
        x = samples if source.full_scale == 1 else samples / source.full_scale
        started = time.perf_counter()
        y = model.step(x)
        summary.seconds.append(time.perf_counter() - started)
        summary.samples += samples.shape[1]
        write(y)
    summary.filled = model.missing(summary.samples)
    n_outputs = model.output_length(summary.samples) if summary.filled else None
    if summary.filled:
        write(model.step(np.zeros((model.channels, summary.filled), np.float32)), n_outputs)
    write(model.flush(), n_outputs)
    return summary
