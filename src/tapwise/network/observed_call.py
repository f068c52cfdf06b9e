"""ObservedCall: one call of a model, as runs of several lengths and batches made it."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tapwise.errors import TimelineError
from tapwise.network.graph import Node
from tapwise.network.graph_builder import GraphBuilder
from tapwise.network.operations import Apply, Input, Size, Work
from tapwise.network.record import Call, Ref
from tapwise.network.timeline import Aligned, Timeline


class ObservedCall:
    """The n-th call of every run.

    Arguments:
        builder: has the runs, and the nodes so far.
        calls: the call of each run; the first runs are of one batch.
    """

    def __init__(self, builder: GraphBuilder, calls: Sequence[Call]) -> None:
        self.builder = builder
        self.calls = calls
        self.first = calls[0]
        self.name, self.path = self.first.name, self.first.path
        self.refs = self.first.refs
        self._bound = [call.arguments for call in calls]

    def refuse(self, reason: str, remedy: str) -> TimelineError:
        """The error that names this call, to be raised."""
        return TimelineError(reason, self.path, self.name, remedy)

    # Arguments

    def each(self, place: int, name: str, default: Any = None) -> list[Any]:
        """An argument of every run, by position or by name."""
        return [args[place] if len(args) > place else kwargs.get(name, default) for args, kwargs in self._bound]

    def same(self, place: int, name: str, default: Any = None) -> Any:
        """An argument that is the same in every run."""
        found = self.each(place, name, default)
        if any(isinstance(value, Tensor) for value in found):
            return self.constant(found)
        if any(value != found[0] for value in found):
            raise self.refuse(
                f"its {name} depends on the length of the signal ({found[0]}, {found[1]}, ...)",
                "make it the same for every length",
            )
        return found[0]

    def ints(self, value: Any) -> list[int]:
        """Integers, from one or a list of them, as ints or as tensors."""
        values = value if isinstance(value, list | tuple | torch.Size) else [value]
        return [operator.index(v) if not isinstance(v, Tensor) else int(v) for v in values]

    def constant(self, found: Sequence[Any], time: int | None = None) -> Tensor:
        """A tensor that is no part of the signal, for any length and batch.

        Axes along which it grows with the signal or the batch, and is the same throughout, get length 1.
        """
        first = found[0]
        if all(other is first for other in found):
            return first  # type: ignore[no-any-return]
        if any(not isinstance(t, Tensor) or t.ndim != first.ndim for t in found):
            raise self._not_constant()
        for axis in range(first.ndim):
            if len({t.shape[axis] for t in found}) > 1:
                if any(not bool((t == t.narrow(axis, 0, 1)).all()) for t in found):
                    raise self.refuse(
                        "one of its tensors grows with the signal and isn't the same throughout, as positions are",
                        "compute from the signal itself what it needs, or tapwise.register its module",
                    )
                found = [t.narrow(axis, 0, 1) for t in found]
        if any(not _equal(t, found[0]) for t in found):
            raise self._not_constant()
        return found[0]  # type: ignore[no-any-return]

    def _not_constant(self) -> TimelineError:
        return self.refuse(
            "one of its tensors isn't the same in every run", "turn off what is random, as dropout, in evaluation"
        )

    def leaves(self) -> tuple[Any, ...]:
        """The flattened arguments for ``Apply``: inputs for the signal, constants for the rest."""
        order: list[Any] = []
        n_inputs = 0
        for n, leaf in enumerate(self.first.leaves):
            found = [call.leaves[n] for call in self.calls]
            if isinstance(leaf, Ref):
                order.append(Input(n_inputs))
                n_inputs += 1
            elif isinstance(leaf, Tensor):
                order.append(self.constant(found))
            elif any(not _alike(leaf, other) for other in found):
                raise self.refuse(
                    f"one of its arguments depends on the length of the signal ({leaf}, {found[1]}, ...)",
                    "make it the same for every length",
                )
            else:
                order.append(leaf)
        return tuple(order)

    # Sizes

    def sizes(self, value: int) -> list[tuple[int, ...]]:
        """The size of a tensor of the signal in every run, by its number."""
        return [run.sizes[value] for run in self.builder.runs]

    def lengths(self, value: int) -> list[int]:
        """Its length in every run."""
        time = self.time(value)
        return [size[time] for size in self.sizes(value)]

    def time(self, value: int) -> int:
        """Its axis of time."""
        return self.node(value).size.time

    def size(self, value: int) -> Size:
        """The size of a tensor of the signal, for any batch and length.

        Raises:
            TimelineError: no axis, or several, that grow with the signal.
        """
        sizes = self.sizes(value)
        if len({len(size) for size in sizes}) > 1:
            raise self.refuse("its output has other axes for other lengths", _TEACH)
        same_batch = [sizes[n] for n in self.builder.one_batch]
        growing = [axis for axis in range(len(sizes[0])) if len({size[axis] for size in same_batch}) > 1]
        if len(growing) != 1:
            what = "no axis" if not growing else f"{len(growing)} axes"
            raise self.refuse(f"{what} of its output follow time: it mixes all of the signal", _TEACH)
        (time,) = growing
        batch = []
        for axis in range(len(sizes[0])):
            if axis == time:
                continue
            ratios = {size[axis] / rows for size, rows in zip(sizes, self.builder.rows, strict=True)}
            if len({size[axis] for size in sizes}) > 1:
                per_row = int(min(ratios))
                if ratios != {per_row}:
                    raise self.refuse("its output doesn't follow the batch", _TEACH)
                batch.append((axis, per_row))
        entries = tuple(0 if axis == time else s for axis, s in enumerate(sizes[0]))
        return Size(entries, time, tuple(batch))

    # Nodes

    def node(self, value: int) -> Node:
        """The node that a tensor of the signal came from."""
        return self.builder.nodes[self.builder.number(value, self.path, self.name)]

    def add(
        self,
        timeline: Timeline,
        work: Work,
        *,
        inputs: Sequence[int] | None = None,
        pick: int = 0,
        size: Size | None = None,
        last: bool = True,
        **fields: Any,
    ) -> int:
        """A node of the graph for this call; returns its number.

        Arguments:
            inputs: numbers of nodes; those of the call's refs where not given.
            pick: which of the call's outputs it is.
            last: whether it is the call's output; else an intermediate step.
        """
        value = self.first.outputs[pick]
        assert value is not None
        if size is None:
            size = self.size(value)
        if inputs is None:
            inputs = [self.builder.number(ref, self.path, self.name) for ref in self.refs]
        node = Node(self.path, self.name, tuple(inputs), timeline, work, size, **fields)
        return self.builder.add(node, value if last else None)

    def apply(self, pick: int = 0) -> Apply:
        """The call itself, to be made anew on other samples."""
        return Apply(self.first.func, self.leaves(), self.first.spec, pick, self.first.writes)

    def aligned(self) -> None:
        """Nodes for a call that works sample by sample: one for each output."""
        for pick, value in enumerate(self.first.outputs):
            if value is not None:
                self.add(Aligned(), self.apply(pick), pick=pick)


_TEACH = "tapwise.register teaches an operation its timeline; else leave it out of the model"


def _equal(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool(((one == other) | (one.isnan() & other.isnan() if one.is_floating_point() else False)).all())


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, slice) and isinstance(other, slice):
        return (one.start, one.stop, one.step) == (other.start, other.stop, other.step)
    return type(one) is type(other) and bool(one == other)
