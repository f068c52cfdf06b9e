"""Position: where a stream stands, as one value."""

from __future__ import annotations

from dataclasses import dataclass

from tapwise.streaming.scheduler import Group


@dataclass(frozen=True)
class Position:
    """Where a stream stands. A step makes another and puts it in place of this one as the last thing it does.

    Arguments:
        groups: slots by their place in their signals; none before the first chunk.
        batch: rows of a chunk.
        active: which slots take chunks; None: all.
        ragged: whether steps return the length of each slot's part too.
    """

    groups: tuple[Group, ...]
    batch: int
    active: tuple[bool, ...] | None = None
    ragged: bool = False
