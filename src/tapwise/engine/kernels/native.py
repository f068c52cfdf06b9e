"""native: torch's own convolution, fed what it doesn't do by itself.

It runs everything that torch runs, is built of differentiable torch operations alone, and so serves
every transform that torch has (functorch, forward-mode AD, tracing, autocast, subclasses).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tapwise.engine.problem import Problem
from tapwise.geometry import Geometry

NAME = "native"
# torch's own, whatever a program puts in their places (``F.conv1d = tapwise.conv1d``).
torch_conv1d, torch_conv_transpose1d = torch.conv1d, torch.conv_transpose1d


def why_not(problem: Problem) -> str | None:
    """None: torch runs every problem."""
    return None


def tiles(problem: Problem) -> str:
    """How the work is divided, in words: torch decides."""
    return ""


def run(geometry: Geometry, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution of ``input`` (B, C_in, L) by torch: (B, C_out, L_out)."""
    outputs = geometry.output_length(input.shape[-1])
    if input.shape[1] == 0 and outputs and not geometry.transposed:  # torch gives no channels then
        return torch_conv1d(pad(geometry, input), weight, bias, geometry.stride, 0, geometry.dilation, geometry.groups)
    if outputs == 0 or input.numel() == 0:
        return _without_products(geometry, input, weight, bias, outputs)
    if geometry.transposed:
        return _run_transposed(geometry, input, weight, bias, outputs)
    padding = 0
    if padded_by_torch(geometry):
        padding = geometry.left
    else:
        input = pad(geometry, input)
    return torch_conv1d(input, weight, bias, geometry.stride, padding, geometry.dilation, geometry.groups)


