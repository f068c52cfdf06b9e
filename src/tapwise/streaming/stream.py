"""Stream: a model fed chunk by chunk, equal to one run over the full signal."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from tapwise.engine.threads import leave_lost_pool
from tapwise.frozen.network import Frozen
from tapwise.network.graph import Graph
from tapwise.network.reading import read
from tapwise.network.receptive_field import extents
from tapwise.network.results import as_returned
from tapwise.padding import integer
from tapwise.streaming import snapshots
from tapwise.streaming.agreement import check_results, settle
from tapwise.streaming.checks import check_batch, check_chunks, check_end, check_mask
from tapwise.streaming.fixed_shape import Functional
from tapwise.streaming.frozen_scheduler import FrozenScheduler
from tapwise.streaming.model_check import ModelCheck
from tapwise.streaming.offline import offline_results
from tapwise.streaming.position import Position
from tapwise.streaming.results import as_batch
from tapwise.streaming.scheduler import Group, Scheduler
from tapwise.streaming.turn import Turn


class Stream:
    """A model as a stream: made by ``tapwise.stream``.

    Chunks go in by ``step``. All outputs of ``step`` and of ``flush``, concatenated, are what the model
    gives for the full signal.

    A stream runs the model's own parameters: what changes them in place, as an optimizer does, is followed. A
    parameter or a module that was replaced, and a change of numbers from which others were computed when the
    stream was made (weight_norm), raise ``ModelChangedError``. The rest of the model, as a layer's stride,
    counts as it was then, and evaluation (``eval()``) is what runs.

    A step that fails, or is interrupted, changes nothing. One thread at a time: a second one that calls a stream
    at work gets a RuntimeError. ``fork()`` gives each thread a stream of its own.
    """

    def __init__(
        self,
        graph: Graph,
        likes: Sequence[Tensor],
        source: tuple[Any, ...] = (),
        check_model: Callable[[], None] = lambda: None,
    ) -> None:
        self._scheduler = Scheduler(graph, likes)
        self._scheduler.check_model = check_model
        self._source = source
        if source:
            self._scheduler.model = partial(offline_results, graph, *source[:2])
        self._turn = Turn()
        self._at = Position((), graph.batch)

    @property
    def graph(self) -> Graph:
        """The model as operations with timelines, which the stream runs."""
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
            ModelChangedError: a model that was changed in a way that can't be followed.
            RuntimeError: another thread is at work on this stream.
        """
        chunks = (chunk, *others)
        with self._turn, torch.no_grad():
            at = self._checked(chunks)
            result, self._at = self._advanced(at, chunks, False, at.active)
        return result

    __call__ = step

    def flush(self, mask: Any = None) -> Any:
        """The outputs that only the end of the signal determines; what ended then begins anew.

        Arguments:
            mask: which slots end, (batch,) of bool; None: all. The others go on.

        Raises:
            ShapeError: a signal of a length that the model doesn't take, as it takes multiples alone; the stream
                stays as it was, and says how many samples are missing.
        """
        with self._turn, torch.no_grad():
            chosen = None if mask is None else self._mask(mask)
            ending = {slot: n for slot, n in enumerate(self.seen) if chosen is None or chosen[slot]}
            check_end(self.graph, ending, self.batch)
            leave_lost_pool()
            self._scheduler.check_model()
            result, at = self._advanced(self._at, None, True, chosen)
            self._at = self._begun_anew(at, chosen)
        return result

    def reset(self, mask: Any = None, *, batch: int | None = None) -> None:
        """Begin anew: all slots, or those of ``mask`` (batch,), whose signals are given up.

        Arguments:
            batch: rows of the chunks from now on; then all slots begin anew.
        """
        with self._turn:
            if batch is not None:
                check_batch(self.graph, batch)
                self._at = Position((), batch)
            else:
                self._at = self._begun_anew(self._at, None if mask is None else self._mask(mask))

    def active(self, mask: Any) -> None:
        """From now on, chunks go to the slots of ``mask`` (batch,) only; the others wait as they are."""
        with self._turn:
            chosen = self._mask(mask)
            active = None if all(chosen) else tuple(chosen)
            self._at = replace(self._at, active=active, ragged=self._at.ragged or active is not None)

    # Properties

    @cached_property
    def delay(self) -> int:
        """Samples of the signal that an output waits for after its own moment; 0 for a causal model."""
        by_node = extents(self.graph)
        return max(0, *(by_node[n].latest for n in self.graph.results))

    @property
    def stride(self) -> Fraction:
        """Samples of the signal for each output, exactly."""
        return 1 / self.graph.rates[self.graph.results[0]]

    def output_length(self, length: int) -> int:
        """Outputs, of the first that the model returns, that a full signal of ``length`` samples gives.

        Raises:
            ShapeError: a length that the model doesn't take.
        """
        length = integer("length", length)
        if length < 0:
            raise ValueError(f"length must be at least 0, got {length}")
        check_end(self.graph, {0: length}, 1)
        with torch.no_grad():
            return self._scheduler.output_length(length)

    def missing(self, length: int) -> int:
        """Samples without which the model takes no signal of ``length``: 0 but for models that take multiples alone."""
        return self.graph.missing(integer("length", length)) if length else 0

    @property
    def n_signals(self) -> int:
        """Chunks that a step takes: the model's inputs that are signals."""
        return self.graph.n_sources

    @property
    def time_axes(self) -> tuple[int, int]:
        """The axis of time of the chunks, and of the first output."""
        nodes = self.graph.nodes
        return nodes[0].size.time, nodes[self.graph.results[0]].size.model_time

    @property
    def rows_are_independent(self) -> bool:
        """Whether no row of a batch changes anything of another."""
        return self._scheduler.inseparable is None

    @property
    def batch(self) -> int:
        """Rows of a chunk."""
        return self._at.batch

    @property
    def seen(self) -> tuple[int, ...]:
        """By slot, samples that have come; fewer by full periods for slots that were merged again."""
        at = self._at
        seen = [0] * at.batch
        for group in at.groups:
            for slot in group.slots:
                seen[slot] = group.seen
        return tuple(seen)

    @property
    def state_bytes(self) -> int:
        """Bytes that the stream keeps between two chunks."""
        tensors = pytree.tree_leaves([group.buffers for group in self._at.groups])
        return sum(t.numel() * t.element_size() for t in tensors if isinstance(t, Tensor))

    # Snapshots

    @property
    def state(self) -> dict[str, Any]:
        """A copy of all that the stream remembers: a pytree of tensors, never in a state_dict."""
        at = self._at  # a step replaces it and changes nothing in it: any thread may read it
        active = [True] * at.batch if at.active is None else list(at.active)
        return snapshots.snapshot(at.groups, at.batch, active, at.ragged)

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a snapshot of ``state``, of this stream or of another of the same model.

        Raises:
            ShapeError: a state of another model, or one that is none; the stream stays as it was.
        """
        with self._turn:
            groups, batch, active, ragged = snapshots.restore(state, self._scheduler)
            self._at = Position(tuple(groups), batch, None if all(active) else tuple(active), ragged)

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
        other._turn = Turn()
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
        title = f"{type(self._source[0]).__name__}, " if self._source else ""
        n_operations = len(self.graph.nodes) - self.n_signals
        seen = self.seen[0] if len(set(self.seen)) == 1 else self.seen
        return (
            f"Stream({title}{n_operations} operations; batch {self.batch}, {seen} samples seen; delay {self.delay}, "
            f"stride {self.stride}, {self.state_bytes:,} bytes kept)"
        )

    # Inside

    def _checked(self, chunks: Sequence[Any]) -> Position:
        """Where the stream stands before the chunks; refuse those that don't fit, and a changed model."""
        leave_lost_pool()
        graph, at = self.graph, self._at
        first, axes = chunks[0], len(graph.nodes[0].size.entries)
        if not at.groups and graph.batches and isinstance(first, Tensor) and first.ndim == axes > 0:
            at = replace(at, batch=int(chunks[0].shape[0]))  # a new stream takes the batch of its first chunk
        seen = at.groups[0].seen if at.groups else 0
        check_chunks(graph, self._scheduler.likes, at.batch, seen, chunks)
        self._scheduler.check_model()
        return at

    def _mask(self, mask: Any) -> list[bool]:
        return check_mask(self._scheduler.inseparable, self.batch, mask)

    def _begun(self, at: Position) -> tuple[Group, ...]:
        return at.groups or (self._scheduler.begin(range(at.batch)),)

    def _begun_anew(self, at: Position, chosen: list[bool] | None) -> Position:
        """The position with the chosen slots before their first chunk; with None, all."""
        if chosen is None:
            return Position((), at.batch)
        slots = [n for n, yes in enumerate(chosen) if yes]
        others = [self._scheduler.without(group, slots) for group in self._begun(at)]
        groups = [group for group in others if group is not None]
        if slots:
            groups.append(self._scheduler.begin(slots))
        return replace(at, groups=tuple(self._scheduler.merged(groups)), ragged=True)

    def _advanced(
        self, at: Position, chunks: Sequence[Tensor] | None, is_end: bool, chosen: Sequence[bool] | None
    ) -> tuple[Any, Position]:
        """What the chosen slots give, all for None, and where the stream then stands."""
        groups = self._begun(at)
        if not at.ragged and chosen is None:
            results, group = self._scheduler.run(groups[0], chunks, is_end)
            return as_returned(self.graph, results, [group.seen] * at.batch, is_end), replace(at, groups=(group,))
        if chosen is not None:
            groups = tuple(self._scheduler.split(groups, chosen))
        outputs, after, seen = [], [], [0] * at.batch
        for before in groups:
            group = before
            if chosen is None or chosen[group.slots[0]]:
                rows = None if chunks is None else [chunk[group.slots] for chunk in chunks]
                results, group = self._scheduler.run(group, rows, is_end)
                outputs.append((group.slots, results))
            after.append(group)
            for slot in group.slots:
                seen[slot] = group.seen
        if not is_end:
            after = self._scheduler.merged(after)
        return as_batch(self._scheduler, outputs, seen, is_end), replace(at, groups=tuple(after))


