"""Stepping: a convolution fed chunk by chunk, equal to one run over the whole signal.

# inputs   . . . . | kept kept | chunk chunk |        seen ->|
# outputs  . . . . emitted ->| now determined |  the rest waits for more inputs or the flush
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from tapwise import partition
from tapwise.engine.autograd import continued
from tapwise.engine.checks import autocast_dtype, check_dtypes
from tapwise.errors import ShapeError
from tapwise.geometry import Geometry


@dataclass
class State:
    """What a layer's stream remembers between two chunks.

    Arguments:
        kept: (batch, in_channels, n) or (in_channels, n): the last n inputs, which outputs still need.
        seen: how many inputs have come, a whole number in a tensor without dimensions, on the CPU.
        emitted: how many outputs have been returned, likewise.
    """

    kept: Tensor
    seen: Tensor
    emitted: Tensor

    def clone(self) -> State:
        """A copy that shares no memory with this state."""
        return State(self.kept.clone(), self.seen.clone(), self.emitted.clone())


# A pytree of tensors, to torch.export and torch.func alike.
torch.export.register_dataclass(State, serialized_type_name="tapwise.State")


def init_state(geometry: Geometry, shape: tuple[int, ...], like: Tensor) -> State:
    """The state before the first chunk. ``shape`` is (batch, in_channels) or (in_channels,).

    Raises:
        ShapeError: circular padding, which needs the end of the signal at its beginning.
    """
    if geometry.padding_mode == "circular" and geometry.padding != (0, 0):
        raise ShapeError(
            "circular padding can't be streamed: the first output reads the end of the signal",
            got="padding_mode='circular'",
            expected="'zeros', 'reflect' or 'replicate'",
        )
    return State(like.new_zeros((*shape, 0)).detach(), _count(0), _count(0))


def step(
    geometry: Geometry, weight: Tensor, bias: Tensor | None, x: Tensor, state: State
) -> tuple[Tensor, State]:
    """The outputs that are determined once the chunk ``x`` has come, and the state after it."""
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a torch.Tensor, got {type(x).__name__}: torch.as_tensor(x)")
    if not isinstance(state, State):
        raise TypeError(
            f"state must be a State, got {type(state).__name__}: init_state() makes one"
        )
    if x.shape[:-1] != state.kept.shape[:-1]:
        raise ShapeError(
            "the chunk doesn't fit the stream's state",
            got=f"x of size {list(x.shape)}",
            expected=f"x of size ({', '.join(map(str, state.kept.shape[:-1]))}, any length)",
            fix="init_state(batch) makes a state for another batch, batch=None for x without one; "
            "the channels are the layer's",
        )
    check_dtypes(x, weight, bias)
    seen, emitted = int(state.seen), int(state.emitted)
    _check_state(x, state, seen - partition.first_needed(geometry, emitted, seen))
    seen += x.shape[-1]
    stop = max(partition.determined(geometry, seen), emitted)
    y = _outputs(geometry, weight, bias, state.kept, x, emitted, stop, seen)
    known = state.kept.shape[-1] + x.shape[-1]
    first = partition.first_needed(geometry, stop, seen) - (seen - known)
    kept = torch.cat(_between(state.kept, x, first, known), dim=-1)
    return y, replace(state, kept=kept, seen=_count(seen), emitted=_count(stop))


def flush(geometry: Geometry, weight: Tensor, bias: Tensor | None, state: State) -> Tensor:
    """The outputs that only the end of the signal determines. The state is spent."""
    seen, emitted = int(state.seen), int(state.emitted)
    stop = geometry.output_length(seen) if seen else 0
    return _outputs(geometry, weight, bias, state.kept, state.kept[..., :0], emitted, stop, seen)


def _check_state(x: Tensor, state: State, needed: int) -> None:
    """The state is this layer's, and the chunk's dtype and device are its own."""
    kept = state.kept
    if kept.shape[-1] != needed:
        raise ShapeError(
            "the state is another layer's",
            got=f"a state that keeps {kept.shape[-1]} samples",
            expected=f"one that keeps {needed}",
            fix="give each layer's step the state of its own init_state, or of its step before",
        )
    if autocast_dtype(kept) != autocast_dtype(x) or kept.device != x.device:
        raise ShapeError(
            "the chunk doesn't fit the stream's state",
            got=f"x of {x.dtype} on {x.device}, a state of {kept.dtype} on {kept.device}",
            expected="one dtype and one device for a whole stream",
            fix="move or convert the chunk, or begin anew with init_state",
        )


def _count(number: int) -> Tensor:
    """On the CPU whatever the default device, since reading it must not wait for another."""
    return torch.tensor(number, device="cpu")


def _outputs(
    geometry: Geometry,
    weight: Tensor,
    bias: Tensor | None,
    kept: Tensor,
    x: Tensor,
    start: int,
    stop: int,
    seen: int,
) -> Tensor:
    """Outputs [start, stop); ``kept`` and then ``x`` (..., C_in, n) are the last of ``seen`` inputs."""
    if start >= stop:
        channels = weight.shape[1] * geometry.groups if geometry.transposed else weight.shape[0]
        return x.new_zeros((*x.shape[:-2], channels, 0), dtype=autocast_dtype(x))
    needed = partition.part(geometry, start, stop, seen)
    offset = seen - kept.shape[-1] - x.shape[-1]
    before, after = _between(kept, x, *(end - offset for end in needed.inputs))
    if needed.left or needed.right:
        known = torch.cat((kept, x), dim=-1)
        left, right = ([j - offset for j in side] for side in (needed.left, needed.right))
        before = torch.cat((known[..., left], before), dim=-1)
        after = torch.cat((after, known[..., right]), dim=-1)
    if x.ndim == 3:
        return continued(needed.geometry, before, after, weight, bias)
    return continued(needed.geometry, before[None], after[None], weight, bias)[0]


def _between(kept: Tensor, x: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
    """The samples [start, stop) of ``kept`` followed by ``x``: those of each."""
    border = kept.shape[-1]
    return (
        kept[..., min(start, border) : min(stop, border)],
        x[..., max(start - border, 0) : max(stop - border, 0)],
    )


class Stepped(nn.Module):
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
        shape = (self.in_channels,) if batch is None else (batch, self.in_channels)
        return init_state(Geometry.of(self), shape, self.weight)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The outputs that are determined once the chunk has come, and the state after it.

        All outputs of all steps and of ``flush``, concatenated, are the layer's output for the
        chunks concatenated. The state given is left as it was.

        Arguments:
            x: (batch, in_channels, n), any n, 0 included.
            state: of ``init_state`` or of the step before.

        Raises:
            ShapeError: a chunk of another batch or other channels than the state's.
        """
        return step(Geometry.of(self), self.weight, self.bias, x, state)

    def flush(self, state: State) -> Tensor:
        """The outputs that only the end of the signal determines: those that read right padding.

        The next signal begins with a new ``init_state``.
        """
        return flush(Geometry.of(self), self.weight, self.bias, state)
