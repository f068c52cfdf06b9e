"""The records by which the implicit_gemm kernel tells its loops what to do; they need no compiler."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tapwise.engine.kernels.inputs import INPUT_FIELDS
from tapwise.engine.kernels.program.packing import padded
from tapwise.engine.memory import Range, input_range, sources_range
from tapwise.engine.threads import job_type


def _table_range(job: Any) -> Range:
    return Range("table", job.table, job.table + 8 * (2 * job.phases + job.taps))


def _packed_range(job: Any, size: int) -> Range:
    numbers = job.groups * job.taps * job.fan_in * padded(job.fan_out)
    return Range("packed", job.packed, job.packed + numbers * size)


def _weight_ranges(job: Any, tasks: int, bits: int) -> Iterator[Range]:
    size = bits // 8
    yield Range("weight", job.weight, job.weight + job.groups * job.taps * job.fan_in * job.fan_out * size)
    yield _packed_range(job, size)
    yield _table_range(job)


# A task is some channels of a panel of a group. ``table``: counts, firsts and taps of ``layout.Phases``.
PackingJob = job_type(
    "PackingJob", "weight packed table phases transposed groups fan_in fan_out taps panels share shares", _weight_ranges
)


def _ranges(job: Any, tasks: int, bits: int) -> Iterator[Range]:
    size = bits // 8
    yield input_range(job, job.batch, job.groups * job.fan_in, size)
    yield sources_range(job)
    yield _packed_range(job, size)
    yield _table_range(job)
    yield Range("bias", job.bias, job.bias + job.groups * padded(job.fan_out) * size)
    yield Range("y", job.y, job.y + job.batch * job.groups * job.fan_out * job.outputs * size)


# A task is a block of a group of a row. ``rows``: of inputs that a block reads, ``row`` bytes apart; ``first``: the
# position of block 0's first, ``advance`` from one row of sums to the next; ``lowest``: the least of the phases' firsts;
# ``start``: the output that row 0 is, below 0 where it is cut off; ``count``: rows of each phase, in all blocks; ``reach``:
# positions from a row's first to its last; ``span``: see ``loops.spans``.
ProductJob = job_type(
    "ProductJob",
    f"""{INPUT_FIELDS} packed table phases bias y batch groups fan_in fan_out taps dilation outputs
    block blocks count rows row reach span first advance lowest start""",
    _ranges,
)


def _gradient_ranges(job: Any, tasks: int, bits: int) -> Iterator[Range]:
    size = bits // 8
    channels = job.groups * job.fan_out
    yield input_range(job, job.batch, job.groups * job.fan_in, size)
    yield sources_range(job)
    yield Range("grad", job.grad, job.grad + job.batch * channels * job.outputs * size)
    yield Range("result", job.result, job.result + channels * job.fan_in * job.taps * size)


# A task is ``share`` output channels and a panel of input channels of a group. ``summed``: outputs at a time; ``rows``:
# of inputs that they read.
GradientJob = job_type(
    "GradientJob",
    f"{INPUT_FIELDS} grad result batch groups fan_in fan_out taps dilation outputs summed rows reach span panels share shares",
    _gradient_ranges,
)
