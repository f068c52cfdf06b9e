"""Wrapped: a module that pads, runs one convolution and drops outputs, as tutorials write a causal layer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tapwise.evaluation import evaluating
from tapwise.geometry import Geometry

_KINDS = (nn.Conv1d, nn.ConvTranspose1d)
# Padding modes by torch's names for them.
_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "replicate", "circular": "circular"}


@dataclass(frozen=True)
class Wrapped:
    """The one convolution of a module, and what the module does around it.

    Arguments:
        path: of the convolution within the module.
        layer: the convolution.
        full: its geometry, the module's own padding counted in.
        kept: the geometry that gives the module's outputs alone; None where none does.
        dropped: outputs that the module drops at the beginning and at the end.
        output: the convolution's own, (C_out, L_out).
    """

    path: str
    layer: Any
    full: Geometry
    kept: Geometry | None
    dropped: tuple[int, int]
    output: Tensor

    @property
    def does_more(self) -> bool:
        """Whether the module does anything around its convolution."""
        return self.full != Geometry.of(self.layer) or any(self.dropped)


def convolutions_of(module: nn.Module) -> list[str]:
    """The paths of the one-dimensional convolutions within a module."""
    return [path for path, part in module.named_modules() if path and isinstance(part, _KINDS)]


def unwrapped(module: nn.Module, signal: Tensor) -> Wrapped | None:
    """What a module does around its one convolution; None where that is more than to pad and to drop outputs.

    The module runs twice, as in evaluation: on numbers drawn at random, which tell samples apart, and on the signal.

    Arguments:
        signal: (C_in, L).
    """
    paths = convolutions_of(module)
    if len(paths) != 1:
        return None
    layer: Any = module.get_submodule(paths[0])
    if signal.ndim != 2 or signal.shape[0] != layer.in_channels:
        return None
    random = torch.randn(signal.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = _run(module, layer, random.to(signal))
    if drawn is None:
        return None
    x, inner, outer, y = random.to(signal), *drawn
    padding = _padding_before(x, inner)
    dropped = _dropped(outer, y)
    if padding is None or dropped is None:
        return None
    left, right, mode = padding
    own = Geometry.of(layer)
    if (left or right) and (own.transposed or (any(own.padding) and own.padding_mode != mode)):
        return None
    full = own
    if left or right:
        full = replace(own, padding=(own.left + left, own.right + right), padding_mode=mode)
    run = _run(module, layer, signal)
    if run is None:
        return None
    # What depends on the values shows on the signal itself.
    n_outputs = run[1].shape[-1]
    kept = run[1][:, dropped[0] : n_outputs - dropped[1]]
    inside = run[0][:, left : left + signal.shape[-1]]
    if not (_equal(kept, run[2]) and _equal(inside, signal) and inside.shape[-1] + left + right == run[0].shape[-1]):
        return None
    return Wrapped(paths[0], layer, full, _without(full, dropped), dropped, run[1])


def _run(module: nn.Module, layer: nn.Module, signal: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """The convolution's input and output and the module's, without the batch; None where it isn't called once."""
    calls: list[tuple[Tensor, Tensor]] = []

    def note(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any], output: Tensor) -> None:
        calls.append(((given[0] if given else named["input"]).clone(), output.clone()))

    hook = layer.register_forward_hook(note, with_kwargs=True)
    try:
        with torch.no_grad(), evaluating(module):
            y = module(signal[None])
    finally:
        hook.remove()
    tensors = [*calls[0], y] if len(calls) == 1 else []
    if not tensors or any(not isinstance(t, Tensor) or t.ndim != 3 or t.shape[0] != 1 for t in tensors):
        return None
    return tensors[0][0], tensors[1][0], tensors[2][0]


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool(((one == other) | (one.isnan() & other.isnan())).all())


def _padding_before(x: Tensor, inner: Tensor) -> tuple[int, int, str] | None:
    """The samples that were put around a signal, and how."""
    more = inner.shape[-1] - x.shape[-1]
    if inner.shape[0] != x.shape[0] or more < 0:
        return None
    for left in range(more + 1):
        if not torch.equal(inner[:, left : left + x.shape[-1]], x):
            continue
        for mode, name in _MODES.items():
            try:
                if torch.equal(functional.pad(x[None], (left, more - left), name)[0], inner):
                    return left, more - left, mode
            except RuntimeError:  # more than the signal has to give
                continue
    return None


def _dropped(outer: Tensor, y: Tensor) -> tuple[int, int] | None:
    """The outputs that were dropped at the beginning and at the end."""
    fewer = outer.shape[-1] - y.shape[-1]
    if outer.shape[0] != y.shape[0] or fewer < 0 or not y.shape[-1]:
        return None
    for first in range(fewer, -1, -1):
        if torch.equal(outer[:, first : first + y.shape[-1]], y):
            return first, fewer - first
    return None


def _without(geometry: Geometry, dropped: tuple[int, int]) -> Geometry | None:
    """The geometry that gives the outputs but those that are dropped; None where its padding would be negative."""
    step = 1 if geometry.transposed else -geometry.stride
    padding = geometry.left + step * dropped[0], geometry.right + step * dropped[1]
    return replace(geometry, padding=padding) if min(padding) >= 0 else None
