"""Files that appear complete or not at all."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO


class AtomicFile:
    """A file that gets its name only when it is complete: an interrupted run leaves nothing.

    Where the system can, the unfinished file has no name at all, so that even a killed process
    leaves none; elsewhere it has a hidden one beside the target.

    Arguments:
        in_place: as of a file that is edited: one that is replaced passes on its mode and owner; a symbolic link
            stays, and what it points to is replaced. Else the file is new, whatever had its name.

    Raises:
        PermissionError: a target that may not be written.
        OSError: a target that is no file, as a folder or a device.
    """

    def __init__(self, path: Path, in_place: bool = True) -> None:
        self.path = Path(os.path.realpath(path)) if in_place else path
        self._replaced = _status(self.path) if in_place else None
        # Short, since the target's own name may be as long as the system allows; its own for every writer.
        self._hidden = self.path.with_name(f".{secrets.token_hex(8)}.partial")
        self._nameless = False
        try:
            flags = os.O_TMPFILE | os.O_RDWR
            descriptor = os.open(self.path.parent, flags, 0o666)
            self._nameless = Path(f"/proc/self/fd/{descriptor}").exists()
            if not self._nameless:
                os.close(descriptor)
        except (OSError, AttributeError):
            pass
        if not self._nameless:
            descriptor = os.open(self._hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        self.file: BinaryIO = os.fdopen(descriptor, "w+b")

    def commit(self) -> None:
        """Give the file its name, replacing one that had it, once all of it is on the disk."""
        self.file.flush()
        descriptor = self.file.fileno()
        if self._replaced is not None and hasattr(os, "fchmod"):
            with suppress(OSError):  # another's file, in a folder that we may write
                os.fchown(descriptor, self._replaced.st_uid, self._replaced.st_gid)
            with suppress(OSError):  # a file system without modes
                os.fchmod(descriptor, stat.S_IMODE(self._replaced.st_mode))
        os.fsync(descriptor)
        if self._nameless:
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                # Naming the folder makes os.link follow /proc's link to the nameless file.
                source = f"/proc/self/fd/{descriptor}"
                os.link(source, self._hidden.name, dst_dir_fd=folder, follow_symlinks=True)
            finally:
                os.close(folder)
        self.file.close()
        os.replace(self._hidden, self.path)

    def discard(self) -> None:
        """Leave nothing behind that has no name yet."""
        try:
            with suppress(OSError):  # what could not be written, as on a full disk, is given up
                self.file.close()
        finally:
            self._hidden.unlink(missing_ok=True)


def _status(path: Path) -> os.stat_result | None:
    """Of the file that is to be replaced; None where there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"{path}: is no file that can be replaced: give another name")
    if not os.access(path, os.W_OK):
        raise PermissionError(f"{path}: the file is read-only: give another name")
    return status


def write_atomically(path: str | os.PathLike[str], forms: Mapping[str, Callable[[], str | bytes]]) -> Path:
    """Write the text, or bytes, that the name's ending asks for, complete or not at all.

    Raises:
        ValueError: an ending that ``forms`` doesn't hold.
        FileNotFoundError: a folder that there isn't.
    """
    target = Path(path)
    form = forms.get(target.suffix.lower())
    if form is None:
        raise ValueError(f"save to a name ending in one of {tuple(forms)}, got {target.name!r}")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target}: there is no folder {target.parent}")
    content = form()
    output = AtomicFile(target)
    try:
        output.file.write(content.encode() if isinstance(content, str) else content)
        output.commit()
    finally:
        output.discard()
    return target
