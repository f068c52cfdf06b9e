"""What stands around the transforms of the fft kernel: its turns, frames, spectra and outputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tapwise.engine import threads as pool
from tapwise.engine.kernels import _inputs as inputs
from tapwise.engine.machine_code import Body, body
from tapwise.geometry import Geometry

# Numbers that the frames of one turn hold, so that a turn stays in the cache.
A_TURN = 1 << 18
# Beyond it, silence beside a loud sample might not be silent in a product of spectra.
_BESIDE_ZEROS = 1e7


def turns(
    batch: int, groups: int, channels: int, frames: int, size: int, totals: int = 1
) -> Iterator[tuple[int, int, int, int, int]]:
    """(first and last group, row, first and last frame) of each turn, whose frames fit the cache.

    A row's turns are the same in any batch, since the bits of a transform may depend on how many are
    made at once. ``totals``: the frames that each group holds besides, through all its turns.
    """
    room = max(A_TURN // (size * channels), 1)
    many_frames = min(frames, room)
    many_groups = min(groups, max(room // many_frames, 1), max(4 * A_TURN // (size * totals), 1))
    for g in range(0, groups, many_groups):
        for row in range(batch):
            for f in range(0, frames, many_frames):
                yield g, min(g + many_groups, groups), row, f, min(f + many_frames, frames)


def spectra(w: Tensor, dilation: int, size: int, wide: torch.dtype) -> Tensor:
    """The conjugate spectra of filters (g, o, c, K): (g, o, c, bins)."""
    parts = torch.split(w.reshape(-1, w.shape[-1]), max(A_TURN // size, 1))
    whole: Tensor | None = None
    first = 0
    for part in parts:
        laid = w.new_empty((len(part), size), dtype=wide)
        job = [part.data_ptr(), laid.data_ptr(), w.shape[-1], dilation, size]
        pool.run(_loop("filters", w, laid), job, len(part), pool.count())
        some = torch.fft.rfft(laid)
        if whole is None:
            whole = some if len(parts) == 1 else some.new_empty((w[..., 0].numel(), some.shape[-1]))
        if len(parts) > 1:
            whole[first : first + len(part)] = some
            first += len(part)
    assert whole is not None
    return whole.view(*w.shape[:-1], -1)


def frames(
    geometry: Geometry, x: Tensor, g0: int, g1: int, f0: int, f1: int, size: int, step: int,
    wide: torch.dtype, heaviest: float, mirrored: int | None = None,
) -> tuple[Tensor, np.ndarray[Any, Any]]:  # fmt: skip
    """Frames (b, g, c, f, N) of x (b, C, L), and which (b, g, f) need another kernel.

    ``mirrored``: of each frame so many samples only, run backwards from its first.
    """
    channels = x.shape[1] // geometry.groups
    part = x[:, g0 * channels : g1 * channels]
    shape = (x.shape[0], g1 - g0, channels, f1 - f0)
    frames = x.new_empty((*shape, size), dtype=wide)
    wild = np.empty(shape, np.uint8)
    sources = inputs.padding_sources(geometry, x.shape[-1])
    job = [
        *inputs.where(part, geometry.left, 1, sources), frames.data_ptr(), size, step,
        mirrored or size, f0, f1 - f0, part.shape[1], wild.ctypes.data,
        max(1, int(_BESIDE_ZEROS / max(heaviest, 1.0))), mirrored is not None,
    ]  # fmt: skip
    pool.run(_loop("frames", x, frames), job, wild.size, pool.count())
    return frames, np.asarray(wild.any(2))


def multiply(x: Tensor, w: Tensor) -> Tensor:
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


def write(
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


def _loop(kind: str, narrow: Tensor, wide: Tensor) -> Body:
    return body("_fft_loops", f"{kind}_{8 * narrow.element_size()}_{8 * wide.element_size()}")
