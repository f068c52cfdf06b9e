"""reference: the tutorial's loop made general. Short, slow, in float64: what the others are held to."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tapwise.engine.problem import Problem
from tapwise.geometry import Geometry

NAME = "reference"


def why_not(problem: Problem) -> str | None:
    """Why this kernel can't run the problem; None where it can."""
    if problem.device != "cpu":
        return f"runs on the CPU, not on {problem.device}"
    if problem.dtype.is_complex:
        return "sums real numbers only"
    return None


def tiles(problem: Problem) -> str:
    """How the work is divided, in words."""
    return "one pair of input and tap at a time"


def run(geometry: Geometry, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution of ``input`` (B, C_in, L), one pair of input and tap at a time: (B, C_out, L_out)."""
    sum_dtype = torch.float64 if input.dtype.is_floating_point else torch.int64
    groups = geometry.groups
    x = input.detach().to(sum_dtype).numpy()
    w = weight.detach().to(sum_dtype).numpy()
    batch, channels, length = x.shape
    x = x.reshape(batch, groups, channels // groups, length)  # (B, g, C_in/g, L)
    w = w.reshape(groups, -1, *w.shape[1:])  # (g, C_out/g, C_in/g, K); transposed: (g, C_in/g, C_out/g, K)
    pattern = "bgc,gco->bgo" if geometry.transposed else "bgc,goc->bgo"
    out_channels = w.shape[2] if geometry.transposed else w.shape[1]
    outputs = geometry.output_length(length)
    y = np.zeros((batch, groups, out_channels, outputs), x.dtype)  # (B, g, C_out/g, L_out)
    for i in range(outputs):
        for j, k in geometry.reads(i, length):
            y[..., i] += np.einsum(pattern, x[..., j], w[..., k])
    y = y.reshape(batch, groups * out_channels, outputs)
    if bias is not None:
        y += bias.detach().to(sum_dtype).numpy()[:, None]
    return torch.from_numpy(y).to(input.dtype)
