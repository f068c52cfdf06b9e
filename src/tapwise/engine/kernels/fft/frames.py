"""Around the transforms of the fft kernel: its turns, frames, spectra and outputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tapwise.engine import threads as pool
from tapwise.engine.compiled import CompiledLoop, loop
from tapwise.engine.kernels import inputs
from tapwise.engine.kernels.fft.records import FiltersJob, FramesJob, OutputsJob
from tapwise.engine.memory import address, address_of_array, own_address
from tapwise.geometry import Geometry

LOOPS = "fft.loops"
# What is done around the transforms, a loop each.
KINDS = ("filters", "frames", "outputs")
# Numbers that the frames of one turn hold, so that a turn stays in the cache.
A_TURN = 1 << 18
# Beyond it, silence beside a loud sample might not be silent in a product of spectra.
_LOUDEST_BESIDE_SILENCE = 1e7


class Turn(NamedTuple):
    """What is transformed at a time: the groups [g0, g1) and the frames [f0, f1) of one row."""

    row: int
    g0: int
    g1: int
    f0: int
    f1: int


def turns(batch: int, groups: int, channels: int, frames: int, size: int, totals: int = 1) -> Iterator[Turn]:
    """The turns of a signal, whose frames fit the cache.

    A row's turns are the same in any batch, since the bits of a transform may depend on how many are
    made at once. ``totals``: the frames that each group holds besides, through all its turns.
    """
    most = max(A_TURN // (size * channels), 1)
    n_frames = min(frames, most)
    n_groups = min(groups, max(most // n_frames, 1), max(4 * A_TURN // (size * totals), 1))
    for g in range(0, groups, n_groups):
        for row in range(batch):
            for f in range(0, frames, n_frames):
                yield Turn(row, g, min(g + n_groups, groups), f, min(f + n_frames, frames))


def spectra(w: Tensor, dilation: int, size: int, dtype: torch.dtype) -> Tensor:
    """The conjugate spectra of filters (g, o, c, K): (g, o, c, bins)."""
    parts = torch.split(w.reshape(-1, w.shape[-1]), max(A_TURN // size, 1))
    result: Tensor | None = None
    first = 0
    for part in parts:
        frames = w.new_empty((len(part), size), dtype=dtype)
        job = FiltersJob(
            filters=address(part), frames=own_address(frames), taps=w.shape[-1], dilation=dilation, size=size
        )
        pool.run(_loop("filters", w, frames), job, len(part), pool.count())
        spectrum = torch.fft.rfft(frames)
        if len(parts) == 1:
            result = spectrum
            break
        if result is None:
            result = spectrum.new_empty((w[..., 0].numel(), spectrum.shape[-1]))
        result[first : first + len(part)] = spectrum
        first += len(part)
    assert result is not None
    return result.view(*w.shape[:-1], -1)


def frames(
    geometry: Geometry,
    x: Tensor,
    turn: Turn,
    size: int,
    step: int,
    dtype: torch.dtype,
    gain: float,
    mirrored: int | None = None,
) -> tuple[Tensor, np.ndarray[Any, Any]]:
    """Frames (1, g, c, f, N) of a turn's row of x (B, C, L), and which (g, f) need another kernel.

    Arguments:
        gain: what the products of spectra multiply rounding by.
        mirrored: of each frame this number of samples only, run backwards from its first.
    """
    channels = x.shape[1] // geometry.groups
    part = x[turn.row : turn.row + 1, turn.g0 * channels : turn.g1 * channels]
    shape = (1, turn.g1 - turn.g0, channels, turn.f1 - turn.f0)
    frames = x.new_empty((*shape, size), dtype=dtype)
    is_wild = np.empty(shape, np.uint8)
    sources = inputs.padding_sources(geometry, x.shape[-1])
    job = FramesJob(
        **inputs.input_fields(part, geometry.left, 1, sources),
        frames=own_address(frames),
        size=size,
        step=step,
        samples=mirrored or size,
        first_frame=turn.f0,
        n_frames=turn.f1 - turn.f0,
        channels=part.shape[1],
        is_wild=address_of_array(is_wild),
        loudest_beside_silence=max(1, int(_LOUDEST_BESIDE_SILENCE / max(gain, 1.0))),
        is_mirrored=mirrored is not None,
    )
    pool.run(_loop("frames", x, frames), job, is_wild.size, pool.count())
    return frames, np.asarray(is_wild[0].any(1))


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


def write(geometry: Geometry, frames: Tensor, y: Tensor, bias: Tensor | None, turn: Turn, step: int) -> None:
    """Write the frames (1, g, o, f, N) of a turn to their places among the outputs y (B, C_out, L_out)."""
    frames = frames.contiguous()
    _, groups, fan_out, n_frames, size = frames.shape
    first = y[turn.row, turn.g0 * fan_out :]
    job = OutputsJob(
        frames=own_address(frames),
        y=own_address(first),
        bias=0 if bias is None else address(bias[turn.g0 * fan_out :]),
        step=step,
        size=size,
        stride=geometry.stride,
        first_frame=turn.f0,
        n_frames=n_frames,
        outputs=y.shape[-1],
    )
    pool.run(_loop("outputs", y, frames), job, groups * fan_out * n_frames, pool.count())


def _loop(kind: str, signal: Tensor, frames: Tensor) -> CompiledLoop:
    return loop(LOOPS, f"{kind}_{8 * signal.element_size()}_{8 * frames.element_size()}")
