"""The model's own run over a full signal, for signals too short to be streamed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from tapwise.evaluation import evaluating
from tapwise.network.graph import Graph


def offline_results(graph: Graph, model: nn.Module, example: Any, signals: Sequence[Tensor]) -> list[Tensor]:
    """By result of the graph, what the model gives for full signals, as in evaluation."""
    inputs = list(example) if isinstance(example, tuple) else [example]
    for place, signal in zip(graph.places, signals, strict=True):
        inputs[place] = signal
    with evaluating(model):
        leaves = pytree.tree_leaves(model(*inputs))
    return [leaf for leaf, out in zip(leaves, graph.outputs, strict=True) if type(out) is int]
