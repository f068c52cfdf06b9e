"""The convolution as torch differentiates it: every gradient is a convolution by the same plans.

What torch's transforms must see through (functorch, forward-mode AD, subclasses, complex numbers) runs
on native outside the op, made of torch's own operations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tapwise.engine.adjoint import (
    backward_of,
    forward_of,
    known_backward_of,
    unpadded,
    whole_of,
)
from tapwise.engine.calls import recorded
from tapwise.engine.checks import autocast_dtype, outside_the_op, uncast
from tapwise.engine.kernels import KERNELS, direct, native
from tapwise.engine.op import (
    LIBRARY,
    OP,
    WEIGHT_GRADIENT,
    geometry_of,
    problem_of,
    weight_gradient_of,
)
from tapwise.engine.plan import (
    NATIVE_TRAINING,
    NATIVES,
    choose,
    choose_training,
)
from tapwise.engine.problem import Problem
from tapwise.geometry import Geometry


def convolve(
    geometry: Geometry, input: Tensor, weight: Tensor, bias: Tensor | None,
    problem: Problem | None = None, by: str | None = None,
) -> Tensor:  # fmt: skip
    """The convolution of ``input`` (B, C_in, L): (B, C_out, L_out). The arguments fit together.

    ``problem`` is what they pose, where the caller knows it; ``by`` names the kernel, where it is
    decided, for tensors that the op takes.

    Example:
        >>> import torch
        >>> convolve(Geometry(2), torch.ones(1, 1, 4), torch.ones(1, 1, 2), None)
        tensor([[[2., 2., 2.]]])
    """
    if by is None and outside_the_op(input, weight, bias) is not None:
        return native.run(geometry, input, weight, bias)
    dtype = autocast_dtype(input) if problem is None else problem.dtype
    # What is compiled for other lengths, or watched by a mode or a tracer, is the op; else it needs
    # none around it.
    free = not (torch.compiler.is_compiling() or _watched())
    training, kernel = None, by or native.NAME
    if free and (by is None or recorded(input, weight, bias)):
        problem = problem_of(geometry, input, weight, dtype) if problem is None else problem
        training = choose_training(problem) if recorded(input, weight, bias) else None
        kernel = by or (choose(problem).kernel if training is None else training.forward)
        if by is not None and training is not None:
            training = training._replace(forward=by)
    if free and kernel == native.NAME and training in (None, NATIVE_TRAINING):
        return KERNELS[kernel].run(geometry, input, weight, bias)
    if dtype != input.dtype:
        input, weight = input.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    result: Tensor
    if not free:
        result = OP(
            input, weight, bias, geometry.kernel_size, geometry.stride, geometry.dilation,
            geometry.left, geometry.right, geometry.groups, geometry.padding_mode,
            geometry.transposed, geometry.output_padding,
        )  # fmt: skip
    elif training is not None:
        result = _Recorded.apply(input, weight, bias, geometry, training)  # type: ignore[no-untyped-call]
    else:
        result = KERNELS[kernel].run(geometry, input, weight, bias)
    return result


def ready(
    geometry: Geometry, input: Tensor, weight: Tensor, bias: Tensor | None
) -> Callable[[Tensor], Tensor]:
    """The convolution of inputs like this one (B, C_in, L), decided once: for no gradient.

    The plan is that of ``convolve``; what the caller gives later has to be of the same size and kind.
    """
    if outside_the_op(input, weight, bias) or _watched() or autocast_dtype(input) != input.dtype:
        return lambda x: convolve(geometry, x, weight, bias)
    kernel = choose(problem_of(geometry, input, weight, input.dtype)).kernel
    if kernel == native.NAME and native.padded_by_torch(geometry):
        g = geometry
        return lambda x: torch.conv1d(x, weight, bias, g.stride, g.left, g.dilation, g.groups)
    run = KERNELS[kernel].run
    return lambda x: run(geometry, x, weight, bias)


class _Recorded(torch.autograd.Function):
    """The op's own steps without its dispatch, which takes longer than many a convolution."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None, *how: Any) -> Tensor:
        geometry, training = how
        ctx.geometry, ctx.kernels = geometry, training.gradients
        ctx.save_for_backward(input, weight)
        result: Tensor = KERNELS[training.forward].run(geometry, input, weight, bias)
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        input, weight = ctx.saved_tensors
        needs = ctx.needs_input_grad[:3]
        grads = gradients(ctx.geometry, grads[0], input, weight, needs, ctx.kernels)
        return (*grads, None, None)


