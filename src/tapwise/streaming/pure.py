"""Pure: a stream as functions of fixed shapes, for torch.compile, torch.export and ONNX.

Chunks of a fixed length, a multiple of the model's period, leave every operation where it was, one
chunk further on. So each step does the same: what the stream's engine does once it has settled. What
comes of samples before the first is told apart by its place and set to what padding stands for.

# step k of an operation     outputs [k*n + lead, (k+1)*n + lead)
#   lead < 0: so many come before the first        lead > 0: so many, of padding alone, are known at the start
"""

from __future__ import annotations

import os
from math import ceil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from tapwise.network.graph import Graph, Node
from tapwise.network.operations import Apply, Convolve, Fill, Recur, Reshape, Within
from tapwise.network.timeline import Ends, Windows
from tapwise.streaming import fixed
from tapwise.streaming.engine import Engine
from tapwise.streaming.export import exported, to_onnx
from tapwise.streaming.fixed import Pace

PureState = dict[str, Any]


class Functional(tuple[Any, Any]):
    """``(init_state, step)``, and ``lead``: outputs of the first steps that come before the model's first.

    Where the model returns several tensors, ``leads`` has the number for each; ``lead`` is the first's.

    Example:
        >>> import torch, tapwise as tw
        >>> model, x = torch.nn.Conv1d(1, 2, 3, padding=1), torch.randn(1, 1, 12)
        >>> pure = tw.stream(model, x).functional(chunk=4)
        >>> init_state, step = pure
        >>> state, parts = init_state(1), []
        >>> for chunk in x.split(4, -1):
        ...     y, state = step(chunk, state)
        ...     parts.append(y)
        >>> torch.allclose(torch.cat(parts, -1)[..., pure.lead :], model(x)[..., :11], atol=1e-6)
        True
    """

    lead: int
    leads: tuple[int, ...]
    _steps: _Steps

    def example(self, batch: int = 1) -> Tensor:
        """Zeros of the size of a chunk."""
        return self._steps.engine.empty(0, batch, self._steps.paces[0].many)

    def export(self, batch: int = 1) -> Any:
        """The step as a ``torch.export`` program: ``(chunk, *state)`` in, ``(*outputs, *state)`` out."""
        return exported(self, batch)

    def to_onnx(self, path: str | os.PathLike[str], batch: int = 1) -> Path:
        """Write the step as an ONNX file: inputs ``chunk``, ``state0``, ..., outputs ``output0``, ...,
        ``next0``, ..., which are the state of the next step.

        Raises:
            ModuleNotFoundError: without onnx and onnxscript: pip install 'tapwise[onnx]'.
        """
        return to_onnx(self, path, batch)

    @classmethod
    def of(cls, engine: Engine, chunk: int) -> Functional:
        """The functions of an engine's graph."""
        steps = _Steps(engine, chunk)
        pair = cls((steps.init_state, steps.step))
        pair._steps = steps
        pair.leads = tuple(-min(0, steps.paces[n].lead) for n in engine.graph.results)
        pair.lead = pair.leads[0]
        return pair


