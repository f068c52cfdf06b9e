"""Problem: all that a choice of kernel may look at, checked before any work."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tapwise.engine.checks import check_channels, check_dtypes, check_length, refuse_dimensions
from tapwise.errors import ShapeError
from tapwise.geometry import Geometry
from tapwise.padding import Padding, single


@dataclass(frozen=True, slots=True)
class Problem:
    """Geometry with channel counts, length, dtype and device. The batch size is left out on purpose.

    Example:
        >>> import torch
        >>> problem = Problem.of(torch.zeros(8, 1, 10), torch.ones(2, 1, 3))
        >>> problem.out_channels, problem.output_length
        (2, 8)
    """

    geometry: Geometry
    in_channels: int
    out_channels: int
    length: int
    dtype: torch.dtype
    device: str

    @property
    def output_length(self) -> int:
        return self.geometry.output_length(self.length)

    @property
    def in_channels_per_group(self) -> int:
        """Input channels that one output channel sums."""
        return self.in_channels // self.geometry.groups

    @property
    def out_channels_per_group(self) -> int:
        """Output channels that read the same input channels."""
        return self.out_channels // self.geometry.groups

    @property
    def n_inputs(self) -> int:
        """Input samples of all channels of one batch row."""
        return self.in_channels * self.length

    @property
    def n_outputs(self) -> int:
        """Output samples of all channels of one batch row."""
        return self.out_channels * self.output_length

    @property
    def n_weights(self) -> int:
        return self.out_channels * self.in_channels_per_group * self.geometry.kernel_size

    @property
    def multiplications(self) -> int:
        """Products that the definition sums for one batch row."""
        steps = self.length if self.geometry.transposed else self.output_length
        return steps * self.n_weights

    @classmethod
    def of(
        cls,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: int | tuple[int, ...] = 1,
        padding: Padding = 0,
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
        padding_mode: str = "zeros",
        transposed: bool = False,
        output_padding: int | tuple[int, ...] = 0,
    ) -> Problem:
        """The problem that these arguments pose.

        Raises:
            ShapeError: arguments that don't fit together, with torch's sentence, both values and
                the fix.
        """
        if weight.ndim < 3:
            raise ShapeError(
                "weight should have at least three dimensions",
                got=f"weight of size {list(weight.shape)}",
                expected="(in_channels, out_channels/groups, kernel_size)"
                if transposed
                else "(out_channels, in_channels/groups, kernel_size)",
                fix="weight.reshape(1, 1, -1) for a single filter",
            )
        if weight.ndim > 3 or input.ndim not in (2, 3):
            refuse_dimensions("conv_transpose1d" if transposed else "conv1d", input, weight)
        geometry = Geometry(
            weight.shape[-1],
            single("stride", stride),
            single("dilation", dilation),
            padding,
            groups,
            padding_mode,
            transposed,
            single("output_padding", output_padding),
        )
        in_channels, out_channels = channels_of(geometry, weight)
        check_channels(input, weight, bias, groups, in_channels, out_channels, transposed)
        dtype = check_dtypes(input, weight, bias)
        check_length(geometry, padding, input)
        return cls(geometry, in_channels, out_channels, input.shape[-1], dtype, input.device.type)

    @classmethod
    def unchecked(cls, geometry: Geometry, input: Tensor, weight: Tensor, dtype: torch.dtype | None = None) -> Problem:
        """The problem of tensors that are known to fit the geometry."""
        dtype = input.dtype if dtype is None else dtype
        channels = channels_of(geometry, weight)
        return cls(geometry, *channels, input.shape[-1], dtype, input.device.type)


def channels_of(geometry: Geometry, weight: Tensor) -> tuple[int, int]:
    """Input and output channels of a convolution with this weight."""
    outer, inner = weight.shape[0], weight.shape[1] * geometry.groups
    return (outer, inner) if geometry.transposed else (inner, outer)
