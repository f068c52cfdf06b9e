"""Trace: a layer, or a weight with its settings, followed step by step on one signal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor, nn

from tapwise.engine.problem import Problem
from tapwise.engine.threads import leave_lost_pool
from tapwise.errors import ShapeError
from tapwise.explanation import pooling
from tapwise.explanation.steps import Array, Trace
from tapwise.explanation.wrapped import convolutions_of, unwrapped
from tapwise.functional import conv1d, conv_transpose1d
from tapwise.geometry import Geometry


def trace(layer: Any, x: Any, **settings: Any) -> Trace:
    """Every step of a convolution of one signal.

    Arguments:
        layer: a one-dimensional convolution layer, torch's or ours; a module that pads, runs one of them and drops
            outputs, as tutorials write a causal layer; ``nn.AvgPool1d`` or ``nn.MaxPool1d``; or a weight: (K,),
            (out, in/groups, K), as a tensor, an array or lists.
        x: (L,) for one channel, (C_in, L), or (1, C_in, L).
        settings: with a weight: ``stride``, ``padding``, ``dilation``, ``groups``, ``padding_mode``,
            ``bias``.

    Raises:
        ShapeError: a signal that the layer doesn't take, or a batch of several.
        TypeError: something that is no one-dimensional convolution.

    Example:
        >>> print(trace([1.0, 1.0, 1.0], [0.0, 1.0, 2.0, 3.0]))
        Step 0: sum([0. 1. 2.]*[1. 1. 1.]) = 3.0
        Step 1: sum([1. 2. 3.]*[1. 1. 1.]) = 6.0
        Final : [3. 6.]

    Source: the loop by which tutorials of ``nn.Conv1d`` explain it.
    """
    return follow(layer, x, settings)[0]


def follow(layer: Any, x: Any, settings: dict[str, Any]) -> tuple[Trace, Tensor, Tensor, Tensor | None]:
    """The trace, with the signal (C_in, L), the weight and the bias as the tensors that ran."""
    leave_lost_pool()
    bias: Tensor | None
    weight: Tensor
    if isinstance(layer, nn.Module):
        if settings:
            raise TypeError(f"{', '.join(settings)}: these belong to a weight; a layer has its own")
        if isinstance(layer, pooling.KINDS):
            return _follow_pooling(layer, x)
        if not is_convolution(layer):
            return _follow_wrapped(layer, x)
        module: Any = layer
        geometry, weight, bias = Geometry.of(module), module.weight, module.bias
        signal = one_signal(x, weight)
        g = geometry
        padding = _padding_of(module)
        checked = (g.stride, padding, g.dilation, g.groups, g.padding_mode, g.transposed)
        Problem.of(signal, weight, bias, *checked, g.output_padding)
        with torch.no_grad():
            output = layer(signal[None])[0]
            _refuse_more_than_a_convolution(layer, geometry, signal, output)
    else:
        unknown = set(settings) - _SETTINGS
        if unknown:
            raise TypeError(
                f"got {', '.join(sorted(unknown))}; with a weight, the settings are {', '.join(sorted(_SETTINGS))}"
            )
        settings = dict(settings)
        weight = _tensor(layer, x if isinstance(x, Tensor) else None)
        weight = weight.reshape(1, 1, -1) if weight.ndim == 1 else weight
        bias = settings.pop("bias", None)
        bias = None if bias is None else _tensor(bias, weight)
        geometry = Geometry(weight.shape[-1], **settings)
        signal = one_signal(x, weight)
        run = conv_transpose1d if settings.pop("transposed", False) else conv1d
        with torch.no_grad():
            output = run(signal, weight, bias, **settings)
    trace = Trace(geometry, array(signal), array(weight), array(bias), array(output))
    return trace, signal, weight, bias


def is_convolution(module: nn.Module) -> bool:
    """Whether a module is one convolution, not a network that holds some."""
    weight = getattr(module, "weight", None)
    return hasattr(module, "padding_mode") and getattr(weight, "ndim", 0) == 3


def _follow_pooling(layer: Any, x: Any) -> tuple[Trace, Tensor, Tensor, Tensor | None]:
    """Of a pooling layer: an average over all taps is a convolution; else there is no product to sum."""
    signal = one_signal(x, torch.empty(0))
    if not signal.is_floating_point():
        signal = signal.to(torch.get_default_dtype())
    geometry, kind = pooling.pooling_of(layer, signal)
    weight = pooling.average_weight(geometry, signal)
    with torch.no_grad():
        output = layer(signal)
    output = output[0] if isinstance(output, tuple) else output  # without the indices
    pooled = "" if kind == "average" else kind
    return Trace(geometry, array(signal), array(weight), None, array(output), pooled), signal, weight, None


def _follow_wrapped(module: nn.Module, x: Any) -> tuple[Trace, Tensor, Tensor, Tensor | None]:
    """Of a module that pads, runs its one convolution and drops outputs.

    Raises:
        TypeError: a module that does more, or holds no convolution, or several.
    """
    name, paths = type(module).__name__, convolutions_of(module)
    if not paths:
        raise TypeError(f"expected a one-dimensional convolution layer or a module that holds one, got {name}")
    if len(paths) > 1:
        raise TypeError(
            f"{name} holds {len(paths)} convolutions: tw.explain(model, x) lists them, and "
            f"tw.explain(model, x)[{paths[0]!r}] is one of them"
        )
    layer: Any = module.get_submodule(paths[0])
    signal = one_signal(x, layer.weight)
    if signal.shape[0] != layer.in_channels:
        raise ShapeError(
            f"{name} takes signals of another number of channels",
            got=f"x of size {list(signal.shape)}",
            expected=f"({layer.in_channels}, length)",
        )
    found = unwrapped(module, signal)
    if found is not None and found.kept is None:
        raise TypeError(
            f"{name} drops {found.dropped[0]} outputs of its convolution at the beginning and {found.dropped[1]} at the "
            f"end, more than padding gives: trace the convolution, model.{paths[0]}, which shows them all"
        )
    if found is None or found.kept is None:
        raise TypeError(
            f"{name} does more than to pad its convolution and to drop outputs of it: trace the convolution, "
            f"model.{paths[0]}, on what comes to it; tw.explain(model, x)[{paths[0]!r}] does both"
        )
    full = Trace(found.full, array(signal), array(layer.weight), array(layer.bias), array(found.output))
    first, last = found.dropped
    kept = full.output[:, first : full.output.shape[1] - last]
    trace = replace(full, geometry=found.kept, output=kept)
    if first or last:
        trace = replace(trace, within=replace(full, dropped=found.dropped))
    return trace, signal, layer.weight, layer.bias


def _refuse_more_than_a_convolution(layer: nn.Module, geometry: Geometry, signal: Tensor, output: Tensor) -> None:
    """A layer whose own forward, or a hook, does more than its weight and settings say."""
    run: Any = conv_transpose1d if geometry.transposed else conv1d
    settings: dict[str, Any] = {"padding_mode": geometry.padding_mode}
    if geometry.transposed:
        settings = {"output_padding": geometry.output_padding}
    expected = run(
        signal,
        layer.weight,
        layer.bias,
        stride=geometry.stride,
        padding=_padding_of(layer),
        dilation=geometry.dilation,
        groups=geometry.groups,
        **settings,
    )
    finite = expected[expected.isfinite()].abs()
    slack = 1e-3 * float(finite.max()) if finite.numel() else 0.0
    if expected.shape != output.shape or not torch.allclose(expected, output, rtol=1e-2, atol=slack, equal_nan=True):
        raise TypeError(
            f"{type(layer).__name__} does more than the convolution that its weight and settings "
            f"describe: it gave {list(output.shape)} where that gives {list(expected.shape)}, or "
            "other numbers. Trace the layer within it, or a tw.CausalConv1d in its place"
        )


def _padding_of(layer: Any) -> Any:
    """A layer's padding as it was given, word or numbers; torch's transposed "causal" isn't a word."""
    return layer.padding if isinstance(layer.padding, str) else Geometry.of(layer).padding


