"""The records by which the amx kernel tells its loops what to do; they need no compiler."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tapwise.engine.kernels.amx import layout
from tapwise.engine.kernels.inputs import INPUT_FIELDS
from tapwise.engine.memory import Range, input_range
from tapwise.engine.threads import job_type


def _packed_range(job: Any) -> Range:
    return Range("packed", job.packed, job.packed + layout.packed_bytes(job.fan_in, job.fan_out, job.taps))


def _weight_ranges(job: Any, tasks: int, bits: int) -> Iterator[Range]:
    yield Range("weight", job.weight, job.weight + job.fan_in * job.fan_out * job.taps * job.weight_bytes)
    yield _packed_range(job)


# A task is a tap of a panel of output channels. ``weight_bytes``: of a number, 4 or 2.
PackingJob = job_type("PackingJob", "weight packed fan_in fan_out taps weight_bytes", _weight_ranges)


def _ranges(job: Any, tasks: int, bits: int) -> Iterator[Range]:
    yield input_range(job, job.batch, job.fan_in, job.x_bytes)
    yield _packed_range(job)
    yield Range("bias", job.bias, job.bias + 4 * layout.panels_of(job.fan_out) * layout.PANEL)
    yield Range("y", job.y, job.y + job.batch * job.fan_out * job.outputs * job.y_bytes)


# A task is a block of outputs of a row. ``x_bytes`` and ``y_bytes``: of a number, 4 or 2; ``rows``: of inputs that a
# block reads; ``row``: bytes from one to the next; ``span``: rows from one tap's to the next's, or 0: see ``layout``.
ProductJob = job_type(
    "ProductJob",
    f"{INPUT_FIELDS} x_bytes packed bias y y_bytes batch fan_in fan_out taps dilation outputs block blocks span rows row",
    _ranges,
)
