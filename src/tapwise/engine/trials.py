"""Trials: every kernel that can run a problem, timed on this machine, in turns.

# kernels     a a a | b b b | c c c | a a a | b b b | ...     blocks of calls, in turns; the least of all counts
#                             ^ three times slower than the fastest: not timed again
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import date
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tapwise.engine import costs, dispatch
from tapwise.engine.adjoint import input_gradient_problem, weight_gradient_problem
from tapwise.engine.autograd import input_gradient, weight_gradient
from tapwise.engine.kernels import KERNELS, native
from tapwise.engine.measured import Measurement
from tapwise.engine.plan import NATIVE, NATIVE_TRAINING, REFERENCE, Training, predict
from tapwise.engine.problem import Problem
from tapwise.engine.rates import current_rates

# A kernel is not timed where it is predicted to take so many times longer than the fastest; nor again where it did.
_HOPELESS, _SLOWER = 30.0, 3.0
# Seconds of a block of calls, and of all blocks of a kernel.
_BLOCK, _EACH = 0.004, 0.06
_ROUNDS = 4

Call = Callable[[], Any]


def measure(problem: Problem, batch: int, backward: bool) -> Measurement:
    """Time the kernels of a problem, and where ``backward`` those of its gradients too.

    Arguments:
        batch: rows that are computed at a time.
    """
    x, w, b = _tensors(problem, batch)
    with torch.no_grad():
        calls = {name: partial(dispatch.runner(problem.geometry, name), x, w, b) for name in _hopeful(problem)}
        seconds = _alternated(calls)
        training = _training(problem, x, w, b, seconds) if backward else {}
    return Measurement(
        batch,
        date.today().isoformat(),
        {name: value / batch for name, value in seconds.items()},
        {" ".join(names): value / batch for names, value in training.items()},
    )


def _tensors(problem: Problem, batch: int) -> tuple[Tensor, Tensor, Tensor]:
    """An input, a weight and a bias; torch's own random numbers stay as they were."""
    generator = torch.Generator().manual_seed(0)
    geometry = problem.geometry
    outer, inner = problem.out_channels, problem.in_channels_per_group
    if geometry.transposed:
        outer, inner = problem.in_channels, problem.out_channels_per_group
    shapes = ((batch, problem.in_channels, problem.length), (outer, inner, geometry.kernel_size))
    x, w = (torch.randn(shape, generator=generator).to(problem.dtype) for shape in shapes)
    return x, w, torch.zeros(problem.out_channels, dtype=problem.dtype)


def _hopeful(problem: Problem) -> list[str]:
    """The kernels that can run a problem and may be the fastest."""
    predicted = {
        name: predict(name, problem)
        for name, kernel in KERNELS.items()
        if name != REFERENCE and kernel.why_not(problem) is None
    }
    return _likely(predicted)


def _hopeful_for_weight(problem: Problem) -> list[str]:
    predicted = {
        name: cost(problem, torch.get_num_threads(), current_rates())
        for name, cost in costs.GRAD_WEIGHT_COSTS.items()
        if KERNELS[name].why_not(problem) is None
    }
    return _likely(predicted)


def _likely(predicted: Mapping[str, float]) -> list[str]:
    limit = _HOPELESS * min(predicted.values())
    return [name for name, seconds in predicted.items() if seconds <= limit]


def _training(problem: Problem, x: Tensor, w: Tensor, b: Tensor, seconds: Mapping[str, float]) -> dict[Training, float]:
    """By the kernels of outputs and gradients, the time of a training step: torch's, and what the best of ours make."""
    geometry = problem.geometry
    grad = torch.ones(x.shape[0], problem.out_channels, problem.output_length, dtype=problem.dtype)
    of_input = _alternated(
        {
            name: partial(input_gradient, geometry, grad, w, problem.length, name)
            for name in _hopeful(input_gradient_problem(problem))
            if name != NATIVE and not _rounds(name)
        }
    )
    of_weight = _alternated(
        {
            name: partial(weight_gradient, geometry, grad, x, w, name)
            for name in _hopeful_for_weight(weight_gradient_problem(problem))
            if name != NATIVE
        }
    )
    forwards = {name: value for name, value in seconds.items() if not _rounds(name)}
    choices = [
        [NATIVE, *([min(ours, key=ours.__getitem__)] if ours else [])]
        for ours in (_without_native(forwards), of_input, of_weight)
    ]
    trainings = [Training(f, i, k) for f in choices[0] for i in choices[1] for k in choices[2]]
    x, w, b = (tensor.detach().requires_grad_() for tensor in (x, w, b))

    def step(run: Callable[..., Tensor]) -> None:
        with torch.enable_grad():
            torch.autograd.grad(run(x, w, b), (x, w, b), grad)

    return _alternated(
        {
            training: partial(step, dispatch.runner(geometry, training.forward, training))
            for training in dict.fromkeys([NATIVE_TRAINING, *trainings])
        }
    )


def _rounds(name: str) -> bool:
    """Whether a kernel rounds in float32, which only ``options(exact=False)`` allows."""
    return KERNELS[name].transform_dtype == torch.float32


def _without_native(times: Mapping[str, float]) -> dict[str, float]:
    return {name: seconds for name, seconds in times.items() if name != native.NAME}


def _alternated(calls: Mapping[Any, Call]) -> dict[Any, float]:
    """The least seconds of each call, in turns."""
    least: dict[Any, float] = {}
    for key, call in calls.items():
        call()  # compiled, and its memory taken
        least[key] = _timed(call, 1)
    waiting = dict(calls)
    spent: dict[Any, float] = dict.fromkeys(calls, 0.0)
    for n in range(1_000):
        fastest = min(least.values(), default=0.0)
        waiting = {
            key: call
            for key, call in waiting.items()
            if least[key] <= _SLOWER * fastest and (spent[key] < _EACH or n < _ROUNDS)
        }
        if not waiting:
            break
        for key, call in waiting.items():
            count = max(1, int(_BLOCK / least[key]))
            seconds = _timed(call, count)
            spent[key] += seconds * count
            least[key] = min(least[key], seconds)
    return least


def _timed(call: Call, count: int) -> float:
    """Seconds of one of ``count`` calls."""
    begin = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - begin) / count
