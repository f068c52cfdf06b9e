"""winograd: minimal filtering. Dense convolutions with half to three quarters of the products.

Four outputs, a tile, are sums of products in a transformed domain; see ``filtering.py``. A tile's rounding is relative to
its loudest sample, by a few times more than a sum's. Rows with outputs that aren't finite run on ``direct``.
Source: Winograd, Arithmetic Complexity of Computations, 1980; Lavin and Gray, arXiv 1509.09308.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tapwise.engine import compiled
from tapwise.engine import threads as pool
from tapwise.engine.kernels import direct, inputs, native
from tapwise.engine.kernels.program.packing import panels
from tapwise.engine.kernels.winograd import layout
from tapwise.engine.kernels.winograd.record import FilteringJob, WeightsJob
from tapwise.engine.memory import address, own_address
from tapwise.engine.outputs import new_output
from tapwise.engine.problem import Problem
from tapwise.geometry import Geometry

NAME = "winograd"
IS_EXACT = False
LOOPS = (("winograd.loops", "weights_32"), ("winograd.loops", "filtering_32"))

# Channels below which transforms take longer than the products that they save.
_FEWEST_CHANNELS = 8
# Input channels of a task that transforms the weight.
_SHARE = 32


def why_not(problem: Problem) -> str | None:
    """Why this kernel can't run the problem; None where it can."""
    geometry = problem.geometry
    if (obstacle := inputs.obstacle(problem)) is not None:
        return obstacle
    if problem.dtype == torch.float64:
        return "rounds more than float64 should"
    if geometry.transposed or geometry.groups > 1:
        return "does convolutions of one group, none transposed"
    if (reason := layout.why_not(geometry.kernel_size, geometry.stride, geometry.dilation)) is not None:
        return reason
    if min(problem.in_channels, problem.out_channels) < _FEWEST_CHANNELS:
        return f"is for {_FEWEST_CHANNELS} channels and more"
    if geometry.padding_mode != "zeros" and geometry.padding != (0, 0):
        return "pads with zeros alone"
    return next(filter(None, (compiled.obstacle(*loop) for loop in LOOPS)), None)


def compiled_loops(problem: Problem) -> list[tuple[str, str]]:
    """The compiled loops that run the problem."""
    return list(LOOPS)


def tiles(problem: Problem) -> str:
    """How the work is divided, in words."""
    geometry = problem.geometry
    inputs, taps = layout.unstrided(problem.in_channels, geometry.kernel_size, geometry.stride)
    block = layout.block_of(inputs, geometry.dilation, problem.output_length)
    products = layout.points_of(taps) * layout.segments_of(taps) * geometry.stride
    return f"blocks of {block} outputs, {products} products for {layout.OUTPUTS} outputs"


@inputs.widened
def run(geometry: Geometry, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution of ``input`` (B, C_in, L) by minimal filtering: (B, C_out, L_out)."""
    x, w = inputs.contiguous_rows(input), weight.detach().contiguous()
    batch, fan_in, length = x.shape
    fan_out, _, taps = w.shape
    outputs, dilation, stride = geometry.output_length(length), geometry.dilation, geometry.stride
    inputs_of_filter, taps_of_filter = layout.unstrided(fan_in, taps, stride)
    b = x.new_zeros(fan_out) if bias is None else bias.detach().contiguous()
    y = new_output((batch, fan_out, outputs), x.dtype)
    if not y.numel():
        return y
    threads = pool.count()
    transformed = x.new_empty(layout.numbers_of(inputs_of_filter, fan_out, taps_of_filter))
    zeros = layout.zeros_of(inputs_of_filter)
    shares = -(-inputs_of_filter // _SHARE)
    weights = WeightsJob(
        weight=address(w), transformed=own_address(transformed), fan_in=fan_in, fan_out=fan_out, taps=taps,
        stride=stride, zeros=zeros, share=_SHARE, shares=shares,
    )  # fmt: skip
    pool.run(compiled.loop(*LOOPS[0]), weights, len(panels(fan_out)) * shares, threads)
    block = layout.block_of(inputs_of_filter, dilation, outputs)
    blocks = -(-outputs // block)
    checks = torch.zeros(batch * blocks, dtype=torch.float64, device="cpu")
    job = FilteringJob(
        **inputs.input_fields(x, geometry.left, stride, inputs.padding_sources(geometry, length)),
        transformed=own_address(transformed), zeros=zeros, bias=address(b), y=own_address(y), checks=own_address(checks),
        batch=batch, fan_in=fan_in, fan_out=fan_out, taps=taps, dilation=dilation, outputs=outputs, block=block,
        blocks=blocks, memory=layout.memory_of(block, inputs_of_filter, taps_of_filter, dilation),
        rows=layout.rows_read(block, taps_of_filter, dilation) * stride, x_rows=layout.transformed_row(fan_in), y_rows=layout.transformed_row(fan_out),
    )  # fmt: skip
    pool.run(compiled.loop(*LOOPS[1]), job, batch * blocks, threads)
    other = native if direct.why_not(Problem.unchecked(geometry, x, w)) else direct
    for row in checks.view(batch, blocks).isnan().any(1).nonzero()[:, 0].tolist():
        y[row] = other.run(geometry, x[row : row + 1], w, None if bias is None else b)[0]
    return y
