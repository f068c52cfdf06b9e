"""Memory: the addresses that compiled loops are given, and a check that they stay within their tensors.

Compiled loops read and write by address alone. ``address`` and ``address_of_array`` are where they get one:
neither is ever null for memory that is read. With ``TAPWISE_CHECK_MEMORY=1`` in the environment, every
job is checked before it runs: each address range that it spans must lie within the storage of one tensor.
The tests run so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from threading import local
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

IS_CHECKED = os.environ.get("TAPWISE_CHECK_MEMORY", "0") not in ("", "0")


class Range(NamedTuple):
    """Bytes that a job may touch: ``[start, stop)``, named for messages."""

    name: str
    start: int
    stop: int


class _Ranges(local):
    """Of this thread's next jobs: by address, the memory that belongs to it."""

    def __init__(self) -> None:
        self.by_address: dict[int, tuple[int, int]] = {}


_ranges = _Ranges()


def address(tensor: Tensor | None) -> int:
    """Where the tensor's first number lies; 0 for None.

    Raises:
        RuntimeError: a tensor that has no memory for its numbers: its storage was freed or made smaller.
    """
    if tensor is None:
        return 0
    held = tensor.untyped_storage().nbytes()
    span = tensor.numel()
    if not tensor.is_contiguous() and span:
        span = 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    if (tensor.storage_offset() + span) * tensor.element_size() > held and span:
        raise RuntimeError(
            f"a tensor of size {list(tensor.shape)} lies beyond its memory: its storage of {held} bytes was freed or "
            "made smaller"
        )
    return own_address(tensor)


def own_address(tensor: Tensor) -> int:
    """The same of a tensor that was made, or looked at, just now."""
    first = tensor.data_ptr()
    if IS_CHECKED:
        storage = tensor.untyped_storage()
        _ranges.by_address[first] = (storage.data_ptr(), storage.data_ptr() + storage.nbytes())
    return first


def address_of_array(array: np.ndarray[Any, Any]) -> int:
    """Where the first number of a contiguous array lies; 0 for an empty one."""
    if not array.size:
        return 0
    first = int(array.ctypes.data)
    if IS_CHECKED:
        _ranges.by_address[first] = (first, first + array.nbytes)
    return first


def input_range(job: Any, rows: int, channels: int, size: int) -> Range:
    """What a job may read of its inputs: rows and channels lie the job's strides apart.

    Arguments:
        size: bytes of a sample.
    """
    last = (rows - 1) * job.x_row + (channels - 1) * job.x_channel
    return Range("x", job.x, job.x + last + job.length * size if rows and channels else job.x)


def sources_range(job: Any) -> Range:
    """The padding's sources, 8 bytes each."""
    return Range("sources", job.sources, job.sources + 8 * job.n_sources)


def check(kind: str, ranges: Iterator[Range]) -> None:
    """Refuse a job that would leave the memory of its tensors.

    Raises:
        AssertionError: naming the job and the field.
    """
    for name, start, stop in ranges:
        if stop <= start:
            continue
        begin, end = _ranges.by_address.get(start, (0, 0))
        if not begin <= start < stop <= end:
            # Raised, not asserted: it must hold under -O too.
            raise AssertionError(f"{kind}: {name} spans [{start}, {stop}), its memory is [{begin}, {end})")
    _ranges.by_address.clear()
