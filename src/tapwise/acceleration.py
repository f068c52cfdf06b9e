"""Acceleration: run an existing model's convolutions on this engine, and undo it."""

from __future__ import annotations

from functools import partial
from types import TracebackType
from typing import Any

from torch import Tensor, nn

from tapwise.chunks import StreamingLayer
from tapwise.functional import conv1d, conv_transpose1d
from tapwise.padding import pads_of


class Acceleration:
    """What ``accelerate`` did to a model; as a context manager, undone at the end of the block.

    Arguments:
        changed: by path, each layer that runs on the engine now.
        left: by path, each convolution that was left as it was, and why.
    """

    def __init__(self, changed: dict[str, nn.Module], left: dict[str, str]) -> None:
        self.changed = changed
        self.left = left

    def undo(self) -> None:
        """Restore every changed layer's own forward. A layer that was changed again since is left."""
        for layer in self.changed.values():
            for kind, name in _HOOKS.items():
                if isinstance(layer, kind) and _is_ours(layer, kind):
                    del layer.__dict__[name]
        self.changed = {}

    def __enter__(self) -> Acceleration:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.undo()

    def __str__(self) -> str:
        lines = [f"{len(self.changed)} layers run on Tapwise's engine"]
        lines += [f"  {path or '(the model)'}: {layer}" for path, layer in self.changed.items()]
        if self.left:
            lines.append(f"{len(self.left)} were left")
            lines += [f"  {path or '(the model)'}: {why}" for path, why in self.left.items()]
        return "\n".join(lines)

    __repr__ = __str__


def accelerate(model: nn.Module) -> Acceleration:
    """Run every ``nn.Conv1d`` and ``nn.ConvTranspose1d`` of a model on Tapwise's engine, in place.

    Layers stay the objects that they are: class, parameters, parametrizations, hooks and state_dict
    are untouched, and so are outputs, up to rounding. Where no kernel of ours is faster, torch's runs
    as before. ``copy.deepcopy`` of a model copies the acceleration, beyond an ``undo`` too; a shallow copy
    goes on computing with the original layer's settings, a transposed one with its weights. What is
    traced or exported to ONNX holds torch's own operations; ``torch.export`` holds Tapwise's, and
    TorchScript can't compile an accelerated layer.

    Arguments:
        model: any module, a single convolution too.

    Returns:
        A report: ``print`` it, or use it as a context manager, which undoes the change at the end.

    Raises:
        TypeError: a model that is no ``nn.Module``.

    Example:
        >>> import torch, tapwise as tw
        >>> model = torch.nn.Sequential(torch.nn.Conv1d(1, 4, 3), torch.nn.ReLU())
        >>> print(tw.accelerate(model))
        1 layers run on Tapwise's engine
          0: Conv1d(1, 4, kernel_size=(3,), stride=(1,))
        >>> with tw.accelerate(model):
        ...     y = model(torch.zeros(1, 1, 100))
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    changed: dict[str, nn.Module] = {}
    left: dict[str, str] = {}
    for path, layer in model.named_modules():
        kind = next((kind for kind in _HOOKS if isinstance(layer, kind)), None)
        if kind is None:
            continue
        obstacle = _obstacle(layer, kind)
        if obstacle is None:
            layer.__dict__[_HOOKS[kind]] = partial(_FORWARDS[kind], layer)
            changed[path] = layer
        elif obstacle:
            left[path] = obstacle
    return Acceleration(changed, left)


def _obstacle(layer: nn.Module, kind: type[nn.Module]) -> str | None:
    """Why a layer is left as it is; None where it can be changed, empty where it is ours already."""
    if isinstance(layer, StreamingLayer) or _is_ours(layer, kind):
        return ""
    replaced = next((name for name in ("forward", "_conv_forward") if name in layer.__dict__), None)
    if replaced is not None:
        return f"its {replaced} was replaced by somebody else"
    if isinstance(layer, nn.modules.lazy.LazyModuleMixin):
        return "it has no weight yet: run the model once first"
    if isinstance(layer, nn.Conv1d) and _pads_differently(layer):
        return "it pads by other numbers than its padding says"
    overridden = [name for name in ("forward", "_conv_forward") if _overridden(layer, kind, name)]
    return f"{type(layer).__name__} has its own {overridden[0]}" if overridden else None


def _pads_differently(layer: nn.Conv1d) -> bool:
    """Whether torch pads, where not with zeros, by other numbers than those of ``padding``."""
    if layer.padding_mode == "zeros":
        return False
    effective = layer.dilation[0] * (layer.kernel_size[0] - 1) + 1
    pads = pads_of(layer.padding, effective, layer.stride[0], transposed=False)
    return tuple(layer._reversed_padding_repeated_twice) != pads


def _is_ours(layer: nn.Module, kind: type[nn.Module]) -> bool:
    hook = layer.__dict__.get(_HOOKS[kind])
    return isinstance(hook, partial) and hook.func is _FORWARDS[kind] and hook.args[0] is layer


def _overridden(layer: nn.Module, kind: type[nn.Module], name: str) -> bool:
    return getattr(type(layer), name, None) is not getattr(kind, name, None)


def _convolution(layer: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return conv1d(input, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups, layer.padding_mode)


def _transposed(layer: Any, input: Tensor, output_size: list[int] | None = None) -> Tensor:
    output_padding = layer._output_padding(
        input, output_size, layer.stride, layer.padding, layer.kernel_size, 1, layer.dilation
    )
    return conv_transpose1d(
        input, layer.weight, layer.bias, layer.stride, layer.padding, output_padding, layer.groups, layer.dilation
    )


# The method by which each kind of layer computes, which an attribute of the instance overrides.
_HOOKS: dict[type[nn.Module], str] = {nn.Conv1d: "_conv_forward", nn.ConvTranspose1d: "forward"}
_FORWARDS: dict[type[nn.Module], Any] = {nn.Conv1d: _convolution, nn.ConvTranspose1d: _transposed}
