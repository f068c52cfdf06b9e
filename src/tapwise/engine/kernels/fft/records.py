"""The records by which the fft kernel tells its loops what to do; they need no compiler."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tapwise.engine.kernels.inputs import INPUT_FIELDS
from tapwise.engine.memory import Range, input_range, sources_range
from tapwise.engine.threads import job_type


def _ranges_of_filters(job: Any, tasks: int, bits: int, frame_bits: int) -> Iterator[Range]:
    yield Range("filters", job.filters, job.filters + tasks * job.taps * bits // 8)
    yield Range("frames", job.frames, job.frames + tasks * job.size * frame_bits // 8)


def _ranges_of_frames(job: Any, tasks: int, bits: int, frame_bits: int) -> Iterator[Range]:
    yield input_range(job, 1, job.channels, bits // 8)
    yield sources_range(job)
    yield Range("frames", job.frames, job.frames + tasks * job.size * frame_bits // 8)
    yield Range("is_wild", job.is_wild, job.is_wild + tasks)


def _ranges_of_outputs(job: Any, tasks: int, bits: int, frame_bits: int) -> Iterator[Range]:
    channels = tasks // job.n_frames
    yield Range("frames", job.frames, job.frames + tasks * job.size * frame_bits // 8)
    yield Range("y", job.y, job.y + channels * job.outputs * bits // 8)
    if job.bias:
        yield Range("bias", job.bias, job.bias + channels * bits // 8)


# A task is a filter: its taps are laid mirrored into a frame of ``size`` numbers, ``dilation`` apart.
FiltersJob = job_type("FiltersJob", "filters frames taps dilation size", _ranges_of_filters)

# A task is a frame of a channel: ``samples`` samples from frame number ``first_frame`` on, and zeros up
# to ``size``. What is wild (too loud, or no number) is written to ``is_wild``.
FramesJob = job_type(
    "FramesJob",
    f"""{INPUT_FIELDS} frames size step samples first_frame n_frames channels
    is_wild loudest_beside_silence is_mirrored""",
    _ranges_of_frames,
)

# A task is a frame of an output channel: of its first ``step`` numbers every ``stride``-th is an output.
OutputsJob = job_type("OutputsJob", "frames y bias step size stride first_frame n_frames outputs", _ranges_of_outputs)
