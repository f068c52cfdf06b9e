"""gemm: matrix products. One a tap on shifted views of the signal, or one a block of gathered windows.

# y[:, a:b] += weight[:, :, k] @ x[:, a + k*dilation - left : ...]      a tap; padding has no products
# y[:, a:b]  = weight.flatten(1) @ windows(a, b)                        a block; (C_in*K, b - a) gathered
# y          = fold(weight.flatten(1).T @ x)                            transposed, of few inputs

The first reads the signal where it stands, and is for many channels and stride 1; the second is for few
channels, other strides and padding modes other than zeros. The third is for a stream's steps: each input
gives its products with all taps, which ``fold`` adds up where they overlap:

# input 0: a b c d            outputs of stride 2: a b (c+e) (d+f) g h
# input 1:     e f g h
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tapwise.engine.kernels import inputs
from tapwise.engine.memory import address
from tapwise.engine.outputs import new_output
from tapwise.engine.problem import Problem
from tapwise.geometry import Geometry

NAME = "gemm"

# Numbers that the windows of one block may hold.
_WINDOWS = 1 << 18
# Rows of a product below which gathering windows is cheaper than a pass over y a tap.
_FEW_CHANNELS = 16
# Inputs of a transposed convolution whose products with all taps are held at once.
_FEW_INPUTS = 16


def why_not(problem: Problem) -> str | None:
    """Why this kernel can't run the problem; None where it can."""
    if (obstacle := inputs.obstacle(problem)) is not None:
        return obstacle
    if problem.geometry.transposed and problem.length > _FEW_INPUTS:
        return f"does transposed convolutions of at most {_FEW_INPUTS} inputs"
    return None


def block_length(geometry: Geometry, fan_in: int) -> int:
    """Outputs of one block of windows; 0 where there is one product a tap."""
    reads_in_place = geometry.padding_mode == "zeros" or geometry.padding == (0, 0)
    fits = fan_in >= _FEW_CHANNELS or geometry.kernel_size == 1
    if geometry.stride == 1 and reads_in_place and fits:
        return 0
    return max(64, min(4096, _WINDOWS // (fan_in * geometry.kernel_size)))


def tiles(problem: Problem) -> str:
    """How the work is divided, in words."""
    if problem.geometry.transposed:
        return "one product for all taps"
    block = block_length(problem.geometry, problem.in_channels_per_group)
    return f"blocks of {block} windows" if block else "a product a tap"


@inputs.widened
def run(geometry: Geometry, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution of ``input`` (B, C_in, L) by matrix products: (B, C_out, L_out)."""
    for tensor in (input, weight):
        address(tensor)  # before it is read
    groups, outputs = geometry.groups, geometry.output_length(input.shape[-1])
    x = inputs.contiguous_rows(input)
    w = _grouped(weight.detach().contiguous(), 0, groups)  # (g, o, c, K); transposed: (g, c, o, K)
    channels = w.shape[2] * groups if geometry.transposed else weight.shape[0]
    y = new_output((input.shape[0], channels, outputs), input.dtype)
    block = block_length(geometry, w.shape[2])
    for row, y_row in zip(_grouped(x, 1, groups), _grouped(y, 1, groups), strict=True):
        for samples, filters, out in zip(row, w, y_row, strict=True):
            if geometry.transposed:
                _all_taps(geometry, samples, filters, out)
            elif block == 0:
                _tap_by_tap(geometry, samples, filters, out)
            else:
                _block_by_block(geometry, samples, filters, out, block)
    return y if bias is None else y.add_(bias.detach()[:, None])


def _grouped(tensor: Tensor, axis: int, groups: int) -> Tensor:
    shape = list(tensor.shape)
    return tensor.view(*shape[:axis], groups, shape[axis] // groups, *shape[axis + 1 :])


def _tap_by_tap(geometry: Geometry, x: Tensor, w: Tensor, y: Tensor) -> None:
    length, outputs = x.shape[-1], y.shape[-1]
    y.zero_()
    for k in range(w.shape[-1]):
        shift = k * geometry.dilation - geometry.left
        start, stop = max(0, -shift), min(outputs, length - shift)
        if start < stop:
            y[:, start:stop].addmm_(w[:, :, k], x[:, start + shift : stop + shift])


def _block_by_block(geometry: Geometry, x: Tensor, w: Tensor, y: Tensor, block: int) -> None:
    channels, taps = w.shape[1:]
    stride, dilation = geometry.stride, geometry.dilation
    filters = w.reshape(w.shape[0], -1)  # (o, c*K)
    for start in range(0, y.shape[-1], block):
        stop = min(start + block, y.shape[-1])
        first = start * stride - geometry.left
        count = (stop - start - 1) * stride + geometry.effective_kernel_size
        part = _positions(geometry, x, first, count)
        shape = (channels, taps, stop - start)
        windows = part.as_strided(shape, (part.stride(0), dilation, stride), part.storage_offset())
        torch.mm(filters, windows.reshape(channels * taps, -1), out=y[:, start:stop])


def _all_taps(geometry: Geometry, x: Tensor, w: Tensor, y: Tensor) -> None:
    # x.T @ w, not w.T @ x, which for a few inputs takes the library that torch calls many times as long.
    products = (x.mT @ w.flatten(1)).mT  # (o*K, n)
    full_length = (x.shape[-1] - 1) * geometry.stride + geometry.effective_kernel_size
    dilation, stride = (1, geometry.dilation), (1, geometry.stride)
    full = F.fold(products, (1, full_length), (1, w.shape[-1]), dilation, 0, stride)[:, 0]  # (o, full_length)
    inside = full[:, geometry.left : geometry.left + y.shape[-1]]
    y[:, : inside.shape[-1]] = inside
    y[:, inside.shape[-1] :] = 0


def _positions(geometry: Geometry, x: Tensor, first: int, count: int) -> Tensor:
    """The samples (c, count) at the positions from ``first`` on, padding included."""
    length, last = x.shape[-1], first + count
    if first >= 0 and last <= length:
        return x[:, first:last]
    if geometry.padding_mode == "zeros":
        left = min(max(-first, 0), count)
        inside = x[:, max(first, 0) : max(last, 0)]
        return F.pad(inside, (left, count - left - inside.shape[-1]))
    return x[:, torch.from_numpy(geometry.fold(np.arange(first, last), length))]
