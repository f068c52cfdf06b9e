"""Tuning: the kernels of a model's convolutions, timed on this machine instead of predicted.

# a run of the model  ->  its convolutions  ->  each problem's kernels, timed  ->  the plans of this process, and the file
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tapwise.engine import dispatch, measured, trials
from tapwise.engine.checks import autocast_dtype, only_native_because
from tapwise.engine.kernels import KERNELS
from tapwise.engine.kernels.inputs import obstacle
from tapwise.engine.kernels.native import torch_conv1d, torch_conv_transpose1d
from tapwise.engine.options import current_options
from tapwise.engine.plan import (
    AMX,
    NATIVE,
    NATIVE_TRAINING,
    Training,
    choose_kernel,
    choose_training,
    lowered,
    time_text,
)
from tapwise.engine.preparing import prepare
from tapwise.engine.problem import Problem
from tapwise.functional import conv1d, conv_transpose1d

# A convolution of so few channels, or so long a filter, is a kind of its own.
FEW_CHANNELS, LONG = 4, 64

Call = tuple[Problem, int]  # and batch


@dataclass(frozen=True, slots=True)
class TunedProblem:
    """A problem of a model, and what was measured of it.

    Arguments:
        kind: which kind of convolution it is, in a word.
        calls: how often the model poses it in one run.
        batch: rows of a call.
        predicted: the kernel, or the three of a training, that would run without measurements.
        chosen: those that run now.
        torch_seconds, predicted_seconds, seconds: of a call by torch's own convolution, by the kernels predicted and by
            those chosen; None for what was so slow that it was not timed.
    """

    problem: Problem
    kind: str
    calls: int
    batch: int
    predicted: str
    chosen: str
    torch_seconds: float | None
    predicted_seconds: float | None
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Tuning:
    """What ``tune`` measured: ``print`` shows a line for each kind of convolution.

    Arguments:
        problems: each problem of the model, without gradients.
        training: the same for training steps; empty where ``backward`` was not asked for.
        left: how many calls stay on torch, by the reason: it alone can run them (other devices, integers), or they come from
            layers that ``accelerate`` leaves as they are.
        threads: that they were measured on.
    """

    problems: list[TunedProblem]
    training: list[TunedProblem]
    left: dict[str, int]
    threads: int

    def __str__(self) -> str:
        calls = sum(p.calls for p in self.problems)
        threads = f"{self.threads} thread{'s' * (self.threads != 1)}"
        lines = [f"{_count(calls, 'convolution')} of {_count(len(self.problems), 'shape')}, timed on {threads}"]
        rows = _rows("forward", "kernels", self.problems)
        if self.training:
            rows += _rows("forward and backward", "kernels of outputs, grad_input, grad_weight", self.training)
        widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
        lines += [_line(row, widths) for row in rows]
        lines += [f"{_count(count, 'call')} left to torch, {why}" for why, count in self.left.items()]
        return "\n".join(lines)

    __repr__ = __str__


def _count(n: int, word: str) -> str:
    return f"{n} {word}{'s' * (n != 1)}"


def _rows(title: str, kernels: str, problems: list[TunedProblem]) -> list[list[str]]:
    by_kind: dict[str, list[TunedProblem]] = {}
    for problem in problems:
        by_kind.setdefault(problem.kind, []).append(problem)
    rows = [[title, "calls", "torch", "predicted", "tuned", "gain", kernels]]
    rows += [_row(kind, some) for kind, some in sorted(by_kind.items())]
    if len(by_kind) > 1:
        rows.append([*_row("all", problems)[:-1], ""])
    return rows


def _line(row: list[str], widths: list[int]) -> str:
    cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:-1], strict=True))]
    return "  ".join([*cells, row[-1]]).rstrip()


def _row(kind: str, problems: list[TunedProblem]) -> list[str]:
    names = ("torch_seconds", "predicted_seconds", "seconds")
    by_torch, by_prediction, ours = (_total(problems, name) for name in names)
    kernels = Counter[str]()
    for problem in problems:
        kernels[problem.chosen] += problem.calls
    listed = ", ".join(f"{name} {n}" for name, n in kernels.most_common())
    gain = "-" if by_torch is None or ours is None else f"{by_torch / ours:.2f}"
    shown = ["-" if value is None else time_text(value) for value in (by_torch, by_prediction, ours)]
    return [kind, str(sum(p.calls for p in problems)), *shown, gain, listed]


def _total(problems: list[TunedProblem], name: str) -> float | None:
    """The time of all calls; None where one was not timed."""
    values = [getattr(p, name) for p in problems]
    return None if None in values else sum(p.calls * value for p, value in zip(problems, values, strict=True))


def refuse_options() -> None:
    """Raise where options are in force that look at no measurement.

    Raises:
        ValueError: with the remedy.
    """
    options = current_options()
    if options.kernel is not None or options.deterministic:
        raise ValueError(
            "plans are tuned for the default options: call tune outside of options(kernel=...) and "
            "options(deterministic=True), which look at no measurement"
        )


def tuned(posed: Recorder, backward: bool, file: Path | None) -> Tuning:
    """Time the kernels of recorded convolutions, and use the fastest from now on: see ``tapwise.tune``.

    Arguments:
        file: to which what is measured is added, if any.
    """
    batches: dict[Problem, int] = {}
    for problem, batch in posed.calls:
        batches[problem] = max(batch, batches.get(problem, 0))
    prepare(loop for problem in batches for loop in trials.loops_of(problem, backward))
    predicted = {problem: _predicted(problem) for problem in batches}
    found = {problem: trials.measure(problem, batch, backward) for problem, batch in batches.items()}
    if (dtype := current_options().dtype) is not None:
        lower = {replace(p, dtype=dtype): batch for p, batch in batches.items() if p.dtype == torch.float32}
        found |= {
            p: trials.measure(p, batch, False, is_lowered=True)
            for p, batch in lower.items()
            if p not in found and KERNELS[AMX].why_not(p) is None
        }
    threads = torch.get_num_threads()
    measurements = {(problem, threads): measurement for problem, measurement in found.items()}
    measured.add(measurements)
    dispatch.forget()
    if file is not None and measurements:
        measured.write(file, measurements)
    forward, training = [], []
    for call, count in posed.calls.items():
        problem = call[0]
        kernel, kernels = predicted[problem]
        posed_in = lowered(problem)
        names = NATIVE, kernel, choose_kernel(posed_in)
        forward.append(_tuned(call, count, names, {**found[posed_in].seconds, **found[problem].seconds}))
        if backward:
            trained = (" ".join(names) for names in (NATIVE_TRAINING, kernels, choose_training(problem)))
            training.append(_tuned(call, count, tuple(trained), found[problem].training))
    return Tuning(forward, training, dict(posed.left), threads)


def _predicted(problem: Problem) -> tuple[str, Training]:
    """What runs without measurements."""
    with measured.ignored():
        return choose_kernel(lowered(problem)), choose_training(problem)


def _tuned(call: Call, count: int, names: tuple[str, ...], seconds: Mapping[str, float]) -> TunedProblem:
    """Of a call that was posed ``count`` times; ``names``: torch's kernels, those predicted, those chosen."""
    problem, batch = call
    by_torch, by_prediction, ours = (None if name not in seconds else seconds[name] * batch for name in names)
    _, predicted, chosen = names
    return TunedProblem(problem, kind_of(problem), count, batch, predicted, chosen, by_torch, by_prediction, ours)


