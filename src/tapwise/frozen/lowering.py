"""Lowering: the nodes of a graph as steps of a program, where a compiled loop does what they do.

A node that no rule lowers is a step of torch's own. ``RULES`` has a rule by the operation's name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tapwise.engine.kernels.program import record
from tapwise.engine.kernels.program.packing import LANES
from tapwise.engine.kernels.program.record import CODES
from tapwise.engine.plan import choose_kernel
from tapwise.engine.problem import Problem
from tapwise.frozen.layout import Arguments, column_constant, columns_of, inner_axes, moved_columns
from tapwise.frozen.steps import Ref, Step, Steps, TorchStep, Value
from tapwise.geometry import Geometry
from tapwise.network.graph import Graph, Node
from tapwise.network.operations import Apply, Convolve, Fill, Input, OverTime, Reshape, Within
from tapwise.network.timeline import Aligned, Ends, Windows


class Lowering:
    """Builds the steps of a graph."""

    def __init__(self, graph: Graph, is_compiled: bool) -> None:
        self.graph = graph
        self.steps = Steps()
        self.columns = [columns_of(node) if is_compiled else None for node in graph.nodes]
        for number, node in enumerate(graph.nodes):
            if graph.batches and node.inputs and not node.size.batch:  # one row for all of the batch
                self.columns[number] = None
        # By node, whether its rows begin and end with those of the value in which they lie.
        self._is_complete: list[bool] = []
        for number, node in enumerate(graph.nodes):
            self.steps.refs[number] = ref = self._ref_of(number, node)
            is_own = ref is not None and self.steps.values[ref.value].node == number
            follows = not isinstance(node.work, Fill) and bool(node.inputs) and self._is_complete[node.inputs[0]]
            self._is_complete.append(is_own or follows)

    def _ref_of(self, number: int, node: Node) -> Ref | None:
        if not node.inputs:
            return None if self.columns[number] is None else Ref(self.value(number))
        if self.columns[number] is None:
            self.steps.steps.append(TorchStep(number, None))
            return None
        refs = [self.steps.refs[n] for n in node.inputs]
        if None not in refs and (rule := _rule_of(node)) is not None:
            found = rule(self, number, node)
            if found is not None:
                return found
        return self._by_torch(number, node)

    def _by_torch(self, number: int, node: Node) -> Ref:
        out = self.value(number)
        self.steps.steps.append(TorchStep(number, out))
        return Ref(out)

    def value(self, number: int, columns: int | None = None) -> int:
        own = self.columns[number] if columns is None else columns
        assert own is not None
        self.steps.values.append(Value(number, own))
        return len(self.steps.values) - 1

    def table(self, number: int, columns: int, is_per_block: bool = False) -> int:
        """A value of numbers that belong to all rows of a node together."""
        self.steps.values.append(Value(number, columns, is_table=True, is_per_block=is_per_block))
        return len(self.steps.values) - 1

    def ref(self, number: int) -> Ref:
        found = self.steps.refs[number]
        assert found is not None
        return found

    def add(self, number: int, code: int, x: Ref, **settings: Any) -> Ref:
        """A step that gives the node's rows."""
        out = self.value(number)
        columns = self.steps.values[out].columns
        self.steps.steps.append(Step(code, out, x, columns=columns, **settings))
        return Ref(out)

    def filled(self, ref: Ref, number: int, fill: float | str) -> Ref:
        """The rows of node ``number`` at ``ref``, beyond whose ends something stands: of a copy where something else does."""
        value = self.steps.values[ref.value]
        if self._is_complete[number] and value.fill in (None, fill):
            value.fill = fill
            return ref
        copied = self.add(number, CODES["copy"], ref)
        self.steps.values[copied.value].fill = fill
        return copied


Rule = Callable[[Lowering, int, Node], Ref | None]


