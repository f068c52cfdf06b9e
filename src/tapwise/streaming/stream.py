"""Stream: a model fed chunk by chunk, equal to one run over the full signal."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fractions import Fraction
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from tapwise.network.graph import Count, Graph
from tapwise.network.reading import read
from tapwise.network.receptive_field import extents
from tapwise.streaming import snapshots
from tapwise.streaming.agreement import settle
from tapwise.streaming.checks import check_batch, check_chunks, check_end, check_mask
from tapwise.streaming.fixed_shape import Functional
from tapwise.streaming.offline import offline_results
from tapwise.streaming.scheduler import Group, Scheduler, batch_axis


class Stream:
    """A model as a stream: made by ``tapwise.stream``.

    Chunks go in by ``step``. All outputs of ``step`` and of ``flush``, concatenated, are what the model
    gives for the full signal. Weights are those that the model had when the stream was made,
    where they are computed from others (weight_norm); else the model's own.
    """

    def __init__(self, graph: Graph, likes: Sequence[Tensor], source: tuple[Any, ...] = ()) -> None:
        self._scheduler = Scheduler(graph, likes)
        self._source = source
        if source:
            self._scheduler.model = partial(offline_results, graph, *source[:2])
        self._batch = graph.batch
        self._active: list[bool] | None = None
        self._ragged = False
        self._groups: list[Group] = []

    @property
    def _graph(self) -> Graph:
        return self._scheduler.graph

    # Chunks

    def step(self, chunk: Tensor, *others: Tensor) -> Any:
        """The outputs that a chunk determines, as the model returns them.

        A count of samples that the model returns beside its outputs counts those that are determined.

        Arguments:
            chunk: the model's input for some more samples, any count, 0 included; after ``active``, rows of
                slots that wait are not looked at.
            others: chunks for the same time of the model's further signals, as a mask.

        Returns:
            What the model returns, for the samples that are determined now, perhaps 0. Once some slots were
            reset, flushed or made to wait without the others, a pair: that, as long as the longest
            slot's and filled with zeros, and the length of each slot's part of the first output, (batch,).

        Raises:
            ShapeError: a chunk that doesn't fit the model, or the batch of this stream.
        """
        chunks = (chunk, *others)
        self._check(chunks)
        with torch.no_grad():
            return self._advance(chunks, False, self._active)

    __call__ = step

    def flush(self, mask: Any = None) -> Any:
        """The outputs that only the end of the signal determines; what ended then begins anew.

        Arguments:
            mask: which slots end, (batch,) of bool; None: all. The others go on.

        Raises:
            ShapeError: a signal of a length that the model doesn't take, as it takes multiples alone; the stream
                stays as it was, and says how many samples are missing.
        """
        chosen = None if mask is None else self._mask(mask)
        ending = {slot: n for slot, n in enumerate(self.seen) if chosen is None or chosen[slot]}
        check_end(self._graph, ending, self._batch)
        with torch.no_grad():
            result = self._advance(None, True, chosen)
        self.reset(mask)
        return result

    def reset(self, mask: Any = None, *, batch: int | None = None) -> None:
        """Begin anew: all slots, or those of ``mask`` (batch,), whose signals are given up.

        Arguments:
            batch: rows of the chunks from now on; then all slots begin anew.
        """
        if mask is None or batch is not None:
            if batch is not None:
                check_batch(self._graph, batch)
                self._batch = batch
            self._groups, self._active, self._ragged = [], None, False
            return
        chosen = [n for n, yes in enumerate(self._mask(mask)) if yes]
        self._begin()
        self._ragged = True
        others = [self._scheduler.without(group, chosen) for group in self._groups]
        self._groups = [group for group in others if group is not None]
        if chosen:
            self._groups.append(self._scheduler.begin(chosen))
        self._groups = self._scheduler.merged(self._groups)

    def active(self, mask: Any) -> None:
        """From now on, chunks go to the slots of ``mask`` (batch,) only; the others wait as they are."""
        chosen = self._mask(mask)
        self._active = None if all(chosen) else chosen
        self._ragged = self._ragged or self._active is not None

    # Properties

    @cached_property
    def delay(self) -> int:
        """Samples of the signal that an output waits for after its own moment; 0 for a causal model."""
        by_node = extents(self._graph)
        return max(0, *(by_node[n].latest for n in self._graph.results))

    @property
    def stride(self) -> Fraction:
        """Samples of the signal for each output, exactly."""
        return 1 / self._graph.rates[self._graph.results[0]]

    @property
    def n_signals(self) -> int:
        """Chunks that a step takes: the model's inputs that are signals."""
        return self._graph.n_sources

    @property
    def batch(self) -> int:
        """Rows of a chunk."""
        return self._batch

    @property
    def seen(self) -> tuple[int, ...]:
        """By slot, samples that have come; fewer by full periods for slots that were merged again."""
        seen = [0] * self._batch
        for group in self._groups:
            for slot in group.slots:
                seen[slot] = group.seen
        return tuple(seen)

    @property
    def state_bytes(self) -> int:
        """Bytes that the stream keeps between two chunks."""
        tensors = pytree.tree_leaves([group.buffers for group in self._groups])
        return sum(t.numel() * t.element_size() for t in tensors if isinstance(t, Tensor))

    # Snapshots

    @property
    def state(self) -> dict[str, Any]:
        """A copy of all that the stream remembers: a pytree of tensors, never in a state_dict."""
        active = [True] * self._batch if self._active is None else self._active
        return snapshots.snapshot(self._groups, self._batch, active, self._ragged)

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a snapshot of ``state``, of this stream or of another of the same model.

        Raises:
            ShapeError: a state of another model.
        """
        groups, batch, active, ragged = snapshots.restore(state, self._scheduler)
        self._groups, self._batch, self._ragged = groups, batch, ragged
        self._active = None if all(active) else active

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the state to a ``.safetensors`` file, complete or not at all."""
        snapshots.save(self.state, path)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Go on from a file that ``save`` wrote.

        Raises:
            ShapeError: a file of another model.
        """
        self.load_state(snapshots.load(path))

    def fork(self) -> Stream:
        """Another stream of the same model, which goes on from here by itself."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.load_state(self.state)
        return other

    def __copy__(self) -> Stream:
        return self.fork()

    def __deepcopy__(self, memo: dict[int, Any]) -> Stream:
        return self.fork()

    def __reduce__(self) -> tuple[Any, ...]:
        # A pickle holds the model and reads it anew: a graph's functions are the model's own.
        return _restored, (*self._source, self.state)

    def functional(self, chunk: int) -> Functional:
        """The stream as pure functions of fixed shapes, for ``torch.compile`` and ``torch.export``.

        Arguments:
            chunk: samples of every chunk, a multiple of the model's period (its total stride).

        Returns:
            ``(init_state, step)``: ``init_state(batch)`` is a pytree of tensors, and ``step(chunk, state)``
            gives ``(outputs, state)`` of the same shapes every time. The first ``.lead`` outputs of all
            come before the model's first: leave them out.

        Raises:
            ValueError: a length of chunk that isn't such a multiple.
            TimelineError: an operation that has no form of fixed shapes.
        """
        return Functional.of(self._scheduler, chunk)

    def __repr__(self) -> str:
        n_operations = len(self._graph.nodes) - 1
        return f"Stream({n_operations} operations, batch {self._batch}, seen {self.seen})"

    # Inside

    def _check(self, chunks: Sequence[Any]) -> None:
        graph = self._graph
        if not self._groups and graph.batches and isinstance(chunks[0], Tensor) and chunks[0].ndim:
            self._batch = int(chunks[0].shape[0])  # a new stream takes the batch of its first chunk
        check_chunks(graph, self._scheduler.likes, self._batch, self.seen[0], chunks)

    def _mask(self, mask: Any) -> list[bool]:
        return check_mask(self._scheduler.inseparable, self._batch, mask)

    def _begin(self) -> None:
        if not self._groups:
            self._groups = [self._scheduler.begin(range(self._batch))]

    def _advance(self, chunks: Sequence[Tensor] | None, is_end: bool, chosen: list[bool] | None) -> Any:
        self._begin()
        if not self._ragged and chosen is None:
            (group,) = self._groups
            results = self._scheduler.run(group, chunks, is_end)
            return self._returned(results, [group.seen] * self._batch, is_end)
        if chosen is not None:
            self._groups = self._scheduler.split(self._groups, chosen)
        outputs, seen = [], [0] * self._batch
        for group in self._groups:
            if chosen is None or chosen[group.slots[0]]:
                rows = None if chunks is None else [chunk[group.slots] for chunk in chunks]
                outputs.append((group.slots, self._scheduler.run(group, rows, is_end)))
            for slot in group.slots:
                seen[slot] = group.seen
        if not is_end:
            self._groups = self._scheduler.merged(self._groups)
        return self._as_batch(outputs, seen, is_end)

    def _as_batch(self, outputs: Sequence[tuple[list[int], list[Tensor]]], seen: list[int], is_end: bool) -> Any:
        """Parts of slots as one batch, filled with zeros, and the length of each."""
        results, lengths = [], torch.zeros(self._batch, dtype=torch.int64)
        for place, number in enumerate(self._graph.results):
            node = self._graph.nodes[number]
            axis, per_row = batch_axis(node)
            longest = max((parts[place].shape[node.size.time] for _, parts in outputs), default=0)
            result = self._scheduler.empty(number, self._batch, longest)
            for slots, parts in outputs:
                length = parts[place].shape[node.size.time]
                rows = torch.tensor([slot * per_row + n for slot in slots for n in range(per_row)])
                target = result.narrow(node.size.time, 0, length)
                target.index_copy_(axis, rows.to(result.device), parts[place])
                if place == 0:
                    lengths[slots] = length
            results.append(result)
        return self._returned(results, seen, is_end), lengths

    def _returned(self, results: list[Tensor], seen: list[int], is_end: bool) -> Any:
        """The results as the model returns them.

        Arguments:
            seen: by slot, samples that have come.
        """
        in_order = iter(results)
        leaves = []
        for out in self._graph.outputs:
            if type(out) is int:
                leaves.append(next(in_order))
            elif type(out) is Count:
                leaves.append(self._counted(out, seen, is_end))
            else:
                leaves.append(out[0])
        return pytree.tree_unflatten(leaves, self._graph.spec)

    def _counted(self, out: Count, seen: list[int], is_end: bool) -> Any:
        counts = {n: self._graph.counts(n, is_end)[out.node][0] for n in set(seen)}
        if len(counts) == 1 or not out.is_per_row:
            return out.of(counts[seen[0]], self._batch)
        rows = [out.of(counts[n], 1) for n in seen]
        return torch.cat(rows)


