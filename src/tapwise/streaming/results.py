"""Results: what a graph gave, as its model returns it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tapwise.network.graph import Count, Graph
from tapwise.streaming.scheduler import Scheduler, batch_axis


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


def as_batch(
    scheduler: Scheduler, outputs: Sequence[tuple[list[int], list[Tensor]]], seen: Sequence[int], is_end: bool
) -> Any:
    """Parts of slots as one batch, filled with zeros, and the length of each."""
    graph, batch = scheduler.graph, len(seen)
    results, lengths = [], torch.zeros(batch, dtype=torch.int64)
    for place, number in enumerate(graph.results):
        node = graph.nodes[number]
        axis, per_row = batch_axis(node)
        longest = max((parts[place].shape[node.size.time] for _, parts in outputs), default=0)
        result = scheduler.empty(number, batch, longest)
        for slots, parts in outputs:
            length = parts[place].shape[node.size.time]
            rows = torch.tensor([slot * per_row + n for slot in slots for n in range(per_row)])
            target = result.narrow(node.size.time, 0, length)
            target.index_copy_(axis, rows.to(result.device), parts[place])
            if place == 0:
                lengths[slots] = length
        results.append(result)
    return as_returned(graph, results, seen, is_end), lengths
