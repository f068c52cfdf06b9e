"""The op: one convolution as torch sees it, with its gradient, whichever kernel runs inside.

``torch.ops.tapwise.convolution`` chooses its plan when it runs, so that one compiled graph serves
every length. What torch's transforms must see through (functorch, forward-mode AD, subclasses,
complex numbers) runs on native outside the op, made of torch's own operations.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from tapwise.engine.checks import autocast_dtype
from tapwise.engine.kernels import native
from tapwise.engine.plan import Plan, choose, kernel_of, native_because
from tapwise.engine.problem import Problem
from tapwise.geometry import Geometry

_library = torch.library.Library("tapwise", "DEF")  # type: ignore[no-untyped-call]
_library.define(  # type: ignore[no-untyped-call]
    "convolution(Tensor input, Tensor weight, Tensor? bias, int kernel_size, int stride, "
    "int dilation, int left, int right, int groups, str padding_mode, bool transposed, "
    "int output_padding) -> Tensor"
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
        plan = choose(_problem(geometry, input, weight, dtype))
        if plan.kernel == native.NAME:
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


def plan_of(problem: Problem, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Plan:
    """The plan by which ``convolve`` would run these tensors."""
    obstacle = outside_the_op(input, weight, bias)
    return choose(problem) if obstacle is None else native_because(obstacle)


def outside_the_op(input: Tensor, weight: Tensor, bias: Tensor | None) -> str | None:
    """Why these tensors run on native outside the op; None where the op takes them."""
    tensors = (input, weight) if bias is None else (input, weight, bias)
    for tensor in tensors:
        if type(tensor) not in (Tensor, torch.nn.Parameter):
            return f"torch alone knows what a {type(tensor).__name__} means"
    if input.is_complex():
        return "complex numbers run as torch's real convolutions"
    if input.numel() == 0:
        return "there is nothing to multiply"
    if forward_ad._current_level >= 0:
        return "forward-mode differentiation sees through torch's own operations only"
    if not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack():
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


def gradients(
    geometry: Geometry, grad: Tensor, input: Tensor, weight: Tensor, needs: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    """The gradients of input, weight and bias, by torch's own operations, themselves differentiable.

    # padded    p p|x x x x x|p      what the taps met; its gradient folds back onto x
    """
    if geometry.transposed:
        return _gradients_transposed(geometry, grad, input, weight, needs)
    padded = native.pad(geometry, input)
    grad_padded, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
        grad, padded, weight, [weight.shape[0]], [geometry.stride], [0], [geometry.dilation],
        False, [0], geometry.groups, list(needs),
    )  # fmt: skip
    grad_input = native.unpad(geometry, grad_padded, input.shape[-1]) if needs[0] else None
    return grad_input, grad_weight, grad_bias


def _gradients_transposed(
    geometry: Geometry, grad: Tensor, input: Tensor, weight: Tensor, needs: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    # full:  . . 2 3 4 5 6 .     the gradient put back where it was cut from, the added part dropped
    whole = (input.shape[-1] - 1) * geometry.stride + geometry.effective_kernel_size
    right = whole - geometry.left - grad.shape[-1]
    full = grad
    if geometry.left or right > 0:
        full = torch.nn.functional.pad(grad, (geometry.left, max(right, 0)))
    if right < 0:
        full = full.narrow(-1, 0, whole)
    grad_input, grad_weight, _ = torch.ops.aten.convolution_backward(
        full, input, weight, None, [geometry.stride], [0], [geometry.dilation], True, [0],
        geometry.groups, [needs[0], needs[1], False],
    )  # fmt: skip
    return grad_input, grad_weight, grad.sum((0, 2)) if needs[2] else None


torch.library.impl("tapwise::convolution", "default", _forward, lib=_library)
torch.library.register_fake("tapwise::convolution", _fake, lib=_library)
torch.library.register_autograd(
    "tapwise::convolution", _backward, setup_context=_setup_context, lib=_library
)
OP = torch.ops.tapwise.convolution
