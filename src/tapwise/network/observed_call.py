"""ObservedCall: one call of a model, as runs of several lengths and batches made it."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from tapwise.errors import TimelineError
from tapwise.network.graph import Node
from tapwise.network.graph_builder import GraphBuilder, is_same, same_numbers
from tapwise.network.operations import Accumulate, Apply, Input, Size, Work
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

    def constant(self, found: Sequence[Any]) -> Tensor:
        """A tensor that is no part of the signal, for any length and batch.

        Axes along which it grows with the signal or the batch, and is the same throughout, get length 1.
        """
        first = found[0]
        if all(other is first for other in found):
            return first  # type: ignore[no-any-return]
        if any(not isinstance(t, Tensor) or t.ndim != first.ndim for t in found):
            raise self._not_constant()
        self._check_thresholds(found)
        for axis in range(first.ndim):
            if len({t.shape[axis] for t in found}) > 1:
                if any(not bool(same_numbers(t, t.narrow(axis, 0, 1)).all()) for t in found):
                    raise self.refuse(
                        "one of its tensors grows with the signal and isn't the same throughout, as positions are",
                        "compute from the signal itself what it needs, or tapwise.register its module",
                    )
                found = [t.narrow(axis, 0, 1) for t in found]
        if any(not is_same(t, found[0]) for t in found):
            raise self._not_constant()
        return found[0]  # type: ignore[no-any-return]

    def _check_thresholds(self, found: Sequence[Tensor]) -> None:
        """Refuse what was computed by comparing positions with a number that no signal read was as long as."""
        runs = self.builder.runs
        if len({found[n].shape for n in self.builder.one_batch}) == 1:
            return  # it doesn't grow with the signal
        met = [run.numbers.get(id(t), frozenset()) for run, t in zip(runs, found, strict=True)]
        longest = max(max(t.shape, default=0) for t in found)
        beyond = [n for n in frozenset.intersection(*met) if longest <= n < LARGEST]
        if beyond:
            raise self.refuse(
                f"one of its tensors compares positions with {min(beyond):g}: longer signals may be treated otherwise",
                "leave the limit out, or cut the signal outside of the model",
            )

    def _not_constant(self) -> TimelineError:
        return self.refuse(
            "one of its tensors isn't the same in every run", "turn off what is random, as dropout, in evaluation"
        )

    def leaves(self) -> tuple[Any, ...]:
        """The flattened arguments for ``Apply``: inputs for the signal, constants for the rest."""
        return self._leaves_and_inputs[0]

    @cached_property
    def _leaves_and_inputs(self) -> tuple[tuple[Any, ...], tuple[int, ...]]:
        """The leaves, and the nodes that are their inputs."""
        order: list[Any] = []
        inputs: list[int] = []
        for n, leaf in enumerate(self.first.leaves):
            found = [call.leaves[n] for call in self.calls]
            if isinstance(leaf, Ref):
                order.append(Input(len(inputs)))
                inputs.append(self.builder.number(leaf.value, self.path, self.name))
            elif isinstance(leaf, Tensor):
                positions = self._positions(found)
                if positions is not None:
                    order.append(Input(len(inputs)))
                    inputs.append(positions)
                else:
                    order.append(self.constant(found))
            elif any(not _alike(leaf, other) for other in found):
                same_batch = [found[k] for k in self.builder.one_batch]
                of = "length of the signal" if any(not _alike(leaf, v) for v in same_batch) else "batch"
                other = next(v for v in found if not _alike(leaf, v))
                raise self.refuse(
                    f"one of its arguments depends on the {of} ({leaf}, {other}, ...)",
                    f"make it the same for every {of}",
                )
            else:
                order.append(leaf)
        return tuple(order), tuple(inputs)

    def _positions(self, found: Sequence[Tensor]) -> int | None:
        """The node of a tensor that counts the moments, as ``arange(length)`` does; None of any other."""
        first, ref = found[0], self.refs[0]
        if any(not isinstance(t, Tensor) or t.ndim != first.ndim for t in found) or self.node(ref).size.flat:
            return None
        same_batch = [found[n] for n in self.builder.one_batch]
        growing = [axis for axis in range(first.ndim) if len({t.shape[axis] for t in same_batch}) > 1]
        if len(growing) != 1 or first.is_complex() or first.dtype == torch.bool:
            return None
        self._check_thresholds(found)
        (axis,) = growing
        size, place = self.node(ref).size, first.ndim - axis
        if [t.shape[axis] for t in found] != self.lengths(ref) or len(size.entries) - size.time != place:
            return None
        head = first.narrow(axis, 0, 2).double()
        start, step = head.narrow(axis, 0, 1), head.narrow(axis, 1, 1) - head.narrow(axis, 0, 1)
        if not bool(step.any()) or any(
            n != axis and t.shape[n] != first.shape[n] for t in found for n in range(t.ndim)
        ):
            return None
        for t in found:
            moments = torch.arange(t.shape[axis], dtype=torch.float64, device=t.device)
            counted = start + step * moments.reshape(-1, *[1] * (place - 1))
            if not torch.allclose(t.double(), counted, rtol=1e-6, atol=1e-9):
                return None
        start, step, dtype, time = start, step, first.dtype, size.time

        def counts(x: Tensor) -> Tensor:  # (batch, 1, ..., time, 1, ...) of ones
            ones = torch.ones_like(x, dtype=torch.float64)
            for other in range(1, x.ndim):
                ones = ones if other == time else ones.narrow(other, 0, 1)
            return ones

        def positions(count: Tensor) -> Tensor:
            return (start + step * (count - 1)).to(dtype)

        entries = tuple(n if axis in (0, time) else 1 for axis, n in enumerate(size.entries))
        ones = Size(entries, time, tuple((a, n) for a, n in size.batch if a == 0))
        work = Accumulate("cumsum", time, torch.float64, counts, positions)
        number = self.add(Aligned(), work, inputs=[self.node_number(ref)], size=ones, last=False)
        self.builder.nodes[number].dtype = dtype
        return number

    # Sizes

    def sizes(self, value: int) -> list[tuple[int, ...]]:
        """The size of a tensor of the signal in every run, by its number."""
        return [run.sizes[value] for run in self.builder.runs]

    def lengths(self, value: int) -> list[int]:
        """Its length in every run."""
        self.node(value)
        return self.builder.lengths(value)

    def time(self, value: int) -> int:
        """Its axis of time, in the model's own tensor."""
        return self.node(value).size.model_time

    def size(self, value: int) -> Size:
        """The size of a tensor of the signal, for any batch and length.

        Raises:
            TimelineError: no axis, or several, that grow with the signal.
        """
        plain = self.plain_size(value)
        if self.refs and self.node(self.refs[0]).size.flat:
            return self._flat_size(plain.entries, plain.time, self.sizes(value))
        return plain

    def plain_size(self, value: int) -> Size:
        """The size of the model's own tensor, whose one growing axis is taken for time."""
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

    def _flat_size(self, entries: tuple[int, ...], time: int, sizes: Sequence[tuple[int, ...]]) -> Size:
        """The size of what comes of a tensor in which time and the axis before it are one."""
        before = self.node(self.refs[0]).size
        if [size[time] for size in sizes] != [size[before.model_time] for size in self.sizes(self.refs[0])]:
            raise self.refuse("cuts or adds along time and another axis in one", "view them as two axes first")
        rows = before.entries[before.time - 1]
        batch = tuple((time, n) for axis, n in before.batch if axis == before.time - 1)
        return Size((*entries[:time], rows, *entries[time:]), time + 1, batch, flat=True)

    # Nodes

    def node_number(self, value: int) -> int:
        """The number of the node that gives a tensor of the signal."""
        return self.builder.number(value, self.path, self.name)

    def node(self, value: int) -> Node:
        """The node that gives a tensor of the signal."""
        return self.builder.nodes[self.node_number(value)]

    @property
    def is_mixed(self) -> bool:
        """Whether channels of what goes in may have read different moments: branches that were joined."""
        return any(self.node_number(ref) in self.builder.mixed for ref in self.refs)

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
            inputs = [self.node_number(ref) for ref in self.refs]
        node = Node(self.path, self.name, tuple(inputs), timeline, work, size, **fields)
        return self.builder.add(node, value if last else None)

    def apply(self, pick: int = 0) -> Apply:
        """The call itself, to be made anew on other samples."""
        flat = None
        if any(self.node(ref).size.flat for ref in self.refs):
            if not all(self.node(ref).size.flat for ref in self.refs):
                raise self.refuse(
                    "joins a tensor whose time and batch are one axis with one where they aren't", "view both alike"
                )
            value = self.first.outputs[pick]
            assert value is not None
            flat = (self.time(self.refs[0]), self.size(value).model_time)
        return Apply(self.first.func, self.leaves(), self.first.spec, pick, self.first.writes, flat)

    def aligned(self, function: Callable[..., Any] | None = None, **fields: Any) -> None:
        """Nodes for a call that works sample by sample: one for each output.

        Arguments:
            function: called in place of the model's own, with its arguments.
        """
        for pick, value in enumerate(self.first.outputs):
            if value is not None:
                work = self.apply(pick)
                work = work if function is None else replace(work, func=function)
                self.add(Aligned(), work, inputs=self._leaves_and_inputs[1], pick=pick, **fields)

    def picked(self, work: Apply | None = None, inputs: Sequence[int] | None = None) -> None:
        """Nodes for a call that gives some of the entries of an axis, unchanged.

        Of branches that were joined, what is one of them again is that branch: it reads what that one reads.
        Another part reads at most what all of them read.
        """
        for pick, value in enumerate(self.first.outputs):
            if value is None:
                continue
            mine = self.apply(pick) if work is None else work
            sources = self._leaves_and_inputs[1] if inputs is None and work is None else inputs
            branch = self.builder.branch_of(sources[0] if sources else self.node_number(self.refs[0]), mine)
            if branch is not None:
                self.builder.numbers[value] = branch
            else:
                self.add(Aligned(), mine, inputs=sources, pick=pick, is_bound=self.is_mixed)


_TEACH = "tapwise.register teaches an operation its timeline; else leave it out of the model"


# Numbers above are no positions: sys.maxsize and the like.
LARGEST = 1 << 40


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, slice) and isinstance(other, slice):
        return (one.start, one.stop, one.step) == (other.start, other.stop, other.step)
    return type(one) is type(other) and bool(one == other)
