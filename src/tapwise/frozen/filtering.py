"""Filtering: which products run by Winograd's filtering, with fewer multiplications, and in what blocks of rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tapwise.engine.kernels.program import packing, record
from tapwise.frozen.memory import LINE, lines
from tapwise.frozen.spans import Range
from tapwise.frozen.steps import Step

# Below these, transforms take longer than the products that they save.
_FEWEST_ROWS, _FEWEST_CHANNELS = 129, 32
# Rows of a chunk of tiles, at most: a block holds full chunks.
_LONGEST_CHUNK = 128
# Rows of a block: the weight is read once for each, and what is transformed has to stay in the cache.
_MOST_ROWS, _CACHED = 192, 1 << 19


def of_fewer_products(step: Any, rows: Range) -> Any:
    """The same step by Winograd's filtering, where that is faster."""
    if not isinstance(step, Step) or step.code != record.PRODUCT or step.filters is None:
        return step
    window = step.window
    if window is None or window.stride > 1 or step.groups > 1 or window.kernel_size < 3:
        return step
    if rows[1] - rows[0] < _FEWEST_ROWS or min(step.inputs, step.columns) < _FEWEST_CHANNELS:
        return step
    if packing.OUTPUTS * window.dilation > _LONGEST_CHUNK:
        return step
    if step.filtered is None:
        step.filtered = packing.packed_winograd(step.filters)
    return replace(step, code=record.WINOGRAD, third=step.filtered)


def block_of(step: Step, count: int) -> int:
    """Rows of a task: full chunks."""
    assert step.window is not None
    chunk = packing.OUTPUTS * step.window.dilation
    most = max(96, min(_MOST_ROWS, _CACHED // (8 * step.inputs)))
    rows = min(most, max(96, -(-count // 16)))
    return -(-rows // chunk) * chunk


def memory_of(step: Step, block: int) -> int:
    """Bytes in which the filtering of a block works."""
    assert step.window is not None
    size = packing.winograd_memory(block, step.inputs, step.window.kernel_size, step.window.dilation)
    return lines(size) + LINE
