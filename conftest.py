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


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in its own
def pytest_collection_modifyitems(items):
    """The blocks of a page go on from each other: one process runs them all, with --dist loadgroup."""
    for item in items:
        if item.path.suffix == ".md" or item.path.name == "test_page.py":
            item.add_marker(pytest.mark.xdist_group(str(item.path)))
