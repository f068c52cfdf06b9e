"""amx: dense convolutions in bfloat16 by the processor's matrices (Intel AMX), summed in float32.

Inputs and weights are rounded to bfloat16, whose products float32 holds exactly; sums are in float32. Inputs in float32
give outputs in float32.
Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from functools import cache

import torch
from torch import Tensor

from tapwise.engine import compiled
from tapwise.engine import threads as pool
from tapwise.engine.kernels import inputs
from tapwise.engine.kernels.amx import layout
from tapwise.engine.kernels.amx.record import PackingJob, ProductJob
from tapwise.engine.kernels.loops.spans import rows_read, span_of
from tapwise.engine.memory import address, own_address
from tapwise.engine.outputs import new_output
from tapwise.engine.problem import Problem
from tapwise.geometry import Geometry

NAME = "amx"
LOOPS = (("amx.loops", "packing_32"), ("amx.loops", "products_32"))

# Channels below which matrices are mostly empty.
_FEWEST_CHANNELS = 8
# Linux: arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA.
_ARCH_PRCTL, _REQUEST, _MATRICES = 158, 0x1023, 18


def why_not(problem: Problem) -> str | None:
    """Why this kernel can't run the problem; None where it can."""
    geometry = problem.geometry
    if problem.device != "cpu":
        return f"runs on the CPU, not on {problem.device}"
    if problem.dtype != torch.bfloat16:
        return f"takes bfloat16, not {str(problem.dtype).removeprefix('torch.')}"
    if geometry.transposed or geometry.groups > 1:
        return "does convolutions of one group"
    if min(problem.in_channels, problem.out_channels) < _FEWEST_CHANNELS:
        return f"is for {_FEWEST_CHANNELS} channels and more"
    if geometry.padding_mode != "zeros" and geometry.padding != (0, 0):
        return "pads with zeros alone"
    if (refusal := obstacle()) is not None:
        return refusal
    return next(filter(None, (compiled.obstacle(*loop) for loop in LOOPS)), None)


@cache
def obstacle() -> str | None:
    """Why this processor, or this system, has no such matrices; None where they may be used from now on."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "needs Linux on a processor with AMX"
    if not compiled.has_matrices():
        return "needs a processor with AMX"
    if ctypes.CDLL(None).syscall(_ARCH_PRCTL, _REQUEST, _MATRICES) != 0:  # for all threads of this process
        return "needs the system's permission to use AMX, which it refuses"
    return None


def compiled_loops(problem: Problem) -> list[tuple[str, str]]:
    """The compiled loops that run the problem."""
    return list(LOOPS)


def tiles(problem: Problem) -> str:
    """How the work is divided, in words."""
    block = layout.block_of(problem.in_channels, problem.geometry.stride, problem.output_length)
    return f"blocks of {block} outputs, {layout.PANEL} channels at a time"


def run(geometry: Geometry, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution of ``input`` (B, C_in, L), float32 or bfloat16, by matrices: (B, C_out, L_out), in input's dtype."""
    for tensor in (weight, bias):
        address(tensor)  # before they are read
    x, w = inputs.contiguous_rows(input), weight.detach().contiguous()
    batch, fan_in, length = x.shape
    fan_out, _, taps = w.shape
    outputs, stride, dilation = geometry.output_length(length), geometry.stride, geometry.dilation
    y = new_output((batch, fan_out, outputs), x.dtype)
    if not y.numel():
        return y
    panels = layout.panels_of(fan_out)
    b = x.new_zeros(panels * layout.PANEL, dtype=torch.float32)
    if bias is not None:
        b[:fan_out] = bias.detach()
    packed = x.new_empty(layout.packed_bytes(fan_in, fan_out, taps) // 2, dtype=torch.bfloat16)
    threads = pool.count()
    packing = PackingJob(
        weight=own_address(w), packed=own_address(packed), fan_in=fan_in, fan_out=fan_out, taps=taps, weight_bytes=w.element_size()
    )  # fmt: skip
    pool.run(compiled.loop(*LOOPS[0]), packing, panels * taps, threads)
    block = layout.block_of(fan_in, stride, outputs)
    span = span_of(block, taps, dilation, stride)
    blocks = -(-outputs // block)
    job = ProductJob(
        **inputs.input_fields(x, geometry.left, stride, inputs.padding_sources(geometry, length)),
        x_bytes=x.element_size(), packed=own_address(packed), bias=own_address(b), y=own_address(y), y_bytes=y.element_size(),
        batch=batch, fan_in=fan_in, fan_out=fan_out, taps=taps, dilation=dilation, outputs=outputs, block=block, blocks=blocks,
        span=span, rows=rows_read(block, taps, dilation, stride), row=layout.input_row(fan_in),
    )  # fmt: skip
    pool.run(compiled.loop(*LOOPS[1]), job, batch * blocks, threads)
    return y
