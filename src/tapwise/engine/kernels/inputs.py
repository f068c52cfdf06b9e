"""What our kernels take, and where a compiled loop finds its inputs."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tapwise.engine.memory import address, address_of_array, own_address
from tapwise.engine.problem import Problem
from tapwise.geometry import Geometry

_Array = np.ndarray[Any, Any]

_NO_SOURCES = np.empty(0, np.int64)
# Half precision is summed in float32.
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
    """Bytes of a number where it is summed: 4 or 8."""
    return WIDER.get(dtype, dtype).itemsize


def widened(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function of a geometry and tensors, for half precision too: in float32, then rounded."""

    @wraps(function)
    def wide(geometry: Geometry, *tensors: Tensor | None) -> Tensor:
        assert tensors[0] is not None
        dtype = tensors[0].dtype
        if dtype not in WIDER:
            return function(geometry, *tensors)
        for tensor in tensors:
            address(tensor)  # before it is read
        others = (None if tensor is None else tensor.to(WIDER[dtype]) for tensor in tensors)
        return function(geometry, *others).to(dtype)

    return wide


def contiguous_rows(tensor: Tensor) -> Tensor:
    """The tensor with each channel's samples side by side."""
    tensor = tensor.detach()
    address(tensor)  # before it is read
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def padding_sources(geometry: Geometry, length: int) -> _Array:
    """The inputs that fill the left padding and then the right; none where zeros do."""
    if geometry.padding_mode == "zeros" or geometry.padding == (0, 0):
        return _NO_SOURCES
    outside = np.r_[-geometry.left : 0, length : length + geometry.right]
    return np.ascontiguousarray(geometry.fold(outside, length), np.int64)


# The fields of a job that say where its inputs lie. Strides from row to row and from channel to channel
# are in bytes; ``sources`` is the address of ``padding_sources``.
INPUT_FIELDS = "x x_row x_channel length left stride sources n_sources"


def input_fields(x: Tensor, left: int, stride: int, sources: _Array) -> dict[str, int]:
    """The values of ``INPUT_FIELDS``."""
    size = x.element_size()
    return {
        "x": own_address(x),
        "x_row": x.stride(0) * size,
        "x_channel": x.stride(1) * size,
        "length": x.shape[-1],
        "left": left,
        "stride": stride,
        "sources": address_of_array(sources),
        "n_sources": sources.size,
    }
