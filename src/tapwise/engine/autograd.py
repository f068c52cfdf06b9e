"""The op: one convolution as torch sees it, with its gradient, whichever kernel runs inside.

``torch.ops.tapwise.convolution`` chooses its plan when it runs, so that one compiled graph serves
every length. What torch's transforms must see through (functorch, forward-mode AD, subclasses,
complex numbers) runs on native outside the op, made of torch's own operations.
"""

from __future__ import annotations

from functools import lru_cache, wraps
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from tapwise.engine.adjoint import (
    backward_of,
    forward_of,
    of_input_gradient,
    of_weight_gradient,
    unpadded,
    whole_of,
)
from tapwise.engine.checks import autocast_dtype
from tapwise.engine.kernels import KERNELS, native
from tapwise.engine.plan import Plan, choose, choose_gradient, kernel_of, native_because
from tapwise.engine.problem import Problem
from tapwise.geometry import Geometry

_library = torch.library.Library("tapwise", "DEF")  # type: ignore[no-untyped-call]
_library.define(  # type: ignore[no-untyped-call]
    "convolution(Tensor input, Tensor weight, Tensor? bias, int kernel_size, int stride, "
    "int dilation, int left, int right, int groups, str padding_mode, bool transposed, "
    "int output_padding) -> Tensor"
)
_library.define(  # type: ignore[no-untyped-call]
    "weight_gradient(Tensor grad, Tensor input, Tensor weight, int kernel_size, int stride, "
    "int dilation, int left, int right, int groups, str padding_mode) -> Tensor"
)
_geometry = lru_cache(maxsize=4096)(
    lambda kernel_size, stride, dilation, left, right, groups, mode, transposed, output_padding: (
        Geometry(
            kernel_size, stride, dilation, (left, right), groups, mode, transposed, output_padding
        )
    )
)


