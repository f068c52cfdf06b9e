"""Exchange: samples that travel between ranks, forward and backward, while the rest is computed.

Forward, a rank sends runs of its shard to the ranks whose windows reach into it. Backward, their gradients come back
and are added. Every rank takes part in every exchange, also with an empty shard: one that didn't would leave the
others waiting.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from tapwise.scale.shards import Run, Shards, Transfer


class RankError(RuntimeError):
    """A collective that failed or took too long: names the layer."""


@dataclass(eq=False)
class Ranks:
    """The ranks over which sequences are divided, and what they sent.

    It keeps no group alive: one that outlives ``destroy_process_group`` ends Python with an abort.

    Arguments:
        reference: to the process group, a weak one.
        timeout: seconds that a collective may take.
        sent_bytes: by this rank, of samples and their gradients.
        length_bytes: by this rank, of the lengths of shards.
        exchanges: collectives of samples that it took part in.
        swaps: convolutions for which channels were exchanged for time.
    """

    reference: weakref.ref[Any]
    timeout: float = 300.0
    sent_bytes: int = 0
    length_bytes: int = 0
    exchanges: int = 0
    swaps: int = 0
    path: str = field(default="", repr=False)

    def __deepcopy__(self, memo: Any) -> Ranks:
        return self  # of a copied model, the same group

    def __reduce__(self) -> Any:
        raise TypeError("a parallelized model can't be pickled: save its state_dict, and parallelize a new one")

    @property
    def group(self) -> Any:
        """The process group.

        Raises:
            RankError: it was destroyed.
        """
        group = self.reference()
        if group is None:
            raise RankError("the process group of the parallelized model was destroyed: parallelize it anew")
        return group

    @property
    def rank(self) -> int:
        """The place of this process in the group."""
        return dist.get_rank(self.group)

    @property
    def size(self) -> int:
        """How many ranks there are."""
        return dist.get_world_size(self.group)

    def lengths(self, numbers: Sequence[int], device: torch.device) -> list[tuple[int, ...]]:
        """For each number of this rank, those of all ranks."""
        if self.size == 1:
            return [(n,) for n in numbers]
        own = torch.tensor(numbers, dtype=torch.int64, device=device)
        every = [torch.empty_like(own) for _ in range(self.size)]
        self.length_bytes += own.numel() * own.element_size() * (self.size - 1)
        with self.naming("the lengths of its shards"):
            work = dist.all_gather(every, own, group=self.group, async_op=True)
            work.wait(timedelta(seconds=self.timeout))
        return list(zip(*(tensor.tolist() for tensor in every), strict=True))

    def begin(self, sent: Tensor, sends: Sequence[int], receives: Sequence[int]) -> tuple[Tensor, Any]:
        """Start to send rows of a tensor (n, ...), some to each rank; what is received, and the work to be waited for."""
        rows = sent.new_empty(sent.shape).copy_(sent)  # without the odd strides of axes of one entry
        received = rows.new_empty((sum(receives), *rows.shape[1:]))
        row_bytes = math.prod(rows.shape[1:]) * rows.element_size()
        if not row_bytes:  # of an empty batch, on every rank
            return received, None
        self.sent_bytes += sum(sends) * row_bytes
        self.exchanges += 1
        to, of = _as_bytes(received, row_bytes), _as_bytes(rows, row_bytes)
        with self.naming("its samples"):
            work = dist.all_to_all_single(to, of, list(receives), list(sends), group=self.group, async_op=True)
        return received, (work, of)  # what is sent must live until it has gone

    def finish(self, work: Any) -> None:
        """Wait for a collective.

        Raises:
            RankError: one that failed, or took too long.
        """
        if work is None:
            return
        with self.naming("its samples"):
            work = work[0] if isinstance(work, tuple) else work
            work.wait(timedelta(seconds=self.timeout))

    @contextmanager
    def naming(self, what: str) -> Any:
        """Errors of torch.distributed, with the layer at which they were raised."""
        try:
            yield
        except RankError:
            raise
        except RuntimeError as error:
            raise RankError(
                f"rank {self.rank}: {self.path or 'the model'} couldn't exchange {what} within {self.timeout:g} s: a rank "
                f"has ended or is late ({str(error).partition(chr(10))[0][:200]})"
            ) from error


def _as_bytes(rows: Tensor, row_bytes: int) -> Tensor:
    """(n, ...) as bytes (n, row_bytes), since not every backend sends every dtype."""
    flat = torch.view_as_real(rows) if rows.is_complex() else rows
    return flat.reshape(-1).view(torch.uint8).view(rows.shape[0], row_bytes)


@dataclass
class Link:
    """One exchange: how many samples travel, and the works that are on their way."""

    ranks: Ranks
    transfer: Transfer
    path: str
    work: Any = None
    reverse: Any = None

    @property
    def n_sent(self) -> list[int]:
        """Samples to each rank."""
        return [sum(b - a for a, b in runs) for runs in self.transfer.sends]

    def begin(self, sent: Tensor) -> tuple[Tensor, Any]:
        """Start to send (batch, channels, n), some to each rank in order; (m, batch, channels) that are received."""
        self.ranks.path = self.path
        return self.ranks.begin(sent.permute(2, 0, 1), self.n_sent, self.transfer.receives)

    def begin_return(self, grad: Tensor) -> tuple[Tensor, Any]:
        """Start to send gradients of what was received, (batch, channels, m), back to where it is from."""
        self.ranks.path = self.path
        return self.ranks.begin(grad.permute(2, 0, 1), self.transfer.receives, self.n_sent)

    def finish(self, work: Any) -> None:
        """Wait for what was begun."""
        self.ranks.path = self.path
        self.ranks.finish(work)


# Of one layer, forward, then backward in the reverse order. What stands between begin and end is computed meanwhile:
#
#     x -> _Split -> x     -> interior ------------------> y   (_Split joins the gradients of x and of its runs)
#                 -> runs  -> _Begin ... _End -> edges --> y   (_Tied: a rank without edges joins all the same)
#
# Backward, _End begins to send gradients back and notes it in ``link.reverse``; _Begin waits for it. Where gradients
# get gradients themselves nothing is begun early, ``link.reverse`` is None, and _Travel does both.
#
# In each function below, an anchor is a tensor that requires a gradient on every rank. What is computed of it does so
# too, also on a rank whose own outputs need nothing of what travels: so all ranks join in gradients of gradients.


class _Travel(torch.autograd.Function):
    """(batch, channels, n) that is sent -> (batch, channels, m) that is received; or gradients the other way round.

    Each direction is the other's adjoint.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, link: Link, anchor: Tensor | None, is_return: bool) -> Tensor:
        ctx.settings = link, anchor, not is_return
        received, work = link.begin_return(x) if is_return else link.begin(x)
        link.finish(work)
        return received.permute(1, 2, 0).contiguous()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        return _Travel.apply(grad, *ctx.settings), None, None, None  # type: ignore[no-untyped-call]


