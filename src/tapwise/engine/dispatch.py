"""Dispatch: the one place where a call becomes a kernel's run, through the one cache of such decisions.

# conv1d(x, w, b, ...)  ->  run_cached  --decided before-->  run(x, w, b)
#                              not yet
#                           decide: check, plan, keep  -->  run(x, w, b)

Layers, functions, streams, ``accelerate``, ``compat`` and the ops all call here.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from threading import Lock
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import is_tensor_like

from tapwise.engine import deterministic, op
from tapwise.engine.autograd import Convolution, is_traced, requires_grad, run_weight_gradient
from tapwise.engine.checks import ORDINARY, autocast_dtype, check_fits, only_native_because, without_autocast
from tapwise.engine.kernels import KERNELS, native
from tapwise.engine.options import allowing, current_options
from tapwise.engine.plan import (
    NATIVE,
    NATIVE_TRAINING,
    Training,
    choose_grad_weight,
    choose_kernel,
    choose_training,
    is_small,
    lowered,
)
from tapwise.engine.problem import Problem
from tapwise.engine.threads import leave_lost_pool
from tapwise.evaluation import is_evaluating
from tapwise.geometry import Geometry

Run = Callable[[Tensor, Tensor, Tensor | None], Tensor]
# (stride, padding, dilation, groups, padding_mode, transposed, output_padding), as the caller gave them;
# or a geometry, whose tensors are known to fit.
Settings = tuple[Any, ...] | Geometry


class _Decision(NamedTuple):
    """What is kept of a decision.

    Arguments:
        run: the call itself.
        torch_only: whether it is made of torch's operations alone, which every transform takes.
        settings: those that were checked.
    """

    run: Run
    torch_only: bool
    settings: Settings


# By call, the decisions where nothing requires a gradient and where something does: one object where
# they are the same.
_decisions: dict[Any, tuple[_Decision | None, _Decision | None]] = {}
MOST_DECISIONS = 4096
# How often plans changed: a decision of before a change is not cached after it.
_generation = 0
_lock = Lock()


def _after_fork() -> None:
    """Every call of a child is decided anew, which first leaves the lost pool of threads."""
    global _lock
    _lock = Lock()
    _decisions.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

# Looked up once: each look takes longer than some calls do.
_is_dynamo, _threads = torch.compiler.is_dynamo_compiling, torch.get_num_threads
_function_modes, _any_autocast = (torch._C._len_torch_function_stack, torch._C._is_any_autocast_enabled)


def convolve(input: Tensor, weight: Tensor, bias: Tensor | None, settings: Settings) -> Tensor:
    """The convolution of ``input`` (B, C_in, L) or (C_in, L).

    Raises:
        ShapeError: arguments that don't fit together.
    """
    y = run_cached(input, weight, bias, settings)
    return decide(input, weight, bias, settings)(input, weight, bias) if y is None else y


def run_cached(input: Tensor, weight: Tensor, bias: Tensor | None, settings: Settings) -> Tensor | None:
    """The convolution, where it was decided for such arguments; None where it has to be decided."""
    if _is_dynamo():
        return None
    try:
        decision, training = _decisions[_key(input, weight, bias, settings)]
        if decision is not training and requires_grad(input, weight, bias):
            decision = training
        if decision is None or _function_modes():
            return None
        run, torch_only, checked = decision
        if not _are_exact(settings, checked):
            return None
        if torch_only or not (is_traced(input, weight, bias) or only_native_because(input, weight, bias)):
            return run(input, weight, bias)
        return None
    except (KeyError, AttributeError, TypeError, RuntimeError, ValueError):
        # Not decided; no tensors, lists, or symbols for lengths; or what torch refuses, to be checked and
        # reported in our words.
        return None


def _key(input: Tensor, weight: Tensor, bias: Tensor | None, settings: Settings) -> Any:
    """All that a plan looks at, but for whether something requires a gradient."""
    options = current_options()
    return (
        settings,
        input.shape,
        weight.shape,
        input.dtype,
        weight.dtype,
        None if bias is None else (bias.shape, bias.dtype),
        (input.is_cpu and weight.is_cpu and (bias is None or bias.is_cpu)) or _one_device(input, weight, bias),
        _threads(),
        options,
        options.dtype and is_evaluating(),
        _any_autocast() and autocast_dtype(input),
    )


def _one_device(*tensors: Tensor | None) -> Any:
    """The device of all tensors; of tensors on several, a key that no decision has."""
    devices = {tensor.device for tensor in tensors if tensor is not None}
    return devices.pop() if len(devices) == 1 else object()


def _are_exact(settings: Settings, checked: Settings) -> bool:
    """Whether settings equal to those that were checked are integers and words too: 2 == 2.0 == True."""
    if settings is checked or type(settings) is Geometry:
        return True
    one: Any = settings
    other: Any = checked
    if one[1] is other[1] and one[0] is other[0] and one[2] is other[2] and one[3] is other[3] and one[6] is other[6]:
        return True
    flat = [n for s in (*one[:5], *one[6:]) for n in (s if type(s) is tuple else (s,))]  # one[5]: transposed
    return all(type(n) in (int, str) for n in flat)


def decide(input: Tensor, weight: Tensor, bias: Tensor | None, settings: Settings, traced: bool | None = None) -> Run:
    """Check the arguments, choose by the plan, and keep the decision.

    Arguments:
        traced: whether the call has to be the op; None: where something is tracing.

    Raises:
        ShapeError: arguments that don't fit together.
    """
    leave_lost_pool()
    generation = _generation
    if isinstance(settings, Geometry):
        check_fits(settings, input, weight, bias)
        problem = Problem.unchecked(settings, input, weight, autocast_dtype(input))
    else:
        problem = Problem.of(input, weight, bias, *settings)
    geometry = problem.geometry
    cast = None if problem.dtype == input.dtype else problem.dtype
    if only_native_because(input, weight, bias) is not None:
        run = _batched(native.run, geometry)
        if current_options().deterministic and type(input) in ORDINARY and input.numel() and not is_traced():
            return _batched(partial(deterministic.run, NATIVE), geometry)
        if (input.is_complex() or input.numel() == 0) and not is_traced(input, weight, bias):  # which the key says
            decision = _Decision(run, True, settings)
            with suppress(TypeError):
                _keep(_key(input, weight, bias, settings), (decision, decision), generation)
        return run
    if is_traced(input, weight, bias) if traced is None else traced:
        return _batched(op.convolution, geometry, cast)
    needs_grad = requires_grad(input, weight, bias)
    if current_options().deterministic:
        run = _batched(partial(_deterministic, choose_training(problem)), geometry, cast)
        with suppress(TypeError):
            decision = _Decision(run, False, settings)
            _keep(_key(input, weight, bias, settings), (decision, decision), generation)
        return run
    training = choose_training(problem) if needs_grad else None
    kernel = choose_kernel(lowered(problem)) if training is None else training.forward
    torch_only = kernel == NATIVE and training in (None, NATIVE_TRAINING)
    run = runner(geometry, kernel, training, cast)
    decision = _Decision(run, torch_only, settings)
    with suppress(TypeError):  # lists can't be keys
        key = _key(input, weight, bias, settings)
        if is_small(problem):
            _keep(key, (decision, decision), generation)
        else:
            inference, other = _decisions.get(key, (None, None))
            _keep(key, (inference, decision) if needs_grad else (decision, other), generation)
    return run


def runner(geometry: Geometry, kernel: str, training: Training | None = None, cast: torch.dtype | None = None) -> Run:
    """The call by which a kernel runs, or those of a training, with torch's own called as directly as can be.

    Arguments:
        cast: the dtype of autocast; None outside of it.
    """
    if kernel == NATIVE and training in (None, NATIVE_TRAINING):
        return _torch_run(geometry)
    if training is None:
        return _batched(KERNELS[kernel].run, geometry, cast)
    return _batched(
        lambda g, x, w, b: Convolution.apply(x, w, b, g, training),  # type: ignore[no-untyped-call]
        geometry,
        cast,
    )


def forget() -> None:
    """Decide every call anew: plans changed."""
    global _generation
    with _lock:
        _generation += 1
        _decisions.clear()


def _deterministic(training: Training, geometry: Geometry, x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    if requires_grad(x, w, b):
        return Convolution.apply(x, w, b, geometry, training)  # type: ignore[no-untyped-call,no-any-return]
    return deterministic.run(training.forward, geometry, x, w, b)


def _keep(key: Any, decisions: tuple[_Decision | None, _Decision | None], generation: int) -> None:
    with _lock:
        if generation != _generation:
            return
        while len(_decisions) >= MOST_DECISIONS:
            del _decisions[next(iter(_decisions))]
        _decisions[key] = decisions


def _torch_run(geometry: Geometry) -> Run:
    """torch's own convolution, called as directly as can be."""
    pads, stride, dilation, groups = (geometry.padding, geometry.stride, geometry.dilation, geometry.groups)
    if geometry.transposed or (geometry.padding_mode != "zeros" and pads != (0, 0)):
        return _batched(native.run, geometry)
    if pads[0] == pads[1]:
        padding = pads[0]
        return lambda x, w, b: native.torch_conv1d(x, w, b, stride, padding, dilation, groups)

    def padded(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        return native.torch_conv1d(torch.constant_pad_nd(x, pads), w, b, stride, 0, dilation, groups)

    return padded


def _batched(function: Callable[..., Tensor], geometry: Geometry, dtype: torch.dtype | None = None) -> Run:
    """A kernel's run on a geometry, for signals without a batch too, cast to ``dtype`` where given."""

    def run(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        if dtype is not None:
            x, w = x.to(dtype), w.to(dtype)
            b = None if b is None else b.to(dtype)
        return function(geometry, x, w, b) if x.ndim == 3 else function(geometry, x[None], w, b)[0]

    return run


def is_overridden(input: Any, weight: Any, bias: Any) -> bool:
    """Whether a mode, or an object that stands for a tensor, as fx's proxies do, takes the call itself.

    Raises:
        TypeError: an argument that is no tensor, and stands for none.
    """
    modes = bool(_function_modes())
    if all(type(tensor) in ORDINARY for tensor in (input, weight)) and (bias is None or type(bias) in ORDINARY):
        return modes
    for name, value in (("input", input), ("weight", weight), ("bias", bias)):
        if isinstance(value, Tensor) or (name == "bias" and value is None):
            continue
        if is_tensor_like(value):  # type: ignore[no-untyped-call]
            return True
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}: torch.as_tensor({name}) makes one")
    return modes


# The ops' implementations


@without_autocast
def _convolution(input: Tensor, weight: Tensor, bias: Tensor | None, *ints: Any) -> Tensor:
    kernel_size, stride, dilation, left, right, groups, mode, transposed, output_padding = ints
    if weight.shape[-1] != kernel_size:
        check_fits(op.geometry_of(*ints), input, weight, bias)
    settings = (stride, (left, right), dilation, groups, mode, transposed, output_padding)
    with allowing(None):  # whether a gradient is required is not known here
        output = run_cached(input, weight, bias, settings)
        if output is None:
            output = decide(input, weight, bias, settings, traced=False)(input, weight, bias)
    # An op's output is memory of its own, laid out as the fake says; native's may be a view.
    if output.storage_offset() or not output.is_contiguous():
        return output.clone(memory_format=torch.contiguous_format)
    return output


def _weight_gradient(grad: Tensor, input: Tensor, weight: Tensor, *ints: Any) -> Tensor:
    settings = ("weight_gradient", *ints)
    key = _key(input, weight, grad, settings)
    decision, _ = _decisions.get(key, (None, None))
    if decision is None:
        generation = _generation
        geometry = op.geometry_of(*ints)
        check_fits(geometry, input, weight, None, grad)
        kernel = choose_grad_weight(Problem.unchecked(geometry, input, weight))
        run = partial(run_weight_gradient, kernel, geometry)
        decision = _Decision(run, False, settings)
        _keep(key, (decision, decision), generation)
    return decision.run(grad, input, weight)


torch.library.impl("tapwise::convolution", "default", _convolution, lib=op.LIBRARY)
torch.library.impl("tapwise::weight_gradient", "default", _weight_gradient, lib=op.LIBRARY)