def convolve(geometry: Geometry, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution of ``input`` (B, C_in, L): (B, C_out, L_out). The arguments fit together.

    Example:
        >>> import torch
        >>> convolve(Geometry(2), torch.ones(1, 1, 4), torch.ones(1, 1, 2), None)
        tensor([[[2., 2., 2.]]])
    """
    if outside_the_op(input, weight, bias) is not None:
        return native.run(geometry, input, weight, bias)
    dtype = autocast_dtype(input)
    # Where nothing is being compiled for other lengths, native needs no op around it.
    if not torch.compiler.is_compiling():
        problem = _problem(geometry, input, weight, dtype)
        plan = choose(problem)
        if plan.kernel == native.NAME and not _gradients_are_ours(problem, input, weight):
            return kernel_of(plan).run(geometry, input, weight, bias)
    if dtype != input.dtype:
        input, weight = input.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    result: Tensor = OP(
        input, weight, bias, geometry.kernel_size, geometry.stride, geometry.dilation,
        geometry.left, geometry.right, geometry.groups, geometry.padding_mode,
        geometry.transposed, geometry.output_padding,
    )  # fmt: skip
    return result


def _gradients_are_ours(problem: Problem, input: Tensor, weight: Tensor) -> bool:
    """Whether a gradient will be asked for that another kernel than native computes."""
    if not torch.is_grad_enabled():
        return False
    inputs, weights = input.requires_grad, weight.requires_grad
    if weights and choose_gradient(of_weight_gradient(problem)) != native.NAME:
        return True
    return inputs and choose(of_input_gradient(problem)).kernel != native.NAME


def plan_of(problem: Problem, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Plan:
    """The plan by which ``convolve`` would run these tensors."""
    obstacle = outside_the_op(input, weight, bias)
    return choose(problem) if obstacle is None else native_because(obstacle)


def outside_the_op(input: Tensor, weight: Tensor, bias: Tensor | None) -> str | None:
    """Why these tensors run on native outside the op; None where the op takes them."""
    tensors = (input, weight) if bias is None else (input, weight, bias)
    for tensor in tensors:
        if tensor.layout is not torch.strided:
            return f"torch alone reads the layout {tensor.layout}"
        if type(tensor) not in (Tensor, torch.nn.Parameter):
            return f"torch alone knows what a {type(tensor).__name__} means"
    if input.is_complex():
        return "complex numbers run as torch's real convolutions"
    if input.numel() == 0:
        return "there is nothing to multiply"
    if forward_ad._current_level >= 0:
        return "forward-mode differentiation sees through torch's own operations only"
    if torch.compiler.is_compiling():
        if torch._C._functorch.maybe_current_level() is not None:
            return "function transforms (vmap, grad, jvp) see through torch's own operations only"
    else:
        functorch = torch._C._functorch
        batched = functorch.is_legacy_batchedtensor
        if functorch.peek_interpreter_stack() or any(batched(tensor) for tensor in tensors):
            return "function transforms (vmap, grad, jvp) see through torch's own operations only"
    return None


def _problem(geometry: Geometry, input: Tensor, weight: Tensor, dtype: torch.dtype) -> Problem:
    outer, inner = weight.shape[0], weight.shape[1] * geometry.groups
    channels = (outer, inner) if geometry.transposed else (inner, outer)
    return Problem(geometry, *channels, input.shape[-1], dtype, input.device.type)


def _forward(input: Tensor, weight: Tensor, bias: Tensor | None, *shape: Any) -> Tensor:
    geometry = _geometry(*shape)
    problem = _problem(geometry, input, weight, input.dtype)
    output = kernel_of(choose(problem)).run(geometry, input, weight, bias)
    # An op's output is memory of its own, laid out as the fake says; native's may be a view.
    if output.storage_offset() or not output.is_contiguous():
        return output.clone(memory_format=torch.contiguous_format)
    return output


def _fake(input: Tensor, weight: Tensor, bias: Tensor | None, *shape: Any) -> Tensor:
    kernel_size, stride, dilation, left, right, groups, _, transposed, output_padding = shape
    reach = dilation * (kernel_size - 1) + 1
    length = input.shape[-1]
    if transposed:
        outputs = (length - 1) * stride + reach + output_padding - left - right
        return input.new_empty((input.shape[0], weight.shape[1] * groups, outputs))
    outputs = (length + left + right - reach) // stride + 1
    return input.new_empty((input.shape[0], weight.shape[0], outputs))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input, weight, bias, *ctx.shape = inputs
    ctx.has_bias = bias is not None
    ctx.save_for_backward(input, weight)


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    input, weight = ctx.saved_tensors
    needs = ctx.needs_input_grad[:3]
    grads = gradients(_geometry(*ctx.shape), grad, input, weight, needs)
    return (*grads, *(None,) * len(ctx.shape))


def _uncast(function: Any) -> Any:
    """The function without autocast: a gradient is of the type that its forward had."""

    @wraps(function)
    def plain(*arguments: Any) -> Any:
        kind = next(a for a in arguments if isinstance(a, Tensor)).device.type
        if not torch.is_autocast_enabled(kind):
            return function(*arguments)
        with torch.autocast(kind, enabled=False):
            return function(*arguments)

    return plain


@_uncast
def gradients(
    geometry: Geometry, grad: Tensor, input: Tensor, weight: Tensor, needs: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    """The gradients of input, weight and bias: convolutions, by the same plans and kernels.

    They are themselves differentiable.
    """
    grad_input = input_gradient(geometry, grad, weight, input.shape[-1]) if needs[0] else None
    grad_weight = weight_gradient(geometry, grad, input, weight) if needs[1] else None
    return grad_input, grad_weight, grad.sum((0, 2)) if needs[2] else None


def input_gradient(geometry: Geometry, grad: Tensor, weight: Tensor, length: int) -> Tensor:
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
        return convolve(forward, _cut(grad, 0, extent), weight, None)
    if geometry.padding_mode != "zeros" and geometry.padding != (0, 0):
        padded = length + geometry.left + geometry.right
        whole = input_gradient(unpadded(geometry), grad, weight, padded)
        return native.unpad(geometry, whole, length)
    backward, (start, stop) = backward_of(geometry, length, grad.shape[-1])
    if backward.transposed:
        return convolve(backward, grad, weight, None)
    outer, inner, taps = weight.shape
    groups = geometry.groups
    turned = weight.flip(-1).reshape(groups, outer // groups, inner, taps).transpose(1, 2)
    turned = turned.reshape(groups * inner, outer // groups, taps)  # (C_in, C_out / groups, K)
    return convolve(backward, _cut(grad, start, stop), turned, None)


def _cut(grad: Tensor, start: int, stop: int) -> Tensor:
    return grad if (start, stop) == (0, grad.shape[-1]) else grad.narrow(-1, start, stop - start)


def weight_gradient(geometry: Geometry, grad: Tensor, input: Tensor, weight: Tensor) -> Tensor:
    """The gradient of the weight from those of the outputs; of ``weight`` only the shape counts."""
    if geometry.transposed:  # the same sum of products, the input in the place of the gradient
        length = input.shape[-1]
        forward, extent = forward_of(geometry, length, grad.shape[-1])
        if type(length) is not int or extent <= 0:
            return weight_gradient(
                whole_of(geometry), input, native.put_back(geometry, grad, length), weight
            )
        return weight_gradient(forward, input, _cut(grad, 0, extent), weight)
    if outside_the_op(grad, input, None) is not None or outside_the_op(weight, grad, None):
        return native.weight_gradient(geometry, grad, input, weight)
    result: Tensor = WEIGHT_GRADIENT(
        grad, input, weight, geometry.kernel_size, geometry.stride, geometry.dilation,
        geometry.left, geometry.right, geometry.groups, geometry.padding_mode,
    )  # fmt: skip
    return result


def _weight_forward(grad: Tensor, input: Tensor, weight: Tensor, *shape: Any) -> Tensor:
    geometry = _geometry(*shape, False, 0)
    kernel = KERNELS[choose_gradient(_problem(geometry, input, weight, input.dtype))]
    assert kernel.weight_gradient is not None
    return kernel.weight_gradient(geometry, grad, input, weight).contiguous()


def _weight_fake(grad: Tensor, input: Tensor, weight: Tensor, *shape: Any) -> Tensor:
    return weight.new_empty(weight.shape)


def _weight_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    grad, input, _, *ctx.shape = inputs
    ctx.save_for_backward(grad, input)


def _weight_backward(ctx: Any, upstream: Tensor) -> tuple[Any, ...]:
    grads = _weight_gradients(
        _geometry(*ctx.shape, False, 0), upstream, ctx.saved_tensors, ctx.needs_input_grad
    )
    return (*grads, *(None,) * len(ctx.shape))


@_uncast
def _weight_gradients(
    geometry: Geometry, upstream: Tensor, saved: tuple[Tensor, Tensor], needs: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    # The sum of upstream * gradient is the convolution by ``upstream``, times the gradients.
    grad, input = saved
    of_grad = convolve(geometry, input, upstream, None) if needs[0] else None
    of_input = input_gradient(geometry, grad, upstream, input.shape[-1]) if needs[1] else None
    return of_grad, of_input, None


torch.library.impl("tapwise::convolution", "default", _forward, lib=_library)
torch.library.register_fake("tapwise::convolution", _fake, lib=_library)
torch.library.register_autograd(
    "tapwise::convolution", _backward, setup_context=_setup_context, lib=_library
)
torch.library.impl("tapwise::weight_gradient", "default", _weight_forward, lib=_library)
torch.library.register_fake("tapwise::weight_gradient", _weight_fake, lib=_library)
torch.library.register_autograd(
    "tapwise::weight_gradient", _weight_backward, setup_context=_weight_context, lib=_library
)
OP = torch.ops.tapwise.convolution
WEIGHT_GRADIENT = torch.ops.tapwise.weight_gradient
