"""Groups: which steps run together on a block of rows, and which values have to be in memory between them.

A step that reads windows begins a group, since other tasks compute some of the rows that it reads. What reads its
rows one by one joins the group of what it reads last. A recurrence, whose rows come one after the other, is a group by
itself. A value that no other group reads is scratch: a block of it
stays in the cache of the processor that computes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tapwise.engine.kernels.program import record
from tapwise.engine.kernels.program.packing import LANES, WIDEST
from tapwise.frozen.spans import Range, Span
from tapwise.frozen.steps import Step, Steps, TorchStep

# Rows up to which a group is shared out by columns, too: each share then reads its own part of the weight.
FEW_ROWS = 128
# Columns of a share, at least.
PANEL = WIDEST * LANES
# Numbers of a weight of which a second-level cache holds little else.
_LARGE = 1 << 17
_PRODUCTS = (record.PRODUCT, record.MATRICES)


@dataclass(eq=False)
class Group:
    """Steps on the same rows.

    Arguments:
        rows: those that it computes.
        total: of which these are some.
    """

    rows: Range
    total: int
    steps: list[Any] = field(default_factory=list)

    @property
    def is_torch(self) -> bool:
        return isinstance(self.steps[0], TorchStep)

    @property
    def is_recurrent(self) -> bool:
        """Whether each row needs the one before it."""
        return not self.is_torch and self.steps[0].code in record.GATES


def grouped(steps: Steps, span: Span) -> tuple[list[Group], dict[int, int]]:
    """The groups in the order in which they run; and, by value, the group that gives it."""
    ranges, totals = span.rows, span.totals
    groups: list[Group] = []
    group_of: dict[int, int] = {}
    for step in steps.steps:
        node = step.node if isinstance(step, TorchStep) else steps.values[step.out].node
        rows = ranges[node]
        # Of a stream, what torch runs takes in new rows even where it gives none yet.
        if rows[0] == rows[1] and not (span.is_live and isinstance(step, TorchStep)):
            continue
        if isinstance(step, TorchStep):
            groups.append(Group(rows, totals[node], [step]))
        else:
            is_finish = steps.values[step.out].is_table and not steps.values[step.out].is_per_block
            number = None if is_finish else _joins(step, groups, group_of, rows, totals[node])
            if is_finish:
                rows = (0, 1)
            if number is not None:
                groups[number].steps.append(step)
                # Of a value that several steps write, the last group that does.
                group_of[step.out] = max(number, group_of.get(step.out, number))
                continue
            groups.append(Group(rows, totals[node], [step]))
        if step.out is not None:
            group_of[step.out] = len(groups) - 1  # the last so far
    return groups, group_of


def _joins(step: Step, groups: list[Group], group_of: dict[int, int], rows: Range, total: int) -> int | None:
    """The group that a step can join; None: it begins another."""
    before = [(group_of.get(ref.value, -1), ref) for ref in step.reads]
    number = max(n for n, _ in before)
    if step.window is not None or step.code in record.GATES or number < 0:
        return None
    group = groups[number]
    if group.is_torch or group.is_recurrent or group.rows != rows or group.total != total:
        return None
    if _stands_alone(step, rows):
        return None
    return number if all(ref.shift == 0 for n, ref in before if n == number) else None


def _stands_alone(step: Step, rows: Range) -> bool:
    """Whether a product of few rows is a group of its own, each task of which reads its part of a large weight."""
    if step.code not in _PRODUCTS or step.groups > 1 or step.weight is None or step.columns < 2 * PANEL:
        return False
    return rows[1] - rows[0] <= FEW_ROWS and step.weight.numel() >= _LARGE


def kept_values(steps: Steps, groups: Sequence[Group], group_of: dict[int, int], read_by_torch: set[int]) -> set[int]:
    """The values that must be in memory: those that another group reads, or that padding surrounds."""
    kept = set(read_by_torch)
    kept |= {n for n, value in enumerate(steps.values) if value.fill is not None or value.is_table}
    for number, group in enumerate(groups):
        for step in group.steps:
            if isinstance(step, TorchStep):
                continue
            kept |= {ref.value for ref in step.reads if group_of.get(ref.value, -1) != number}
            if group_of[step.out] != number:  # parts of it are written by several groups
                kept.add(step.out)
    return kept
