"""Widget: the page in a notebook, tied to Python both ways, where anywidget is installed."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

from tapwise.explanation.page import module
from tapwise.extras import is_installed, need


def has_widgets() -> bool:
    """Whether the library that shows widgets is there: ``pip install 'tapwise[notebook]'``."""
    return is_installed("anywidget")


@cache
def _class() -> Any:
    anywidget, traitlets = need("anywidget"), import_module("traitlets")

    class Page(anywidget.AnyWidget):  # type: ignore[misc, name-defined]
        """The page; ``state`` is what its reader made of it, and what is set is shown."""

        _esm = module()
        state = traitlets.Dict().tag(sync=True)

    return Page


def widget(state: dict[str, Any]) -> Any:
    """The page as a widget that begins with that state.

    Raises:
        MissingPackageError: anywidget is not installed.
    """
    return _class()(state=state)
