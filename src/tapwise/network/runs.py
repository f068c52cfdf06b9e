"""Runs: one model, run on signals of any length, made of the example's kind of numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from tapwise.errors import TimelineError
from tapwise.network import rules
from tapwise.network.record import Recording, record

# Longer examples are cut to this at first, since reading takes some twenty runs.
LONGEST = 4096


class Runs:
    """Runs of one model on signals of any length, made of the example's kind of numbers.

    Arguments:
        example: the model's input, or a tuple of its inputs, of which the first is the signal.
        time: the signal's axis of time; None: the last axis that the model takes at other lengths.
    """

    def __init__(self, model: nn.Module, example: Any, time: int | None) -> None:
        inputs = example if isinstance(example, tuple) else (example,)
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        if not inputs or not isinstance(inputs[0], Tensor):
            raise TypeError("example must be a tensor, or a tuple whose first entry is the signal")
        self.model, self.inputs = model, inputs
        self.example = inputs[0].detach()
        if self.example.ndim == 0:
            raise TypeError("example must have an axis of time, got a tensor without axes")
        self.random = torch.Generator(device="cpu").manual_seed(0)
        self.rows = int(self.example.shape[0])
        axes = range(self.example.ndim - 1, -1, -1) if time is None else [time]
        self.time = self._find_time(axes)

    def signal(self, length: int, rows: int | None = None, time: int | None = None) -> Tensor:
        """A signal of a length and a batch, of numbers like the example's."""
        time = self.time if time is None else time
        size = list(self.example.shape)
        size[time] = length
        if rows is not None:
            size[0] = rows
        like = self.example
        if like.is_floating_point() or like.is_complex():
            drawn = torch.randn(size, generator=self.random, dtype=torch.float64)
            return drawn.to(like.dtype).to(like.device)
        places = torch.randint(like.numel(), (int(torch.tensor(size).prod()),), generator=self.random)
        return like.reshape(-1)[places.to(like.device)].reshape(size)

    def run(self, signal: Tensor, keep: bool = False) -> Recording:
        """The model's run on a signal."""
        return record(self.model, (signal, *self.inputs[1:]), keep, rules.atomic_types())

    def _find_time(self, axes: Iterable[int]) -> int:
        reason: Exception | None = None
        for axis in axes:
            time = axis % self.example.ndim
            length = self.example.shape[time]
            try:
                for other in (length, length + 1, length + 8):
                    self.run(self.signal(other, time=time))
            except TimelineError:
                return time  # it runs, but can't be followed: reported later
            except Exception as error:
                reason = reason or error
            else:
                return time
        raise ValueError(
            f"the model doesn't run on an example of size {list(self.example.shape)}, or of that size but "
            f"longer in time: {reason}"
        ) from reason

    def shortest(self) -> int:
        """A length to begin with: the example's, or shorter where that is long and the model runs."""
        length = int(self.example.shape[self.time])
        if length > LONGEST:
            try:
                self.run(self.signal(LONGEST))
            except TimelineError:
                raise
            except Exception:
                return length
            return LONGEST
        return length
