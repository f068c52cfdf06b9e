"""Results: what a graph gave, as its model returns it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tapwise.network.results import as_returned
from tapwise.streaming.scheduler import Scheduler, batch_axis


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
