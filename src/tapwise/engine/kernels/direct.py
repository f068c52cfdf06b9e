"""direct: the sum as the definition has it, in blocks that stay in the cache.

For depthwise and few channels, where torch's convolution is far from the speed of memory. Padding
of every mode is fused: no padded copy of the signal is made. One thread.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tapwise.engine.problem import Problem
from tapwise.geometry import Geometry

NAME = "direct"

# Samples gathered for one block of outputs: beyond this, memory rather than the cache would hold them.
LARGEST_ROOM = 1 << 24
DTYPES = (torch.float32, torch.float64)


def why_not(problem: Problem) -> str | None:
    """Why this kernel can't run the problem; None where it can."""
    if problem.device != "cpu":
        return f"runs on the CPU, not on {problem.device}"
    if problem.dtype not in DTYPES:
        return f"takes float32 and float64, not {str(problem.dtype).removeprefix('torch.')}"
    if problem.geometry.transposed:
        return "doesn't do transposed convolutions"
    if not _has_numba():
        return "Numba is not installed"
    if _room(problem) > LARGEST_ROOM:
        return "its windows reach too far for a block of them to stay in the cache"
    return None


def _room(problem: Problem) -> int:
    """Samples that the loops gather for a block of outputs."""
    geometry = problem.geometry
    outputs = min(1024, problem.output_length)
    return problem.channels_in_group * (outputs * geometry.stride + geometry.effective_kernel_size)


@cache
def _has_numba() -> bool:
    return importlib.util.find_spec("numba") is not None


def cost(problem: Problem, threads: int) -> float:
    """Predicted seconds for one batch row, on the one thread that this kernel uses."""
    geometry = problem.geometry
    inputs = problem.in_channels * problem.length
    outputs = problem.out_channels * problem.output_length
    an_input = 0.06e-9 if geometry.stride == 1 else 0.5e-9
    seconds = inputs * an_input + outputs * 0.3e-9 + problem.multiplications / 27e9
    return 16e-6 + problem.out_channels * 0.2e-6 + seconds


def run(geometry: Geometry, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution of ``input`` (B, C_in, L) by compiled loops: (B, C_out, L_out)."""
    from tapwise.engine.kernels._direct_loops import convolve

    batch, in_channels, length = input.shape
    out_channels, _, taps = weight.shape
    outputs = geometry.output_length(length)
    output = input.new_empty((batch, out_channels, outputs))
    x = _flat(input)
    copied = geometry.padding_mode != "zeros" and geometry.padding != (0, 0)
    outside = np.r_[-geometry.left : 0, length : length + geometry.right]
    sources = geometry.fold(outside, length) if copied else np.empty(0)
    convolve(
        x,
        _flat(weight),
        np.zeros(out_channels, x.dtype) if bias is None else _flat(bias),
        _flat(output),
        (batch, in_channels, length, out_channels, taps, outputs),
        geometry.stride,
        geometry.dilation,
        geometry.left,
        geometry.groups,
        sources.astype(np.int64),
    )
    return output


def _flat(tensor: Tensor) -> np.ndarray[Any, Any]:
    return tensor.detach().contiguous().view(-1).numpy()
