"""Steering: what a user asks of the plan, for one thread and task."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from tapwise.engine.kernels import KERNELS


@dataclass(frozen=True, slots=True)
class Options:
    kernel: str | None = None
    exact: bool | None = None


NONE = Options()
steered: ContextVar[Options] = ContextVar("tapwise_options", default=NONE)

# Kernels that don't sum each window's products alone, and those of them that round in float32.
TRANSFORMS = {"fft": True, "fft32": False}


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
    if exact and kernel in TRANSFORMS:
        raise ValueError(f"kernel {kernel!r} is a transform, which exact=True excludes")
    token = steered.set(Options(kernel, exact))
    try:
        yield
    finally:
        steered.reset(token)
