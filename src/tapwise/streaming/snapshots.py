"""Snapshots: what a stream remembers as a pytree of tensors, and as a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tapwise.errors import ShapeError
from tapwise.files import write_whole
from tapwise.network.operations import Taught
from tapwise.streaming.engine import Engine, Group


def cloned(state: Any) -> Any:
    """A copy that shares no memory."""
    return pytree.tree_map_only(Tensor, lambda t: t.clone(), state)


def taken(groups: Sequence[Group], batch: int, active: list[bool], ragged: bool) -> dict[str, Any]:
    """A copy of the groups, and of who is active, in tensors."""
    return {
        "batch": torch.tensor(batch),
        "active": torch.tensor(active),
        "ragged": torch.tensor(ragged),
        "groups": [
            {
                "slots": torch.tensor(group.slots, dtype=torch.int64),
                "seen": torch.tensor(group.seen),
                "states": {str(n): cloned(kept) for n, kept in enumerate(group.states) if kept},
            }
            for group in groups
        ],
    }


def read(state: dict[str, Any], engine: Engine) -> tuple[list[Group], int, list[bool], bool]:
    """What ``taken`` was given: copies.

    Raises:
        ShapeError: a state of another model.
    """
    groups = []
    for saved in state["groups"]:
        slots = [int(n) for n in saved["slots"]]
        seen = int(saved["seen"])
        # What a stream of this model keeps at this place of its signal: the same sizes.
        fresh = engine.begin(slots)
        engine.run(fresh, engine.empty(0, len(slots), engine.graph.canonical(seen)), False)
        many = len(fresh.states)
        states = [cloned(saved["states"].get(str(n), [])) for n in range(many)]
        pairs = zip(engine.graph.nodes, fresh.states, states, strict=True)
        if any(int(n) >= many for n in saved["states"]) or any(
            not (isinstance(node.work, Taught) or _fits(one, other)) for node, one, other in pairs
        ):
            raise ShapeError(
                "the state is another model's",
                fix="load what a stream of the same model gave, made by tapwise.stream",
            )
        groups.append(Group(slots, seen, states))
    active = [bool(yes) for yes in state["active"]]
    return groups, int(state["batch"]), active, bool(state["ragged"])


def _fits(fresh: Sequence[Any], kept: Sequence[Any]) -> bool:
    """Whether what an operation keeps could be what it has kept: of the same sizes and kinds."""
    if len(fresh) != len(kept):
        return False
    return all(a.shape == b.shape and a.dtype == b.dtype for a, b in zip(fresh, kept, strict=True))


def save(state: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a state to a ``.safetensors`` file, whole or not at all."""
    from safetensors.torch import save as as_bytes

    flat = {
        ".".join(_name(key) for key in keys): leaf.contiguous()
        for keys, leaf in pytree.tree_flatten_with_path(state)[0]
    }
    write_whole(path, {".safetensors": lambda: as_bytes(flat)})


def _name(key: Any) -> str:
    return str(getattr(key, "key", getattr(key, "idx", "")))


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The state that ``save`` wrote."""
    from safetensors.torch import load_file

    tree: dict[str, Any] = {"groups": {}}
    for name, leaf in load_file(path).items():
        here, *rest = name.split(".")
        place = tree
        while rest:
            place = place.setdefault(here, {})
            here, *rest = rest
        place[here] = leaf
    return {**tree, "groups": [_listed(group) for _, group in sorted(tree["groups"].items())]}


def _listed(group: dict[str, Any]) -> dict[str, Any]:
    states = {
        name: [kept[n] for n in sorted(kept, key=int)]
        for name, kept in group.get("states", {}).items()
    }
    return {**group, "states": states}
