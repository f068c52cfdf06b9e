"""The command: one module for each of its commands, which imports what is heavy when it runs."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from cyclopts import App, CycloptsError

from tapwise.cli import terminal
from tapwise.cli.apply import apply
from tapwise.cli.bench import bench
from tapwise.cli.doctor import doctor
from tapwise.cli.explain import explain
from tapwise.cli.explore import explore
from tapwise.cli.inspect import inspect
from tapwise.cli.stream import stream
from tapwise.cli.taps_forms import FORMS, USE

if TYPE_CHECKING:
    from collections.abc import Sequence


def _version() -> str:
    from importlib.metadata import version

    return f"tapwise {version('tapwise')}"


app = App(
    name="tapwise",
    help="One-dimensional convolutions: explain every tap, filter recordings of any size.",
    help_epilogue="--debug shows where in the program an error comes from.",
    help_format="plaintext",
    version=_version,
)
app.command(explain)
app.command(explore)
app.command(apply, help_epilogue=f"Taps, for --taps:\n\n{FORMS}\n\n{USE}")
app.command(inspect)
app.command(stream)
app.command(doctor)
app.command(bench)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; a mistake, whatever it is, is reported in a few lines, without a traceback."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    terminal.prepare()
    try:
        app(given, exit_on_error=False, print_error=False)
    except BrokenPipeError:  # the reader, as head, closed the pipe
        if sys.stdout is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt:
        terminal.say("tapwise: interrupted; nothing was written", error=True)
        sys.exit(130)
    except CycloptsError as error:
        terminal.say(f"tapwise: {terminal.one_line(str(error))} (see --help)", error=True)
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        terminal.say(f"tapwise: {terminal.message_of(error)}", error=True)
        sys.exit(1)
