"""Large pages for large outputs, where the operating system has them."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable
from functools import cache

from torch import Tensor

# The C library maps larger blocks anew each time: every page's first touch is then a fault.
_LARGE = 1 << 25
_PAGE = 1 << 21


def ask_large_pages(tensor: Tensor) -> Tensor:
    """The tensor, whose fresh memory is asked to lie in large pages: half the time to fill it."""
    size = tensor.numel() * tensor.element_size()
    if size >= _LARGE and tensor.device.type == "cpu" and (advise := _advise()) is not None:
        start = -(-tensor.data_ptr() // _PAGE) * _PAGE
        stop = (tensor.data_ptr() + size) // _PAGE * _PAGE
        advise(start, stop - start, mmap.MADV_HUGEPAGE)
    return tensor


@cache
def _advise() -> Callable[..., int] | None:
    """The system's advice function; advice refused, as by an old system, is no harm."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return None
    function = ctypes.CDLL(None).madvise
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return function