def stream(model: nn.Module, example: Any, *, time: int | None = None) -> Stream:
    """An unmodified model as a stream of chunks, equal to its run over the full signal.

    The model is run some thirty times on random numbers, as in evaluation, and left as it was.

    Arguments:
        model: any module that ``tapwise.inspect`` can read.
        example: a tensor that it takes, or a tuple of its inputs, of which the first is the signal.
        time: the signal's axis of time; None finds it.

    Raises:
        TimelineError: an operation that can't be streamed, by the path of its module, with a remedy.
        StreamMismatchError: an operation whose stream isn't what the model gives: one signal is tried.

    Example:
        >>> import torch, tapwise as tw
        >>> model = torch.nn.Sequential(torch.nn.Conv1d(1, 4, 5, padding=2), torch.nn.ReLU())
        >>> x = torch.randn(1, 1, 100)
        >>> live = tw.stream(model, x)
        >>> parts = [live.step(chunk) for chunk in x.split(7, -1)] + [live.flush()]
        >>> torch.testing.assert_close(torch.cat(parts, -1), model(x))
    """
    graph, runs = read(model, example, time)
    live = Stream(graph, runs.examples, (model, example, time))
    settle(live._scheduler, runs)
    return live


def _restored(model: nn.Module, example: Any, time: int | None, state: dict[str, Any]) -> Stream:
    live = stream(model, example, time=time)
    live.load_state(state)
    return live
