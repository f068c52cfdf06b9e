"""Runs: one model, run on signals of any length, made of the example's kind of numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from math import lcm
from typing import Any

import torch
from torch import Tensor, nn

from tapwise.engine.threads import leave_lost_pool
from tapwise.errors import TimelineError
from tapwise.network import rules
from tapwise.network.aligned_calls import aligned_to
from tapwise.network.record import Recording, record
from tapwise.network.samples import Source, drawn_like, is_zero
from tapwise.padding import integer

# Longer examples are cut to this at first, since reading takes some twenty runs.
LONGEST = 4096
# Steps in length that are tried where the model takes neither one sample more nor the double.
_STEPS = [step for step in range(2, 4097) if 30**12 % step == 0]  # of the factors 2, 3 and 5


class Runs:
    """Runs of one model on signals of any length, made of the example's kind of numbers.

    The signal is the first input. Further inputs are constants where the model takes signals of other
    lengths with them as they are, else signals too, where an axis of theirs is as long.

    Arguments:
        example: the model's input, or a tuple of its inputs, of which the first is the signal.
        time: the signal's axis of time; None: the last axis, besides the batch's, along which the model takes
            other lengths.
    """

    def __init__(self, model: nn.Module, example: Any, time: int | None) -> None:
        leave_lost_pool()
        inputs = example if isinstance(example, tuple) else (example,)
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        if not inputs or not isinstance(inputs[0], Tensor):
            raise TypeError("example must be a tensor, or a tuple whose first entry is the signal")
        self.model, self.inputs = model, inputs
        self.example = inputs[0].detach()
        ndim = self.example.ndim
        if ndim == 0:
            raise TypeError("example must have an axis of time, got a tensor without axes")
        if self.example.numel() == 0:
            raise ValueError(f"example must hold numbers, got a tensor of size {list(self.example.shape)}")
        time = None if time is None else integer("time", time)
        if time is not None and not -ndim <= time < ndim:
            raise ValueError(f"time must be an axis of an example with {ndim} axes, -{ndim} to {ndim - 1}, got {time}")
        self.random = torch.Generator(device="cpu").manual_seed(0)
        self.rows = int(self.example.shape[0])
        self.positive = False
        self.template: Recording | None = None
        self.sources: tuple[Source, ...] = ()
        # Lengths that the model takes: the example's, and longer or shorter by multiples of this.
        self.multiple = 1
        self.of_example: Recording | None = None
        self._choices: list[tuple[Source, ...]] = []
        self._check_example()
        self._find_time([time % ndim] if time is not None else range(ndim - 1, 0 if ndim > 1 else -1, -1))
        self._find_positive()

    @property
    def time(self) -> int:
        """The signal's axis of time."""
        return self.sources[0].time

    @property
    def length(self) -> int:
        """The samples of the example."""
        return int(self.example.shape[self.time])

    @property
    def examples(self) -> list[Tensor]:
        """The example of each signal."""
        return [self.inputs[source.place].detach() for source in self.sources]

    def signals(self, length: int, rows: int | None = None) -> tuple[Tensor, ...]:
        """Signals of a length and a batch, one for each source, of numbers like the example's."""
        return tuple(self._signal(source, length, rows) for source in self.sources)

    def _signal(self, source: Source, length: int, rows: int | None) -> Tensor:
        like: Tensor = self.inputs[source.place]
        in_batch = rows if like.shape[0] == self.rows else None
        return drawn_like(
            like.detach(),
            source.time,
            source.length(length),
            in_batch,
            self.random,
            self.positive and source.place == 0,
        )

    def run(self, signals: Sequence[Tensor], keep: bool = False) -> Recording:
        """The model's run on signals, with the calls of the template where it made fewer by padding nothing."""
        inputs, places = list(self.inputs), [source.place for source in self.sources] or [0]
        for place, signal in zip(places, signals, strict=True):
            inputs[place] = signal
        found = record(self.model, tuple(inputs), keep, rules.atomic_types(), places)
        return found if self.template is None else aligned_to(self.template, found)

    def _check_example(self) -> None:
        try:
            self.of_example = self.run([self.example])
        except TimelineError:
            return  # it runs, but can't be followed: reported later
        except Exception as error:
            raise ValueError(
                f"the model doesn't run on an example of size {list(self.example.shape)}: {error}"
            ) from error

    def _find_time(self, axes: Iterable[int]) -> None:
        reason: Exception | None = None
        axes = list(axes)
        for time in axes:
            others = self._as_long(time)
            same = [source for source in others if source.rate == 1]
            ratios = [[*same, source] for source in others if source.rate != 1]
            choices = [(Source(0, time), *further) for further in ([], same, *ratios, others)]
            self._choices = list(dict.fromkeys(choices))
            reason = self._take_sources() or reason
            if self.sources:
                return
        size = list(self.example.shape)
        where = f"axis {axes[0]}" if len(axes) == 1 else f"an axis of {', '.join(map(str, sorted(axes)))}"
        first = "" if len(axes) == 1 else "; the first is the batch's: give time=0 if it is time"
        raise ValueError(
            f"the model doesn't run on an example of size {size} made longer along {where}{first}; a second input "
            f"of fixed length, or a layer for one length alone, is in the way: {reason}"
        ) from reason

    def take_further_sources(self) -> bool:
        """Take more of the inputs for signals than so far; False where there are no more, or the model takes none."""
        self.template = None
        self._take_sources()
        return bool(self.sources)

    def _take_sources(self) -> Exception | None:
        """The next of the choices of signals with which the model takes other lengths, or why there is none."""
        reason: Exception | None = None
        while self._choices:
            self.sources = self._choices.pop(0)
            found, error = self._multiple(self.sources[0].time)
            if found is not None:
                self.multiple = found
                return None
            reason = reason or error
        self.sources = ()
        return reason

    def _as_long(self, time: int) -> list[Source]:
        """The other inputs with an axis as long as the signal, or an integer ratio of it."""
        found = []
        length = self.example.shape[time]
        for place, other in enumerate(self.inputs[1:], 1):
            if not isinstance(other, Tensor) or other.ndim < 1:
                continue
            if other.ndim == 1 and other.shape[0] == self.rows != length:
                continue  # one number for each row
            axes = range(other.ndim - 1, 0 if other.ndim > 1 else -1, -1)
            rates = {axis: Fraction(other.shape[axis], length) for axis in axes if length > 1 and other.shape[axis] > 1}
            same = next((axis for axis, rate in rates.items() if rate == 1), None)
            ratio = next((a for a, rate in rates.items() if 1 in (rate.numerator, rate.denominator)), None)
            axis = ratio if same is None else same
            if axis is not None:
                found.append(Source(place, axis, rates[axis]))
        return found

    def _multiple(self, time: int) -> tuple[int | None, Exception | None]:
        """The least step in length that the model takes, or why it takes none."""
        length = int(self.example.shape[time])
        scale = lcm(*(source.rate.denominator for source in self.sources))
        reason = self._fails_longer(length, scale)
        if reason is None:
            return scale, None
        steps: Iterable[int] = _STEPS
        if length > 1 and self._fails_longer(length, length) is None:
            steps = (step for step in range(2, length + 1) if length % step == 0)  # a multiple of it is taken
        found = (step for step in steps if step % scale == 0 and self._fails_longer(length, step) is None)
        return next(found, None), reason

    def _fails_longer(self, length: int, step: int) -> Exception | None:
        return self._fails(length + step) or self._fails(length + (8 if step == 1 else 3) * step)

    def _fails(self, length: int) -> Exception | None:
        try:
            self.run(self.signals(length))
        except TimelineError:
            return None
        except Exception as error:
            return error
        return None

    def _find_positive(self) -> None:
        """An example of zeros tells no sign: positive numbers where the model has a NaN of others."""
        if not (self.example.is_floating_point() and is_zero(self.example)):
            return
        try:
            if not self._has_nan():
                return
            self.positive = True
            self.positive = not self._has_nan()
        except TimelineError:
            self.positive = False

    def _has_nan(self) -> bool:
        values = self.run(self.signals(self.shortest()), keep=True).values
        return any(v.is_floating_point() and bool(v.isnan().any()) for v in values)

    def shortest(self) -> int:
        """A length to begin with: the example's, or shorter where that is long and the model runs."""
        length = self.length
        shorter = length - -(-(length - LONGEST) // self.multiple) * self.multiple
        if length > LONGEST and shorter > 0:
            return length if self._fails(shorter) else shorter
        return length
