"""Where a compiled loop finds its inputs, as the numbers of a job."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from tapwise.geometry import Geometry

_Array = np.ndarray[Any, Any]


def dense_rows(tensor: Tensor) -> Tensor:
    """The tensor with each channel's samples side by side."""
    tensor = tensor.detach()
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def padding_sources(geometry: Geometry, length: int) -> _Array | None:
    """The inputs that fill the left padding and then the right, where padding is no zeros."""
    if geometry.padding_mode == "zeros" or geometry.padding == (0, 0):
        return None
    outside = np.r_[-geometry.left : 0, length : length + geometry.right]
    return np.ascontiguousarray(geometry.fold(outside, length), np.int64)


def where(
    x: Tensor, left: int, stride: int, sources: _Array | None, before: Tensor | None = None
) -> list[int]:
    """The numbers of a job that say where its inputs lie: those of ``before``, then those of ``x``."""
    size, earlier = x.element_size(), (0, 0, 0, 0)
    if before is not None:
        rows, channels = before.stride(0) * size, before.stride(1) * size
        earlier = (before.data_ptr(), rows, channels, before.shape[-1])
    return [
        x.data_ptr(), x.stride(0) * size, x.stride(1) * size, *earlier,
        earlier[-1] + x.shape[-1], left, stride,
        *((0, 0) if sources is None else (sources.ctypes.data, sources.size)),
    ]  # fmt: skip