def kind_of(problem: Problem) -> str:
    """The kind of a convolution, in a word or two."""
    geometry = problem.geometry
    fans = problem.in_channels_per_group, problem.out_channels_per_group
    if geometry.transposed:
        return "transposed"
    if geometry.kernel_size >= LONG:
        return "long"
    if geometry.groups > 1:
        return "depthwise" if fans[0] == 1 else "grouped"
    if geometry.kernel_size == 1:
        return "1x1"
    return "few channels" if min(fans) <= FEW_CHANNELS else "dense"


class Recorder(TorchFunctionMode):
    """Takes down the problems of an accelerated model's convolutions while it runs.

    Arguments:
        calls: by problem and batch, how often it was posed.
        left: calls that stay on torch, by the reason.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[Call] = Counter()
        self.left: Counter[str] = Counter()

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[Any], args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in (torch_conv1d, torch_conv_transpose1d):
            self.left[_ELSEWHERE] += 1
        elif func in _SETTINGS:
            self._record(_SETTINGS[func], *args, **kwargs)
        return func(*args, **kwargs)

    def _record(
        self,
        names: tuple[str, ...],
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        *args: Any,
        **named: Any,
    ) -> None:
        settings = {**dict(zip(names, args, strict=False)), **named}
        try:
            problem = Problem.of(input, weight, bias, transposed=names is _TRANSPOSED, **settings)
        except ValueError:  # which the call itself will say
            return
        is_left = only_native_because(input, weight, bias) is not None or obstacle(problem) is not None
        if is_left or problem.n_outputs == 0:
            self.left[_TORCH_ALONE] += 1
            return
        if (dtype := autocast_dtype(input)) != problem.dtype:
            problem = replace(problem, dtype=dtype)
        self.calls[problem, input.shape[0] if input.ndim == 3 else 1] += 1


_TORCH_ALONE, _ELSEWHERE = "which alone can run them", "whose layers are not on the engine"
_CONVOLUTION = ("stride", "padding", "dilation", "groups", "padding_mode")
_TRANSPOSED = ("stride", "padding", "output_padding", "groups", "dilation")
# By function of ours, the names of its arguments after the bias.
_SETTINGS: dict[Any, tuple[str, ...]] = {conv1d: _CONVOLUTION, conv_transpose1d: _TRANSPOSED}
