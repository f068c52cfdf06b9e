"""A stream as functions of fixed shapes, for torch.compile, torch.export and ONNX.

Chunks of a fixed length, a multiple of the model's period, leave every operation where it was, one
chunk further on. So each step does the same: what the stream does once it has settled. Samples before the
first are recognised by their position and replaced by what padding stands for.

# step k of an operation     outputs [k*n + lead, (k+1)*n + lead)
#   lead < 0: -lead of them come before the first
#   lead > 0: lead of them depend on padding alone and are computed at the start
"""

from __future__ import annotations

import os
from copy import copy
from math import ceil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tapwise.errors import ShapeError, TimelineError
from tapwise.network.graph import Count, Graph, Node
from tapwise.network.operations import Accumulate, Apply, Convolve, Fill, Recur, Reshape, Within
from tapwise.network.timeline import Ends, Windows
from tapwise.padding import integer
from tapwise.streaming import fixed_operations as fixed
from tapwise.streaming.export import StepModule, shapes_of_any_batch, write_onnx
from tapwise.streaming.fixed_operations import Pace
from tapwise.streaming.scheduler import Scheduler

FixedState = dict[str, Any]


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
        return self._steps.scheduler.empty(0, batch, self._steps.paces[0].n_outputs)

    def export(self, batch: int = 1) -> Any:
        """The step as a ``torch.export`` program: ``(chunk, *state)`` in, ``(*outputs, *state)`` out."""
        return self._module(batch).exported()

    def to_onnx(
        self, path: str | os.PathLike[str], batch: int = 1, *, opset: int | None = None, dynamic_batch: bool = False
    ) -> Path:
        """Write the step as an ONNX file: inputs ``chunk``, ``state0``, ..., outputs ``output0``, ...,
        ``next0``, ..., which are the state of the next step.

        ``initial_inputs`` gives the first state by these names, and ``print(functional)`` says what each is.

        Arguments:
            batch: rows of a chunk.
            opset: of ONNX; None: torch's default.
            dynamic_batch: leave the batch open; then it is given with each run.

        Raises:
            MissingPackageError: without onnx and onnxscript: pip install 'tapwise[onnx]'.
            ValueError: an open batch of a model that was read at one batch only, or of which torch can't leave it open.
        """
        if not dynamic_batch:
            return write_onnx(self._module(batch), path, opset)
        if not self._steps.scheduler.graph.batches:
            raise ValueError("the model was read at one batch only, since what it does depends on the batch")
        two, three = ((self.example(n), *pytree.tree_leaves(self[0](n))) for n in (2, 3))
        try:
            return write_onnx(self._module(2), path, opset, shapes_of_any_batch(two, three))
        except (torch.onnx.OnnxExporterError, TypeError) as error:  # what the exporter and its dimensions raise
            raise ValueError(
                "torch's exporter can't leave the batch of this model open: export it with batch=n, a file for each n"
            ) from error

    def initial_inputs(self, batch: int = 1) -> dict[str, Any]:
        """The state before the first chunk, as NumPy arrays by the names that ``to_onnx`` gives its inputs.

        Example:
            >>> import torch, tapwise as tw
            >>> pure = tw.stream(torch.nn.Conv1d(1, 2, 3), torch.zeros(1, 1, 40)).functional(chunk=4)
            >>> {name: value.shape for name, value in pure.initial_inputs().items()}
            {'state0': (), 'state1': (1, 1, 2)}
        """
        return {f"state{n}": leaf.numpy(force=True) for n, leaf in enumerate(pytree.tree_leaves(self[0](batch)))}

    def __repr__(self) -> str:
        graph = self._steps.scheduler.graph
        names = [("chunk", self.example(), f"{self._steps.paces[0].n_outputs} samples")]
        for n, (path, leaf) in enumerate(pytree.tree_flatten_with_path(self[0](1))[0]):
            keys = [str(getattr(key, "key", "")) for key in path]
            if keys[0] == "steps":
                words = "steps so far"
            elif keys[0] == "states":
                words = f"what {graph.nodes[int(keys[1])].where} keeps"
            else:
                words = f"outputs of {graph.nodes[int(keys[1])].where} that are returned next"
            names.append((f"state{n}", leaf, words))
        for n, number in enumerate(graph.results):
            words = f"the first {self.leads[n]} of all come before the model's first" if self.leads[n] else ""
            length = self._steps.paces[number].n_outputs
            names.append((f"output{n}", self._steps.scheduler.empty(number, graph.batch, length), words))
        rows = [
            f"  {name:<8} {str(leaf.dtype).removeprefix('torch.'):<8} {tuple(leaf.shape)!s:<14} {words}".rstrip()
            for name, leaf, words in names
        ]
        return "\n".join(["(init_state, step) of fixed shapes, for a batch of 1", *rows])

    def _module(self, batch: int) -> StepModule:
        return StepModule(self[1], self[0](batch), self.example(batch))

    @classmethod
    def of(cls, scheduler: Scheduler, chunk: int) -> Functional:
        """The functions of a scheduler's graph."""
        steps = _Steps(scheduler, chunk)
        pair = cls((steps.init_state, steps.step))
        pair._steps = steps
        pair.leads = tuple(-min(0, steps.paces[n].lead) for n in scheduler.graph.results)
        pair.lead = pair.leads[0]
        return pair


