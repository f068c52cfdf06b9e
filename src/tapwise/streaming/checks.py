"""Checks of what a stream is given, before any work."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tapwise.errors import ShapeError
from tapwise.network.graph import Graph


def check_chunk(graph: Graph, like: Tensor, batch: int, chunk: Any) -> None:
    """Refuse a chunk that doesn't fit the model, the batch of the stream, or its kind of numbers."""
    if not isinstance(chunk, Tensor):
        raise TypeError(f"chunk must be a torch.Tensor, got {type(chunk).__name__}")
    size = graph.nodes[0].size
    wanted = list(size.of(batch, 0))
    fits = chunk.ndim == len(wanted)
    if fits:
        wanted[size.time] = chunk.shape[size.time]
        fits = tuple(wanted) == tuple(chunk.shape)
    if not fits:
        shown = [str(n) for n in wanted]
        shown[size.time] = "any length"
        raise ShapeError(
            "the chunk doesn't fit the stream",
            got=f"a chunk of size {list(chunk.shape)}",
            expected=f"({', '.join(shown)})",
            fix="the first chunk fixes the batch: reset(batch=...) begins anew with another"
            if chunk.ndim == len(wanted) and chunk.shape[0] != wanted[0]
            else "axes and channels are those of the model's input",
        )
    if chunk.dtype != like.dtype or chunk.device != like.device:
        raise ShapeError(
            "the chunk is of another kind than the stream's example",
            got=f"{chunk.dtype} on {chunk.device}",
            expected=f"{like.dtype} on {like.device}",
            fix="convert the chunk, or make the stream with an example of its kind",
        )


def check_batch(graph: Graph, batch: int) -> None:
    """Refuse a batch that the model doesn't take."""
    if batch < 1 or (batch != graph.batch and not graph.batches):
        raise ShapeError(
            "the model was read at one batch only" if batch > 0 else "a batch has at least one row",
            got=f"batch={batch}",
            expected=f"{graph.batch}",
            fix="give tapwise.stream an example of that batch",
        )


def check_mask(separable: bool, batch: int, mask: Any) -> list[bool]:
    """The mask as one bool a slot; refused where rows aren't independent."""
    if not separable:
        raise ShapeError(
            "the rows of this model's chunks can't be told apart",
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
        )
    return [bool(yes) for yes in found]
