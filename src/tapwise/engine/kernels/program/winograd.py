"""Winograd's filtering as an instruction: chunks with outputs that aren't finite are computed anew by products."""

from __future__ import annotations

from tapwise.engine.kernels.loops.jobs import jit
from tapwise.engine.kernels.loops.memory import load
from tapwise.engine.kernels.program.products import grouped_product
from tapwise.engine.kernels.winograd.filtering import Filter, filtered
from tapwise.engine.kernels.winograd.layout import OUTPUTS


@jit
def winograd(i, x, y, r0, r1, last, memory, item):
    """Rows [r0, r1) of a product whose rows end at ``last``.

    ``third``: zeros, and from ``shift`` bytes on the transformed weight; ``weight``: the weight for products.
    """
    f = Filter(i.third, i.third + i.shift, i.bias, i.x_row, i.y_row, i.tap, i.taps, i.inputs, i.columns)
    checks = filtered(f, x, y, r0, r1, last, memory, item)
    chunk = OUTPUTS * (i.tap // i.x_row)
    for n in range((r1 - r0 + chunk - 1) // chunk):
        if load(checks + 8 * n, 0.0) != 0.0:
            row = n * chunk
            count = min(chunk, r1 - r0 - row)
            grouped_product(i, x + row * i.x_row, y + row * i.y_row, count, 0, i.columns, item)
