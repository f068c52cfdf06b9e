"""Problem: all that a choice of algorithm may look at, checked before any work."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from tapwise.errors import ShapeError
from tapwise.geometry import Geometry
from tapwise.settings import Padding, single

EMPTY_ALLOWED = ("causal", "semicausal")


@dataclass(frozen=True, slots=True)
class Problem:
    """Geometry with channel counts, length, dtype and device. The batch is left out on purpose.

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
    def channels_in_group(self) -> int:
        """Input channels that one output channel sums."""
        return self.in_channels // self.geometry.groups

    @property
    def outputs_in_group(self) -> int:
        """Output channels that read the same input channels."""
        return self.out_channels // self.geometry.groups

    @property
    def multiplications(self) -> int:
        """Products that the definition sums for one batch row."""
        steps = self.length if self.geometry.transposed else self.output_length
        return steps * self.out_channels * self.channels_in_group * self.geometry.kernel_size

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
        *,
        transposed: bool = False,
        output_padding: int | tuple[int, ...] = 0,
    ) -> Problem:
        """The problem that these arguments pose.

        Raises:
            ShapeError: arguments that don't fit together, with torch's sentence, both values and
                the fix.
        """
        name = "conv_transpose1d" if transposed else "conv1d"
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
            _raise_dimensions(name, input, weight)
        # The compiler traces through the making of a geometry; it can't see through a cache.
        make = _make_geometry if torch.compiler.is_compiling() else _cached_geometry
        try:
            geometry = make(
                weight.shape[-1], stride, dilation, padding, groups, padding_mode, transposed,
                output_padding,
            )  # fmt: skip
        except TypeError:  # a list can't be looked up, a float is none of these: make it, or say so
            geometry = _make_geometry(
                weight.shape[-1], stride, dilation, padding, groups, padding_mode, transposed,
                output_padding,
            )  # fmt: skip
        outer, inner, _ = weight.shape
        in_channels, out_channels = (
            (outer, inner * groups) if transposed else (inner * groups, outer)
        )
        _check_channels(input, weight, bias, groups, in_channels, out_channels, transposed)
        dtype = _check_dtypes(input, weight, bias)
        problem = cls(
            geometry, in_channels, out_channels, input.shape[-1], dtype, input.device.type
        )
        _check_length(problem, padding, input)
        return problem


def _make_geometry(
    kernel_size: int,
    stride: int | tuple[int, ...],
    dilation: int | tuple[int, ...],
    padding: Padding,
    groups: int,
    padding_mode: str,
    transposed: bool,
    output_padding: int | tuple[int, ...],
) -> Geometry:
    return Geometry(
        kernel_size,
        single("stride", stride),
        single("dilation", dilation),
        padding,
        groups,
        padding_mode,
        transposed,
        single("output_padding", output_padding),
    )


_cached_geometry = lru_cache(maxsize=4096, typed=True)(_make_geometry)


def autocast_dtype(tensor: Tensor) -> torch.dtype:
    """The dtype that the tensor has once autocast has had its say."""
    device = tensor.device.type
    if (
        tensor.is_floating_point()
        and tensor.dtype != torch.float64
        and device != "meta"
        and torch.is_autocast_enabled(device)
    ):
        return torch.get_autocast_dtype(device)
    return tensor.dtype


def _raise_dimensions(name: str, input: Tensor, weight: Tensor) -> None:
    if weight.ndim > 3:
        raise ShapeError(
            f"Expected a weight of 3 dimensions for {name}, but got weight of size "
            f"{list(weight.shape)}",
            fix="Tapwise computes one-dimensional convolutions only",
        )
    fixes = {
        0: "give a signal, not a single number",
        1: "x[None, :] makes one channel of it, x[None, None, :] a batch of one",
    }
    raise ShapeError(
        f"Expected 2D (unbatched) or 3D (batched) input to {name}, but got input of size: "
        f"{list(input.shape)}",
        got=f"{input.ndim} dimensions",
        expected="(channels, length) or (batch, channels, length)",
        fix=fixes.get(input.ndim, "x.flatten(0, -3) makes one batch axis of the leading ones"),
    )


