"""Tasks: complete chunks of the target, as many as the memory allows, and how each is computed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

from tapwise.scale.amounts import in_words
from tapwise.scale.computation import Computation
from tapwise.scale.layout import Layout
from tapwise.signals.base import Reader
from tapwise.signals.stored import StoredReader

# Outputs of a task, all its channels together: large beside what reading and starting one takes.
_USUAL = 1 << 22
# A worker gets at least so many tasks, so that all end at about the same time.
_TASKS_A_WORKER = 4


@dataclass(frozen=True)
class Task:
    """Some outputs, in complete chunks of the target.

    Arguments:
        channels: of the target.
        block: outputs that are computed at once.
        rows: rows of channels that are computed at once.
    """

    start: int
    stop: int
    channels: range
    block: int
    rows: int


@dataclass(frozen=True)
class Division:
    """How a target is divided.

    Arguments:
        outputs: of a task, along time.
        channels: of a task.
        block: outputs that are computed at once.
        rows: rows that are computed at once.
        task_bytes: memory that one task takes.
    """

    layout: Layout
    outputs: int
    channels: int
    block: int
    rows: int
    task_bytes: int

    def tasks(self) -> Iterator[Task]:
        """All tasks, in the order of time."""
        total, channels = self.layout.shape[self.layout.axis], self.layout.channels
        for start in range(0, total, self.outputs):
            for first in range(0, channels, self.channels):
                yield Task(
                    start,
                    min(start + self.outputs, total),
                    range(first, min(first + self.channels, channels)),
                    self.block,
                    self.rows,
                )

    def overlap(self, computation: Computation, length: int) -> int:
        """Samples that a block needs again after the one before it, where no end is near."""
        middle = self.layout.shape[self.layout.axis] // 2
        before = computation.samples(max(0, middle - self.block), middle, length)
        after = computation.samples(middle, middle + 1, length)
        return max(0, before[1] - after[0])

    @property
    def n_tasks(self) -> int:
        """How many there are."""
        total, channels = self.layout.shape[self.layout.axis], self.layout.channels
        return -(-total // self.outputs) * -(-channels // self.channels)


def divide(layout: Layout, computation: Computation, reader: Reader, workers: int, max_memory: int) -> Division:
    """Tasks as large as is usual, of which ``workers`` at once fit in the memory.

    Arguments:
        reader: the recording; a chunk of its store is held while a part of it is read.
        max_memory: bytes of all tasks that run at the same time.

    Raises:
        ValueError: a chunk that needs more memory.
    """
    budget, length = max_memory // workers, reader.length
    chunk_bytes, chunk_samples = _chunk_of(reader)
    total, chunk = layout.shape[layout.axis], layout.chunks[layout.axis]
    channels = _channels_together(layout, computation)
    per_output = 2 * channels * layout.dtype.itemsize  # as computed, and as the store encodes it
    n_chunks = -(-total // chunk)
    at_most = max(1, _USUAL // max(channels * chunk, 1))
    # Not less than a chunk of the source, which would be read again for each of its parts.
    at_least = max(1, round(chunk_samples / computation.moments.stride) // chunk)
    in_task = max(at_least, min(at_most, -(-n_chunks // (workers * _TASKS_A_WORKER))))
    # An eighth of the memory, since allocators keep what several tasks gave back; a source's chunk may take half.
    for least, share in ((at_least, 8), (1, 2)):
        while in_task > least and in_task * chunk * per_output > budget // share:
            in_task = max(least, in_task // 2)
    outputs = min(in_task * chunk, total)
    held = outputs * per_output
    rows, block = channels // computation.channels_out, outputs
    middle = (total - block) // 2 // chunk * chunk  # where no end is near

    def needed() -> int:
        return held + chunk_bytes + computation.needed_bytes(rows, middle, middle + block, length)

    while needed() > budget and (rows > 1 or block > 1):
        rows, block = (-(-rows // 2), block) if rows > 1 else (rows, -(-block // 2))
    if needed() > budget:
        raise ValueError(
            f"max_memory: {in_words(max_memory)} for {workers} worker{'s' * (workers > 1)} is too little: one chunk of "
            f"the target, {chunk:,} outputs of {channels:,} channels, takes {in_words(needed())} in each"
            + (f", of which a chunk of the source takes {in_words(chunk_bytes)}" if chunk_bytes else "")
            + "; give more, fewer workers, or shorter chunks (chunk=)"
        )
    return Division(layout, outputs, channels, block, rows, needed())


def interleaved(tasks: list[Task], n: int) -> list[Task]:
    """Tasks in an order in which ``n`` workers each go on from where they were.

    Example:
        >>> interleaved([0, 1, 2, 3, 4], 2)  # numbers in place of tasks
        [0, 3, 1, 4, 2]
    """
    each = -(-len(tasks) // n)
    rows = [tasks[start : start + each] for start in range(0, len(tasks), each or 1)]
    return [task for together in zip_longest(*rows) for task in together if task is not None]


def _chunk_of(reader: Reader) -> tuple[int, int]:
    """Bytes of a chunk of the source, and its samples along time; 0 where it has none."""
    if not isinstance(reader, StoredReader) or not reader.array.chunks:
        return 0, 0
    return math.prod(reader.array.chunks) * reader.dtype.itemsize, reader.array.chunks[reader.axis]


def _channels_together(layout: Layout, computation: Computation) -> int:
    """Channels of a task: complete chunks, and complete rows."""
    unit, all_channels = min(layout.channel_unit, layout.channels), layout.channels
    together = unit
    while together % computation.channels_out and together < all_channels:
        together += unit
    return min(together, all_channels)
