"""Filters as SciPy has them: its filter states, and its changes of rate as layers that stream."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tapwise.errors import ShapeError
from tapwise.functional import conv1d, conv_transpose1d
from tapwise.geometry import Geometry
from tapwise.layers import Conv1d
from tapwise.stepping import State


def _filter_of(layer: Conv1d) -> Tensor:
    """The taps of a causal filter, one a channel, as SciPy orders them: (channels, K)."""
    g = Geometry.of(layer)
    taps = layer.weight.detach()
    if taps.shape[1] != 1 or taps.shape[0] != layer.groups or (g.stride, g.dilation) != (1, 1):
        raise ShapeError(
            "lfilter's state is that of one filter a channel",
            got=f"{layer}", expected="depthwise, of stride and dilation 1",
            fix="Conv1d.from_taps(taps, channels) makes such a layer",
        )  # fmt: skip
    if g.padding != (g.kernel_size - 1, 0) or g.padding_mode != "zeros" or layer.bias is not None:
        raise ShapeError(
            "lfilter's state is that of a causal filter without bias",
            got=f"{layer}", expected="padding='causal' with zeros, bias=False",
        )  # fmt: skip
    return taps[:, 0].flip(-1)


def _sums(taps: Tensor) -> Tensor:
    """(channels, K-1, K-1): lfilter's zi from the last inputs, the newest first.

    # zi[m] = sum over k > m of taps[k] * past[k - m - 1]
    """
    many = taps.shape[-1] - 1
    place = torch.arange(many, device=taps.device)
    wanted = place[:, None] + place + 1
    return torch.where(wanted <= many, taps[:, wanted.clamp(max=many)], 0)


def zi_of_state(layer: Conv1d, state: State) -> Tensor:
    """What ``scipy.signal.lfilter`` calls ``zi``, from a layer's state: (..., channels, K-1).

    SciPy keeps partial sums of outputs to come, a layer the last inputs: these give the sums.

    Raises:
        ShapeError: a layer that is no causal filter of one row of taps a channel.

    Example:
        >>> import numpy as np, torch, tapwise as tw
        >>> layer = tw.Conv1d.from_taps(np.array([1.0, 2.0, 3.0]), dtype=torch.float64)
        >>> _, state = layer.step(
        ...     torch.tensor([[[4.0, 5.0]]], dtype=torch.float64), layer.init_state()
        ... )
        >>> tw.zi_of_state(layer, state)
        tensor([[[22., 15.]]], dtype=torch.float64)

    Source: ``scipy.signal.lfilter``, whose ``zf`` for these samples is the same.
    """
    taps = _filter_of(layer)
    many = taps.shape[-1] - 1
    past = state.kept.flip(-1)[..., :many]
    past = nn.functional.pad(past, (0, many - past.shape[-1]))
    return (_sums(taps) @ past[..., None])[..., 0]


def state_of_zi(layer: Conv1d, zi: Any) -> State:
    """A layer's state from ``scipy.signal.lfilter``'s ``zi``: the stream goes on where SciPy was.

    Of all last inputs that give these sums, the smallest are taken: the outputs to come are the same.

    Arguments:
        zi: (..., channels, K-1), or (K-1,) for every channel alike.

    Raises:
        ShapeError: a layer that is no causal filter of one row of taps a channel, or a ``zi`` that
            doesn't fit it.

    Example:
        >>> import numpy as np, torch, tapwise as tw
        >>> layer = tw.Conv1d.from_taps(np.array([1.0, 2.0, 3.0]), dtype=torch.float64)
        >>> state = tw.state_of_zi(layer, [22.0, 15.0])
        >>> y, _ = layer.step(torch.zeros(1, 1, 2, dtype=torch.float64), state)
        >>> [round(v, 9) for v in y.flatten().tolist()]
        [22.0, 15.0]
    """
    taps = _filter_of(layer)
    channels, many = taps.shape[0], taps.shape[-1] - 1
    sums = torch.as_tensor(zi, dtype=torch.float64, device=taps.device)
    if sums.ndim == 1:
        sums = sums.expand(1, channels, -1)
    if sums.shape[-2:] != (channels, many) or sums.ndim > 3:
        raise ShapeError(
            "zi doesn't fit the layer", got=f"zi of size {list(sums.shape)}",
            expected=f"(batch, {channels}, {many}), ({channels}, {many}) or ({many},)",
        )  # fmt: skip
    matrix = _sums(taps).double()
    # Taps fade towards their ends: the inverse is no more than a least-squares solution can say.
    past = torch.linalg.pinv(matrix, rtol=1e-15) @ sums[..., None]
    kept = past[..., 0].flip(-1).to(layer.weight.dtype)
    count = torch.tensor(many)
    return State(kept, count, count.clone())


class Upfirdn(nn.Module):
    """``scipy.signal.upfirdn`` as a layer: zeros between samples, a filter, every ``down``-th output.

    It streams: ``tapwise.stream(tapwise.Upfirdn(taps, up, down), x)``.

    Arguments:
        taps: (K,), the filter; every channel goes through it alike.
        up: upsampled by so much.
        down: downsampled by so much.

    Shapes:
        input (batch, channels, length); output ``ceil(((length - 1) * up + K) / down)`` samples.

    Raises:
        ShapeError: taps that are no list of numbers, or rates below 1.

    Example:
        >>> import torch, tapwise as tw
        >>> tw.Upfirdn([1.0, 1.0], up=2)(torch.tensor([[[1.0, 2.0]]]))
        tensor([[[1., 1., 2., 2.]]])

    Source: ``scipy.signal.upfirdn``.
    """

    taps: Tensor

    def __init__(self, taps: Any, up: int = 1, down: int = 1) -> None:
        super().__init__()
        self.up, self.down = int(up), int(down)
        values = torch.as_tensor(taps)
        if not (values.is_floating_point() or values.is_complex()):
            values = values.to(torch.get_default_dtype())
        if values.ndim != 1 or not values.numel() or self.up < 1 or self.down < 1:
            raise ShapeError(
                "upfirdn takes one list of taps, and whole rates",
                got=f"taps of size {list(values.shape)}, up={up}, down={down}",
                expected="(K,), up >= 1, down >= 1",
            )
        self.register_buffer("taps", values)

    def forward(self, x: Tensor) -> Tensor:
        """The signal at its new rate."""
        channels, many = x.shape[-2], self.taps.shape[0]
        kind = x.dtype
        if not (x.is_floating_point() or x.is_complex()) or self.taps.is_complex():
            kind = torch.promote_types(x.dtype, self.taps.dtype)
            x = x.to(kind)
        taps = self.taps.to(kind).expand(channels, 1, -1)
        if self.up == 1:
            pads = (many - 1, many - 1)
            return conv1d(x, taps.flip(-1), None, self.down, pads, 1, channels)
        y = conv_transpose1d(x, taps, None, self.up, 0, 0, channels)
        return y if self.down == 1 else y[..., :: self.down]

    def extra_repr(self) -> str:
        return f"{self.taps.shape[0]} taps, up={self.up}, down={self.down}"


class Resample(nn.Module):
    """``scipy.signal.resample_poly`` as a layer that streams: ``ceil(length * up / down)`` samples.

    Arguments:
        up, down: the rate changes by ``up / down``.
        window: of the filter that SciPy designs, or the taps themselves, as ``resample_poly`` takes it.

    Raises:
        ValueError: rates below 1.

    Example:
        >>> import torch, tapwise as tw
        >>> tw.Resample(3, 2)(torch.zeros(1, 1, 100)).shape
        torch.Size([1, 1, 150])

    Source: ``scipy.signal.resample_poly``, with zeros beyond the ends.
    """

    def __init__(self, up: int, down: int, window: Any = ("kaiser", 5.0)) -> None:
        super().__init__()
        from scipy.signal import firwin

        if up < 1 or down < 1:
            raise ValueError(f"up and down must be at least 1, got {up} and {down}")
        shared = math.gcd(up, down)
        self.up, self.down = up // shared, down // shared
        self.first = 0
        if self.up == self.down:
            self.change = Upfirdn([1.0])
            return
        if isinstance(window, str | tuple):
            many = 2 * 10 * max(self.up, self.down) + 1
            taps = firwin(many, 1 / max(self.up, self.down), window=window) * self.up
        else:  # the filter itself
            taps = np.asarray(window, float) * self.up
        half = (len(taps) - 1) // 2
        # Zeros before the taps, so that the middle one falls on an output.
        before = self.down - half % self.down
        self.first = (half + before) // self.down
        whole = torch.tensor(
            [0.0] * before + taps.tolist() + [0.0] * self.down, dtype=torch.float64
        )
        self.change = Upfirdn(whole, self.up, self.down)

    def forward(self, x: Tensor) -> Tensor:
        """The signal at its new rate."""
        outputs = -(-x.shape[-1] * self.up // self.down)
        return self.change(x)[..., self.first : self.first + outputs]  # type: ignore[no-any-return]
