"""The tour runs from start to end, prints what it shows on the page, and shows the tutorial's numbers.

`python tests/test_notebooks.py` runs it anew and keeps what it prints.
"""

import json
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

HERE = Path(__file__).parent
TOUR = HERE.parent / "notebooks" / "tour.ipynb"
TUTORIAL = json.loads((HERE / "data" / "tutorial.json").read_text())


def executed():
    """The notebook with its outputs made anew."""
    notebook = nbformat.read(TOUR, as_version=4)
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    return notebook


def printed(notebook):
    return [
        "".join(output.get("text", "") for output in cell.outputs)
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


# The Jupyter client's own sockets and event loops are not ours to close.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_tour():
    kept = nbformat.read(TOUR, as_version=4)
    notebook = executed()
    assert printed(notebook) == printed(kept), "run python tests/test_notebooks.py"
    shown = [o for cell in notebook.cells for o in cell.get("outputs", []) if "data" in o]
    assert sum("srcdoc=" in output["data"].get("text/html", "") for output in shown) == 2
    everything = "\n".join(printed(notebook))
    assert "\n".join([*TUTORIAL["trace"], TUTORIAL["final"]]) in everything
    numbers = re.sub(r"[\[\]]", " ", everything).split()
    for case in TUTORIAL["cases"]:
        for row in case["output"]:
            wanted = [float(y) for y in row]
            assert wanted in _runs_of_numbers(numbers, len(wanted)), case["name"]


def _runs_of_numbers(words, length):
    values = []
    for word in words:
        try:
            values.append(float(word))
        except ValueError:
            values.append(None)
    return [values[i : i + length] for i in range(len(values) - length + 1)]


def without_pages(notebook):
    """As it is kept: figures and text, without the pages, which hosts of notebooks don't show."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("text/html", None)
    return notebook


if __name__ == "__main__":
    nbformat.write(without_pages(executed()), TOUR)
    print("".join(printed(nbformat.read(TOUR, as_version=4))))
    sys.exit()
