"""Tapwise: one-dimensional convolutions on PyTorch, to see, to run and to stream.

The public names load at first use, so that importing tapwise costs nothing.
"""

from typing import Any

import lazy_loader

from tapwise.forks import refuse_half_imported as _refuse_half_imported

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("tapwise")
    _refuse_half_imported()
    return _load(name)
