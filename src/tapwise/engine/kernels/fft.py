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
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tapwise.engine import threads as pool
from tapwise.engine.kernels import _inputs as inputs
from tapwise.engine.kernels import direct
from tapwise.engine.machine_code import Body, body
from tapwise.engine.memory import ask_large_pages
from tapwise.engine.problem import Problem
from tapwise.geometry import Geometry

NAME = "fft"

# Numbers that the frames of one turn hold, so that a turn stays in the cache.
_A_TURN = 1 << 19
# Numbers that the spectra of a group's filters may hold: 32 MB.
_SPECTRA = 1 << 22
# Beyond these, a product of spectra might leave the range of its numbers, or silence beside a loud
# sample not be silent: such filters and frames are summed.
_HEAVIEST, _HEAVIEST32, _BESIDE_ZEROS = 1e150, 1e15, 1e7


def why_not(problem: Problem) -> str | None:
    """Why this kernel can't run the problem; None where it can."""
    obstacle = direct.why_not(problem)
    if obstacle is not None:
        return obstacle
    if problem.geometry.transposed:
        return "doesn't do transposed convolutions"
    size, _ = frames_of(problem.geometry, problem.output_length)
    if problem.channels_in_group * problem.outputs_in_group * size > _SPECTRA:
        return "the spectra of its filters would need more than 32 MB"
    return None


def tiles(problem: Problem) -> str:
    """How the work is divided, in words."""
    size, step = frames_of(problem.geometry, problem.output_length)
    return f"frames of {size} samples, {step} outputs each"


@lru_cache(maxsize=512)
def frames_of(geometry: Geometry, outputs: int) -> tuple[int, int]:
    """The size of the transforms, and how many outputs of stride 1 each gives."""
    reach = geometry.effective_kernel_size
    wanted = max((outputs - 1) * geometry.stride + 1, 1)
    sizes = [1 << p for p in range(8, 27) if 1 << p >= reach + min(reach, wanted) - 1]
    best = min(sizes or [1 << (reach + wanted).bit_length()], key=lambda n: _work(n, reach, wanted))
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
    return 150e-6 + seconds / threads


def gradient_cost(problem: Problem, threads: int) -> float:
    """Predicted seconds of the weight's gradient for one batch row."""
    if problem.geometry.stride > 1:
        return math.inf
    return 1.2 * cost(problem, threads)


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
    turns = _turns(batch, groups, max(w.shape[1:3]), frames, size)
    spectra, of = None, -1
    for g0, g1, row, f0, f1 in turns:
        if spectra is None or of != g0:
            spectra, of = _spectra(w[g0:g1], geometry.dilation, size, wide), g0
        some, wild = _frames(geometry, x[row : row + 1], g0, g1, f0, f1, size, step, wide, heaviest)
        products = _multiply(torch.fft.rfft(some), spectra)
        _write(geometry, torch.fft.irfft(products, n=size), y[row : row + 1], b, g0, f0, step)
        for g, f in np.argwhere(wild[0]):
            _by_direct(geometry, x, w, b, y, row, g0 + g, f0 + f, step)
    return y


