"""Filtering: which products run by Winograd's filtering, with fewer multiplications."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tapwise.engine.kernels.program import record
from tapwise.engine.kernels.winograd import layout
from tapwise.frozen.memory import LINE, lines
from tapwise.frozen.spans import Range
from tapwise.frozen.steps import Step
from tapwise.geometry import Geometry

CODES = {record.PRODUCT: record.WINOGRAD, record.TRANSPOSED: record.WINOGRAD_TRANSPOSED}
# Below these, transforms take longer than the products that they save. Rows are those of the stride's phases.
_FEWEST_ROWS, _FEWEST_CHANNELS = 129, 32
# Numbers of a weight that leaves the second-level cache, and blocks of rows up to which tasks are shares of its columns.
_LARGE, _MOST_BLOCKS, _FEWEST_COLUMNS = 1 << 18, 8, 64


def of_fewer_products(step: Any, rows: Range) -> Any:
    """The same step by Winograd's filtering, where that is faster."""
    if not isinstance(step, Step) or step.code not in CODES or step.filters is None or step.groups > 1:
        return step
    window = step.window
    if window is None or min(step.inputs, step.columns) < _FEWEST_CHANNELS:
        return step
    if step.rows_of_phase(rows[1] - rows[0]) < _FEWEST_ROWS or not _is_filter(window):
        return step
    if step.filtered is None:
        step.filtered = _transformed(step, step.filters)
    return replace(step, code=CODES[step.code], third=step.filtered)


def _is_filter(window: Geometry) -> bool:
    """Whether filtering takes fewer products of a window."""
    taps, stride = window.kernel_size, window.stride
    if window.transposed:
        return taps % stride == 0 and layout.why_not(taps // stride) is None
    return layout.why_not(taps, stride, window.dilation) is None


def _filter(step: Step) -> tuple[int, int]:
    """Inputs and taps of the filter of stride 1 that does what the step does, or a phase of it."""
    assert step.window is not None
    taps, stride = step.window.kernel_size, step.window.stride
    return (step.inputs, taps // stride) if step.window.transposed else layout.unstrided(step.inputs, taps, stride)


def _transformed(step: Step, weight: Tensor) -> Tensor:
    """Zeros and the transformed weight; of a transposed convolution phase by phase."""
    assert step.window is not None
    stride = step.window.stride
    if not step.window.transposed:
        return layout.transformed(weight, stride)
    zeros = weight.new_zeros(zeros_of(step))
    phases = (weight[..., phase::stride].flip(-1).transpose(0, 1) for phase in range(stride))
    return torch.cat([zeros, *(layout.transformed(taps)[len(zeros) :] for taps in phases)])


def zeros_of(step: Step) -> int:
    """Numbers of the zeros before the transformed weight."""
    return layout.zeros_of(_filter(step)[0])


def shares_of(step: Step, count: int) -> int:
    """Shares of the columns, where each reads its part of a large weight once instead of once for each block of rows."""
    assert step.third is not None
    blocks = -(-count // block_of(step, count))
    if blocks > _MOST_BLOCKS or step.third.numel() < _LARGE:
        return 1
    return max(1, step.columns // _FEWEST_COLUMNS)


def block_of(step: Step, count: int) -> int:
    """Rows at once, and of a task where its columns aren't shared out."""
    assert step.window is not None
    phases = step.window.stride if step.window.transposed else 1
    return phases * layout.block_of(_filter(step)[0], step.window.dilation, step.rows_of_phase(count))


def memory_of(step: Step, block: int) -> int:
    """Bytes in which the filtering of a block works."""
    assert step.window is not None
    inputs, taps = _filter(step)
    return lines(layout.memory_of(step.rows_of_phase(block), inputs, taps, step.window.dilation)) + LINE
