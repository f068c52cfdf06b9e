"""The kernels: one file an algorithm, and the one table that lists them.

A kernel module has ``NAME``, ``why_not(problem)`` (None where it can run), ``cost(problem, threads)``
(predicted seconds for one batch row), ``tiles(problem)`` (how it divides the work, in words) and
``run(geometry, input, weight, bias)``. Those that compute the weight's gradient too have
``gradient_cost(problem, threads)`` and ``weight_gradient(geometry, grad, input, weight)``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from torch import Tensor

from tapwise.engine.kernels import direct, fft, fft32, gemm, native, reference
from tapwise.engine.problem import Problem
from tapwise.geometry import Geometry


@dataclass(frozen=True, slots=True)
class Kernel:
    """One algorithm: what it is called, where it can't run, what it costs, and how it runs."""

    name: str
    why_not: Callable[[Problem], str | None]
    cost: Callable[[Problem, int], float]
    tiles: Callable[[Problem], str]
    run: Callable[[Geometry, Tensor, Tensor, Tensor | None], Tensor]
    gradient_cost: Callable[[Problem, int], float] | None = None
    weight_gradient: Callable[[Geometry, Tensor, Tensor, Tensor], Tensor] | None = None


def _of(module: ModuleType) -> Kernel:
    return Kernel(
        module.NAME, module.why_not, module.cost, module.tiles, module.run,
        getattr(module, "gradient_cost", None), getattr(module, "weight_gradient", None),
    )  # fmt: skip


KERNELS: dict[str, Kernel] = {
    module.NAME: _of(module) for module in (native, direct, gemm, fft, fft32, reference)
}
