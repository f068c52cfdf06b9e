"""The functions: ``conv1d`` and ``conv_transpose1d``, with torch.nn.functional's arguments and more."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.overrides import handle_torch_function

from tapwise.engine import dispatch
from tapwise.padding import Padding

_is_compiling = torch.compiler.is_compiling


def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, ...] = 1,
    padding: Padding = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
) -> Tensor:
    """The one-dimensional convolution (cross-correlation) of a signal with the taps of ``weight``.

    ``output[b, o, i] = bias[o] + sum over c, k of weight[o, c, k] * input[b, c, i*stride - left + k*dilation]``

    Arguments:
        input: (batch, in_channels, length) or (in_channels, length).
        weight: (out_channels, in_channels / groups, kernel_size).
        bias: (out_channels,) or None.
        stride: input samples from one window to the next.
        padding: samples on both sides, a pair ``(left, right)``, ``"valid"``, ``"same"``, ``"causal"``,
            ``"semicausal"`` or ``"full"``.
        dilation: input samples from one tap to the next.
        groups: independent convolutions that the channels are divided into.
        padding_mode: ``"zeros"``, ``"reflect"``, ``"replicate"`` or ``"circular"``.

    Returns:
        (batch, out_channels, output length), or without batch as the input is.

    Raises:
        ShapeError: arguments that don't fit together; it is a RuntimeError and a ValueError.

    Example:
        >>> import torch, tapwise as tw
        >>> x = torch.arange(10.0).reshape(1, 1, 10)
        >>> tw.conv1d(x, torch.ones(1, 1, 3), padding="causal")
        tensor([[[ 0.,  1.,  3.,  6.,  9., 12., 15., 18., 21., 24.]]])

    Source: ``torch.nn.functional.conv1d``, whose arguments mean the same here.
    """
    settings = (stride, padding, dilation, groups, padding_mode, False, 0)
    y = dispatch.run_cached(input, weight, bias, settings)
    if y is not None:
        return y
    if not _is_compiling() and dispatch.is_overridden(input, weight, bias):
        arguments = (input, weight, bias, *settings[:5])
        return handle_torch_function(conv1d, (input, weight), *arguments)
    return dispatch.decide(input, weight, bias, settings)(input, weight, bias)


def conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, ...] = 1,
    padding: Padding = 0,
    output_padding: int | tuple[int, ...] = 0,
    groups: int = 1,
    dilation: int | tuple[int, ...] = 1,
) -> Tensor:
    """The transposed convolution: each input sample spreads the taps over the outputs.

    Arguments:
        input: (batch, in_channels, length) or (in_channels, length).
        weight: (in_channels, out_channels / groups, kernel_size).
        bias: (out_channels,) or None.
        stride: outputs from the first tap of one input to that of the next.
        padding: outputs cut from both ends, a pair ``(left, right)``, or ``"causal"``, which leaves
            ``length * stride`` outputs of which output j needs no input after ``j // stride``.
        output_padding: outputs added on the right, fewer than the stride or the dilation.
        groups: independent convolutions that the channels are divided into.
        dilation: outputs from one tap to the next.

    Returns:
        (batch, out_channels, output length), or without batch as the input is.

    Raises:
        ShapeError: arguments that don't fit together; it is a RuntimeError and a ValueError.

    Example:
        >>> import torch, tapwise as tw
        >>> tw.conv_transpose1d(torch.tensor([[1.0, 2.0]]), torch.ones(1, 1, 3), stride=2)
        tensor([[1., 1., 3., 2., 2.]])

    Source: ``torch.nn.functional.conv_transpose1d``, whose arguments mean the same here.
    """
    settings = (stride, padding, dilation, groups, "zeros", True, output_padding)
    y = dispatch.run_cached(input, weight, bias, settings)
    if y is not None:
        return y
    if not _is_compiling() and dispatch.is_overridden(input, weight, bias):
        arguments = (input, weight, bias, stride, padding, output_padding, groups, dilation)
        return handle_torch_function(conv_transpose1d, (input, weight), *arguments)
    return dispatch.decide(input, weight, bias, settings)(input, weight, bias)
