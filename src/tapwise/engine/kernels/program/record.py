"""The records by which a program tells its loop what to do; they need no compiler.

A program is a list of groups. A group is a list of instructions that are done, one after the other, on a block of
moments, while what they give is still in the cache; its blocks are tasks of the pool of threads.

# a sequence          row 0 | row 1 | row 2 | ...       a row: all channels of a moment, side by side
# a block             rows [first, last) of every sequence that the group writes
# an operand          (address, bytes from row to row, bytes from signal to signal of the batch, is it scratch?)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tapwise.engine.kernels.program.names import MAPS
from tapwise.engine.memory import Range
from tapwise.engine.threads import job_type

# What an instruction does, by number. Maps come after these, in the order of ``MAPS``.
PRODUCT, DEPTHWISE, FEW_OUTPUTS, TRANSPOSED, LAYER_NORM, LARGEST, MOMENTS, FINISH, NORMALISE = range(9)
IMPORT, EXPORT, ZEROS, EDGES, KEEP, FEW_TRANSPOSED, WINOGRAD, MATRICES, MATRICES_TRANSPOSED = range(9, 18)
LSTM, GRU, WINOGRAD_TRANSPOSED = range(18, 21)
MAP = 21
CODES = {name: MAP + n for n, name in enumerate(MAPS)}
AFFINE = CODES["affine"]
# Those of transposed convolutions.
TRANSPOSING = (TRANSPOSED, FEW_TRANSPOSED, WINOGRAD_TRANSPOSED, MATRICES_TRANSPOSED)
# Of recurrences, the sums of a unit.
GATES = {LSTM: 4, GRU: 3}

# Where an operand's address counts from: nowhere, a task's own memory, and two blocks of memory that a job names. From
# STATE on they are histories: of STATE + n, the n-th of ``offsets`` is added, the bytes by which its rows have moved on.
ABSOLUTE, SCRATCH, ARENA, STATE = range(4)

_OPERANDS = [(f"{name}{part}", "i8") for name in "xzy" for part in ("", "_row", "_batch", "_space")]
# ``x``, ``z``, ``y``: operands; ``third``: the address of a vector, w of a map, or of zeros at which end they stand.
# Of a recurrence ``third`` is where in scratch its sums are, ``count`` its signals, and ``groups`` its gates.
# Of products ``count`` is how many of the last columns are dot products: see ``packing.dots_of``.
# Of KEEP ``z`` is the slack: bytes by which rows may move on.
# Of Winograd's filtering ``third`` is zeros and the transformed weight, from ``z_row`` bytes on; ``z_batch``: rows at once.
# ``tap``: bytes from a tap's rows to the next tap's; of what is imported or exported, from channel to channel.
_INTEGERS = "code columns inputs taps tap stride shift groups weight bias count third"
INSTRUCTION = np.dtype([*_OPERANDS, *((name, "i8") for name in _INTEGERS.split()), ("p", "f8"), ("q", "f8")])


def _ranges(job: Any, tasks: int, bits: int) -> Iterator[Range]:
    yield Range("instructions", job.instructions, job.instructions + job.count * INSTRUCTION.itemsize)


# ``first``, ``last``: rows of the group; ``block``: rows of a task; ``blocks``: tasks of a signal of the batch, each
# of ``shares`` shares of the columns; ``scratch``: bytes of a task's own memory; ``parallel``: whether threads pay;
# ``serial``: whether a row is computed when the one before it is, by tasks that are shares of all signals together.
GroupJob = job_type(
    "GroupJob", "instructions count first last block blocks shares scratch arena state offsets parallel serial", _ranges
)


def _no_ranges(job: Any, tasks: int, bits: int) -> Iterator[Range]:
    yield Range("jobs", job.jobs, job.jobs + 8 * job.count)


# Groups that run one after the other: ``jobs`` holds the addresses of their records, ``loop`` is the address of the
# loop that runs one, ``start`` the pool's function, or 0.
SequenceJob = job_type(
    "SequenceJob", "jobs count loop start pool_next pool_end threads arena state offsets", _no_ranges
)
