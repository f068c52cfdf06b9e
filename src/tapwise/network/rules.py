"""Rules: how torch's operations map time, by name, or why they can't be followed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tapwise.geometry import Geometry
from tapwise.network.observed_call import ObservedCall
from tapwise.network.operation_names import ATTENDS, MIXES, OVER_AXES, PER_MOMENT, PICKS, POINTWISE, USUAL_AXIS
from tapwise.network.operations import ACCUMULATIONS, Accumulate, OverTime, Registered, Within
from tapwise.network.record import Ref
from tapwise.network.rules_convolutions import CONVOLUTIONS
from tapwise.network.rules_shapes import SHAPES
from tapwise.network.rules_windows_2d import WINDOWS_2D
from tapwise.network.timeline import Aligned, Entire, Timeline, Windows

Rule = Callable[[ObservedCall], None]


@dataclass(frozen=True)
class _Registration:
    timeline: Timeline
    step: Callable[..., Any]


_registrations: dict[Any, _Registration] = {}


def register(target: Any, timeline: Timeline | Any, step: Callable[..., Any] | None = None) -> None:
    """Teach ``inspect`` and ``stream`` an operation: a function, or a type of module as one operation.

    Arguments:
        target: a function of torch's or one that torch's overrides know, or a subclass of ``nn.Module``.
        timeline: a ``Geometry``, whose windows its outputs read, or one of ``tapwise.network.timeline``.
            Time is the last axis of its input.
        step: ``step(target, inputs, state, end) -> (output, state)``: the outputs that a chunk of each
            input determines. ``inputs`` are tensors, perhaps of length 0; ``state`` is a dictionary
            of tensors (batch, ...) of your own, None before the first chunk; at the end there is one call
            with ``end`` True. None: the operation works sample by sample, and is called on each chunk.

    Raises:
        TypeError: something that can't be registered.

    Example:
        >>> import torch, tapwise as tw
        >>> class Louder(torch.nn.Module):
        ...     def forward(self, x):
        ...         return x * float(x.shape[-1] > 0)
        >>> tw.register(Louder, tw.Geometry(1))
        >>> tw.inspect(Louder(), torch.zeros(1, 1, 8)).causal
        True
    """
    if not callable(target):
        raise TypeError(f"target must be a function or a type of module, got {target!r}")
    if isinstance(timeline, Geometry):
        timeline = Windows(timeline)
    if step is None:
        if timeline.rate != 1 or timeline.determined(7, 7) != 7:
            raise TypeError("an operation that isn't sample by sample needs its step")
        step = _each_chunk
    _registrations[target] = _Registration(timeline, step)


def _each_chunk(target: Any, inputs: Any, state: Any, end: bool) -> Any:
    return target(*inputs), None


def unregister(target: Any) -> None:
    """Undo ``register``."""
    _registrations.pop(target, None)


def atomic_types() -> tuple[type, ...]:
    """The types of modules that are one operation each."""
    return tuple(target for target in _registrations if isinstance(target, type))


# Functions of one name that do different things.
_BY_FUNCTION: dict[Any, Rule] = {torch.nn.functional.unfold: WINDOWS_2D["im2col"]}


def rule_of(observed: ObservedCall) -> Rule:
    """The rule for a call.

    Raises:
        TimelineError: no rule knows it, or it mixes all of time.
    """
    func, name = observed.first.func, observed.name
    types = (kind for kind in type(func).__mro__ if kind in _registrations)
    registration = _registrations.get(func) or _registrations.get(next(types, None))
    if registration is not None:
        return lambda call: _registered(call, registration)
    if func in _BY_FUNCTION:
        return _BY_FUNCTION[func]
    if name in CONVOLUTIONS:
        return CONVOLUTIONS[name]
    if name in WINDOWS_2D:
        return WINDOWS_2D[name]
    if name in SHAPES:
        return SHAPES[name]
    if name in OVER_AXES:
        return _over_axes
    if name in POINTWISE or name in PRODUCTS_AND_NORMS:
        return PRODUCTS_AND_NORMS.get(name, _pointwise)
    if name in _OVER_TIME and observed.builder.is_offline:
        return _over_time
    if name in MIXES:
        raise observed.refuse(*MIXES[name])
    raise observed.refuse(
        "its timeline isn't known", "tapwise.register teaches it; docs/networks.md lists what can be followed"
    )


def _registered(observed: ObservedCall, registration: _Registration) -> None:
    observed.add(registration.timeline, Registered(observed.first.func, registration.step))


# What reads all of time and gives a sample for each: followed where nothing is to be streamed.
_OVER_TIME = ("group_norm",)


def _over_time(observed: ObservedCall) -> None:
    observed.add(Entire(), OverTime(observed.apply()))


def _pointwise(observed: ObservedCall) -> None:
    """Every tensor that goes in stands at the same place in time as what comes out."""
    place = 3 if observed.name == "rrelu" else 2
    if observed.name in _DROPOUTS and observed.same(place, "training", observed.name != "rrelu"):
        raise observed.refuse("is random", "nn.Dropout does nothing in evaluation")
    if observed.name == "one_hot" and observed.same(1, "num_classes", -1) < 0:
        raise observed.refuse("has as many classes as the signal's largest number asks for", "give num_classes")
    _check_places(observed)
    observed.aligned()


_DROPOUTS = ("rrelu", "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")


def _check_places(observed: ObservedCall) -> None:
    places = {len(observed.sizes(ref)[0]) - observed.time(ref) for ref in observed.refs}
    if len(places) > 1:
        raise observed.refuse("its inputs have time on different axes", "transpose one of them")
    lengths = [observed.lengths(ref) for ref in observed.refs]
    if any(other != lengths[0] for other in lengths):
        raise observed.refuse(
            f"its inputs differ in length ({lengths[0][0]} and {max(lengths, key=lambda n: n != lengths[0])[0]})",
            "crop or pad one of them to the other's length",
        )


def axes(observed: ObservedCall, place: int, default: Any) -> list[int]:
    """The axes that an argument names, counted from the front; all where it names none."""
    names = ("dim", "dims", "axis")
    named = next((value for name in names if (value := observed.same(place, name, None)) is not None), default)
    ndim = len(observed.sizes(observed.refs[0])[0])
    if named is None:
        return list(range(ndim))
    more = observed.first.arguments[0][place + 1 :]
    if observed.name in ("flip", "roll") and isinstance(named, int):
        named = [named, *more]  # x.flip(1, 2)
    return [axis % ndim for axis in observed.ints(named)]


def _over_axes(observed: ObservedCall) -> None:
    """A sum, a softmax, a split: free of time where it runs over another axis."""
    pair = [isinstance(value, Tensor) for value in observed.each(1, "other")]
    if observed.name in ("max", "min") and (len(observed.refs) > 1 or any(pair)):
        _pointwise(observed)
        return
    usual = USUAL_AXIS.get(observed.name)
    if observed.name in ("softmax", "log_softmax", "softmin"):  # torch's own rule where dim is None
        usual = 0 if len(observed.sizes(observed.refs[0])[0]) in (0, 1, 3) else 1
    named = axes(observed, OVER_AXES[observed.name], usual)
    if observed.time(observed.refs[0]) in named:
        if observed.name in ACCUMULATIONS and not observed.node(observed.refs[0]).size.flat:
            _accumulated(observed)
        elif observed.name == "diff":
            _differences(observed)
        elif observed.name in PICKS - {"flip", "roll"}:
            raise observed.refuse("cuts time into parts, or picks single moments", "cut by slices, or pool")
        else:
            raise observed.refuse("runs over all of time", PER_MOMENT if "norm" in observed.name else _OVER)
        return
    if observed.name in PICKS and len(observed.refs) == 1:
        observed.picked()
    else:
        observed.aligned()


def _accumulated(observed: ObservedCall) -> None:
    """cumsum and its like along time: all of the past, as a recurrence."""
    ref, value = observed.refs[0], observed.first.outputs[0]
    assert value is not None
    if observed.same(2, "dtype", None) is not None and observed.builder.runs[0].dtypes[value].is_complex:
        raise observed.refuse("accumulates complex numbers of another dtype", "convert the signal first")
    dtype = observed.builder.runs[0].dtypes[value]
    work = Accumulate(observed.name, observed.time(ref), dtype)
    observed.add(Aligned(endless=True), work)


def _differences(observed: ObservedCall) -> None:
    """diff along time: each output reads n + 1 samples."""
    order = observed.same(1, "n", 1)
    if len(observed.refs) > 1 or any(
        observed.same(n, name, None) is not None for n, name in ((3, "prepend"), (4, "append"))
    ):
        raise observed.refuse("takes differences with what stands before or after the signal", "F.pad, then diff")
    axis = observed.time(observed.refs[0])
    work = Within(lambda inputs: torch.diff(inputs[0], order, axis))
    observed.add(Windows(Geometry(order + 1)), work)


_OVER = "let it run over another axis, or over windows: avg_pool1d, max_pool1d, unfold"


def _batch_norm(observed: ObservedCall) -> None:
    if observed.same(5, "training", False):
        raise observed.refuse("takes its mean and variance over the batch and all of time", PER_MOMENT)
    if observed.time(observed.refs[0]) == 1:
        raise observed.refuse("normalises along time, which stands in the place of channels", "transpose")
    observed.aligned()


def _instance_norm(observed: ObservedCall) -> None:
    if observed.same(5, "use_input_stats", True):
        if observed.builder.is_offline:
            _over_time(observed)
            return
        raise observed.refuse(*MIXES["instance_norm"])
    observed.aligned()


def _layer_norm(observed: ObservedCall) -> None:
    over = len(observed.ints(observed.same(1, "normalized_shape")))
    if observed.time(observed.refs[0]) >= len(observed.sizes(observed.refs[0])[0]) - over:
        raise observed.refuse("takes its mean and variance over all of time", PER_MOMENT)
    observed.aligned()


def _linear(observed: ObservedCall) -> None:
    if observed.time(observed.refs[0]) == len(observed.sizes(observed.refs[0])[0]) - 1:
        raise observed.refuse("mixes all of time", "transpose, so that it runs over channels")
    observed.aligned()


def _matmul(observed: ObservedCall) -> None:
    """Products of matrices, one of them constant: over the axis that is not time."""
    if len(observed.refs) > 1:
        raise observed.refuse(*ATTENDS)
    ref = observed.refs[0]
    ndim, time = len(observed.sizes(ref)[0]), observed.time(ref)
    first = next(n for n, leaf in enumerate(observed.first.leaves) if isinstance(leaf, Ref)) == 0
    summed = ndim - 1 if first else max(ndim - 2, 0)
    if time == summed:
        raise observed.refuse("sums over all of time", "multiply over channels")
    observed.aligned(function=torch.matmul)


def _affine_product(observed: ObservedCall) -> None:
    """addmm, baddbmm: a product with a constant, and something added."""
    places = [n for n, leaf in enumerate(observed.first.leaves) if isinstance(leaf, Ref)]
    factors = [(n, ref) for n, ref in zip(places, observed.refs, strict=True) if n in (1, 2)]
    if len(factors) != 1:
        raise observed.refuse("multiplies the signal by itself over time", "write products of channels as x * y")
    ((place, ref),) = factors
    ndim = len(observed.sizes(ref)[0])
    if observed.time(ref) == (ndim - 1 if place == 1 else ndim - 2):
        raise observed.refuse("sums over all of time", "multiply over channels")
    if len(places) > 1:
        _check_places(observed)
    observed.aligned(function=_sum_and_product)


def _sum_and_product(input: Tensor, left: Tensor, right: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """addmm and baddbmm of any batch: a constant for one row serves all."""
    product = alpha * torch.matmul(left, right)
    return product if beta == 0 else beta * input + product


def _tensordot(observed: ObservedCall) -> None:
    if len(observed.refs) > 1:
        raise observed.refuse("multiplies the signal by itself over time", "write products of channels as x * y")
    (ref,) = observed.refs
    place = 0 if isinstance(observed.first.leaves[0], Ref) else 1
    dims = observed.same(2, "dims", 2)
    ndim = len(observed.sizes(ref)[0])
    if isinstance(dims, int):
        summed = list(range(ndim - dims, ndim) if place == 0 else range(dims))
    else:
        summed = [axis % ndim for axis in observed.ints(dims[place])]
    if observed.time(ref) in summed:
        raise observed.refuse("sums over all of time", "multiply over channels")
    observed.aligned()


def _distances(observed: ObservedCall) -> None:
    """cdist from the signal to a constant table."""
    if len(observed.refs) > 1 or not isinstance(observed.first.leaves[0], Ref):
        raise observed.refuse("compares the signal with itself over time", "compare it with a constant table")
    (ref,) = observed.refs
    if observed.time(ref) == len(observed.sizes(ref)[0]) - 1:
        raise observed.refuse("sums over all of time", "transpose, so that it runs over channels")
    observed.aligned()


def _shuffled(observed: ObservedCall) -> None:
    if observed.time(observed.refs[0]) == 1:
        raise observed.refuse("mixes moments, which stand in the place of channels", "transpose")
    observed.aligned(is_bound=observed.is_mixed)


def _einsum(observed: ObservedCall) -> None:
    if len(observed.refs) > 1:
        raise observed.refuse("multiplies the signal by itself", "write products of channels as x * y")
    equation = str(observed.same(0, "equation")).replace(" ", "")
    inputs, _, output = equation.partition("->")
    operands = [n for n, leaf in enumerate(observed.first.leaves) if hasattr(leaf, "shape") or isinstance(leaf, Ref)]
    place = [isinstance(observed.first.leaves[n], Ref) for n in operands].index(True)
    letters = inputs.split(",")[place]
    time = letters[observed.time(observed.refs[0])] if "..." not in letters else None
    if time is None or output.count(time) != 1 or inputs.count(time) != 1:
        raise observed.refuse("sums over time, or doesn't name its axis", "give time a letter of its own")
    observed.aligned()


PRODUCTS_AND_NORMS: dict[str, Rule] = {
    "batch_norm": _batch_norm,
    "instance_norm": _instance_norm,
    "layer_norm": _layer_norm,
    "rms_norm": _layer_norm,
    "linear": _linear,
    "matmul": _matmul,
    "bmm": _matmul,
    "mm": _matmul,
    "einsum": _einsum,
    "addmm": _affine_product,
    "baddbmm": _affine_product,
    "tensordot": _tensordot,
    "cdist": _distances,
    "channel_shuffle": _shuffled,
    "local_response_norm": _shuffled,
}
