"""Samples as bytes in a pipe: raw, or a WAV whose header comes first and tells no length."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

import numpy as np

from tapwise.errors import SignalError
from tapwise.signals import riff
from tapwise.signals.base import Array, Source


class Encoding(NamedTuple):
    """How a sample is held.

    Arguments:
        width: bytes of a sample.
        dtype: as which it is read.
        quantum: the step between two values, read so; 0 for floats.
        code: of a WAV's format: 1 integers, 3 floats.
    """

    width: int
    dtype: str
    quantum: int
    code: int = 1


# By libsndfile's name.
ENCODINGS = {
    "PCM_U8": Encoding(1, "int16", 256),
    "PCM_16": Encoding(2, "int16", 1),
    "PCM_24": Encoding(3, "int32", 256),
    "PCM_32": Encoding(4, "int32", 1),
    "FLOAT": Encoding(4, "float32", 0, 3),
    "DOUBLE": Encoding(8, "float64", 0, 3),
}
# How samples of a dtype are written where no file says it.
SUBTYPES = {"int16": "PCM_16", "int32": "PCM_32", "uint8": "PCM_U8", "float32": "FLOAT", "float64": "DOUBLE"}
FULL_SCALES = {"int16": 2.0**15, "int32": 2.0**31}
# Raw samples by the names that programs give them.
RAW = {"s16": "PCM_16", "f32": "FLOAT"}
# The size that stands for a length which isn't there yet.
_NO_SIZE = 0xFFFFFFFF


def decoded(data: bytes, subtype: str, channels: int) -> Array:
    """Bytes as samples: (n, channels)."""
    if subtype == "PCM_U8":
        values = (np.frombuffer(data, np.uint8).astype(np.int16) - 128) * np.int16(256)
    elif subtype == "PCM_24":  # the upper three bytes of four
        values = np.pad(np.frombuffer(data, np.uint8).reshape(-1, 3), ((0, 0), (1, 0))).reshape(-1).view("<i4")
    else:
        values = np.frombuffer(data, np.dtype(ENCODINGS[subtype].dtype).newbyteorder("<"))
    return values.astype(ENCODINGS[subtype].dtype).reshape(-1, channels)


def encoded(samples: Array, subtype: str) -> bytes:
    """Samples, (n, channels), of the encoding's dtype, as bytes.

    Example:
        >>> decoded(encoded(np.array([[-256, 512]], np.int32), "PCM_24"), "PCM_24", 2).tolist()
        [[-256, 512]]
    """
    encoding = ENCODINGS[subtype]
    values = np.ascontiguousarray(samples, np.dtype(encoding.dtype).newbyteorder("<"))
    if subtype == "PCM_U8":
        return (values // 256 + 128).astype(np.uint8).tobytes()
    if subtype == "PCM_24":
        return values.reshape(-1).view(np.uint8).reshape(-1, 4)[:, 1:].tobytes()
    return values.tobytes()


def wav_header(rate: int, channels: int, subtype: str) -> bytes:
    """The first bytes of a WAV of any length."""
    encoding = ENCODINGS[subtype]
    width = encoding.width * channels
    numbers = ((encoding.code, 2), (channels, 2), (rate, 4), (rate * width, 4), (width, 2), (8 * encoding.width, 2))
    form = b"".join(number.to_bytes(size, "little") for number, size in numbers)
    size = _NO_SIZE.to_bytes(4, "little")
    return b"RIFF" + size + b"WAVEfmt " + len(form).to_bytes(4, "little") + form + b"data" + size


class PipeSource(Source):
    """Raw samples, or a WAV, from standard input or another file that can't be sought in.

    Arguments:
        channels: as a WAV says it, as its rate; of raw samples 0 and None, to be set.
        form: of raw samples: a name of ``RAW``.
        is_wav: after ``open``, whether there is a header.
        left_over: bytes at the end that are no sample of every channel.
    """

    path = Path("standard input")

    def __init__(self, file: BinaryIO, form: str) -> None:
        self._file, self._first = file, _read(file, 12)
        self._size: int | None = None  # bytes of samples, where a header says it
        self.subtype, self.rate, self.channels, self.left_over = RAW[form], None, 0, 0
        self.is_wav = self._first[:4] in (b"RIFF", b"RF64") and self._first[8:] == b"WAVE"
        if self._first[:4] in (b"fLaC", b"OggS", b"FORM"):
            raise SignalError(
                "standard input is a FLAC, Ogg or AIFF file: a WAV or raw samples are expected, as "
                "`sox in.flac -t wav -` and `sox in.flac -t raw -e signed -b 16 -c 1 -r 16000 -` write them"
            )
        if self.is_wav:
            self._read_header()
        encoding = ENCODINGS[self.subtype]
        self.dtype, self.quantum = np.dtype(encoding.dtype), encoding.quantum
        self.full_scale = FULL_SCALES.get(encoding.dtype, 1.0)

    def _read_header(self) -> None:
        """Read up to the first sample."""
        self._first, large = b"", 0
        while len(head := _read(self._file, 8)) == 8:
            size = int.from_bytes(head[4:], "little")
            if head[:4] == b"data":
                if not self.channels:
                    break
                self._size = large or (None if size == 0 or riff.is_unknown(size) else size)
                return
            content = _read(self._file, size + size % 2)
            if len(content) < size:
                break
            if head[:4] == b"ds64":  # of an RF64, the true size of its samples
                large = int.from_bytes(content[8:16], "little")
            if head[:4] == b"fmt ":
                self._take_format(content)
        raise SignalError("standard input: the WAV's header ends before its samples")

    def _take_format(self, content: bytes) -> None:
        code, self.channels, rate = (int.from_bytes(content[a:b], "little") for a, b in ((0, 2), (2, 4), (4, 8)))
        bits = int.from_bytes(content[14:16], "little")
        if code == 0xFFFE:  # extensible: the format is in the first bytes of its name
            code = int.from_bytes(content[24:26], "little")
        found = [name for name, e in ENCODINGS.items() if (e.code, 8 * e.width) == (code, bits)]
        if not found or not self.channels or not rate:
            raise SignalError(
                f"standard input: a WAV of {bits} bits and format {code} is not read: convert it to 16-bit samples"
            )
        self.subtype, self.rate = found[0], float(rate)

    def blocks(self, size: int) -> Iterator[Array]:
        """The samples in order, ``size`` at a time and the rest at last: (channels, n).

        Raises:
            SignalError: fewer samples than a WAV's header promises.
        """
        width, done = ENCODINGS[self.subtype].width * self.channels, 0
        while self._size is None or done < self._size:
            wanted = size * width if self._size is None else min(size * width, self._size - done)
            data = self._first + _read(self._file, wanted - len(self._first[:wanted]))
            self._first, data = data[wanted:], data[:wanted]
            done += len(data)
            self.left_over = len(data) % width
            if len(data) >= width:
                yield decoded(data[: len(data) - self.left_over], self.subtype, self.channels).T
            if len(data) < wanted:
                break
        if self._size is not None and done < self._size:
            raise SignalError(
                f"standard input ends at {self.place(done // width)}: its header promises {self._size // width} samples"
            )


class PipeWriter:
    """Samples to standard output, at once: raw, or after a WAV's header.

    Arguments:
        rate: for a header; None: raw samples.
    """

    notes: tuple[str, ...] = ()

    def __init__(self, file: BinaryIO, subtype: str, channels: int, rate: int | None) -> None:
        self._file, self._subtype = file, subtype
        if rate is not None:
            file.write(wav_header(rate, channels, subtype))

    def write(self, block: Array) -> None:
        """Write (channels, n) samples, and hand them on."""
        self._file.write(encoded(block.T, self._subtype))
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.flush()


def _read(file: BinaryIO, count: int) -> bytes:
    """``count`` bytes, fewer only at the end, even from a pipe."""
    parts = []
    while count > 0 and (data := file.read(count)):
        parts.append(data)
        count -= len(data)
    return b"".join(parts)
