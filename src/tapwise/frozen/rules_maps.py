"""Rules for what works row by row: functions, operators, products over channels, channels that move."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tapwise.engine.kernels.program import record
from tapwise.engine.kernels.program.record import CODES
from tapwise.frozen.layout import Arguments, column_constant, inner_axes, moved_columns
from tapwise.frozen.steps import Ref, Step
from tapwise.frozen.steps_builder import StepsBuilder
from tapwise.network.graph import Node
from tapwise.network.operations import Apply, Input

# (builder, number, node) -> where the node's rows lie; None: torch has to run it.
Rule = Callable[[StepsBuilder, int, Node], Ref | None]


def moved(builder: StepsBuilder, number: int, node: Node) -> Ref | None:
    if len(node.inputs) != 1:
        return None
    source = builder.graph.nodes[node.inputs[0]]
    columns = moved_columns(node.work, source.size, node.size)
    if columns is None or columns != list(range(columns[0], columns[0] + len(columns))):
        return None
    return builder.ref(node.inputs[0]).cut(columns[0])


def same(builder: StepsBuilder, number: int, node: Node) -> Ref | None:
    return builder.ref(node.inputs[0])


def _is_plain(node: Node, most: int) -> bool:
    """Whether a call has so few arguments that nothing but operands is given."""
    assert isinstance(node.work, Apply)
    return len(node.work.leaves) <= most


def unary(name: str, **places: tuple[int, str, float]) -> Rule:
    """A function of one operand; ``places``: of its numbers p and q, the argument and its default."""

    def rule(builder: StepsBuilder, number: int, node: Node) -> Ref | None:
        assert isinstance(node.work, Apply)
        arguments = Arguments.of(node.work)
        numbers = {key: arguments.get(*place) for key, place in places.items()}
        if len(node.inputs) != 1 or not all(isinstance(n, int | float) for n in numbers.values()):
            return None
        return builder.add(
            number, CODES[name], builder.ref(node.inputs[0]), **{k: float(n) for k, n in numbers.items()}
        )

    return rule


def gelu(builder: StepsBuilder, number: int, node: Node) -> Ref | None:
    assert isinstance(node.work, Apply)
    name = {"none": "gelu", "tanh": "gelu_tanh"}.get(Arguments.of(node.work).get(1, "approximate", "none"))
    return None if name is None else builder.add(number, CODES[name], builder.ref(node.inputs[0]))


def elu(builder: StepsBuilder, number: int, node: Node) -> Ref | None:
    assert isinstance(node.work, Apply)
    arguments = Arguments.of(node.work)
    others = [arguments.get(2, "scale", 1), arguments.get(3, "input_scale", 1)]
    if any(n not in (1, False) for n in others):  # F.elu has inplace in place of scale
        return None
    return builder.add(number, CODES["elu"], builder.ref(node.inputs[0]), p=float(arguments.get(1, "alpha", 1.0)))


def power(builder: StepsBuilder, number: int, node: Node) -> Ref | None:
    assert isinstance(node.work, Apply)
    arguments = Arguments.of(node.work)
    exponent = arguments.get(1, "exponent")
    is_reversed = getattr(node.work.func, "__name__", "") == "__rpow__"
    if is_reversed or not arguments.signal(arguments.get(0, "input")) or not isinstance(exponent, int | float):
        return None
    if exponent != 2:
        return None
    return builder.add(number, CODES["square"], builder.ref(node.inputs[0]))


def binary(name: str) -> Rule:
    """An operator of two signals, or of one and a constant."""

    def rule(builder: StepsBuilder, number: int, node: Node) -> Ref | None:
        assert isinstance(node.work, Apply)
        if not _is_plain(node, 2):
            return None
        arguments = Arguments.of(node.work)
        left, right = arguments.get(0, "input"), arguments.get(1, "other")
        if getattr(node.work.func, "__name__", "") in _REVERSED:
            left, right = right, left
        refs = [builder.ref(n) for n in node.inputs]
        columns = builder.columns[number]
        if type(left) is Input and type(right) is Input:
            if any(builder.columns[n] != columns for n in node.inputs):
                return None
            return builder.add(number, CODES[name], refs[left.number], z=refs[right.number])
        if builder.columns[node.inputs[0]] != columns:
            return None
        constant = column_constant(right if type(left) is Input else left, node.size)
        if constant is None:
            return None
        return _with_constant(builder, number, name, refs[0], constant, type(left) is Input)

    return rule


# By which Python calls x.__rsub__(1) for 1 - x.
_REVERSED = ("__rsub__", "__rtruediv__", "__rdiv__", "rsub")


def _with_constant(
    builder: StepsBuilder, number: int, name: str, x: Ref, constant: Tensor, is_right: bool
) -> Ref | None:
    """x op constant, or constant op x; a constant divided by x is torch's."""
    if name == "sub" and not is_right:
        return builder.add(number, CODES["affine"], x, z=-torch.ones_like(constant), third=constant)
    return None if name == "div" and not is_right else builder.add(number, CODES[name], x, z=constant)


