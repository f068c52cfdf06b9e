"""Forwards: what runs in place of an accelerated layer's own methods, as attributes of the instance.

# Conv1d                     its ``_conv_forward`` is ours; what a subclass pads before it calls it, stays
# ConvTranspose1d            its ``forward`` is ours
# a forward of somebody's    runs as it is, with ``F.conv1d`` and ``F.conv_transpose1d`` being ours meanwhile
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tapwise.engine.autograd import is_traced
from tapwise.engine.kernels.native import torch_conv1d, torch_conv_transpose1d
from tapwise.engine.options import allowing
from tapwise.functional import conv1d, conv_transpose1d


def in_dtype(dtype: torch.dtype, function: Callable[..., Any], layer: Any, *arguments: Any, **named: Any) -> Any:
    """Call a function of a layer; convolutions of float32 may be computed in a dtype meanwhile."""
    if torch.compiler.is_compiling():
        return function(layer, *arguments, **named)
    with allowing(dtype):
        return function(layer, *arguments, **named)


def convolution(layer: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return conv1d(input, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups, layer.padding_mode)


def transposed(layer: Any, input: Tensor, output_size: list[int] | None = None) -> Tensor:
    output_padding = layer._output_padding(
        input, output_size, layer.stride, layer.padding, layer.kernel_size, 1, layer.dilation
    )
    return conv_transpose1d(
        input, layer.weight, layer.bias, layer.stride, layer.padding, output_padding, layer.groups, layer.dilation
    )


class _Rerouted(TorchFunctionMode):
    """torch's one-dimensional convolutions are Tapwise's, in this thread, for as long as it is entered."""

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _OURS.get(func, func)(*args, **(kwargs or {}))


_OURS: dict[Callable[..., Any], Callable[..., Any]] = {torch_conv1d: conv1d, torch_conv_transpose1d: conv_transpose1d}


def _rerouted_forward(layer: Any, *arguments: Any, **named: Any) -> Any:
    return _rerouted(layer, "forward", arguments, named)


def _rerouted_conv_forward(layer: Any, *arguments: Any, **named: Any) -> Any:
    return _rerouted(layer, "_conv_forward", arguments, named)


def _rerouted(layer: Any, name: str, arguments: Any, named: Any) -> Any:
    method = getattr(type(layer), name)
    if is_traced(*(a for a in arguments if isinstance(a, Tensor))):  # a graph holds torch's own operations
        return method(layer, *arguments, **named)
    with _Rerouted():
        return method(layer, *arguments, **named)


# The methods by which layers compute, which an attribute of the instance overrides.
NAMES = ("forward", "_conv_forward")
HOOKS: dict[type[nn.Module], str] = {nn.Conv1d: "_conv_forward", nn.ConvTranspose1d: "forward"}
FORWARDS: dict[type[nn.Module], Any] = {nn.Conv1d: convolution, nn.ConvTranspose1d: transposed}
REROUTED: dict[str, Any] = {"forward": _rerouted_forward, "_conv_forward": _rerouted_conv_forward}
