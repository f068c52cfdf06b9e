"""The record by which the direct kernel tells its loops what to do; it needs no compiler."""

from __future__ import annotations

from tapwise.engine.kernels.inputs import INPUT_FIELDS
from tapwise.engine.threads import job_type

# Longer sums are split into sums of this number of products, so that rounding doesn't grow with the taps.
PRODUCTS_A_SUM = 256
# Rows of at most this number of outputs are one block, where their windows reach beyond the signal.
SHORT = 1024

# Outputs are written to ``y``; or, where ``totals`` is an address, they are read there as gradients, and
# their correlation with the inputs is added to ``totals``, piece by piece.
DirectJob = job_type(
    "DirectJob",
    f"""{INPUT_FIELDS} weight bias y totals
    batch groups fan_in fan_out taps dilation outputs
    gathers ends_in_place block span spans rows share shares""",
)
