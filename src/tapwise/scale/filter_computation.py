"""A filter of ``tapwise apply`` as a computation."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from fractions import Fraction

from tapwise import partition
from tapwise.engine.kernels import KERNELS
from tapwise.engine.plan import choose_kernel
from tapwise.engine.preparing import prepare
from tapwise.scale.computation import Computation
from tapwise.scale.layout import Moments
from tapwise.signals.base import Array, Reader
from tapwise.signals.filtering import Filter
from tapwise.signals.samples import Losses


class FilterComputation(Computation):
    """A filter over every channel, or over all of them together; outputs are stored as the samples are."""

    def __init__(self, filter: Filter, reader: Reader, words: str) -> None:
        self.filter, self.words, self.dtype = filter, words, reader.dtype
        self.channels_in = 1 if filter.is_alike else reader.channels
        self.channels_out = 1 if filter.is_alike else filter.channels
        self.moments = Moments(Fraction(filter.geometry.stride), partition.first_row_of(filter.geometry))

    @property
    def digest(self) -> str:
        """Of the taps and settings."""
        f = self.filter
        settings = f"{f.geometry} {f.nan} {f.is_shortened} {f.dtype} {self.dtype}"
        return hashlib.sha256(settings.encode() + f.weight.numpy().tobytes()).hexdigest()

    def output_length(self, length: int) -> int:
        """Outputs for a recording of ``length`` samples."""
        return self.filter.geometry.output_length(length)

    def samples(self, start: int, stop: int, length: int) -> tuple[int, int]:
        """The samples [first, last) that outputs need; padding may copy others besides."""
        return partition.part(self.filter.geometry, start, stop, length).inputs

    def prepare(self, n_rows: int, n_outputs: int, length: int) -> None:
        """Compile the loops of the filter's kernel."""
        first, last = self.samples(0, n_outputs, length)
        block = replace(self.filter.problem, length=last - first, device="cpu")
        prepare(KERNELS[choose_kernel(block)].compiled_loops(block))

    def needed_bytes(self, n_rows: int, start: int, stop: int, length: int) -> int:
        """Of the samples as they are read and as they are filtered, and of the outputs before they are stored."""
        first, last = self.samples(start, stop, length)
        itemsize = self.filter.dtype.itemsize
        read = (last - first) * self.channels_in * (self.dtype.itemsize + 2 * itemsize)
        return n_rows * (read + (stop - start) * self.channels_out * 2 * itemsize)

    def outputs(self, reader: Reader, rows: range, start: int, stop: int, losses: Losses) -> Array:
        """The outputs of some rows."""
        channels = rows if self.filter.is_alike else None
        return self.filter.outputs(reader, channels, start, stop, losses)
