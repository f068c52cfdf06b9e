"""Matrices: which products run in bfloat16 by the processor's matrices, where that is allowed."""

from __future__ import annotations

import torch
from torch import Tensor

from tapwise.engine.kernels import amx
from tapwise.engine.kernels.amx import layout
from tapwise.engine.kernels.loops.spans import rows_read
from tapwise.engine.kernels.program import record
from tapwise.frozen.memory import LINE, lines
from tapwise.frozen.steps import Step, Steps

CODES = {record.PRODUCT: record.MATRICES, record.TRANSPOSED: record.MATRICES_TRANSPOSED}
# Below these, matrices are mostly empty.
_FEWEST_INPUTS, _FEWEST_COLUMNS = 16, 16
_MOST_ROWS, _LEAST_TASKS = 256, 8


def use_matrices(steps: Steps) -> None:
    """Let products be those of matrices, where they help; ``pack`` came before."""
    if amx.obstacle() is not None:
        return
    # What a recurrence adds to its state row after row isn't rounded: the error would add up too.
    recurrences = [step for step in steps.steps if isinstance(step, Step) and step.code in record.GATES]
    recurrent = {ref.value for step in recurrences for ref in step.reads}
    for step in steps.steps:
        if isinstance(step, Step) and step.out in recurrent:
            continue
        is_product = isinstance(step, Step) and step.code in CODES and step.groups == 1 and step.filters is not None
        if is_product and step.inputs >= _FEWEST_INPUTS and step.columns >= _FEWEST_COLUMNS:
            step.weight, step.code = _packed(step, step.filters), CODES[step.code]


def _packed(step: Step, weight: Tensor) -> Tensor:
    if step.code == record.PRODUCT:
        return layout.packed(weight)
    assert step.window is not None
    phases = (weight[..., phase :: step.window.stride] for phase in range(step.window.stride))
    return torch.cat([layout.packed(taps.flip(-1).transpose(0, 1)) for taps in phases if taps.shape[-1]])


def block_of(count: int) -> int:
    """Rows of a task: the same whatever the number of threads."""
    each = -(-count // _LEAST_TASKS)
    return min(_MOST_ROWS, -(-each // layout.STEP) * layout.STEP)


def memory_of(step: Step, block: int) -> int:
    """Bytes in which the products of a block work."""
    taps, stride, dilation = 1, 1, 1
    if step.window is not None:
        taps, stride, dilation = step.window.kernel_size, step.window.stride, step.window.dilation
    if step.code == record.MATRICES_TRANSPOSED:
        most = -(-taps // stride)
        rows = (block - 1) // stride + 2 * most + 2 + layout.STEP
    else:
        rows = rows_read(block, taps, dilation, stride) + layout.STEP * stride
    return lines(rows * layout.input_row(step.inputs) + layout.STEP * layout.SUMS_ROW) + LINE
