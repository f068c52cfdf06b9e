"""What the functions of ``causal_conv1d`` are given, looked at before any work."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tapwise.engine.autograd import is_traced
from tapwise.engine.memory import address
from tapwise.errors import ShapeError

# torch's, by the names that configurations use; the library itself has the first three.
ACTIVATIONS: dict[str | None, Callable[[Tensor], Tensor]] = {
    None: lambda x: x,
    "silu": F.silu,
    "swish": F.silu,
    **{
        name: getattr(F, name)
        for name in (
            "elu",
            "gelu",
            "hardswish",
            "leaky_relu",
            "mish",
            "relu",
            "relu6",
            "selu",
            "sigmoid",
            "softplus",
            "tanh",
        )
    },
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
}


def check_tensors(**tensors: Any) -> None:
    """Refuse what is no tensor, where it isn't None; x and weight may not be None."""
    for name, value in tensors.items():
        if not isinstance(value, Tensor) and (value is not None or name in ("x", "weight", "conv_state", "cu_seqlens")):
            raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")


def check_shapes(x: Tensor, weight: Tensor, activation: str | None) -> None:
    """Refuse an activation that there is none of, and shapes that don't fit together."""
    if activation not in ACTIVATIONS:
        names = ", ".join(map(str, ACTIVATIONS))
        raise NotImplementedError(f"activation must be None, silu, or swish, or one of {names}; got {activation!r}")
    if x.ndim != 3 or weight.ndim != 2 or x.shape[1] != weight.shape[0]:
        raise ShapeError(
            "x and weight don't fit together",
            got=f"x of size {list(x.shape)}, weight of size {list(weight.shape)}",
            expected="x (batch, dim, seqlen) and weight (dim, width)",
            fix="conv.weight.squeeze(1) makes (dim, width) of a depthwise layer's weight",
        )


def check_types(x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Halves and float32 meet, as in the library; float64 meets float64."""
    for name, tensor in (("x", x), ("weight", weight), ("bias", bias)):
        if tensor is None:
            continue
        if not tensor.is_floating_point():
            raise ShapeError(
                f"{name} must hold floating-point numbers",
                got=f"{name} of {tensor.dtype}",
                expected="float16, bfloat16, float32 or float64",
                fix=f"{name}.float()",
            )
        if (tensor.dtype == torch.float64) != (x.dtype == torch.float64):
            raise ShapeError(
                f"x and {name} don't fit together",
                got=f"x of {x.dtype}, {name} of {tensor.dtype}",
                expected="both of float64, or neither",
                fix=f"{name}.to(x.dtype)",
            )


def check_state(name: str, state: Tensor, x: Tensor) -> None:
    """Refuse a state of another kind than the samples that it holds."""
    if state.is_cpu and not is_traced(state):
        address(state)  # its memory is there
    if state.dtype != x.dtype:
        raise ShapeError(
            f"{name} must be of x's dtype",
            got=f"{name} of {state.dtype}",
            expected=f"{x.dtype}",
            fix=f"{name}.to(x.dtype)",
        )


def check_counts(name: str, counts: Tensor, least: int | None, below: int | None = None) -> None:
    """Refuse what can't be positions or counts: fractions, and numbers out of range.

    Arguments:
        below: what all have to be less than; None: anything goes.
    """
    if counts.dtype.is_floating_point or counts.dtype.is_complex or counts.dtype == torch.bool:
        raise ShapeError(f"{name} must hold integers", got=f"{name} of {counts.dtype}", fix=f"{name}.long()")
    if not counts.numel() or counts.device.type != "cpu" or is_traced(counts):  # looking would wait, or can't
        return
    low, high = (int(end) for end in torch.aminmax(counts))
    if (least is not None and low < least) or (below is not None and high >= below):
        wanted = [f"at least {least}"] * (least is not None) + [f"below {below}"] * (below is not None)
        raise ShapeError(f"{name} is out of range", got=f"{low} to {high}", expected=" and ".join(wanted))


def expect(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse a tensor of another shape."""
    if tuple(tensor.shape) != shape:
        raise ShapeError(
            f"{name} doesn't fit x and weight",
            got=f"{name} of size {list(tensor.shape)}",
            expected=f"{name} of size {list(shape)}",
        )
