"""How steps that need the row before theirs are shared out: by units, of all signals of the batch together."""

from __future__ import annotations

from tapwise.engine.kernels.program import record
from tapwise.engine.kernels.program.packing import LANES
from tapwise.frozen.memory import LINE, SIZE, lines
from tapwise.frozen.steps import Step

# Products of a row below which a share takes longer to start than to help.
_FEW_PRODUCTS = 60_000


def products_of(step: Step) -> int:
    """Products of a row."""
    return record.GATES[step.code] * step.inputs * step.inputs


def shares_of(step: Step, batch: int) -> int:
    """Shares of the units: the same whatever the number of threads."""
    blocks = -(-step.inputs // LANES)
    return max(1, min(blocks, products_of(step) * batch // _FEW_PRODUCTS, 16))


def memory_of(step: Step, batch: int) -> int:
    """Bytes in which a share works: the sums of a block of units, of all signals."""
    return lines(batch * step.groups * LANES * SIZE) + LINE
