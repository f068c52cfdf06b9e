"""Documents run as tests: the Python blocks of every page, in their order, and what they print."""

import io
import os
import re
import shutil
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

from sybil import Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.myst import CodeBlockParser

collect_ignore_glob = ["docs/_generated/*", "docs/_build/*"]


class Printing(PythonEvaluator):
    """Runs a block, and keeps what it prints for the block of text after it."""

    def __call__(self, example):
        printed = io.StringIO()
        with redirect_stdout(printed):
            super().__call__(example)
        example.namespace["printed by the last block"] = printed.getvalue()


def compare(example):
    """A block of text is what the Python before it printed; dots stand for anything, alone on a line for any lines."""
    printed = example.namespace.pop("printed by the last block", "")
    if not printed:
        return None
    lines = [
        r"(?:.*\n)*?.*" if line.strip() == "..." else re.escape(line.rstrip()).replace(r"\.\.\.", ".*")
        for line in example.parsed.strip().splitlines()
    ]
    found = "\n".join(line.rstrip() for line in printed.strip().splitlines())
    if re.fullmatch("\n".join(lines), found):
        return None
    return f"printed:\n{printed}\nin the document:\n{example.parsed}"


def enter(namespace):
    """Documents may write files: not into the repository."""
    namespace["folders"] = Path.cwd(), tempfile.mkdtemp()
    os.chdir(namespace["folders"][1])


def leave(namespace):
    back, folder = namespace["folders"]
    os.chdir(back)
    shutil.rmtree(folder)


_PARSERS = [CodeBlockParser("python", Printing()), CodeBlockParser("text", compare)]
pytest_collect_file = Sybil(parsers=_PARSERS, patterns=["*.md"], setup=enter, teardown=leave).pytest()