class _Steps:
    def __init__(self, scheduler: Scheduler, chunk: int) -> None:
        graph = scheduler.graph
        if graph.n_sources > 1:
            raise TimelineError("has several signals", "", "input", "use the stream itself, by step and flush")
        if any(type(out) is Count for out in graph.outputs):
            raise TimelineError(
                "returns a count of samples, which a program of fixed shapes can't know",
                "",
                "output",
                "return sequences alone, from a small module around the model",
            )
        chunk = integer("chunk", chunk)
        if chunk < 1 or chunk % graph.period:
            raise ValueError(
                f"chunk must be a multiple of {graph.period}, the model's period in samples, and at least that, got {chunk}"
            )
        self.scheduler = scheduler
        self.keys = [str(n) for n in graph.results]  # made here: a compiler can't
        # Far from the beginning, even where what waits for its moment adds up.
        settled = -(-(64 * graph.settled + _total_span(graph)) // chunk) * chunk
        at = graph.counts(settled)
        self.paces: list[Pace] = []
        self.runs: list[fixed.Run | None] = []
        for number, node in enumerate(graph.nodes):
            rate = graph.rates[number]
            lead = 0
            if node.inputs:
                # Outputs that are determined when every input stands at its own lead.
                seen = min(int(settled * graph.rates[n]) + self.paces[n].lead for n in node.inputs)
                seen = min(seen, *(at[n][0] for n in node.inputs))
                determined = at[number][0]
                if node.reference is None:
                    certain = max(at[n][1] for n in node.inputs)
                    determined = node.timeline.determined(seen, certain)
                elif isinstance(node.timeline, Ends):
                    determined = min(determined, seen + node.timeline.left)
                lead = determined - int(settled * rate)
            if isinstance(node.timeline, Ends) and node.timeline.padding_mode != "zeros":
                lead = min(lead, 0)  # copies of samples can't come before the samples
            if isinstance(node.work, Recur | Accumulate) and lead < 0:
                lead = lead // int(chunk * rate) * int(chunk * rate)  # a step is all before the first, or none
            self.paces.append(Pace(int(chunk * rate), lead, node.size.time))
            self.runs.append(self._run(number, node) if node.inputs else None)

    def _run(self, number: int, node: Node) -> fixed.Run:
        sources, pace = [self.paces[n] for n in node.inputs], self.paces[number]
        if isinstance(node.work, Apply | Reshape):
            return fixed.pointwise(node, sources, pace)
        if isinstance(node.work, Convolve | Within):
            return fixed.windows(node, sources[0], pace)
        if isinstance(node.work, Fill):
            return fixed.padding(node, sources[0], pace)
        if isinstance(node.work, Recur | Accumulate):
            return fixed.recurrence(node, sources[0], pace)
        raise fixed.refuse(node, "is registered with a step of its own, whose shapes may vary")

    # The functions

    def init_state(self, batch: int = 1) -> FixedState:
        """The state before the first chunk: a pytree of tensors."""
        scheduler = self.scheduler
        with torch.no_grad():
            outputs = self._outputs_at_start(batch)
            states = {
                str(number): history
                for number, node in enumerate(scheduler.graph.nodes)
                if node.inputs and (history := self._history(node, self.paces[number], batch, outputs))
            }
        results = {str(n): outputs[n] for n in scheduler.graph.results if self.paces[n].lead > 0}  # returned first
        steps = torch.zeros((), dtype=torch.int64, device=scheduler.like.device)
        return {"steps": steps, "states": states, "results": results}

    def _outputs_at_start(self, batch: int) -> dict[int, Tensor]:
        """By node, the outputs that padding alone determines."""
        scheduler, parts = self.scheduler, {}
        nodes = scheduler.graph.nodes
        ahead = {n for n, pace in enumerate(self.paces) if pace.lead > 0}
        if ahead:
            watched: dict[int, Tensor] = {}
            watching = copy(scheduler)  # a stream may run the other meanwhile
            watching.watch = watched.__setitem__
            watching.run(watching.begin(range(batch)), watching.zeros(batch, scheduler.graph.settled), False)
            for n in ahead:
                parts[n] = watched[n].narrow(nodes[n].size.time, 0, self.paces[n].lead)
        return parts

    def _before(self, source: int, first: int, fill: float, batch: int, outputs: dict[int, Tensor]) -> list[Tensor]:
        """The outputs of ``source`` from ``first`` up to its lead, as the history at the start."""
        lead, axis = self.paces[source].lead, self.scheduler.graph.nodes[source].size.time
        if first >= lead:
            return []
        length = max(min(lead, 0) - first, 0)
        filled = torch.full_like(self.scheduler.empty(source, batch, length), fill)
        if lead <= 0:
            return [filled]
        start = max(first, 0)
        return [torch.cat((filled, outputs[source].narrow(axis, start, lead - start)), axis)]

    def _history(self, node: Node, pace: Pace, batch: int, outputs: dict[int, Tensor]) -> list[Tensor]:
        """What an operation remembers before the first chunk."""
        work, source = node.work, node.inputs[0]
        lead = self.paces[source].lead
        if isinstance(work, Recur | Accumulate):
            empty = self.scheduler.empty(source, batch)
            state = work.start(batch) if isinstance(work, Recur) else work.start(empty)
            state = work(outputs[source], state)[1] if lead > 0 else state
            return [*state, *self._before(source, pace.lead, 0.0, batch, outputs)]
        if isinstance(work, Apply | Reshape):
            waiting = [self._before(n, pace.lead, 0.0, batch, outputs) for n in node.inputs]
            return [history for one in waiting for history in one]
        if isinstance(work, Fill):
            assert isinstance(node.timeline, Ends)
            first = pace.lead - node.timeline.left
            return self._before(source, first, work.value, batch, outputs)
        keep, _ = fixed.kept_and_skipped(node, self.paces[source], pace)
        fill = work.fill if isinstance(work, Within) else 0.0
        return self._before(source, lead - keep, fill, batch, outputs)

    def step(self, chunk: Tensor, state: FixedState) -> tuple[Any, FixedState]:
        """The outputs of a chunk, and the state after it."""
        graph = self.scheduler.graph
        if not torch.compiler.is_compiling():
            self.scheduler.check_model()
            self._check(chunk, state)
        steps, chunks = state["steps"], [chunk]
        states: dict[str, list[Tensor]] = {}
        for number, node in enumerate(graph.nodes):
            if not node.inputs:
                continue
            history = state["states"].get(str(number), [])
            run = self.runs[number]
            assert run is not None
            y, after = run([chunks[n] for n in node.inputs], steps, history)
            chunks.append(y)
            if history:
                states[str(number)] = after
        results, returned = {}, []
        for n, key in zip(graph.results, self.keys, strict=True):
            y = chunks[n]
            if key in state["results"]:
                axis, count = graph.nodes[n].size.time, self.paces[n].n_outputs
                y = torch.cat((state["results"][key], y), axis)
                results[key] = y.narrow(axis, count, y.shape[axis] - count)
                y = y.narrow(axis, 0, count)
            returned.append(y)
        results_in_order = iter(returned)
        leaves = [next(results_in_order) if type(out) is int else out[0] for out in graph.outputs]
        after_all = {"steps": steps + 1, "states": states, "results": results}
        return pytree.tree_unflatten(leaves, graph.spec), after_all

    def _check(self, chunk: Any, state: Any) -> None:
        """Refuse a chunk of another length, and what ``init_state`` or ``step`` didn't give."""
        node, length = self.scheduler.graph.nodes[0], self.paces[0].n_outputs
        axis = node.size.time
        if not isinstance(chunk, Tensor):
            raise TypeError(f"chunk must be a torch.Tensor, got {type(chunk).__name__}")
        if chunk.ndim != len(node.size.entries) or chunk.shape[axis] != length:
            raise ShapeError(
                "the chunk is not of the length that the functions were made for",
                got=f"a chunk of size {list(chunk.shape)}",
                expected=f"{length} samples on axis {axis}",
                fix="functional(chunk=n) makes functions for chunks of n",
            )
        names = {"steps", "states", "results"}
        steps = state.get("steps") if isinstance(state, dict) else None
        if not isinstance(state, dict) or state.keys() != names or not isinstance(steps, Tensor):
            raise ShapeError(
                "the state is not one that these functions gave",
                got=f"{type(state).__name__} of {sorted(state)}" if isinstance(state, dict) else type(state).__name__,
                expected="what init_state(batch) or the step before gave",
            )


def _total_span(graph: Graph) -> int:
    """Samples of the signal that all windows and paddings together span, at most."""
    total = 0
    for node in graph.nodes[1:]:
        own = 0
        if isinstance(node.timeline, Windows):
            own = node.timeline.geometry.effective_kernel_size + node.timeline.geometry.left
        elif isinstance(node.timeline, Ends):
            own = abs(node.timeline.left)
        total += ceil(own / graph.rates[node.inputs[0]])
    return total
