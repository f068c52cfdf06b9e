"""How steps that need the row before theirs are shared out: by units, row by row, or by signals of the batch."""

from __future__ import annotations

from tapwise.engine.kernels.program import record
from tapwise.engine.kernels.program.packing import LANES
from tapwise.frozen.memory import LINE, SIZE, lines
from tapwise.frozen.steps import Step

# Products of a row from which on its units are shared out, though all threads then meet after each row.
_SHARED_PRODUCTS = 600_000
# Of a share: products of units, signals of a tile.
_LEAST_PRODUCTS, _LEAST_SIGNALS = 75_000, 6
_MOST_SHARES = 16


def products_of(step: Step) -> int:
    """Products of a row."""
    return record.GATES[step.code] * step.inputs * step.inputs


def is_serial(step: Step) -> bool:
    """Whether each row is a run of the pool: shares of the units, of all signals, so that the weight is read once."""
    return products_of(step) >= _SHARED_PRODUCTS


def shares_of(step: Step, batch: int) -> int:
    """Shares of the units, or of the signals: the same whatever the number of threads."""
    if is_serial(step):
        return min(-(-step.inputs // LANES), products_of(step) // _LEAST_PRODUCTS, _MOST_SHARES)
    return max(1, min(batch // _LEAST_SIGNALS, _MOST_SHARES))


def memory_of(step: Step, batch: int) -> int:
    """Bytes in which a share works: the sums of a block of units, of all signals."""
    return lines(batch * step.groups * LANES * SIZE) + LINE
