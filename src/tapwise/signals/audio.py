"""WAV and FLAC by blocks, through soundfile. Integer samples stay integers: no rescaling on the way.

soundfile is given descriptors, never Python files: exceptions in its callbacks, a full disk's or an interrupt's,
are lost. What was written is opened again before the file gets its name.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np

from tapwise.errors import SignalError
from tapwise.extras import need
from tapwise.interrupts import deferred
from tapwise.signals import pcm, riff
from tapwise.signals.base import Array, Reader, Source, Writer

soundfile: Any = need("soundfile")

# How samples are read: those of a WAV, and FLAC's 8 bits with a sign.
_READABLE = {"PCM_S8": pcm.Encoding(1, "int16", 256), **pcm.ENCODINGS}
# What soundfile calls the format of a suffix.
_FORMATS = {".wav": "WAV", ".flac": "FLAC"}
# A WAV's sizes are 32-bit numbers; beyond them RF64 is written, which is a WAV with 64-bit ones.
_LARGEST_WAV = 2**32 - 2**16


# What libsndfile calls a length that the header doesn't give.
_NO_LENGTH = 2**62


class _Sequential(soundfile.SoundFile):  # type: ignore[misc]
    """A file of unknown length: after a read soundfile would seek to where nothing is."""

    def seekable(self) -> bool:
        return False


class _Samples:
    """The samples of a WAV whose header says that there are none, read as soundfile reads others."""

    def __init__(self, path: Path, start: int, header: Any) -> None:
        if header.subtype not in pcm.ENCODINGS:
            raise SignalError(f"{path}: the header gives no length, and {header.subtype_info} samples don't show it")
        self.channels, self.samplerate, self.subtype = header.channels, header.samplerate, header.subtype
        self.subtype_info, self.format, self._start = header.subtype_info, header.format, start
        self._width = pcm.ENCODINGS[self.subtype].width * self.channels
        self.frames = (path.stat().st_size - start) // self._width
        self._file, self._at = path.open("rb"), 0

    def tell(self) -> int:
        return self._at

    def seek(self, frame: int) -> None:
        self._at = frame

    def read(self, count: int, dtype: str, always_2d: bool = True) -> Array:
        """The next samples: (count, channels)."""
        self._file.seek(self._start + self._at * self._width)
        data = self._file.read(min(count, self.frames - self._at) * self._width)
        self._at += len(data) // self._width
        return pcm.decoded(data, self.subtype, self.channels)

    def close(self) -> None:
        self._file.close()


class AudioReader(Reader):
    """A WAV (RF64 too) or FLAC file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            parts = riff.chunks_of(path)
            self._file = soundfile.SoundFile(path)
            self.metadata = self._file.copy_metadata()
            if riff.has_no_length(path, parts):
                self._open_samples(parts)
        except (soundfile.SoundFileError, TypeError, RuntimeError) as error:
            raise SignalError(f"{path}: not a sound file that can be read: {error}") from error
        self.channels, self.length = self._file.channels, self._file.frames
        self.rate: float | None = float(self._file.samplerate)
        self.not_kept = riff.not_kept(path, parts)
        for name, text in list(self.metadata.items()):
            if "\ufffd" in text:  # not in UTF-8: libsndfile would write what it couldn't read
                del self.metadata[name]
                self.not_kept = (*self.not_kept, f"the {name}, which is not in UTF-8")
        data = riff.data_of(parts)
        has_length = data is None or not (riff.has_no_length(path, parts) or self._is_piped(data))
        if self.length > _NO_LENGTH:
            self._count()
            has_length = False
        if not has_length:
            self.notes = (
                "the header gives no length, as a program that writes to a pipe leaves it: "
                f"{self.length:,} samples are there",
            )
        self._promised = self._promised_by(data) if has_length else 0
        self.subtype = self._file.subtype
        self.format = self._file.format
        encoding = _READABLE.get(self.subtype, pcm.ENCODINGS["FLOAT"])
        self.quantum, self.full_scale = encoding.quantum, pcm.FULL_SCALES.get(encoding.dtype, 1.0)
        self.dtype: np.dtype[Any] = np.dtype(encoding.dtype)
        try:
            self._refuse_unusable()
        except BaseException:
            self.close()
            raise

    def _open_samples(self, parts: list[riff.Chunk]) -> None:
        """A WAV without a length in its header, as the samples that follow the header."""
        data = riff.data_of(parts)
        assert data is not None
        samples = _Samples(self.path, data.start, self._file)
        self._file.close()
        self._file = samples

    def _promised_by(self, data: riff.Chunk | None) -> int:
        """Samples that the header promises; 0 where it doesn't."""
        if data is None or self._file.subtype not in pcm.ENCODINGS:
            return 0
        return data.size // (self.channels * pcm.ENCODINGS[self._file.subtype].width)

    def _refuse_unusable(self) -> None:
        if self.subtype not in _READABLE:
            raise SignalError(
                f"{self.path}: got {self._file.subtype_info} samples, expected one of "
                f"{', '.join(_READABLE)}: lossy kinds can't be written back as they were"
            )
        self._refuse_truncated()
        if self.length == 0:
            raise SignalError(f"{self.path}: the file holds no samples")

    def _count(self) -> None:
        """Count the samples of a file whose header doesn't."""
        self._file.close()
        self._file = _Sequential(self.path)
        self.length = 0
        try:
            while n := len(self._file.read(1 << 16, dtype="int16", always_2d=True)):
                self.length += n
        except soundfile.SoundFileError as error:
            self._file.close()
            raise SignalError(f"{self.path}: the file is damaged after {self.place(self.length)}: {error}") from error
        self._file.close()
        self._file = _Sequential(self.path)

    def _is_piped(self, data: riff.Chunk) -> bool:
        """Whether the size of the samples stands for a length that wasn't known, and is more than there is."""
        return riff.is_unknown(data.size) and data.start + data.size > self.path.stat().st_size

    def close(self) -> None:
        """Let go of the file."""
        with deferred():
            self._file.close()

    def _refuse_truncated(self) -> None:
        # libsndfile mends the length of a file cut short and says so in its log only.
        if self.length < self._promised:
            raise SignalError(
                f"{self.path}: the file is cut short at {self.place(self.length)}: its header promises "
                f"{self._promised} samples"
            )

    def read(self, start: int, stop: int) -> Array:
        """The samples [start, stop) of every channel: (channels, stop - start)."""
        try:
            if self._file.tell() != start:
                self._file.seek(start)
            frames = self._file.read(stop - start, dtype=self.dtype.name, always_2d=True)
        except soundfile.SoundFileError as error:
            raise SignalError(f"{self.path}: the file is damaged after {self.place(start)}: {error}") from error
        if len(frames) != stop - start:
            raise SignalError(f"{self.path}: the file is cut short at {self.place(start + len(frames))}")
        return np.ascontiguousarray(frames.T)


