"""Rules for what moves axes and picks parts: views, permutations, indexing, concatenation."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tapwise.geometry import Geometry
from tapwise.network.observed_call import LARGEST, ObservedCall
from tapwise.network.operations import Apply, Input, Reshape, Size, Within
from tapwise.network.record import Ref
from tapwise.network.rules_convolutions import cut_and_padded
from tapwise.network.timeline import Aligned, Windows


def _moved(observed: ObservedCall) -> None:
    """Axes change places, or those of length 1 come and go: time is the one that grows."""
    observed.aligned()


def _reshaped(observed: ObservedCall) -> None:
    """A view: time stays an axis of its own, or takes in the axis after it, or gives one out.

    # (B, C, T)     -> (B * C, T)      beside it
    # (B, C, T, r)  -> (B, C, T * r)   r samples from each
    # (B, C, T * r) -> (B, C, T, r)    frames of r samples
    # (B, T, C)     -> (B * T, C)      time and the batch as one, moments of a row together
    """
    ref = observed.refs[0]  # of view_as, the second gives its size alone
    value = observed.first.outputs[0]
    assert value is not None
    before, inputs = observed.node(ref).size, [observed.node_number(ref)]
    size = observed.plain_size(value)
    old, new, time = observed.sizes(ref), observed.sizes(value), before.model_time
    after_old = {prod(s[time + 1 :]) for s in old}
    after_new = {prod(s[size.time + 1 :]) for s in new}
    if len(after_old) > 1 or len(after_new) > 1:
        raise observed.refuse(_TORN, _KEEP)
    inner, outer = after_old.pop(), after_new.pop()
    pairs = {(n[size.time], o[time]) for n, o in zip(new, old, strict=True)}
    if inner == outer and all(n == o for n, o in pairs):
        size = observed.size(value)  # where time and another axis were one, they still are
        observed.add(Aligned(), Reshape(size, before.time), size=size, inputs=inputs)
    elif before.flat:
        _unflattened(observed, size)
    elif inner % outer == 0 and all(n == o * (inner // outer) for n, o in pairs):
        factor = inner // outer
        work = Within(Reshape(size, before.time, gives=factor))
        timeline = Windows(Geometry(factor, factor, transposed=True))
        observed.add(timeline, work, size=size, inputs=inputs, is_bound=observed.is_mixed)
    elif outer % inner == 0 and all(o == n * (outer // inner) for n, o in pairs):
        factor = outer // inner
        work = Within(Reshape(size, before.time, takes=factor))
        observed.add(Windows(Geometry(factor, factor)), work, size=size, inputs=inputs)
    elif inner == outer:
        _flattened(observed, size)
    else:
        raise observed.refuse(_TORN, _KEEP)


def _flattened(observed: ObservedCall, size: Size) -> None:
    """Time and axes before it become one: in the graph they stay two."""
    ref = observed.refs[0]
    value = observed.first.outputs[0]
    assert value is not None
    old, new, time = observed.sizes(ref), observed.sizes(value), observed.time(ref)
    for start in range(time - 1, -1, -1):
        rows = [prod(o[start:time]) for o in old]
        if all(n[size.time] == o[time] * m for n, o, m in zip(new, old, rows, strict=True)):
            break
    else:
        raise observed.refuse(_TORN, _KEEP)
    batch = tuple((axis, n) for axis, n in size.batch if axis < size.time)
    per_row = [m / count for m, count in zip(rows, observed.builder.rows, strict=True)]
    if len(set(rows)) > 1:
        if len(set(per_row)) > 1:
            raise observed.refuse(_TORN, _KEEP)
        batch = (*batch, (size.time, int(per_row[0])))
    entries = (*size.entries[: size.time], rows[0], *size.entries[size.time :])
    flat = Size(entries, size.time + 1, batch, flat=True)
    observed.add(Aligned(), Reshape(flat, observed.node(ref).size.time), size=flat, inputs=[observed.node_number(ref)])


def _unflattened(observed: ObservedCall, size: Size) -> None:
    """Time becomes an axis of its own again."""
    ref = observed.refs[0]
    value = observed.first.outputs[0]
    assert value is not None
    before, lengths = observed.node(ref).size, observed.lengths(ref)
    if lengths != [new[size.time] for new in observed.sizes(value)]:
        raise observed.refuse(_TORN, _KEEP)
    observed.add(Aligned(), Reshape(size, before.time), size=size, inputs=[observed.node_number(ref)])


_TORN = "lays time and another axis into one, out of order"
_KEEP = "keep time an axis of its own, or permute first"


def _expanded(observed: ObservedCall) -> None:
    if len(observed.refs) > 1:  # as wide as another of the signal
        observed.aligned()
        return
    (ref,) = observed.refs
    value = observed.first.outputs[0]
    assert value is not None
    size = observed.size(value)
    if observed.lengths(ref) != [s[size.time] for s in observed.sizes(value)]:
        raise observed.refuse("repeats the signal along time", "repeat_interleave, or upsampling")
    batch = dict(size.batch)

    def expand(x: Tensor) -> Tensor:
        target = [-1 if n == size.time or n in batch else entry for n, entry in enumerate(size.entries)]
        return x.expand(*target)

    observed.add(Aligned(), Apply(expand, (Input(0),), _ONE), size=size)


_ONE = pytree.tree_flatten(((0,), {}))[1]


def _indexed(observed: ObservedCall) -> None:
    """x[...]: a part of time, and parts of other axes."""
    ref = observed.refs[0]
    if not isinstance(observed.first.arguments[0][0], Ref) or len(observed.refs) > 1:
        raise observed.refuse("picks by places that come of the signal", "choose by torch.where")
    ndim, time = len(observed.sizes(ref)[0]), observed.time(ref)
    found = [_full(args[0][1], ndim) for args in (call.arguments for call in observed.calls)]
    place = _entry_of_axis(found[0], time)
    entry = found[0][place]
    if not isinstance(entry, slice):
        raise observed.refuse("picks single moments", "cut by slices, or pool")
    lengths = observed.lengths(ref)
    _check_limits(observed, [index[place] for index in found])
    cuts = [index[place].indices(n) for index, n in zip(found, lengths, strict=True)]
    step = cuts[0][2]
    if step < 1:
        raise observed.refuse("runs backwards through time", "the future can't be streamed")
    inputs: list[int] | None = None
    rest = list(found[0])
    rest[place] = slice(None)
    for entries in found:
        others = [(e, o) for n, (e, o) in enumerate(zip(rest, entries, strict=True)) if n != place]
        if any(not _same_entry(one, other) for one, other in others):
            raise observed.refuse("picks what depends on the length of the signal", "pick always alike")
    plain = all(isinstance(e, slice) and e == slice(None) for e in rest)
    takes_all = all((a, b, c) == (0, n, 1) for (a, b, c), n in zip(cuts, lengths, strict=True))
    if not takes_all and (
        any(a for a, _, _ in cuts) or any(b != n for (_, b, _), n in zip(cuts, lengths, strict=True))
    ):
        lefts = [-min(a, n) for (a, _, _), n in zip(cuts, lengths, strict=True)]
        rights = [min(b, n) - n for (_, b, _), n in zip(cuts, lengths, strict=True)]
        done = plain and step == 1
        inputs = [cut_and_padded(observed, lefts, rights, "zeros", 0.0, None, last=done)]
        if done:
            return
    if step > 1:
        axis = time

        def every(inputs: Any) -> Tensor:
            x: Tensor = inputs[0]
            return x[(slice(None),) * axis + (slice(None, None, step),)]

        size = observed.node(ref).size if not plain else None
        number = observed.add(Windows(Geometry(1, step)), Within(every), inputs=inputs, last=plain, size=size)
        if plain:
            return
        inputs = [number]
    index = tuple(rest)
    work = Apply(lambda x: x[index], (Input(0),), _ONE)
    observed.picked(work, inputs)


def _check_limits(observed: ObservedCall, entries: list[slice]) -> None:
    """Refuse a cut at a fixed place, which no signal that was read may have reached: a longer one is cut there."""
    for name, backwards in (("stop", False), ("start", True)):
        ends = [getattr(entry, name) for entry in entries]
        places = {None if end is None else end.__index__() for end in ends}
        place = places.pop() if len(places) == 1 else None
        if place is None:
            continue
        if (place < 0) == backwards and abs(place) < LARGEST:
            raise observed.refuse(
                f"keeps the {'last' if backwards else 'first'} {abs(place)} samples of a longer signal",
                "cut the signal outside of the model",
            )


def _same_entry(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return isinstance(one, Tensor) and isinstance(other, Tensor) and torch.equal(one, other)
    return bool(one == other)


def _full(index: Any, ndim: int) -> list[Any]:
    """An index with one entry for each axis, besides new axes."""
    entries = list(index) if isinstance(index, tuple) else [index]
    entries = [
        e.__index__() if isinstance(e, Tensor) and e.ndim == 0 and not e.is_floating_point() else e for e in entries
    ]
    taken = sum(e is not None and e is not Ellipsis for e in entries)
    fill = [slice(None)] * (ndim - taken)
    if any(e is Ellipsis for e in entries):
        at = next(n for n, e in enumerate(entries) if e is Ellipsis)
        return entries[:at] + fill + entries[at + 1 :]
    return entries + fill


def _entry_of_axis(entries: list[Any], axis: int) -> int:
    taken = -1
    for place, entry in enumerate(entries):
        taken += entry is not None
        if taken == axis:
            return place
    raise AssertionError("an index shorter than its tensor")


def _narrowed(observed: ObservedCall) -> None:
    ref = observed.refs[0]
    axis = observed.same(1, "dim") % len(observed.sizes(ref)[0])
    if axis != observed.time(ref):
        observed.picked()
        return
    starts = [observed.ints(s)[0] for s in observed.each(2, "start")]
    counts = [observed.ints(s)[0] for s in observed.each(3, "length")]
    lengths = observed.lengths(ref)
    starts = [s % n if s < 0 else s for s, n in zip(starts, lengths, strict=True)]
    rights = [s + c - n for s, c, n in zip(starts, counts, lengths, strict=True)]
    cut_and_padded(observed, [-s for s in starts], rights, "zeros", 0.0, None)


def _concatenated(observed: ObservedCall) -> None:
    """Beside each other; or, along time, a constant before or after, which is padding."""
    ref = observed.refs[0]
    ndim = len(observed.sizes(ref)[0])
    axis = observed.same(1, "dim", observed.same(1, "axis", 0)) % ndim
    if observed.name == "stack" or axis != observed.time(ref):
        for other in observed.refs:
            if observed.time(other) != observed.time(ref) or observed.lengths(other) != observed.lengths(ref):
                raise observed.refuse("its inputs differ in length", "crop or pad one of them")
        if any(isinstance(leaf, Tensor) for leaf in observed.first.leaves):
            raise observed.refuse("lays the signal beside a constant", "add it as a bias, or a 1x1 convolution")
        observed.aligned()
        return
    if len(observed.refs) > 1:
        raise observed.refuse("lays parts of the signal one after the other", "concatenate channels")
    parts = [call.arguments[0][0] for call in observed.calls]
    place = next(n for n, part in enumerate(parts[0]) if isinstance(part, Ref))
    fills = [part for run in parts for part in run if isinstance(part, Tensor) and part.numel()]
    value = float(fills[0].reshape(-1)[0]) if fills else 0.0
    if any(not bool((part == value).all()) for part in fills):
        raise observed.refuse("lays the signal after a constant that varies", "zeros, or one number")
    lefts = [sum(part.shape[axis] for part in run[:place]) for run in parts]
    rights = [sum(part.shape[axis] for part in run[place + 1 :]) for run in parts]
    cut_and_padded(observed, lefts, rights, "zeros", value, None)


def _picked(observed: ObservedCall) -> None:
    """index_select, gather: entries of an axis that isn't time, by places that are the same at every moment."""
    ref = observed.refs[0]
    axis = observed.same(1, "dim") % len(observed.sizes(ref)[0])
    if not isinstance(observed.first.leaves[0], Ref):
        raise observed.refuse("picks by places that come of the signal", "F.embedding looks a table up")
    if axis == observed.time(ref):
        raise observed.refuse("picks single moments", "cut by slices, or pool")
    if observed.name == "index_select":
        observed.picked()
        return
    if len(observed.refs) > 1:
        observed.aligned(is_bound=observed.is_mixed)
        return
    index, time = observed.constant(observed.each(2, "index")), observed.node(ref).size.time

    def gather(x: Tensor) -> Tensor:
        size = [own if n == axis else all_ for n, (own, all_) in enumerate(zip(index.shape, x.shape, strict=True))]
        return torch.gather(x, axis, index.expand(size))

    if time >= index.ndim or observed.node(ref).size.flat:
        raise observed.refuse("gathers along several axes", "index_select")
    observed.add(Aligned(), Apply(gather, (Input(0),), _ONE), is_bound=observed.is_mixed)


