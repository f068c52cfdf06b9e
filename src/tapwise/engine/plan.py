"""Plan: which kernel runs a problem, why, and what was rejected."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from tapwise.engine.adjoint import of_input_gradient, of_weight_gradient
from tapwise.engine.kernels import KERNELS, Kernel, native, reference
from tapwise.engine.problem import Problem

# A kernel replaces native only where it is predicted to take at most this share of native's time.
MARGIN = 0.85

# Products of one batch row and up to eight output channels, up to which no kernel but native is worth
# its call.
_SMALL = 8192


# Seconds that gradients by our kernels take beyond those of torch, which computes all in one call, and
# that turning the taps takes for the input's.
_RECORDING, _TURNING = 30e-6, 15e-6

NATIVES = (native.NAME, native.NAME)


@dataclass(frozen=True, slots=True)
class _Options:
    kernel: str | None = None
    exact: bool | None = None


_NONE = _Options()
_options: ContextVar[_Options] = ContextVar("tapwise_options", default=_NONE)

# Kernels that don't sum each window's products alone, and those of them that round in float32.
_TRANSFORMS = {"fft": True, "fft32": False}


@dataclass(frozen=True, slots=True)
class Plan:
    """The decision for a problem. Running it decides nothing more.

    Arguments:
        kernel: the name of the kernel that runs.
        reason: why this one.
        rejected: pairs of the other kernels' names and why they don't run.
        tiles: how the kernel divides the work, in words.
        seconds: predicted for one batch row; None where nothing was predicted.
    """

    kernel: str
    reason: str
    rejected: tuple[tuple[str, str], ...] = ()
    tiles: str = ""
    seconds: float | None = None

    def __str__(self) -> str:
        lines = [f"{self.kernel}: {self.reason}"]
        lines += [f"  in {self.tiles}"] if self.tiles else []
        lines += [f"  not {name}: {reason}" for name, reason in self.rejected]
        return "\n".join(lines)


@contextmanager
def options(*, kernel: str | None = None, exact: bool | None = None) -> Iterator[None]:
    """Steer the engine within a ``with`` block, for this thread and this asyncio task only.

    Arguments:
        kernel: the name of the kernel to run wherever it applies (elsewhere native runs): one of
            ``"native"``, ``"direct"``, ``"gemm"``, ``"fft"``, ``"fft32"``, ``"reference"``. None
            lets the plan choose.
        exact: True: every output is the sum of its own window's products, never a transform's.
            None: transforms in float64 too, which float32 can't tell from sums. False: transforms in
            float32 too, twice as fast; each sample then holds about 1e-7 of the loudest around it.

    Raises:
        ValueError: a kernel of another name, or one that ``exact`` excludes.

    Example:
        >>> import torch, tapwise as tw
        >>> with tw.options(kernel="reference"):
        ...     y = tw.conv1d(torch.ones(1, 1, 4), torch.ones(1, 1, 2))
        >>> y
        tensor([[[2., 2., 2.]]])
    """
    if kernel is not None and kernel not in KERNELS:
        names = ", ".join(map(repr, KERNELS))
        raise ValueError(f"kernel must be one of {names} or None, got {kernel!r}")
    if exact not in (True, False, None):
        raise ValueError(f"exact must be True, False or None, got {exact!r}")
    if exact and kernel in _TRANSFORMS:
        raise ValueError(f"kernel {kernel!r} is a transform, which exact=True excludes")
    token = _options.set(_Options(kernel, exact))
    try:
        yield
    finally:
        _options.reset(token)


def choose(problem: Problem) -> Plan:
    """The plan for a problem under the options in force. The same problem has the same plan."""
    steered = _options.get()
    return _choose(problem, steered.kernel, steered.exact, torch.get_num_threads())


def choose_gradient(problem: Problem) -> str:
    """The kernel for the weight's gradient of a problem, under the options in force."""
    steered = _options.get()
    return _choose_gradient(problem, steered.kernel, steered.exact, torch.get_num_threads())


@lru_cache(maxsize=512)
def _choose_gradient(problem: Problem, forced: str | None, exact: bool | None, threads: int) -> str:
    costs = {
        name: kernel.gradient_cost(problem, threads)
        for name, kernel in KERNELS.items()
        if kernel.gradient_cost is not None
        and kernel.why_not(problem) is None
        and not (exact and name in _TRANSFORMS)
    }
    if forced is not None:
        return forced if costs.get(forced, math.inf) < math.inf else native.NAME
    fastest = min(costs, key=costs.__getitem__)
    return fastest if costs[fastest] <= MARGIN * costs[native.NAME] else native.NAME


