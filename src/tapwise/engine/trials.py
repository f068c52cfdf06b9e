"""Trials: every kernel that can run a problem, timed on this machine, in turns.

# kernels     a a a | b b b | c c c | a a a | b b b | ...     blocks of calls, in turns
#                             ^ three times slower than the fastest: not timed again
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor

from tapwise.engine import costs, dispatch
from tapwise.engine.adjoint import input_gradient_problem, weight_gradient_problem
from tapwise.engine.autograd import input_gradient, weight_gradient
from tapwise.engine.kernels import KERNELS, native
from tapwise.engine.measured import Measurement
from tapwise.engine.plan import AMX, NATIVE, NATIVE_TRAINING, REFERENCE, Training, predict
from tapwise.engine.problem import Problem
from tapwise.engine.rates import current_rates
from tapwise.geometry import Geometry

# A kernel is not timed where it is predicted to take that much longer than the fastest, of native only where a call
# would also take seconds; nor again where it did take longer.
_HOPELESS, _SECONDS, _SLOWER = 30.0, 1.0, 3.0
# Seconds of a block of calls, and of all blocks of a kernel.
_BLOCK, _EACH = 0.004, 0.06
_ROUNDS = 4

Call = Callable[[], Any]


def measure(problem: Problem, batch: int, backward: bool, is_lowered: bool = False) -> Measurement:
    """Time the kernels of a problem, and where ``backward`` those of its gradients too.

    Arguments:
        batch: rows that are computed at a time.
        is_lowered: whether its tensors are float32, which ``amx`` rounds.
    """
    x, w, b = _tensors(problem, batch)
    with torch.no_grad():
        calls = {name: partial(dispatch.runner(problem.geometry, name), x, w, b) for name in _hopeful(problem)}
        if is_lowered and AMX in calls:
            calls[AMX] = partial(dispatch.runner(problem.geometry, AMX), x.float(), w.float(), b.float())
        seconds = _alternated(calls)
        training = _training(problem, x, w, b, seconds) if backward else {}
    return Measurement(
        batch,
        date.today().isoformat(),
        {name: value / batch for name, value in seconds.items()},
        {" ".join(names): value / batch for names, value in training.items()},
    )


def loops_of(problem: Problem, backward: bool) -> list[tuple[str, str]]:
    """The compiled loops of the kernels that ``measure`` times."""
    posed = [(problem, _hopeful(problem))]
    if backward:
        inputs, weights = input_gradient_problem(problem), weight_gradient_problem(problem)
        posed += [(inputs, _hopeful(inputs)), (weights, _hopeful_for_weight(weights))]
    return [loop for of, names in posed for name in names for loop in KERNELS[name].compiled_loops(of)]


def _tensors(problem: Problem, batch: int) -> tuple[Tensor, Tensor, Tensor]:
    """An input, a weight and a bias; torch's own random numbers stay as they were."""
    generator = torch.Generator("cpu").manual_seed(0)
    geometry = problem.geometry
    outer, inner = problem.out_channels, problem.in_channels_per_group
    if geometry.transposed:
        outer, inner = problem.in_channels, problem.out_channels_per_group
    shapes = ((batch, problem.in_channels, problem.length), (outer, inner, geometry.kernel_size))
    x, w = (torch.randn(shape, generator=generator, device="cpu").to(problem.dtype) for shape in shapes)
    return x, w, torch.zeros(problem.out_channels, dtype=problem.dtype, device="cpu")


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
    return [name for name, seconds in predicted.items() if seconds <= max(limit, _SECONDS * (name == NATIVE))]


def _training(problem: Problem, x: Tensor, w: Tensor, b: Tensor, seconds: Mapping[str, float]) -> dict[Training, float]:
    """By the kernels of outputs and gradients, the time of a training step: torch's, and what the best of ours make."""
    geometry = problem.geometry
    grad = torch.ones(x.shape[0], problem.out_channels, problem.output_length, dtype=problem.dtype, device="cpu")
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
    ours = (_without_native({name: value for name, value in seconds.items() if not _rounds(name)}), of_input, of_weight)
    x, w, b = (tensor.detach().requires_grad_() for tensor in (x, w, b))

    def step(run: Callable[..., Tensor]) -> None:
        with torch.enable_grad():
            torch.autograd.grad(run(x, w, b), (x, w, b), grad)

    return _alternated(
        {
            training: partial(step, dispatch.runner(geometry, training.forward, training))
            for training in dict.fromkeys([NATIVE_TRAINING, *combinations(ours)])
        }
    )


def combinations(times: Sequence[Mapping[str, float]]) -> Iterator[Training]:
    """Native and the fastest of ours, in every combination; and native and the fastest that is exact.

    Arguments:
        times: of our kernels for outputs, ``grad_input`` and ``grad_weight``.
    """
    exact = [{name: value for name, value in some.items() if KERNELS[name].is_exact} for some in times]
    for ours in (times, exact):
        choices = ([NATIVE, *([min(some, key=some.__getitem__)] if some else [])] for some in ours)
        yield from (Training(*names) for names in product(*choices))