def stream(model: nn.Module, example: Any = None, *, time: int | None = None) -> Stream:
    """An unmodified model as a stream of chunks, equal to its run over the full signal.

    The model is run some thirty times on random numbers, as in evaluation, and left as it was.

    Arguments:
        model: any module that ``tapwise.inspect`` can read; or what ``tapwise.freeze`` made of one, whose steps take
            a fraction of the time and which needs no example.
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
    if isinstance(model, Frozen):
        return _frozen_stream(model)
    graph, runs = read(model, example, time)
    check = ModelCheck(model, runs.run(runs.signals(runs.shortest())))
    live = Stream(graph, runs.examples, (model, example, time), check)
    settle(live._scheduler, runs)
    return live


def _frozen_stream(frozen: Frozen) -> Stream:
    """A stream of a frozen network's programs, after operations and programs were held against the model."""
    graph, runs = frozen.graph, frozen.runs
    live = Stream(graph, runs.examples, (frozen, None, None))
    scheduler = FrozenScheduler(graph, runs.examples, frozen.steps)
    settle(live._scheduler, runs)
    scheduler.holds_from(live.graph.shortest)
    scheduler.model = partial(offline_results, graph, frozen.model, frozen.example)
    live._scheduler = scheduler
    check_results(scheduler, runs, frozen.allowed)
    return live


def _restored(model: nn.Module, example: Any, time: int | None, state: dict[str, Any]) -> Stream:
    live = stream(model, example, time=time)
    live.load_state(state)
    return live
