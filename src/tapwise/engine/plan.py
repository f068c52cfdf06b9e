"""Plan: which kernel runs a problem, why, and what was rejected."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from tapwise.engine.kernels import KERNELS, Kernel, native
from tapwise.engine.problem import Problem

# A kernel replaces native only where it is predicted to take at most this share of native's time.
MARGIN = 0.8

# Products of one batch row up to which no kernel but native is worth its call.
_SMALL = 8192

_forced: ContextVar[str | None] = ContextVar("tapwise_kernel", default=None)


@dataclass(frozen=True, slots=True)
class Plan:
    """The decision for a problem. Running it decides nothing more.

    Arguments:
        kernel: the name of the kernel that runs.
        reason: why this one.
        rejected: pairs of the other kernels' names and why they don't run.
    """

    kernel: str
    reason: str
    rejected: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.kernel}: {self.reason}"]
        lines += [f"  not {name}: {reason}" for name, reason in self.rejected]
        return "\n".join(lines)


@contextmanager
def options(*, kernel: str | None = None) -> Iterator[None]:
    """Steer the engine within a ``with`` block, for this thread and this asyncio task only.

    Arguments:
        kernel: ``"native"``, ``"direct"`` or ``"reference"``: the kernel to run wherever it applies
            (elsewhere native runs). None lets the plan choose.

    Raises:
        ValueError: a kernel of another name.

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
    token = _forced.set(kernel)
    try:
        yield
    finally:
        _forced.reset(token)


def choose(problem: Problem) -> Plan:
    """The plan for a problem under the options in force. The same problem has the same plan."""
    return _choose(problem, _forced.get(), torch.get_num_threads())


def always_native(input: Tensor, weight: Tensor, padding: int) -> bool:
    """Whether a problem is so small that every plan is native, seen at a glance.

    Another kernel's call alone costs more than native does for so few products.
    """
    small = 0 < (input.shape[-1] + 2 * padding) * weight.numel() <= _SMALL if input.ndim else False
    return small and input.numel() > 0 and _forced.get() is None


def native_because(reason: str) -> Plan:
    """The plan where the call itself, not the problem, leaves native as the one that can run."""
    others = tuple((name, reason) for name in KERNELS if name != native.NAME)
    return Plan(native.NAME, reason, others)


def kernel_of(plan: Plan) -> Kernel:
    """The kernel that a plan names."""
    return KERNELS[plan.kernel]


@lru_cache(maxsize=4096)
def _choose(problem: Problem, forced: str | None, threads: int) -> Plan:
    obstacles = {name: kernel.why_not(problem) for name, kernel in KERNELS.items()}
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
        rivals = {name: cost for name, cost in costs.items() if name != native.NAME}
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
    return Plan(best, reason, rejected)


def _time(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"
