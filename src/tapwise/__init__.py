"""Tapwise: one-dimensional convolutions on PyTorch, to see, to run and to stream.

The public names load at first use, so that importing tapwise costs nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
