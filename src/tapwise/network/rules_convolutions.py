"""Rules for what reads windows: convolutions, pooling, upsampling, padding; and for recurrences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tapwise.geometry import Geometry
from tapwise.network.bundle import Bundle
from tapwise.network.graph import followed
from tapwise.network.operations import Apply, Convolve, Fill, Place, Recur, Within
from tapwise.network.recording import Slot
from tapwise.network.timeline import Aligned, Ends, Windows, fit_ends, without_ends
from tapwise.settings import single


def _last_axis(bundle: Bundle) -> None:
    slot = bundle.slots[0]
    if bundle.time(slot) != len(bundle.sizes(slot)[0]) - 1:
        raise bundle.refuse(
            "runs along another axis than time",
            "transpose the signal to (batch, channels, time) first",
        )


def _weights(bundle: Bundle) -> tuple[Tensor, Tensor | None]:
    if len(bundle.slots) > 1:
        raise bundle.refuse(
            "its taps are computed from the signal", "taps must be the same for all of the signal"
        )
    weight, bias = bundle.same(1, "weight"), bundle.same(2, "bias")
    return weight, bias


def _conv1d(bundle: Bundle) -> None:
    weight, bias = _weights(bundle)
    _last_axis(bundle)
    padding = bundle.same(4, "padding", 0)
    mode = bundle.same(7, "padding_mode", "zeros")
    geometry = Geometry(
        weight.shape[-1], single("stride", bundle.same(3, "stride", 1)),
        single("dilation", bundle.same(5, "dilation", 1)),
        padding if isinstance(padding, str) else tuple(bundle.ints(padding)),
        bundle.same(6, "groups", 1), mode,
    )  # fmt: skip
    if mode == "circular" and geometry.padding != (0, 0):
        raise bundle.refuse(_CIRCULAR, _NOT_CIRCULAR)
    inputs = None
    if mode != "zeros" and geometry.padding != (0, 0):
        # Padding is a step of its own, and the windows lie within what it gives.
        ends = Ends(geometry.left, (geometry.right,), mode)
        size = bundle.reader.node(bundle.slots[0], bundle).size
        inputs = [bundle.add(ends, Fill(), size=size, last=False)]
        geometry = without_ends(geometry)
    bundle.add(Windows(geometry), Convolve(weight, bias), inputs=inputs)


_CIRCULAR = "pads circularly: its first output reads the end of the signal"
_NOT_CIRCULAR = "padding of zeros, 'replicate' or 'reflect'"


def _conv_transpose1d(bundle: Bundle) -> None:
    weight, bias = _weights(bundle)
    _last_axis(bundle)
    padding = bundle.same(4, "padding", 0)
    geometry = Geometry(
        weight.shape[-1], single("stride", bundle.same(3, "stride", 1)),
        single("dilation", bundle.same(7, "dilation", 1)),
        padding if isinstance(padding, str) else tuple(bundle.ints(padding)),
        bundle.same(6, "groups", 1), "zeros", True,
        single("output_padding", bundle.same(5, "output_padding", 0)),
    )  # fmt: skip
    bundle.add(Windows(geometry), Convolve(weight, bias))


def _pool(bundle: Bundle) -> None:
    _last_axis(bundle)
    largest = bundle.name == "max_pool1d"
    taps = single("kernel_size", bundle.same(1, "kernel_size"))
    stride = bundle.same(2, "stride", None)
    stride = taps if stride is None or stride == [] or stride == () else single("stride", stride)
    padding = single("padding", bundle.same(3, "padding", 0))
    dilation = single("dilation", bundle.same(4, "dilation", 1)) if largest else 1
    if bundle.same(5 if largest else 4, "ceil_mode", False):
        raise bundle.refuse("pools over windows that pass the end (ceil_mode)", "ceil_mode=False")
    if not largest and padding and not bundle.same(5, "count_include_pad", True):
        raise bundle.refuse(
            "counts padding at the ends only (count_include_pad=False)", "pad by yourself"
        )

    def pooled(inputs: Any) -> Tensor:
        (x,) = inputs
        if largest:
            return F.max_pool1d(x, taps, stride, 0, dilation)
        return F.avg_pool1d(x, taps, stride)

    geometry = Geometry(taps, stride, dilation, padding)
    bundle.add(Windows(geometry), Within(pooled, float("-inf") if largest else 0.0))


def _repeated(bundle: Bundle, factor: int) -> None:
    (slot,) = bundle.slots
    axis = bundle.time(slot)

    def repeat(inputs: Any) -> Tensor:
        return torch.repeat_interleave(inputs[0], factor, axis)

    bundle.add(Windows(Geometry(factor, factor, transposed=True)), Within(repeat))


def _interpolate(bundle: Bundle) -> None:
    _last_axis(bundle)
    mode = bundle.same(3, "mode", "nearest")
    (slot,) = bundle.slots
    value = bundle.first.outputs[0]
    assert value is not None
    came = bundle.sizes(value)
    if any(size[:-1] != old[:-1] for size, old in zip(came, bundle.sizes(slot), strict=True)):
        raise bundle.refuse(
            "interpolates along other axes as well", "interpolate (batch, channels, time)"
        )
    factors = {size[-1] / n for size, n in zip(came, bundle.lengths(slot), strict=True)}
    if mode not in ("nearest", "nearest-exact") or len(factors) > 1 or min(factors) % 1:
        raise bundle.refuse(
            f"interpolates by {mode!r}, a factor of {min(factors):g}",
            "mode='nearest' by a whole factor, or a ConvTranspose1d whose taps interpolate",
        )
    _repeated(bundle, int(factors.pop()))


def _repeat_interleave(bundle: Bundle) -> None:
    factor, axis = bundle.same(1, "repeats"), bundle.same(2, "dim", None)
    (slot,) = bundle.slots
    if type(factor) is not int or axis is None:
        raise bundle.refuse(
            "repeats by different counts, or all that there is", "a number, and dim=-1"
        )
    if axis % len(bundle.sizes(slot)[0]) != bundle.time(slot):
        bundle.aligned()
    else:
        _repeated(bundle, factor)


def _unfold(bundle: Bundle) -> None:
    axis, size, step = (
        bundle.same(n, name) for n, name in enumerate(("dimension", "size", "step"), 1)
    )
    (slot,) = bundle.slots
    if axis % len(bundle.sizes(slot)[0]) != bundle.time(slot):
        bundle.aligned()
        return
    bundle.add(Windows(Geometry(size, step)), Within(bundle.apply()))


def _pad(bundle: Bundle) -> None:
    """Padding along time; that of other axes is done with it."""
    (slot,) = bundle.slots
    mode, value = bundle.same(2, "mode", "constant"), bundle.same(3, "value", None)
    ndim, time = len(bundle.sizes(slot)[0]), bundle.time(slot)
    pads = [bundle.ints(pad) for pad in bundle.each(1, "pad")]
    here = 2 * (ndim - 1 - time)
    others = {tuple(p for n, p in enumerate(pad) if n not in (here, here + 1)) for pad in pads}
    if len(others) > 1:
        raise bundle.refuse("pads another axis by what depends on the length", "pad by a number")
    inputs = None
    if any(p for p in others.pop()):
        rest = [0 if n in (here, here + 1) else p for n, p in enumerate(pads[0])]

        def beside(inputs: Any) -> Tensor:
            return F.pad(inputs[0], rest, mode, value)

        size = bundle.size(bundle.first.outputs[0] or 0)
        spec = bundle.first.spec
        work = Apply(lambda x: beside([x]), (Place(0),), _one_argument(spec))
        inputs = [bundle.add(Aligned(), work, size=size, last=False)]
    along = [tuple(pad[here : here + 2]) if len(pad) > here else (0, 0) for pad in pads]
    if mode == "circular" and any(pad != (0, 0) for pad in along):
        raise bundle.refuse(_CIRCULAR, _NOT_CIRCULAR)
    cut_and_padded(
        bundle, [left for left, _ in along], [right for _, right in along],
        {"constant": "zeros"}.get(mode, mode), float(value or 0.0), inputs,
    )  # fmt: skip


def _one_argument(spec: Any) -> Any:
    from torch.utils import _pytree as pytree

    return pytree.tree_flatten(((0,), {}))[1]


def cut_and_padded(
    bundle: Bundle, lefts: list[int], rights: list[int], mode: str, value: float,
    inputs: list[int] | None, last: bool = True,
) -> int:  # fmt: skip
    """A node that pads or cuts the ends by what each run did."""
    (slot,) = bundle.slots[:1]
    if len(set(lefts)) > 1:
        raise bundle.refuse(
            f"moves the beginning by what depends on the length ({lefts[0]}, {lefts[1]}, ...)",
            "pad or cut the end by what the length asks for, the beginning always alike",
        )
    lengths = bundle.lengths(slot)
    size = bundle.reader.node(slot, bundle).size if not last else None
    table = fit_ends(lengths, rights)
    if table is not None:
        ends = Ends(lefts[0], table, mode)
        return bundle.add(ends, Fill(value), inputs=inputs, last=last, size=size)
    totals = [lefts[0] + n + r for n, r in zip(lengths, rights, strict=True)]
    if mode == "zeros":  # to the length of another tensor?
        for other, number in sorted(bundle.reader.numbers.items()):
            ratio = (
                bundle.reader.rates[bundle.reader.number(slot, bundle)]
                / bundle.reader.rates[number]
            )
            for up in (False, True):
                same = [followed(n, ratio, up) for n in bundle.lengths(other)]
                extras = {t - n for t, n in zip(totals, same, strict=True)}
                if len(extras) == 1:
                    return bundle.add(
                        Ends(lefts[0], (0,), mode), Fill(value), inputs=inputs, last=last, size=size,
                        reference=number, extra=extras.pop(), rounds_up=up,
                    )  # fmt: skip
    raise bundle.refuse(
        f"pads or cuts the end by what is neither the same nor up to a multiple ({rights[0]}, "
        f"{rights[1]}, ...)",
        "pad to a multiple of the total stride, or cut to the length of another tensor",
    )


def _recurrence(bundle: Bundle) -> None:
    """LSTM, GRU and RNN, from the past to the future."""
    args = bundle.first.arguments[0]
    if not isinstance(args[0], Slot) or len(bundle.slots) > 1 or len(args) < 9:
        raise bundle.refuse(
            "is given packed sequences, or a state of the signal", "give it the signal"
        )
    bidirectional, batch_first = args[7], args[8]
    if bidirectional:
        raise bundle.refuse("runs from the end of the signal as well", "bidirectional=False")
    slot = bundle.slots[0]
    ndim = len(bundle.sizes(slot)[0])
    if bundle.time(slot) != (1 if batch_first and ndim == 3 else 0):
        raise bundle.refuse("runs along another axis than time", "batch_first, or a transpose")
    leaves = bundle.leaves()
    states = 2 if bundle.name == "lstm" else 1
    rows = (0 if batch_first else 1) if ndim == 3 else None
    many = dict(bundle.reader.node(slot, bundle).size.batch).get(rows) if rows is not None else None
    held, axis = list(leaves), None
    if many is not None:
        axis = 1
        for n in range(1, 1 + states):  # one row, that any batch begins with
            if not bool((held[n] == held[n].narrow(axis, 0, 1)).all()):
                raise bundle.refuse("begins with other states in other rows", "begin with zeros")
            held[n] = held[n].narrow(axis, 0, 1)
    elif rows is not None:  # always as many, whatever was narrowed
        first = bundle.sizes(slot)[0][rows]
        held = [h.expand(-1, first, -1) if 0 < n <= states else h for n, h in enumerate(held)]
    apply = Apply(bundle.first.func, tuple(held), bundle.first.spec)
    work = Recur(apply, tuple(range(1, 1 + states)), axis, many or 1)
    bundle.add(Aligned(endless=True), work)


CONVOLUTIONS: dict[str, Callable[[Bundle], None]] = {
    "conv1d": _conv1d,
    "conv_transpose1d": _conv_transpose1d,
    "avg_pool1d": _pool,
    "max_pool1d": _pool,
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
