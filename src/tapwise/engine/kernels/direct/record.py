"""The record by which the direct kernel tells its loops what to do; it needs no compiler."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tapwise.engine.kernels.inputs import INPUT_FIELDS
from tapwise.engine.memory import Range, input_range, sources_range
from tapwise.engine.threads import job_type

# Longer sums are split into sums of this number of products, so that rounding doesn't grow with the taps.
PRODUCTS_A_SUM = 256
# Rows of at most this number of outputs are one block, where their windows reach beyond the signal.
SHORT = 1024


def _ranges(job: Any, tasks: int, bits: int) -> Iterator[Range]:
    size, channels = bits // 8, job.groups * job.fan_out
    weights = channels * job.fan_in * job.taps
    yield input_range(job, job.batch, job.groups * job.fan_in, size)
    yield sources_range(job)
    if not job.totals:
        yield Range("weight", job.weight, job.weight + weights * size)
    if job.bias:
        yield Range("bias", job.bias, job.bias + channels * size)
    yield Range("y", job.y, job.y + job.batch * channels * job.outputs * size)
    if job.totals:
        pieces = -(-job.batch // job.rows) * job.spans
        yield Range("totals", job.totals, job.totals + 8 * pieces * weights)


# Outputs are written to ``y``; or, where ``totals`` is an address, they are read there as gradients, and
# their correlation with the inputs is added to ``totals``, piece by piece.
DirectJob = job_type(
    "DirectJob",
    f"""{INPUT_FIELDS} weight bias y totals
    batch groups fan_in fan_out taps dilation outputs
    gathers ends_in_place block span spans rows share shares""",
    _ranges,
)
