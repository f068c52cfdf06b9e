"""Options: what a user asks of the plan, for one thread and one asyncio task."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache

import torch

from tapwise.engine.kernels import KERNELS


@dataclass(frozen=True, slots=True, eq=False)
class Options:
    """The options in force. Equal options are one object: ``_interned`` makes them."""

    kernel: str | None = None
    exact: bool | None = None
    deterministic: bool = False
    dtype: torch.dtype | None = None


_interned = cache(Options)
DEFAULT = _interned(None, None, False, None)
_current: ContextVar[Options] = ContextVar("tapwise_options", default=DEFAULT)
current_options = _current.get


@contextmanager
def options(
    *,
    kernel: str | None = None,
    exact: bool | None = None,
    deterministic: bool | None = None,
    dtype: torch.dtype | None = None,
) -> Iterator[None]:
    """Choose kernels within a ``with`` block, for this thread and this asyncio task only.

    Arguments:
        kernel: the name of the kernel to run wherever it applies (elsewhere native runs): one of
            ``"native"``, ``"direct"``, ``"gemm"``, ``"implicit_gemm"``, ``"winograd"``, ``"amx"``, ``"fft"``,
            ``"fft32"``, ``"reference"``. None lets the plan choose.
        exact: True: every output is the sum of its own window's products, never a transform's.
            None: transforms in float64 too, whose rounding float32 can't show, and ``"winograd"``, whose tiles of
            four outputs hold about 1e-7 of the loudest sample in their windows, a causal layer's too. False:
            transforms in float32 too, twice as fast; each sample then holds about 1e-7 of the loudest around it.
        deterministic: True: outputs have the same bits in any batch, on any number of threads and with or
            without gradients, and gradients have the same bits on any number of threads. Where torch's own
            convolution is the plan, it then runs row by row on one thread, which may take several times as
            long. Not held: second derivatives, gradients of complex numbers, and calls that torch transforms
            (vmap, jvp). None: as around the block.
        dtype: ``torch.bfloat16``: convolutions of float32 that need no gradient may round their inputs and weights to
            bfloat16, where the processor's matrices (Intel AMX) then take less time; sums and outputs are float32. An
            output is off by some ``2**-9`` of the root of the sum of its squared products, at most by ``2**-6.9`` of the
            sum of their magnitudes; subnormal numbers count as zeros. To train so, use ``torch.autocast``. It changes nothing
            under ``deterministic``, within ``torch.compile``'s graphs, and in streams. None: in float32.

    Raises:
        ValueError: an unknown kernel, or one that ``exact`` excludes; another dtype than these.

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
    if exact and kernel is not None and not KERNELS[kernel].is_exact:
        raise ValueError(f"kernel {kernel!r} is a transform, which exact=True excludes")
    if deterministic not in (True, False, None):
        raise ValueError(f"deterministic must be True, False or None, got {deterministic!r}")
    check_dtype(dtype)
    held = _current.get().deterministic if deterministic is None else bool(deterministic)
    token = _current.set(_interned(kernel, None if exact is None else bool(exact), held, dtype))
    try:
        yield
    finally:
        _current.reset(token)


def check_dtype(dtype: torch.dtype | None) -> None:
    """Refuse a dtype in which no products of float32 are computed.

    Raises:
        ValueError: with those that there are.
    """
    if dtype not in (None, torch.bfloat16):
        raise ValueError(f"dtype must be torch.bfloat16 or None, got {dtype!r}")


@contextmanager
def allowing(dtype: torch.dtype | None) -> Iterator[None]:
    """Let convolutions of float32 be computed in a dtype, under the other options in force."""
    found = _current.get()
    token = _current.set(_interned(found.kernel, found.exact, found.deterministic, dtype))
    try:
        yield
    finally:
        _current.reset(token)
