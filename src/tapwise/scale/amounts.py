"""Amounts of memory, in words."""

from __future__ import annotations

import re

_UNITS = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}


def bytes_of(amount: int | float | str) -> int:
    """An amount of memory in bytes.

    Raises:
        ValueError: what is none.

    Example:
        >>> bytes_of("1GB"), bytes_of("1.5 MiB"), bytes_of(4096)
        (1000000000, 1572864, 4096)
    """
    match = re.fullmatch(r"\s*([\d.]+)\s*([kmgt]?i?b?)\s*", str(amount).lower())
    unit = "" if match is None else match[2]
    unit = unit if unit.endswith("b") else f"{unit}b"
    try:
        number = 0 if match is None else int(float(match[1]) * _UNITS[unit])
    except (ValueError, KeyError):
        number = 0
    if number < 1:
        raise ValueError(f"an amount of memory is a number of bytes, or as '500MB' or '2GiB', got {amount!r}")
    return number


def in_words(n_bytes: float) -> str:
    """Bytes as ``'12.3 MB'``.

    Example:
        >>> in_words(12_345_678)
        '12.3 MB'
    """
    for unit, size in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if n_bytes >= size:
            return f"{n_bytes / size:.3g} {unit}"
    return f"{n_bytes:.0f} bytes"
