"""Sphinx: the pages in Markdown, the reference from the docstrings."""

from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent

project = "Tapwise"
version = release = metadata.version("tapwise")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
exclude_patterns = ["_build"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "description"
napoleon_custom_sections = [("Shapes", "notes_style"), "Source"]
suppress_warnings = ["ref.python"]


def one_list_of_arguments(app, what, name, obj, options, lines):
    """Napoleon calls them Args, and joins them with the types; under another name they would be a second list."""
    lines[:] = ["Args:" if line.strip() == "Arguments:" else line for line in lines]


def write_the_tour(app):
    """The notebook as a page, with the outputs that it keeps."""
    from nbconvert import MarkdownExporter

    folder = HERE / "_generated"
    folder.mkdir(exist_ok=True)
    # Figures stay beside the text; a page in a frame isn't kept in the notebook.
    text, resources = MarkdownExporter().from_filename(str(HERE.parent / "notebooks" / "tour.ipynb"))
    for name, content in resources["outputs"].items():
        (folder / name).write_bytes(content)
    (folder / "tour.md").write_text(text, encoding="utf-8")


def setup(app):
    app.connect("autodoc-process-docstring", one_list_of_arguments, priority=100)  # before napoleon reads them
    app.connect("builder-inited", write_the_tour)
