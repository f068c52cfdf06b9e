"""Filters as SciPy has them: its filter states, and its changes of rate as layers that stream."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, is_tensor_like

from tapwise.chunks import State
from tapwise.engine.autograd import is_traced
from tapwise.engine.checks import only_native_because
from tapwise.engine.dispatch import is_overridden
from tapwise.errors import ShapeError
from tapwise.extras import need
from tapwise.functional import conv1d, conv_transpose1d
from tapwise.geometry import Geometry
from tapwise.layers import Conv1d
from tapwise.padding import integer


def _filter_of(layer: Conv1d) -> Tensor:
    """The taps of a causal filter, one a channel, as SciPy orders them: (channels, K)."""
    g = Geometry.of(layer)
    taps = layer.weight.detach()
    if taps.shape[1] != 1 or taps.shape[0] != layer.groups or (g.stride, g.dilation) != (1, 1):
        raise ShapeError(
            "lfilter's state is that of one filter a channel",
            got=f"{layer}",
            expected="depthwise, of stride and dilation 1",
            fix="Conv1d.from_taps(taps, channels) makes such a layer",
        )
    if g.padding != (g.kernel_size - 1, 0) or g.padding_mode != "zeros" or layer.bias is not None:
        raise ShapeError(
            "lfilter's state is that of a causal filter without bias",
            got=f"{layer}",
            expected="padding='causal' with zeros, bias=False",
        )
    return taps[:, 0].flip(-1)


def _sums(taps: Tensor) -> Tensor:
    """(channels, K-1, K-1): lfilter's zi from the last inputs, the newest first.

    # zi[m] = sum over k > m of taps[k] * past[k - m - 1]
    """
    n = taps.shape[-1] - 1
    place = torch.arange(n, device=taps.device)
    tap = place[:, None] + place + 1
    return torch.where(tap <= n, taps[:, tap.clamp(max=n)], 0)


def zi_of_state(layer: Conv1d, state: State) -> Tensor:
    """What ``scipy.signal.lfilter`` calls ``zi``, from a layer's state: (..., channels, K-1).

    SciPy stores partial sums of outputs to come, a layer the last inputs, which give the sums.

    Raises:
        ShapeError: a layer that is no causal filter of one row of taps a channel.

    Example:
        >>> import numpy as np, torch, tapwise as tw
        >>> layer = tw.Conv1d.from_taps(np.array([1.0, 2.0, 3.0]), dtype=torch.float64)
        >>> _, state = layer.step(torch.tensor([[[4.0, 5.0]]], dtype=torch.float64), layer.init_state())
        >>> tw.zi_of_state(layer, state)
        tensor([[[22., 15.]]], dtype=torch.float64)

    Source: ``scipy.signal.lfilter``, whose ``zf`` for these samples is the same.
    """
    taps = _filter_of(layer)
    n = taps.shape[-1] - 1
    past = state.kept.flip(-1)[..., :n]
    past = nn.functional.pad(past, (0, n - past.shape[-1]))
    return (_sums(taps) @ past[..., None])[..., 0]


def state_of_zi(layer: Conv1d, zi: Any) -> State:
    """A layer's state from ``scipy.signal.lfilter``'s ``zi``: the stream goes on where SciPy was.

    Of all last inputs that give these sums, the smallest are taken: the outputs to come are the same.

    Arguments:
        zi: (..., channels, K-1), or (K-1,) for every channel alike.

    Raises:
        ShapeError: a layer that is no causal filter of one row of taps a channel, or a ``zi`` that
            doesn't fit it, or that no samples give.

    Example:
        >>> import numpy as np, torch, tapwise as tw
        >>> layer = tw.Conv1d.from_taps(np.array([1.0, 2.0, 3.0]), dtype=torch.float64)
        >>> state = tw.state_of_zi(layer, [22.0, 15.0])
        >>> y, _ = layer.step(torch.zeros(1, 1, 2, dtype=torch.float64), state)
        >>> [round(v, 9) for v in y.flatten().tolist()]
        [22.0, 15.0]
    """
    taps = _filter_of(layer)
    channels, n = taps.shape[0], taps.shape[-1] - 1
    given = torch.as_tensor(zi, device=taps.device).detach()
    is_complex = given.is_complex() or taps.is_complex()
    sums = given.to(torch.complex128 if is_complex else torch.float64)
    if sums.ndim == 1:
        sums = sums.expand(1, channels, -1)
    if sums.shape[-2:] != (channels, n) or sums.ndim > 3:
        raise ShapeError(
            "zi doesn't fit the layer",
            got=f"zi of size {list(sums.shape)}",
            expected=f"(batch, {channels}, {n}), ({channels}, {n}) or ({n},)",
        )
    if is_complex and not layer.weight.is_complex():
        raise ShapeError(
            "a complex zi needs a complex layer",
            got=f"zi of {given.dtype}, a layer of {layer.weight.dtype}",
            expected="numbers of one kind",
            fix="from_taps(taps, dtype=torch.complex128)",
        )
    past = _past_of_sums(_sums(taps).to(sums.dtype), sums, layer.weight.dtype)
    count = torch.tensor(n)
    return State(past.flip(-1), count, count.clone())


def _is_float(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _past_of_sums(matrix: Tensor, sums: Tensor, dtype: torch.dtype) -> Tensor:
    """The smallest inputs (..., channels, n), the newest first, of which ``matrix`` (channels, n, n) makes the sums.

    Arguments:
        dtype: in which they are kept: as they are rounded, they have to make the sums.
    """
    past = torch.empty_like(sums, dtype=dtype)
    eps = torch.finfo(dtype).eps
    for channel in range(matrix.shape[0] if matrix.shape[-1] else 0):
        # Taps fade towards their ends, so that the matrix is hardly of full rank: least squares.
        a, wanted = matrix[channel].resolve_conj().cpu().numpy(), sums[..., channel, :].resolve_conj().cpu().numpy()
        columns = wanted.reshape(-1, wanted.shape[-1]).T
        found, *_ = np.linalg.lstsq(a, columns, rcond=eps * len(a))
        kept = torch.from_numpy(found.T.reshape(wanted.shape)).to(past)
        past[..., channel, :] = kept
        stored = kept.to(sums.dtype).cpu().numpy().reshape(-1, wanted.shape[-1]).T
        rest, most = abs(a @ stored - columns).max(initial=0.0), abs(columns).max(initial=0.0)
        if not rest <= eps**0.5 * most:
            raise ShapeError(
                f"no samples of {dtype} before the first give this zi: the filter's last taps are zero, or nearly",
                got=f"a zi that the nearest samples miss by {rest:.3g}",
                expected="what scipy.signal.lfilter or lfilter_zi gave for these taps",
                fix="leave zeros at the end of the taps out"
                + ("" if dtype in (torch.float64, torch.complex128) else ", or from_taps(taps, dtype=torch.float64)"),
            )
    return past


def upfirdn(x: Tensor, taps: Tensor, up: int, down: int) -> Tensor:
    """``scipy.signal.upfirdn`` of a signal (batch, channels, length), every channel by the same taps."""
    if is_overridden(x, taps, None):
        return handle_torch_function(upfirdn, (x, taps), x, taps, up, down)
    channels = x.shape[-2]
    if up == 1:
        return conv1d(x, taps.flip(-1).expand(channels, 1, -1), None, down, "full", 1, channels)
    if down == 1 or not _is_polyphase_exact(x, taps):
        return conv_transpose1d(x, taps.expand(channels, 1, -1), None, up, 0, 0, channels)[..., ::down]
    return _polyphase(x, taps, up, down)


def _is_polyphase_exact(x: Tensor, taps: Tensor) -> bool:
    """Whether zero taps may lie over samples: all are finite, and a call can look at them."""
    if is_traced(x, taps) or only_native_because(x, taps, None) is not None:
        return False
    return bool(x.detach().abs().sum().isfinite())


# Phases whose filters are computed at once: they share the samples that they read.
_PHASES = 64


def _polyphase(x: Tensor, taps: Tensor, up: int, down: int) -> Tensor:
    """Both rates at once: ``up`` filters of stride ``down``, whose outputs are interleaved.

    # y[m*up + p] = sum over k of taps[first + k*up] * x[m*down + newest - k]
    #               where p*down = newest*up + first
    """
    outputs = -(-((x.shape[-1] - 1) * up + taps.shape[0]) // down)
    frames = -(-outputs // up)
    parts = [
        _phases(x, taps, up, down, range(first, min(first + _PHASES, up, outputs)), frames)
        for first in range(0, min(up, outputs), _PHASES)
    ]
    y = torch.cat(parts, -2)  # (..., channels, phases, frames)
    return y.transpose(-1, -2).flatten(-2)[..., :outputs]


def _phases(x: Tensor, taps: Tensor, up: int, down: int, phases: range, frames: int) -> Tensor:
    """The outputs of some phases: (..., channels, phases, frames)."""
    channels, longest = x.shape[-2], -(-taps.shape[0] // up)
    oldest, latest = phases[0] * down // up, phases[-1] * down // up
    filters = []
    for phase in phases:
        newest, first = divmod(phase * down, up)
        own = taps[first::up]
        own = nn.functional.pad(own, (0, longest - own.shape[0])).flip(-1)
        # All windows begin at the same sample: those of later phases hold zeros first.
        filters.append(nn.functional.pad(own, (newest - oldest, latest - newest)))
    weight = torch.stack(filters)[:, None].repeat(channels, 1, 1)  # (channels * phases, 1, K)
    start = oldest - (longest - 1)  # of the first window
    stop = start + (frames - 1) * down + weight.shape[-1]
    inside = x[..., max(start, 0) : max(stop, 0)]
    left = min(max(-start, 0), stop - start)
    padding = (left, stop - start - left - inside.shape[-1])
    y = conv1d(nn.functional.pad(inside, padding), weight, None, down, 0, 1, channels)
    return y.reshape(*y.shape[:-2], channels, len(phases), frames)


def _check_signal(x: Any) -> None:
    if not is_tensor_like(x):  # type: ignore[no-untyped-call]
        raise TypeError(f"x must be a torch.Tensor, got {type(x).__name__}: torch.as_tensor(x)")
    if x.ndim not in (2, 3):
        raise ShapeError(
            "a change of rate takes channels of samples",
            got=f"x of size {list(x.shape)}",
            expected="(batch, channels, length) or (channels, length)",
            fix="x[None, :] makes one channel of it" if x.ndim == 1 else None,
        )


class Upfirdn(nn.Module):
    """``scipy.signal.upfirdn`` as a layer: zeros between samples, a filter, every ``down``-th output.

    It streams: ``tapwise.stream(tapwise.Upfirdn(taps, up, down), x)``.

    Outputs have the signal's dtype, as those of torch's layers do; SciPy gives the taps' where that is wider.
    Whole numbers are filtered in float64, as by SciPy. ``torch.export``, ``torch.onnx.export`` and
    ``torch.jit.trace`` take the layer; ``torch.jit.script`` reads none of Tapwise's.

    Arguments:
        taps: (K,), the filter; every channel goes through it alike. Of a list, they are kept in float64.
        up: upsampled by this factor.
        down: downsampled by this factor.

    Shapes:
        input (batch, channels, length); output ``ceil(((length - 1) * up + K) / down)`` samples.

    Raises:
        ShapeError: taps that are no list of numbers, or rates below 1.
        TypeError: rates that are no integers.

    Example:
        >>> import torch, tapwise as tw
        >>> tw.Upfirdn([1.0, 1.0], up=2)(torch.tensor([[[1.0, 2.0]]]))
        tensor([[[1., 1., 2., 2.]]])

    Source: ``scipy.signal.upfirdn``.
    """

    taps: Tensor

    def __init__(self, taps: Any, up: int = 1, down: int = 1) -> None:
        super().__init__()
        self.up, self.down = integer("up", up), integer("down", down)
        values = taps.detach().clone() if isinstance(taps, Tensor) else torch.from_numpy(np.array(taps))
        if not _is_float(values):
            values = values.to(torch.float64)
        if values.ndim != 1 or not values.numel() or self.up < 1 or self.down < 1:
            raise ShapeError(
                "upfirdn takes one list of taps, and rates of at least 1",
                got=f"taps of size {list(values.shape)}, up={up}, down={down}",
                expected="(K,), up >= 1, down >= 1",
            )
        self.register_buffer("taps", values)

    def forward(self, x: Tensor) -> Tensor:
        """The signal at its new rate."""
        _check_signal(x)
        dtype = x.dtype if _is_float(x) else torch.float64
        dtype = dtype.to_complex() if self.taps.is_complex() else dtype
        return upfirdn(x.to(dtype), self.taps.to(dtype), self.up, self.down)

    def extra_repr(self) -> str:
        return f"{self.taps.shape[0]} taps, up={self.up}, down={self.down}"


class Resample(nn.Module):
    """``scipy.signal.resample_poly`` as a layer that streams: ``ceil(length * up / down)`` samples.

    Arguments:
        up, down: the rate changes by ``up / down``.
        window: of the filter that SciPy designs, or the taps themselves, as ``resample_poly`` takes it.

    Raises:
        ValueError: rates below 1.
        TypeError: rates that are no integers.

    Example:
        >>> import torch, tapwise as tw
        >>> tw.Resample(3, 2)(torch.zeros(1, 1, 100)).shape
        torch.Size([1, 1, 150])

    Source: ``scipy.signal.resample_poly``, with zeros beyond the ends.
    """

    def __init__(self, up: int, down: int, window: Any = ("kaiser", 5.0)) -> None:
        super().__init__()
        firwin = need("scipy.signal").firwin
        up, down = integer("up", up), integer("down", down)
        if up < 1 or down < 1:
            raise ValueError(f"up and down must be at least 1, got {up} and {down}")
        shared = math.gcd(up, down)
        self.up, self.down = up // shared, down // shared
        self.first = 0
        if self.up == self.down:
            self.change = Upfirdn([1.0])
            return
        if isinstance(window, str | tuple):
            n_taps = 2 * 10 * max(self.up, self.down) + 1
            taps = firwin(n_taps, 1 / max(self.up, self.down), window=window) * self.up
        else:  # the filter itself
            taps = np.asarray(window, complex if np.iscomplexobj(window) else float) * self.up
        half = (len(taps) - 1) // 2
        # Zeros before the taps, so that the middle one falls on an output.
        before = self.down - half % self.down
        self.first = (half + before) // self.down
        # Zeros after them, so that all outputs are there, however short the filter.
        self.change = Upfirdn(np.pad(taps, (before, self.up + self.down)), self.up, self.down)

    def forward(self, x: Tensor) -> Tensor:
        """The signal at its new rate."""
        _check_signal(x)
        outputs = -(-x.shape[-1] * self.up // self.down)
        return self.change(x)[..., self.first : self.first + outputs]  # type: ignore[no-any-return]
