"""fft: overlap-save. Long filters as products of spectra, frame by frame.

# inputs    |----frame 0----|             of N samples each, overlapping by the filter's span - 1
#                     |----frame 1----|
# outputs   |--step--||--step--|          the rest of each frame's products is wrapped around: dropped

float32 signals are transformed in float64: rounding relative to a frame's loudest sample is then below
what float32 can hold of the others. A frame with a wider range than that covers, or with a sample that is
no finite number, runs on ``direct``. ``fft32`` transforms in float32 where that is asked for.
Source: Oppenheim, Schafer: Discrete-Time Signal Processing, overlap-save.
"""

from __future__ import annotations

import math
from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor

from tapwise.engine.kernels import direct, inputs
from tapwise.engine.kernels.fft import frames as framing
from tapwise.engine.kernels.fft import segments
from tapwise.engine.memory import address
from tapwise.engine.outputs import new_output
from tapwise.engine.problem import Problem
from tapwise.engine.rates import current_rates
from tapwise.geometry import Geometry

NAME = "fft"
IS_EXACT, TRANSFORM_DTYPE = False, torch.float64

# Numbers of a frame that the caches hold, and that all frames and spectra may hold at a time: 32 MB.
CACHED_FRAME = 1 << 14
_MOST_NUMBERS = 1 << 22
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
    fan_in, fan_out = problem.in_channels_per_group, problem.out_channels_per_group
    turn = max(framing.A_TURN, max(fan_in, fan_out) * size)
    if fan_in * fan_out * size + 3 * turn > _MOST_NUMBERS:
        return "its spectra and frames would need more than 32 MB"
    return None


def compiled_loops(problem: Problem, bits: int = 64) -> list[tuple[str, str]]:
    """The compiled loops that run the problem, where no frame has to run on ``direct``.

    Arguments:
        bits: of the numbers of a transform.
    """
    signal = 8 * inputs.summed_bytes(problem.dtype)
    return [(framing.LOOPS, f"{kind}_{signal}_{bits}") for kind in framing.KINDS]


def tiles(problem: Problem) -> str:
    """How the work is divided, in words."""
    size, step = frames_of(problem.geometry, problem.output_length)
    return f"frames of {size} samples, {step} outputs each"


def frames_of(geometry: Geometry, outputs: int) -> tuple[int, int]:
    """The size of the transforms, and how many outputs of stride 1 each gives."""
    positions = max((outputs - 1) * geometry.stride + 1, 1)
    return _frames_of(segments.span_of(geometry), positions, current_rates().fft.large_frame)