def _repeated_axes(observed: ObservedCall) -> None:
    """repeat, tile: copies along axes that aren't time."""
    (ref,) = observed.refs
    value = observed.first.outputs[0]
    assert value is not None
    size = observed.size(value)
    times = {len(s) for s in observed.sizes(value)}.pop() - len(observed.sizes(ref)[0])
    if observed.lengths(ref) != [s[size.model_time] for s in observed.sizes(value)] or size.flat:
        raise observed.refuse("repeats the signal along time", "repeat_interleave, or upsampling")
    if size.time != observed.time(ref) + times:
        raise observed.refuse("repeats the signal along time", "repeat_interleave, or upsampling")
    observed.aligned()


MOVES = """
permute transpose swapaxes swapdims movedim moveaxis t T mT mH adjoint view_as_real view_as_complex
""".split()

# squeeze by itself would take time away from a chunk of one sample.
RESHAPES = ["view", "reshape", "flatten", "unflatten", "ravel", "squeeze", "unsqueeze", "view_as", "reshape_as"]

SHAPES: dict[str, Callable[[ObservedCall], None]] = {
    **dict.fromkeys(MOVES, _moved),
    **dict.fromkeys(RESHAPES, _reshaped),
    "expand": _expanded,
    "expand_as": _expanded,
    "getitem": _indexed,
    "narrow": _narrowed,
    "cat": _concatenated,
    "concat": _concatenated,
    "concatenate": _concatenated,
    "stack": _concatenated,
    "index_select": _picked,
    "gather": _picked,
    "repeat": _repeated_axes,
    "tile": _repeated_axes,
}