def choose_gradients(problem: Problem) -> tuple[str, str]:
    """The kernels for the gradients of input and weight.

    Both native where ours would not save what they cost beyond torch's one call for both. Which of
    them is needed doesn't count, so that a frozen weight changes no bit of the other.
    """
    steered = _options.get()
    return _choose_gradients(problem, steered.kernel, steered.exact, torch.get_num_threads())


@lru_cache(maxsize=512)
def _choose_gradients(
    problem: Problem, forced: str | None, exact: bool | None, threads: int
) -> tuple[str, str]:
    of_input, of_weight = of_input_gradient(problem), of_weight_gradient(problem)
    plan = _choose(of_input, forced, exact, threads)
    weights = _choose_gradient(of_weight, forced, exact, threads)
    if forced is not None:
        return plan.kernel, weights
    inputs, saved = native.NAME, 0.0
    native_cost = native.input_gradient_cost(problem, of_input, threads)
    seconds = (plan.seconds or 0.0) + _TURNING
    if plan.kernel != native.NAME and seconds <= MARGIN * native_cost:
        inputs, saved = plan.kernel, native_cost - seconds
    cost = KERNELS[weights].gradient_cost
    assert cost is not None
    saved += native.gradient_cost(of_weight, threads) - cost(of_weight, threads)
    return (inputs, weights) if saved >= _RECORDING else NATIVES


def wholly_native(problem: Problem) -> bool:
    """Whether torch's own function computes a problem and its gradients, padding and all."""
    steered = _options.get()
    return _wholly_native(problem, steered.kernel, steered.exact, torch.get_num_threads())


@lru_cache(maxsize=512)
def _wholly_native(problem: Problem, forced: str | None, exact: bool | None, threads: int) -> bool:
    return (
        forced is None
        and native.padded_by_torch(problem.geometry)
        and problem.multiplications > 0
        and _choose(problem, forced, exact, threads).kernel == native.NAME
        and _choose_gradients(problem, forced, exact, threads) == NATIVES
    )


def always_native(input: Tensor, weight: Tensor, padding: int, groups: int) -> bool:
    """Whether a problem is so small that every plan is native, seen at a glance.

    Another kernel's call alone costs more than native does for so few products. With groups, torch's
    own call costs more than others'.
    """
    if groups != 1:
        return False
    size, taps = input.shape, weight.shape
    if len(size) == 0 or len(taps) != 3:
        return False
    length, outputs, windows = size[-1], taps[0], taps[1] * taps[2]
    products = (length + 2 * padding) * windows * (outputs / 8 if outputs > 8 else 1)
    return (
        0 < products <= _SMALL and 0 < length * taps[1] <= _SMALL and _options.get().kernel is None
    )


def is_usual() -> bool:
    """Whether no options are in force, nor anything that changes what a call means."""
    return (
        _options.get() is _NONE
        and not torch.is_autocast_enabled("cpu")
        and torch._C._len_torch_dispatch_stack() == 0
    )


# Calls that were wholly native, by all that a plan looks at: no need to look again.
_native_calls: set[tuple[Any, ...]] = set()
_MOST_CALLS = 4096


def _call(input: Tensor, weight: Tensor, *settings: Any) -> tuple[Any, ...]:
    return (input.shape, weight.shape, input.dtype, torch.get_num_threads(), *settings)


def was_native(input: Tensor, weight: Tensor, *settings: Any) -> bool:
    """Whether the same call was noted before. ``settings`` are stride, padding, dilation and groups."""
    if _options.get() is not _NONE or not input.is_cpu:
        return False
    try:
        return _call(input, weight, *settings) in _native_calls
    except TypeError:  # lists, and lengths that are symbols
        return False


def note_native(input: Tensor, weight: Tensor, *settings: Any) -> None:
    """Note a call that is wholly native."""
    if _options.get() is not _NONE or not input.is_cpu:
        return
    if len(_native_calls) >= _MOST_CALLS:
        _native_calls.clear()
    with suppress(TypeError):
        _native_calls.add(_call(input, weight, *settings))


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
    for name, wide in _TRANSFORMS.items():
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
    rejected = tuple(
        (name, obstacle or f"predicted {_time(costs[name])} a batch row")
        for name, obstacle in obstacles.items()
        if name != best
    )
    return Plan(best, reason, rejected, KERNELS[best].tiles(problem), costs[best])


def _time(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"
