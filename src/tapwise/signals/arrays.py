"""NPY files, by blocks: plain reads, since pages of a memory map stay in the process's memory."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from tapwise.errors import SignalError
from tapwise.signals.base import Array, Reader, Source, Writer

_LONGEST_HEADER = 1 << 16


class ArrayReader(Reader):
    """An array of (length,), (channels, length) or more axes, in C or Fortran order.

    Arguments:
        axis: of time; all others are channels.
    """

    rate = None

    def __init__(self, path: Path, axis: int = -1) -> None:
        self.path = path
        self.axis = axis
        self._file = path.open("rb")
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        path = self.path
        try:
            shape, fortran, dtype = _header(self._file)
        except Exception as error:  # its header is a Python literal, which NumPy evaluates
            said = str(error) if isinstance(error, ValueError | EOFError) else "its header can't be read"
            raise SignalError(f"{path}: not an NPY file: {said.partition(chr(10))[0][:200]}") from error
        if any(n < 0 for n in shape):
            raise SignalError(f"{path}: not an NPY file: its header says the shape {shape}")
        if dtype.name in ("float128", "float96", "complex256", "complex192"):
            raise SignalError(
                f"{path}: got {dtype} numbers, which are filtered in no more than 64 bits a part: "
                f"save x.astype('{'complex128' if dtype.kind == 'c' else 'float64'}')"
            )
        if dtype.kind not in "fiuc" or not shape:
            raise SignalError(
                f"{path}: got {dtype} of shape {shape}, expected numbers of shape (length,) or (channels, length)"
            )
        if fortran and len(shape) > 2:
            raise SignalError(f"{path}: Fortran order of more than two axes is not read: save np.ascontiguousarray(x)")
        if math.prod(shape) == 0:
            raise SignalError(f"{path}: the array is empty: its shape is {shape}")
        if not -len(shape) <= self.axis < len(shape):
            raise SignalError(f"{path}: there is no axis {self.axis} in the shape {shape}")
        self.axis %= len(shape)
        self.shape = shape
        self.length = shape[self.axis]
        self.channels = math.prod(shape) // self.length
        self.dtype = dtype.newbyteorder("=")
        self.quantum = 1 if dtype.kind in "iu" else 0
        self._stored = dtype
        # outer blocks of (length, inner) numbers; of (channels, length), inner is 1
        self._inner = math.prod(shape[: self.axis] if fortran else shape[self.axis + 1 :])
        self._begin = self._file.tell()
        held = (path.stat().st_size - self._begin) // dtype.itemsize
        if held < math.prod(shape):
            raise SignalError(
                f"{path}: the file is cut short: its header promises {math.prod(shape)} values, it holds {held}"
            )

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    @property
    def has_rows(self) -> bool:
        """Whether a channel's samples lie together."""
        return self._inner == 1

    def read(self, start: int, stop: int) -> Array:
        """The samples [start, stop) of every channel: (channels, stop - start)."""
        return self.read_channels(start, stop, range(self.channels))

    def read_channels(self, start: int, stop: int, channels: range) -> Array:
        """The samples [start, stop) of some channels: (channels, stop - start)."""
        count = stop - start
        if self._inner > 1:
            size, outer = self._inner, self.channels // self._inner
            frames = [self._values((n * self.length + start) * size, count * size) for n in range(outer)]
            rows = [part.reshape(count, size).T.astype(self.dtype, order="C") for part in frames]
            return np.concatenate(rows)[channels.start : channels.stop]
        if count == self.length:
            samples = self._values(channels.start * count, len(channels) * count)
            return samples.reshape(len(channels), count).astype(self.dtype, copy=False)
        block = np.empty((len(channels), count), self.dtype)
        for row, channel in zip(block, channels, strict=True):
            row[:] = self._values(channel * self.length + start, count)
        return block

    def _values(self, start: int, count: int) -> Array:
        self._file.seek(self._begin + start * self._stored.itemsize)
        return np.fromfile(self._file, self._stored, count)


# How many times as long as time no other axis may be.
_MOST_TIMES = 4


def refuse_far_shorter(reader: Reader, shape: tuple[int, ...]) -> None:
    """Close and refuse an array with an axis far longer than that of time: the two may be the other way round.

    Raises:
        SignalError: with both readings.
    """
    longest = int(np.argmax(shape))
    if shape[longest] >= _MOST_TIMES * reader.length:
        reader.close()
        other = reader.channels * reader.length // shape[longest]
        raise SignalError(
            f"{reader.path}: the shape {shape} is (channels, length) with {reader.length:,} samples of "
            f"{reader.channels:,} channels, or (length, channels) with {shape[longest]:,} samples of {other:,}: "
            f"--axis -1 says the first, --axis {longest} the second"
        )


def _header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(file)
    start, width = file.tell(), 2 if version == (1, 0) else 4
    size = int.from_bytes(file.read(width), "little")
    if size > _LONGEST_HEADER:  # NumPy would ask for the memory first
        raise ValueError(f"its header has {size} bytes, where {_LONGEST_HEADER} are enough for any array")
    file.seek(start)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(file)
    return shape, fortran, dtype


class ArrayWriter(Writer):
    """Writes the source's leading axes and ``length`` samples, each channel's block to its place."""

    def __init__(self, path: Path, source: Source, length: int, channels: int, dtype: np.dtype[Any]) -> None:
        super().__init__(path)
        before: tuple[int, ...] = () if channels == 1 else (channels,)
        after: tuple[int, ...] = ()
        if isinstance(source, ArrayReader) and channels == source.channels:
            before, after = source.shape[: source.axis], source.shape[source.axis + 1 :]
        elif isinstance(source, ArrayReader) and len(source.shape) == 2 and source.axis == 0:
            before, after = (), (channels,)
        shape = (*before, length, *after)
        header = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(self.output.file, header)
        self._begin, self._inner = self.output.file.tell(), math.prod(after)  # as the reader's
        self._length, self._done, self._dtype = length, 0, dtype

    @property
    def has_rows(self) -> bool:
        """Whether a channel's samples lie together."""
        return self._inner == 1

    def write(self, block: Array, start: int | None = None, first: int = 0) -> None:
        """Append (channels, n) samples; or write them from sample ``start`` and channel ``first`` on."""
        start = self._done if start is None else start
        block = np.ascontiguousarray(block, self._dtype)
        if self._inner > 1:
            parts = block.reshape(-1, self._inner, block.shape[1])
            for n, part in enumerate(parts):
                self._write_at((n * self._length + start) * self._inner, np.ascontiguousarray(part.T))
        elif block.shape[1] == self._length:
            self._write_at(first * self._length, block)
        else:
            for channel, row in enumerate(block, first):
                self._write_at(channel * self._length + start, row)
        self._done = start + block.shape[1]

    def _write_at(self, place: int, values: Array) -> None:
        self.output.file.seek(self._begin + place * self._dtype.itemsize)
        self.output.file.write(values.data)
