"""The parts of a sound file that libsndfile doesn't tell of: what it drops, and lengths that aren't there."""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple


class Chunk(NamedTuple):
    """A part of a RIFF file, or a block of metadata of a FLAC file.

    Arguments:
        name: four letters; of a FLAC's block, its number.
        start: where its contents begin.
        size: as the header gives it.
    """

    name: str
    start: int
    size: int


# What soundfile can't write again, by chunk and by block.
_NOT_KEPT = {
    "cue ": "cue points",
    "smpl": "loops",
    "inst": "the instrument",
    "bext": "the broadcast extension",
    "iXML": "iXML",
    "id3 ": "ID3 tags",
    "ID3 ": "ID3 tags",
    "acid": "the ACID chunk",
    "flac 2": "application data",
    "flac 5": "the cue sheet",
    "flac 6": "pictures",
}
# Masks that libsndfile writes by itself for so many channels.
_USUAL_MASKS = {1: (0, 4), 2: (0, 3)}


def chunks_of(path: Path) -> list[Chunk]:
    """The chunks of a RIFF file, as far as their sizes lead, or the blocks of a FLAC; of others none."""
    found: list[Chunk] = []
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] == b"fLaC":
            file.seek(4)
            while len(block := file.read(4)) == 4:
                size = int.from_bytes(block[1:], "big")
                found.append(Chunk(f"flac {block[0] & 0x7F}", file.tell(), size))
                file.seek(size, io.SEEK_CUR)
                if block[0] & 0x80:
                    break
        elif head[:4] in (b"RIFF", b"RF64") and head[8:] == b"WAVE":
            while len(block := file.read(8)) == 8:
                size = int.from_bytes(block[4:], "little")
                found.append(Chunk(block[:4].decode("latin-1"), file.tell(), size))
                if found[-1].name == "data" and (size == 0 or size >= 0x7FFF0000):
                    break
                file.seek(size + size % 2, io.SEEK_CUR)
    return found


def has_no_length(path: Path, chunks: list[Chunk]) -> bool:
    """Whether a WAV's samples have the size 0 in its header, though they go on to the end of the file."""
    data = next((chunk for chunk in chunks if chunk.name == "data"), None)
    if data is None or data.size != 0:
        return False
    with path.open("rb") as file:
        riff = int.from_bytes(file.read(8)[4:], "little")
    length = path.stat().st_size
    return length > data.start and riff + 8 < length  # the outer size wasn't written either


def not_kept(path: Path, chunks: list[Chunk]) -> tuple[str, ...]:
    """What of a file is not written again, in words."""
    found = [_NOT_KEPT[chunk.name] for chunk in chunks if chunk.name in _NOT_KEPT]
    with path.open("rb") as file:
        for chunk in chunks:
            file.seek(chunk.start)
            if chunk.name == "LIST" and file.read(4) == b"adtl":
                found.append("labels of cue points")
            elif chunk.name == "fmt " and chunk.size >= 40:
                data = file.read(40)
                mask, channels = int.from_bytes(data[20:24], "little"), int.from_bytes(data[2:4], "little")
                if mask not in _USUAL_MASKS.get(channels, (0,)):
                    found.append(f"the channel mask {mask:#x}")
    return tuple(dict.fromkeys(found))


class Completed(io.RawIOBase):
    """A WAV without a length in its header, read as if the length were there."""

    def __init__(self, path: Path, chunks: list[Chunk]) -> None:
        self.name = str(path)
        self._file = path.open("rb")
        data = next(chunk for chunk in chunks if chunk.name == "data")
        length = path.stat().st_size
        self._sizes = {
            4: (length - 8).to_bytes(4, "little"),
            data.start - 4: (length - data.start).to_bytes(4, "little"),
        }

    def read(self, size: int = -1) -> bytes:
        """Bytes of the file, the sizes in its header completed."""
        start = self._file.tell()
        data = bytearray(self._file.read(size))
        for place, number in self._sizes.items():
            for n, byte in enumerate(number):
                if 0 <= place + n - start < len(data):
                    data[place + n - start] = byte
        return bytes(data)

    def readinto(self, buffer: object) -> int:
        """Bytes into a buffer."""
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place of the file."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The place in the file."""
        return self._file.tell()

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
        super().close()
