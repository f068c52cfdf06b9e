"""Weights of steps, prepared once in the order in which the compiled loops read them."""

from __future__ import annotations

import torch

from tapwise.engine.kernels.program import packing, record
from tapwise.frozen.matrices import in_matrices
from tapwise.frozen.steps import Step, Steps


def pack(steps: Steps, is_exact: bool = False, dtype: torch.dtype | None = None) -> None:
    """Pack the weights of all steps; where ``is_exact``, for sums of products alone.

    Arguments:
        dtype: bfloat16, where products may be computed in it; None: float32.
    """
    for step in steps.steps:
        if isinstance(step, Step) and step.source is not None:
            weight = step.source[0]
            _pack(step)
            if dtype is not None and in_matrices(step, weight):
                continue
            if is_exact:
                step.filters = None


def _pack(step: Step) -> None:
    assert step.source is not None
    weight, bias = step.source[0].float(), None if step.source[1] is None else step.source[1].float()
    if step.code == record.PRODUCT:
        step.weight, step.filters = packing.packed_groups(weight, step.groups), weight
        step.bias = packing.packed_bias(bias, step.columns, step.groups)
    elif step.code == record.DEPTHWISE:
        step.weight, step.bias = packing.packed_depthwise(weight), packing.packed_bias(bias, step.columns)
    elif step.code == record.FEW_OUTPUTS:
        step.weight = weight.permute(0, 2, 1).contiguous()
        step.bias = weight.new_zeros(step.columns) if bias is None else bias.clone()
    elif step.code == record.FEW_TRANSPOSED:
        assert step.window is not None
        stride = step.window.stride
        step.weight = packing.packed_few_transposed(weight, stride)
        step.bias = packing.packed_bias(None if bias is None else bias.repeat(stride), step.columns * stride)
    else:
        assert step.window is not None
        step.weight = packing.packed_transposed(weight, step.window.stride)
        step.bias = packing.packed_bias(bias, step.columns)
    step.inputs = weight.shape[0 if step.code in (record.TRANSPOSED, record.FEW_TRANSPOSED) else 1]
    step.source = None  # the packed weight is all that runs