def _watched() -> bool:
    """Whether a mode or a tracer wants to see the op itself."""
    return torch._C._len_torch_dispatch_stack() > 0 or torch._C._get_tracing_state() is not None


def continued(
    geometry: Geometry, before: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor:
    """The convolution of ``before`` (B, C_in, n) and ``input`` as one signal, one after the other.

    ``direct`` reads both where they lie, where it runs and nothing is recorded for a gradient; for
    others they are copied together.
    """
    if input.shape[-1] == 0 or before.shape[-1] == 0:
        return convolve(geometry, before if input.shape[-1] == 0 else input, weight, bias)
    tensors = (before, input, weight) if bias is None else (before, input, weight, bias)
    if not (
        geometry.transposed
        or recorded(input, weight, bias)
        or recorded(before, weight, bias)
        or torch.compiler.is_compiling()
        or _watched()
        or any(t.dtype != autocast_dtype(input) or t.device != input.device for t in tensors)
        or outside_the_op(before, weight, None)
        or outside_the_op(input, weight, bias)
    ):
        length = before.shape[-1] + input.shape[-1]
        if choose(problem_of(geometry, input, weight, input.dtype, length)).kernel == direct.NAME:
            return direct.run(geometry, input, weight, bias, before)
    return convolve(geometry, torch.cat((before, input), dim=-1), weight, bias)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input, weight, _, *ctx.shape = inputs
    ctx.save_for_backward(input, weight)


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    input, weight = ctx.saved_tensors
    needs = ctx.needs_input_grad[:3]
    grads = gradients(geometry_of(*ctx.shape), grad, input, weight, needs)
    return (*grads, *(None,) * len(ctx.shape))


@uncast
def gradients(
    geometry: Geometry, grad: Tensor, input: Tensor, weight: Tensor, needs: tuple[bool, ...],
    kernels: tuple[str, str] | None = None,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """The gradients of input, weight and bias: convolutions, by the same plans and kernels.

    They are themselves differentiable. ``kernels`` are those of the first two, where they are decided.
    The tensors are looked at once, here: where a kernel is named, no function below does it again.
    """
    if kernels == NATIVES:
        return native.gradients(geometry, grad, input, weight, needs)
    if outside_the_op(grad, input, weight) is not None:
        kernels = None
    elif kernels is None and not (torch.compiler.is_compiling() or _watched()):
        kernels = choose_training(problem_of(geometry, input, weight, input.dtype)).gradients
        if kernels == NATIVES:
            return native.gradients(geometry, grad, input, weight, needs)
    of_input, of_weight = kernels or (None, None)  # None: decided where it runs
    grad_input = grad_weight = None
    if needs[0] and of_input == native.NAME:
        grad_input, _, _ = native.gradients(geometry, grad, input, weight, (True, False, False))
    elif needs[0]:
        grad_input = input_gradient(geometry, grad, weight, input.shape[-1], of_input)
    if needs[1]:
        grad_weight = weight_gradient(geometry, grad, input, weight, of_weight)
    return grad_input, grad_weight, grad.sum((0, 2)) if needs[2] else None


def input_gradient(
    geometry: Geometry, grad: Tensor, weight: Tensor, length: int, by: str | None = None
) -> Tensor:
    """The gradient of the input (B, C_in, length) from those of the outputs.

    # padded    p p|x x x x x|p      what the taps met; its gradient folds back onto x
    """
    # A graph for all lengths can't hold a geometry that depends on them: torch's own then.
    free = type(length) is not int and (geometry.transposed or geometry.stride > 1)
    if free and geometry.padding_mode == "zeros":
        return native.input_gradient(geometry, grad, weight, length)
    if geometry.transposed:
        forward, extent = forward_of(geometry, length, grad.shape[-1])
        if extent <= 0:  # every output was added: none reads an input
            return native.input_gradient(geometry, grad, weight, length)
        return convolve(forward, _cut(grad, 0, extent), weight, None, by=by)
    if geometry.padding_mode != "zeros" and geometry.padding != (0, 0):
        padded = length + geometry.left + geometry.right
        whole = input_gradient(unpadded(geometry), grad, weight, padded, by)
        return native.unpad(geometry, whole, length)
    known = type(length) is int and type(grad.shape[-1]) is int
    adjoint = known_backward_of if known else backward_of
    backward, (start, stop) = adjoint(geometry, length, grad.shape[-1])
    if backward.transposed:
        return convolve(backward, grad, weight, None, by=by)
    outer, inner, taps = weight.shape
    groups = geometry.groups
    turned = weight.flip(-1)
    if groups == 1:
        turned = turned.transpose(0, 1)
    elif outer > groups or inner > 1:
        turned = turned.reshape(groups, outer // groups, inner, taps).transpose(1, 2)
        turned = turned.reshape(groups * inner, outer // groups, taps)  # (C_in, C_out / groups, K)
    return convolve(backward, _cut(grad, start, stop), turned, None, by=by)


def _cut(grad: Tensor, start: int, stop: int) -> Tensor:
    return grad if (start, stop) == (0, grad.shape[-1]) else grad.narrow(-1, start, stop - start)


def weight_gradient(
    geometry: Geometry, grad: Tensor, input: Tensor, weight: Tensor, by: str | None = None
) -> Tensor:
    """The gradient of the weight from those of the outputs; of ``weight`` only the shape counts."""
    if geometry.transposed:  # the same sum of products, the input in the place of the gradient
        length = input.shape[-1]
        if type(length) is int:  # no graph for all lengths, whose geometry would depend on them
            forward, extent = forward_of(geometry, length, grad.shape[-1])
            if extent > 0:
                return weight_gradient(forward, input, _cut(grad, 0, extent), weight, by)
        whole = native.put_back(geometry, grad, length)
        return weight_gradient(whole_of(geometry), input, whole, weight, by)
    if by is None and outside_the_op(grad, input, weight) is not None:
        return native.weight_gradient(geometry, grad, input, weight)
    if not (recorded(grad, input, None) or torch.compiler.is_compiling() or _watched()):
        return weight_gradient_of(geometry, grad, input, weight, by)
    result: Tensor = WEIGHT_GRADIENT(
        grad, input, weight, geometry.kernel_size, geometry.stride, geometry.dilation,
        geometry.left, geometry.right, geometry.groups, geometry.padding_mode,
    )  # fmt: skip
    return result


def _weight_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    grad, input, _, *ctx.shape = inputs
    ctx.save_for_backward(grad, input)


def _weight_backward(ctx: Any, upstream: Tensor) -> tuple[Any, ...]:
    grads = _weight_gradients(
        geometry_of(*ctx.shape, False, 0), upstream, ctx.saved_tensors, ctx.needs_input_grad
    )
    return (*grads, *(None,) * len(ctx.shape))


@uncast
def _weight_gradients(
    geometry: Geometry, upstream: Tensor, saved: tuple[Tensor, Tensor], needs: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    # The sum of upstream * gradient is the convolution by ``upstream``, times the gradients.
    grad, input = saved
    of_grad = convolve(geometry, input, upstream, None) if needs[0] else None
    of_input = input_gradient(geometry, grad, upstream, input.shape[-1]) if needs[1] else None
    return of_grad, of_input, None


torch.library.register_autograd(
    "tapwise::convolution", _backward, setup_context=_setup_context, lib=LIBRARY
)
torch.library.register_autograd(
    "tapwise::weight_gradient", _weight_backward, setup_context=_weight_context, lib=LIBRARY
)
