"""Rules: what is known of torch's operations, by name: how they map time, or why they can't be followed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tapwise.geometry import Geometry
from tapwise.network.bundle import Bundle
from tapwise.network.known import MIXES, OVER_AXES, PER_MOMENT, POINTWISE, USUAL_AXIS
from tapwise.network.operations import Taught
from tapwise.network.rules_convolutions import CONVOLUTIONS
from tapwise.network.rules_shapes import SHAPES
from tapwise.network.timeline import Timeline, Windows

Rule = Callable[[Bundle], None]


@dataclass(frozen=True)
class _Taught:
    timeline: Timeline
    step: Callable[..., Any]


_taught: dict[Any, _Taught] = {}


def register(target: Any, timeline: Timeline | Any, step: Callable[..., Any] | None = None) -> None:
    """Teach ``inspect`` and ``stream`` an operation: a function, or a type of module taken whole.

    Arguments:
        target: a function of torch's or one that torch's overrides know, or a subclass of ``nn.Module``.
        timeline: a ``Geometry``, whose windows its outputs read, or one of ``tapwise.network.timeline``.
            Time is the last axis of its input.
        step: ``step(target, inputs, state, end) -> (output, state)``: the outputs that a chunk of each
            input determines. ``inputs`` are tensors, perhaps of length 0; ``state`` is a dictionary
            of tensors (batch, ...) of your own, None before the first chunk; at the end there is one call with ``end`` True. None:
            the operation works sample by sample, and is called on each chunk.

    Raises:
        TypeError: something that can't be taught.

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
    _taught[target] = _Taught(timeline, step)


def _each_chunk(target: Any, inputs: Any, state: Any, end: bool) -> Any:
    return target(*inputs), None


def unregister(target: Any) -> None:
    """Forget what ``register`` was told."""
    _taught.pop(target, None)


def atomic_types() -> tuple[type, ...]:
    """The types of modules that are taken whole."""
    return tuple(target for target in _taught if isinstance(target, type))


def rule_of(bundle: Bundle) -> Rule:
    """The rule for a call.

    Raises:
        TimelineError: no rule knows it, or it mixes all of time.
    """
    func, name = bundle.first.func, bundle.name
    kinds = (kind for kind in type(func).__mro__ if kind in _taught)
    known = _taught.get(func) or _taught.get(next(kinds, None))
    if known is not None:
        return lambda b: _taught_rule(b, known)
    if name in CONVOLUTIONS:
        return CONVOLUTIONS[name]
    if name in SHAPES:
        return SHAPES[name]
    if name in OVER_AXES:
        return _over_axes
    if name in POINTWISE or name in _SPECIAL:
        return _SPECIAL.get(name, _pointwise)
    if name in MIXES:
        raise bundle.refuse(*MIXES[name])
    raise bundle.refuse(
        "its timeline isn't known",
        "tapwise.register teaches it; docs/network.md lists what is known",
    )


def _taught_rule(bundle: Bundle, known: _Taught) -> None:
    bundle.add(known.timeline, Taught(bundle.first.func, known.step))


def _pointwise(bundle: Bundle) -> None:
    """Every tensor that goes in stands at the same place in time as what comes out."""
    place = 3 if bundle.name == "rrelu" else 2
    if bundle.name in _DROPOUTS and bundle.same(place, "training", bundle.name != "rrelu"):
        raise bundle.refuse("is random", "nn.Dropout does nothing in evaluation")
    _check_places(bundle)
    bundle.aligned()


_DROPOUTS = (
    "rrelu",
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "alpha_dropout",
    "feature_alpha_dropout",
)


def _check_places(bundle: Bundle) -> None:
    places = {len(bundle.sizes(slot)[0]) - bundle.time(slot) for slot in bundle.slots}
    if len(places) > 1:
        raise bundle.refuse("its inputs have time on different axes", "transpose one of them")
    lengths = [bundle.lengths(slot) for slot in bundle.slots]
    if any(other != lengths[0] for other in lengths):
        raise bundle.refuse(
            f"its inputs differ in length ({lengths[0][0]} and {max(lengths, key=lambda n: n != lengths[0])[0]})",
            "crop or pad one of them to the other's length",
        )


def axes(bundle: Bundle, place: int, default: Any) -> list[int]:
    """The axes that an argument names, counted from the front; all where it names none."""
    names = ("dim", "dims", "axis")
    given = next(
        (value for name in names if (value := bundle.same(place, name, None)) is not None), default
    )
    ndim = len(bundle.sizes(bundle.slots[0])[0])
    if given is None:
        return list(range(ndim))
    more = bundle.first.arguments[0][place + 1 :]
    if bundle.name in ("flip", "roll") and isinstance(given, int):
        given = [given, *more]  # x.flip(1, 2)
    return [axis % ndim for axis in bundle.ints(given)]


