"""StepsBuilder: the steps of a graph, as rules add them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tapwise.engine.kernels.program.record import CODES
from tapwise.frozen.layout import columns_of
from tapwise.frozen.steps import Ref, Step, Steps, TorchStep, Value
from tapwise.network.graph import Graph
from tapwise.network.operations import Fill


class StepsBuilder:
    """Builds the steps of a graph, node by node.

    Arguments:
        is_compiled: whether anything can be compiled here; else all is torch's.
    """

    def __init__(self, graph: Graph, is_compiled: bool) -> None:
        self.graph = graph
        self.steps = Steps()
        # By node, the numbers of a row; None where torch alone holds what it gives.
        self.columns = [columns_of(node) if is_compiled else None for node in graph.nodes]
        for number, node in enumerate(graph.nodes):
            if graph.batches and node.inputs and not node.size.batch:  # one row for all of the batch
                self.columns[number] = None
        # By node, whether its rows begin and end with those of the value in which they lie.
        self._is_complete: list[bool] = []

    def place(self, number: int, ref: Ref | None) -> None:
        """Say where the rows of the next node lie."""
        node = self.graph.nodes[number]
        self.steps.refs[number] = ref
        is_own = ref is not None and self.steps.values[ref.value].node == number
        follows = not isinstance(node.work, Fill) and bool(node.inputs) and self._is_complete[node.inputs[0]]
        self._is_complete.append(is_own or follows)

    def by_torch(self, number: int) -> Ref | None:
        """A step of torch's own."""
        out = None if self.columns[number] is None else self.value(number)
        self.append(TorchStep(number, out))
        return None if out is None else Ref(out)

    def append(self, step: Step | TorchStep) -> None:
        """Add a step, which runs after those before it."""
        self.steps.steps.append(step)

    def value(self, number: int, columns: int | None = None) -> int:
        """A value of a node's rows, of its own columns where none are given."""
        columns = self.columns[number] if columns is None else columns
        assert columns is not None
        self.steps.values.append(Value(number, columns))
        return len(self.steps.values) - 1

    def table(self, number: int, columns: int, is_per_block: bool = False) -> int:
        """A value of numbers that belong to all rows of a node together."""
        self.steps.values.append(Value(number, columns, is_table=True, is_per_block=is_per_block))
        return len(self.steps.values) - 1

    def ref(self, number: int) -> Ref:
        """Where a node's rows lie."""
        found = self.steps.refs[number]
        assert found is not None
        return found

    def add(self, number: int, code: int, x: Ref, **settings: Any) -> Ref:
        """A step that gives the node's rows."""
        out = self.value(number)
        columns = self.steps.values[out].columns
        self.append(Step(code, out, x, columns=columns, **settings))
        return Ref(out)

    def filled(self, ref: Ref, number: int, fill: float | str) -> Ref:
        """The rows of node ``number`` at ``ref``, beyond whose ends something stands: of a copy where something else does."""
        value = self.steps.values[ref.value]
        if self._is_complete[number] and value.fill in (None, fill):
            value.fill = fill
            return ref
        copied = self.add(number, CODES["copy"], ref)
        self.steps.values[copied.value].fill = fill
        return copied


def constant(columns: int, value: float) -> Tensor:
    """A number for each column."""
    return torch.full((columns,), value, dtype=torch.float32, device="cpu")
