"""Filtering: which products run by Winograd's filtering, with fewer multiplications."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tapwise.engine.kernels.program import record
from tapwise.engine.kernels.winograd import layout
from tapwise.frozen.memory import LINE, lines
from tapwise.frozen.spans import Range
from tapwise.frozen.steps import Step

# Below these, transforms take longer than the products that they save.
_FEWEST_ROWS, _FEWEST_CHANNELS = 129, 32


def of_fewer_products(step: Any, rows: Range) -> Any:
    """The same step by Winograd's filtering, where that is faster."""
    if not isinstance(step, Step) or step.code != record.PRODUCT or step.filters is None:
        return step
    window = step.window
    if window is None or window.stride > 1 or step.groups > 1 or window.kernel_size < layout.FEWEST_TAPS:
        return step
    if rows[1] - rows[0] < _FEWEST_ROWS or min(step.inputs, step.columns) < _FEWEST_CHANNELS:
        return step
    if layout.OUTPUTS * window.dilation > layout.LONGEST_CHUNK:
        return step
    if step.filtered is None:
        step.filtered = layout.transformed(step.filters)
    return replace(step, code=record.WINOGRAD, third=step.filtered)


def block_of(step: Step, count: int) -> int:
    """Rows of a task."""
    assert step.window is not None
    return layout.block_of(step.inputs, step.window.dilation, count)


def memory_of(step: Step, block: int) -> int:
    """Bytes in which the filtering of a block works."""
    assert step.window is not None
    return lines(layout.memory_of(block, step.inputs, step.window.kernel_size, step.window.dilation)) + LINE
