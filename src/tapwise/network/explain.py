"""Explain: what a convolution, or each one within a model, does to a signal."""

from __future__ import annotations

from functools import partial
from typing import Any, overload

from torch import nn

from tapwise.engine.threads import leave_lost_pool
from tapwise.explanation.explain import Explanation, is_model
from tapwise.explanation.explain import explain as explain_alone
from tapwise.explanation.model import ModelExplanation, explain_model
from tapwise.explanation.trace import one_signal
from tapwise.explanation.wrapped import convolutions_of
from tapwise.network.inspection import inspect


@overload
def explain(layer: nn.Conv1d | nn.ConvTranspose1d, x: Any) -> Explanation: ...
@overload
def explain(layer: nn.Module, x: Any) -> ModelExplanation: ...
@overload
def explain(layer: Any, x: Any, **options: Any) -> Explanation: ...
def explain(layer: Any, x: Any, **options: Any) -> Explanation | ModelExplanation:
    """What a convolution does to a signal: shapes, geometry, every step, and the plan.

    Of a model that holds convolutions, a ``ModelExplanation``: a table of them, with links to each.

    Arguments:
        layer: a one-dimensional convolution layer, torch's or ours, a module around one, a pooling layer or a
            weight, as for ``trace``; or a model, which is run on ``x``.
        x: one signal: (L,), (C_in, L) or (1, C_in, L).
        options: with a weight: ``stride``, ``padding`` and the like, as for ``trace``.

    Raises:
        ShapeError: a signal that the layer doesn't take, or a batch of several.
        TypeError: something that is no one-dimensional convolution.

    Example:
        >>> import torch, tapwise as tw
        >>> print(tw.explain([1.0, 1.0, 1.0], torch.arange(10.0)).lesson.splitlines()[-1])
        Final : [ 3.  6.  9. 12. 15. 18. 21. 24.]
    """
    leave_lost_pool()
    if isinstance(x, nn.Module):
        raise TypeError(f"x is a {type(x).__name__}: the layer comes first, explain(layer, x)")
    if not is_model(layer, x):
        return explain_alone(layer, x, **options)
    if options:
        raise TypeError(f"{', '.join(options)}: a model's layers have their own settings")
    if not isinstance(x, tuple) and getattr(x, "ndim", 3) < 3 and len(paths := convolutions_of(layer)) == 1:
        weight: Any = layer.get_submodule(paths[0]).weight
        x = one_signal(x, weight)[None]
    return explain_model(layer, x, explain_alone).with_network(partial(_network, layer, x))


def _network(model: nn.Module, x: Any) -> str:
    """The page of the whole network.

    Raises:
        TimelineError: a network that isn't read; its convolutions can be explained all the same.
    """
    return inspect(model, x).page()
