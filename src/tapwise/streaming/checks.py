"""Checks of what a stream is given, before any work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tapwise.errors import ShapeError
from tapwise.network.graph import Graph, Node
from tapwise.padding import integer


def check_chunks(graph: Graph, likes: Sequence[Tensor], batch: int, seen: int, chunks: Sequence[Any]) -> None:
    """Refuse chunks that don't fit the model, the batch of the stream, or its kind of numbers."""
    if len(chunks) != len(likes):
        raise ShapeError(
            "the model has another number of signals",
            got=f"{len(chunks)} chunks",
            expected=f"{len(likes)}, one for each signal of its inputs: {', '.join(map(str, graph.places))}",
            fix="the other inputs stay as they were in the example"
            if len(chunks) > len(likes)
            else "step(chunk, other): one for each input that is as long as the signal",
        )
    for number, (like, chunk) in enumerate(zip(likes, chunks, strict=True)):
        name = "chunk" if len(likes) == 1 else f"chunk {number}"
        _check_chunk(graph.nodes[number], like, batch, name, chunk)
    if len(chunks) == 1:
        return
    length = chunks[0].shape[graph.nodes[0].size.time]
    before, after = graph.counts(seen), graph.counts(seen + length)
    for number, chunk in enumerate(chunks):
        wanted = after[number][0] - before[number][0]
        found = chunk.shape[graph.nodes[number].size.time]
        if found != wanted:
            raise ShapeError(
                "the chunks don't cover the same time",
                got=f"chunk {number} of {found} samples beside {length} of chunk 0",
                expected=f"{wanted} samples",
                fix="cut all signals at the same moments",
            )


def _check_chunk(node: Node, like: Tensor, batch: int, name: str, chunk: Any) -> None:
    if not isinstance(chunk, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(chunk).__name__}")
    size = node.size
    wanted = list(size.of(batch, 0))
    fits = chunk.ndim == len(wanted)
    if fits:
        wanted[size.time] = chunk.shape[size.time]
        fits = tuple(wanted) == tuple(chunk.shape)
    if not fits:
        shown = [str(n) for n in wanted]
        shown[size.time] = "any length"
        raise ShapeError(
            f"the {name} doesn't fit the stream",
            got=f"a {name} of size {list(chunk.shape)}",
            expected=f"({', '.join(shown)})",
            fix="the first chunk fixes the batch: reset(batch=...) begins anew with another"
            if chunk.ndim == len(wanted) and chunk.shape[0] != wanted[0]
            else "axes and channels are those of the model's input",
        )
    if chunk.dtype != like.dtype or chunk.device != like.device:
        raise ShapeError(
            f"the {name} is of another kind than the stream's example",
            got=f"{chunk.dtype} on {chunk.device}",
            expected=f"{like.dtype} on {like.device}",
            fix="convert the chunk, or make the stream with an example of its kind",
        )


def check_end(graph: Graph, lengths: Mapping[int, int], batch: int) -> None:
    """Refuse to end signals of a length that the model doesn't take.

    Arguments:
        lengths: by slot that ends, its samples.
    """
    for slot, seen in lengths.items():
        missing = graph.missing(seen) if seen else 0
        if missing:
            are_alike = len(lengths) == batch and len(set(lengths.values())) == 1
            where = "" if are_alike else f" in slot {slot}"
            alone = "" if are_alike else "by active(mask), let the other slots wait; "
            raise ShapeError(
                "the model doesn't take a signal of this length",
                got=f"{seen} samples{where}",
                expected=f"a multiple of {graph.multiple}"
                if graph.example_length % graph.multiple == 0
                else f"{graph.example_length % graph.multiple} more than a multiple of {graph.multiple}",
                fix=f"{alone}step with {missing} more samples, as zeros, then flush, and leave out what they "
                "gave; nothing was lost",
            )


def check_batch(graph: Graph, batch: int) -> None:
    """Refuse a batch that the model doesn't take."""
    integer("batch", batch)
    if batch < 1 or (batch != graph.batch and not graph.batches):
        raise ShapeError(
            "the model was read at one batch only" if batch > 0 else "a batch has at least one row",
            got=f"batch={batch}",
            expected=f"{graph.batch}",
            fix="give tapwise.stream an example of that batch",
        )


def check_mask(inseparable: str | None, batch: int, mask: Any) -> list[bool]:
    """The mask as one bool a slot; refused where rows aren't independent, for the reason given."""
    if inseparable is not None:
        raise ShapeError(
            f"the rows of this model's chunks can't be told apart: {inseparable}",
            got="a mask",
            fix="give tapwise.stream an example (batch, ...) of a model whose rows don't depend on each "
            "other; a stream for each signal always goes",
        )
    found = torch.as_tensor(mask)
    if found.dtype != torch.bool or tuple(found.shape) != (batch,):
        raise ShapeError(
            "the mask must say yes or no for every slot",
            got=f"{found.dtype} of size {list(found.shape)}",
            expected=f"bool, ({batch},)",
            fix="torch.arange(batch) == 1 means slot 1 alone",
        )
    return [bool(yes) for yes in found]
