"""The records by which the winograd kernel tells its loops what to do; they need no compiler."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tapwise.engine.kernels.inputs import INPUT_FIELDS
from tapwise.engine.kernels.winograd import layout
from tapwise.engine.memory import Range, input_range
from tapwise.engine.threads import job_type


def _transformed(job: Any) -> int:
    """Numbers of a job's transformed weight."""
    inputs, taps = layout.unstrided(job.fan_in, job.taps, job.stride)
    return layout.numbers_of(inputs, job.fan_out, taps)


def _weight_ranges(job: Any, tasks: int, bits: int) -> Iterator[Range]:
    yield Range("weight", job.weight, job.weight + job.fan_in * job.fan_out * job.taps * bits // 8)
    yield Range("transformed", job.transformed, job.transformed + _transformed(job) * bits // 8)


# A task is a panel of output channels and a share of the inputs: of a stride, the channels of all its rows.
WeightsJob = job_type("WeightsJob", "weight transformed fan_in fan_out taps stride zeros share shares", _weight_ranges)


def _ranges(job: Any, tasks: int, bits: int) -> Iterator[Range]:
    size = bits // 8
    yield input_range(job, job.batch, job.fan_in, size)
    yield Range("transformed", job.transformed, job.transformed + _transformed(job) * size)
    yield Range("bias", job.bias, job.bias + job.fan_out * size)
    yield Range("y", job.y, job.y + job.batch * job.fan_out * job.outputs * size)
    yield Range("checks", job.checks, job.checks + 8 * tasks)


# A task is a block of outputs of a row. ``checks``: by task, 0, or NaN where outputs aren't finite; ``memory``: bytes that a block's
# filtering needs; ``rows``: of inputs that it reads; ``zeros``: numbers before the transformed weight; ``x_rows`` and ``y_rows``: bytes from row to row of a block's inputs and outputs.
FilteringJob = job_type(
    "FilteringJob",
    f"{INPUT_FIELDS} transformed zeros bias y checks batch fan_in fan_out taps dilation outputs block blocks memory rows x_rows y_rows",
    _ranges,
)