_SETTINGS = {"bias", "stride", "padding", "dilation", "groups", "padding_mode", "transposed", "output_padding"}


def _tensor(value: Any, like: Tensor | None) -> Tensor:
    """A weight or bias as a tensor of ``like``'s dtype, where that can hold it.

    Integers in a list stand for themselves in any dtype; fractions are never cut off.
    """
    if isinstance(value, Tensor):
        return value
    tensor = torch.as_tensor(np.asarray(value))
    is_integer = not (tensor.is_floating_point() or tensor.is_complex())
    if like is None:
        default = torch.get_default_dtype()
        return tensor.to(torch.complex64 if tensor.is_complex() else default)
    tensor = tensor.to(like.device)
    same_kind = tensor.is_floating_point() and like.is_floating_point()
    if is_integer or same_kind or like.is_complex():
        return tensor.to(like.dtype)
    return tensor.to(torch.promote_types(tensor.dtype, like.dtype))


def one_signal(x: Any, weight: Tensor) -> Tensor:
    """One signal, (C_in, L), of the weight's dtype and device where ``x`` has none of its own.

    Raises:
        ShapeError: a batch of several signals, or too many dimensions.
    """
    signal = x if isinstance(x, Tensor) else _tensor(x, weight)
    if signal.ndim == 1:
        signal = signal[None]
    if signal.ndim == 3 and signal.shape[0] == 1:
        signal = signal[0]
    if signal.ndim != 2:
        raise ShapeError(
            "a trace follows one signal",
            got=f"x of size {list(signal.shape)}",
            expected="(length,), (in_channels, length) or (1, in_channels, length)",
            fix="take one row of the batch: x[0]",
        )
    return signal


@overload
def array(tensor: Tensor) -> Array: ...
@overload
def array(tensor: None) -> None: ...
def array(tensor: Tensor | None) -> Array | None:
    """A tensor as a NumPy array; what NumPy has no dtype for becomes float32."""
    if tensor is None:
        return None
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