class _Steps:
    def __init__(self, engine: Engine, chunk: int) -> None:
        graph = engine.graph
        if chunk < 1 or chunk % graph.period:
            raise ValueError(
                f"chunk must be a multiple of {graph.period}, the model's period in samples, got {chunk}"
            )
        self.engine = engine
        self.keys = [str(n) for n in graph.results]  # made here: a compiler can't
        # Far from the beginning, even where what waits for its moment adds up.
        settled = -(-(64 * graph.settled + _reach(graph)) // chunk) * chunk
        at = graph.counts(settled)
        self.paces: list[Pace] = []
        self.runs: list[fixed.Run | None] = []
        for number, node in enumerate(graph.nodes):
            rate = graph.rates[number]
            lead = 0
            if node.inputs:
                # Outputs that are determined when every input stands at its own lead.
                known = min(int(settled * graph.rates[n]) + self.paces[n].lead for n in node.inputs)
                known = min(known, *(at[n][0] for n in node.inputs))
                fixed_now = at[number][0]
                if node.reference is None:
                    certain = max(at[n][1] for n in node.inputs)
                    fixed_now = node.timeline.determined(known, certain)
                elif isinstance(node.timeline, Ends):
                    fixed_now = min(fixed_now, known + node.timeline.left)
                lead = fixed_now - int(settled * rate)
            if isinstance(node.timeline, Ends) and node.timeline.padding_mode != "zeros":
                lead = min(lead, 0)  # what copies samples can't stand before them
            self.paces.append(Pace(int(chunk * rate), lead, node.size.time))
            self.runs.append(self._run(number, node) if node.inputs else None)

    def _run(self, number: int, node: Node) -> fixed.Run:
        came, pace = [self.paces[n] for n in node.inputs], self.paces[number]
        if isinstance(node.work, Apply | Reshape):
            return fixed.aligned(node, came, pace)
        if isinstance(node.work, Convolve) and _transposed(node):
            return fixed.transposed(node, came[0], pace)
        if isinstance(node.work, Convolve | Within):
            return fixed.windows(node, came[0], pace)
        if isinstance(node.work, Fill):
            return fixed.ends(node, came[0], pace)
        if isinstance(node.work, Recur):
            return fixed.recurrence(node, came[0], pace)
        raise fixed.refuse(node, "is registered with a step of its own, whose shapes may vary")

    # The functions

    def init_state(self, batch: int = 1) -> PureState:
        """The state before the first chunk: a pytree of tensors."""
        engine = self.engine
        with torch.no_grad():
            known = self._known_at_start(batch)
            states = {
                str(number): held
                for number, node in enumerate(engine.graph.nodes)
                if node.inputs and (held := self._held(number, node, batch, known))
            }
        results = {
            str(n): known[n] for n in engine.graph.results if self.paces[n].lead > 0
        }  # given first
        steps = torch.zeros((), dtype=torch.int64, device=engine.like.device)
        return {"steps": steps, "states": states, "results": results}

    def _known_at_start(self, batch: int) -> dict[int, Tensor]:
        """By node, the outputs that padding alone determines."""
        engine, parts = self.engine, {}
        nodes = engine.graph.nodes
        ahead = {n for n, pace in enumerate(self.paces) if pace.lead > 0}
        if ahead:
            found: dict[int, Tensor] = {}
            before, engine.watch = engine.watch, found.__setitem__
            try:
                group = engine.begin(range(batch))
                engine.run(group, engine.empty(0, batch, engine.graph.settled), False)
            finally:
                engine.watch = before
            for n in ahead:
                parts[n] = found[n].narrow(nodes[n].size.time, 0, self.paces[n].lead)
        return parts

    def _before(
        self, source: int, first: int, fill: float, batch: int, known: dict[int, Tensor]
    ) -> list[Tensor]:
        """The outputs of ``source`` from ``first`` up to its lead, as they are kept at the start."""
        lead, axis = self.paces[source].lead, self.engine.graph.nodes[source].size.time
        if first >= lead:
            return []
        none = torch.full_like(self.engine.empty(source, batch, max(min(lead, 0) - first, 0)), fill)
        if lead <= 0:
            return [none]
        start = max(first, 0)
        return [torch.cat((none, known[source].narrow(axis, start, lead - start)), axis)]

    def _held(self, number: int, node: Node, batch: int, known: dict[int, Tensor]) -> list[Tensor]:
        """What an operation keeps before the first chunk."""
        pace, work = self.paces[number], node.work
        source = node.inputs[0]
        came = self.paces[source]
        if isinstance(work, Recur):
            state = work.start(batch)
            return work(known[source], state)[1] if came.lead > 0 else state
        if isinstance(work, Apply | Reshape):
            every = [self._before(n, pace.lead, 0.0, batch, known) for n in node.inputs]
            return [kept for one in every for kept in one]
        if isinstance(work, Fill):
            assert isinstance(node.timeline, Ends)
            return self._before(source, pace.lead - node.timeline.left, work.value, batch, known)
        if isinstance(work, Convolve) and _transposed(node):
            return [self._sums(number, node, batch, known)]
        keep, _ = fixed.window(node, came, pace)
        fill = work.fill if isinstance(work, Within) else 0.0
        return self._before(source, came.lead - keep, fill, batch, known)

    def _sums(self, number: int, node: Node, batch: int, known: dict[int, Tensor]) -> Tensor:
        """What a transposed convolution keeps: what inputs known at the start add, then zeros."""
        assert isinstance(node.timeline, Windows)
        assert isinstance(node.work, Convolve)
        work, pace, came = node.work, self.paces[number], self.paces[node.inputs[0]]
        g, _, _, kept = fixed.sums_kept(node, came, pace)
        begin = node.timeline.geometry.left + pace.lead
        sums = work.weight.new_zeros(self.engine.empty(number, batch, kept).shape)
        if came.lead > 0:
            x = known[node.inputs[0]]
            full = F.conv_transpose1d(x, work.weight, None, g.stride, 0, 0, g.groups, g.dilation)
            part = full[..., begin : begin + kept]
            sums[..., : part.shape[-1]] = part
        return sums

    def step(self, chunk: Tensor, state: PureState) -> tuple[Any, PureState]:
        """The outputs of a chunk, and the state after it."""
        graph = self.engine.graph
        steps, chunks = state["steps"], [chunk]
        states: dict[str, list[Tensor]] = {}
        for number, node in enumerate(graph.nodes):
            if not node.inputs:
                continue
            held = state["states"].get(str(number), [])
            run = self.runs[number]
            assert run is not None
            y, after = run([chunks[n] for n in node.inputs], steps, held)
            chunks.append(y)
            if held:
                states[str(number)] = after
        results, given = {}, []
        for n, key in zip(graph.results, self.keys, strict=True):
            y = chunks[n]
            if key in state["results"]:
                axis, many = graph.nodes[n].size.time, self.paces[n].many
                y = torch.cat((state["results"][key], y), axis)
                results[key] = y.narrow(axis, many, y.shape[axis] - many)
                y = y.narrow(axis, 0, many)
            given.append(y)
        places = iter(given)
        leaves = [next(places) if type(out) is int else out[0] for out in graph.outputs]
        after_all = {"steps": steps + 1, "states": states, "results": results}
        return pytree.tree_unflatten(leaves, graph.spec), after_all


def _reach(graph: Graph) -> int:
    """Samples of the signal that all windows and paddings together reach over, at most."""
    total = 0
    for node in graph.nodes[1:]:
        own = 0
        if isinstance(node.timeline, Windows):
            own = node.timeline.geometry.effective_kernel_size + node.timeline.geometry.left
        elif isinstance(node.timeline, Ends):
            own = abs(node.timeline.left)
        total += ceil(own / graph.rates[node.inputs[0]])
    return total


def _transposed(node: Node) -> bool:
    return isinstance(node.timeline, Windows) and node.timeline.geometry.transposed
