"""Layers that take their input channels from the first signal, as torch's lazy layers do."""

from __future__ import annotations

from typing import Any

from torch import nn

from tapwise.layers import Conv1d, ConvTranspose1d
from tapwise.padding import Padding, check_divisible

_One = int | tuple[int]


class LazyConv1d(nn.modules.conv._LazyConvXdMixin, Conv1d):  # type: ignore[misc]
    """A ``Conv1d`` that takes its in_channels from the first input, as ``torch.nn.LazyConv1d`` does.

    After the first call it is a ``Conv1d``.

    Raises:
        ShapeError: arguments that don't fit together.

    Example:
        >>> import torch, tapwise as tw
        >>> layer = tw.LazyConv1d(4, 3, padding="causal")
        >>> layer(torch.zeros(2, 5, 10)).shape, type(layer).__name__, layer.in_channels
        (torch.Size([2, 4, 10]), 'Conv1d', 5)
    """

    cls_to_become = Conv1d

    def __init__(
        self,
        out_channels: int,
        kernel_size: _One,
        stride: _One = 1,
        padding: Padding = 0,
        dilation: _One = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(0, 0, kernel_size, stride, padding, dilation, groups, False, padding_mode, device, dtype)
        check_divisible(0, out_channels, groups)
        _make_lazy(self, out_channels, bias, device, dtype)

    def _get_num_spatial_dims(self) -> int:
        return 1


class LazyConvTranspose1d(nn.modules.conv._LazyConvXdMixin, ConvTranspose1d):  # type: ignore[misc]
    """A ``ConvTranspose1d`` that takes its in_channels from the first input, as torch's lazy layer does.

    After the first call it is a ``ConvTranspose1d``.

    Raises:
        ShapeError: arguments that don't fit together.

    Example:
        >>> import torch, tapwise as tw
        >>> tw.LazyConvTranspose1d(4, 3, stride=2, padding="causal")(torch.zeros(2, 5, 10)).shape
        torch.Size([2, 4, 20])
    """

    cls_to_become = ConvTranspose1d

    def __init__(
        self,
        out_channels: int,
        kernel_size: _One,
        stride: _One = 1,
        padding: Padding = 0,
        output_padding: _One = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: _One = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            0, 0, kernel_size, stride, padding, output_padding, groups, False, dilation, padding_mode, device, dtype
        )
        check_divisible(0, out_channels, groups)
        _make_lazy(self, out_channels, bias, device, dtype)

    def _get_num_spatial_dims(self) -> int:
        return 1


def _make_lazy(layer: Any, out_channels: int, bias: bool, device: Any, dtype: Any) -> None:
    """Parameters without a size, as torch's lazy layers have them."""
    parameter: Any = nn.parameter.UninitializedParameter
    layer.weight = parameter(device=device, dtype=dtype)
    layer.out_channels = out_channels
    if bias:
        layer.bias = parameter(device=device, dtype=dtype)