def _rule_of(node: Node) -> Rule | None:
    if isinstance(node.work, Convolve):
        return _convolution
    if isinstance(node.work, Fill):
        return _padding
    if isinstance(node.work, Reshape):
        return _moved if node.work.gives == node.work.takes else None
    if isinstance(node.work, Within):
        return _pooled if node.name in ("max_pool1d", "avg_pool1d") else None
    if isinstance(node.work, OverTime):
        return _group_norm
    if isinstance(node.work, Apply) and isinstance(node.timeline, Aligned) and node.work.flat is None:
        return RULES.get(node.name)
    return None


def _convolution(lowering: Lowering, number: int, node: Node) -> Ref | None:
    work = node.work
    assert isinstance(work, Convolve)
    assert isinstance(node.timeline, Windows)
    geometry = node.timeline.geometry
    (source,) = node.inputs
    weight = work.weight.detach()
    channels = weight.shape[0] if geometry.transposed else weight.shape[1] * geometry.groups
    outputs = weight.shape[1] * geometry.groups if geometry.transposed else weight.shape[0]
    if weight.dtype != torch.float32 or weight.device.type != "cpu":
        return None
    if (lowering.columns[source], lowering.columns[number]) != (channels, outputs):
        return None
    if _is_transformed(lowering, source, geometry, channels, outputs):
        return None
    bias = None if work.bias is None else work.bias.detach()
    x = lowering.ref(source)
    if geometry.transposed:
        if geometry.dilation > 1 or geometry.groups > 1:
            return None
        x = lowering.filled(x, source, 0.0)
        is_few = outputs < LANES and geometry.kernel_size % geometry.stride == 0 and geometry.stride > 1
        code = record.FEW_TRANSPOSED if is_few else record.TRANSPOSED
        return lowering.add(number, code, x, window=geometry, source=(weight, bias))
    if geometry.padding_mode != "zeros" and geometry.padding != (0, 0):
        return None
    if geometry.padding != (0, 0):
        x = lowering.filled(x, source, 0.0)
    window = None if geometry == Geometry(1, groups=geometry.groups) else geometry
    code = record.PRODUCT
    if weight.shape[1] == 1 and geometry.groups == weight.shape[0] and geometry.groups > 1:
        code = record.DEPTHWISE
    elif geometry.groups == 1 and weight.shape[0] <= 2:
        code = record.FEW_OUTPUTS
    return lowering.add(number, code, x, window=window, groups=geometry.groups, source=(weight, bias))


# Taps from which on a transform may be faster.
_LONG = 64


def _is_transformed(lowering: Lowering, source: int, geometry: Geometry, channels: int, outputs: int) -> bool:
    """Whether a long filter runs by transforms, which the dispatch of a step of torch's chooses."""
    if geometry.kernel_size < _LONG:
        return False
    length = max(lowering.graph.totals(lowering.graph.example_length)[source], geometry.effective_kernel_size)
    return choose_kernel(Problem(geometry, channels, outputs, length, torch.float32, "cpu")) == "fft"


def _padding(lowering: Lowering, number: int, node: Node) -> Ref | None:
    ends = node.timeline
    assert isinstance(ends, Ends)
    assert isinstance(node.work, Fill)
    (source,) = node.inputs
    x = lowering.ref(source)
    if ends.left > 0 or max(ends.right) > 0 or node.reference is not None:
        mode = ends.padding_mode
        x = lowering.filled(x, source, float(node.work.value) if mode == "zeros" else mode)
    return x.moved(-ends.left)


def _moved(lowering: Lowering, number: int, node: Node) -> Ref | None:
    if len(node.inputs) != 1:
        return None
    source = lowering.graph.nodes[node.inputs[0]]
    columns = moved_columns(node.work, source.size, node.size)
    if columns is None or columns != list(range(columns[0], columns[0] + len(columns))):
        return None
    return lowering.ref(node.inputs[0]).cut(columns[0])


def _pooled(lowering: Lowering, number: int, node: Node) -> Ref | None:
    assert isinstance(node.timeline, Windows)
    geometry = node.timeline.geometry
    (source,) = node.inputs
    x = lowering.ref(source)
    if geometry.padding != (0, 0):
        x = lowering.filled(x, source, float(node.work.fill))  # type: ignore[union-attr]
    if node.name == "max_pool1d":
        return lowering.add(number, record.LARGEST, x, window=geometry)
    columns = lowering.columns[number]
    assert columns is not None
    weight = _constant(columns, 1 / geometry.kernel_size).expand(geometry.kernel_size, 1, -1).permute(2, 1, 0)
    return lowering.add(number, record.DEPTHWISE, x, window=geometry, groups=columns, source=(weight, None))


