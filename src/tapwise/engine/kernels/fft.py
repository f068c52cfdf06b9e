"""fft: overlap-save. Long filters as products of spectra, frame by frame.

# inputs    |----frame 0----|             of N samples each, overlapping by the filter's reach - 1
#                     |----frame 1----|
# outputs   |--step--||--step--|          the rest of each frame's products is wrapped around: dropped

float32 signals are transformed in float64: what rounding leaves of the loudest sample of a frame is
then below what float32 can hold of the others. A frame with a wider range than that covers, or with a
sample that is no finite number, runs on ``direct``. ``fft32`` transforms in float32 where that is asked
for. Source: Oppenheim, Schafer: Discrete-Time Signal Processing, overlap-save.
"""

from __future__ import annotations

import math
from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor

from tapwise.engine.kernels import _fft_frames as around
from tapwise.engine.kernels import _fft_pieces as pieces
from tapwise.engine.kernels import _inputs as inputs
from tapwise.engine.kernels import _native_cost, direct
from tapwise.engine.memory import ask_large_pages
from tapwise.engine.problem import Problem
from tapwise.geometry import Geometry

NAME = "fft"

# Numbers that all may hold at a time: 32 MB.
_ROOM = 1 << 22
# Beyond these, a product of spectra might leave the range of its numbers: such filters are summed.
_HEAVIEST, _HEAVIEST32 = 1e150, 1e15


def why_not(problem: Problem) -> str | None:
    """Why this kernel can't run the problem; None where it can."""
    obstacle = direct.why_not(problem)
    if obstacle is not None:
        return obstacle
    if problem.geometry.transposed:
        return "doesn't do transposed convolutions"
    size, _ = frames_of(problem.geometry, problem.output_length)
    channels, in_group = problem.channels_in_group, problem.outputs_in_group
    if channels * in_group * size + 3 * max(around.A_TURN, max(channels, in_group) * size) > _ROOM:
        return "its spectra and frames would need more than 32 MB"
    return None


def tiles(problem: Problem) -> str:
    """How the work is divided, in words."""
    size, step = frames_of(problem.geometry, problem.output_length)
    return f"frames of {size} samples, {step} outputs each"


@lru_cache(maxsize=512)
def frames_of(geometry: Geometry, outputs: int) -> tuple[int, int]:
    """The size of the transforms, and how many outputs of stride 1 each gives."""
    reach = pieces.reach_of(geometry)
    wanted = max((outputs - 1) * geometry.stride + 1, 1)
    sizes = [1 << p for p in range(8, 19) if 1 << p >= reach + min(reach, wanted) - 1]
    best = min(sizes, key=lambda n: _work(n, reach, wanted))
    return best, best - reach + 1


