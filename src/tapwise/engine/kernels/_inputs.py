"""What our kernels take, and where a compiled loop finds it, as the numbers of a job."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tapwise.engine.problem import Problem
from tapwise.geometry import Geometry

_Array = np.ndarray[Any, Any]

# Half precision is summed up in float32.
WIDER = {torch.float16: torch.float32, torch.bfloat16: torch.float32}
DTYPES = (torch.float32, torch.float64, *WIDER)


def obstacle(problem: Problem) -> str | None:
    """Why no kernel of ours for the CPU can run the problem; None where one may."""
    if problem.device != "cpu":
        return f"runs on the CPU, not on {problem.device}"
    if problem.dtype not in DTYPES:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
        return f"takes {names}, not {str(problem.dtype).removeprefix('torch.')}"
    return None


def summed_bytes(dtype: torch.dtype) -> int:
    """Bytes of a number where it is summed up: 4 or 8."""
    return WIDER.get(dtype, dtype).itemsize


def widened(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function of a geometry and tensors, for half precision too: in float32, then rounded."""

    @wraps(function)
    def wide(geometry: Geometry, *tensors: Tensor | None) -> Tensor:
        assert tensors[0] is not None
        narrow = tensors[0].dtype
        if narrow not in WIDER:
            return function(geometry, *tensors)
        others = (None if tensor is None else tensor.to(WIDER[narrow]) for tensor in tensors)
        return function(geometry, *others).to(narrow)

    return wide


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
