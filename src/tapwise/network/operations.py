"""Operations: the tensor work of a graph's nodes, on whatever part of the signal is at hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tapwise.geometry import Geometry


@dataclass(frozen=True, slots=True)
class Input:
    """In the arguments of an ``Apply``: where its n-th input goes."""

    number: int


@dataclass(frozen=True, slots=True)
class Size:
    """The size of a tensor for any batch and length: numbers, and what grows.

    Arguments:
        entries: a number for each axis; of the axis of time, 0.
        time: which axis is time.
        batch: by axis, the entries of each row of the batch.
        flat: whether the model has time and the axis before it as one, the moments of each row together. In a
            graph they are two.
    """

    entries: tuple[int, ...]
    time: int
    batch: tuple[tuple[int, int], ...] = ()
    flat: bool = False

    @property
    def model_time(self) -> int:
        """The axis of time in the model's own tensor."""
        return self.time - self.flat

    def rows_in_time(self, batch: int) -> int:
        """How many rows the model's axis of time holds, one after the other."""
        return self.of(batch, 1)[self.time - 1] if self.flat else 1

    def like_graph(self, x: Tensor, batch: int) -> Tensor:
        """The model's own tensor, with time an axis of its own."""
        if not self.flat:
            return x
        axis = self.model_time
        return x.reshape(*x.shape[:axis], self.rows_in_time(batch), -1, *x.shape[axis + 1 :])

    def of(self, batch: int, length: int) -> tuple[int, ...]:
        """The size for a batch and a length."""
        size = list(self.entries)
        for axis, per_row in self.batch:
            size[axis] = per_row * batch
        size[self.time] = length
        return tuple(size)


@dataclass(frozen=True, eq=False)
class Apply:
    """A function that the model called, called anew on other samples.

    Arguments:
        leaves: the flattened arguments, with places for the inputs.
        pick: which of its flattened outputs counts.
        copies: copy the first input, since the function writes over it.
        flat: where the function takes time and the axis before it as one: that axis, of inputs and output.
    """

    func: Callable[..., Any]
    leaves: tuple[Any, ...]
    spec: pytree.TreeSpec
    pick: int = 0
    copies: bool = False
    flat: tuple[int, int] | None = None

    @cached_property
    def _flat(self) -> tuple[int, tuple[str, ...]] | None:
        """Where no argument is nested: how many are positional, and the names of the rest."""
        args, kwargs = pytree.tree_unflatten(list(range(len(self.leaves))), self.spec)
        if (*args, *kwargs.values()) != tuple(range(len(self.leaves))):
            return None
        return len(args), tuple(kwargs)

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        """The output for these inputs."""
        if self.flat is not None:
            axis, output_axis = self.flat
            rows = inputs[0].shape[axis : axis + 2]
            y = self._called([x.flatten(axis, axis + 1) for x in inputs])
            return y.reshape(*y.shape[:output_axis], *rows, *y.shape[output_axis + 1 :])
        return self._called(inputs)

    def _called(self, inputs: Sequence[Tensor]) -> Tensor:
        leaves = [inputs[leaf.number] if type(leaf) is Input else leaf for leaf in self.leaves]
        if self.copies:
            first = next(n for n, leaf in enumerate(self.leaves) if type(leaf) is Input)
            leaves[first] = leaves[first].clone()
        if (flat := self._flat) is not None:  # unflattening takes longer than most functions
            n, names = flat
            result = self.func(*leaves[:n], **dict(zip(names, leaves[n:], strict=True)))
        else:
            args, kwargs = pytree.tree_unflatten(leaves, self.spec)
            result = self.func(*args, **kwargs)
        if isinstance(result, Tensor):
            return result
        found: Tensor = pytree.tree_leaves(result)[self.pick]
        return found


@dataclass(frozen=True, eq=False, slots=True)
class Reshape:
    """A view of other axes: sizes follow the batch and the samples at hand.

    Arguments:
        size: of the output, for as many samples as come out.
        gives: samples that come out for each that goes in.
        takes: samples that go in for each that comes out.
    """

    size: Size
    time: int
    gives: int = 1
    takes: int = 1

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        """The input in its new shape."""
        (x,) = inputs
        length = x.shape[self.time] * self.gives // self.takes
        others = 1
        for axis, entry in enumerate(self.size.of(1, 1)):
            others *= 1 if axis == self.size.time else entry
        batch = x.numel() // (others * length) if length else 1
        return x.reshape(self.size.of(batch, length))


@dataclass(frozen=True, eq=False, slots=True)
class Convolve:
    """A convolution, transposed or not, by weight and bias."""

    weight: Tensor
    bias: Tensor | None


@dataclass(frozen=True, eq=False, slots=True)
class Fill:
    """What stands in padding: a constant, or by the padding mode of the timeline."""

    value: float = 0.0


@dataclass(frozen=True, eq=False, slots=True)
class Within:
    """A function of windows that lie within the samples given: pooling, frames, upsampling.

    Arguments:
        apply: the function without padding, on the samples that its outputs read and no others.
        fill: what stands for padding.
    """

    apply: Callable[[Sequence[Tensor]], Tensor]
    fill: float = 0.0


