"""Chunks: a convolution fed chunk by chunk, equal to one run over the full signal.

One rule for layers' and models' streams: a stream keeps the last inputs that outputs still need, and a
step computes exactly the outputs that have become determined. Fixed shapes, long filters and ``compat``
join and keep by the same functions, with counts of their own.

# history    [ first needed ... seen )            inputs kept from the steps before
# chunk                       [ seen ... )
# outputs         [ emitted ... determined )      computed now; the rest waits for inputs or the flush
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tapwise import partition
from tapwise.engine.autograd import is_traced
from tapwise.engine.checks import autocast_dtype, check_dtypes
from tapwise.engine.dispatch import convolve
from tapwise.engine.memory import address
from tapwise.engine.options import allowing, current_options
from tapwise.errors import ShapeError
from tapwise.geometry import Geometry


class Advance(NamedTuple):
    """What a step does, as integers alone. Positions count from the first sample of the history.

    Arguments:
        geometry: the convolution of the inputs that the new outputs read; None where there are none.
        start: the first of those inputs.
        stop: the end of them.
        first_kept: the first input that is kept after the step.
        left: the inputs that padding copies before them.
        right: the inputs that padding copies after them.
    """

    geometry: Geometry | None
    start: int
    stop: int
    first_kept: int
    left: tuple[int, ...] = ()
    right: tuple[int, ...] = ()


def advance(geometry: Geometry, emitted: int, stop: int, seen: int, seen_after: int, length: int) -> Advance:
    """The step from ``emitted`` outputs to ``stop``, and from ``seen`` inputs to ``seen_after``.

    Arguments:
        length: inputs of the signal that are certain to come in all.
    """
    first = partition.first_needed(geometry, emitted, seen)
    first_kept = partition.first_needed(geometry, max(stop, emitted), seen_after) - first
    if emitted >= stop:
        return Advance(None, 0, 0, first_kept)
    part = partition.part(geometry, emitted, stop, length)
    begin, end = (position - first for position in part.inputs)
    left, right = (tuple(j - first for j in side) for side in (part.left, part.right))
    return Advance(part.geometry, begin, end, first_kept, left, right)


def run(
    step: Advance, weight: Tensor, bias: Tensor | None, history: Tensor, chunk: Tensor
) -> tuple[Tensor | None, Tensor]:
    """The outputs of a step, None where there are none, and the history after it."""
    inputs = joined(history, chunk)
    y = None
    if step.geometry is not None:
        x = narrowed(inputs, step.start, step.stop)
        if step.left or step.right:
            sides = (inputs[..., list(step.left)], x, inputs[..., list(step.right)])
            x = torch.cat(sides, dim=-1)
        if current_options().dtype is None:
            y = convolve(x, weight, bias, step.geometry)
        else:  # which would depend on the chunk's length
            with allowing(None):
                y = convolve(x, weight, bias, step.geometry)
    return y, kept_from(inputs, step.first_kept)


def joined(history: Tensor, chunk: Tensor, axis: int = -1) -> Tensor:
    """``history`` followed by ``chunk``."""
    if history.shape[axis] == 0:
        return chunk
    return history if chunk.shape[axis] == 0 else torch.cat((history, chunk), axis)


def narrowed(x: Tensor, start: int, stop: int, axis: int = -1) -> Tensor:
    """The samples [start, stop): x itself where those are all."""
    return x if start == 0 and stop == x.shape[axis] else x.narrow(axis, start, stop - start)


def kept_from(x: Tensor, start: int, axis: int = -1) -> Tensor:
    """The samples from ``start`` on, in memory of their own, so that a long chunk can be freed."""
    if start == x.shape[axis] == 0:
        return x
    return x.narrow(axis, start, x.shape[axis] - start).clone()


# The stream of one layer


@dataclass
class State:
    """What a layer's stream remembers between two chunks.

    Arguments:
        kept: (batch, in_channels, n) or (in_channels, n): the last n inputs, which outputs still need.
        seen: how many inputs have come, an integer in a tensor without dimensions, on the CPU.
        emitted: how many outputs have been returned, likewise.
    """

    kept: Tensor
    seen: Tensor
    emitted: Tensor

    __module__ = "tapwise"  # by which pickles find it

    def clone(self) -> State:
        """A copy that shares no memory with this state."""
        return State(self.kept.clone(), self.seen.clone(), self.emitted.clone())


# A pytree of tensors, to torch.export and torch.func alike.
torch.export.register_dataclass(State, serialized_type_name="tapwise.State")


class StreamingLayer(nn.Module):
    """A layer's own stream: chunks in, the outputs that they determine out."""

    weight: Tensor
    bias: Tensor | None
    in_channels: int

    def init_state(self, batch: int | None = 1) -> State:
        """The state of a stream before its first chunk.

        Arguments:
            batch: rows of every chunk; None for chunks of (in_channels, n).

        Raises:
            ShapeError: circular padding, which can't be streamed.

        Example:
            >>> import torch, tapwise as tw
            >>> layer = tw.Conv1d.from_taps([1.0, 1.0, 1.0])
            >>> state = layer.init_state()
            >>> y, state = layer.step(torch.ones(1, 1, 2), state)
            >>> y.tolist()
            [[[1.0, 2.0]]]
            >>> y, state = layer.step(torch.ones(1, 1, 2), state)
            >>> y.tolist()
            [[[3.0, 3.0]]]
        """
        if isinstance(self.weight, nn.parameter.UninitializedParameter):
            raise ShapeError(
                "the layer has no weight yet",
                got=f"{type(self).__name__} before its first call",
                expected="a layer that knows its input channels",
                fix="call it once on a signal first",
            )
        geometry = Geometry.of(self)
        if geometry.padding_mode == "circular" and geometry.padding != (0, 0):
            raise ShapeError(
                "circular padding can't be streamed: the first output reads the end of the signal",
                got="padding_mode='circular'",
                expected="'zeros', 'reflect' or 'replicate'",
            )
        shape = (self.in_channels,) if batch is None else (batch, self.in_channels)
        return State(self.weight.new_zeros((*shape, 0)).detach(), _count(0), _count(0))

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The outputs that are determined once the chunk has come, and the state after it.

        All outputs of all steps and of ``flush``, concatenated, are the layer's output for the
        chunks concatenated. The state given is left as it was.

        Arguments:
            x: (batch, in_channels, n), any n, 0 included.
            state: of ``init_state`` or of the step before.

        Raises:
            ShapeError: a chunk of another batch or other channels than the state's; a state of another layer.
        """
        geometry = Geometry.of(self)
        seen, emitted = _check_state(self, geometry, state)
        _check_chunk(self, x, state)
        seen_after = seen + x.shape[-1]
        stop = max(partition.determined(geometry, seen_after), emitted)
        step = advance(geometry, emitted, stop, seen, seen_after, seen_after)
        y, kept = run(step, self.weight, self.bias, state.kept, x)
        y = self._no_outputs(geometry, x) if y is None else y
        return y, replace(state, kept=kept, seen=_count(seen_after), emitted=_count(stop))

    def flush(self, state: State) -> Tensor:
        """The outputs that only the end of the signal determines: those that read right padding.

        The next signal begins with a new ``init_state``.

        Raises:
            ShapeError: a state of another layer.
        """
        geometry = Geometry.of(self)
        seen, emitted = _check_state(self, geometry, state)
        stop = geometry.output_length(seen) if seen else 0
        step = advance(geometry, emitted, stop, seen, seen, seen)
        y, _ = run(step, self.weight, self.bias, state.kept, state.kept[..., :0])
        return self._no_outputs(geometry, state.kept) if y is None else y

    def _no_outputs(self, geometry: Geometry, x: Tensor) -> Tensor:
        weight = self.weight
        channels = weight.shape[1] * geometry.groups if geometry.transposed else weight.shape[0]
        return x.new_zeros((*x.shape[:-2], channels, 0), dtype=autocast_dtype(x))


def _check_state(layer: StreamingLayer, geometry: Geometry, state: State) -> tuple[int, int]:
    """The state's counts; refuse a state that this layer can't have given."""
    if not isinstance(state, State):
        raise TypeError(f"state must be a State, got {type(state).__name__}: init_state() makes one")
    fix = "give each layer's step the state of its own init_state, or of its step before"
    kept = state.kept
    seen, emitted = (_counted(name, getattr(state, name), fix) for name in ("seen", "emitted"))
    if not isinstance(kept, Tensor) or kept.ndim not in (2, 3) or kept.shape[-2] != layer.in_channels:
        raise ShapeError(
            "the state is another layer's",
            got=f"kept of size {list(kept.shape)}" if isinstance(kept, Tensor) else f"kept of {type(kept).__name__}",
            expected=f"(batch, {layer.in_channels}, n) or ({layer.in_channels}, n)",
            fix=fix,
        )
    determined = partition.determined(geometry, seen)  # a step returns all of them
    needed = seen - partition.first_needed(geometry, determined, seen)
    if emitted != determined or kept.shape[-1] != needed:
        raise ShapeError(
            "the state is another layer's",
            got=f"a state that keeps {kept.shape[-1]} samples after {seen} inputs and {emitted} outputs",
            expected=f"one that keeps {needed} after {determined} outputs",
            fix=fix,
        )
    if kept.is_cpu and not is_traced(kept):
        address(kept)  # its memory is there
    weight = layer.weight
    if not _are_alike(kept, weight):
        raise ShapeError(
            "the state is of another kind than the layer",
            got=f"a state of {kept.dtype} on {kept.device}, a layer of {weight.dtype} on {weight.device}",
            fix="convert the layer before its first chunk, or begin anew with init_state",
        )
    return seen, emitted


def _counted(name: str, count: Any, fix: str) -> int:
    is_count = isinstance(count, Tensor) and count.numel() == 1 and count.dtype == torch.int64
    if not is_count or int(count) < 0:
        raise ShapeError(f"the state's {name} must be a count", got=repr(count), expected="an int64 tensor", fix=fix)
    return int(count)


def _check_chunk(layer: StreamingLayer, x: Tensor, state: State) -> None:
    """Refuse a chunk that doesn't fit the stream's state."""
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a torch.Tensor, got {type(x).__name__}: torch.as_tensor(x)")
    kept = state.kept
    if x.ndim < 2 or x.shape[:-1] != kept.shape[:-1]:
        raise ShapeError(
            "the chunk doesn't fit the stream's state",
            got=f"x of size {list(x.shape)}",
            expected=f"x of size ({', '.join(map(str, kept.shape[:-1]))}, any length)",
            fix="init_state(batch) makes a state for another batch, batch=None for x without one; "
            "the channels are the layer's",
        )
    check_dtypes(x, layer.weight, layer.bias)
    if not _are_alike(kept, x):
        raise ShapeError(
            "the chunk doesn't fit the stream's state",
            got=f"x of {x.dtype} on {x.device}, a state of {kept.dtype} on {kept.device}",
            expected="one dtype and one device for a whole stream",
            fix="move or convert the chunk, or begin anew with init_state",
        )


def _are_alike(one: Tensor, other: Tensor) -> bool:
    """Whether both are of one device and, under autocast, of one dtype."""
    same = one.dtype is other.dtype or autocast_dtype(one) == autocast_dtype(other)
    return same and one.device == other.device


def _count(number: int) -> Tensor:
    """On the CPU whatever the default device, since reading it must not wait for another."""
    return torch.tensor(number, device="cpu")
