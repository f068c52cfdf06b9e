"""Deterministic: outputs of the same bits whatever the batch, and the count of threads.

``direct`` gives them by itself. torch's own operations may sum in another order for another batch, on other
threads, and for rows that lie otherwise in memory: they run on one thread, each row in memory of its own. The
count of threads is the process's: other threads that compute meanwhile do with one as well.
"""

from __future__ import annotations

from threading import Lock

import torch
from torch import Tensor

from tapwise.engine.kernels import KERNELS, direct
from tapwise.geometry import Geometry


class _OneThread:
    """torch's operations on the calling thread alone; as long as anyone needs it, since torch has one number for all."""

    def __init__(self) -> None:
        self._lock, self._users, self._before = Lock(), 0, 1

    def __enter__(self) -> None:
        with self._lock:
            if not self._users:
                self._before = torch.get_num_threads()
            self._users += 1
            torch.set_num_threads(1)

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                torch.set_num_threads(self._before)


one_thread = _OneThread()


def run(kernel: str, geometry: Geometry, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution of ``input`` (B, C_in, L) by a kernel: (B, C_out, L_out)."""
    if kernel == direct.NAME:
        return direct.run(geometry, input, weight, bias)
    with one_thread:
        rows = [KERNELS[kernel].run(geometry, row.clone(), weight, bias) for row in torch.split(input, 1)]
        return torch.cat(rows)
