"""direct: the sum as the definition has it, in tiles of sums that stay in registers.

For depthwise and few channels, where torch's convolution is far from the speed of memory, and for
small dense layers. Padding of every mode is fused: no padded copy of the signal is made. Half
precision is widened to float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tapwise.engine import machine_code
from tapwise.engine import threads as pool
from tapwise.engine.kernels import _inputs as inputs
from tapwise.engine.kernels import native
from tapwise.engine.memory import ask_large_pages
from tapwise.engine.problem import Problem
from tapwise.geometry import Geometry

NAME = "direct"
LOOPS = "_direct_loops"

# Bytes of gathered samples for one block of outputs: beyond this, not the cache but memory holds them.
LARGEST_ROOM = 1 << 25


def why_not(problem: Problem) -> str | None:
    """Why this kernel can't run the problem; None where it can."""
    if (obstacle := inputs.obstacle(problem)) is not None:
        return obstacle
    if (obstacle := machine_code.why_not(LOOPS, _loop(problem.dtype))) is not None:
        return obstacle
    if _room(problem) > LARGEST_ROOM:
        return "its windows reach too far for a block of them to stay in the cache"
    return None


def _room(problem: Problem) -> int:
    geometry = problem.geometry
    block = min(
        _block(geometry, problem.channels_in_group, problem.outputs_in_group, 8),
        problem.output_length,
    )
    return (
        8 * problem.channels_in_group * (block * geometry.stride + geometry.effective_kernel_size)
    )


def _loop(dtype: torch.dtype) -> str:
    return f"float{8 * inputs.summed_bytes(dtype)}"


def _packed(channels: int, outputs: int) -> bool:
    """Whether many rows read a block so often that it is copied to lie together."""
    return channels >= 4 and outputs >= 8


