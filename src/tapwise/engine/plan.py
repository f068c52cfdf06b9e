"""Plan: which kernel runs a problem, why, and what was rejected."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from tapwise.engine import costs, measured
from tapwise.engine.adjoint import input_gradient_problem, weight_gradient_problem
from tapwise.engine.checks import only_native_because
from tapwise.engine.kernels import KERNELS, Kernel
from tapwise.engine.options import Options, current_options
from tapwise.engine.problem import Problem
from tapwise.engine.rates import FITTED_THREADS, Rates, current_rates
from tapwise.evaluation import is_evaluating

NATIVE, REFERENCE, AMX = "native", "reference", "amx"


class Training(NamedTuple):
    """The kernels of a convolution that requires a gradient: of its outputs and of its gradients."""

    forward: str
    grad_input: str
    grad_weight: str


class DeterministicTraining(Training):
    """The same under ``options(deterministic=True)``, which a gradient that is computed later has to know."""


NATIVE_TRAINING = Training(NATIVE, NATIVE, NATIVE)


@dataclass(frozen=True, slots=True)
class Plan:
    """The decision for a problem. Running it decides nothing more.

    Arguments:
        kernel: the name of the kernel that runs.
        reason: why this one.
        rejected: pairs of the other kernels' names and why they don't run.
        tiles: how the kernel divides the work, in words.
        seconds: predicted, or measured, for one batch row; None where nothing was.
        is_measured: whether ``tapwise.tune`` timed the kernels, on this machine; else formulas predicted them.
        training: the kernels where a gradient is required: of the outputs, of the input's gradient
            and of the weight's. All are native where ours would not save what a function of ours
            costs in the graph of gradients. A graph of ``torch.compile`` runs ``kernel`` in either case.
    """

    kernel: str
    reason: str
    rejected: tuple[tuple[str, str], ...] = ()
    tiles: str = ""
    seconds: float | None = None
    is_measured: bool = False
    training: Training | None = None

    def __str__(self) -> str:
        lines = [f"{self.kernel}: {self.reason}"]
        lines += [f"  in {self.tiles}"] if self.tiles else []
        lines += [f"  not {name}: {reason}" for name, reason in self.rejected]
        if self.training is not None:
            kernels = "the outputs {}, the input's gradient {}, the weight's {}".format(*self.training)
            lines.append(f"  where gradients are recorded: {kernels}")
        return "\n".join(lines)

    __repr__ = __str__


def predict(kernel: str, problem: Problem, threads: int | None = None) -> float:
    """Predicted seconds of a kernel for one batch row of a problem that it can run."""
    threads = _threads() if threads is None else threads
    return costs.COSTS[kernel](problem, threads, _rates())


def choose(problem: Problem) -> Plan:
    """The plan for a problem under the options in force. The same problem has the same plan."""
    forced, obstacles = current_options().kernel, _obstacles(problem)
    times = _times(problem, obstacles)
    small = is_small(problem)
    best = NATIVE if small else _fastest(obstacles, times)
    word = "measured" if times.are_measured else "predicted"
    why_not = {
        name: obstacle or (f"{word} {time_text(times.of(name))} a batch row" if times.has(name) else _NOT_TIMED)
        for name, obstacle in obstacles.items()
        if name != best
    }
    if forced is not None:
        reason = f"asked for by options(kernel={forced!r})"
        if best != forced:
            reason += f", which {obstacles[forced]}"
    else:
        reason = f"{word} {time_text(times.of(best))} a batch row"
        rival = _rival(times)
        if best != NATIVE:
            reason += f", native {time_text(times.of(NATIVE))}" if times.has(NATIVE) else ""
        elif small and times.of(rival) < times.of(NATIVE):
            reason += ", of so few products that no other is asked"
        elif times.of(rival) < times.of(NATIVE):
            why_not[rival] += f", which has to be {1 - times.margin:.0%} less than native to be surely less"
    seconds = times.of(best) if times.has(best) else None
    return Plan(best, reason, tuple(why_not.items()), KERNELS[best].tiles(problem), seconds, times.are_measured)


def choose_kernel(problem: Problem) -> str:
    """The kernel that ``choose`` names, without the reasons."""
    if is_small(problem):
        return NATIVE
    obstacles = _obstacles(problem)
    return _fastest(obstacles, _times(problem, obstacles))


def lowered(problem: Problem) -> Problem:
    """The problem in the dtype that ``options(dtype=...)`` allows, where matrices then surely take less; else as it is."""
    options = current_options()
    if options.dtype is None or problem.dtype != torch.float32 or options.kernel not in (None, AMX):
        return problem
    lower = replace(problem, dtype=options.dtype)
    if options.deterministic or is_evaluating() or is_small(problem) or _obstacles(lower)[AMX] is not None:
        return problem
    if options.kernel == AMX:
        return lower
    obstacles = _obstacles(problem)
    times, of_lower = _times(problem, obstacles), _times(lower, {AMX: None})
    if times.are_measured != of_lower.are_measured:  # one of them alone: not to be compared
        times, of_lower = _predicted(problem, obstacles), _predicted(lower, {AMX: None})
    return lower if of_lower.of(AMX) <= times.margin * min(times.seconds.values()) else problem


def choose_grad_weight(problem: Problem) -> str:
    """The kernel for the weight's gradient of a problem, under the options in force."""
    options = current_options()
    forced, margin = options.kernel, _rates().margin
    predicted = {
        name: _predict_grad_weight(name, problem)
        for name in costs.GRAD_WEIGHT_COSTS
        if KERNELS[name].why_not(problem) is None and (KERNELS[name].is_exact or not options.exact)
    }
    if forced is not None:
        return forced if predicted.get(forced, math.inf) < math.inf else NATIVE
    fastest = min(predicted, key=predicted.__getitem__)
    return fastest if predicted[fastest] <= margin * predicted[NATIVE] else NATIVE


