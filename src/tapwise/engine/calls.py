"""Calls: those that are torch's own from end to end, told at a glance.

Where native runs, what comes before it is all that we cost: a call that was decided once is known again
by its shapes, without posing its problem anew.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tapwise.engine.kernels import native
from tapwise.engine.plan import NATIVE_TRAINING, choose, choose_training
from tapwise.engine.problem import Problem
from tapwise.engine.steering import NONE, Options, steered

# Products of one batch row and up to eight output channels, up to which no kernel but native is worth
# its call.
_SMALL = 8192


class Call(NamedTuple):
    """How torch is called.

    Arguments:
        pads: what is padded first, left and right; None: nothing.
        padding: what torch pads on both sides.
        recorded: only where gradients are recorded, or only where they are not; None: either.
        cast: whether it is so under autocast too.
        given: the padding that was checked.
    """

    pads: tuple[int, int] | None
    padding: int
    recorded: bool | None = None
    cast: bool = False
    given: Any = None


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
    small = 0 < products <= _SMALL and 0 < length * taps[1] <= _SMALL
    return small and steered.get().kernel is None


def is_usual() -> bool:
    """Whether no options are in force, nor anything that changes what a call means."""
    return (
        steered.get() is NONE
        and not torch.is_autocast_enabled("cpu")
        and torch._C._len_torch_dispatch_stack() == 0
    )


_known: dict[tuple[Any, ...], Call] = {}
_MOST_KNOWN = 4096

# Looked up once: each look takes longer than some calls do.
_threads, _modes = torch.get_num_threads, torch._C._len_torch_function_stack
_casts = torch._C._is_any_autocast_enabled


def recorded(input: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether a convolution of these is recorded for its gradients."""
    return torch.is_grad_enabled() and (
        input.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
    )


def known(
    input: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any,
    groups: int, mode: str,
) -> Call | None:  # fmt: skip
    """How torch does this call alone; None where that is not known."""
    try:
        call = _known.get((
            input.shape, weight.shape, input.dtype, _threads(), stride, padding, dilation, groups, mode,
        ))  # fmt: skip
        if call is None:
            call = _tiny(input, weight, stride, padding, dilation, groups, mode)
            if call is None:
                return None
        _, _, only, cast, given = call
        if (
            steered.get() is not NONE
            or _modes()  # a mode that watches sees the call as it was made
            or (not cast and _casts())
            or not (input.is_cpu and weight.is_cpu and (bias is None or bias.is_cpu))
            or not (padding is given or _is_exact(padding))
            or (only is not None and only != recorded(input, weight, bias))
        ):
            return None
    except (AttributeError, TypeError):  # no tensors; lists, and lengths that are symbols
        return None
    return call


def _is_exact(padding: Any) -> bool:
    """Whether a padding equal to one that was checked is one of words and whole numbers, too."""
    kind = type(padding)
    if kind is not tuple:
        return kind in (int, str)
    return type(padding[0]) is int and type(padding[-1]) is int  # one number, or a pair


def _tiny(input: Tensor, weight: Tensor, *settings: Any) -> Call | None:
    """That of a call so small that every plan is native: no problem need be posed for it."""
    _, padding, _, groups, mode = settings
    number = padding[0] if type(padding) is tuple and len(padding) == 1 else padding
    if type(number) is not int or mode != "zeros" or torch._C._get_tracing_state() is not None:
        return None
    if not (isinstance(input, Tensor) and isinstance(weight, Tensor) and input.is_cpu):
        return None
    if not always_native(input, weight, number, groups):
        return None
    return _noted(Call(None, number, None, True), input, weight, *settings)


def note(problem: Problem, input: Tensor, weight: Tensor, *settings: Any) -> Call | None:
    """How torch does this call alone, for ``known`` to know it again; None where it doesn't."""
    call = _call(problem, steered.get(), _threads())
    tracing = torch._C._get_tracing_state() is not None
    if call is not None and not tracing and steered.get() is NONE and input.is_cpu and not _casts():
        with suppress(TypeError):
            _noted(call, input, weight, *settings)
    return call


def _noted(call: Call, input: Tensor, weight: Tensor, *settings: Any) -> Call:
    if len(_known) >= _MOST_KNOWN:
        _known.clear()
    call = call._replace(given=settings[1])
    _known[(input.shape, weight.shape, input.dtype, _threads(), *settings)] = call
    return call


@lru_cache(maxsize=512)
def _call(problem: Problem, asked: Options, threads: int) -> Call | None:
    geometry = problem.geometry
    plain = geometry.padding_mode == "zeros" and not geometry.transposed
    if asked.kernel is not None or not plain or problem.multiplications == 0:
        return None
    inference, training = _natives(problem)
    if not (inference or training):
        return None
    only = None if inference and training else training
    halves = (replace(problem, dtype=dtype) for dtype in (torch.bfloat16, torch.float16))
    cast = all(_natives(half) == (inference, training) for half in halves)
    if geometry.left == geometry.right:
        return Call(None, geometry.left, only, cast)
    return Call(geometry.padding, 0, only, cast)


def _natives(problem: Problem) -> tuple[bool, bool]:
    """Whether all is native where no gradients are recorded, and where they are."""
    return choose(problem).kernel == native.NAME, choose_training(problem) == NATIVE_TRAINING
