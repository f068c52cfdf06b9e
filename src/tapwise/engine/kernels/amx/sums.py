"""Sums of a panel, for the rows of one step: by as many matrices as count."""

from __future__ import annotations

from tapwise.engine.kernels.amx.layout import ROWS, SUMS
from tapwise.engine.kernels.amx.matrices import make_step
from tapwise.engine.kernels.loops.jobs import jit

_step_11, _step_12, _step_21, _step_22 = (make_step(tiles, columns) for tiles in (1, 2) for columns in (1, 2))


@jit
def sums_of_step(x, x_row, taps, tap, chunks, weight, bias, y, y_row, columns, count):
    """Up to 32 rows and columns, of which so many count; full matrices are written: see ``make_step``."""
    if count > ROWS:
        if columns > SUMS:
            _step_22(x, x_row, taps, tap, chunks, weight, bias, y, y_row)
        else:
            _step_21(x, x_row, taps, tap, chunks, weight, bias, y, y_row)
    elif columns > SUMS:
        _step_12(x, x_row, taps, tap, chunks, weight, bias, y, y_row)
    else:
        _step_11(x, x_row, taps, tap, chunks, weight, bias, y, y_row)
