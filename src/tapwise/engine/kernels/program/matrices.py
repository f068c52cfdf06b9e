"""Products by the processor's matrices as instructions: rows are rounded to bfloat16 in a task's own memory, then summed.

# memory    the rows that a block reads, in bfloat16, filled up to full matrices | the sums of a step, where it isn't full
"""

from __future__ import annotations

from tapwise.engine.compiled import has_matrices
from tapwise.engine.kernels.amx import layout
from tapwise.engine.kernels.amx.matrices import configure, release_matrices, round_to_bfloat16
from tapwise.engine.kernels.amx.sums import sums_of_step
from tapwise.engine.kernels.loops.jobs import jit
from tapwise.engine.kernels.loops.memory import copy
from tapwise.engine.kernels.loops.spans import span_of
from tapwise.engine.kernels.program.maps import map_of

_chunks, _row, _panel_bytes = jit(layout.chunks_of), jit(layout.input_row), jit(layout.panel_bytes)
_panels, _span = jit(layout.panels_of), jit(span_of)
_copy = map_of("copy")


@jit
def _rounded(x, x_row, rows, inputs, y, y_row):
    """Rows in bfloat16, filled up with zeros."""
    columns = _chunks(inputs) * layout.CHANNELS
    for r in range(rows):
        for c in range(0, columns, layout.SUMS):
            round_to_bfloat16(x + r * x_row + 4 * c, y + r * y_row + 2 * c, inputs - c)


@jit
def _product(x, x_row, taps, tap, chunks, weight, bias, y, y_row, columns, count, sums):
    """``count`` rows and ``columns`` columns, panel by panel."""
    for c in range(0, columns, layout.PANEL):
        for r in range(0, count, layout.STEP):
            own_columns, own_rows = min(columns - c, layout.PANEL), min(count - r, layout.STEP)
            place = y + r * y_row + 4 * c
            if own_columns % layout.SUMS == 0 and own_rows % layout.ROWS == 0:
                sums_of_step(x + r * x_row, x_row, taps, tap, chunks, weight, bias, place, y_row, own_columns, own_rows)
                continue
            sums_of_step(
                x + r * x_row, x_row, taps, tap, chunks, weight, bias, sums, layout.SUMS_ROW, own_columns, own_rows
            )
            for n in range(own_rows):
                copy(place + n * y_row, sums + n * layout.SUMS_ROW, 4 * own_columns)
        weight += _panel_bytes(taps, chunks)
        bias += 4 * layout.PANEL


@jit
def _by_matrices(i, x, y, count, c0, c1, memory):
    row, chunks = _row(i.inputs), _chunks(i.inputs)
    dilation = i.tap // i.x_row
    rows = (count - 1) * i.stride + 1
    span, tap = _span(count, i.taps, dilation, i.stride), dilation * row
    if span > 0:  # of a few rows far apart, those between them are not read
        rows, tap = i.taps * span, span * row
        for k in range(i.taps):
            _rounded(x + k * i.tap, i.x_row, span, i.inputs, memory + k * tap, row)
    else:
        rows += (i.taps - 1) * dilation
        _rounded(x, i.x_row, rows, i.inputs, memory, row)
    configure()
    _product(
        memory, i.stride * row, i.taps, tap, chunks, i.weight + c0 // layout.PANEL * _panel_bytes(i.taps, chunks),
        i.bias + 4 * c0, y + 4 * c0, i.y_row, c1 - c0, count, memory + (rows + layout.STEP * i.stride) * row,
    )  # fmt: skip
    release_matrices()


@jit
def _transposed_by_matrices(i, x, y, r0, r1, c0, c1, memory, item):
    row, chunks = _row(i.inputs), _chunks(i.inputs)
    most = (i.taps + i.stride - 1) // i.stride
    low, high = (r0 + i.shift) // i.stride + 1, (r1 - 1 + i.shift) // i.stride + 1
    for phase in range(i.stride):  # the first row that one reads
        taps = max(0, i.taps - phase + i.stride - 1) // i.stride
        first = r0 + (phase - (r0 + i.shift)) % i.stride
        if first < r1 and taps > 0:
            low = min(low, (first + i.shift) // i.stride - taps + 1)
    _rounded(x + low * i.x_row, i.x_row, high - low, i.inputs, memory, row)
    sums = memory + (high - low + most + layout.STEP) * row
    weight = i.weight
    configure()
    for phase in range(i.stride):
        taps = max(0, i.taps - phase + i.stride - 1) // i.stride
        first = r0 + (phase - (r0 + i.shift)) % i.stride
        count = (r1 - first + i.stride - 1) // i.stride
        if count > 0:
            place, step = y + (first - r0) * i.y_row + 4 * c0, i.y_row * i.stride
            if taps < 1:  # the stride leaves gaps, which no input reaches
                _copy(i.bias + 4 * c0, 0, 0, 0, 0, place, step, c1 - c0, count, 0.0, 0.0, item)
            else:
                start = (first + i.shift) // i.stride - taps + 1 - low
                panels = weight + c0 // layout.PANEL * _panel_bytes(taps, chunks)
                _product(
                    memory + start * row,
                    row,
                    taps,
                    row,
                    chunks,
                    panels,
                    i.bias + 4 * c0,
                    place,
                    step,
                    c1 - c0,
                    count,
                    sums,
                )
        weight += _panels(i.columns) * _panel_bytes(taps, chunks)
    release_matrices()


@jit
def _no_product(i, x, y, count, c0, c1, memory):
    pass


@jit
def _no_transposed(i, x, y, r0, r1, c0, c1, memory, item):
    pass


# Without matrices no program has such instructions, and no compiler could make code of them.
by_matrices = _by_matrices if has_matrices() else _no_product
transposed_by_matrices = _transposed_by_matrices if has_matrices() else _no_transposed