def choose_training(problem: Problem) -> Training:
    """The kernels of a problem and of its gradients, where one is required.

    Both gradients are native where ours would not save what they cost beyond torch's one call for
    both. All three are native where ours would not save what an autograd function of ours costs beyond
    torch's own. Which gradients are needed doesn't count, so that a frozen weight changes no bit of
    the others.
    """
    options = current_options()
    if (found := _measured_training(problem)) is not None:
        return found
    if is_small(problem) and not options.deterministic:
        return NATIVE_TRAINING
    forward = choose_kernel(problem)
    backward, weights = input_gradient_problem(problem), weight_gradient_problem(problem)
    grad_input, grad_weight = choose_kernel(backward), choose_grad_weight(weights)
    if options.deterministic:  # the same kernel for the outputs, whether gradients are required or not
        return DeterministicTraining(forward, grad_input, grad_weight)
    if options.kernel is not None:
        return Training(forward, grad_input, grad_weight)
    threads, rates = torch.get_num_threads(), _rates()
    r, margin = rates.autograd, rates.margin
    native_forward = costs.native_training(problem, threads, rates)
    native_input = costs.native_grad_input(problem, backward, threads, rates)
    native_weight = _predict_grad_weight(NATIVE, weights)
    saved = native_weight - _predict_grad_weight(grad_weight, weights)
    seconds = predict(grad_input, backward)
    if not problem.geometry.transposed:
        seconds += r.flip_call + r.flip_tap * problem.n_weights
    if grad_input != NATIVE and seconds <= margin * native_input:
        saved += native_input - seconds
    else:
        grad_input = NATIVE
    if saved < max(r.gradients, (1 - margin) * (native_input + native_weight)):
        saved, grad_input, grad_weight = 0.0, NATIVE, NATIVE
    if forward != NATIVE:
        saved += native_forward - predict(forward, problem)
        if grad_input == grad_weight == NATIVE and not problem.geometry.pads_as_torch:
            saved -= r.padded_sample * problem.n_inputs
    total = native_forward + native_input + native_weight
    if saved < max(r.node, r.least_share * total):
        return NATIVE_TRAINING
    return Training(forward, grad_input, grad_weight)


