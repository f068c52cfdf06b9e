"""Sphinx: the pages in Markdown, the reference from the docstrings."""

from importlib import metadata

project = "Tapwise"
version = release = metadata.version("tapwise")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
exclude_patterns = ["_build"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "description"
napoleon_custom_sections = [("Arguments", "params_style"), ("Shapes", "notes_style"), "Source"]
suppress_warnings = ["ref.python"]
