"""The ops: a convolution and its weight's gradient as torch sees them, whichever kernel runs inside.

``torch.ops.tapwise.convolution`` and ``weight_gradient`` choose their plan when they run, so that one
compiled graph serves every length. Their gradients are registered by ``autograd``.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from tapwise.engine.kernels import KERNELS
from tapwise.engine.plan import choose, choose_gradient, kernel_of
from tapwise.engine.problem import Problem
from tapwise.geometry import Geometry

LIBRARY = torch.library.Library("tapwise", "DEF")  # type: ignore[no-untyped-call]
LIBRARY.define(  # type: ignore[no-untyped-call]
    "convolution(Tensor input, Tensor weight, Tensor? bias, int kernel_size, int stride, "
    "int dilation, int left, int right, int groups, str padding_mode, bool transposed, "
    "int output_padding) -> Tensor"
)
LIBRARY.define(  # type: ignore[no-untyped-call]
    "weight_gradient(Tensor grad, Tensor input, Tensor weight, int kernel_size, int stride, "
    "int dilation, int left, int right, int groups, str padding_mode) -> Tensor"
)
geometry_of = lru_cache(maxsize=4096)(
    lambda kernel_size, stride, dilation, left, right, groups, mode, transposed, output_padding: (
        Geometry(
            kernel_size, stride, dilation, (left, right), groups, mode, transposed, output_padding
        )
    )
)


def problem_of(
    geometry: Geometry, input: Tensor, weight: Tensor, dtype: torch.dtype, length: int | None = None
) -> Problem:
    outer, inner = weight.shape[0], weight.shape[1] * geometry.groups
    channels = (outer, inner) if geometry.transposed else (inner, outer)
    length = input.shape[-1] if length is None else length
    return Problem(geometry, *channels, length, dtype, input.device.type)


def _forward(input: Tensor, weight: Tensor, bias: Tensor | None, *shape: Any) -> Tensor:
    geometry = geometry_of(*shape)
    problem = problem_of(geometry, input, weight, input.dtype)
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


def weight_gradient_of(
    geometry: Geometry, grad: Tensor, input: Tensor, weight: Tensor, by: str | None = None
) -> Tensor:
    """The gradient of the weight, by the kernel that is chosen for it, or that ``by`` names."""
    kernel = KERNELS[by or choose_gradient(problem_of(geometry, input, weight, input.dtype))]
    assert kernel.weight_gradient is not None
    return kernel.weight_gradient(geometry, grad, input, weight).contiguous()


def _weight_forward(grad: Tensor, input: Tensor, weight: Tensor, *shape: Any) -> Tensor:
    return weight_gradient_of(geometry_of(*shape, False, 0), grad, input, weight)


def _weight_fake(grad: Tensor, input: Tensor, weight: Tensor, *shape: Any) -> Tensor:
    return weight.new_empty(weight.shape)


torch.library.impl("tapwise::convolution", "default", _forward, lib=LIBRARY)
torch.library.register_fake("tapwise::convolution", _fake, lib=LIBRARY)
torch.library.impl("tapwise::weight_gradient", "default", _weight_forward, lib=LIBRARY)
torch.library.register_fake("tapwise::weight_gradient", _weight_fake, lib=LIBRARY)
OP = torch.ops.tapwise.convolution
WEIGHT_GRADIENT = torch.ops.tapwise.weight_gradient
