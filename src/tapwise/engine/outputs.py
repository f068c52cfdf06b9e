"""Memory for outputs: the blocks of large ones are kept when their tensors are freed, and used again.

The C library maps more than 32 MB anew each time. The system then fills page after page with zeros, which takes
longer than most convolutions do. The pages of kept blocks are marked as free: the system takes them back where
memory is short.
"""

from __future__ import annotations

import math
import mmap
import os
import weakref
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from threading import Lock

import numpy as np
import torch
from torch import Tensor

# Below, the C library keeps freed memory itself.
LARGE = 1 << 25
# Bytes of freed blocks that are kept, at most.
MOST_KEPT = 1 << 29
_PAGE = 1 << 21
# A kept block serves an output that fills it this far at least.
_LEAST_FILLED = 0.8
_HAS_PRIVATE_BLOCKS = hasattr(mmap, "MAP_PRIVATE") and hasattr(mmap, "MAP_ANONYMOUS")


def new_output(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """An uninitialised tensor on the CPU."""
    size = math.prod(shape) * dtype.itemsize
    if size >= LARGE and _HAS_PRIVATE_BLOCKS:
        with suppress(OSError, MemoryError):  # torch then raises an error of its own
            return torch.frombuffer(_blocks.lend(size), dtype=dtype).resize_(tuple(shape))
    return torch.empty(shape, dtype=dtype, device="cpu")


class _Loan(weakref.ref["np.ndarray[tuple[int], np.dtype[np.uint8]]"]):
    """A block whose numbers a tensor holds: when the tensor's storage is freed, the block is given back."""

    __slots__ = ("block",)
    block: mmap.mmap


class _Blocks:
    """Blocks of memory, lent and kept. Threads may lend and free at once, and a free may come amid any line.

    The lock guards what is kept. Nobody waits for it: who finds it taken maps a new block, or leaves a freed one to
    who has it.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._loans: dict[int, _Loan] = {}  # alive until they are called back
        self._freed: deque[_Loan] = deque()
        self._kept: list[mmap.mmap] = []

    def lend(self, size: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
        """The bytes of a block, which belong to who holds the array.

        Raises:
            OSError: the system has no memory left.
        """
        block = self._take(size) or self._map(-(-size // _PAGE) * _PAGE)
        numbers = np.frombuffer(block, np.uint8, size)
        loan = _Loan(numbers, self._give_back)
        loan.block = block
        self._loans[id(loan)] = loan
        return numbers

    def forget(self) -> None:
        """Give the kept blocks back to the system."""
        self._kept = []

    def unlock(self) -> None:
        """Begin with a lock that nobody holds: a thread that held it isn't in the child of a fork."""
        self._lock = Lock()

    @property
    def kept_bytes(self) -> int:
        """Bytes of the blocks that no tensor holds."""
        return sum(map(len, self._kept))

    def _take(self, size: int) -> mmap.mmap | None:
        """The smallest kept block that fits, if any."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            fitting = [block for block in self._kept if size <= len(block) <= size / _LEAST_FILLED + _PAGE]
            if not fitting:
                return None
            found = min(fitting, key=len)
            self._kept = [block for block in self._kept if block is not found]
            return found
        finally:
            self._lock.release()
            self._collect()

    def _map(self, size: int) -> mmap.mmap:
        """A new block, in large pages where the system has them."""
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        try:
            block = mmap.mmap(-1, size, flags)
        except OSError:
            self.forget()
            block = mmap.mmap(-1, size, flags)
        _advise(block, "MADV_HUGEPAGE")
        return block

    def _give_back(self, loan: _Loan) -> None:
        """Called where a tensor's storage is freed: in any thread, and amid any line of this class."""
        self._freed.append(loan)
        self._collect()

    def _collect(self) -> None:
        """Keep freed blocks, of which the oldest leave first."""
        while self._freed and self._lock.acquire(blocking=False):
            try:
                kept = self._kept  # forget() may put another list in its place meanwhile
                while self._freed:
                    loan = self._freed.popleft()
                    self._loans.pop(id(loan), None)
                    if len(loan.block) <= MOST_KEPT:
                        _advise(loan.block, "MADV_FREE")
                        kept.append(loan.block)
                while sum(map(len, kept)) > MOST_KEPT:
                    del kept[0]
            finally:
                self._lock.release()


def _advise(block: mmap.mmap, advice: str) -> None:
    """Advice on a block; one that the system refuses, as an old one does, is no harm."""
    value = getattr(mmap, advice, None)
    if value is not None:
        with suppress(OSError):
            block.madvise(value)


_blocks = _Blocks()
forget = _blocks.forget

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_blocks.unlock)