class _Begin(torch.autograd.Function):
    """``_Travel`` begun; ``_End`` waits for it. Backward, ``_End`` begins and this waits."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, link: Link, anchor: Tensor | None) -> Tensor:
        ctx.link, ctx.anchor = link, anchor
        received, link.work = link.begin(x)
        return received.permute(1, 2, 0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        link: Link = ctx.link
        if link.reverse is None:  # a gradient that has a gradient itself
            return _Travel.apply(grad, link, ctx.anchor, True), None, None  # type: ignore[no-untyped-call]
        (rows, work), link.reverse = link.reverse, None
        link.finish(work)
        return rows.permute(1, 2, 0), None, None


class _End(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, received: Tensor, link: Link) -> Tensor:
        ctx.link = link
        work, link.work = link.work, None
        link.finish(work)
        return received.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        if not torch.is_grad_enabled():
            ctx.link.reverse = ctx.link.begin_return(grad)
        return grad, None


class _Split(torch.autograd.Function):
    """A shard, and runs of its samples beside it; backward, their gradients are added in one pass over the shard's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, runs: tuple[Run, ...]) -> tuple[Tensor, Tensor]:
        ctx.runs = runs
        return x.view_as(x), torch.cat([x[..., a:b] for a, b in runs] or [x[..., :0]], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, of_runs: Tensor) -> tuple[Tensor, None]:
        return _Merge.apply(grad, of_runs, ctx.runs), None  # type: ignore[no-untyped-call]


class _Merge(torch.autograd.Function):
    """The adjoint of ``_Split``."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, of_runs: Tensor, runs: tuple[Run, ...]) -> Tensor:
        ctx.runs = runs
        merged, at = grad.clone(), 0
        for start, stop in runs:
            merged[..., start:stop] += of_runs[..., at : at + stop - start]
            at += stop - start
        return merged

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        return (*_Split.apply(grad, ctx.runs), None)  # type: ignore[no-untyped-call]


def split(x: Tensor, runs: Sequence[Run]) -> tuple[Tensor, Tensor]:
    """A shard (batch, channels, n), and (batch, channels, m) of some runs of it, joined."""
    result: tuple[Tensor, Tensor] = _Split.apply(x, tuple(runs))  # type: ignore[no-untyped-call]
    return result


class _Tied(torch.autograd.Function):
    """The outputs; backward, zeros for inputs and weights that they would otherwise not lead back to.

    As of a convolution, what is zero for an input depends on the weights, and the other way round: gradients of
    gradients then take the same way on every rank.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, n_inputs: int, *others: Tensor) -> Tensor:
        ctx.n_inputs = n_inputs
        ctx.save_for_backward(*others)
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        inputs, weights = ctx.saved_tensors[: ctx.n_inputs], ctx.saved_tensors[ctx.n_inputs :]
        of_inputs = _Zeros.apply(grad, len(inputs), *inputs, *weights)  # type: ignore[no-untyped-call]
        of_weights = _Zeros.apply(grad, len(weights), *weights, *inputs)  # type: ignore[no-untyped-call]
        return (grad, None, *of_inputs, *of_weights)


