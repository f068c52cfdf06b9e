"""direct: the sum as the definition has it, in tiles of sums that stay in registers.

For depthwise layers and few channels, where torch's convolution is far from the speed of memory, and for
small dense layers. Padding of every mode is filled in on the way: no padded copy of the signal is made.
Half precision is widened to float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tapwise.engine import compiled
from tapwise.engine import threads as pool
from tapwise.engine.kernels import inputs, native
from tapwise.engine.kernels.direct.record import PRODUCTS_A_SUM, SHORT, DirectJob
from tapwise.engine.memory import address, own_address
from tapwise.engine.outputs import new_output
from tapwise.engine.problem import Problem
from tapwise.engine.rates import current_rates
from tapwise.geometry import Geometry

NAME = "direct"
LOOPS = "direct.loops"

# Bytes of gathered inputs for one block of outputs, beyond which they would leave the cache.
MOST_GATHERED = 1 << 25
# Outputs of a block whose inputs are gathered, at most.
LONGEST_BLOCK = 4032


def why_not(problem: Problem) -> str | None:
    """Why this kernel can't run the problem; None where it can."""
    obstacle = inputs.obstacle(problem) or compiled.obstacle(LOOPS, _loop(problem.dtype))
    if obstacle is not None:
        return obstacle
    geometry, fan_in = problem.geometry, problem.in_channels_per_group
    block = block_length(geometry, fan_in, problem.out_channels_per_group, 8)
    length = min(block, problem.output_length) * geometry.stride + geometry.effective_kernel_size
    if 8 * fan_in * length > MOST_GATHERED:
        return "its windows reach too far for a block of them to stay in the cache"
    return None


def compiled_loops(problem: Problem) -> list[tuple[str, str]]:
    """The compiled loops that run the problem."""
    return [(LOOPS, _loop(problem.dtype))]


def _loop(dtype: torch.dtype) -> str:
    return f"convolve_{8 * inputs.summed_bytes(dtype)}"


def gathers(fan_in: int, fan_out: int) -> bool:
    """Whether enough rows read a block for it to be copied, to lie together."""
    return fan_in >= 4 and fan_out >= 8


