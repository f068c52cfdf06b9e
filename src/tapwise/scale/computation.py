"""Computations: from a range of outputs to these outputs, read from a recording by itself."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from math import floor
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tapwise.errors import SignalError
from tapwise.evaluation import evaluating
from tapwise.geometry import Geometry
from tapwise.partition import first_row_of
from tapwise.scale.layout import Moments
from tapwise.scale.parts import ModelPart, PartialLayer, PartialModel
from tapwise.signals.base import Array, Reader
from tapwise.signals.samples import Losses, refuse_nan

# Samples of an example, where none is given.
_EXAMPLE = 4096


class Computation(ABC):
    """What is done to a recording. Rows of channels are computed by themselves. It may be pickled.

    Arguments:
        channels_in: of the recording that make a row.
        channels_out: of the outputs that a row gives.
        dtype: of the outputs.
        words: what it is, for a person.
    """

    channels_in: int
    channels_out: int
    dtype: np.dtype[Any]
    moments: Moments
    words: str

    @property
    @abstractmethod
    def digest(self) -> str:
        """What changes when the outputs would: numbers and settings of the layer or model."""

    @abstractmethod
    def output_length(self, length: int) -> int:
        """Outputs for a recording of ``length`` samples."""

    @abstractmethod
    def samples(self, start: int, stop: int, length: int) -> tuple[int, int]:
        """The samples [first, last) of a recording that the outputs [start, stop) need."""

    def prepare(self, n_rows: int, n_outputs: int, length: int) -> None:  # noqa: B027
        """Compile what so many outputs of so many rows need, before several threads ask for it."""

    @abstractmethod
    def needed_bytes(self, n_rows: int, start: int, stop: int, length: int) -> int:
        """The memory that computing outputs of some rows takes."""

    @abstractmethod
    def outputs(self, reader: Reader, rows: range, start: int, stop: int, losses: Losses) -> Array:
        """The outputs [start, stop) of some rows: (rows * channels_out, stop - start).

        Arguments:
            losses: what is clipped or overflows is counted there.
        """


class ModelComputation(Computation):
    """A layer's or a model's outputs.

    Arguments:
        make: gives the model and an example of its input; it is called once in each process.
        reader: the recording.
        nan: ``"error"`` refuses a recording with a NaN; ``"propagate"`` gives it to the model.

    Raises:
        ValueError: channels that aren't the model's.
        TimelineError: a model whose outputs can't be computed by parts.
    """

    def __init__(self, make: Callable[[], tuple[nn.Module, Any]], reader: Reader, nan: str = "propagate") -> None:
        self._make, self._nan = make, nan
        model, example = make()
        first = example[0] if isinstance(example, tuple) else example
        if not isinstance(first, Tensor) or first.ndim not in (2, 3) or first.shape[0] != 1:
            got = list(first.shape) if isinstance(first, Tensor) else type(first).__name__
            raise ValueError(f"expected an example (1, channels, time) or (1, time), got {got}")
        if reader.dtype.kind == "c" and not first.is_complex():
            raise SignalError(f"{reader.path}: got {reader.dtype} numbers, the model takes {first.dtype}")
        self.__dict__["_loaded"] = (first, _partial(model, example))
        partial = self._loaded[1]
        self.channels_in = first.shape[3 - partial.time] if first.ndim == 3 else 1
        _check_channels(reader, self.channels_in)
        self.words = _words_of(model)
        self.moments = Moments(partial.stride, _offset_of(model))
        nothing = self._as_rows(partial.run(partial.part(0, 0, 0), self._as_input(np.empty((1, self.channels_in, 0)))))
        self.channels_out, self.dtype = nothing.shape[1], nothing.dtype

    @cached_property
    def _loaded(self) -> tuple[Tensor, PartialModel | PartialLayer]:
        model, example = self._make()
        return (example[0] if isinstance(example, tuple) else example), _partial(model, example)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_loaded"}

    @property
    def digest(self) -> str:
        """Of the model's operations and numbers."""
        like, partial = self._loaded
        found = hashlib.sha256(f"{self._nan} {like.dtype} {self.words}".encode())
        found.update(partial.description.encode())
        for leaf in partial.constants:
            found.update(_bytes_of(leaf))
        for path, module in partial.model.named_modules():
            found.update(f"{path} {type(module).__qualname__}".encode())
            tensors = {**module._parameters, **module._buffers}  # those too that no state_dict holds
            for name, value in sorted({**module.__dict__, **tensors}.items()):
                if not name.startswith("_") and name != "training":
                    found.update(name.encode() + _bytes_of(value))
        return found.hexdigest()

    def output_length(self, length: int) -> int:
        """Outputs for a recording; what zeros give that have to follow it isn't counted."""
        partial = self._loaded[1]
        filled = partial.missing(length)
        return max(0, partial.output_length(length + filled) - floor(filled / partial.stride))

    def samples(self, start: int, stop: int, length: int) -> tuple[int, int]:
        """The samples [first, last) of a recording that outputs need."""
        first, last = self._part(start, stop, length).samples
        return min(first, length), min(last, length)

    def _part(self, start: int, stop: int, length: int) -> ModelPart:
        partial = self._loaded[1]
        return partial.part(start, stop, length + partial.missing(length))

    def needed_bytes(self, n_rows: int, start: int, stop: int, length: int) -> int:
        """Of what the model's operations hold at once, and of the samples as they are read."""
        like, partial = self._loaded
        part = self._part(start, stop, length)
        n_rows = n_rows if partial.rows_are_independent else 1
        read = (part.samples[1] - part.samples[0]) * self.channels_in
        return n_rows * (part.numbers * max(like.itemsize, self.dtype.itemsize) + 2 * read * like.itemsize)

    def outputs(self, reader: Reader, rows: range, start: int, stop: int, losses: Losses) -> Array:
        """The outputs of some rows."""
        partial, part = self._loaded[1], self._part(start, stop, reader.length)
        first, last = part.samples
        channels = range(rows.start * self.channels_in, rows.stop * self.channels_in)
        block = reader.read_channels(*self.samples(start, stop, reader.length), channels)
        if block.shape[1] < last - first:  # zeros after the end, for a model that takes multiples alone
            block = np.pad(block, ((0, 0), (0, last - first - block.shape[1])))
        if self._nan == "error":
            refuse_nan(reader, block, first, channels.start)
        block = block if reader.full_scale == 1 else block / reader.full_scale
        x = block.reshape(len(rows), self.channels_in, last - first)
        batches = [x] if partial.rows_are_independent else [row[None] for row in x]
        made = [self._as_rows(partial.run(part, self._as_input(batch))) for batch in batches]
        if self.dtype.kind in "fc" and np.isfinite(x).all():
            losses.overflowed += sum(int((~np.isfinite(rows)).sum()) for rows in made)
        y = np.concatenate(made) if len(made) > 1 else made[0]
        return y.reshape(len(rows) * self.channels_out, stop - start)

    def _as_input(self, x: Array) -> Tensor:
        """(rows, channels, n) with the axes of the model's input."""
        like, partial = self._loaded
        signal = torch.from_numpy(np.ascontiguousarray(x, x.dtype.newbyteorder("="))).to(like.device, like.dtype)
        if like.ndim == 2:
            return signal[:, 0]
        return signal if partial.time == 2 else signal.transpose(1, 2)

    def _as_rows(self, y: Tensor) -> Array:
        """A model's outputs as (rows, channels, n)."""
        partial = self._loaded[1]
        if y.ndim not in (2, 3) or partial.output_time == 0:
            raise ValueError(f"the model gives outputs of size {list(y.shape)}: expected (1, channels, time)")
        y = y.float() if y.dtype == torch.bfloat16 else y
        y = y[:, None] if y.ndim == 2 else y.movedim(partial.output_time, 2)
        rows: Array = y.detach().cpu().numpy()
        return rows