def _constant(columns: int, value: float) -> Tensor:
    return torch.full((columns,), value, dtype=torch.float32, device="cpu")


def _same(lowering: Lowering, number: int, node: Node) -> Ref | None:
    return lowering.ref(node.inputs[0])


def _is_plain(node: Node, most: int) -> bool:
    """Whether a call has so few arguments that nothing but operands is given."""
    assert isinstance(node.work, Apply)
    return len(node.work.leaves) <= most


def _unary(name: str, **places: tuple[int, str, float]) -> Rule:
    """A function of one operand; ``places``: of its numbers p and q, the argument and its default."""

    def rule(lowering: Lowering, number: int, node: Node) -> Ref | None:
        assert isinstance(node.work, Apply)
        arguments = Arguments.of(node.work)
        numbers = {key: arguments.get(*place) for key, place in places.items()}
        if len(node.inputs) != 1 or not all(isinstance(n, int | float) for n in numbers.values()):
            return None
        return lowering.add(
            number, CODES[name], lowering.ref(node.inputs[0]), **{k: float(n) for k, n in numbers.items()}
        )

    return rule


def _gelu(lowering: Lowering, number: int, node: Node) -> Ref | None:
    assert isinstance(node.work, Apply)
    name = {"none": "gelu", "tanh": "gelu_tanh"}.get(Arguments.of(node.work).get(1, "approximate", "none"))
    return None if name is None else lowering.add(number, CODES[name], lowering.ref(node.inputs[0]))


def _elu(lowering: Lowering, number: int, node: Node) -> Ref | None:
    assert isinstance(node.work, Apply)
    arguments = Arguments.of(node.work)
    others = [arguments.get(2, "scale", 1), arguments.get(3, "input_scale", 1)]
    if any(n not in (1, False) for n in others):  # F.elu has inplace in place of scale
        return None
    return lowering.add(number, CODES["elu"], lowering.ref(node.inputs[0]), p=float(arguments.get(1, "alpha", 1.0)))


def _power(lowering: Lowering, number: int, node: Node) -> Ref | None:
    assert isinstance(node.work, Apply)
    arguments = Arguments.of(node.work)
    exponent = arguments.get(1, "exponent")
    is_reversed = getattr(node.work.func, "__name__", "") == "__rpow__"
    if is_reversed or not arguments.signal(arguments.get(0, "input")) or not isinstance(exponent, int | float):
        return None
    if exponent != 2:
        return None
    return lowering.add(number, CODES["square"], lowering.ref(node.inputs[0]))


def _binary(name: str) -> Rule:
    """An operator of two signals, or of one and a constant."""

    def rule(lowering: Lowering, number: int, node: Node) -> Ref | None:
        assert isinstance(node.work, Apply)
        if not _is_plain(node, 2):
            return None
        arguments = Arguments.of(node.work)
        left, right = arguments.get(0, "input"), arguments.get(1, "other")
        if getattr(node.work.func, "__name__", "") in _REVERSED:
            left, right = right, left
        refs = [lowering.ref(n) for n in node.inputs]
        columns = lowering.columns[number]
        if type(left) is Input and type(right) is Input:
            if any(lowering.columns[n] != columns for n in node.inputs):
                return None
            return lowering.add(number, CODES[name], refs[left.number], z=refs[right.number])
        if lowering.columns[node.inputs[0]] != columns:
            return None
        constant = column_constant(right if type(left) is Input else left, node.size)
        if constant is None:
            return None
        return _with_constant(lowering, number, name, refs[0], constant, type(left) is Input)

    return rule


# By which Python calls x.__rsub__(1) for 1 - x.
_REVERSED = ("__rsub__", "__rtruediv__", "__rdiv__", "rsub")


