"""The records by which the fft kernel tells its loops what to do; they need no compiler."""

from __future__ import annotations

from tapwise.engine.kernels.inputs import INPUT_FIELDS
from tapwise.engine.threads import job_type

# A task is a filter: its taps are laid mirrored into a frame of ``size`` numbers, ``dilation`` apart.
FiltersJob = job_type("FiltersJob", "filters frames taps dilation size")

# A task is a frame of a channel: ``samples`` samples from frame number ``first_frame`` on, and zeros up
# to ``size``. What is wild (too loud, or no number) is written to ``is_wild``.
FramesJob = job_type(
    "FramesJob",
    f"""{INPUT_FIELDS} frames size step samples first_frame n_frames channels
    is_wild loudest_beside_silence is_mirrored""",
)

# A task is a frame of an output channel: of its first ``step`` numbers every ``stride``-th is an output.
OutputsJob = job_type("OutputsJob", "frames y bias step size stride first_frame n_frames outputs")