class AudioWriter(Writer):
    """Writes samples of the source's dtype, as the subtype that the source had or that fits it."""

    def __init__(
        self, path: Path, source: Source, length: int, rate: float | None, channels: int, dtype: np.dtype[Any]
    ) -> None:
        if rate is None:
            raise SignalError(f"{path}: a sound file needs a rate: --rate gives it")
        if rate != int(rate) or rate < 1:
            raise SignalError(
                f"{path}: a sound file's rate is a whole number, got {rate:g}: choose another stride, or write .npy"
            )
        kind = _FORMATS[path.suffix.lower()]
        subtype = getattr(source, "subtype", None) if dtype == source.dtype else None
        subtype = subtype or pcm.SUBTYPES.get(dtype.name)
        if subtype is None or not soundfile.check_format(kind, subtype):
            raise SignalError(
                f"{path}: {kind} can't hold {subtype or dtype} samples: write "
                f"{'.wav or ' if kind == 'FLAC' else ''}.npy"
            )
        size = length * channels * dtype.itemsize
        self._may_be_large = kind == "WAV" and not length
        if kind == "WAV" and (not length or size > _LARGEST_WAV or getattr(source, "format", "") == "RF64"):
            kind = "RF64"
        elif kind == "WAV" and getattr(source, "format", "") == "WAVEX":
            kind = "WAVEX"
        super().__init__(path)
        try:
            descriptor = os.dup(self.output.file.fileno())
            self._file = soundfile.SoundFile(descriptor, "w", int(rate), channels, subtype, format=kind, closefd=True)
            for name, text in getattr(source, "metadata", {}).items():
                setattr(self._file, name, text)
        except BaseException:
            self.output.discard()
            raise
        self._done = 0
        self._source_mask = None
        if isinstance(source, AudioReader) and channels == source.channels and kind == "WAVEX":
            with source.path.open("rb") as file:
                self._source_mask = riff.channel_mask(file)
        if lost := getattr(source, "not_kept", ()):
            self.notes = (f"not written: {', '.join(lost)} of {source.path.name}",)
        # Given explicitly: soundfile would otherwise scale and clip floats by itself.
        self._dtype = dtype if dtype.name != "uint8" else np.dtype(np.int16)
        self._widen = dtype.name == "uint8"

    def write(self, block: Array) -> None:
        """Append (channels, n) samples."""
        frames = np.ascontiguousarray(block.T)
        if self._widen:
            frames = (frames.astype(np.int16) - 128) * np.int16(256)
        self._done += len(frames)
        try:
            self._file.write(frames.astype(self._dtype, copy=False))
            complete = self._file.frames == self._done
        except (AssertionError, soundfile.SoundFileError):  # fewer samples than were given
            complete = False
        if not complete:
            raise self._incomplete()

    def _incomplete(self) -> OSError:
        free = os.fstatvfs(self.output.file.fileno())
        is_full = free.f_bavail * free.f_frsize < 1 << 20
        code, reason = (errno.ENOSPC, "the disk is full") if is_full else (errno.EIO, "the system refused to write")
        return OSError(code, f"{reason}; {self._done} samples were to be written", str(self.output.path))

    def finish(self) -> None:
        """Write the header's sizes, and see that all samples are there."""
        self.release()
        if self._may_be_large and self.output.file.seek(0, os.SEEK_END) < _LARGEST_WAV:
            riff.as_wav(self.output.file)
        try:
            descriptor = os.dup(self.output.file.fileno())
            os.lseek(descriptor, 0, os.SEEK_SET)
            with soundfile.SoundFile(descriptor, closefd=True) as written:
                complete = written.frames == self._done
                if complete and self._done:
                    written.seek(self._done - 1)
                    complete = len(written.read(1, always_2d=True)) == 1
        except soundfile.SoundFileError:
            complete = False
        if not complete:
            raise self._incomplete()
        mask = self._source_mask
        if mask is not None and riff.channel_mask(self.output.file) != mask:
            self.notes = (*self.notes, f"not written: the channel mask {mask:#x}")

    def release(self) -> None:
        """Let go of the file."""
        with deferred():
            try:
                self._file.close()
            except soundfile.SoundFileError as error:
                raise self._incomplete() from error
