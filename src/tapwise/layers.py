"""The layers: torch's Conv1d and ConvTranspose1d on this engine, and their causal forms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tapwise.chunks import StreamingLayer
from tapwise.engine.dispatch import run_cached
from tapwise.errors import ShapeError
from tapwise.functional import conv1d, conv_transpose1d
from tapwise.geometry import Geometry
from tapwise.padding import Padding, as_attribute, check_divisible, check_groups, single

_One = int | tuple[int]


class Conv1d(nn.Conv1d, StreamingLayer):
    """A ``torch.nn.Conv1d`` with more kinds of padding, a stream, and Tapwise's engine under it.

    Arguments and meaning are torch's, as are state_dict and initial weights from one seed.

    Arguments:
        padding: an int, a 1-tuple, a pair ``(left, right)``, ``"valid"``, ``"same"`` (any stride),
            ``"causal"``, ``"semicausal"`` or ``"full"``; the attribute ``padding`` is as given.

    Shapes:
        input (batch, in_channels, length) or (in_channels, length); output likewise with
        out_channels and ``Geometry.of(layer).output_length(length)``.

    Raises:
        ShapeError: arguments that don't fit together; it is a RuntimeError and a ValueError.

    Example:
        >>> import torch, tapwise as tw
        >>> tw.Conv1d(1, 4, 3, padding="causal")(torch.zeros(2, 1, 10)).shape
        torch.Size([2, 4, 10])
    """

    def __init__(
        self,
        in_channels: int,
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
        check_groups(groups)
        geometry = Geometry(
            single("kernel_size", kernel_size),
            single("stride", stride),
            single("dilation", dilation),
            padding,
            groups,
            padding_mode,
        )
        check_divisible(in_channels, out_channels, groups)
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            0,
            dilation,
            groups,
            bias,
            cast(Any, padding_mode),
            device,
            dtype,
        )
        self.padding = as_attribute(padding)
        # For code that pads by itself.
        self._reversed_padding_repeated_twice = list(geometry.padding)

    @classmethod
    def from_taps(
        cls,
        taps: npt.ArrayLike | Tensor,
        channels: int = 1,
        padding: Padding = "causal",
        flip: bool = True,
        *,
        stride: int = 1,
        dilation: int = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> Conv1d:
        """A FIR filter as a ``Conv1d``: each channel filtered alike, no bias, the taps trainable.

        Arguments:
            taps: (K,), as ``scipy.signal.firwin`` or an impulse response gives them.
            channels: how many channels the signal has.
            flip: reverse the taps, so that the layer convolves as ``numpy.convolve`` and
                ``scipy.signal.lfilter`` do. False uses them as they stand, as a trained layer does.
            dtype: of the weight; of the taps where they are a tensor of floats, else torch's default.

        Raises:
            ShapeError: taps that are no one-dimensional list of at least one number.
            TypeError: taps that are no numbers.

        Example:
            >>> import numpy as np, torch, tapwise as tw
            >>> taps, x = [1.0, 2.0, 3.0], np.arange(5.0)
            >>> tw.Conv1d.from_taps(taps, padding="full")(torch.tensor(x)[None, None].float()).tolist()
            [[[0.0, 1.0, 4.0, 10.0, 16.0, 17.0, 12.0]]]
            >>> np.convolve(x, taps).tolist()
            [0.0, 1.0, 4.0, 10.0, 16.0, 17.0, 12.0]
        """
        if isinstance(taps, Tensor):
            values = taps.detach()
        else:
            numbers = np.array(taps)
            if numbers.dtype.kind not in "biufc":
                raise TypeError(f"taps must be numbers, got {taps!r}: scipy.signal.firwin makes those of a filter")
            values = torch.from_numpy(numbers)
        if values.ndim != 1 or values.numel() == 0:
            raise ShapeError(
                "taps must be one list of numbers", got=f"taps of size {list(values.shape)}", expected="(K,), K >= 1"
            )
        if dtype is None and values.is_complex():
            dtype = torch.promote_types(torch.get_default_dtype(), torch.complex32)
        if dtype is None and isinstance(taps, Tensor) and taps.is_floating_point():
            dtype = taps.dtype
        if values.is_complex() and not dtype.is_complex:
            raise ShapeError(
                "complex taps need a complex layer",
                got=f"dtype={dtype}",
                expected="dtype=torch.complex64 or complex128",
            )
        layer = Conv1d(
            channels, channels, values.numel(), stride, padding, dilation, channels, False, padding_mode, device, dtype
        )
        with torch.no_grad():
            layer.weight.copy_(values.flip(0) if flip else values)
        return layer

    def forward(self, input: Tensor) -> Tensor:
        """The convolution of ``input`` (batch, in_channels, length) or (in_channels, length)."""
        parameters: Any = self._parameters  # an attribute of a module takes longer to look up
        if "weight" in parameters and "bias" in parameters:
            return self._conv_forward(input, parameters["weight"], parameters["bias"])
        return self._conv_forward(input, self.weight, self.bias)  # parametrized

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        settings = (self.stride, self.padding, self.dilation, self.groups, self.padding_mode)
        y = run_cached(input, weight, bias, (*settings, False, 0))  # a call less, which tiny signals notice
        return conv1d(input, weight, bias, *settings) if y is None else y


class CausalConv1d(Conv1d):
    """A convolution that never sees the future: output i reads no input after ``i * stride``.

    Padding is ``dilation * (K - 1)`` on the left, nothing on the right; it follows the weight, so a
    weight of another length may be put in afterwards. Outputs: ``ceil(length / stride)``. A
    checkpoint of a layer that wraps an ``nn.Conv1d`` as ``conv1d`` (``conv1d.weight``) loads too.

    Example:
        >>> import torch, tapwise as tw
        >>> layer = tw.CausalConv1d(1, 1, 3, dilation=2, bias=False)
        >>> torch.nn.init.ones_(layer.weight).shape
        torch.Size([1, 1, 3])
        >>> layer(torch.arange(6.0).reshape(1, 1, 6)).tolist()
        [[[0.0, 1.0, 2.0, 4.0, 6.0, 9.0]]]
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _One,
        *,
        stride: _One = 1,
        dilation: _One = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            "causal",
            dilation,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in ("weight", "bias"):
            if f"{prefix}conv1d.{name}" in state_dict:
                state_dict[prefix + name] = state_dict.pop(f"{prefix}conv1d.{name}")
        super()._load_from_state_dict(state_dict, prefix, *args)


