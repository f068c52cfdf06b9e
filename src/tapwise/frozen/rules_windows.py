"""Rules for what reads windows: convolutions, padding, pooling."""

from __future__ import annotations

import torch

from tapwise.engine.kernels.program import record
from tapwise.engine.kernels.program.packing import LANES
from tapwise.engine.plan import choose_kernel
from tapwise.engine.problem import Problem
from tapwise.frozen.steps import Ref
from tapwise.frozen.steps_builder import StepsBuilder, constant
from tapwise.geometry import Geometry
from tapwise.network.graph import Node
from tapwise.network.operations import Convolve, Fill
from tapwise.network.timeline import Ends, Windows


def convolution(builder: StepsBuilder, number: int, node: Node) -> Ref | None:
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
    if (builder.columns[source], builder.columns[number]) != (channels, outputs):
        return None
    if _is_transformed(builder, source, geometry, channels, outputs):
        return None
    bias = None if work.bias is None else work.bias.detach()
    x = builder.ref(source)
    if geometry.transposed:
        if geometry.dilation > 1 or geometry.groups > 1:
            return None
        x = builder.filled(x, source, 0.0)
        is_few = outputs < LANES and geometry.kernel_size % geometry.stride == 0 and geometry.stride > 1
        code = record.FEW_TRANSPOSED if is_few else record.TRANSPOSED
        return builder.add(number, code, x, window=geometry, source=(weight, bias))
    if geometry.padding_mode != "zeros" and geometry.padding != (0, 0):
        return None
    if geometry.padding != (0, 0):
        x = builder.filled(x, source, 0.0)
    window = None if geometry == Geometry(1, groups=geometry.groups) else geometry
    code = record.PRODUCT
    if weight.shape[1] == 1 and geometry.groups == weight.shape[0] and geometry.groups > 1:
        code = record.DEPTHWISE
    elif geometry.groups == 1 and weight.shape[0] <= 2:
        code = record.FEW_OUTPUTS
    return builder.add(number, code, x, window=window, groups=geometry.groups, source=(weight, bias))


# Taps from which on a transform may be faster.
_LONG = 64


def _is_transformed(builder: StepsBuilder, source: int, geometry: Geometry, channels: int, outputs: int) -> bool:
    """Whether a long filter runs by transforms, which the dispatch of a step of torch's chooses."""
    if geometry.kernel_size < _LONG:
        return False
    length = max(builder.graph.totals(builder.graph.example_length)[source], geometry.effective_kernel_size)
    return choose_kernel(Problem(geometry, channels, outputs, length, torch.float32, "cpu")) == "fft"


def padding(builder: StepsBuilder, number: int, node: Node) -> Ref | None:
    ends = node.timeline
    assert isinstance(ends, Ends)
    assert isinstance(node.work, Fill)
    (source,) = node.inputs
    x = builder.ref(source)
    if ends.left > 0 or max(ends.right) > 0 or node.reference is not None:
        mode = ends.padding_mode
        x = builder.filled(x, source, float(node.work.value) if mode == "zeros" else mode)
    return x.moved(-ends.left)


def pooled(builder: StepsBuilder, number: int, node: Node) -> Ref | None:
    assert isinstance(node.timeline, Windows)
    geometry = node.timeline.geometry
    (source,) = node.inputs
    x = builder.ref(source)
    if geometry.padding != (0, 0):
        x = builder.filled(x, source, float(node.work.fill))  # type: ignore[union-attr]
    if node.name == "max_pool1d":
        return builder.add(number, record.LARGEST, x, window=geometry)
    columns = builder.columns[number]
    assert columns is not None
    weight = constant(columns, 1 / geometry.kernel_size).expand(geometry.kernel_size, 1, -1).permute(2, 1, 0)
    return builder.add(number, record.DEPTHWISE, x, window=geometry, groups=columns, source=(weight, None))
