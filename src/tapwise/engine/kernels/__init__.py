"""The kernels: a file or folder an algorithm, and the one table that lists them.

A kernel's module has ``NAME``, ``why_not(problem)`` (None where it can run), ``tiles(problem)`` (how it
divides the work, in words) and ``run(geometry, input, weight, bias)``. One that computes the weight's
gradient too has ``weight_gradient(geometry, grad, input, weight)``. One that doesn't sum each window's
products alone says so, ``IS_EXACT = False``, and ``options(exact=True)`` excludes it; one that transforms says in
which dtype, too: ``TRANSFORM_DTYPE``. One that runs compiled loops says which: ``compiled_loops(problem)``. What a kernel costs is said in ``engine/costs.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tapwise.engine.kernels import amx, direct, fft, gemm, implicit_gemm, native, reference, winograd
from tapwise.engine.kernels.fft import float32 as fft32
from tapwise.engine.problem import Problem
from tapwise.geometry import Geometry


@dataclass(frozen=True, slots=True)
class Kernel:
    """One algorithm: its name, where it can't run, how it divides the work, how it runs, and what is compiled for it."""

    name: str
    why_not: Callable[[Problem], str | None]
    tiles: Callable[[Problem], str]
    run: Callable[[Geometry, Tensor, Tensor, Tensor | None], Tensor]
    weight_gradient: Callable[[Geometry, Tensor, Tensor, Tensor], Tensor] | None
    is_exact: bool  # whether each output is the sum of its window's products
    transform_dtype: torch.dtype | None
    compiled_loops: Callable[[Problem], list[tuple[str, str]]]


def _of(module: Any) -> Kernel:
    return Kernel(
        module.NAME,
        module.why_not,
        module.tiles,
        module.run,
        getattr(module, "weight_gradient", None),
        getattr(module, "IS_EXACT", True),
        getattr(module, "TRANSFORM_DTYPE", None),
        getattr(module, "compiled_loops", lambda problem: []),
    )


KERNELS: dict[str, Kernel] = {
    module.NAME: _of(module) for module in (native, direct, gemm, implicit_gemm, winograd, amx, fft, fft32, reference)
}
