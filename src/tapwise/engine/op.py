"""The ops: a convolution and its weight's gradient as ``torch.compile`` and other graphs see them.

``torch.ops.tapwise.convolution`` and ``weight_gradient`` choose their kernel when they run, so that one
compiled graph serves every length. ``dispatch`` gives them their implementations, ``autograd`` their
gradients.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

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
# The count of an op's arguments that are its geometry.
CONVOLUTION_SETTINGS, GRADIENT_SETTINGS = 9, 7


def convolution(geometry: Geometry, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The op on a geometry."""
    result: Tensor = torch.ops.tapwise.convolution(
        input, weight, bias, *_gradient_settings(geometry), geometry.transposed, geometry.output_padding
    )
    return result


def weight_gradient(geometry: Geometry, grad: Tensor, input: Tensor, weight: Tensor) -> Tensor:
    """The weight's gradient as an op; of ``weight`` only the shape and the dtype count."""
    settings = _gradient_settings(geometry)
    result: Tensor = torch.ops.tapwise.weight_gradient(grad, input, weight, *settings)
    return result


def _gradient_settings(geometry: Geometry) -> tuple[Any, ...]:
    g = geometry
    return (g.kernel_size, g.stride, g.dilation, g.left, g.right, g.groups, g.padding_mode)


def geometry_of(
    kernel_size: int,
    stride: int,
    dilation: int,
    left: int,
    right: int,
    groups: int,
    padding_mode: str,
    transposed: bool = False,
    output_padding: int = 0,
) -> Geometry:
    """The geometry that an op's settings stand for."""
    padding = (left, right)
    return Geometry(kernel_size, stride, dilation, padding, groups, padding_mode, transposed, output_padding)


def _fake_convolution(input: Tensor, weight: Tensor, bias: Tensor | None, *settings: Any) -> Tensor:
    kernel_size, stride, dilation, left, right, groups, _, transposed, output_padding = settings
    effective = dilation * (kernel_size - 1) + 1  # lengths are symbols here: no Geometry
    length = input.shape[-1]
    if transposed:
        outputs = (length - 1) * stride + effective + output_padding - left - right
        return input.new_empty((input.shape[0], weight.shape[1] * groups, outputs))
    outputs = (length + left + right - effective) // stride + 1
    return input.new_empty((input.shape[0], weight.shape[0], outputs))


def _fake_weight_gradient(grad: Tensor, input: Tensor, weight: Tensor, *settings: Any) -> Tensor:
    return weight.new_empty(weight.shape)


torch.library.register_fake("tapwise::convolution", _fake_convolution, lib=LIBRARY)
torch.library.register_fake("tapwise::weight_gradient", _fake_weight_gradient, lib=LIBRARY)
