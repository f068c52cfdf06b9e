"""Tapwise: one-dimensional convolutions on PyTorch, to see, to run and to stream.

The public names load at first use, so that importing tapwise costs nothing.
"""

from typing import Any

import lazy_loader

import tapwise.forks  # noqa: F401 (what a fork has to wait for)

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("tapwise")
    return _load(name)
