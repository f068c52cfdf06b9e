"""implicit_gemm: dense convolutions as products of matrices, without writing the windows out.

Blocks of inputs become rows of channels in the cache; a tap is then a product of the rows that it reads with its matrix of
weights. Every sum is that of its window's products, tap by tap. Strided, dilated, grouped and transposed convolutions, every padding mode,
and the weight's gradient.
Source: Chetlur et al., cuDNN: Efficient Primitives for Deep Learning, arXiv 1410.0759, section 3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tapwise.engine import compiled
from tapwise.engine import threads as pool
from tapwise.engine.kernels import inputs, native
from tapwise.engine.kernels.implicit_gemm import layout
from tapwise.engine.kernels.implicit_gemm.record import GradientJob, PackingJob, ProductJob
from tapwise.engine.kernels.loops.spans import span_of
from tapwise.engine.kernels.program.packing import packed_bias, padded, panels
from tapwise.engine.memory import address, address_of_array, own_address
from tapwise.engine.outputs import new_output
from tapwise.engine.problem import Problem
from tapwise.geometry import Geometry

NAME = "implicit_gemm"
LOOPS = (
    ("implicit_gemm.loops", "packing_32"),
    ("implicit_gemm.loops", "products_32"),
    ("implicit_gemm.gradients", "gradients_32"),
)

# Channels of a group below which vectors of them are mostly empty.
_FEWEST_CHANNELS = 8
# Bytes in which a thread may work, at most; far beyond what stays in the cache.
MOST_SCRATCH = 1 << 25


def why_not(problem: Problem) -> str | None:
    """Why this kernel can't run the problem; None where it can."""
    geometry = problem.geometry
    if (obstacle := inputs.obstacle(problem)) is not None:
        return obstacle
    if problem.dtype == torch.float64:
        return "takes float32 and half precision"
    if min(problem.in_channels_per_group, problem.out_channels_per_group) < _FEWEST_CHANNELS:
        return f"is for groups of {_FEWEST_CHANNELS} channels and more"
    block = layout.block_of(geometry, problem.in_channels_per_group, problem.output_length)
    if layout.scratch_bytes(geometry, problem.in_channels_per_group, block) > MOST_SCRATCH:
        return "its windows reach too far for a block of them to stay in the cache"
    return next(filter(None, (compiled.obstacle(*loop) for loop in LOOPS)), None)


def compiled_loops(problem: Problem) -> list[tuple[str, str]]:
    """The compiled loops that run the problem."""
    return list(LOOPS)


def tiles(problem: Problem) -> str:
    """How the work is divided, in words."""
    block = layout.block_of(problem.geometry, problem.in_channels_per_group, problem.output_length)
    return f"blocks of {block * (problem.geometry.stride if problem.geometry.transposed else 1)} outputs"


@inputs.widened
def run(geometry: Geometry, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution of ``input`` (B, C_in, L) by products of matrices: (B, C_out, L_out)."""
    for tensor in (weight, bias):
        address(tensor)  # before they are read
    x, w = inputs.contiguous_rows(input), weight.detach().contiguous()
    if geometry.transposed and not w.abs().sum().isfinite():
        # A phase lays every tap over zeros at the ends, where a tap that is no number must not lie.
        return native.run(geometry, x, w, bias)
    batch, channels, length = x.shape
    groups, taps = geometry.groups, geometry.kernel_size
    fan_in, outputs = channels // groups, geometry.output_length(length)
    fan_out = w.shape[1] if geometry.transposed else w.shape[0] // groups
    y = new_output((batch, groups * fan_out, outputs), x.dtype)
    if not y.numel():
        return y
    phases, threads = layout.phases_of(geometry), pool.count()
    table, b = phases.table(), packed_bias(None if bias is None else bias.detach(), groups * fan_out, groups)
    packed = x.new_empty(groups * taps * fan_in * padded(fan_out))
    n_panels, share = len(panels(fan_out)), layout.packed_channels(fan_in, taps)
    shares = -(-fan_in // share)
    packing = PackingJob(
        weight=address(w), packed=own_address(packed), table=address_of_array(table), phases=len(phases.counts),
        transposed=geometry.transposed, groups=groups, fan_in=fan_in, fan_out=fan_out, taps=taps, panels=n_panels, share=share,
        shares=shares,
    )  # fmt: skip
    pool.run(compiled.loop(*LOOPS[0]), packing, groups * n_panels * shares, threads)
    block = layout.block_of(geometry, fan_in, outputs)
    if geometry.transposed:
        begin = geometry.left // geometry.stride
        first, advance, span = begin + phases.first, 1, 0
        start, count = (
            begin * geometry.stride - geometry.left,
            (geometry.left + outputs - 1) // geometry.stride - begin + 1,
        )
    else:
        first, advance, start, count = -geometry.left, geometry.stride, 0, outputs
        span = span_of(block, taps, geometry.dilation, geometry.stride)
    blocks, sources = -(-count // block), inputs.padding_sources(geometry, length)
    job = ProductJob(
        **inputs.input_fields(x, geometry.left, 1, sources),
        packed=own_address(packed), table=address_of_array(table), phases=len(phases.counts), bias=own_address(b), y=own_address(y),
        batch=batch, groups=groups, fan_in=fan_in, fan_out=fan_out, taps=taps, dilation=phases.step, outputs=outputs, block=block,
        blocks=blocks, count=count, rows=layout.input_rows(geometry, block), row=layout.input_row(fan_in), reach=phases.reach, span=span,
        first=first, advance=advance, lowest=phases.first, start=start,
    )  # fmt: skip
    pool.run(compiled.loop(*LOOPS[1]), job, batch * groups * blocks, threads)
    return y


@inputs.widened
def weight_gradient(geometry: Geometry, grad: Tensor, input: Tensor, weight: Tensor) -> Tensor:
    """The gradient of the weight (C_out, C_in / groups, K) from that of the outputs."""
    address(grad)  # before it is read
    x, g = inputs.contiguous_rows(input), grad.detach().contiguous()
    groups, taps, outputs = geometry.groups, geometry.kernel_size, g.shape[-1]
    fan_out, fan_in = weight.shape[0] // groups, weight.shape[1]
    result, sources = x.new_empty(weight.shape), inputs.padding_sources(geometry, x.shape[-1])
    n_panels, share = len(panels(fan_in)), layout.grad_rows(fan_out, fan_in, groups, taps)
    shares, summed = -(-fan_out // share), min(layout.outputs_a_sum(geometry.stride), max(outputs, 1))
    job = GradientJob(
        **inputs.input_fields(x, geometry.left, geometry.stride, sources),
        grad=own_address(g), result=own_address(result), batch=x.shape[0], groups=groups, fan_in=fan_in, fan_out=fan_out, taps=taps,
        dilation=geometry.dilation, outputs=outputs, summed=summed, rows=layout.input_rows(geometry, summed),
        reach=(taps - 1) * geometry.dilation, span=span_of(summed, taps, geometry.dilation, geometry.stride), panels=n_panels,
        share=share, shares=shares,
    )  # fmt: skip
    pool.run(compiled.loop(*LOOPS[2]), job, groups * n_panels * shares, pool.count())
    return result