def _partial(model: nn.Module, example: Any) -> PartialModel | PartialLayer:
    return PartialLayer(model) if PartialLayer.is_one(model) else PartialModel(model, example)


def _bytes_of(value: Any) -> bytes:
    """What a setting or a tensor is, as bytes; nothing of other objects."""
    if isinstance(value, Tensor):
        numbers = value.detach().cpu().contiguous().reshape(-1)
        return str(tuple(value.shape)).encode() + numbers.view(torch.uint8).numpy().tobytes()
    if isinstance(value, bool | int | float | complex | str | bytes | torch.dtype | None):
        return repr(value).encode()
    if isinstance(value, tuple | list):
        return b"".join(map(_bytes_of, value))
    return b""


def _check_channels(reader: Reader, expected: int) -> None:
    shape: tuple[int, ...] | None = getattr(reader, "shape", None)
    if expected == 1:
        return
    others = (
        [reader.channels] if shape is None else [n for a, n in enumerate(shape) if a != getattr(reader, "axis", -1)]
    )
    got = others[-1] if others else 1
    if got != expected:
        raise ValueError(f"{reader.path}: the model takes {expected} channels, the signal has {got}")


def _words_of(model: nn.Module) -> str:
    text = repr(model)
    return text if "\n" not in text and len(text) < 200 else type(model).__name__


def _offset_of(model: nn.Module) -> int:
    """The sample that the first output belongs to: of one convolution as of a table's rows, of a model 0."""
    if isinstance(model, nn.Conv1d):
        return first_row_of(Geometry.of(model))
    return 0


def example_for(model: nn.Module, reader: Reader) -> Tensor:
    """An example of a model's input, of the recording's channels or of one.

    Raises:
        ValueError: a model that takes neither.
    """
    first = next((p for p in model.parameters() if p.is_floating_point() or p.is_complex()), torch.empty(0))
    if isinstance(model, nn.Conv1d | nn.ConvTranspose1d):
        length = max(64, 4 * Geometry.of(model).effective_kernel_size)
        return torch.zeros(1, model.in_channels, length, dtype=first.dtype, device=first.device)
    shape: tuple[int, ...] = getattr(reader, "shape", (reader.channels, reader.length))
    others = [n for axis, n in enumerate(shape) if axis != getattr(reader, "axis", 1)]
    reasons = []
    for channels in dict.fromkeys((others[-1] if others else 1, 1)):
        example = torch.zeros(1, channels, _EXAMPLE, dtype=first.dtype, device=first.device)
        try:
            with evaluating(model):
                model(example)
            return example
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            reasons.append(f"{list(example.shape)}: {str(error).partition(chr(10))[0]}")
    raise ValueError(f"give example=, a tensor that the model takes; it takes none of {'; '.join(reasons)}")
