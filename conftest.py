"""Documents run as tests: the Python blocks of every page, in their order."""

import pytest
from sybil import Sybil
from sybil.parsers.myst import PythonCodeBlockParser

pytest_collect_file = Sybil(parsers=[PythonCodeBlockParser()], patterns=["*.md"]).pytest()


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(request, tmp_path, monkeypatch):
    """Documents may write files: not into the repository."""
    if request.node.fspath.ext == ".md":
        monkeypatch.chdir(tmp_path)
