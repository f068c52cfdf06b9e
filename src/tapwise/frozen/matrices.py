"""Matrices: which products run in bfloat16 by the processor's matrices, where that is allowed."""

from __future__ import annotations

import torch

from tapwise.engine.kernels import amx
from tapwise.engine.kernels.amx import layout
from tapwise.engine.kernels.program import record
from tapwise.frozen.memory import LINE, lines
from tapwise.frozen.steps import Step

CODES = {record.PRODUCT: record.MATRICES, record.TRANSPOSED: record.MATRICES_TRANSPOSED}
# Below these, matrices are mostly empty.
_FEWEST_INPUTS, _FEWEST_COLUMNS = 16, 16
_MOST_ROWS, _LEAST_TASKS = 256, 8


def in_matrices(step: Step, weight: torch.Tensor) -> bool:
    """Let a step's product be one of matrices, where they help; ``weight`` is as the model has it."""
    if step.code not in CODES or step.groups > 1 or amx.obstacle() is not None:
        return False
    transposed = step.code == record.TRANSPOSED
    if min(step.inputs, _FEWEST_INPUTS) < _FEWEST_INPUTS or step.columns < _FEWEST_COLUMNS:
        return False
    if transposed:
        assert step.window is not None
        phases = (weight[..., phase :: step.window.stride] for phase in range(step.window.stride))
        parts = [layout.packed(taps.flip(-1).transpose(0, 1)) for taps in phases if taps.shape[-1]]
        step.third = torch.cat(parts)
    else:
        step.third = layout.packed(weight)
    step.code, step.weight, step.filters = CODES[step.code], None, None
    return True


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
        rows = layout.rows_read(block, taps, dilation, stride) + layout.STEP * stride
    return lines(rows * layout.input_row(step.inputs) + layout.STEP * layout.SUMS_ROW) + LINE
