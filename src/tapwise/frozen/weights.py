"""Weights of steps, prepared once in the order in which the compiled loops read them."""

from __future__ import annotations

from tapwise.engine.kernels.program import packing, record
from tapwise.frozen import filtering
from tapwise.frozen.steps import Step, Steps


def pack(steps: Steps) -> None:
    """Pack the weights of all steps."""
    for step in steps.steps:
        if isinstance(step, Step) and step.source is not None:
            _pack(step)


def drop_filters(steps: Steps, is_exact: bool) -> None:
    """Drop the weights as they were packed, but for those of windows that filtering reads; all where ``is_exact``."""
    for step in steps.steps:
        if isinstance(step, Step) and (is_exact or step.code not in filtering.CODES or step.window is None):
            step.filters = None


def _pack(step: Step) -> None:
    assert step.source is not None
    weight, bias = step.source[0].float(), None if step.source[1] is None else step.source[1].float()
    if step.code == record.PRODUCT:
        step.dots = packing.dots_of(*weight.shape) if step.groups == 1 else 0
        step.weight, step.filters = packing.packed_groups(weight, step.groups, step.dots), weight
        step.bias = packing.packed_bias(bias, step.columns, step.groups)
    elif step.code == record.DEPTHWISE:
        step.weight, step.bias = packing.packed_depthwise(weight), packing.packed_bias(bias, step.columns)
    elif step.code == record.FEW_OUTPUTS:
        step.weight = weight.permute(0, 2, 1).contiguous()
        step.bias = weight.new_zeros(step.columns) if bias is None else bias.clone()
    elif step.code in record.GATES:
        assert bias is not None
        step.weight = packing.packed_recurrent(weight, step.groups)
        step.bias = packing.packed_recurrent(bias, step.groups)
    elif step.code == record.FEW_TRANSPOSED:
        assert step.window is not None
        stride = step.window.stride
        step.weight = packing.packed_few_transposed(weight, stride)
        step.bias = packing.packed_bias(None if bias is None else bias.repeat(stride), step.columns * stride)
    else:
        assert step.window is not None
        step.weight, step.filters = packing.packed_transposed(weight, step.window.stride), weight
        step.bias = packing.packed_bias(bias, step.columns)
    step.inputs = weight.shape[0 if step.code in (record.TRANSPOSED, record.FEW_TRANSPOSED) else 1]
    step.source = None  # the packed weight is all that runs
