"""freeze: a model for inference, prepared once."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

from tapwise.engine.kernels.program import packing, record
from tapwise.frozen.lowering import lowered
from tapwise.frozen.memory import Block
from tapwise.frozen.program import Program
from tapwise.frozen.spans import offline_span, operations_of
from tapwise.network.execution import complete
from tapwise.frozen.rewriting import rewrite
from tapwise.frozen.steps import Step, Steps
from tapwise.network.reading import read
from torch.utils import _pytree as pytree

MOST_PROGRAMS = 16


def pack(steps: Steps) -> None:
    """Pack the weights of all steps."""
    for step in steps.steps:
        if not isinstance(step, Step) or step.source is None:
            continue
        weight, bias = (None if t is None else t.float() for t in step.source)
        assert weight is not None
        columns = step.columns
        if step.code == record.PRODUCT:
            step.weight = packing.packed_groups(weight, step.groups)
            step.bias = packing.packed_bias(bias, columns, step.groups)
        elif step.code == record.DEPTHWISE:
            step.weight, step.bias = packing.packed_depthwise(weight), packing.packed_bias(bias, columns)
        elif step.code == record.FEW_OUTPUTS:
            step.weight = weight.permute(0, 2, 1).contiguous()
            step.bias = torch.zeros(columns) if bias is None else bias.clone()
        elif step.code == record.TRANSPOSED:
            assert step.window is not None
            step.weight = packing.packed_transposed(weight, step.window.stride)
            step.bias = packing.packed_bias(bias, columns)


class Frozen(nn.Module):
    """A network for inference: made by ``tapwise.freeze``."""

    def __init__(self, model: nn.Module, example: Any, time: int | None) -> None:
        super().__init__()
        self.model, self.example, self.time = model, example, time
        self.graph, self.runs = read(model, example, time, is_offline=True)
        self.steps = lowered(self.graph)
        rewrite(self.graph, self.steps)
        pack(self.steps)
        self._operations = operations_of(self.graph)
        self._programs: OrderedDict[tuple[int, int], Program] = OrderedDict()
        self._arena = Block()
        self._lock = Lock()

    def forward(self, *inputs: Tensor) -> Any:
        first = inputs[0]
        node = self.graph.nodes[0]
        batch = first.shape[0] if node.size.batch else 1
        key = batch, first.shape[node.size.time]
        with torch.no_grad(), self._lock:
            program = self._programs.get(key)
            if program is None:
                span = offline_span(self.graph, self._operations, key[1])
                program = self._programs[key] = Program(self.graph, self.steps, span, batch)
                if len(self._programs) > MOST_PROGRAMS:
                    self._programs.popitem(last=False)
            def run_node(number: int, given: list[Tensor]) -> Tensor | None:
                node, part = self.graph.nodes[number], program.span.parts[number]
                axes = [self.graph.nodes[n].size.time for n in node.inputs]
                if part.schedule is None:
                    return complete(self._operations[number], node, given, axes, batch)
                nothing = [x.narrow(axis, 0, 0) for x, axis in zip(given, axes, strict=True)]
                return self._operations[number].run(part.schedule, nothing, given)[0]

            results = program.run(
                [x.narrow(self.graph.nodes[n].size.time, r[0], r[1] - r[0]) for n, (x, r) in enumerate(zip(inputs, program.span.rows))],
                self._arena, None, run_node)
        in_order = iter(results)
        leaves = [next(in_order) if type(out) is int else out[0] for out in self.graph.outputs]
        return pytree.tree_unflatten(leaves, self.graph.spec)


def freeze(model: nn.Module, example: Any, *, time: int | None = None) -> Frozen:
    """A model for inference, prepared once."""
    return Frozen(model, example, time)
