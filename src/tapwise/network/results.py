"""Results: what a graph gave, as its model returns it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tapwise.network.graph import Count, Graph


def as_returned(graph: Graph, results: Sequence[Tensor], seen: Sequence[int], is_end: bool) -> Any:
    """The results in the model's own structure, counts of samples among them.

    Arguments:
        results: by result of the graph.
        seen: by slot, samples that have come.
        is_end: whether no more will.
    """
    in_order = iter(results)
    leaves = []
    for out in graph.outputs:
        if type(out) is int:
            leaves.append(next(in_order))
        elif type(out) is Count:
            leaves.append(_counted(graph, out, seen, is_end))
        else:
            leaves.append(out[0])
    return pytree.tree_unflatten(leaves, graph.spec)


def _counted(graph: Graph, out: Count, seen: Sequence[int], is_end: bool) -> Any:
    counts = {n: graph.counts(n, is_end)[out.node][0] for n in set(seen)}
    if len(counts) == 1 or not out.is_per_row:
        return out.of(counts[seen[0]], len(seen))
    rows = [out.of(counts[n], 1) for n in seen]
    return torch.cat(rows)