def _over_axes(bundle: Bundle) -> None:
    """A sum, a softmax, a split: free of time where it runs over another axis."""
    pair = [isinstance(value, Tensor) for value in bundle.each(1, "other")]
    if bundle.name in ("max", "min") and (len(bundle.slots) > 1 or any(pair)):
        _pointwise(bundle)
        return
    named = axes(bundle, OVER_AXES[bundle.name], USUAL_AXIS.get(bundle.name))
    if bundle.name.startswith("cum") and bundle.time(bundle.slots[0]) in named:
        raise bundle.refuse(
            "adds up all of the past", "tapwise.register a module with a step that goes on"
        )
    if bundle.time(bundle.slots[0]) in named:
        raise bundle.refuse("runs over all of time", PER_MOMENT if "norm" in bundle.name else _OVER)
    bundle.aligned()


_OVER = "let it run over another axis, or over windows: avg_pool1d, max_pool1d, unfold"


def _batch_norm(bundle: Bundle) -> None:
    if bundle.same(5, "training", False):
        raise bundle.refuse(
            "takes its mean and variance over the batch and all of time", PER_MOMENT
        )
    if bundle.time(bundle.slots[0]) == 1:
        raise bundle.refuse(
            "normalises along time, which stands in the place of channels", "transpose"
        )
    bundle.aligned()


def _instance_norm(bundle: Bundle) -> None:
    if bundle.same(5, "use_input_stats", True):
        raise bundle.refuse(*MIXES["instance_norm"])
    bundle.aligned()


def _layer_norm(bundle: Bundle) -> None:
    over = len(bundle.ints(bundle.same(1, "normalized_shape")))
    if bundle.time(bundle.slots[0]) >= len(bundle.sizes(bundle.slots[0])[0]) - over:
        raise bundle.refuse("takes its mean and variance over all of time", PER_MOMENT)
    bundle.aligned()


def _linear(bundle: Bundle) -> None:
    if bundle.time(bundle.slots[0]) == len(bundle.sizes(bundle.slots[0])[0]) - 1:
        raise bundle.refuse("mixes all of time", "transpose, so that it runs over channels")
    bundle.aligned()


def _matmul(bundle: Bundle) -> None:
    """Products of matrices, one of them constant: over the axis that is not time."""
    if len(bundle.slots) > 1:
        raise bundle.refuse(
            "multiplies the signal by itself over time, as attention does",
            "stream what comes before and after, or tapwise.register a form of it with a step",
        )
    slot = bundle.slots[0]
    ndim, time = len(bundle.sizes(slot)[0]), bundle.time(slot)
    first = (
        next(n for n, leaf in enumerate(bundle.first.leaves) if type(leaf).__name__ == "Slot") == 0
    )
    summed = ndim - 1 if first else max(ndim - 2, 0)
    if time == summed:
        raise bundle.refuse("sums over all of time", "multiply over channels")
    bundle.aligned()


def _einsum(bundle: Bundle) -> None:
    if len(bundle.slots) > 1:
        raise bundle.refuse(
            "multiplies the signal by itself", "write products of channels as x * y"
        )
    equation = str(bundle.same(0, "equation")).replace(" ", "")
    inputs, _, output = equation.partition("->")
    operands = [
        n
        for n, leaf in enumerate(bundle.first.leaves)
        if hasattr(leaf, "shape") or type(leaf).__name__ == "Slot"
    ]
    mine = [type(bundle.first.leaves[n]).__name__ == "Slot" for n in operands].index(True)
    letters = inputs.split(",")[mine]
    time = letters[bundle.time(bundle.slots[0])] if "..." not in letters else None
    if time is None or output.count(time) != 1 or inputs.count(time) != 1:
        raise bundle.refuse(
            "sums over time, or doesn't name its axis", "give time a letter of its own"
        )
    bundle.aligned()


_SPECIAL: dict[str, Rule] = {
    "batch_norm": _batch_norm,
    "instance_norm": _instance_norm,
    "layer_norm": _layer_norm,
    "rms_norm": _layer_norm,
    "linear": _linear,
    "matmul": _matmul,
    "bmm": _matmul,
    "mm": _matmul,
    "einsum": _einsum,
}