class _Zeros(torch.autograd.Function):
    """Zeros like the first tensors, that depend on a gradient and on the other tensors without changing with them."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, n: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.n = n
        ctx.save_for_backward(grad, *tensors[n:])
        return tuple(torch.zeros_like(tensor) for tensor in tensors[:n])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        grad, *others = ctx.saved_tensors
        return (torch.zeros_like(grad), None, *[None] * ctx.n, *map(torch.zeros_like, others))


def begin(x: Tensor, link: Link, anchor: Tensor | None) -> Tensor:
    """Start an exchange; what is received is not to be read before ``end``.

    Arguments:
        anchor: what the outputs depend on besides, on every rank.
    """
    received: Tensor = _Begin.apply(x, link, anchor if x.requires_grad else None)  # type: ignore[no-untyped-call]
    return received


def end(received: Tensor, link: Link) -> Tensor:
    """Wait for an exchange: (batch, channels, m), samples by rank in order."""
    result: Tensor = _End.apply(received, link)  # type: ignore[no-untyped-call]
    return result


class _Swap(torch.autograd.Function):
    """Some time of all channels becomes all time of some channels, or the other way round: each is the other's adjoint.

    # rank 0    c0 [ t0 ]  c1 [ t0 ]        c0 [ t0 | t1 ]
    # rank 1    c0 [ t1 ]  c1 [ t1 ]   ->   c1 [ t0 | t1 ]
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, ranks: Ranks, shards: Shards, bounds: tuple[int, ...], to_channels: bool
    ) -> Tensor:
        ctx.settings = ranks, shards, bounds, to_channels
        ctx.path = ranks.path
        batch, own = x.shape[0], ranks.rank
        counts = [b - a for a, b in pairwise(bounds)]
        if to_channels:
            parts = [x[:, a:b] for a, b in pairwise(bounds)]
            shapes = [(batch, counts[own], n) for n in shards.lengths()]
        else:
            parts = [x[..., a:b] for a, b in pairwise(shards.bounds)]
            shapes = [(batch, n, shards.lengths()[own]) for n in counts]
        sent = torch.cat([part.reshape(-1) for n, part in enumerate(parts) if n != own])
        sends = [0 if n == own else part.numel() for n, part in enumerate(parts)]
        receives = [0 if n == own else math.prod(shape) for n, shape in enumerate(shapes)]
        received, work = ranks.begin(sent, sends, receives)
        ranks.finish(work)
        pieces = [
            piece.view(shape)
            for piece, shape in zip(torch.split(received, receives), _without(shapes, own), strict=True)
        ]
        pieces[own] = parts[own]
        return torch.cat(pieces, -1 if to_channels else 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        ranks, shards, bounds, to_channels = ctx.settings
        ranks.path = ctx.path
        back = _Swap.apply(grad, ranks, shards, bounds, not to_channels)  # type: ignore[no-untyped-call]
        return back, None, None, None, None


def _without(shapes: Sequence[tuple[int, ...]], own: int) -> list[tuple[int, ...]]:
    return [(0,) if n == own else shape for n, shape in enumerate(shapes)]


def swapped(x: Tensor, ranks: Ranks, shards: Shards, bounds: tuple[int, ...], to_channels: bool) -> Tensor:
    """Exchange channels for time, or back.

    Arguments:
        x: (batch, all channels, the rank's time), or (batch, the rank's channels, all time).
        shards: of the time.
        bounds: of rank r, the channels [bounds[r], bounds[r + 1]).
    """
    result: Tensor = _Swap.apply(x, ranks, shards, bounds, to_channels)  # type: ignore[no-untyped-call]
    return result


def tied(y: Tensor, inputs: Sequence[Tensor | None], weights: Sequence[Tensor | None]) -> Tensor:
    """The outputs, whose backward reaches all inputs and weights too, with zeros."""
    some, others = ([t for t in tensors if t is not None] for tensors in (inputs, weights))
    result: Tensor = _Tied.apply(y, len(some), *some, *others)  # type: ignore[no-untyped-call]
    return result
