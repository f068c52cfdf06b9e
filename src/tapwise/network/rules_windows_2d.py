"""Rules for windows over time and another axis: two-dimensional convolutions and pooling of spectrograms.

Time is one of the last two axes. Along it the window is a timeline's; along the other, all of it is done at
every moment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tapwise.geometry import Geometry
from tapwise.network.observed_call import ObservedCall
from tapwise.network.operations import Within
from tapwise.network.timeline import Windows


def _place(observed: ObservedCall) -> int:
    """Which of the two last axes is time: 0 or 1."""
    ref = observed.refs[0]
    place = observed.time(ref) - len(observed.sizes(ref)[0]) + 2
    if place not in (0, 1):
        raise observed.refuse("runs along other axes than time", "let time be one of the last two axes")
    return place


def _pair(observed: ObservedCall, value: Any) -> tuple[int, int]:
    values = observed.ints(value)
    return (values[0], values[-1])


def _without(pair: tuple[int, int], place: int, value: int = 0) -> tuple[int, int]:
    """The pair, with another number for the axis of time."""
    return (value, pair[1]) if place == 0 else (pair[0], value)


def _conv2d(observed: ObservedCall) -> None:
    if len(observed.refs) > 1:
        raise observed.refuse("its taps are computed from the signal", "taps must be the same for all of the signal")
    weight, bias, place = observed.same(1, "weight"), observed.same(2, "bias"), _place(observed)
    stride, dilation = (_pair(observed, observed.same(n, name, 1)) for n, name in ((3, "stride"), (5, "dilation")))
    padding, groups = observed.same(4, "padding", 0), observed.same(6, "groups", 1)
    if padding == "valid":
        padding = 0
    if isinstance(padding, str):  # "same": torch pads the right by one more where it must
        reach = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        if reach[1 - place] % 2:
            raise observed.refuse("pads the other axis unevenly (padding='same')", "pad by numbers")
        time_padding = (reach[place] // 2, reach[place] - reach[place] // 2)
        pads = _without((reach[0] // 2, reach[1] // 2), place)
    else:
        pads = _pair(observed, padding)
        time_padding = (pads[place], pads[place])
        pads = _without(pads, place)
    geometry = Geometry(weight.shape[2 + place], stride[place], dilation[place], time_padding)

    def convolved(inputs: Sequence[Tensor]) -> Tensor:
        return F.conv2d(inputs[0], weight, bias, stride, pads, dilation, groups)

    observed.add(Windows(geometry), Within(convolved))


def _conv_transpose2d(observed: ObservedCall) -> None:
    if len(observed.refs) > 1:
        raise observed.refuse("its taps are computed from the signal", "taps must be the same for all of the signal")
    weight, bias, place = observed.same(1, "weight"), observed.same(2, "bias"), _place(observed)
    names = ((3, "stride", 1), (4, "padding", 0), (5, "output_padding", 0), (7, "dilation", 1))
    stride, pads, extra, dilation = (_pair(observed, observed.same(*name)) for name in names)
    groups = observed.same(6, "groups", 1)
    if extra[place]:
        raise observed.refuse("adds outputs at the end of time (output_padding)", "pad the input instead")
    if stride[place] > dilation[place] * (weight.shape[2 + place] - 1) + 1:
        raise observed.refuse("leaves gaps between its strides in time", "a kernel at least as long as the stride")
    cut = (pads[place], pads[place])
    geometry = Geometry(weight.shape[2 + place], stride[place], dilation[place], cut, transposed=True)
    pads, extra = _without(pads, place), _without(extra, place)

    def convolved(inputs: Sequence[Tensor]) -> Tensor:
        return F.conv_transpose2d(inputs[0], weight, bias, stride, pads, extra, groups, dilation)

    observed.add(Windows(geometry), Within(convolved))


def _pool2d(observed: ObservedCall) -> None:
    place, largest = _place(observed), observed.name == "max_pool2d"
    taps = _pair(observed, observed.same(1, "kernel_size"))
    stride = observed.same(2, "stride", None)
    stride = taps if stride is None or stride == [] or stride == () else _pair(observed, stride)
    padding = _pair(observed, observed.same(3, "padding", 0))
    dilation = _pair(observed, observed.same(4, "dilation", 1)) if largest else (1, 1)
    if observed.same(5 if largest else 4, "ceil_mode", False):
        raise observed.refuse("pools over windows that pass the end (ceil_mode)", "ceil_mode=False")
    counts = True if largest else observed.same(5, "count_include_pad", True)
    if padding[place] and not counts:
        raise observed.refuse("counts padding at the ends only (count_include_pad=False)", "pad by yourself")
    if not largest and observed.same(6, "divisor_override", None) is not None:
        raise observed.refuse("divides by a number of its own (divisor_override)", "multiply by a number instead")
    pads = _without(padding, place)

    def pooled(inputs: Sequence[Tensor]) -> Tensor:
        if largest:
            return F.max_pool2d(inputs[0], taps, stride, pads, dilation)
        return F.avg_pool2d(inputs[0], taps, stride, pads, count_include_pad=counts)

    geometry = Geometry(taps[place], stride[place], dilation[place], (padding[place], padding[place]))
    observed.add(Windows(geometry), Within(pooled, float("-inf") if largest else 0.0))


def _im2col(observed: ObservedCall) -> None:
    """F.unfold: patches, one column a place; time is what places follow where the other axis has one."""
    place = _place(observed)
    names = ((1, "kernel_size", 1), (2, "dilation", 1), (3, "padding", 0), (4, "stride", 1))
    taps, dilation, padding, stride = (_pair(observed, observed.same(*name)) for name in names)
    (size,) = {s[len(s) - 2 + 1 - place] for s in observed.sizes(observed.refs[0])}
    other = 1 - place
    reach = dilation[other] * (taps[other] - 1) + 1
    if (size + 2 * padding[other] - reach) // stride[other] != 0:
        raise observed.refuse("lays time and another axis into one, out of order", "Tensor.unfold along time")
    pads = _without(padding, place)
    geometry = Geometry(taps[place], stride[place], dilation[place], (padding[place], padding[place]))
    work = Within(lambda inputs: torch.nn.functional.unfold(inputs[0], taps, dilation, pads, stride))
    observed.add(Windows(geometry), work)


def _pixel_shuffle(observed: ObservedCall) -> None:
    """Groups of channels become neighbours in time and the other axis, or the other way round."""
    _place(observed)
    is_up = observed.name == "pixel_shuffle"
    factor = observed.same(1, "upscale_factor" if is_up else "downscale_factor")
    geometry = Geometry(factor, factor, transposed=is_up)
    observed.add(Windows(geometry), Within(observed.apply()), is_bound=observed.is_mixed)


WINDOWS_2D: dict[str, Callable[[ObservedCall], None]] = {
    "conv2d": _conv2d,
    "conv_transpose2d": _conv_transpose2d,
    "avg_pool2d": _pool2d,
    "max_pool2d": _pool2d,
    "im2col": _im2col,
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_shuffle,
}