@dataclass(frozen=True, eq=False, slots=True)
class Recur:
    """A recurrence of torch's: it takes its state, and returns it after its outputs.

    Arguments:
        state: which leaves of ``apply`` are the state, each as it was for one row of the batch.
        batch: the batch's axis in each of them; None where their rows don't depend on it.
        per_row: their rows for each row of the batch.
    """

    apply: Apply
    state: tuple[int, ...]
    batch: int | None
    per_row: int = 1

    def start(self, batch: int) -> list[Tensor]:
        """The state before the first sample."""
        states = [self.apply.leaves[n] for n in self.state]
        if self.batch is None:
            return [state.clone() for state in states]
        rows = batch * self.per_row
        return [
            state.expand(*(rows if a == self.batch else s for a, s in enumerate(state.shape))).clone()
            for state in states
        ]

    def __call__(self, x: Tensor, state: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The outputs for these samples, and the state after them."""
        leaves = [x if type(leaf) is Input else leaf for leaf in self.apply.leaves]
        for n, tensor in zip(self.state, state, strict=True):
            leaves[n] = tensor
        args, kwargs = pytree.tree_unflatten(leaves, self.apply.spec)
        y, *after = pytree.tree_leaves(self.apply.func(*args, **kwargs))
        return y, after


@dataclass(frozen=True, eq=False, slots=True)
class Accumulate:
    """A sum, a product or an extreme of all of the past: its state is its last output.

    Arguments:
        name: torch's function, as ``cumsum``.
        axis: of time.
        dtype: of the output.
        before: what is accumulated, from the samples; None: they themselves.
        after: the output, from what is accumulated; None: that itself.
    """

    name: str
    axis: int
    dtype: torch.dtype
    before: Callable[[Tensor], Tensor] | None = None
    after: Callable[[Tensor], Tensor] | None = None

    def start(self, like: Tensor) -> list[Tensor]:
        """The state before the first sample; ``like`` is an empty tensor of the input."""
        size = list(like.shape)
        size[self.axis] = 1
        x = like.new_zeros(size)
        x = x if self.before is None else self.before(x)
        dtype = _WIDE.get(self.dtype, self.dtype) if self.after is None else x.dtype
        return [torch.full_like(x, _IDENTITIES[self.name](dtype), dtype=dtype)]

    def __call__(self, x: Tensor, state: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The outputs for these samples, and the state after them."""
        x = x if self.before is None else self.before(x)
        y: Any = getattr(torch, self.name)(x.to(state[0].dtype), self.axis)
        y = _JOINS[self.name](state[0], y if isinstance(y, Tensor) else y[0])
        last = y.narrow(self.axis, y.shape[self.axis] - 1, 1).clone()
        return y.to(self.dtype) if self.after is None else self.after(y), [last]


# Sums are carried on in more digits, as torch computes them within a call.
_WIDE = {
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.float32: torch.float64,
    torch.complex64: torch.complex128,
}


def _least(dtype: torch.dtype) -> float:
    return float("-inf") if dtype.is_floating_point else torch.iinfo(dtype).min


_IDENTITIES: dict[str, Callable[[torch.dtype], float]] = {
    "cumsum": lambda dtype: 0,
    "cumprod": lambda dtype: 1,
    "cummax": _least,
    "cummin": lambda dtype: float("inf") if dtype.is_floating_point else torch.iinfo(dtype).max,
    "logcumsumexp": _least,
}
_JOINS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cumsum": torch.add,
    "cumprod": torch.mul,
    "cummax": torch.maximum,
    "cummin": torch.minimum,
    "logcumsumexp": torch.logaddexp,
}
ACCUMULATIONS = frozenset(_JOINS)


@dataclass(frozen=True, eq=False, slots=True)
class Registered:
    """An operation of ``register``: its own step.

    Arguments:
        step: ``step(target, inputs, state, end) -> (output, state)``; ``state`` is None at first.
    """

    target: Any
    step: Callable[..., tuple[Tensor, Any]]


@dataclass(frozen=True, eq=False, slots=True)
class OverTime:
    """A function of all samples at once, which gives as many: a normalisation over time."""

    apply: Apply


Work = Apply | Reshape | Convolve | Fill | Within | Recur | Accumulate | Registered | OverTime | None


# Products of the signal with constant matrices.
_PRODUCTS = {"linear", "matmul", "bmm", "mm", "einsum", "addmm", "baddbmm"}


def multiplications(name: str, work: Work, geometry: Geometry | None) -> int:
    """Multiplications by weights for each sample that an operation gives."""
    if isinstance(work, Convolve) and geometry is not None:
        n_weights = work.weight.numel()
        return -(-n_weights // geometry.stride) if geometry.transposed else n_weights
    if isinstance(work, Recur):
        work = work.apply
    elif name not in _PRODUCTS or not isinstance(work, Apply):
        return 0
    return sum(x.numel() for x in work.leaves if isinstance(x, Tensor) and x.ndim == 2)
