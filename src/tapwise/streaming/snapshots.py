"""Snapshots: what a stream remembers as a pytree of tensors, and as a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tapwise.atomic_file import write_atomically
from tapwise.errors import ShapeError
from tapwise.extras import need
from tapwise.network.graph import Node
from tapwise.network.operations import Registered
from tapwise.network.timeline import Windows
from tapwise.streaming.scheduler import Group, Scheduler

# Raised where what operations remember changes. 2: transposed convolutions keep inputs, not sums.
FORMAT = 2


def cloned(state: Any) -> Any:
    """A copy that shares no memory."""
    return pytree.tree_map_only(Tensor, lambda t: t.clone(), state)


def snapshot(groups: Sequence[Group], batch: int, active: list[bool], ragged: bool) -> dict[str, Any]:
    """A copy of the groups, and of which slots are active, in tensors."""
    return {
        "format": torch.tensor(FORMAT, device="cpu"),
        "batch": torch.tensor(batch, device="cpu"),
        "active": torch.tensor(active, device="cpu"),
        "ragged": torch.tensor(ragged, device="cpu"),
        "groups": [
            {
                "slots": torch.tensor(group.slots, dtype=torch.int64, device="cpu"),
                "seen": torch.tensor(group.seen, device="cpu"),
                "states": {str(n): cloned(b) for n, b in enumerate(group.buffers) if b},
            }
            for group in groups
        ],
    }


def restore(state: Any, scheduler: Scheduler) -> tuple[list[Group], int, list[bool], bool]:
    """What ``snapshot`` was given: copies.

    Raises:
        ShapeError: a state of another model or in another format, or one that no stream gave.
    """
    try:
        return _restored(state, scheduler)
    except ShapeError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError, OverflowError) as error:
        raise _no_state(f"{type(error).__name__}: {error}") from error


def _no_state(got: str) -> ShapeError:
    return ShapeError(
        "the state is not one that a stream gave",
        got=got,
        expected="what stream.state gave, or stream.save wrote",
        fix="load what a stream of the same model gave, made by tapwise.stream",
    )


def _restored(state: Any, scheduler: Scheduler) -> tuple[list[Group], int, list[bool], bool]:
    written = _count(state["format"]) if "format" in state else 1
    if written > FORMAT or (written < 2 and any(_is_transposed(node) for node in scheduler.graph.nodes)):
        raise ShapeError(
            "the state was saved by another version of Tapwise",
            got=f"format {written}",
            expected=f"format {FORMAT}",
            fix="begin the stream anew, or load the state with the version that saved it",
        )
    batch = _count(state["batch"])
    if batch < 1 or (batch != scheduler.graph.batch and not scheduler.graph.batches):
        raise _no_state(f"a batch of {batch}")
    active = _flags(state["active"])
    (ragged,) = _flags(state["ragged"].reshape(1))
    groups = [_group(saved, scheduler) for saved in state["groups"]]
    slots = sorted(slot for group in groups for slot in group.slots)
    is_even = len(groups) <= 1 and all(active)
    if not (ragged or is_even):
        raise _no_state(f"{len(groups)} groups of slots that are said to stand alike")
    if len(active) != batch or slots not in ([], list(range(batch))):
        raise _no_state(f"slots {slots} of a batch of {batch}, {len(active)} of them marked")
    return groups, batch, active, ragged


def _count(tensor: Tensor) -> int:
    """A number of samples or rows."""
    is_integer = not (tensor.dtype.is_floating_point or tensor.dtype.is_complex or tensor.dtype == torch.bool)
    if not is_integer or tensor.numel() != 1 or not 0 <= int(tensor) < 1 << 62:
        raise ValueError(f"{tensor} where a count has to stand")
    return int(tensor)


def _flags(tensor: Tensor) -> list[bool]:
    if tensor.dtype != torch.bool or tensor.ndim != 1:
        raise ValueError(f"{tensor} where bools have to stand")
    return [bool(yes) for yes in tensor]


def _group(saved: Any, scheduler: Scheduler) -> Group:
    slots, seen = [_count(n) for n in saved["slots"]], _count(saved["seen"])
    # What a stream of this model remembers at this position of its signal: the same sizes.
    fresh = scheduler.begin(slots)
    _, fresh = scheduler.run(fresh, scheduler.zeros(len(slots), scheduler.canonical(seen)), False)
    n_nodes = len(fresh.buffers)
    buffers = [cloned(saved["states"].get(str(n), [])) for n in range(n_nodes)]
    pairs = zip(scheduler.graph.nodes, fresh.buffers, buffers, strict=True)
    if any(not n.isdecimal() or int(n) >= n_nodes for n in saved["states"]) or any(
        not (isinstance(node.work, Registered) or _fits(one, other)) for node, one, other in pairs
    ):
        raise ShapeError(
            "the state is another model's", fix="load what a stream of the same model gave, made by tapwise.stream"
        )
    return Group(slots, seen, buffers)


def _is_transposed(node: Node) -> bool:
    return isinstance(node.timeline, Windows) and node.timeline.geometry.transposed


def _fits(fresh: Sequence[Any], saved: Sequence[Any]) -> bool:
    """Whether saved buffers have the sizes and dtypes of those of an operation."""
    if len(fresh) != len(saved):
        return False
    return all(
        a.shape == b.shape and a.dtype == b.dtype and a.device == b.device for a, b in zip(fresh, saved, strict=True)
    )


def save(state: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a state to a ``.safetensors`` file, complete or not at all."""
    as_bytes = need("safetensors.torch").save
    flat = {
        ".".join(_name(key) for key in keys): leaf.contiguous()
        for keys, leaf in pytree.tree_flatten_with_path(state)[0]
    }
    write_atomically(path, {".safetensors": lambda: as_bytes(flat)})


def _name(key: Any) -> str:
    return str(getattr(key, "key", getattr(key, "idx", "")))


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The state that ``save`` wrote.

    Raises:
        ShapeError: a file that ``save`` didn't write.
        FileNotFoundError: no such file.
    """
    safetensors = need("safetensors.torch")
    try:
        return _as_tree(safetensors.load_file(path))
    except (need("safetensors").SafetensorError, ValueError, TypeError, AttributeError, LookupError) as error:
        raise _no_state(f"{os.fspath(path)}: {error}") from error


def _as_tree(tensors: dict[str, Tensor]) -> dict[str, Any]:
    tree: dict[str, Any] = {"groups": {}}
    for name, leaf in tensors.items():
        *folders, last = name.split(".")
        branch = tree
        for key in folders:
            branch = branch.setdefault(key, {})
        branch[last] = leaf
    return {**tree, "groups": [_listed(group) for _, group in sorted(tree["groups"].items())]}


def _listed(group: dict[str, Any]) -> dict[str, Any]:
    states = {name: [buffers[n] for n in sorted(buffers, key=int)] for name, buffers in group.get("states", {}).items()}
    return {**group, "states": states}