def gradients(
    geometry: Geometry, grad: Tensor, input: Tensor, weight: Tensor, needs: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    """The gradients of input, weight and bias, those needed, in one call of torch's."""
    full, padded, padding, output_padding = grad, input, geometry.left, geometry.output_padding
    if geometry.transposed and not _cut_by_torch(geometry):
        full, padding, output_padding = full_length_grad(geometry, grad, input.shape[-1]), 0, 0
    elif not (geometry.transposed or padded_by_torch(geometry)):
        needs_values = needs[1] or torch.is_grad_enabled()
        padded = pad(geometry, input) if needs_values else _empty_padded(geometry, input)
        padding = 0
    mask = [needs[0], needs[1], needs[2] and full is grad]
    grad_input, grad_weight, grad_bias = _backward(geometry, full, padded, weight, mask, padding, output_padding)
    if needs[0] and padded is not input:
        grad_input = unpad(geometry, grad_input, input.shape[-1])
    if needs[2] and full is not grad:
        grad_bias = grad.sum((0, 2))
    return grad_input, grad_weight, grad_bias


def _backward(
    geometry: Geometry,
    grad: Tensor,
    input: Tensor,
    weight: Tensor,
    mask: list[bool],
    padding: int = 0,
    output_padding: int = 0,
) -> Any:
    """torch's gradients of input, weight and bias, those that ``mask`` asks for."""
    shape = ([geometry.stride], [padding], [geometry.dilation], geometry.transposed, [output_padding], geometry.groups)
    return torch.ops.aten.convolution_backward(grad, input, weight, [grad.shape[1]], *shape, mask)


def _empty_padded(geometry: Geometry, input: Tensor) -> Tensor:
    """For the input's gradient, which asks the input for its size alone."""
    if geometry.padding == (0, 0):
        return input
    return input.new_empty((*input.shape[:-1], geometry.left + input.shape[-1] + geometry.right))


def padded_by_torch(geometry: Geometry) -> bool:
    """Whether torch's convolution pads by itself as this geometry does."""
    return geometry.pads_as_torch and not geometry.transposed


def _cut_by_torch(geometry: Geometry) -> bool:
    fits = geometry.output_padding < max(geometry.stride, geometry.dilation)
    return geometry.left == geometry.right and fits


def input_gradient(geometry: Geometry, grad: Tensor, weight: Tensor, length: int) -> Tensor:
    """The gradient of the input (B, C_in, length), zeros in the padding, from those of the outputs."""
    if geometry.transposed:
        full = full_length_grad(geometry, grad, length)
        return torch_conv1d(full, weight, None, geometry.stride, 0, geometry.dilation, geometry.groups)
    channels = weight.shape[1] * geometry.groups
    padded = grad.new_empty((grad.shape[0], channels, geometry.left + length + geometry.right))
    grad_input: Tensor = _backward(geometry, grad, padded, weight, [True, False, False])[0]
    return grad_input.narrow(-1, geometry.left, length)


def full_length_grad(geometry: Geometry, grad: Tensor, length: int) -> Tensor:
    """The gradient of a transposed convolution's output before its ends were cut.

    # full:  0 0 2 3 4 5 6 0     zeros where outputs were cut off, the output padding left out
    """
    full_length = (length - 1) * geometry.stride + geometry.effective_kernel_size
    right = full_length - geometry.left - grad.shape[-1]
    full = grad
    if geometry.left or right > 0:
        full = F.pad(grad, (geometry.left, max(right, 0)))
    return full.narrow(-1, 0, full_length) if right < 0 else full


def weight_gradient(geometry: Geometry, grad: Tensor, input: Tensor, weight: Tensor) -> Tensor:
    """The gradient of the weight (C_out, C_in / groups, K) from those of the outputs."""
    padded = pad(geometry, input)
    grad_weight: Tensor = _backward(geometry, grad, padded, weight, [False, True, False])[1]
    return grad_weight


def pad(geometry: Geometry, input: Tensor) -> Tensor:
    """The input with its padding as samples: (B, C, left + L + right)."""
    if geometry.padding == (0, 0):
        return input
    if geometry.padding_mode == "zeros":
        return F.pad(input, geometry.padding)
    if _torch_pads(geometry, input.shape[-1]):
        return F.pad(input, geometry.padding, geometry.padding_mode)
    left, right = _sources(geometry, input)
    return torch.cat((input.index_select(-1, left), input, input.index_select(-1, right)), dim=-1)


def _sources(geometry: Geometry, like: Tensor, length: int | None = None) -> tuple[Tensor, Tensor]:
    """The inputs that fill the left and the right padding, as indices beside ``like``."""
    length = like.shape[-1] if length is None else length
    left = torch.arange(-geometry.left, 0, device=like.device)
    right = torch.arange(geometry.right, device=like.device) + length
    return geometry.fold(left, length), geometry.fold(right, length)


def unpad(geometry: Geometry, grad: Tensor, length: int) -> Tensor:
    """The adjoint of ``pad``: what falls on the padding is added to the inputs it was copied from."""
    inner = grad.narrow(-1, geometry.left, length)
    if geometry.padding_mode == "zeros":
        return inner
    if geometry.padding_mode in _ADJOINTS and _torch_pads(geometry, length):
        like = grad.new_empty((*grad.shape[:-1], length))
        folded: Tensor = _ADJOINTS[geometry.padding_mode](grad, like, list(geometry.padding))
        return folded
    left, right = _sources(geometry, grad, length)
    inner = inner.index_add(-1, left, grad.narrow(-1, 0, geometry.left))
    return inner.index_add(-1, right, grad.narrow(-1, geometry.left + length, geometry.right))


def _torch_pads(geometry: Geometry, length: int) -> bool:
    """Whether torch's own padding is used: in graphs, for their compilers, where it allows so much."""
    if not torch.compiler.is_compiling():
        return False
    longest = max(geometry.padding)
    allowed = {"reflect": longest < length, "circular": longest <= length}
    return allowed.get(geometry.padding_mode, True)


_ADJOINTS = {
    "reflect": torch.ops.aten.reflection_pad1d_backward,
    "replicate": torch.ops.aten.replication_pad1d_backward,
}


def _run_transposed(geometry: Geometry, input: Tensor, weight: Tensor, bias: Tensor | None, outputs: int) -> Tensor:
    stride, dilation, groups = geometry.stride, geometry.dilation, geometry.groups
    if _cut_by_torch(geometry):
        ends = (geometry.left, geometry.output_padding)
        return torch_conv_transpose1d(input, weight, bias, stride, *ends, groups, dilation)
    # full:    0 1 2 3 4 5 6      cut on the left, then cut or extended on the right
    # output:      2 3 4 5 6 .    the bias is added everywhere
    full = torch_conv_transpose1d(input, weight, None, stride, 0, 0, groups, dilation)
    missing = geometry.left + outputs - full.shape[-1]
    if missing > 0:
        full = F.pad(full, (0, missing))
    y = full.narrow(-1, geometry.left, outputs)
    return y.contiguous() if bias is None else y + bias[:, None].to(y.dtype)


def _without_products(geometry: Geometry, input: Tensor, weight: Tensor, bias: Tensor | None, outputs: int) -> Tensor:
    """No sample, channel, batch row or output: the bias remains, as part of the graph of gradients."""
    channels = weight.shape[1] * geometry.groups if geometry.transposed else weight.shape[0]
    nothing = input.flatten(1)[:, :0] @ weight.flatten(1).t()[:0, :1]  # (B, 1), of no products
    result = nothing[:, :, None].expand(-1, channels, outputs)
    return result.clone() if bias is None else result + bias[:, None].to(result.dtype)
