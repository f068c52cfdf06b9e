"""Pooling: windows of which the largest sample, or the average, is an output."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tapwise.geometry import Geometry
from tapwise.padding import single

KINDS = (nn.MaxPool1d, nn.AvgPool1d)


def pooling_of(layer: Any, signal: Tensor) -> tuple[Geometry, str]:
    """A pooling layer's windows, and what is made of each: ``"max"`` or ``"mean"``, of what lies within the signal.

    ``"average"`` is a convolution: every tap is 1/K, and padding counts as zeros.

    Arguments:
        signal: (C, L).

    Raises:
        TypeError: an average over part of the padding.
    """
    k = single("kernel_size", layer.kernel_size)
    stride = k if layer.stride is None else single("stride", layer.stride)
    padding, channels = single("padding", layer.padding), signal.shape[0]
    if isinstance(layer, nn.MaxPool1d):
        return Geometry(k, stride, single("dilation", layer.dilation), padding, channels), "max"
    geometry = Geometry(k, stride, 1, padding, channels)
    with torch.no_grad():
        n_outputs = layer(signal).shape[-1]
    counts_padding = bool(layer.count_include_pad and padding)
    # With ceil_mode the last window may reach beyond all padding: that part isn't counted.
    is_cut = n_outputs != geometry.output_length(signal.shape[-1])
    if is_cut and counts_padding:
        raise TypeError(
            "AvgPool1d's last window reaches beyond the padding that it counts: count_include_pad=False or "
            "ceil_mode=False can be explained"
        )
    return geometry, "average" if not is_cut and (counts_padding or not padding) else "mean"


def average_weight(geometry: Geometry, signal: Tensor) -> Tensor:
    """An average's taps: (C, 1, K) of 1/K."""
    return signal.new_full((geometry.groups, 1, geometry.kernel_size), 1 / geometry.kernel_size)