def plan_of(problem: Problem, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Plan:
    """The plan by which a call with these tensors runs."""
    obstacle = only_native_because(input, weight, bias)
    if obstacle is not None:
        return _native_because(obstacle)
    plan, lower = choose(problem), lowered(problem)
    if lower is not problem:
        plan = _in_lower(plan, lower)
    return replace(plan, training=choose_training(problem))


def _in_lower(plan: Plan, lower: Problem) -> Plan:
    """The plan of a problem that is computed in a lower dtype, from that without."""
    times = _times(lower, {AMX: None})
    word, name = "measured" if times.are_measured else "predicted", str(lower.dtype).removeprefix("torch.")
    reason = f"in {name}, which options(dtype=...) allows: {word} {time_text(times.of(AMX))} a batch row"
    rejected = [(kernel, why) for kernel, why in plan.rejected if kernel != AMX]
    rejected.append((plan.kernel, f"in float32: {plan.reason}"))
    return Plan(AMX, reason, tuple(rejected), KERNELS[AMX].tiles(lower), times.of(AMX), times.are_measured)


def _native_because(reason: str) -> Plan:
    """The plan where the call itself, not the problem, leaves native alone."""
    return Plan(NATIVE, reason, tuple((name, reason) for name in KERNELS if name != NATIVE))


def is_small(problem: Problem) -> bool:
    """Whether native is the plan without asking the others, whose calls alone cost more.

    With groups, torch's own call costs more than others' do.
    """
    geometry, most = problem.geometry, _rates().small_products
    if geometry.groups != 1 or geometry.transposed or not geometry.pads_as_torch:
        return False
    positions = problem.length + geometry.left + geometry.right
    windows = positions * problem.in_channels * geometry.kernel_size
    products = windows * max(problem.out_channels / 8, 1)
    small = 0 < products <= most and 0 < problem.n_inputs <= most
    return small and current_options().kernel is None and _measurement(problem) is None


def _obstacles(problem: Problem) -> dict[str, str | None]:
    """By kernel, why it can't or may not run the problem."""
    options = current_options()
    obstacles = {name: kernel.why_not(problem) for name, kernel in KERNELS.items()}
    if obstacles[AMX] is None and _rates().amx is None:
        obstacles[AMX] = "has no rates for the vectors that torch is limited to"
    for name, kernel in KERNELS.items():
        if obstacles[name] is None and name != options.kernel:
            obstacles[name] = _excluded_because(kernel, options)
    return obstacles


def _excluded_because(kernel: Kernel, options: Options) -> str | None:
    """Why the options exclude a kernel; None where they don't."""
    if options.exact and not kernel.is_exact:
        return "is excluded by options(exact=True)"
    if kernel.transform_dtype == torch.float32 and options.exact is None:
        return "rounds in float32: options(exact=False) allows it"
    return None


@dataclass(frozen=True, slots=True)
class _Times:
    """Seconds a batch row, by kernel: measured, or predicted.

    Arguments:
        margin: a kernel replaces native where it takes at most this share of native's time.
    """

    seconds: Mapping[str, float]
    margin: float
    are_measured: bool

    def has(self, kernel: str) -> bool:
        return kernel in self.seconds

    def of(self, kernel: str) -> float:
        """Infinite for a kernel that was not timed."""
        return self.seconds.get(kernel, math.inf)


_NOT_TIMED = "was not timed: it was predicted to take far longer"


def _measurement(problem: Problem) -> measured.Measurement | None:
    """What was measured of a problem, where it counts.

    Where a kernel is asked for, nothing is chosen; ``deterministic`` depends neither on threads nor on a file.
    """
    options = current_options()
    if options.kernel is not None or options.deterministic:
        return None
    return measured.lookup(problem, torch.get_num_threads())


def _times(problem: Problem, obstacles: dict[str, str | None]) -> _Times:
    """Times of the kernels that nothing stands against."""
    found = _measurement(problem)
    if found is not None:
        seconds = {name: time for name, time in found.seconds.items() if obstacles.get(name, "") is None}
        if seconds:
            return _Times(seconds, measured.MARGIN, True)
    return _predicted(problem, obstacles)


def _predicted(problem: Problem, obstacles: dict[str, str | None]) -> _Times:
    seconds = {name: predict(name, problem) for name, obstacle in obstacles.items() if obstacle is None}
    return _Times(seconds, _rates().margin, False)


def _measured_training(problem: Problem) -> Training | None:
    """The kernels of a problem and its gradients that took least; None where they were not measured."""
    found = _measurement(problem)
    if found is None:
        return None
    times = {}
    for names, seconds in found.training.items():
        training = Training(*names.split())
        if training == NATIVE_TRAINING or all(obstacle is None for obstacle in _excluded(training, problem)):
            times[training] = seconds
    if not times:
        return None
    fastest = min(times, key=times.__getitem__)
    if NATIVE_TRAINING in times and times[fastest] > measured.MARGIN * times[NATIVE_TRAINING]:
        return NATIVE_TRAINING
    return fastest


def _excluded(training: Training, problem: Problem) -> list[str | None]:
    """Why kernels that were measured can't, or may not, run now, by kernel; None where they do."""
    options = current_options()
    problems = (problem, input_gradient_problem(problem), weight_gradient_problem(problem))
    return [
        KERNELS[name].why_not(posed) or _excluded_because(KERNELS[name], options)
        if name in KERNELS
        else "is none of this version"
        for name, posed in zip(training, problems, strict=True)
    ]


def _fastest(obstacles: dict[str, str | None], times: _Times) -> str:
    """The kernel asked for where it can run, else the fastest; native unless another is surely faster."""
    forced = current_options().kernel
    if forced is not None:
        return forced if obstacles[forced] is None else NATIVE
    rival = _rival(times)
    return rival if times.of(rival) <= times.margin * times.of(NATIVE) else NATIVE


def _rival(times: _Times) -> str:
    """The fastest of the kernels that may replace native."""
    return min((name for name in times.seconds if name not in (NATIVE, REFERENCE)), key=times.of, default=NATIVE)


def _predict_grad_weight(kernel: str, problem: Problem) -> float:
    return costs.GRAD_WEIGHT_COSTS[kernel](problem, _threads(), _rates())


def _rates() -> Rates:
    """The rates of this machine, where they were measured; under ``deterministic`` those of its family."""
    return current_rates() if current_options().deterministic else measured.rates()


def _threads() -> int:
    """Threads that predictions are for; under ``deterministic`` a plan depends on none."""
    return FITTED_THREADS if current_options().deterministic else torch.get_num_threads()


def time_text(seconds: float) -> str:
    """A time to three digits: ``"1.25 ms"``."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"