@inputs.widened
def weight_gradient(geometry: Geometry, grad: Tensor, input: Tensor, weight: Tensor) -> Tensor:
    """The gradient of the weight (C_out, C_in / groups, K) from those of the outputs; stride 1."""
    out_channels, channels, taps = weight.shape
    groups, in_group = geometry.groups, out_channels // geometry.groups
    size, step = frames_of(geometry, grad.shape[-1])
    frames = -(-grad.shape[-1] // step)
    plain = Geometry(1, groups=groups)
    x, g = inputs.dense_rows(input), grad.detach().contiguous()
    result = weight.new_empty((groups, in_group, channels, taps))
    total, of = None, 0
    for g0, g1, row, f0, f1 in _turns(x.shape[0], groups, max(channels, in_group), frames, size):
        if g0 != of:
            _take_taps(total, result[of:g0], geometry.dilation, size)
            total, of = None, g0
        some, wild = _frames(
            geometry, x[row : row + 1], g0, g1, f0, f1, size, step, torch.float64, 1.0
        )
        grads, odd = _frames(
            plain, g[row : row + 1], g0, g1, f0, f1, size, step, torch.float64, 1.0, kept=step
        )
        if wild.any() or odd.any():
            return direct.weight_gradient(geometry, grad, input, weight)
        # (g, o, f, n) and (g, c, f, n): summed over the frames, (g, o, c, n)
        spectra, theirs = torch.fft.rfft(grads)[0].conj(), torch.fft.rfft(some)[0]
        products = torch.stack([(spectra * theirs[:, c, None]).sum(2) for c in range(channels)], 2)
        total = products if total is None else total.add_(products)
    _take_taps(total, result[of:], geometry.dilation, size)
    return result.view(weight.shape)


def _take_taps(total: Tensor | None, result: Tensor, dilation: int, size: int) -> None:
    if total is not None:
        reach = dilation * (result.shape[-1] - 1) + 1
        result.copy_(torch.fft.irfft(total, n=size)[..., :reach:dilation])


def _turns(
    batch: int, groups: int, channels: int, frames: int, size: int
) -> Iterator[tuple[int, int, int, int, int]]:
    """(first and last group, row, first and last frame) of each turn, whose frames fit the cache.

    A row's turns are the same in any batch, since the bits of a transform may depend on how many are
    made at once.
    """
    room = max(_A_TURN // (size * channels), 1)
    many_frames = min(frames, room)
    many_groups = min(groups, max(room // many_frames, 1))
    for g in range(0, groups, many_groups):
        for row in range(batch):
            for f in range(0, frames, many_frames):
                yield g, min(g + many_groups, groups), row, f, min(f + many_frames, frames)


def _spectra(w: Tensor, dilation: int, size: int, wide: torch.dtype) -> Tensor:
    """The conjugate spectra of filters (g, o, c, K): (g, o, c, bins)."""
    spread = w.new_zeros((*w.shape[:-1], size), dtype=wide)
    spread[..., : dilation * (w.shape[-1] - 1) + 1 : dilation] = w
    spectra: Tensor = torch.fft.rfft(spread)
    return spectra.conj_physical()


def _frames(
    geometry: Geometry, x: Tensor, g0: int, g1: int, f0: int, f1: int, size: int, step: int,
    wide: torch.dtype, heaviest: float, kept: int | None = None,
) -> tuple[Tensor, np.ndarray[Any, Any]]:  # fmt: skip
    """Frames (b, g, c, f, N) of x (b, C, L), and which (b, g, f) need another kernel."""
    channels = x.shape[1] // geometry.groups
    part = x[:, g0 * channels : g1 * channels]
    shape = (x.shape[0], g1 - g0, channels, f1 - f0)
    frames = x.new_empty((*shape, size), dtype=wide)
    wild = np.empty(shape, np.uint8)
    sources = inputs.padding_sources(geometry, x.shape[-1])
    job = [
        *inputs.where(part, geometry.left, 1, sources), frames.data_ptr(), size, step,
        size if kept is None else kept, f0, f1 - f0, part.shape[1], wild.ctypes.data,
        max(1, int(_BESIDE_ZEROS / max(heaviest, 1.0))),
    ]  # fmt: skip
    pool.run(_loop("frames", x, frames), job, wild.size, pool.count())
    return frames, np.asarray(wild.any(2))


def _multiply(x: Tensor, w: Tensor) -> Tensor:
    """Spectra (b, g, c, f, n) times (g, o, c, n), summed over c: (b, g, o, f, n). May write to x."""
    if w.shape[1] == w.shape[2] == 1:
        return x.mul_(w[:, :, 0, None])
    if w.shape[2] == 1:
        return x * w[:, :, 0, None]
    if w.shape[2] <= 8:
        products = x[:, :, 0, None] * w[:, :, 0, None]
        for c in range(1, w.shape[2]):
            products.addcmul_(x[:, :, c, None], w[:, :, c, None])
        return products
    return torch.einsum("bgcfn,gocn->bgofn", x, w)


def _write(
    geometry: Geometry, frames: Tensor, y: Tensor, bias: Tensor | None, g0: int, f0: int, step: int
) -> None:  # fmt: skip
    """The frames (b, g, o, f, N) at their places among the outputs y (b, C_out, L_out)."""
    frames = frames.contiguous()
    rows, groups, in_group, many, size = frames.shape
    first = y[:, g0 * in_group :]
    b = 0 if bias is None else bias[g0 * in_group :].data_ptr()
    job = [
        frames.data_ptr(), first.data_ptr(), b, groups * in_group, step, size, geometry.stride,
        f0, many, y.shape[-1], y.stride(0) * y.element_size(),
    ]  # fmt: skip
    pool.run(_loop("outputs", y, frames), job, rows * groups * in_group * many, pool.count())


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


def _loop(kind: str, narrow: Tensor, wide: Tensor) -> Body:
    return body("_fft_loops", f"{kind}_{8 * narrow.element_size()}_{8 * wide.element_size()}")
