"""Plan: which kernel runs a problem, why, and what was rejected."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from tapwise.engine.adjoint import of_input_gradient, of_weight_gradient
from tapwise.engine.checks import outside_the_op
from tapwise.engine.kernels import KERNELS, Kernel, native, reference
from tapwise.engine.problem import Problem
from tapwise.engine.steering import TRANSFORMS, steered

# A kernel replaces native only where it is predicted to take at most this share of native's time.
MARGIN = 0.85

# Seconds that a convolution recorded for its gradients takes beyond torch's own: a function of ours and
# its gradients beside one node of torch's. What gradients by our kernels take beyond torch's one call
# for all of them, and turning the taps for the input's: a few operations, and each tap.
_RECORDING, _GRADIENTS = 90e-6, 50e-6
# The least share of forward and backward that is worth it; seconds a sample that is padded for torch's
# gradients alone, where our outputs needed no padding.
_A_LITTLE, _PADDED_AGAIN = 0.05, 0.8e-9
_TURNING, _A_TAP = 15e-6, 3e-9

NATIVES = (native.NAME, native.NAME)


class Training(NamedTuple):
    """The kernels of a convolution that is recorded, and of its gradients."""

    forward: str
    of_input: str
    of_weight: str

    @property
    def gradients(self) -> tuple[str, str]:
        return self.of_input, self.of_weight


NATIVE_TRAINING = Training(native.NAME, *NATIVES)


@dataclass(frozen=True, slots=True)
class Plan:
    """The decision for a problem. Running it decides nothing more.

    Arguments:
        kernel: the name of the kernel that runs.
        reason: why this one.
        rejected: pairs of the other kernels' names and why they don't run.
        tiles: how the kernel divides the work, in words.
        seconds: predicted for one batch row; None where nothing was predicted.
        training: the kernels where gradients are recorded: of the outputs, of the input's gradient
            and of the weight's. All are native where ours would not save what recording them costs.
            A graph of ``torch.compile`` runs ``kernel`` in either case.
    """

    kernel: str
    reason: str
    rejected: tuple[tuple[str, str], ...] = ()
    tiles: str = ""
    seconds: float | None = None
    training: Training | None = None

    def __str__(self) -> str:
        lines = [f"{self.kernel}: {self.reason}"]
        lines += [f"  in {self.tiles}"] if self.tiles else []
        lines += [f"  not {name}: {reason}" for name, reason in self.rejected]
        if self.training is not None:
            kernels = "the outputs {}, the input's gradient {}, the weight's {}".format(
                *self.training
            )
            lines.append(f"  where gradients are recorded: {kernels}")
        return "\n".join(lines)


def choose(problem: Problem) -> Plan:
    """The plan for a problem under the options in force. The same problem has the same plan."""
    asked = steered.get()
    return _choose(problem, asked.kernel, asked.exact, torch.get_num_threads())


def choose_gradient(problem: Problem) -> str:
    """The kernel for the weight's gradient of a problem, under the options in force."""
    asked = steered.get()
    return _choose_gradient(problem, asked.kernel, asked.exact, torch.get_num_threads())


@lru_cache(maxsize=512)
def _choose_gradient(problem: Problem, forced: str | None, exact: bool | None, threads: int) -> str:
    costs = {
        name: kernel.gradient_cost(problem, threads)
        for name, kernel in KERNELS.items()
        if kernel.gradient_cost is not None
        and kernel.why_not(problem) is None
        and not (exact and name in TRANSFORMS)
    }
    if forced is not None:
        return forced if costs.get(forced, math.inf) < math.inf else native.NAME
    fastest = min(costs, key=costs.__getitem__)
    return fastest if costs[fastest] <= MARGIN * costs[native.NAME] else native.NAME


def choose_training(problem: Problem) -> Training:
    """The kernels of a problem and of the gradients of input and weight, where they are recorded.

    Gradients are both native where ours would not save what they cost beyond torch's one call for
    both; all are where ours would not save what a function of ours costs beyond torch's own. Which
    gradients are needed doesn't count, so that a frozen weight changes no bit of the others.
    """
    asked = steered.get()
    return _choose_training(problem, asked.kernel, asked.exact, torch.get_num_threads())