def _block(geometry: Geometry, channels: int, outputs: int, size: int) -> int:
    """Outputs of one channel from one task: a room that fits the second-level cache."""
    if _packed(channels, outputs) or geometry.stride > 1:
        room = (1 << 18) // size // (channels * geometry.stride)
        return max(192, min(4032, room // 48 * 48))
    return 4096 if channels * outputs == 1 else 1536


# Products a second that one thread adds up in float32, for this many rows of outputs at a time, and for the
# weight's gradient of four rows of outputs at a time or of one; with AVX2's vectors, and with longer ones.
# Then seconds for a byte that is read or written, and for what is done once.
_NARROW_RATES = ((8, 32e9), (4, 30e9), (2, 26e9), (1, 24e9))  # of eight, as four and four
_RATES = ((8, 64e9), (4, 54e9), (2, 42e9), (1, 28e9))
_NARROW_GRADIENT_RATES, _GRADIENT_RATES = (32e9, 22e9), (45e9, 24e9)
_A_BYTE = 0.05e-9
_A_TASK, _CALL, _A_PHASE = 0.1e-6, 16e-6, 45e-6


def narrow() -> bool:
    """Whether the loops are made of AVX2's vectors. Of shorter ones nothing was measured."""
    return machine_code.vector_bytes() == 32


def tiles(problem: Problem) -> str:
    """How the work is divided, in words."""
    channels, in_group = problem.channels_in_group, problem.outputs_in_group
    size = inputs.summed_bytes(problem.dtype)
    words = f"blocks of {_block(problem.geometry, channels, in_group, size)} outputs"
    if problem.geometry.stride > 1 or _packed(channels, in_group):
        words += ", inputs gathered"
    return words


def cost(problem: Problem, threads: int) -> float:
    """Predicted seconds for one batch row."""
    if problem.geometry.transposed:
        return _cost_transposed(problem, threads)
    geometry, outputs = problem.geometry, problem.output_length
    channels, in_group = problem.channels_in_group, problem.outputs_in_group
    size = inputs.summed_bytes(problem.dtype)
    lanes = (32 if narrow() else 64) // size
    products = geometry.groups * channels * geometry.kernel_size * (outputs + -outputs % lanes)
    seconds, rows = 0.0, in_group
    for many, rate in _NARROW_RATES if narrow() else _RATES:
        seconds += rows // many * many * products / (rate * 4 / size)
        rows %= many
    gathered = problem.in_channels * problem.length
    moved = gathered + problem.out_channels * outputs
    if problem.dtype in inputs.WIDER:
        moved *= 3
    seconds += moved * size * _A_BYTE
    if geometry.stride > 1 or _packed(channels, in_group):
        tasks = geometry.groups * -(-outputs // _block(geometry, channels, in_group, size))
        shares = -(-in_group // _share(in_group, tasks, threads, geometry.stride))
        each = 0.45e-9 * _read(geometry) if geometry.stride > 1 else 0.15e-9
        seconds += shares * gathered * each
    seconds += problem.in_channels * (geometry.left + geometry.right) * 1e-9
    if in_group >= 8 and outputs < 12 * lanes:  # taps are then read for few products each
        seconds *= 1 + 0.6 * (1 - outputs / (12 * lanes))
    if 0 < outputs < 3 * lanes:
        seconds += in_group * products / (outputs + -outputs % lanes) * size * 0.08e-9
        seconds *= 1.0 if in_group >= 8 else 1.6
    block = _block(geometry, channels, in_group, size)
    tasks = geometry.groups * -(-outputs // block)
    parallel = min(threads, tasks * max(in_group // 8, 1))
    return _CALL + (seconds + tasks * _A_TASK) / max(parallel, 1)


def _read(geometry: Geometry) -> float:
    """The share of the inputs that taps read: with a stride, some may lie between windows."""
    if geometry.dilation % geometry.stride == 0:
        return 1 / geometry.stride
    return min(geometry.effective_kernel_size / geometry.stride, 1.0)


def _cost_transposed(problem: Problem, threads: int) -> float:
    """That of the phases, and of writing each to every so many places."""
    geometry = problem.geometry
    taps = -(-geometry.kernel_size // geometry.stride)
    phase = Problem(
        Geometry(taps, padding=taps - 1, groups=geometry.groups), problem.in_channels,
        problem.out_channels, problem.length, problem.dtype, problem.device,
    )  # fmt: skip
    apart = 0.0 if geometry.stride == 1 else 1.2e-9 * problem.out_channels * problem.output_length
    # With AVX2 fitted as a whole: seven out of ten such shapes took this much longer than predicted.
    return (1.35 if narrow() else 1.0) * (
        geometry.stride * (cost(phase, threads) + _A_PHASE) + apart / threads
    )


def gradient_cost(problem: Problem, threads: int) -> float:
    """Predicted seconds of the weight's gradient for one batch row."""
    geometry, channels = problem.geometry, problem.channels_in_group
    four, one = _NARROW_GRADIENT_RATES if narrow() else _GRADIENT_RATES
    rate = four if problem.outputs_in_group >= 4 else one
    block = _block(geometry, channels, problem.outputs_in_group, 4)
    taps = problem.out_channels * channels * geometry.kernel_size
    moved = problem.in_channels * problem.length + problem.out_channels * problem.output_length
    blocks = -(-problem.output_length // min(block, 4032))
    slow = 2 if problem.dtype == torch.float64 else 1
    seconds = slow * problem.multiplications / rate + taps * blocks * 3e-9 + moved * 0.3e-9
    if geometry.stride > 1:
        seconds += problem.in_channels * problem.length * 0.5e-9 * _read(geometry)
    return 20e-6 + seconds / threads


@inputs.widened
def run(
    geometry: Geometry, input: Tensor, weight: Tensor, bias: Tensor | None,
    before: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The convolution of ``input`` (B, C_in, L) by compiled loops: (B, C_out, L_out).

    Where ``before`` (B, C_in, n) is given, it is the beginning of the signal, which ``input`` continues;
    not for transposed convolutions.
    """
    if geometry.transposed:
        assert before is None
        return _run_transposed(geometry, input, weight, bias)
    length = input.shape[-1] + (0 if before is None else before.shape[-1])
    output = input.new_empty((input.shape[0], weight.shape[0], geometry.output_length(length)))
    w = weight.detach().contiguous()
    b = None if bias is None else bias.detach().contiguous()
    _start(geometry, input, w, b, ask_large_pages(output), before=before)
    return output


def _run_transposed(
    geometry: Geometry, input: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor:
    """The transposed convolution: outputs a stride apart are a convolution of stride 1.

    # stride 2, K 5   output j = 2m     reads inputs m-2, m-1, m with taps 4, 2, 0
    #                 output j = 2m+1   reads inputs m-1, m      with taps 3, 1
    """
    if not weight.detach().abs().sum().isfinite():
        # A phase lays every tap over zeros at the ends; one that is no number must not be laid there.
        return native.run(geometry, input.detach(), weight.detach(), bias)
    stride, dilation, groups = geometry.stride, geometry.dilation, geometry.groups
    length, outputs = input.shape[-1], geometry.output_length(input.shape[-1])
    flipped = weight.detach().view(groups, -1, *weight.shape[1:]).transpose(1, 2).flip(-1)
    flipped = flipped.flatten(0, 1)  # (C_out, C_in / groups, K)
    y = ask_large_pages(input.new_empty((input.shape[0], flipped.shape[0], outputs)))
    for phase in range(min(stride, outputs)):
        taps = [
            k
            for k in range(geometry.kernel_size)
            if (phase + geometry.left - k * dilation) % stride == 0
        ]
        many = -(-(outputs - phase) // stride)
        if not taps:
            y[..., phase::stride] = 0 if bias is None else bias.detach()[:, None]
            continue
        apart = (taps[1] - taps[0]) * dilation // stride if len(taps) > 1 else 1
        first = (phase + geometry.left - taps[-1] * dilation) // stride  # of the inputs, for m = 0
        end = first + many + apart * (len(taps) - 1)
        begin, stop = min(max(first, 0), length), max(min(end, length), 0)
        if begin >= stop:
            begin = stop = 0
            kept = input.new_zeros((*input.shape[:2], 1))
            pads = (0, end - first - 1)
        else:
            kept, pads = input[..., begin:stop], (begin - first, end - stop)
        inner = Geometry(len(taps), dilation=apart, padding=pads, groups=groups)
        last = geometry.kernel_size - 1
        part = run(inner, kept, flipped[..., [last - k for k in reversed(taps)]], bias)
        if stride == 1:
            return part
        y[..., phase::stride] = part
    return y


@inputs.widened
def weight_gradient(geometry: Geometry, grad: Tensor, input: Tensor, weight: Tensor) -> Tensor:
    """The gradient of the weight (C_out, C_in / groups, K) from those of the outputs."""
    # Totals of each piece, in float64, are added up in order: the same bits for any count of threads.
    _, spans, rows = _spans(geometry, weight, input.shape[0], grad.shape[-1])
    pieces = -(-input.shape[0] // rows) * spans
    totals = torch.zeros((pieces, *weight.shape), dtype=torch.float64)
    _start(geometry, input, weight, None, grad.detach().contiguous(), totals)
    # One piece is rounded as it lies; in float64 it would be a view, which can't be changed in place.
    total = totals.sum(0) if pieces > 1 or weight.dtype == totals.dtype else totals[0]
    return total.to(weight.dtype)


def _spans(geometry: Geometry, weight: Tensor, batch: int, outputs: int) -> tuple[int, int, int]:
    """Outputs of a piece, pieces of a row, and rows of a piece, for the weight's gradient."""
    in_group = weight.shape[0] // geometry.groups
    enough = geometry.groups * max(in_group // 16, 1) >= 32
    if enough or weight.numel() * batch > 1 << 22:
        return outputs, 1, batch
    spans = min(max(outputs // 8192, 1), 16, max((1 << 22) // (weight.numel() * batch), 1))
    span = -(-outputs // spans // 4032) * 4032
    return span, -(-outputs // span), 1


def _start(
    geometry: Geometry, input: Tensor, w: Tensor, b: Tensor | None, y: Tensor,
    totals: Tensor | None = None, before: Tensor | None = None,
) -> None:  # fmt: skip
    """Run the loops: ``y`` is written, or read where its correlations are added to ``totals``."""
    batch, _, length = input.shape
    out_channels, channels, taps = w.shape
    groups, outputs = geometry.groups, y.shape[-1]
    x, size, in_group = inputs.dense_rows(input), input.element_size(), out_channels // groups
    span = block = _block(geometry, channels, in_group, size)
    spans, rows = -(-outputs // block), 1
    if totals is not None:
        span, spans, rows = _spans(geometry, w, batch, outputs)
        block = min(block, 1008) if _packed(channels, in_group) or geometry.stride > 1 else 4032
    pieces, workers = -(-batch // rows) * spans, pool.count()
    share = _share(in_group, pieces * groups, workers, geometry.stride)
    shares = -(-in_group // share)
    earlier = None if before is None else inputs.dense_rows(before)
    length += 0 if earlier is None else earlier.shape[-1]
    sources = inputs.padding_sources(geometry, length)
    job = [
        *inputs.where(x, geometry.left, geometry.stride, sources, earlier),
        w.data_ptr(), 0 if b is None else b.data_ptr(), y.data_ptr(), outputs, groups, channels,
        in_group, taps, geometry.dilation, _packed(channels, in_group), block, span, spans, rows,
        batch, share, shares, 0 if totals is None else totals.data_ptr(),
    ]  # fmt: skip
    pool.run(machine_code.body(LOOPS, _loop(x.dtype)), job, pieces * groups * shares, workers)


def _share(outputs: int, tasks: int, workers: int, stride: int) -> int:
    """Output channels a task, of those in a group: fewer than all where tasks are few.

    Each share gathers its inputs anew, which takes long where they lie a stride apart.
    """
    wanted = -(-(2 if stride == 1 else 1) * workers // max(tasks, 1))
    if workers == 1 or wanted == 1 or outputs < 16:
        return outputs
    return -(-outputs // min(wanted, outputs // 8) // 8) * 8