def _work(size: int, reach: int, wanted: int) -> float:
    """Steps of the transforms; the larger ones miss the cache."""
    frames = -(-wanted // (size - reach + 1))
    return frames * size * math.log2(size) * (1.0 if size <= 1 << 14 else 1.5)


def cost(problem: Problem, threads: int) -> float:
    """Predicted seconds for one batch row."""
    return predicted(problem, threads, 1.0)


def predicted(problem: Problem, threads: int, share: float) -> float:
    geometry, outputs = problem.geometry, problem.output_length
    size, step = frames_of(geometry, outputs)
    frames = -(-max((outputs - 1) * geometry.stride + 1, 1) // step)
    channels = problem.channels_in_group
    filters = problem.out_channels * channels
    transforms = frames * (problem.in_channels + problem.out_channels) + filters
    a_step = 0.55e-9 if size <= 1 << 14 else 0.8e-9
    seconds = transforms * size * math.log2(size) * a_step * share / 2
    seconds += frames * filters * size * (0.6e-9 if channels == 1 else 1.5e-9) * share
    if _native_cost.narrow():
        seconds *= 2.3
    return pieces.count(geometry) * (150e-6 + seconds / threads)


def gradient_cost(problem: Problem, threads: int) -> float:
    """Predicted seconds of the weight's gradient for one batch row."""
    if problem.geometry.stride > 1:
        return math.inf
    alone = problem.channels_in_group == problem.outputs_in_group == 1
    return (1.6 if alone and _native_cost.narrow() else 1.2) * cost(problem, threads)


@inputs.widened
def run(geometry: Geometry, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution of ``input`` (B, C_in, L) by transforms in float64: (B, C_out, L_out)."""
    return transformed(geometry, input, weight, bias, torch.float64)


def transformed(
    geometry: Geometry, input: Tensor, weight: Tensor, bias: Tensor | None, wide: torch.dtype
) -> Tensor:
    heaviest = float(weight.detach().abs().sum(-1).amax()) if weight.numel() else 0.0
    if not heaviest < (_HEAVIEST if wide == torch.float64 else _HEAVIEST32):  # or no number
        return direct.run(geometry, input, weight, bias)
    if pieces.count(geometry) > 1:
        run = partial(transformed, wide=wide)
        return pieces.summed(run, geometry, input, weight, bias)
    if input.dtype == torch.float64:
        wide = torch.float64
    batch, _, length = input.shape
    groups, outputs = geometry.groups, geometry.output_length(length)
    x, w = inputs.dense_rows(input), weight.detach().contiguous()
    w = w.view(groups, -1, *w.shape[1:])  # (g, o, c, K)
    b = None if bias is None else bias.detach().contiguous()
    y = ask_large_pages(input.new_empty((batch, weight.shape[0], outputs)))
    if y.numel() == 0:
        return y
    size, step = frames_of(geometry, outputs)
    frames = -(-((outputs - 1) * geometry.stride + 1) // step)
    turns = around.turns(batch, groups, max(w.shape[1:3]), frames, size)
    spectra, of = None, -1
    for g0, g1, row, f0, f1 in turns:
        if spectra is None or of != g0:
            spectra, of = around.spectra(w[g0:g1], geometry.dilation, size, wide), g0
        some, wild = around.frames(
            geometry, x[row : row + 1], g0, g1, f0, f1, size, step, wide, heaviest
        )
        some = torch.fft.rfft(some)
        some = torch.fft.irfft(around.multiply(some, spectra), n=size)
        around.write(geometry, some, y[row : row + 1], b, g0, f0, step)
        del some
        for g, f in np.argwhere(wild[0]):
            _by_direct(geometry, x, w, b, y, row, g0 + g, f0 + f, step)
    return y


@inputs.widened
def weight_gradient(geometry: Geometry, grad: Tensor, input: Tensor, weight: Tensor) -> Tensor:
    """The gradient of the weight (C_out, C_in / groups, K) from those of the outputs; stride 1."""
    if pieces.count(geometry) > 1:
        return pieces.gradient(weight_gradient, geometry, grad, input, weight)
    out_channels, channels, taps = weight.shape
    groups, in_group = geometry.groups, out_channels // geometry.groups
    size, step = frames_of(geometry, grad.shape[-1])
    frames = -(-grad.shape[-1] // step)
    plain = Geometry(1, groups=groups)
    x, g = inputs.dense_rows(input), grad.detach().contiguous()
    gain = _gain_of(g, size)
    result = weight.new_empty((groups, in_group, channels, taps))
    total, of = None, 0
    for g0, g1, row, f0, f1 in around.turns(
        x.shape[0], groups, max(channels, in_group), frames, size, channels * in_group
    ):
        if g0 != of:
            _take_taps(total, result[of:g0], geometry.dilation, size)
            total, of = None, g0
        some, wild = around.frames(
            geometry, x[row : row + 1], g0, g1, f0, f1, size, step, torch.float64, gain
        )
        some = torch.fft.rfft(some)[0]  # (g, c, f, n)
        grads, odd = around.frames(
            plain, g[row : row + 1], g0, g1, f0, f1, size, step, torch.float64, 1.0, mirrored=step
        )
        if wild.any() or odd.any():
            return direct.weight_gradient(geometry, grad, input, weight)
        grads = torch.fft.rfft(grads)[0]  # (g, o, f, n), conjugate
        total = _added(total, grads, some)
        del some, grads
    _take_taps(total, result[of:], geometry.dilation, size)
    return result.view(weight.shape)


def _added(total: Tensor | None, grads: Tensor, some: Tensor) -> Tensor:
    """The products of each output's and each input's frames added to their ``total`` (g, o, c, n)."""
    (groups, in_group, frames, size), channels = grads.shape, some.shape[1]
    if frames <= in_group * channels:
        for f in range(frames):
            theirs, ours = grads[:, :, None, f], some[:, None, :, f]
            total = theirs * ours if total is None else total.addcmul_(theirs, ours)
        assert total is not None
        return total
    total = grads.new_zeros((groups, in_group, channels, size)) if total is None else total
    for o in range(in_group):
        for c in range(channels):
            total[:, o, c] += (grads[:, o] * some[:, c]).sum(1)
    return total


def _gain_of(grad: Tensor, size: int) -> float:
    """What the gradients multiply rounding by, as the weights of a filter do."""
    energy = float(torch.linalg.vector_norm(grad, dim=-1).amax()) if grad.numel() else 0.0
    gain = energy * math.sqrt(size) * 1e-3
    return 1.0 if math.isnan(gain) else gain  # what is no number is found in its frame


def _take_taps(total: Tensor | None, result: Tensor, dilation: int, size: int) -> None:
    if total is not None:
        reach = dilation * (result.shape[-1] - 1) + 1
        for o in range(total.shape[1]):
            result[:, o] = torch.fft.irfft(total[:, o], n=size)[..., :reach:dilation]


def _by_direct(
    geometry: Geometry, x: Tensor, w: Tensor, bias: Tensor | None, y: Tensor, row: int, g: int,
    f: int, step: int,
) -> None:  # fmt: skip
    """One frame's outputs of one group in one row, by sums."""
    stride, (_, in_group, channels, _) = geometry.stride, w.shape
    start = -(-f * step // stride)
    stop = min(((f + 1) * step - 1) // stride + 1, y.shape[-1])
    if stop <= start:
        return
    begin = start * stride - geometry.left
    end = (stop - 1) * stride - geometry.left + geometry.effective_kernel_size
    positions = np.arange(begin, end)
    samples = x[row, g * channels : (g + 1) * channels]
    if geometry.padding_mode == "zeros":
        kept = samples[:, max(begin, 0) : max(end, 0)]
        left = min(max(-begin, 0), end - begin)
        samples = torch.nn.functional.pad(kept, (left, end - begin - left - kept.shape[-1]))
    else:
        samples = samples[:, torch.from_numpy(geometry.fold(positions, x.shape[-1]))]
    outputs = slice(g * in_group, (g + 1) * in_group)
    plain = Geometry(geometry.kernel_size, stride, geometry.dilation)
    b = None if bias is None else bias[outputs]
    y[row, outputs, start:stop] = direct.run(plain, samples[None], w[g], b)[0]
