"""The parts of a sound file that libsndfile doesn't tell of: what it drops, and lengths that aren't there."""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO, NamedTuple


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
    "id3 ": "ID3 tags",
    "ID3 ": "ID3 tags",
    "flac 2": "application data",
    "flac 5": "the cue sheet",
    "flac 6": "pictures",
}
# What libsndfile writes anew, or what holds nothing.
_OWN = {"fmt ", "data", "fact", "LIST", "PEAK", "JUNK", "junk", "PAD ", "FLLR", "filr", "ds64"}
# Tags that soundfile keeps, by their names in a WAV and in a FLAC.
_TAGS = {b"INAM", b"ICOP", b"ISFT", b"IART", b"ICMT", b"ICRD", b"IPRD", b"ITRK", b"IGNR"}
_COMMENTS = {
    b"TITLE",
    b"COPYRIGHT",
    b"SOFTWARE",
    b"ARTIST",
    b"COMMENT",
    b"DATE",
    b"ALBUM",
    b"LICENSE",
    b"TRACKNUMBER",
    b"GENRE",
}
# Sizes that programs write to a pipe stand for "not known", or lie a header below one that does.
_UNKNOWN = (0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def is_unknown(size: int) -> bool:
    """Whether a size in a header stands for a length that nobody knew."""
    return any(0 <= unknown - size <= 0x1000 for unknown in _UNKNOWN)


def chunks_of(path: Path) -> list[Chunk]:
    """The chunks of a RIFF file, as far as their sizes lead, or the blocks of a FLAC; of others none."""
    found: list[Chunk] = []
    length = path.stat().st_size
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
            large = None  # of an RF64, the true size of its samples
            while len(block := file.read(8)) == 8:
                size, start = int.from_bytes(block[4:], "little"), file.tell()
                if block[:4] == b"ds64":
                    large = int.from_bytes(file.read(16)[8:], "little")
                if block[:4] == b"data" and large is not None and size == 0xFFFFFFFF:
                    size = large
                found.append(Chunk(block[:4].decode("latin-1"), start, size))
                if start + size > length or (block[:4] == b"data" and size == 0):
                    break
                file.seek(start + size + size % 2)
    return found


def data_of(chunks: list[Chunk]) -> Chunk | None:
    """The chunk of the samples."""
    return next((chunk for chunk in chunks if chunk.name == "data"), None)


def has_no_length(path: Path, chunks: list[Chunk]) -> bool:
    """Whether a WAV's samples have the size 0 in its header, though more than other chunks follows."""
    data = data_of(chunks)
    if data is None or data.size != 0:
        return False
    length = path.stat().st_size
    with path.open("rb") as file:
        file.seek(data.start)
        while file.tell() < length:
            block = file.read(8)
            size = int.from_bytes(block[4:], "little")
            is_chunk = len(block) == 8 and all(32 <= byte < 127 for byte in block[:4])
            if not is_chunk or file.tell() + size > length:
                return True
            file.seek(size + size % 2, io.SEEK_CUR)
    return False


def not_kept(path: Path, chunks: list[Chunk]) -> tuple[str, ...]:
    """What of a file is not written again, in words."""
    found = []
    with path.open("rb") as file:
        for chunk in chunks:
            file.seek(chunk.start)
            if chunk.name in _NOT_KEPT:
                found.append(_NOT_KEPT[chunk.name])
            elif chunk.name == "LIST":
                content = file.read(min(chunk.size, 1 << 20))
                if content[:4] == b"adtl":
                    found.append("labels of cue points")
                elif content[:4] == b"INFO":
                    found += [
                        f"the tag {name.decode('latin-1')}" for name in _tags_of(content[4:]) if name not in _TAGS
                    ]
            elif chunk.name == "flac 4":
                names = _comments_of(file.read(min(chunk.size, 1 << 20)))
                found += [
                    f"the tag {name.decode('latin-1')}"
                    for n, name in enumerate(names)
                    if name not in _COMMENTS or name in names[:n]
                ]
            elif not chunk.name.startswith("flac") and chunk.name not in _OWN:
                found.append(f"the chunk {chunk.name.strip()!r}")
    return tuple(dict.fromkeys(found))


def _tags_of(content: bytes) -> list[bytes]:
    """The names of the tags of a LIST INFO chunk."""
    names, at = [], 0
    while at + 8 <= len(content):
        names.append(content[at : at + 4])
        size = int.from_bytes(content[at + 4 : at + 8], "little")
        at += 8 + size + size % 2
    return names


def _comments_of(content: bytes) -> list[bytes]:
    """The names of a FLAC's comments."""
    names, at = [], 4 + int.from_bytes(content[:4], "little")
    for _ in range(int.from_bytes(content[at : at + 4], "little")):
        size = int.from_bytes(content[at + 4 : at + 8], "little")
        names.append(content[at + 8 : at + 8 + size].partition(b"=")[0].upper())
        at += 4 + size
    return names


def channel_mask(file: BinaryIO) -> int | None:
    """The mask of a WAV's channels; None where its format has none."""
    file.seek(0)
    head = file.read(4096)
    at = head.find(b"fmt ")
    if head[:4] not in (b"RIFF", b"RF64") or at < 0 or int.from_bytes(head[at + 4 : at + 8], "little") < 40:
        return None
    return int.from_bytes(head[at + 28 : at + 32], "little")


def as_wav(file: BinaryIO) -> None:
    """Make a WAV of an RF64 that is small enough to be one: sizes of 32 bits, and a chunk that nobody reads."""
    file.seek(0)
    head = file.read(4096)
    at = head.find(b"data", 12)
    length = file.seek(0, io.SEEK_END)
    if head[:4] != b"RF64" or head[12:16] != b"ds64" or at < 0:
        return
    size = int.from_bytes(head[28:36], "little")  # of the samples
    form = head.find(b"fmt ", 12) + 8
    for place, value in (
        (form, head[form + 24 : form + 26]),  # the plain format for the extensible one
        (0, b"RIFF" + (length - 8).to_bytes(4, "little")),
        (12, b"JUNK"),
        (at + 4, size.to_bytes(4, "little")),
    ):
        file.seek(place)
        file.write(value)
    file.flush()
