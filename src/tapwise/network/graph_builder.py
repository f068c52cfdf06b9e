"""GraphBuilder: the nodes of a graph, as the rules add them, and the graph that they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from math import prod
from typing import Any

import numpy as np
import torch

from tapwise.errors import TimelineError
from tapwise.network.graph import Count, Graph, Node
from tapwise.network.operation_names import FRAMES, JOINS, POINTWISE
from tapwise.network.operations import Apply, Convolve, Reshape, Size, Within
from tapwise.network.record import Recording, Ref
from tapwise.network.samples import Source
from tapwise.network.timeline import Aligned, Windows


class GraphBuilder:
    """Builds a graph from runs that made the same calls.

    Arguments:
        runs: of the model, the first of them with one batch.
        rows: the batch of each.
        sources: the model's inputs that are signals.
        is_offline: whether operations that read all of time are followed too.
    """

    def __init__(
        self, runs: Sequence[Recording], rows: Sequence[int], sources: Sequence[Source], is_offline: bool = False
    ) -> None:
        self.is_offline = is_offline
        self.runs = runs
        self.rows = rows
        self.one_batch = [n for n, count in enumerate(rows) if count == rows[0]]
        self.nodes: list[Node] = []
        self.rates: list[Fraction] = []  # of nodes
        self.numbers: dict[int, int] = {}  # of nodes, by the tensors' numbers
        # Why a tensor of the signal, by its number, has no node.
        self.refused: dict[int, TimelineError] = {}
        # Nodes whose channels may have read different moments, and the axis along which branches were joined;
        # None where it moved since.
        self.mixed: dict[int, int | None] = {}
        for value, source in enumerate(sources):
            sizes = [run.sizes[value] for run in runs]
            entries = tuple(0 if axis == source.time else size for axis, size in enumerate(sizes[0]))
            batch = ((0, 1),) if len({size[0] for size in sizes}) > 1 and source.time != 0 else ()
            node = Node("", "input", (), Aligned(), None, Size(entries, source.time, batch), value=value)
            node.dtype, node.rate = runs[0].dtypes[value], source.rate
            self.nodes.append(node)
            self.rates.append(source.rate)
            self.numbers[value] = value

    def number(self, value: int, path: str, name: str) -> int:
        """The node that a tensor of the signal came from; ``path`` and ``name`` of the call that reads it."""
        if value not in self.numbers:
            raise TimelineError(
                "reads what depends on the end of the signal, as a recurrence's last state",
                path,
                name,
                "use its outputs, sample by sample",
            )
        return self.numbers[value]

    def lengths(self, value: int) -> list[int]:
        """The length of a tensor of the signal in every run."""
        node = self.nodes[self.numbers[value]]
        return [node.length_in(run.sizes[value], rows) for run, rows in zip(self.runs, self.rows, strict=True)]

    def rate_of(self, value: int) -> Fraction:
        """The samples of a tensor of the signal for each of the signal's."""
        return self.rates[self.numbers[value]]

    def add(self, node: Node, value: int | None) -> int:
        """Add a node, whose output is the tensor ``value`` of the runs, or an intermediate step's."""
        node.value = value
        first = node.inputs[0]
        node.dtype = self.nodes[first].dtype if value is None else self.runs[0].dtypes[value]
        self.nodes.append(node)
        self.rates.append(self.rates[first] * node.timeline.rate)
        number = len(self.nodes) - 1
        if value is not None:
            self.numbers[value] = number
        if _makes_frames(node):
            self.mixed[number] = None  # the entries of a frame are moments
            return number
        if node.name in JOINS and len(set(node.inputs)) > 1:
            self.mixed[number] = _joined_along(node)
        elif any(n in self.mixed for n in node.inputs):
            axes = {self.mixed[n] for n in node.inputs if n in self.mixed}
            is_summed = isinstance(node.work, Convolve) and _sums_channels(node)
            if not (is_summed and axes == {len(node.size.entries) - 2}):
                self.mixed[number] = axes.pop() if len(axes) == 1 and node.name in POINTWISE else None
        return number

    def branch_of(self, number: int, work: Apply) -> int | None:
        """The node whose output ``work`` takes out of what node ``number`` joined; None where it is no such node."""
        node = self.nodes[number]
        if node.name not in JOINS or not isinstance(node.work, Apply) or node.size.flat or len(node.inputs) < 2:
            return None
        sizes = [self.nodes[n].size.of(self.rows[0], 1) for n in node.inputs]
        # Every entry by a number of its own: what comes out says where it stood.
        labels = [torch.arange(prod(size)).reshape(size) + (place << 32) for place, size in enumerate(sizes)]
        try:
            found = work([node.work(labels)])
        except (RuntimeError, IndexError, TypeError):
            return None
        same = (n for n, label in zip(node.inputs, labels, strict=True) if torch.equal(found, label))
        return next(same, None)

    def graph(self, batches: bool) -> Graph:
        """The graph, without what the model's output doesn't need."""
        run = self.runs[0]
        assert run.spec is not None
        for other in self.runs[1:]:
            if other.spec != run.spec or any(
                isinstance(one, Ref) and one != two for one, two in zip(run.leaves, other.leaves, strict=True)
            ):
                raise _returns("the model returns other things for signals of other lengths")
        if not any(isinstance(leaf, Ref) for leaf in run.leaves):
            raise TimelineError(
                "nothing that the model returns is computed from the signal by torch's operations",
                "",
                "output",
                "return tensors, tuples, lists or dicts of them; check that the first of its inputs is the signal, and "
                "that the model stays in torch",
            )
        leaves: list[Any] = []
        for n, leaf in enumerate(run.leaves):
            if isinstance(leaf, Ref):
                if leaf.value in self.refused:
                    raise self.refused[leaf.value]
                if leaf.value not in self.numbers:
                    raise _returns("the model returns what depends on the end of the signal")
                leaves.append(self.numbers[leaf.value])
            else:
                leaves.append(self._beside([other.leaves[n] for other in self.runs]))
        wanted = {leaf for leaf in leaves if type(leaf) is int}
        wanted |= {leaf.node for leaf in leaves if isinstance(leaf, Count)}
        wanted |= {n for n, node in enumerate(self.nodes) if not node.inputs}
        for number in range(len(self.nodes) - 1, -1, -1):
            if number in wanted:
                node = self.nodes[number]
                wanted.update(node.inputs)
                wanted.update(() if node.reference is None else (node.reference,))
        order = sorted(wanted)
        places = {number: place for place, number in enumerate(order)}
        nodes = []
        for number in order:
            node = self.nodes[number]
            node.inputs = tuple(places[n] for n in node.inputs)
            node.reference = None if node.reference is None else places[node.reference]
            nodes.append(node)
        outputs = [_at_places(leaf, places) for leaf in leaves]
        return Graph(nodes, outputs, run.spec, self.rows[0], batches, calls=len(run.calls))

    def _beside(self, found: Sequence[Any]) -> Count | tuple[Any]:
        """What the model returns beside the signal: the same in every run, or a count of samples."""
        first = found[0]
        if all(is_same(first, other) for other in found):
            return (first,)
        numbers = [n for value in found if (n := _as_integer(value)) is not None]
        sizes = {tuple(value.shape) for n, value in enumerate(found) if n in self.one_batch and _is_tensor(value)}
        if len(numbers) == len(found) and len(sizes) <= 1:
            is_per_row = _is_tensor(first) and first.ndim == 1 and any(v.shape != first.shape for v in found)
            fits = [(n, Count.fitted(self.lengths(value), numbers)) for value, n in self.numbers.items()]
            found_fits = [(n, fit) for n, fit in fits if fit is not None]
            if found_fits:  # the number of an output's own samples, if it is that
                node, (scale, extra) = min(found_fits, key=lambda fit: (fit[1] != (Fraction(1), Fraction(0)), fit[0]))
                return Count(node, scale, extra, first, is_per_row)
        what = f"a tensor of size {list(first.shape)}" if _is_tensor(first) else repr(first)
        raise _returns(
            f"what the model returns beside the signal ({what} for the shortest signal) isn't the same for every "
            "length or batch, and no count of samples"
        )


