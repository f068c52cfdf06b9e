"""The functions: ``conv1d`` and ``conv_transpose1d``, with torch.nn.functional's arguments and more."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, is_tensor_like

from tapwise.engine import calls
from tapwise.engine.autograd import convolve
from tapwise.engine.kernels import native
from tapwise.engine.problem import Problem
from tapwise.settings import Padding

_PLAIN = (Tensor, torch.nn.Parameter)
_compiling, _traced = torch.compiler.is_compiling, torch.compiler.is_dynamo_compiling


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
    if not _traced():
        call = calls.known(input, weight, bias, stride, padding, dilation, groups, padding_mode)
        if call is not None:
            try:
                pads, number, _, _, _ = call
                x = input if pads is None else torch.constant_pad_nd(input, pads)
                return torch.conv1d(x, weight, bias, stride, number, dilation, groups)
            except (RuntimeError, TypeError, ValueError):
                pass  # what torch refuses is said below in our words
    compiling = _compiling()
    settings = (stride, padding, dilation, groups, padding_mode)
    if not compiling and _is_watched(input, weight, bias):
        return handle_torch_function(conv1d, (input, weight), input, weight, bias, *settings)
    problem = Problem.of(input, weight, bias, *settings)
    if not compiling and type(problem.length) is int:
        call = calls.note(problem, input, weight, *settings)
        if call is not None and call.recorded in (None, calls.recorded(input, weight, bias)):
            return native.run(problem.geometry, input, weight, bias)
    return _batched(problem, input, weight, bias)


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
    """The transposed convolution: each input sample spreads the taps over the outputs it reaches.

    Arguments:
        input: (batch, in_channels, length) or (in_channels, length).
        weight: (in_channels, out_channels / groups, kernel_size).
        bias: (out_channels,) or None.
        stride: outputs from one input's reach to the next.
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
    if not _compiling() and _is_watched(input, weight, bias):
        whole = (input, weight, bias, stride, padding, output_padding, groups, dilation)
        return handle_torch_function(conv_transpose1d, (input, weight), *whole)
    problem = Problem.of(
        input, weight, bias, stride, padding, dilation, groups,
        transposed=True, output_padding=output_padding,
    )  # fmt: skip
    return _batched(problem, input, weight, bias)


def _is_watched(input: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether a mode, or what stands for a tensor, as fx's proxies do, sees the call as it was made.

    Raises:
        TypeError: what is no tensor, and stands for none.
    """
    modes = bool(torch._C._len_torch_function_stack())
    if type(input) in _PLAIN and type(weight) in _PLAIN and (type(bias) in _PLAIN or bias is None):
        return modes
    for name, value in (("input", input), ("weight", weight), ("bias", bias)):
        if isinstance(value, Tensor) or (name == "bias" and value is None):
            continue
        if is_tensor_like(value):  # type: ignore[no-untyped-call]
            return True
        raise TypeError(
            f"{name} must be a torch.Tensor, got {type(value).__name__}: "
            f"torch.as_tensor({name}) makes one"
        )
    return modes


def _batched(problem: Problem, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if input.ndim == 3:
        return convolve(problem.geometry, input, weight, bias, problem)
    return convolve(problem.geometry, input[None], weight, bias, problem)[0]
