"""native: torch's own convolution, fed what it doesn't do by itself.

It runs everything that torch runs, is built of differentiable torch operations alone, and so serves
every transform that torch has (functorch, forward-mode AD, tracing, autocast, subclasses).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tapwise.engine.problem import Problem
from tapwise.geometry import Geometry

NAME = "native"

# Seconds, fitted low to what torch 2.13 takes on two cores with AVX-512 (benchmarks/bench_conv1d.py
# prints prediction beside measurement): where torch is erratic its good days count, so that another
# kernel is chosen only where it is surely faster.
_CALL = 7e-6
_FITTED_THREADS = 2


def why_not(problem: Problem) -> str | None:
    """None: native runs every problem."""
    return None


def cost(problem: Problem, threads: int) -> float:
    """Predicted seconds for one batch row."""
    groups = problem.geometry.groups
    fan_in, fan_out = problem.channels_in_group, problem.outputs_in_group
    inputs = problem.in_channels * problem.length
    outputs = problem.out_channels * problem.output_length
    if groups > 1 and fan_in == fan_out == 1:
        rate = 24e9 if problem.output_length < 400 else 12e9
        seconds = outputs * 0.6e-9 + problem.multiplications / rate
    elif groups > 1 and fan_in * fan_out > 4:
        rate = min(10e9 * fan_out, 100e9)
        seconds = (inputs + outputs) * 0.15e-9 + problem.multiplications / rate
    else:
        rate = min(5e9 * fan_out, 100e9)
        seconds = (inputs + outputs) * 0.3e-9 + problem.multiplications / rate
    return _CALL + seconds * _FITTED_THREADS / threads


def run(geometry: Geometry, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution of ``input`` (B, C_in, L) by torch: (B, C_out, L_out)."""
    outputs = geometry.output_length(input.shape[-1])
    if input.numel() == 0 or outputs == 0:
        return _without_products(geometry, input, weight, bias, outputs)
    if geometry.transposed:
        return _run_transposed(geometry, input, weight, bias, outputs)
    padding = 0
    if geometry.left == geometry.right and geometry.padding_mode == "zeros":
        padding = geometry.left
    else:
        input = pad(geometry, input)
    return F.conv1d(
        input, weight, bias, geometry.stride, padding, geometry.dilation, geometry.groups
    )


def pad(geometry: Geometry, input: Tensor) -> Tensor:
    """The input with its padding written out: (B, C, left + L + right)."""
    if geometry.padding == (0, 0):
        return input
    if geometry.padding_mode == "zeros":
        return F.pad(input, geometry.padding)
    left, right = _sources(geometry, input)
    return torch.cat((input.index_select(-1, left), input, input.index_select(-1, right)), dim=-1)


def _sources(geometry: Geometry, like: Tensor, length: int | None = None) -> tuple[Tensor, Tensor]:
    """The inputs that fill the left and the right padding, as indices beside ``like``."""
    length = like.shape[-1] if length is None else length
    left = torch.arange(-geometry.left, 0, device=like.device)
    right = torch.arange(geometry.right, device=like.device) + length
    return geometry.fold(left, length), geometry.fold(right, length)


def unpad(geometry: Geometry, grad: Tensor, length: int) -> Tensor:
    """The adjoint of ``pad``: what falls on the padding is added to the inputs it was copied from."""
    inner = grad.narrow(-1, geometry.left, length)
    if geometry.padding_mode == "zeros":
        return inner
    left, right = _sources(geometry, grad, length)
    inner = inner.index_add(-1, left, grad.narrow(-1, 0, geometry.left))
    return inner.index_add(-1, right, grad.narrow(-1, geometry.left + length, geometry.right))


def _run_transposed(
    geometry: Geometry, input: Tensor, weight: Tensor, bias: Tensor | None, outputs: int
) -> Tensor:
    symmetric = geometry.left == geometry.right
    fits = geometry.output_padding < max(geometry.stride, geometry.dilation)
    if symmetric and fits:
        return F.conv_transpose1d(
            input, weight, bias, geometry.stride, geometry.left,
            geometry.output_padding, geometry.groups, geometry.dilation,
        )  # fmt: skip
    # full:  0 1 2 3 4 5 6      left cut, then right cut or extended; the bias reaches all of it
    # kept:      2 3 4 5 6 .
    full = F.conv_transpose1d(
        input, weight, None, geometry.stride, 0, 0, geometry.groups, geometry.dilation
    )
    missing = geometry.left + outputs - full.shape[-1]
    if missing > 0:
        full = F.pad(full, (0, missing))
    kept = full.narrow(-1, geometry.left, outputs)
    return kept.contiguous() if bias is None else kept + bias[:, None].to(kept.dtype)


def _without_products(
    geometry: Geometry, input: Tensor, weight: Tensor, bias: Tensor | None, outputs: int
) -> Tensor:
    """No sample, channel, batch row or output: what is left is the bias, connected to autograd."""
    channels = weight.shape[1] * geometry.groups if geometry.transposed else weight.shape[0]
    nothing = input.flatten(1)[:, :0] @ weight.flatten(1).t()[:0, :1]  # (B, 1), of no products
    result = nothing[:, :, None].expand(-1, channels, outputs)
    return result.clone() if bias is None else result + bias[:, None].to(result.dtype)