def block_length(geometry: Geometry, fan_in: int, fan_out: int, size: int) -> int:
    """Outputs of one channel of one block, whose gathered inputs fit the second-level cache."""
    if gathers(fan_in, fan_out) or geometry.stride > 1:
        samples = (1 << 18) // size // (fan_in * geometry.stride)
        return max(192, min(LONGEST_BLOCK, samples // 48 * 48))
    return 4096 if fan_in * fan_out == 1 else 1536


def channels_per_task(fan_out: int, tasks: int, threads: int, stride: int) -> int:
    """Output channels of a task, of those of a group: fewer than all where tasks are few.

    Each share of the channels gathers its inputs anew, which takes long where they lie a stride apart.
    """
    shares = -(-(2 if stride == 1 else 1) * threads // max(tasks, 1))
    if threads == 1 or shares == 1 or fan_out < 16:
        return fan_out
    return -(-fan_out // min(shares, fan_out // 8) // 8) * 8


def tiles(problem: Problem) -> str:
    """How the work is divided, in words."""
    fan_in, fan_out = problem.in_channels_per_group, problem.out_channels_per_group
    size = inputs.summed_bytes(problem.dtype)
    words = f"blocks of {block_length(problem.geometry, fan_in, fan_out, size)} outputs"
    if problem.geometry.stride > 1 or gathers(fan_in, fan_out):
        words += ", inputs gathered"
    return words


@inputs.widened
def run(geometry: Geometry, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution of ``input`` (B, C_in, L) by compiled loops: (B, C_out, L_out)."""
    if geometry.transposed:
        return _run_transposed(geometry, input, weight, bias)
    outputs = geometry.output_length(input.shape[-1])
    output = new_output((input.shape[0], weight.shape[0], outputs), input.dtype)
    w = weight.detach().contiguous()
    b = None if bias is None else bias.detach().contiguous()
    _run_loops(geometry, input, w, b, output)
    return output


def _run_transposed(geometry: Geometry, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The transposed convolution: outputs a stride apart are a convolution of stride 1.

    # stride 2, K 5   output j = 2m     reads inputs m-2, m-1, m with taps 4, 2, 0
    #                 output j = 2m+1   reads inputs m-1, m      with taps 3, 1
    """
    address(weight)  # before it is read
    if not weight.detach().abs().sum().isfinite():
        # A phase lays every tap over zeros at the ends, where a tap that is no number must not lie.
        return native.run(geometry, input.detach(), weight.detach(), bias)
    stride, dilation, groups = geometry.stride, geometry.dilation, geometry.groups
    outputs, last = geometry.output_length(input.shape[-1]), geometry.kernel_size - 1
    flipped = weight.detach().view(groups, -1, *weight.shape[1:]).transpose(1, 2).flip(-1)
    flipped = flipped.flatten(0, 1)  # (C_out, C_in / groups, K)
    y = new_output((input.shape[0], flipped.shape[0], outputs), input.dtype)
    for phase in range(min(stride, outputs)):
        shift = phase + geometry.left
        taps = [k for k in range(last + 1) if (shift - k * dilation) % stride == 0]
        if not taps:
            y[..., phase::stride] = 0 if bias is None else bias.detach()[:, None]
            continue
        step = (taps[1] - taps[0]) * dilation // stride if len(taps) > 1 else 1
        first = (shift - taps[-1] * dilation) // stride  # the first input of the first output
        end = first + -(-(outputs - phase) // stride) + step * (len(taps) - 1)
        inside, padding = _padded_slice(input, first, end)
        inner = Geometry(len(taps), dilation=step, padding=padding, groups=groups)
        part = run(inner, inside, flipped[..., [last - k for k in reversed(taps)]], bias)
        if stride == 1:
            return part
        y[..., phase::stride] = part
    return y


def _padded_slice(input: Tensor, first: int, end: int) -> tuple[Tensor, tuple[int, int]]:
    """The samples at the positions [first, end), and how many zeros stand for those outside."""
    length = input.shape[-1]
    begin, stop = min(max(first, 0), length), max(min(end, length), 0)
    if begin >= stop:
        return input.new_zeros((*input.shape[:2], 1)), (0, end - first - 1)
    return input[..., begin:stop], (begin - first, end - stop)


@inputs.widened
def weight_gradient(geometry: Geometry, grad: Tensor, input: Tensor, weight: Tensor) -> Tensor:
    """The gradient of the weight (C_out, C_in / groups, K) from that of the outputs."""
    # Totals of each piece, in float64, are added in order: the same bits for any count of threads.
    _, spans, rows = _spans(geometry, weight, input.shape[0], grad.shape[-1])
    pieces = -(-input.shape[0] // rows) * spans
    totals = torch.zeros((pieces, *weight.shape), dtype=torch.float64, device="cpu")
    _run_loops(geometry, input, weight, None, grad.detach().contiguous(), totals)
    # One piece is only rounded; in float64 it would be a view, which can't be changed in place.
    total = totals.sum(0) if pieces > 1 or weight.dtype == totals.dtype else totals[0]
    return total.to(weight.dtype)


def _spans(geometry: Geometry, weight: Tensor, batch: int, outputs: int) -> tuple[int, int, int]:
    """Outputs of a piece, pieces of a row, and rows of a piece, for the weight's gradient."""
    fan_out = weight.shape[0] // geometry.groups
    enough_tasks = geometry.groups * max(fan_out // 16, 1) >= 32
    if enough_tasks or weight.numel() * batch > 1 << 22:
        return outputs, 1, batch
    spans = min(max(outputs // 8192, 1), 16, max((1 << 22) // (weight.numel() * batch), 1))
    span = -(-outputs // spans // LONGEST_BLOCK) * LONGEST_BLOCK
    return span, -(-outputs // span), 1


def _run_loops(
    geometry: Geometry, input: Tensor, w: Tensor, b: Tensor | None, y: Tensor, totals: Tensor | None = None
) -> None:
    """Run the loops: ``y`` is written, or read where its correlations are added to ``totals``."""
    batch, _, length = input.shape
    out_channels, fan_in, taps = w.shape
    groups, outputs = geometry.groups, y.shape[-1]
    fan_out = out_channels // groups
    x = inputs.contiguous_rows(input)
    span = block = block_length(geometry, fan_in, fan_out, input.element_size())
    spans, rows = -(-outputs // block), 1
    is_gathered = geometry.stride > 1 or gathers(fan_in, fan_out)
    if totals is not None:
        span, spans, rows = _spans(geometry, w, batch, outputs)
        block = min(block, 1008) if is_gathered else LONGEST_BLOCK
    pieces, threads = -(-batch // rows) * spans, pool.count()
    share = channels_per_task(fan_out, pieces * groups, threads, geometry.stride)
    shares = -(-fan_out // share)
    sources = inputs.padding_sources(geometry, length)
    ends_in_place = totals is None and _ends_in_place(geometry, length, outputs, fan_in, w.dtype)
    job = DirectJob(
        **inputs.input_fields(x, geometry.left, geometry.stride, sources),
        weight=address(w),
        bias=address(b),
        y=own_address(y),
        totals=0 if totals is None else own_address(totals),
        batch=batch,
        groups=groups,
        fan_in=fan_in,
        fan_out=fan_out,
        taps=taps,
        dilation=geometry.dilation,
        outputs=outputs,
        gathers=is_gathered,
        ends_in_place=ends_in_place,
        block=block,
        span=span,
        spans=spans,
        rows=rows,
        share=share,
        shares=shares,
    )
    loop = compiled.loop(LOOPS, _loop(x.dtype))
    pool.run(loop, job, pieces * groups * shares, threads)


def _ends_in_place(geometry: Geometry, length: int, outputs: int, fan_in: int, dtype: torch.dtype) -> bool:
    """Whether the ends of a short row are computed with zeros outside, rather than from a copy of it."""
    taps, left = geometry.kernel_size, geometry.left
    if outputs > SHORT or geometry.stride != 1 or fan_in != 1 or taps > PRODUCTS_A_SUM:
        return False
    right = length - geometry.effective_kernel_size + left + 1  # the end of the windows inside
    if geometry.padding == (0, 0) or geometry.padding_mode != "zeros":
        return False
    r = current_rates().direct
    lanes = compiled.vector_bytes() // dtype.itemsize
    tiles = -(-left // lanes) + -(-(outputs - right) // lanes)
    return tiles * taps * r.end_tap < r.end_copy + outputs * r.end_copy_output