def _with_constant(lowering: Lowering, number: int, name: str, x: Ref, constant: Tensor, is_right: bool) -> Ref | None:
    """x op constant, or constant op x."""
    ones = torch.ones_like(constant)
    if name == "add":
        return lowering.add(number, CODES["add"], x, z=constant)
    if name == "multiply":
        return lowering.add(number, CODES["multiply"], x, z=constant)
    if name == "subtract":
        if is_right:
            return lowering.add(number, CODES["subtract"], x, z=constant)
        return lowering.add(number, CODES["affine"], x, z=-ones, third=constant)
    if name == "divide" and is_right:
        return lowering.add(number, CODES["divide"], x, z=constant)
    return None


def _prelu(lowering: Lowering, number: int, node: Node) -> Ref | None:
    assert isinstance(node.work, Apply)
    weight = Arguments.of(node.work).get(1, "weight")
    columns, size = lowering.columns[number], node.size
    if not isinstance(weight, Tensor) or weight.dtype != torch.float32 or columns is None:
        return None
    if weight.numel() == 1:
        slopes = weight.detach().reshape(1).expand(columns).clone()
    elif size.time != 1 and len(size.entries) == 3 and weight.numel() == columns:
        slopes = weight.detach().clone()
    else:
        return None
    return lowering.add(number, CODES["prelu"], lowering.ref(node.inputs[0]), z=slopes)


def _batch_norm(lowering: Lowering, number: int, node: Node) -> Ref | None:
    assert isinstance(node.work, Apply)
    arguments = Arguments.of(node.work)
    mean, variance = arguments.get(1, "running_mean"), arguments.get(2, "running_var")
    weight, bias = arguments.get(3, "weight"), arguments.get(4, "bias")
    if not all(t is None or isinstance(t, Tensor) for t in (weight, bias)) or len(node.size.entries) != 3:
        return None
    if not isinstance(mean, Tensor) or not isinstance(variance, Tensor) or mean.dtype != torch.float32:
        return None
    if mean.numel() != lowering.columns[number] or not isinstance(arguments.get(7, "eps", 1e-5), float):
        return None  # one batch only, whose rows are columns; or torch.batch_norm, which has another order
    scale = (variance.double() + arguments.get(7, "eps", 1e-5)).rsqrt()
    scale = scale if weight is None else scale * weight.detach().double()
    offset = -mean.double() * scale + (0 if bias is None else bias.detach().double())
    return lowering.add(number, CODES["affine"], lowering.ref(node.inputs[0]), z=scale.float(), third=offset.float())


def _layer_norm(lowering: Lowering, number: int, node: Node) -> Ref | None:
    assert isinstance(node.work, Apply)
    arguments = Arguments.of(node.work)
    columns = lowering.columns[number]
    shape = arguments.get(1, "normalized_shape")
    weight, bias = arguments.get(2, "weight"), arguments.get(3, "bias")
    if not isinstance(shape, tuple | list | torch.Size) or torch.Size(shape).numel() != columns:
        return None
    assert columns is not None
    scale = _constant(columns, 1.0) if weight is None else weight.detach().reshape(-1).float()
    offset = _constant(columns, 0.0) if bias is None else bias.detach().reshape(-1).float()
    eps = float(arguments.get(4, "eps", 1e-5))
    return lowering.add(number, record.LAYER_NORM, lowering.ref(node.inputs[0]), weight=scale, bias=offset, p=eps)


def _linear(lowering: Lowering, number: int, node: Node) -> Ref | None:
    assert isinstance(node.work, Apply)
    arguments = Arguments.of(node.work)
    weight, bias = arguments.get(1, "weight"), arguments.get(2, "bias")
    (source,) = node.inputs
    if not isinstance(weight, Tensor) or weight.dtype != torch.float32 or weight.ndim != 2:
        return None
    if (lowering.columns[source], lowering.columns[number]) != (weight.shape[1], weight.shape[0]):
        return None
    parts = (weight.detach()[..., None], None if bias is None else bias.detach())
    return lowering.add(number, record.PRODUCT, lowering.ref(source), source=parts)


