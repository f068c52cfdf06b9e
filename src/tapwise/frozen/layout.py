"""Layout: tensors as rows, a row being all channels of one moment, side by side.

# (B, C, T)  ->  signal b: row 0 | row 1 | ... | row T-1      of C numbers each
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from tapwise.network.graph import Node
from tapwise.network.operations import Apply, Input, Size


def columns_of(node: Node) -> int | None:
    """Numbers of a row of what a node gives; None where it doesn't lie in rows of float32."""
    size = node.size
    if (
        node.dtype != torch.float32
        or size.flat
        or any(per_row != 1 for _, per_row in size.batch)
        or len(size.batch) > 1
    ):
        return None
    return inner_columns(size)


def inner_axes(size: Size) -> list[int]:
    """The axes that make a row: all but those of the batch and of time."""
    return [axis for axis in range(len(size.entries)) if axis not in _outer(size)]


def inner_columns(size: Size) -> int:
    """The numbers of a moment of a signal."""
    return prod(size.entries[axis] for axis in inner_axes(size))


def _outer(size: Size) -> tuple[int, ...]:
    """The axes of the batch and of time."""
    return (size.batch[0][0], size.time) if size.batch else (size.time,)


def as_rows(x: Tensor, size: Size) -> Tensor:
    """A tensor as (B, T, C), a view where that can be."""
    inner = inner_axes(size)
    rows = x.permute(*_outer(size), *inner)
    if not size.batch:
        rows = rows[None]
    return rows.flatten(2) if inner else rows[..., None]


def strides_of(x: Tensor, size: Size) -> tuple[int, int, int] | None:
    """In numbers, from signal to signal, from moment to moment, and from channel to channel; None where channels lie unevenly."""
    inner = [axis for axis in inner_axes(size) if x.shape[axis] != 1]
    step = x.stride(inner[-1]) if inner else 1
    span = step
    for axis in reversed(inner):
        if x.stride(axis) != span:
            return None
        span *= x.shape[axis]
    return (x.stride(size.batch[0][0]) if size.batch else 0), x.stride(size.time), step


def from_rows(rows: Tensor, size: Size) -> Tensor:
    """The view of (B, T, C) that a node's size says."""
    outer, inner = _outer(size), inner_axes(size)
    x = torch.unflatten(rows, 2, [size.entries[axis] for axis in inner]) if len(inner) != 1 else rows
    if not inner:
        x = rows[..., 0]
    if not size.batch:
        x = x[0]
    order = [*outer, *inner]
    return x.permute(*(order.index(axis) for axis in range(len(order))))


def moved_columns(work: Apply | Any, source: Size, target: Size) -> list[int] | None:
    """By column of what ``work`` gives, the column of its input that it is; None where it is no such move."""
    batch, length = (2, 3) if source.batch else (1, 3)
    shape = source.of(batch, length)
    x = torch.arange(prod(shape), dtype=torch.float32).reshape(shape)
    if x.numel() >= 1 << 24 or bool(source.batch) != bool(target.batch):
        return None
    try:
        y = work([x])
    except (RuntimeError, IndexError, TypeError, ValueError):
        return None
    if tuple(y.shape) != target.of(batch, length):
        return None
    before, after = as_rows(x, source), as_rows(y, target)
    first = {float(value): column for column, value in enumerate(before[0, 0])}
    columns = [first.get(float(value)) for value in after[0, 0]]
    if any(column is None for column in columns):
        return None
    found: list[int] = [column for column in columns if column is not None]
    return found if torch.equal(before[..., found], after) else None


def column_constant(value: Any, size: Size) -> Tensor | None:
    """By column, a number or a tensor that is broadcast to a node's size; None where it changes over time or the batch."""
    if isinstance(value, bool) or not isinstance(value, int | float | Tensor):
        return None
    tensor = torch.as_tensor(value, dtype=torch.float32) if not isinstance(value, Tensor) else value
    if tensor.dtype != torch.float32:
        return None
    try:
        wide = tensor.detach().broadcast_to(size.of(2 if size.batch else 1, 2))
    except RuntimeError:
        return None
    rows = as_rows(wide, size)
    return rows[0, 0].clone() if bool((rows == rows[0, 0]).all()) else None


@dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments of a recorded call, by place or name."""

    positional: tuple[Any, ...]
    named: dict[str, Any]

    @classmethod
    def of(cls, work: Apply) -> Arguments:
        args, kwargs = torch.utils._pytree.tree_unflatten(list(work.leaves), work.spec)
        return cls(tuple(args), dict(kwargs))

    def get(self, place: int, name: str, default: Any = None) -> Any:
        if name in self.named:
            return self.named[name]
        return self.positional[place] if place < len(self.positional) else default

    def signal(self, value: Any) -> bool:
        return type(value) is Input
