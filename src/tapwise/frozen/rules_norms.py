"""Rules for normalisations."""

from __future__ import annotations

import torch
from torch import Tensor

from tapwise.engine.kernels.program import record
from tapwise.engine.kernels.program.record import CODES
from tapwise.frozen.layout import Arguments
from tapwise.frozen.steps import Ref, Step
from tapwise.frozen.steps_builder import StepsBuilder, constant
from tapwise.network.graph import Node
from tapwise.network.operations import Apply, OverTime


def batch_norm(builder: StepsBuilder, number: int, node: Node) -> Ref | None:
    assert isinstance(node.work, Apply)
    arguments = Arguments.of(node.work)
    mean, variance = arguments.get(1, "running_mean"), arguments.get(2, "running_var")
    weight, bias = arguments.get(3, "weight"), arguments.get(4, "bias")
    if not all(t is None or isinstance(t, Tensor) for t in (weight, bias)) or len(node.size.entries) != 3:
        return None
    if not isinstance(mean, Tensor) or not isinstance(variance, Tensor) or mean.dtype != torch.float32:
        return None
    if mean.numel() != builder.columns[number] or not isinstance(arguments.get(7, "eps", 1e-5), float):
        return None  # one batch only, whose rows are columns; or torch.batch_norm, which has another order
    scale = (variance.double() + arguments.get(7, "eps", 1e-5)).rsqrt()
    scale = scale if weight is None else scale * weight.detach().double()
    offset = -mean.double() * scale + (0 if bias is None else bias.detach().double())
    return builder.add(number, CODES["affine"], builder.ref(node.inputs[0]), z=scale.float(), third=offset.float())


def layer_norm(builder: StepsBuilder, number: int, node: Node) -> Ref | None:
    assert isinstance(node.work, Apply)
    arguments = Arguments.of(node.work)
    columns = builder.columns[number]
    shape = arguments.get(1, "normalized_shape")
    weight, bias = arguments.get(2, "weight"), arguments.get(3, "bias")
    if not isinstance(shape, tuple | list | torch.Size) or torch.Size(shape).numel() != columns:
        return None
    assert columns is not None
    scale = constant(columns, 1.0) if weight is None else weight.detach().reshape(-1).float()
    offset = constant(columns, 0.0) if bias is None else bias.detach().reshape(-1).float()
    eps = float(arguments.get(4, "eps", 1e-5))
    return builder.add(number, record.LAYER_NORM, builder.ref(node.inputs[0]), weight=scale, bias=offset, p=eps)


def group_norm(builder: StepsBuilder, number: int, node: Node) -> Ref | None:
    """Means and deviations over all of time: of each block of rows, then of all, then what they make of each row."""
    assert isinstance(node.work, OverTime)
    arguments = Arguments.of(node.work.apply)
    columns, size = builder.columns[number], node.size
    groups, weight, bias = arguments.get(1, "num_groups"), arguments.get(2, "weight"), arguments.get(3, "bias")
    if node.name != "group_norm" or len(size.entries) != 3 or size.time != 2 or not size.batch or columns is None:
        return None
    if any(t is not None and (not isinstance(t, Tensor) or t.dtype != torch.float32) for t in (weight, bias)):
        return None
    x = builder.ref(node.inputs[0])
    moments = builder.table(number, 6 * groups, is_per_block=True)
    scales = builder.table(number, 2 * columns)
    scale = constant(columns, 1.0) if weight is None else weight.detach()
    offset = constant(columns, 0.0) if bias is None else bias.detach()
    eps = float(arguments.get(4, "eps", 1e-5))
    builder.append(Step(record.MOMENTS, moments, x, columns=columns, groups=groups))
    builder.append(
        Step(record.FINISH, scales, Ref(moments), columns=columns, groups=groups, weight=scale, bias=offset, p=eps)
    )
    return builder.add(number, record.NORMALISE, x, z=Ref(scales))