def _check_channels(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    groups: int,
    in_channels: int,
    out_channels: int,
    transposed: bool,
) -> None:
    outer = weight.shape[0]
    size = list(weight.shape)
    if outer < groups:
        raise ShapeError(
            f"Given groups={groups}, expected weight to be at least {groups} at dimension 0, but "
            f"got weight of size {size} instead"
        )
    if outer % groups:
        kind = "in_channels" if transposed else "out_channels"
        raise ShapeError(
            f"Given groups={groups}, expected weight to be divisible by {groups} at dimension 0, "
            f"but got weight of size {size} instead",
            got=f"{kind}={outer}, groups={groups}",
            expected=f"{kind} ({outer}) divisible by groups ({groups})",
        )
    channels = input.shape[-2]
    if channels != in_channels:
        given = f"transposed={int(transposed)}" if transposed else f"groups={groups}"
        axes = "(0, 1)" if input.ndim == 2 else "(1, 2)"
        fix = None
        if input.shape[-1] == in_channels:
            fix = (
                f"x has {in_channels} channels on its last axis: did you mean x.transpose{axes}?"
                if in_channels != 1
                else f"x has its one channel on its last axis: did you mean x.transpose{axes}?"
            )
        elif not transposed and channels == weight.shape[1]:
            fix = (
                f"each of the {groups} groups takes {weight.shape[1]} channels: give {in_channels}, "
                "or set groups=1"
            )
        elif input.ndim == 3 and channels == 1:
            fix = f"x.expand(-1, {in_channels}, -1) gives every channel the same signal"
        raise ShapeError(
            f"Given {given}, weight of size {size}, expected input{list(input.shape)} to have "
            f"{in_channels} channels, but got {channels} channels instead",
            got=f"x of size {list(input.shape)}",
            expected=f"x of size {_expected_size(input, in_channels)}",
            fix=fix,
        )
    if bias is not None and tuple(bias.shape) != (out_channels,):
        raise ShapeError(
            f"Given weight of size {size}, expected bias to be 1-dimensional with {out_channels} "
            f"elements, but got bias of size {list(bias.shape)} instead"
        )


def _expected_size(input: Tensor, in_channels: int) -> str:
    batch = "" if input.ndim == 2 else "batch, "
    return f"({batch}{in_channels}, length)"


def _check_dtypes(input: Tensor, weight: Tensor, bias: Tensor | None) -> torch.dtype:
    dtype = autocast_dtype(input)
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor is None:
            continue
        theirs = autocast_dtype(tensor)
        if theirs != dtype:
            integers = not (dtype.is_floating_point or dtype.is_complex)
            convert = "x" if integers else name
            target = theirs if integers else dtype
            raise ShapeError(
                f"Input type ({input.type()}) and {name} type ({tensor.type()}) should be the same",
                got=f"x of {dtype}, {name} of {theirs}",
                expected=f"{convert} of {target}",
                fix=f"{convert}.to({target})",
            )
        if tensor.device != input.device:
            raise ShapeError(
                f"Expected x and {name} to be the same: both on one device",
                got=f"x on {input.device}, {name} on {tensor.device}",
                fix=f"{name}.to({str(input.device)!r})",
            )
    return dtype


def _check_length(problem: Problem, padding: Padding, input: Tensor) -> None:
    geometry, length = problem.geometry, problem.length
    if geometry.transposed:
        _check_length_transposed(problem, padding, input)
        return
    outputs = geometry.output_length(length)
    if outputs == 0 or length == 0:
        if length == 0 and isinstance(padding, str) and padding in EMPTY_ALLOWED:
            return
        padded = length + geometry.left + geometry.right
        fewest = max(geometry.input_length(1), 1)
        raise ShapeError(
            f"Calculated padded input size per channel: ({padded}). Kernel size: "
            f"({geometry.effective_kernel_size}). Kernel size can't be greater than actual input "
            "size",
            got=f"{length} samples and padding {geometry.padding}",
            expected=f"at least {fewest} samples",
            fix="a longer input, a shorter kernel or dilation, or padding='causal' or 'same'",
        )
    if geometry.padding_mode != "zeros":
        for outside in (-1,) * (geometry.left > 0) + (length,) * (geometry.right > 0):
            geometry.source(outside, length)


def _check_length_transposed(problem: Problem, padding: Padding, input: Tensor) -> None:
    geometry, length = problem.geometry, problem.length
    largest = max(geometry.stride, geometry.dilation)
    if geometry.output_padding >= largest:
        raise ShapeError(
            "output padding must be smaller than either stride or dilation, but got "
            f"output_padding: {geometry.output_padding} stride: {geometry.stride} dilation: "
            f"{geometry.dilation}"
        )
    if length == 0:
        if padding == "causal":
            return
        raise ShapeError(
            "Only zero batch or zero channel inputs are supported, but got input shape: "
            f"{list(input.shape)}",
            got="0 samples",
            expected="at least 1",
        )
    if geometry.output_length(length) == 0:
        whole = (length - 1) * geometry.stride + geometry.effective_kernel_size
        outputs = whole + geometry.output_padding - geometry.left - geometry.right
        raise ShapeError(
            f"Given input size per channel: ({length}). Calculated output size per channel: "
            f"({outputs}). Output size is too small",
            got=f"{length} samples and padding {geometry.padding}",
            expected=f"at least {geometry.input_length(1)} samples",
            fix="a longer input or less padding",
        )
