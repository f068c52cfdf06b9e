"""Padding words and the checks of a convolution's integers: every argument becomes a plain int."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from tapwise.errors import ShapeError

Padding = str | int | Sequence[int]

PADDING_WORDS = ("valid", "same", "causal", "semicausal", "full")
PADDING_MODES = ("zeros", "reflect", "replicate", "circular")
# Larger values overflow the 32-bit indices of the libraries below.
LARGEST = 2**31 - 1


def integer(name: str, value: Any) -> int:
    """The value as an int. Raises TypeError for another type, ShapeError beyond ``LARGEST``."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if number > LARGEST:
        raise ShapeError(
            f"{name} is beyond the largest supported value", got=f"{name}={number}", expected=f"at most {LARGEST}"
        )
    return number


def refuse_fraction(name: str, value: Any) -> None:
    """Refuse what is neither an integer nor, as ``torch.SymInt``, a compiler's symbol for one."""
    if type(value).__name__ in ("SymInt", "Proxy"):
        return
    try:
        operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None


def numpy_same(kernel_size: int, dilation: int) -> tuple[int, int]:
    """The padding by which a convolution is centred as ``numpy.convolve`` centres it: of even K, one sample on.

    Example:
        >>> numpy_same(3, 1), numpy_same(4, 1)
        ((1, 1), (2, 1))
    """
    span = dilation * (kernel_size - 1)
    return span - span // 2, span // 2


def single(name: str, value: Any) -> int:
    """An int, or the one entry of a 1-tuple, as torch takes them."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) != 1:
            raise ShapeError(
                f"expected {name} to be a single integer value or a list of 1 values to match the "
                f"convolution dimensions, but got {name}={list(value)}"
            )
        value = value[0]
    return integer(name, value)


def at_least_one(name: str, value: int, sentence: str) -> None:
    """Refuse a value below 1 with torch's sentence."""
    if value < 1:
        raise ShapeError(sentence, got=f"{name}={value}", expected=f"{name} >= 1")


def pads_of(padding: Padding, effective: int, stride: int, transposed: bool) -> tuple[int, int]:
    """The pair (left, right) that a padding means for an effective kernel size."""
    if transposed and padding == "causal":
        return 0, max(effective - stride, 0)
    if isinstance(padding, str):
        return _pads_of_word(padding, effective, stride, transposed)
    return _pads_of_numbers(padding)


def _pads_of_word(word: str, effective: int, stride: int, transposed: bool) -> tuple[int, int]:
    if transposed or word not in PADDING_WORDS:
        words = ("causal",) if transposed else PADDING_WORDS
        near = get_close_matches(word.lower(), words, 1)
        raise ShapeError(
            f"Invalid padding string {word!r}, should be one of {', '.join(map(repr, words))}",
            got=f"padding={word!r}",
            expected="one of these words, an int, or a pair (left, right)",
            fix=f"did you mean {near[0]!r}?" if near else None,
        )
    total = effective - 1
    return {
        "valid": (0, 0),
        "same": (total // 2, total - total // 2),
        "causal": (total, 0),
        "semicausal": (max(effective - stride, 0), min(effective, stride) - 1),
        "full": (total, total),
    }[word]


def _pads_of_numbers(padding: int | Sequence[int]) -> tuple[int, int]:
    if isinstance(padding, Sequence):
        if len(padding) not in (1, 2):
            raise ShapeError(
                "expected padding to be a single integer value, a list of 1 value, or a pair "
                f"(left, right), but got padding={list(padding)}"
            )
        left, right = integer("padding", padding[0]), integer("padding", padding[-1])
    else:
        left = right = integer("padding", padding)
    if left < 0 or right < 0:
        raise ShapeError(
            "negative padding is not supported",
            got=f"padding=({left}, {right})",
            expected="left >= 0 and right >= 0",
            fix="cut the signal instead: x[..., n:]",
        )
    return left, right


def as_attribute(padding: Padding) -> Any:
    """Padding as torch's layers store it: a word, or a tuple."""
    if isinstance(padding, str):
        return padding
    return tuple(padding) if isinstance(padding, Sequence) else (padding,)


def check_groups(groups: Any) -> None:
    """Refuse groups that no layer has, in the sentence of torch's layers."""
    at_least_one("groups", integer("groups", groups), "groups must be a positive integer")


def check_divisible(in_channels: int, out_channels: int, groups: int) -> None:
    """Refuse channel counts that ``groups`` doesn't divide."""
    for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
        if channels % groups:
            raise ShapeError(
                f"{name} must be divisible by groups",
                got=f"{name} ({channels}) and groups ({groups})",
                expected=f"a divisor of {channels}, as {math.gcd(channels, groups)}",
            )
