"""Widget: the page in a notebook, tied to Python both ways, where anywidget is installed."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

from tapwise.explanation.page import module


def has_widgets() -> bool:
    """Whether the library that shows widgets is there: ``pip install 'tapwise[notebook]'``."""
    return find_spec("anywidget") is not None


@cache
def _class() -> Any:
    import anywidget
    import traitlets

    class Page(anywidget.AnyWidget):
        """The page; ``state`` is what its reader made of it, and what is set is shown."""

        _esm = module()
        state = traitlets.Dict().tag(sync=True)

    return Page


def widget(state: dict[str, Any]) -> Any:
    """The page as a widget that begins with that state.

    Raises:
        ModuleNotFoundError: anywidget is not installed.
    """
    return _class()(state=state)
