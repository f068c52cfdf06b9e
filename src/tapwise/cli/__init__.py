"""The command: one module for each of its commands, which imports what is heavy when it runs."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from cyclopts import App

from tapwise.cli.apply import apply
from tapwise.cli.bench import bench
from tapwise.cli.doctor import doctor
from tapwise.cli.explain import explain
from tapwise.cli.explore import explore
from tapwise.cli.inspect import inspect
from tapwise.cli.stream import stream
from tapwise.cli.taps_forms import FORMS

if TYPE_CHECKING:
    from collections.abc import Sequence


def _version() -> str:
    from importlib.metadata import version

    return f"tapwise {version('tapwise')}"


app = App(
    name="tapwise",
    help="One-dimensional convolutions: explain every tap, filter recordings of any size.",
    help_format="plaintext",
    version=_version,
)
app.command(explain)
app.command(explore)
app.command(apply, help_epilogue=f"Taps, for --taps:\n\n{FORMS}")
app.command(inspect)
app.command(stream)
app.command(doctor)
app.command(bench)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; a user's mistake is reported in a few lines, without a traceback."""
    try:
        app(sys.argv[1:] if arguments is None else arguments)
    except BrokenPipeError:  # the reader, as head, closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (ValueError, OSError, MemoryError, OverflowError) as error:
        print(f"tapwise: {error}", file=sys.stderr)
        sys.exit(1)
    except ModuleNotFoundError as error:
        print(f"tapwise: {error}: pip install 'tapwise[io]'", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("tapwise: interrupted; nothing was written", file=sys.stderr)
        sys.exit(130)
