"""direct: the sum as the definition has it, in tiles of sums that stay in registers.

For depthwise and few channels, where torch's convolution is far from the speed of memory, and for
small dense layers. Padding of every mode is fused: no padded copy of the signal is made. Half
precision is widened to float32.
"""

from __future__ import annotations

import importlib.util
from functools import cache

import numpy as np
import torch
from torch import Tensor

from tapwise.engine import threads
from tapwise.engine.memory import ask_large_pages
from tapwise.engine.problem import Problem
from tapwise.geometry import Geometry

NAME = "direct"

# Bytes of gathered samples for one block of outputs: beyond this, not the cache but memory holds them.
LARGEST_ROOM = 1 << 25
_WIDER = {torch.float16: torch.float32, torch.bfloat16: torch.float32}
DTYPES = (torch.float32, torch.float64, *_WIDER)


def why_not(problem: Problem) -> str | None:
    """Why this kernel can't run the problem; None where it can."""
    if problem.device != "cpu":
        return f"runs on the CPU, not on {problem.device}"
    if problem.dtype not in DTYPES:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
        return f"takes {names}, not {str(problem.dtype).removeprefix('torch.')}"
    if problem.geometry.transposed:
        return "doesn't do transposed convolutions"
    if not has_numba():
        return "Numba is not installed"
    if _room(problem) > LARGEST_ROOM:
        return "its windows reach too far for a block of them to stay in the cache"
    return None


def _room(problem: Problem) -> int:
    geometry = problem.geometry
    block = min(_block(geometry, problem.channels_in_group, problem.outputs_in_group, 8), problem.output_length)
    return 8 * problem.channels_in_group * (block * geometry.stride + geometry.effective_kernel_size)


@cache
def has_numba() -> bool:
    """Whether the compiler of our loops is there."""
    return importlib.util.find_spec("numba") is not None


def _packed(channels: int, outputs: int) -> bool:
    """Whether many rows read a block so often that it is copied to lie together."""
    return channels >= 4 and outputs >= 8


def _block(geometry: Geometry, channels: int, outputs: int, size: int) -> int:
    """Outputs of one channel from one task: a room that fits the second-level cache."""
    if _packed(channels, outputs) or geometry.stride > 1:
        room = (1 << 18) // size // (channels * geometry.stride)
        return max(192, min(1008, room // 48 * 48))
    return 4096 if channels * outputs == 1 else 1536


def cost(problem: Problem, threads: int) -> float:
    """Predicted seconds for one batch row."""
    geometry = problem.geometry
    inputs = problem.in_channels * problem.length
    outputs = problem.out_channels * problem.output_length
    an_input = 0.06e-9 if geometry.stride == 1 else 0.5e-9
    seconds = inputs * an_input + outputs * 0.3e-9 + problem.multiplications / 27e9
    return 16e-6 + problem.out_channels * 0.2e-6 + seconds


def run(geometry: Geometry, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution of ``input`` (B, C_in, L) by compiled loops: (B, C_out, L_out)."""
    if input.dtype in _WIDER:
        wide = _WIDER[input.dtype]
        b = None if bias is None else bias.to(wide)
        return run(geometry, input.to(wide), weight.to(wide), b).to(input.dtype)
    from tapwise.engine.kernels import _direct_loops as loops

    batch, _, length = input.shape
    out_channels, channels, taps = weight.shape
    groups, outputs = geometry.groups, geometry.output_length(length)
    output = ask_large_pages(input.new_empty((batch, out_channels, outputs)))
    x, w = dense_rows(input), weight.detach().contiguous()
    b = None if bias is None else bias.detach().contiguous()
    size, in_group = x.element_size(), out_channels // groups
    block = _block(geometry, channels, in_group, size)
    blocks, workers = -(-outputs // block), threads.count()
    share = _share(in_group, batch * groups * blocks, workers)
    shares = -(-in_group // share)
    sources = padding_sources(geometry, length)
    job = [
        x.data_ptr(), x.stride(0) * size, x.stride(1) * size, 0, 0, 0, 0, length,
        w.data_ptr(), 0 if b is None else b.data_ptr(), output.data_ptr(), outputs, groups,
        channels, in_group, taps, geometry.stride, geometry.dilation, geometry.left,
        0 if sources is None else sources.ctypes.data, _packed(channels, in_group),
        block, blocks, share, shares,
    ]  # fmt: skip
    threads.run(loops.body(size), job, batch * groups * blocks * shares, workers)
    return output


def _share(outputs: int, tasks: int, workers: int) -> int:
    """Output channels a task, of those in a group: fewer than all where tasks are few."""
    wanted = -(-4 * workers // max(tasks, 1))
    if workers == 1 or wanted == 1 or outputs < 16:
        return outputs
    return -(-outputs // min(wanted, outputs // 8) // 8) * 8


def dense_rows(tensor: Tensor) -> Tensor:
    """The tensor with each channel's samples side by side."""
    tensor = tensor.detach()
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def padding_sources(geometry: Geometry, length: int) -> np.ndarray | None:
    """The inputs that fill the left padding and then the right, where padding is no zeros."""
    if geometry.padding_mode == "zeros" or geometry.padding == (0, 0):
        return None
    outside = np.r_[-geometry.left : 0, length : length + geometry.right]
    return np.ascontiguousarray(geometry.fold(outside, length), np.int64)