_IN_BFLOAT16 = ("native, bfloat16", "amx")
# By group of rates, the problems by which it is measured: (K, in, out, length, groups), and of what.
_PROBE_ROUNDS, _PROBE_SECONDS = 4, 0.2
_OUTPUTS, _GRAD_WEIGHT = "outputs", "weight's gradient"
_PROBES = {
    "native, plain loop": ("native", _OUTPUTS, [(3, 4, 8, 300, 1), (7, 1, 16, 1000, 1), (5, 8, 16, 120, 1)]),
    "native, dense": ("native", _OUTPUTS, [(3, 128, 128, 4000, 1), (1, 64, 256, 4000, 1), (5, 256, 256, 1000, 1)]),
    "native, depthwise": ("native", _OUTPUTS, [(7, 256, 256, 4000, 256), (31, 256, 256, 2000, 256), (3, 64, 64, 20_000, 64)]),
    "direct": ("direct", _OUTPUTS, [(7, 256, 256, 4000, 256), (31, 1, 1, 400_000, 1), (5, 16, 16, 8000, 1), (3, 32, 32, 8000, 1)]),
    "direct, weight's gradient": ("direct", _GRAD_WEIGHT, [(7, 256, 256, 4000, 256), (31, 1, 1, 400_000, 1), (5, 16, 16, 8000, 1)]),
    "gemm": ("gemm", _OUTPUTS, [(3, 128, 128, 4000, 1), (1, 64, 256, 4000, 1), (5, 256, 256, 1000, 1)]),
    "implicit_gemm": ("implicit_gemm", _OUTPUTS, [(3, 128, 128, 4000, 1), (1, 64, 256, 4000, 1), (5, 256, 256, 1000, 1)]),
    "implicit_gemm, weight's gradient": ("implicit_gemm", _GRAD_WEIGHT, [(3, 128, 128, 4000, 1), (1, 64, 256, 4000, 1), (5, 256, 256, 1000, 1)]),
    "winograd": ("winograd", _OUTPUTS, [(3, 128, 128, 4000, 1), (7, 64, 64, 8000, 1), (5, 256, 256, 1000, 1)]),
    "native, bfloat16": ("native", _OUTPUTS, [(3, 128, 128, 4000, 1), (7, 64, 64, 8000, 1), (5, 256, 256, 1000, 1)]),
    "amx": ("amx", _OUTPUTS, [(3, 128, 128, 4000, 1), (7, 64, 64, 8000, 1), (5, 256, 256, 1000, 1)]),
    "fft": ("fft", _OUTPUTS, [(1001, 1, 1, 400_000, 1), (4001, 4, 4, 100_000, 4), (600, 32, 32, 20_000, 32)]),
}  # fmt: skip


def measure_rates() -> dict[str, float]:
    """By group of rates, how many times as long its problems take here as the rates of this processor's family say.

    All problems are timed in several rounds, so that what else computes for a while spoils one round alone.
    """
    calls: dict[tuple[str, int], tuple[Call, float]] = {}
    for name, (kernel, what, shapes) in _PROBES.items():
        dtype = torch.bfloat16 if name in _IN_BFLOAT16 else torch.float32
        if dtype == torch.bfloat16 and current_rates().amx is None:
            continue
        calls |= {(name, n): probe for n, shape in enumerate(shapes) if (probe := _probe(kernel, what, dtype, *shape))}
    least = dict.fromkeys(calls, math.inf)
    with torch.no_grad():
        for _ in range(_PROBE_ROUNDS):
            for key, (call, _) in calls.items():
                least[key] = min(least[key], _alternated({key: call}, _PROBE_SECONDS)[key])
    ratios: dict[str, list[float]] = {}
    for key, seconds in least.items():
        ratios.setdefault(key[0], []).append(seconds / calls[key][1])
    return {name: statistics.median(some) for name, some in ratios.items()}


def _probe(
    kernel: str, what: str, dtype: torch.dtype, taps: int, inputs: int, outputs: int, length: int, groups: int
) -> tuple[Call, float] | None:
    """A call of a problem, and its predicted seconds; None where the kernel can't run here."""
    problem = Problem(Geometry(taps, groups=groups), inputs, outputs, length, dtype, "cpu")
    if KERNELS[kernel].why_not(problem) is not None:
        return None
    x, w, b = _tensors(problem, 1)
    cost, call = costs.COSTS[kernel], partial(dispatch.runner(problem.geometry, kernel), x, w, b)
    if what != _OUTPUTS:
        cost = costs.GRAD_WEIGHT_COSTS[kernel]
        grad = torch.ones(1, outputs, problem.output_length, device="cpu")
        call = partial(weight_gradient, problem.geometry, grad, x, w, kernel)
    return call, cost(problem, torch.get_num_threads(), current_rates())


def _rounds(name: str) -> bool:
    """Whether a kernel rounds in float32, which only ``options(exact=False)`` allows."""
    return KERNELS[name].transform_dtype == torch.float32


def _without_native(times: Mapping[str, float]) -> dict[str, float]:
    return {name: seconds for name, seconds in times.items() if name != native.NAME}


def _alternated(calls: Mapping[Any, Call], each: float | None = None) -> dict[Any, float]:
    """The least seconds of each call, in turns; ``each``: how long a call is timed."""
    each = _EACH if each is None else each
    least: dict[Any, float] = {}
    for key, call in calls.items():
        least[key] = _timed(call, 1)
        if least[key] < _SECONDS:  # compiled now, and its memory taken
            least[key] = _timed(call, 1)
    waiting = dict(calls)
    spent: dict[Any, float] = dict.fromkeys(calls, 0.0)
    for n in range(1_000):
        fastest = min(least.values(), default=0.0)
        waiting = {
            key: call
            for key, call in waiting.items()
            if least[key] <= _SLOWER * fastest and (spent[key] < each or n < _ROUNDS)
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
