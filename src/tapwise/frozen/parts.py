"""Parts: a model that can't be read as one, with those of its modules frozen that can."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from tapwise.errors import FreezeMismatchError, ShapeError, TimelineError
from tapwise.evaluation import evaluating
from tapwise.frozen.network import ALLOWED, ALLOWED_IN_BFLOAT16, Frozen, difference_of

_CONVOLUTIONS = (nn.Conv1d, nn.ConvTranspose1d)


class PartlyFrozen(nn.Module):
    """A model for inference, some of whose modules are frozen: what ``tapwise.freeze`` makes of one that it can't read.

    Arguments:
        model: a copy of the model, with frozen modules in their places.
        frozen: by path, these.
        left: by path, modules with convolutions that torch runs as before, and why.
    """

    def __init__(self, model: nn.Module, frozen: dict[str, Frozen], left: dict[str, str]) -> None:
        super().__init__()
        self.model, self.frozen, self.left = model, frozen, left
        self.eval()

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """What the model gives in evaluation, without gradients."""
        with evaluating(self.model):
            return self.model(*inputs, **named)

    def extra_repr(self) -> str:
        lines = [f"frozen: {', '.join(self.frozen) or 'nothing'}"]
        lines += [f"left to torch: {path or 'the model itself'}: {why}" for path, why in self.left.items()]
        return "\n".join(lines)


def freeze_parts(
    model: nn.Module, example: Any, is_exact: bool, dtype: torch.dtype | None, error: Exception
) -> PartlyFrozen:
    """Freeze the modules of a model, a copy, that can be read by themselves; ``error`` says why it can't be as one."""
    inputs = example if isinstance(example, tuple) else (example,)
    calls = _calls(model, inputs)
    frozen: dict[str, Frozen] = {}
    left: dict[str, str] = {"": _first_line(error)}
    with evaluating(model):
        wanted = model(*inputs)
    _descend(model, "", calls, (is_exact, dtype), frozen, left)
    found = PartlyFrozen(model, frozen, left)
    if (difference := difference_of(wanted, found(*inputs))) > (ALLOWED if dtype is None else ALLOWED_IN_BFLOAT16):
        raise FreezeMismatchError(
            f"the frozen modules ({', '.join(frozen)}) change what the model gives by {difference:.2g} of its largest "
            "output: report it, with the model, and use tapwise.accelerate meanwhile"
        )
    return found


def _descend(
    module: nn.Module,
    path: str,
    calls: dict[str, Any],
    how: tuple[Any, ...],
    frozen: dict[str, Frozen],
    left: dict[str, str],
) -> None:
    for name, child in module.named_children():
        inner = f"{path}.{name}" if path else name
        if not any(isinstance(m, _CONVOLUTIONS) for m in child.modules()):
            continue
        given = calls.get(inner)
        if given is not None:
            try:
                found = Frozen(child, given, None, *how)
            except (TimelineError, FreezeMismatchError, ShapeError, RuntimeError, ValueError, TypeError) as error:
                left[inner] = _first_line(error)
            else:
                frozen[inner] = found
                module._modules[name] = found
                continue
        _descend(child, inner, calls, how, frozen, left)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _calls(model: nn.Module, inputs: tuple[Any, ...]) -> dict[str, Tensor]:
    """By path, the tensor that a module was called with, of those that are called once, with a tensor, for a tensor."""
    found: dict[str, Tensor | None] = {}
    handles = []

    def hook(path: str) -> Any:
        def called(module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
            fits = len(args) == 1 and not kwargs and isinstance(args[0], Tensor) and isinstance(result, Tensor)
            found[path] = args[0].detach().clone() if fits and path not in found else None

        return called

    for path, module in _modules(model):
        handles.append(module.register_forward_hook(hook(path), with_kwargs=True))
    try:
        with evaluating(model), torch.no_grad():
            model(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return {path: x for path, x in found.items() if x is not None}


def _modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return ((path, module) for path, module in model.named_modules() if path)


def copied(model: nn.Module) -> nn.Module:
    """A copy that later changes of the model don't reach; of a model that can't be copied, one of its modules alone.

    ``torch.nn.utils.weight_norm``, of before torch 2.0, keeps a tensor that can't be copied.
    """
    try:
        return copy.deepcopy(model)
    except (RuntimeError, TypeError):
        with torch.no_grad():
            return _copied_modules(model)


def _copied_modules(model: nn.Module) -> nn.Module:
    other = copy.copy(model)
    other.__dict__ = {**model.__dict__, "_modules": {}, "_parameters": {}, "_buffers": {}}
    for name, value in model.__dict__.items():
        if isinstance(value, Tensor):
            other.__dict__[name] = value.detach().clone()
    for name, parameter in model._parameters.items():
        own = (
            None
            if parameter is None
            else nn.Parameter(parameter.detach().clone(), requires_grad=parameter.requires_grad)
        )
        other._parameters[name] = own
    for name, buffer in model._buffers.items():
        other._buffers[name] = None if buffer is None else buffer.detach().clone()
    for name, child in model._modules.items():
        other._modules[name] = None if child is None else _copied_modules(child)
    return other
