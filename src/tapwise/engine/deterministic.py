"""Deterministic: outputs of the same bits whatever the batch, and the count of threads.

``direct`` gives them by itself. torch's own operations may sum in another order for another batch, on other
threads, and for rows that lie otherwise in memory: they run on one thread, each row in memory of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from tapwise.engine.kernels import KERNELS, direct
from tapwise.geometry import Geometry


@contextmanager
def one_thread() -> Iterator[None]:
    """torch's operations on the calling thread alone."""
    before = torch.get_num_threads()
    if before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run(kernel: str, geometry: Geometry, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution of ``input`` (B, C_in, L) by a kernel: (B, C_out, L_out)."""
    if kernel == direct.NAME:
        return direct.run(geometry, input, weight, bias)
    with one_thread():
        rows = [KERNELS[kernel].run(geometry, row.clone(), weight, bias) for row in torch.split(input, 1)]
        return torch.cat(rows)