def _at_places(out: Any, places: dict[int, int]) -> Any:
    """An output whose node has another number."""
    if type(out) is int:
        return places[out]
    return replace(out, node=places[out.node]) if isinstance(out, Count) else out


def _makes_frames(node: Node) -> bool:
    if not (isinstance(node.timeline, Windows) and isinstance(node.work, Within)):
        return False
    is_frame = node.name in FRAMES or isinstance(node.work.apply, Reshape)
    return is_frame and not node.timeline.geometry.transposed


def _joined_along(node: Node) -> int | None:
    """The axis along which cat or stack joined."""
    assert isinstance(node.work, Apply)
    args, kwargs = torch.utils._pytree.tree_unflatten(list(node.work.leaves), node.work.spec)
    axis = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else 0))
    return int(axis) % len(node.size.entries)


def _sums_channels(node: Node) -> bool:
    return isinstance(node.timeline, Windows) and node.timeline.geometry.groups == 1


def _returns(reason: str) -> TimelineError:
    return TimelineError(reason, "", "output", "return sequences alone, from a small module around the model")


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def same_numbers(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Where two tensors have the same numbers; a NaN is the same as a NaN."""
    same = one == other
    return same | (one.isnan() & other.isnan()) if one.is_floating_point() else same


def is_same(one: Any, other: Any) -> bool:
    """Whether two values that a model returned are the same."""
    if one is other:
        return True
    if _is_tensor(one) and _is_tensor(other):
        return one.dtype == other.dtype and one.shape == other.shape and bool(same_numbers(one, other).all())
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    try:
        return bool(one == other)
    except (RuntimeError, TypeError, ValueError):  # an object of tensors of the model's own
        return False


def _as_integer(value: Any) -> int | None:
    """The integer that a value is, or that all numbers of a tensor are; None where there is none."""
    if _is_tensor(value):
        if not value.numel() or value.is_complex() or bool((value != value.reshape(-1)[0]).any()):
            return None
        value = value.reshape(-1)[0].item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if float(value).is_integer() else None