@lru_cache(maxsize=512)
def _frames_of(span: int, positions: int, large_frame: float) -> tuple[int, int]:
    def work(size: int) -> float:
        frames = -(-positions // (size - span + 1))
        slower = 1.0 if size <= CACHED_FRAME else large_frame
        return frames * size * math.log2(size) * slower

    sizes = [1 << p for p in range(8, 19) if 1 << p >= span + min(span, positions) - 1]
    best = min(sizes, key=work)
    return best, best - span + 1


@inputs.widened
def run(geometry: Geometry, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution of ``input`` (B, C_in, L) by transforms in float64: (B, C_out, L_out)."""
    return transformed(geometry, input, weight, bias, torch.float64)


def transformed(geometry: Geometry, input: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The same by transforms in ``dtype``."""
    address(weight)  # before it is read
    heaviest = float(weight.detach().abs().sum(-1).amax()) if weight.numel() else 0.0
    if not heaviest < (_HEAVIEST if dtype == torch.float64 else _HEAVIEST32):  # or no number
        return direct.run(geometry, input, weight, bias)
    if segments.count(geometry) > 1:
        return segments.summed(partial(transformed, dtype=dtype), geometry, input, weight, bias)
    dtype = torch.float64 if input.dtype == torch.float64 else dtype
    batch, _, length = input.shape
    groups, outputs = geometry.groups, geometry.output_length(length)
    x, w = inputs.contiguous_rows(input), weight.detach().contiguous()
    w = w.view(groups, -1, *w.shape[1:])  # (g, o, c, K)
    b = None if bias is None else bias.detach().contiguous()
    y = new_output((batch, weight.shape[0], outputs), input.dtype)
    if y.numel() == 0:
        return y
    size, step = frames_of(geometry, outputs)
    n_frames = -(-((outputs - 1) * geometry.stride + 1) // step)
    spectra, spectra_group = None, -1
    for turn in framing.turns(batch, groups, max(w.shape[1:3]), n_frames, size):
        if spectra is None or spectra_group != turn.g0:
            spectra = framing.spectra(w[turn.g0 : turn.g1], geometry.dilation, size, dtype)
            spectra_group = turn.g0
        block, is_wild = framing.frames(geometry, x, turn, size, step, dtype, heaviest)
        block = torch.fft.rfft(block)
        block = torch.fft.irfft(framing.multiply(block, spectra), n=size)
        framing.write(geometry, block, y, b, turn, step)
        del block
        for g, f in np.argwhere(is_wild):
            _by_direct(geometry, x, w, b, y, turn.row, turn.g0 + g, turn.f0 + f, step)
    return y


@inputs.widened
def weight_gradient(geometry: Geometry, grad: Tensor, input: Tensor, weight: Tensor) -> Tensor:
    """The gradient of the weight (C_out, C_in / groups, K) from that of the outputs; stride 1."""
    if segments.count(geometry) > 1:
        return segments.gradient(weight_gradient, geometry, grad, input, weight)
    out_channels, fan_in, taps = weight.shape
    groups, fan_out = geometry.groups, out_channels // geometry.groups
    size, step = frames_of(geometry, grad.shape[-1])
    n_frames = -(-grad.shape[-1] // step)
    grad_geometry, dtype = Geometry(1, groups=groups), torch.float64
    x, g = inputs.contiguous_rows(input), grad.detach().contiguous()
    gain = _gain_of(g, size)
    result = weight.new_empty((groups, fan_out, fan_in, taps))
    total, first_group = None, 0
    most_channels, pairs = max(fan_in, fan_out), fan_in * fan_out
    for turn in framing.turns(x.shape[0], groups, most_channels, n_frames, size, pairs):
        if turn.g0 != first_group:
            _take_taps(total, result[first_group : turn.g0], geometry.dilation, size)
            total, first_group = None, turn.g0
        frames, is_wild = framing.frames(geometry, x, turn, size, step, dtype, gain)
        frames = torch.fft.rfft(frames)[0]  # (g, c, f, n)
        grads, is_wild_grad = framing.frames(grad_geometry, g, turn, size, step, dtype, 1.0, step)
        if is_wild.any() or is_wild_grad.any():
            return direct.weight_gradient(geometry, grad, input, weight)
        grads = torch.fft.rfft(grads)[0]  # (g, o, f, n), conjugate
        total = _added(total, grads, frames)
        del frames, grads
    _take_taps(total, result[first_group:], geometry.dilation, size)
    return result.view(weight.shape)


def _added(total: Tensor | None, grads: Tensor, frames: Tensor) -> Tensor:
    """The products of each output's and each input's frames added to their ``total`` (g, o, c, n)."""
    (groups, fan_out, n_frames, size), fan_in = grads.shape, frames.shape[1]
    if n_frames <= fan_out * fan_in:
        for f in range(n_frames):
            of_grads, of_inputs = grads[:, :, None, f], frames[:, None, :, f]
            if total is None:
                total = of_grads * of_inputs
            else:
                total.addcmul_(of_grads, of_inputs)
        assert total is not None
        return total
    total = grads.new_zeros((groups, fan_out, fan_in, size)) if total is None else total
    for o in range(fan_out):
        for c in range(fan_in):
            total[:, o, c] += (grads[:, o] * frames[:, c]).sum(1)
    return total


def _gain_of(grad: Tensor, size: int) -> float:
    """What the gradients multiply rounding by, as the weights of a filter do."""
    energy = float(torch.linalg.vector_norm(grad, dim=-1).amax()) if grad.numel() else 0.0
    gain = energy * math.sqrt(size) * 1e-3
    return 1.0 if math.isnan(gain) else gain  # its frame is found to be wild


def _take_taps(total: Tensor | None, result: Tensor, dilation: int, size: int) -> None:
    if total is not None:
        span = dilation * (result.shape[-1] - 1) + 1
        for o in range(total.shape[1]):
            result[:, o] = torch.fft.irfft(total[:, o], n=size)[..., :span:dilation]


def _by_direct(
    geometry: Geometry, x: Tensor, w: Tensor, bias: Tensor | None, y: Tensor, row: int, g: int, f: int, step: int
) -> None:
    """Write one frame's outputs of one group in one row, by sums."""
    stride, (_, fan_out, fan_in, _) = geometry.stride, w.shape
    start = -(-f * step // stride)
    stop = min(((f + 1) * step - 1) // stride + 1, y.shape[-1])
    if stop <= start:
        return
    begin = start * stride - geometry.left
    end = (stop - 1) * stride - geometry.left + geometry.effective_kernel_size
    samples = x[row, g * fan_in : (g + 1) * fan_in]
    if geometry.padding_mode == "zeros":
        inside = samples[:, max(begin, 0) : max(end, 0)]
        left = min(max(-begin, 0), end - begin)
        padding = (left, end - begin - left - inside.shape[-1])
        samples = torch.nn.functional.pad(inside, padding)
    else:
        positions = np.arange(begin, end)
        samples = samples[:, torch.from_numpy(geometry.fold(positions, x.shape[-1]))]
    outputs = slice(g * fan_out, (g + 1) * fan_out)
    windows = Geometry(geometry.kernel_size, stride, geometry.dilation)
    b = None if bias is None else bias[outputs]
    y[row, outputs, start:stop] = direct.run(windows, samples[None], w[g], b)[0]
