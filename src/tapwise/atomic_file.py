"""Files that appear complete or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO


class AtomicFile:
    """A file that gets its name only when it is complete: an interrupted run leaves nothing.

    Where the system can, the unfinished file has no name at all, so that even a killed process
    leaves none; elsewhere it has a hidden one beside the target.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._hidden = path.with_name(f".{path.name}.{os.getpid()}.partial")
        self._nameless = False
        try:
            flags = os.O_TMPFILE | os.O_RDWR
            descriptor = os.open(path.parent, flags, 0o666)
            self._nameless = Path(f"/proc/self/fd/{descriptor}").exists()
            self.file: BinaryIO = os.fdopen(descriptor, "w+b")
        except (OSError, AttributeError):
            pass
        if not self._nameless:
            self.file = open(self._hidden, "w+b")  # noqa: SIM115

    def commit(self) -> None:
        """Give the file its name, replacing one that had it."""
        self.file.flush()
        if self._nameless:
            self._hidden.unlink(missing_ok=True)
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                # Naming the folder makes os.link follow /proc's link to the nameless file.
                source = f"/proc/self/fd/{self.file.fileno()}"
                os.link(source, self._hidden.name, dst_dir_fd=folder, follow_symlinks=True)
            finally:
                os.close(folder)
        self.file.close()
        os.replace(self._hidden, self.path)

    def discard(self) -> None:
        """Leave nothing behind that has no name yet."""
        self.file.close()
        self._hidden.unlink(missing_ok=True)


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
