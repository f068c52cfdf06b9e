"""Tuning: the kernels of a model's convolutions, timed on this machine instead of predicted.

# a run  ->  its convolutions  ->  each problem's kernels, timed  ->  the plans of this process, and the file
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tapwise.engine import dispatch, measured, trials
from tapwise.engine.checks import autocast_dtype, only_native_because
from tapwise.engine.kernels.inputs import obstacle
from tapwise.engine.kernels.native import torch_conv1d, torch_conv_transpose1d
from tapwise.engine.options import current_options
from tapwise.engine.plan import NATIVE, NATIVE_TRAINING, Training, choose_kernel, choose_training, time_text
from tapwise.engine.problem import Problem
from tapwise.functional import conv1d, conv_transpose1d

FEW_CHANNELS, LONG = 4, 64


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
        left: calls that only torch's own convolution can run, as those of other devices or of integers.
        threads: that they were measured on.
    """

    problems: list[TunedProblem]
    training: list[TunedProblem]
    left: int
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
        lines += [f"{_count(self.left, 'call')} left to torch, which alone can run them"] if self.left else []
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


def tuned(run: Callable[[], Any], backward: bool, save: bool) -> Tuning:
    """Time the kernels of all convolutions that ``run`` calls, and use the fastest from now on: see ``tapwise.tune``."""
    options = current_options()
    if options.kernel is not None or options.deterministic:
        raise ValueError(
            "plans are tuned for the default options: call tune outside of options(kernel=...) and "
            "options(deterministic=True), which look at no measurement"
        )
    with _Recorder() as recorder:
        run()
    predicted = {key: _predicted(key[0]) for key in recorder.calls}
    found = {problem: trials.measure(problem, batch, backward) for problem, batch in recorder.calls}
    threads = torch.get_num_threads()
    measurements = {(problem, threads): measurement for problem, measurement in found.items()}
    measured.add(measurements)
    dispatch.forget()
    file = measured.path()
    if save and file is not None and measurements:
        file.parent.mkdir(parents=True, exist_ok=True)
        measured.write(file, measurements)
    keys = list(recorder.calls)
    forward = [_forward(key, recorder.calls[key], predicted[key][0], found[key[0]]) for key in keys]
    training = [_training(key, recorder.calls[key], predicted[key][1], found[key[0]]) for key in keys if backward]
    return Tuning(forward, training, recorder.left, threads)


Key = tuple[Problem, int]  # and batch


def _predicted(problem: Problem) -> tuple[str, Training]:
    """What runs without measurements."""
    with measured.ignored():
        return choose_kernel(problem), choose_training(problem)


def _forward(key: Key, calls: int, predicted: str, found: measured.Measurement) -> TunedProblem:
    return _tuned(key, calls, predicted, choose_kernel(key[0]), NATIVE, found.seconds)


def _training(key: Key, calls: int, predicted: Training, found: measured.Measurement) -> TunedProblem:
    names = (" ".join(predicted), " ".join(choose_training(key[0])), " ".join(NATIVE_TRAINING))
    return _tuned(key, calls, *names, found.training)


def _tuned(key: Key, calls: int, predicted: str, chosen: str, native: str, seconds: Any) -> TunedProblem:
    problem, batch = key
    times = [seconds.get(name) for name in (native, predicted, chosen)]
    by_torch, by_prediction, ours = (None if value is None else value * batch for value in times)
    return TunedProblem(problem, kind_of(problem), calls, batch, predicted, chosen, by_torch, by_prediction, ours)


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


class _Recorder(TorchFunctionMode):
    """Takes down the problems of a model's convolutions, torch's and ours, while it runs.

    Arguments:
        calls: by problem and batch, how often it was posed.
        left: calls that only torch's own convolution can run.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[Key] = Counter()
        self.left = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[Any], args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _SETTINGS:
            self._record(func, *args, **kwargs)
        return func(*args, **kwargs)

    def _record(
        self,
        func: Callable[..., Any],
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        *args: Any,
        **named: Any,
    ) -> None:
        names = _SETTINGS[func]
        settings = {**dict(zip(names, args, strict=False)), **named}
        transposed = names[2] == "output_padding"
        try:
            problem = Problem.of(input, weight, bias, transposed=transposed, **settings)
        except ValueError:  # which the call itself will say
            return
        is_left = only_native_because(input, weight, bias) is not None or obstacle(problem) is not None
        if is_left or problem.n_outputs == 0:
            self.left += 1
            return
        if (dtype := autocast_dtype(input)) != problem.dtype:
            problem = replace(problem, dtype=dtype)
        self.calls[problem, input.shape[0] if input.ndim == 3 else 1] += 1


_CONVOLUTION = ("stride", "padding", "dilation", "groups", "padding_mode")
_TRANSPOSED = ("stride", "padding", "output_padding", "groups", "dilation")
# By function, the names of its arguments after the bias.
_SETTINGS: dict[Any, tuple[str, ...]] = {
    conv1d: _CONVOLUTION,
    torch_conv1d: _CONVOLUTION,
    conv_transpose1d: _TRANSPOSED,
    torch_conv_transpose1d: _TRANSPOSED,
}
