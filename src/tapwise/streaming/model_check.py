"""Whether a stream's model is still the one that was read.

A stream runs the model's own parameters, so that a change in place, as an optimizer makes, is followed.
What it can't follow it refuses by name: a parameter, a buffer or a module that was replaced, added or
removed, and numbers from which others were computed when the model was read (weight_norm). A parameter of
another dtype or size (``model.half()``) is refused by the convolution that it is for.
"""

from __future__ import annotations

from operator import is_
from typing import Any

import torch
from torch import Tensor, nn

from tapwise.errors import ModelChangedError
from tapwise.evaluation import version_of
from tapwise.network.record import Recording


class ModelCheck:
    """Compares a model with what it was: by identity, which costs a fraction of any operation."""

    def __init__(self, model: nn.Module, recording: Recording) -> None:
        read = recording.operands | recording.beside
        self._tables: list[tuple[dict[str, Any], tuple[Any, ...], tuple[str, ...], str]] = []
        self._sources: list[tuple[Tensor, tuple[Any, ...], str]] = []
        self._recurrent: list[tuple[Tensor, torch.Size, torch.dtype, str]] = []
        for path, module in model.named_modules():
            if isinstance(module, nn.RNNBase):  # torch reads their weights by the sizes that the module was made with
                own = ((p, p.shape, p.dtype, _joined(path, n)) for n, p in module._parameters.items() if p is not None)
                self._recurrent.extend(own)
            for table in (module._parameters, module._modules):
                if table:
                    self._tables.append((table, tuple(table.values()), tuple(table), path))
            # Others may be replaced at will: the stream doesn't read them.
            if any(id(buffer) in read for buffer in module._buffers.values()):
                self._tables.append((module._buffers, tuple(module._buffers.values()), tuple(module._buffers), path))
            for name, tensor in (*module._parameters.items(), *module._buffers.items()):
                if id(tensor) in recording.beside and tensor is not None:
                    self._sources.append((tensor, _mark(tensor), _joined(path, name)))

    def __call__(self) -> None:
        """Refuse a model that was changed.

        Raises:
            ModelChangedError: the first change, by name.
        """
        for table, values, names, path in self._tables:
            if len(table) != len(values) or not all(map(is_, table.values(), values)):
                raise _replaced(table, values, names, path)
        for tensor, shape, dtype, name in self._recurrent:
            if tensor.shape != shape or tensor.dtype is not dtype:
                raise ModelChangedError(
                    f"{name} was {list(shape)} of {dtype} when the stream was made, and is {list(tensor.shape)} of "
                    f"{tensor.dtype}: make the stream anew (tapwise.stream)"
                )
        for tensor, mark, name in self._sources:
            if _mark(tensor) != mark:
                raise ModelChangedError(
                    f"{name} was changed, and the stream uses numbers that were computed from it before: "
                    "make the stream anew (tapwise.stream)"
                )


def _mark(tensor: Tensor) -> tuple[Any, ...]:
    """What tells that a tensor was changed: its version, its place in memory, its dtype."""
    return version_of(tensor), tensor.data_ptr(), tensor.dtype


def _replaced(table: dict[str, Any], values: tuple[Any, ...], names: tuple[str, ...], path: str) -> ModelChangedError:
    before = dict(zip(names, values, strict=True))
    name = next(n for n in (*names, *table) if n not in table or n not in before or table[n] is not before[n])
    what = "replaced" if name in table and name in before else ("added" if name in table else "removed")
    return ModelChangedError(
        f"{_joined(path, name)} was {what} after the stream was made, which runs the model as it was: "
        "make the stream anew (tapwise.stream), or change parameters in place"
    )


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
