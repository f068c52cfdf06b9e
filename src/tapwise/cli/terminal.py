"""What the command says on a terminal: plain text, and one line for each mistake."""

from __future__ import annotations

import os
import sys
import warnings
from typing import BinaryIO

from tapwise.extras import PACKAGES, sentence

_LONGEST = 2000


def plain(text: str) -> str:
    """The text without control characters, which a terminal would obey: names of files and columns may hold them.

    Example:
        >>> plain("a\\x1b[2Jb")
        'a\\\\x1b[2Jb'
    """
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def say(text: object, error: bool = False) -> None:
    """Print text on standard output, or on standard error; nowhere where that is closed."""
    stream = sys.stderr if error else sys.stdout
    if stream is not None:
        print(plain(str(text)), file=stream)


def prepare() -> None:
    """A name that isn't in the terminal's encoding is shown with escapes, not refused; a warning is one line."""
    warnings.formatwarning = lambda message, kind, *_: f"tapwise: {kind.__name__}: {one_line(str(message))}\n"
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def one_line(text: str) -> str:
    """A message without its line ends and its last full stop."""
    return " ".join(text.split()).rstrip(".")


def message_of(error: BaseException) -> str:
    """One mistake in words, as long as a screen."""
    text = _message_of(error)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ... ({len(text) - _LONGEST:,} more letters)"


def _message_of(error: BaseException) -> str:
    kind = type(error).__name__
    try:
        text = str(error).strip()
    except Exception:  # of a user's own kind of error
        text = ""
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        if package in PACKAGES:
            return sentence(package)
        return f"there is no module {error.name!r}: install what brings it, or mend its name"
    if isinstance(error, OSError) and error.strerror:
        names = [os.fsdecode(n) for n in (error.filename, error.filename2) if isinstance(n, str | bytes)]
        return f"{': '.join(names[:1])}: {error.strerror}" if names else error.strerror
    if isinstance(error, MemoryError):
        return f"out of memory{f': {text}' if text else ''}"
    if isinstance(error, ValueError | OSError | OverflowError) and text:
        return text
    # Not foreseen: a bug, of a user's model or of ours.
    said = f"{kind}: {text}" if text else kind
    return f"{one_line(said)} (--debug shows where it comes from)"


def separate_samples() -> BinaryIO:
    """Standard output for samples alone: whatever else is printed goes to standard error.

    Raises:
        ValueError: standard output is closed.
    """
    if sys.stdout is None:
        raise ValueError("standard output is closed: the samples go there")
    sys.stdout.flush()
    try:
        number = sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):  # within another program, which took it over
        samples: BinaryIO = sys.stdout.buffer
        sys.stdout = sys.stderr
        return samples
    own = os.dup(number)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (open as long as the process)
    os.dup2(sys.stderr.fileno(), number)  # prints of C libraries too
    sys.stdout = sys.stderr
    return os.fdopen(own, "wb")