def _glu(lowering: Lowering, number: int, node: Node) -> Ref | None:
    assert isinstance(node.work, Apply)
    (source,) = node.inputs
    columns, size = lowering.columns[number], lowering.graph.nodes[source].size
    axis = Arguments.of(node.work).get(1, "dim", -1) % len(size.entries)
    inner = inner_axes(size)
    if not inner or axis != inner[0] or columns is None or lowering.columns[source] != 2 * columns:
        return None
    x = lowering.ref(source)
    return lowering.add(number, CODES["glu"], x, z=x.cut(columns))


def _joined(lowering: Lowering, number: int, node: Node) -> Ref | None:
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
    refs = [(lowering.ref(node.inputs[part.number]), lowering.columns[node.inputs[part.number]]) for part in parts]
    out, column = lowering.value(number), 0
    for ref, columns in refs:
        assert columns is not None
        lowering.steps.steps.append(Step(CODES["copy"], out, ref, columns=columns, out_column=column))
        column += columns
    return Ref(out)


def _group_norm(lowering: Lowering, number: int, node: Node) -> Ref | None:
    """Means and deviations over all of time: of each block of rows, then of all, then what they make of each row."""
    assert isinstance(node.work, OverTime)
    arguments = Arguments.of(node.work.apply)
    columns, size = lowering.columns[number], node.size
    groups, weight, bias = arguments.get(1, "num_groups"), arguments.get(2, "weight"), arguments.get(3, "bias")
    if node.name != "group_norm" or len(size.entries) != 3 or size.time != 2 or not size.batch or columns is None:
        return None
    if any(t is not None and (not isinstance(t, Tensor) or t.dtype != torch.float32) for t in (weight, bias)):
        return None
    x = lowering.ref(node.inputs[0])
    moments = lowering.table(number, 6 * groups, is_per_block=True)
    scales = lowering.table(number, 2 * columns)
    scale = _constant(columns, 1.0) if weight is None else weight.detach()
    offset = _constant(columns, 0.0) if bias is None else bias.detach()
    eps = float(arguments.get(4, "eps", 1e-5))
    steps = lowering.steps.steps
    steps.append(Step(record.MOMENTS, moments, x, columns=columns, groups=groups))
    steps.append(
        Step(record.FINISH, scales, Ref(moments), columns=columns, groups=groups, weight=scale, bias=offset, p=eps)
    )
    return lowering.add(number, record.NORMALISE, x, z=Ref(scales))


_KEEP = ("dropout", "dropout1d", "feature_alpha_dropout", "alpha_dropout", "contiguous", "clone", "detach", "float")
_MOVES = """
    getitem chunk narrow split split_with_sizes tensor_split unbind select squeeze unsqueeze transpose permute movedim
    swapaxes reshape view flatten unflatten T mT
"""

RULES: dict[str, Rule] = {
    **dict.fromkeys(_KEEP, _same),
    **dict.fromkeys(_MOVES.split(), _moved),
    "relu": _unary("relu"),
    "leaky_relu": _unary("leaky_relu", p=(1, "negative_slope", 0.01)),
    "sigmoid": _unary("logistic"),
    "tanh": _unary("hyperbolic"),
    "silu": _unary("silu"),
    "sin": _unary("sine"),
    "exp": _unary("exponential"),
    "square": _unary("square"),
    "abs": _unary("magnitude"),
    "gelu": _gelu,
    "elu": _elu,
    "pow": _power,
    "prelu": _prelu,
    "add": _binary("add"),
    "sub": _binary("subtract"),
    "rsub": _binary("subtract"),
    "mul": _binary("multiply"),
    "multiply": _binary("multiply"),
    "div": _binary("divide"),
    "truediv": _binary("divide"),
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "linear": _linear,
    "glu": _glu,
    **dict.fromkeys(("cat", "concat", "concatenate"), _joined),
}


def lowered(graph: Graph, is_compiled: bool = True) -> Steps:
    """The steps of a graph; all of them torch's where nothing can be compiled."""
    return Lowering(graph, is_compiled).steps