@lru_cache(maxsize=512)
def _choose_training(
    problem: Problem, forced: str | None, exact: bool | None, threads: int
) -> Training:
    plan = _choose(problem, forced, exact, threads)
    of_input, of_weight = of_input_gradient(problem), of_weight_gradient(problem)
    inputs = _choose(of_input, forced, exact, threads)
    weights = _choose_gradient(of_weight, forced, exact, threads)
    if forced is not None:
        return Training(plan.kernel, inputs.kernel, weights)
    natives = (
        native.recorded_cost(problem, threads),
        native.input_gradient_cost(problem, of_input, threads),
        native.gradient_cost(of_weight, threads),
    )
    saved, gradients = 0.0, (native.NAME, weights)
    seconds = inputs.seconds or 0.0
    if not problem.geometry.transposed:
        taps = problem.out_channels * problem.channels_in_group * problem.geometry.kernel_size
        seconds += _TURNING + _A_TAP * taps
    if inputs.kernel != native.NAME and seconds <= MARGIN * natives[1]:
        saved, gradients = natives[1] - seconds, (inputs.kernel, weights)
    cost = KERNELS[weights].gradient_cost
    assert cost is not None
    saved += natives[2] - cost(of_weight, threads)
    if saved < max(_GRADIENTS, (1 - MARGIN) * sum(natives[1:])):
        saved, gradients = 0.0, NATIVES
    if plan.kernel != native.NAME:
        saved += natives[0] - (plan.seconds or 0.0)
        if gradients == NATIVES and not problem.geometry.pads_as_torch:
            saved -= _PADDED_AGAIN * problem.in_channels * problem.length
    worth = saved >= max(_RECORDING, _A_LITTLE * sum(natives))
    return Training(plan.kernel, *gradients) if worth else NATIVE_TRAINING


def plan_of(problem: Problem, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Plan:
    """The plan by which ``convolve`` would run these tensors."""
    obstacle = outside_the_op(input, weight, bias)
    if obstacle is not None:
        return native_because(obstacle)
    return replace(choose(problem), training=choose_training(problem))


def native_because(reason: str) -> Plan:
    """The plan where the call itself, not the problem, leaves native as the one that can run."""
    others = tuple((name, reason) for name in KERNELS if name != native.NAME)
    return Plan(native.NAME, reason, others)


def kernel_of(plan: Plan) -> Kernel:
    """The kernel that a plan names."""
    return KERNELS[plan.kernel]


@lru_cache(maxsize=512)
def _choose(problem: Problem, forced: str | None, exact: bool | None, threads: int) -> Plan:
    obstacles = {name: kernel.why_not(problem) for name, kernel in KERNELS.items()}
    for name, wide in TRANSFORMS.items():
        if obstacles[name] is None and name != forced:
            if exact:
                obstacles[name] = "is excluded by options(exact=True)"
            elif not wide and exact is None:
                obstacles[name] = "rounds in float32: options(exact=False) allows it"
    costs = {
        name: KERNELS[name].cost(problem, threads)
        for name, obstacle in obstacles.items()
        if obstacle is None
    }
    if forced is not None:
        best = forced if obstacles[forced] is None else native.NAME
        reason = f"asked for by options(kernel={forced!r})"
        if best != forced:
            reason += f", which {obstacles[forced]}"
    else:
        rivals = {n: cost for n, cost in costs.items() if n not in (native.NAME, reference.NAME)}
        fastest = min(rivals, key=rivals.__getitem__, default=native.NAME)
        enough = costs[fastest] <= MARGIN * costs[native.NAME]
        best = fastest if enough else native.NAME
        reason = f"predicted {_time(costs[best])} a batch row"
        if best != native.NAME:
            reason += f", native {_time(costs[native.NAME])}"
    why_not = {
        name: obstacle or f"predicted {_time(costs[name])} a batch row"
        for name, obstacle in obstacles.items()
        if name != best
    }
    if forced is None and best == native.NAME and costs[fastest] < costs[best]:
        why_not[fastest] += f", which has to be {1 - MARGIN:.0%} less than native to be surely less"
    rejected = tuple(why_not.items())
    return Plan(best, reason, rejected, KERNELS[best].tiles(problem), costs[best])


def _time(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"
