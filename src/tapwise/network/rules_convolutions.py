"""Rules for what reads windows: convolutions, pooling, upsampling, padding; and for recurrences."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tapwise.geometry import Geometry
from tapwise.network.graph import followed
from tapwise.network.observed_call import ObservedCall
from tapwise.network.operations import Apply, Convolve, Fill, Input, Recur, Size, Within
from tapwise.network.record import Ref
from tapwise.network.timeline import Aligned, Ends, Windows, fit_ends, without_ends
from tapwise.padding import single


def _last_axis(observed: ObservedCall) -> None:
    ref = observed.refs[0]
    if observed.time(ref) != len(observed.sizes(ref)[0]) - 1:
        raise observed.refuse(
            "runs along another axis than time", "transpose the signal to (batch, channels, time) first"
        )


def _weights(observed: ObservedCall) -> tuple[Tensor, Tensor | None]:
    if len(observed.refs) > 1:
        raise observed.refuse("its taps are computed from the signal", "taps must be the same for all of the signal")
    weight, bias = observed.same(1, "weight"), observed.same(2, "bias")
    return weight, bias


def _conv1d(observed: ObservedCall) -> None:
    weight, bias = _weights(observed)
    _last_axis(observed)
    padding = observed.same(4, "padding", 0)
    mode = observed.same(7, "padding_mode", "zeros")
    geometry = Geometry(
        weight.shape[-1],
        single("stride", observed.same(3, "stride", 1)),
        single("dilation", observed.same(5, "dilation", 1)),
        padding if isinstance(padding, str) else tuple(observed.ints(padding)),
        observed.same(6, "groups", 1),
        mode,
    )
    if mode == "circular" and geometry.padding != (0, 0):
        raise observed.refuse(_CIRCULAR, _NOT_CIRCULAR)
    inputs = None
    if mode != "zeros" and geometry.padding != (0, 0):
        # Padding is a step of its own, and the windows lie within what it gives.
        ends = Ends(geometry.left, (geometry.right,), mode)
        size = observed.node(observed.refs[0]).size
        inputs = [observed.add(ends, Fill(), size=size, last=False)]
        geometry = without_ends(geometry)
    observed.add(Windows(geometry), Convolve(weight, bias), inputs=inputs)


_CIRCULAR = "pads circularly: its first output reads the end of the signal"
_NOT_CIRCULAR = "padding of zeros, 'replicate' or 'reflect'"


def _conv_transpose1d(observed: ObservedCall) -> None:
    weight, bias = _weights(observed)
    _last_axis(observed)
    padding = observed.same(4, "padding", 0)
    geometry = Geometry(
        weight.shape[-1],
        single("stride", observed.same(3, "stride", 1)),
        single("dilation", observed.same(7, "dilation", 1)),
        padding if isinstance(padding, str) else tuple(observed.ints(padding)),
        observed.same(6, "groups", 1),
        "zeros",
        True,
        single("output_padding", observed.same(5, "output_padding", 0)),
    )
    observed.add(Windows(geometry), Convolve(weight, bias))


def _upfirdn(observed: ObservedCall) -> None:
    """tapwise.filters.upfirdn: zeros between samples and a filter, then every ``down``-th output."""
    _last_axis(observed)
    taps, up, down = (observed.same(n, name) for n, name in enumerate(("taps", "up", "down"), 1))
    (ref,) = observed.refs
    node = observed.node(ref)
    axis = len(node.size.entries) - 2
    if axis < 0 or any(axis == other for other, _ in node.size.batch):
        raise observed.refuse("has no axis of channels beside the batch's", "give (batch, channels, time)")
    channels = node.size.entries[axis]
    if up == 1:
        geometry = Geometry(taps.shape[0], down, padding=(taps.shape[0] - 1,) * 2, groups=channels)
        observed.add(Windows(geometry), Convolve(taps.flip(-1).expand(channels, 1, -1), None))
        return
    size = Size((*node.size.entries[:-2], channels, 0), node.size.time, node.size.batch)
    geometry = Geometry(taps.shape[0], up, groups=channels, transposed=True)
    work = Convolve(taps.expand(channels, 1, -1), None)
    inputs = [observed.add(Windows(geometry), work, size=size, last=False)]
    every = Within(lambda inputs: inputs[0][..., ::down])
    observed.add(Windows(Geometry(1, down)), every, inputs=inputs)


def _pool(observed: ObservedCall) -> None:
    _last_axis(observed)
    largest = observed.name == "max_pool1d"
    taps = single("kernel_size", observed.same(1, "kernel_size"))
    stride = observed.same(2, "stride", None)
    stride = taps if stride is None or stride == [] or stride == () else single("stride", stride)
    padding = single("padding", observed.same(3, "padding", 0))
    dilation = single("dilation", observed.same(4, "dilation", 1)) if largest else 1
    if observed.same(5 if largest else 4, "ceil_mode", False):
        raise observed.refuse("pools over windows that pass the end (ceil_mode)", "ceil_mode=False")
    if not largest and padding and not observed.same(5, "count_include_pad", True):
        raise observed.refuse("counts padding at the ends only (count_include_pad=False)", "pad by yourself")

    def pooled(inputs: Any) -> Tensor:
        (x,) = inputs
        if largest:
            return F.max_pool1d(x, taps, stride, 0, dilation)
        return F.avg_pool1d(x, taps, stride)

    geometry = Geometry(taps, stride, dilation, padding)
    observed.add(Windows(geometry), Within(pooled, float("-inf") if largest else 0.0))


def _lp_pool(observed: ObservedCall) -> None:
    _last_axis(observed)
    power, taps = observed.same(1, "norm_type"), single("kernel_size", observed.same(2, "kernel_size"))
    stride = observed.same(3, "stride", None)
    stride = taps if stride is None or stride == [] or stride == () else single("stride", stride)
    if observed.same(4, "ceil_mode", False):
        raise observed.refuse("pools over windows that pass the end (ceil_mode)", "ceil_mode=False")
    observed.add(Windows(Geometry(taps, stride)), Within(lambda inputs: F.lp_pool1d(inputs[0], power, taps, stride)))


def _repeated(observed: ObservedCall, factor: int) -> None:
    (ref,) = observed.refs
    axis = observed.time(ref)

    def repeat(inputs: Any) -> Tensor:
        return torch.repeat_interleave(inputs[0], factor, axis)

    observed.add(Windows(Geometry(factor, factor, transposed=True)), Within(repeat))


def _interpolate(observed: ObservedCall) -> None:
    _last_axis(observed)
    mode = observed.same(3, "mode", "nearest")
    (ref,) = observed.refs
    value = observed.first.outputs[0]
    assert value is not None
    sizes = observed.sizes(value)
    if any(size[:-1] != old[:-1] for size, old in zip(sizes, observed.sizes(ref), strict=True)):
        raise observed.refuse("interpolates along other axes as well", "interpolate (batch, channels, time)")
    factors = {Fraction(size[-1], n) for size, n in zip(sizes, observed.lengths(ref), strict=True)}
    if len(factors) > 1:
        raise observed.refuse(
            "interpolates to a length that is no multiple of the signal's", "scale_factor=n, an integer"
        )
    (factor,) = factors
    if factor.denominator > 1:
        raise observed.refuse(f"interpolates by a factor of {factor}", "an integer factor, or tw.Resample")
    if mode == "linear" and not observed.same(4, "align_corners", None) and len(sizes[0]) == 3:
        _linearly(observed, factor.numerator)
    elif mode in ("nearest", "nearest-exact"):
        _repeated(observed, factor.numerator)
    else:
        ends = ", whose corners are aligned to the ends" if observed.same(4, "align_corners", None) else ""
        raise observed.refuse(
            f"interpolates by {mode!r}{ends}", "mode='nearest' or 'linear', align_corners=False, by an integer factor"
        )


def _linearly(observed: ObservedCall, factor: int) -> None:
    """Linear interpolation: the samples at the ends stand for those beyond; each gives a triangle of outputs.

    # factor 2, taps .25 .75 .75 .25      output 2i+1 is .75 x[i] + .25 x[i+1], and so on
    """
    if factor == 1:
        observed.aligned()
        return
    (ref,) = observed.refs
    node = observed.node(ref)
    copies = observed.add(Ends(1, (1,), "replicate"), Fill(), size=node.size, last=False)
    # Tap m, counted from the sample's own first output, weighs 1 - |m + (1 - factor) / 2| / factor. At its
    # zeros torch multiplies by zero.
    first, taps = -((factor + 1) // 2), 2 * factor + factor % 2
    places = (torch.arange(taps, dtype=torch.float64) + first + (1 - factor) / 2) / factor
    channels = node.size.entries[-2]
    weight = (1 - places.abs()).clamp(min=0).to(node.dtype).expand(channels, 1, -1)
    # Both copied samples' own outputs are cut.
    geometry = Geometry(taps, factor, padding=(factor - first, taps + first), groups=channels, transposed=True)
    observed.add(Windows(geometry), Convolve(weight, None), inputs=[copies], is_bound=factor % 2 == 1)


def _repeat_interleave(observed: ObservedCall) -> None:
    factor, axis = observed.same(1, "repeats"), observed.same(2, "dim", None)
    (ref,) = observed.refs
    if type(factor) is not int or axis is None:
        raise observed.refuse("repeats by different counts, or all that there is", "a number, and dim=-1")
    if axis % len(observed.sizes(ref)[0]) != observed.time(ref):
        observed.aligned()
    else:
        _repeated(observed, factor)


def _unfold(observed: ObservedCall) -> None:
    axis, size, step = (observed.same(n, name) for n, name in enumerate(("dimension", "size", "step"), 1))
    (ref,) = observed.refs
    if axis % len(observed.sizes(ref)[0]) != observed.time(ref):
        observed.aligned()
        return
    observed.add(Windows(Geometry(size, step)), Within(observed.apply()))


def _pad(observed: ObservedCall) -> None:
    """Padding along time; that of other axes is done with it."""
    (ref,) = observed.refs
    mode, value = observed.same(2, "mode", "constant"), observed.same(3, "value", None)
    ndim, time = len(observed.sizes(ref)[0]), observed.time(ref)
    pads = [observed.ints(pad) for pad in observed.each(1, "pad")]
    here = 2 * (ndim - 1 - time)
    others = {tuple(p for n, p in enumerate(pad) if n not in (here, here + 1)) for pad in pads}
    if len(others) > 1:
        raise observed.refuse("pads another axis by what depends on the length", "pad by a number")
    inputs = None
    if any(p for p in others.pop()):
        rest = [0 if n in (here, here + 1) else p for n, p in enumerate(pads[0])]

        def beside(inputs: Any) -> Tensor:
            return F.pad(inputs[0], rest, mode, value)

        size = observed.size(observed.first.outputs[0] or 0)
        spec = observed.first.spec
        work = Apply(lambda x: beside([x]), (Input(0),), _one_argument(spec))
        inputs = [observed.add(Aligned(), work, size=size, last=False)]
    along = [tuple(pad[here : here + 2]) if len(pad) > here else (0, 0) for pad in pads]
    if mode == "circular" and any(pad != (0, 0) for pad in along):
        raise observed.refuse(_CIRCULAR, _NOT_CIRCULAR)
    cut_and_padded(
        observed,
        [left for left, _ in along],
        [right for _, right in along],
        {"constant": "zeros"}.get(mode, mode),
        float(value or 0.0),
        inputs,
    )


def _one_argument(spec: Any) -> Any:
    from torch.utils import _pytree as pytree

    return pytree.tree_flatten(((0,), {}))[1]


def cut_and_padded(
    observed: ObservedCall,
    lefts: list[int],
    rights: list[int],
    mode: str,
    value: float,
    inputs: list[int] | None,
    last: bool = True,
) -> int:
    """A node that pads or cuts the ends by what each run did."""
    (ref,) = observed.refs[:1]
    if len(set(lefts)) > 1:
        raise observed.refuse(
            f"moves the beginning by what depends on the length ({lefts[0]}, {lefts[1]}, ...)",
            "pad or cut the end by what the length asks for, the beginning always alike",
        )
    lengths = observed.lengths(ref)
    size = observed.node(ref).size if not last else None
    table = fit_ends(lengths, rights)
    if table is not None:
        ends = Ends(lefts[0], table, mode)
        return observed.add(ends, Fill(value), inputs=inputs, last=last, size=size)
    totals = [lefts[0] + n + r for n, r in zip(lengths, rights, strict=True)]
    if mode == "zeros" and (found := _length_of_another(observed, totals)) is not None:
        number, rounds_up, extra = found
        ends = Ends(lefts[0], (0,), mode)
        return observed.add(
            ends, Fill(value), inputs=inputs, last=last, size=size, reference=number, extra=extra, rounds_up=rounds_up
        )
    raise observed.refuse(
        f"pads or cuts the end by what is neither the same nor up to a multiple ({rights[0]}, {rights[1]}, ...)",
        "pad to a multiple of the total stride, or cut to the length of another tensor",
    )


def _length_of_another(observed: ObservedCall, totals: list[int]) -> tuple[int, bool, int] | None:
    """The node whose length, rounded up or down, the totals are, and how much more; None where there is none."""
    found = []
    for value, number in sorted(observed.builder.numbers.items()):
        ratio = observed.builder.rate_of(observed.refs[0]) / observed.builder.rates[number]
        for up in (False, True):
            same = [followed(n, ratio, up) for n in observed.lengths(value)]
            extras = {t - n for t, n in zip(totals, same, strict=True)}
            if len(extras) == 1:
                found.append((number, up, extras.pop()))
    return min(found, key=lambda fit: (abs(fit[2]), fit), default=None)  # a length itself before one more


def _recurrence(observed: ObservedCall) -> None:
    """LSTM, GRU and RNN, from the past to the future."""
    args = observed.first.arguments[0]
    if not isinstance(args[0], Ref) or len(observed.refs) > 1 or len(args) < 9:
        raise observed.refuse("is given packed sequences, or a state of the signal", "give it the signal")
    bidirectional, batch_first = args[7], args[8]
    if bidirectional:
        raise observed.refuse("runs from the end of the signal as well", "bidirectional=False")
    ref = observed.refs[0]
    ndim = len(observed.sizes(ref)[0])
    if observed.time(ref) != (1 if batch_first and ndim == 3 else 0):
        raise observed.refuse("runs along another axis than time", "batch_first, or a transpose")
    leaves = observed.leaves()
    states = 2 if observed.name == "lstm" else 1
    rows = (0 if batch_first else 1) if ndim == 3 else None
    per_row = dict(observed.node(ref).size.batch).get(rows) if rows is not None else None
    arguments, axis = list(leaves), None
    if per_row is not None:
        axis = 1
        for n in range(1, 1 + states):  # one row, that any batch begins with
            if not bool((arguments[n] == arguments[n].narrow(axis, 0, 1)).all()):
                raise observed.refuse("begins with other states in other rows", "begin with zeros")
            arguments[n] = arguments[n].narrow(axis, 0, 1)
    elif rows is not None:  # the rows don't depend on the batch
        first = observed.sizes(ref)[0][rows]
        arguments = [a.expand(-1, first, -1) if 0 < n <= states else a for n, a in enumerate(arguments)]
    apply = Apply(observed.first.func, tuple(arguments), observed.first.spec)
    work = Recur(apply, tuple(range(1, 1 + states)), axis, per_row or 1)
    observed.add(Aligned(endless=True), work)


CONVOLUTIONS: dict[str, Callable[[ObservedCall], None]] = {
    "conv1d": _conv1d,
    "conv_transpose1d": _conv_transpose1d,
    "upfirdn": _upfirdn,
    "avg_pool1d": _pool,
    "max_pool1d": _pool,
    "lp_pool1d": _lp_pool,
    "interpolate": _interpolate,
    "upsample": _interpolate,
    "repeat_interleave": _repeat_interleave,
    "unfold": _unfold,
    "pad": _pad,
    "lstm": _recurrence,
    "gru": _recurrence,
    "rnn_tanh": _recurrence,
    "rnn_relu": _recurrence,
}