def prelu(builder: StepsBuilder, number: int, node: Node) -> Ref | None:
    assert isinstance(node.work, Apply)
    weight = Arguments.of(node.work).get(1, "weight")
    columns, size = builder.columns[number], node.size
    if not isinstance(weight, Tensor) or weight.dtype != torch.float32 or columns is None:
        return None
    if weight.numel() == 1:
        slopes = weight.detach().reshape(1).expand(columns).clone()
    elif size.time != 1 and len(size.entries) == 3 and weight.numel() == columns:
        slopes = weight.detach().clone()
    else:
        return None
    return builder.add(number, CODES["prelu"], builder.ref(node.inputs[0]), z=slopes)


def linear(builder: StepsBuilder, number: int, node: Node) -> Ref | None:
    assert isinstance(node.work, Apply)
    arguments = Arguments.of(node.work)
    weight, bias = arguments.get(1, "weight"), arguments.get(2, "bias")
    (source,) = node.inputs
    if not isinstance(weight, Tensor) or weight.dtype != torch.float32 or weight.ndim != 2:
        return None
    if (builder.columns[source], builder.columns[number]) != (weight.shape[1], weight.shape[0]):
        return None
    parts = (weight.detach()[..., None], None if bias is None else bias.detach())
    return builder.add(number, record.PRODUCT, builder.ref(source), source=parts)


def glu(builder: StepsBuilder, number: int, node: Node) -> Ref | None:
    assert isinstance(node.work, Apply)
    (source,) = node.inputs
    columns, size = builder.columns[number], builder.graph.nodes[source].size
    axis = Arguments.of(node.work).get(1, "dim", -1) % len(size.entries)
    inner = inner_axes(size)
    if not inner or axis != inner[0] or columns is None or builder.columns[source] != 2 * columns:
        return None
    x = builder.ref(source)
    return builder.add(number, CODES["glu"], x, z=x.cut(columns))


def joined(builder: StepsBuilder, number: int, node: Node) -> Ref | None:
    """cat along channels: each part is copied to columns of its own."""
    assert isinstance(node.work, Apply)
    arguments = Arguments.of(node.work)
    parts, axis = arguments.get(0, "tensors"), arguments.get(1, "dim", arguments.named.get("axis", 0))
    size = node.size
    inner = inner_axes(size)
    if not isinstance(parts, tuple | list) or not all(type(part) is Input for part in parts):
        return None
    if not inner or axis % len(size.entries) != inner[0]:
        return None
    refs = [(builder.ref(node.inputs[part.number]), builder.columns[node.inputs[part.number]]) for part in parts]
    out, column = builder.value(number), 0
    for ref, columns in refs:
        assert columns is not None
        builder.append(Step(CODES["copy"], out, ref, columns=columns, out_column=column))
        column += columns
    return Ref(out)