class ConvTranspose1d(nn.ConvTranspose1d, StreamingLayer):
    """A ``torch.nn.ConvTranspose1d`` with asymmetric cuts and a stream.

    Arguments:
        padding: outputs cut from both ends, a pair ``(left, right)``, or ``"causal"``.

    Raises:
        ShapeError: arguments that don't fit together; it is a RuntimeError and a ValueError.

    Example:
        >>> import torch, tapwise as tw
        >>> tw.ConvTranspose1d(1, 1, 4, stride=2, padding=(0, 2))(torch.zeros(1, 1, 5)).shape
        torch.Size([1, 1, 10])
    """

    def __init__(
        self,
        in_channels: int,
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
        check_groups(groups)
        Geometry(
            single("kernel_size", kernel_size),
            single("stride", stride),
            single("dilation", dilation),
            padding,
            groups,
            padding_mode,
            True,
            single("output_padding", output_padding),
        )
        check_divisible(in_channels, out_channels, groups)
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            0,
            output_padding,
            groups,
            bias,
            dilation,
            cast(Any, padding_mode),
            device,
            dtype,
        )
        self.padding = as_attribute(padding)

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """The transposed convolution of ``input`` (batch, in_channels, length).

        Arguments:
            output_size: the length wanted, as ``[length]`` or a full size; torch's rule says which
                lengths there are.

        Raises:
            ValueError: an output size that no output_padding gives.
        """
        output_padding: Any = self.output_padding
        if output_size is not None:
            output_padding = self._output_padding_for(input, output_size)
        return conv_transpose1d(
            input, self.weight, self.bias, self.stride, self.padding, output_padding, self.groups, self.dilation
        )

    def _output_padding_for(self, input: Tensor, output_size: Sequence[int]) -> int:
        stride, dilation = self.stride[0], self.dilation[0]
        geometry = Geometry(self.weight.shape[-1], stride, dilation, self.padding, transposed=True)
        least = geometry.output_length(input.shape[-1])
        most = least + min(stride, max(stride, dilation) - geometry.output_padding) - 1
        if len(output_size) not in (1, input.ndim):
            raise ValueError(
                f"ConvTranspose1d: for {input.ndim}D input, output_size must have 1 or "
                f"{input.ndim} elements (got {len(output_size)})"
            )
        wanted = output_size[-1]
        if not least <= wanted <= most:
            raise ValueError(
                f"requested an output size of {[wanted]}, but valid sizes range from {[least]} to "
                f"{[most]} (for an input of {list(input.shape[-1:])})"
            )
        return wanted - least


class CausalConvTranspose1d(ConvTranspose1d):
    """Causal upsampling: exactly ``length * stride`` outputs, output j reads no input after
    ``j // stride``.

    Example:
        >>> import torch, tapwise as tw
        >>> tw.CausalConvTranspose1d(8, 4, 10, stride=5)(torch.zeros(1, 8, 7)).shape
        torch.Size([1, 4, 35])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _One,
        *,
        stride: _One = 1,
        dilation: _One = 1,
        groups: int = 1,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, "causal", 0, groups, bias, dilation, "zeros", device, dtype
        )
