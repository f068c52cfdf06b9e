"""Problem: all that a choice of algorithm may look at, checked before any work."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from tapwise.engine.checks import check_channels, check_dtypes, check_length, refuse_dimensions
from tapwise.errors import ShapeError
from tapwise.geometry import Geometry
from tapwise.settings import Padding, single


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
    _hash: int = field(default=0, init=False, repr=False, compare=False)

    def __hash__(self) -> int:
        if self._hash == 0:  # every choice looks problems up: they are hashed more often than made
            parts = (self.geometry, self.in_channels, self.out_channels, self.length, self.dtype)
            object.__setattr__(self, "_hash", hash((*parts, self.device)))
        return self._hash

    def __reduce__(self) -> tuple[Any, ...]:  # a hash is another in another process
        return Problem, (
            self.geometry, self.in_channels, self.out_channels, self.length, self.dtype, self.device,
        )  # fmt: skip

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
        key = _key(
            input, weight, bias, stride, padding, dilation, groups, padding_mode, transposed,
            output_padding,
        )  # fmt: skip
        if key is not None and (known := _known.get(key)) is not None:
            return known
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
            refuse_dimensions(name, input, weight)
        geometry = _geometry(
            weight.shape[-1], stride, dilation, padding, groups, padding_mode, transposed,
            output_padding,
        )  # fmt: skip
        outer, inner, _ = weight.shape
        in_channels, out_channels = (
            (outer, inner * groups) if transposed else (inner * groups, outer)
        )
        check_channels(input, weight, bias, groups, in_channels, out_channels, transposed)
        dtype = check_dtypes(input, weight, bias)
        problem = cls(
            geometry, in_channels, out_channels, input.shape[-1], dtype, input.device.type
        )
        check_length(geometry, padding, input)
        if key is not None:
            if len(_known) >= _MOST_KNOWN:
                _known.clear()
            _known[key] = problem
        return problem


# Problems whose arguments were checked before, by all that the checks looked at.
_known: dict[tuple[Any, ...], Problem] = {}
_MOST_KNOWN = 4096


def _key(input: Tensor, weight: Tensor, bias: Tensor | None, *settings: Any) -> Any:
    """What the checks look at; None where that is more than shapes, types and plain numbers."""
    plain = input.is_cpu and weight.is_cpu and (bias is None or bias.is_cpu)
    traced = torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
    if not plain or traced or torch.is_autocast_enabled("cpu"):
        return None
    if not _are_plain(settings):
        return None
    others = (None, None) if bias is None else (bias.shape, bias.dtype)
    key = (input.shape, input.dtype, weight.shape, weight.dtype, *others, *settings)
    try:
        hash(key)
    except TypeError:  # lengths that are symbols
        return None
    return key


_PLAIN = (int, str, bool)


def _are_plain(settings: tuple[Any, ...]) -> bool:
    """Whether all are whole numbers, words, or tuples of them: 2.0 and 2 are the same key elsewhere."""
    for value in settings:
        if type(value) not in _PLAIN and not (
            type(value) is tuple and all(type(number) is int for number in value)
        ):
            return False
    return True


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


def _geometry(*settings: Any) -> Geometry:
    # The compiler traces through the making of a geometry; it can't see through a cache. What is no
    # integer is refused in its own words.
    if torch.compiler.is_compiling() or not _are_plain(settings):
        return _make_geometry(*settings)
    return _cached_geometry(*settings)
