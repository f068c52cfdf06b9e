"""Parts: some of a model's outputs computed by themselves, from exactly the samples that they need.

The same rule as for one convolution (``partition.part``), followed from the outputs back through the model's graph:

# outputs   [ start ... stop )
# of each operation   [ first needed by any that reads it ... last )
# samples   [ first ... last )        all that is read of the signal; padding stands at its true ends alone
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from tapwise import chunks, partition
from tapwise.errors import ShapeError, StreamMismatchError, TimelineError, listed
from tapwise.geometry import Geometry
from tapwise.layers import CausalConv1d, CausalConvTranspose1d, Conv1d, ConvTranspose1d
from tapwise.network.execution import OPERATIONS, Part, PartialOperation
from tapwise.network.graph import Node
from tapwise.network.operations import Convolve, Registered
from tapwise.streaming.checks import check_end
from tapwise.streaming.offline import offline_results
from tapwise.streaming.stream import stream

Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class ModelPart:
    """How some outputs of a model are computed by themselves.

    Arguments:
        outputs: the range of the model's outputs.
        samples: the range of the signal's samples that they need; (0, 0) where they need none.
        ranges: by operation, the range of its outputs that is computed.
        parts: by operation, how; None where nothing of it is needed.
        numbers: the most numbers, for each row of the batch, that are in memory at once.
    """

    outputs: Range
    samples: Range
    ranges: tuple[Range, ...]
    parts: tuple[Part | None, ...]
    numbers: int


class PartialModel:
    """A model any outputs of which can be computed by themselves: all that ``tapwise.stream`` takes but recurrences.

    It may be used by several threads at once.

    Arguments:
        example: a tensor that the model takes; its further axes count, its length doesn't.
        rows_are_independent: whether rows of a batch may be computed together.

    Raises:
        TimelineError: an operation that reads all of the past, or can't be followed, by the path of its module.
        ValueError: a model of several signals, or results.
    """

    def __init__(self, model: nn.Module, example: Any, *, time: int | None = None) -> None:
        live = stream(model, example, time=time)
        self.graph = graph = live.graph
        self.model, self._example = model, example
        self.rows_are_independent = live.rows_are_independent
        if live.n_signals > 1:
            raise ValueError(f"the model takes {live.n_signals} signals at once, and one can be computed by parts")
        if graph.outputs != graph.results or len(graph.results) != 1:
            raise ValueError(
                f"the model returns {len(graph.outputs)} values: put a small module around it that returns one sequence"
            )
        self._refuse_states()
        self.result = graph.results[0]
        self.delay, self.stride = live.delay, live.stride
        self.time, self.output_time = live.time_axes
        axes = [node.size.time for node in graph.nodes]
        self._operations: list[PartialOperation | None] = [
            cast(PartialOperation, OPERATIONS[type(node.work)](node, tuple(axes[n] for n in node.inputs)))
            if node.inputs
            else None
            for node in graph.nodes
        ]
        self._last_readers = self._find_last_readers()
        self._check_once(graph.example_length)

    @property
    def description(self) -> str:
        """The operations, as text."""
        return "\n".join(f"{n.name} {n.path} {n.inputs} {n.timeline} {n.size}" for n in self.graph.nodes)

    @property
    def constants(self) -> list[Any]:
        """Numbers and tensors that the model's own code gives to its operations."""
        works = [node.work for node in self.graph.nodes]
        return [leaf for work in works for leaf in getattr(work, "leaves", (getattr(work, "value", None),))]

    def _refuse_states(self) -> None:
        states = [n for n in self.graph.nodes if n.timeline.endless or isinstance(n.work, Registered)]
        if states:
            paths = listed(dict.fromkeys(node.path or "the model itself" for node in states), 4)
            raise TimelineError(
                "carries a state from the first sample to the last, so that no part can be computed by itself"
                + (f" ({paths})" if len({node.path for node in states}) > 1 else ""),
                states[0].path,
                states[0].name,
                "run it from beginning to end, by tapwise.stream",
            )

    def _find_last_readers(self) -> list[list[int]]:
        """By operation, the nodes that none after it reads."""
        last = {n: number for number, node in enumerate(self.graph.nodes) for n in node.inputs}
        readers: list[list[int]] = [[] for _ in self.graph.nodes]
        for n, number in last.items():
            if n != self.result:
                readers[number].append(n)
        return readers

    def output_length(self, length: int) -> int:
        """Outputs for a full signal of ``length`` samples.

        Raises:
            ShapeError: a length that the model doesn't take.
        """
        check_end(self.graph, {0: length}, 1)
        if 0 < length < self.graph.shortest:
            with torch.no_grad():
                return int(self._offline(self._zeros(length)).shape[self.output_time])
        return self.graph.totals(length)[self.result]

    def missing(self, length: int) -> int:
        """Samples without which the model takes no signal of ``length``, as it takes multiples alone."""
        return self.graph.missing(length) if length else 0

    def part(self, start: int, stop: int, length: int) -> ModelPart:
        """How the outputs [start, stop) for a full signal of ``length`` samples are computed by themselves.

        Raises:
            ValueError: outputs that there aren't.
        """
        nodes = self.graph.nodes
        if 0 < length < self.graph.shortest:
            n_outputs = self.output_length(length)
            self._check_range(start, stop, n_outputs)
            numbers = 4 * len(nodes) * length * max(_numbers(node) for node in nodes)
            return ModelPart((start, stop), (0, length), (), (), numbers)
        totals = self.graph.totals(length)
        self._check_range(start, stop, totals[self.result])
        ranges: list[Range] = [(0, 0)] * len(nodes)
        parts: list[Part | None] = [None] * len(nodes)
        ranges[self.result] = (start, stop)
        for number in range(len(nodes) - 1, -1, -1):
            operation, (first, last) = self._operations[number], ranges[number]
            if operation is None or first == last:
                continue
            part = parts[number] = operation.part(first, last, [totals[n] for n in nodes[number].inputs])
            for n, needed in zip(nodes[number].inputs, part.inputs, strict=True):
                ranges[n] = _hull(ranges[n], needed)
        return ModelPart((start, stop), ranges[0], tuple(ranges), tuple(parts), self._most_numbers(ranges))

    @staticmethod
    def _check_range(start: int, stop: int, n_outputs: int) -> None:
        if not 0 <= start <= stop <= n_outputs:
            raise ValueError(f"outputs [{start}, {stop}) are not within [0, {n_outputs})")

    def _most_numbers(self, ranges: Sequence[Range]) -> int:
        sizes = [(b - a) * _numbers(node) for (a, b), node in zip(ranges, self.graph.nodes, strict=True)]
        held = most = sizes[0]
        for number in range(1, len(sizes)):
            # Beside what it gives, an operation may hold a copy of what it reads, and a convolution of what it gives,
            # in the order of its kernel.
            copies = max((sizes[n] for n in self.graph.nodes[number].inputs), default=0)
            copies += sizes[number] if isinstance(self.graph.nodes[number].work, Convolve) else 0
            held += sizes[number]
            most = max(most, held + copies)
            held -= sum(sizes[n] for n in self._last_readers[number])
        return most

    def run(self, part: ModelPart, samples: Tensor) -> Tensor:
        """The outputs of a part.

        Arguments:
            samples: the range ``part.samples`` of the signal, with the axes of the model's input.

        Raises:
            ShapeError: another number of samples.
        """
        count = part.samples[1] - part.samples[0]
        if samples.shape[self.time] != count:
            raise ShapeError(
                "the samples aren't those of the part",
                got=f"{samples.shape[self.time]} samples",
                expected=f"{count}: [{part.samples[0]}, {part.samples[1]})",
            )
        with torch.no_grad():
            if not part.parts:  # shorter than what the graph holds for
                y = self._offline(samples) if count else samples.narrow(self.time, 0, 0)
                return y.narrow(self.output_time, part.outputs[0], part.outputs[1] - part.outputs[0])
            return self._run(part, samples)

    def _run(self, part: ModelPart, samples: Tensor) -> Tensor:
        nodes = self.graph.nodes
        batch = samples.shape[nodes[0].size.batch[0][0]] if nodes[0].size.batch else 1
        made: list[Tensor | None] = [samples, *[None] * (len(nodes) - 1)]
        for number, (operation, own) in enumerate(zip(self._operations, part.parts, strict=True)):
            if operation is None:
                continue
            y = None
            if own is not None:
                inputs, nothing = [], []
                for n, (first, last) in zip(nodes[number].inputs, own.inputs, strict=True):
                    axis, x = nodes[n].size.time, made[n]
                    assert x is not None
                    x = (
                        x.narrow(axis, first - part.ranges[n][0], last - first)
                        if first < last
                        else x.narrow(axis, 0, 0)
                    )
                    inputs.append(x)
                    nothing.append(x.narrow(axis, 0, 0))
                y, _ = operation.run(own.schedule, nothing, inputs)
            made[number] = self._empty(number, batch, samples) if y is None else y
            for n in self._last_readers[number]:
                made[n] = None
        result = made[self.result]
        assert result is not None
        return result

    def _empty(self, number: int, batch: int, like: Tensor) -> Tensor:
        node = self.graph.nodes[number]
        return like.new_zeros(node.size.of(batch, 0), dtype=node.dtype)

    def _zeros(self, length: int) -> Tensor:
        first = self._example[0] if isinstance(self._example, tuple) else self._example
        zeros: Tensor = first.new_zeros(self.graph.nodes[0].size.of(self.graph.batch, length))
        return zeros

    def _offline(self, samples: Tensor) -> Tensor:
        """The model's own run, of signals too short for the graph; it gives nothing where the model takes none so short."""
        try:
            return offline_results(self.graph, self.model, self._example, [samples])[0]
        except (RuntimeError, ValueError):
            return self._empty(self.result, samples.shape[0], samples)

    def _check_once(self, length: int) -> None:
        """Hold the parts of one signal of noise against the model's own run.

        Raises:
            StreamMismatchError: where they differ.
        """
        zeros = self._zeros(length)
        if not zeros.is_floating_point():
            return
        signal = torch.rand(zeros.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(zeros)
        with torch.no_grad():
            offline = self._offline(signal)
        n_outputs = offline.shape[self.output_time]
        cuts = [n_outputs * n // 3 for n in range(4)]
        made = []
        for start, stop in pairwise(cuts):
            part = self.part(start, stop, length)
            first, last = part.samples
            made.append(self.run(part, signal.narrow(self.time, first, last - first)))
        found = torch.cat(made, self.output_time).to(offline.dtype)
        scale = float(offline.abs().max()) if offline.numel() else 0.0
        allowed = (2e-2 if offline.dtype.itemsize < 4 else 1e-3) * (1 + scale)
        if found.shape != offline.shape or (found.numel() and float((found - offline).abs().max()) > allowed):
            raise StreamMismatchError(
                "parts of the model's outputs, computed by themselves, aren't what the model gives"
            )


class PartialLayer:
    """One convolution, any outputs of which can be computed by themselves: as ``PartialModel``, without reading a model.

    Arguments:
        model: a layer of torch's or of ours, as it is.
    """

    rows_are_independent, time, output_time = True, 2, 2

    def __init__(self, model: nn.Module) -> None:
        self.model, self.geometry = model, Geometry.of(model)
        self.stride = Fraction(1, self.geometry.stride) if self.geometry.transposed else Fraction(self.geometry.stride)
        self.description, self.constants = str(self.geometry), list[Any]()

    @staticmethod
    def is_one(model: nn.Module) -> bool:
        """Whether a model is just such a layer: nothing else runs with it."""
        has_hooks = any(bool(getattr(model, name)) for name in ("_forward_hooks", "_forward_pre_hooks"))
        return type(model) in _LAYERS and not has_hooks and not {"forward", "_conv_forward"} & set(model.__dict__)

    def output_length(self, length: int) -> int:
        """Outputs for a full signal of ``length`` samples."""
        return self.geometry.output_length(length)

    def missing(self, length: int) -> int:
        """Samples without which the layer takes no signal: none."""
        return 0

    def part(self, start: int, stop: int, length: int) -> ModelPart:
        """How the outputs [start, stop) for a full signal of ``length`` samples are computed by themselves."""
        if start == stop:
            return ModelPart((start, stop), (0, 0), (), (), 0)
        own = partition.part(self.geometry, start, stop, length)
        copied = [*own.left, *own.right]
        first, last = own.inputs
        if copied:
            is_empty = first == last
            first = min(copied) if is_empty else min(first, *copied)
            last = max(copied) + 1 if is_empty else max(last, max(copied) + 1)
        model: Any = self.model
        numbers = 2 * (last - first) * model.in_channels + (stop - start) * model.out_channels
        left, right = (tuple(j - first for j in side) for side in (own.left, own.right))
        inside = own.inputs[0] - first, own.inputs[1] - first
        advance = chunks.Advance(own.geometry, *inside, last - first, left, right)
        return ModelPart((start, stop), (first, last), (), (Part(((first, last),), advance),), numbers)

    def run(self, part: ModelPart, samples: Tensor) -> Tensor:
        """The outputs of a part, from the range ``part.samples`` of the signal: (batch, in_channels, n)."""
        model: Any = self.model
        if not part.parts or part.parts[0] is None:
            return samples.new_empty((samples.shape[0], model.out_channels, 0), dtype=model.weight.dtype)
        with torch.no_grad():
            y, _ = chunks.run(part.parts[0].schedule, model.weight, model.bias, samples[..., :0], samples)
        assert y is not None
        return y


_LAYERS = (nn.Conv1d, nn.ConvTranspose1d, Conv1d, CausalConv1d, ConvTranspose1d, CausalConvTranspose1d)


def _hull(one: Range, other: Range) -> Range:
    if one[0] == one[1]:
        return other
    return one if other[0] == other[1] else (min(one[0], other[0]), max(one[1], other[1]))


def _numbers(node: Node) -> int:
    """Numbers for each moment of one row of the batch."""
    return math.prod(node.size.of(1, 1))
