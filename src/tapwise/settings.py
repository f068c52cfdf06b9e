"""Settings: the values that a convolution can be given, checked and made plain integers."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

from tapwise.errors import ShapeError

Padding = str | int | Sequence[int]

PADDING_WORDS = ("valid", "same", "causal", "semicausal", "full")
PADDING_MODES = ("zeros", "reflect", "replicate", "circular")
# No setting can be larger: beyond it, indices of 32 bits overflow in the libraries below.
LARGEST = 2**31 - 1


def integer(name: str, value: Any) -> int:
    """The value as an int. TypeError where it is none, ShapeError where no tensor is so large."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if number > LARGEST:
        raise ShapeError(
            f"{name} is beyond the largest supported value", got=f"{name}={number}",
            expected=f"at most {LARGEST}",
        )  # fmt: skip
    return number


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


def pads_of(padding: Padding, reach: int, stride: int, transposed: bool) -> tuple[int, int]:
    """The pair (left, right) that a padding means for an effective kernel size ``reach``."""
    if transposed and padding == "causal":
        return 0, max(reach - stride, 0)
    if isinstance(padding, str):
        return _pads_of_word(padding, reach, stride, transposed)
    return _pads_of_numbers(padding)


def _pads_of_word(word: str, reach: int, stride: int, transposed: bool) -> tuple[int, int]:
    if transposed or word not in PADDING_WORDS:
        allowed = "'causal'" if transposed else ", ".join(map(repr, PADDING_WORDS))
        raise ShapeError(
            f"Invalid padding string: {word!r}",
            got=f"padding={word!r}",
            expected=f"an int, a pair (left, right), or {allowed}",
        )
    whole = reach - 1
    return {
        "valid": (0, 0),
        "same": (whole // 2, whole - whole // 2),
        "causal": (whole, 0),
        "semicausal": (max(reach - stride, 0), min(reach, stride) - 1),
        "full": (whole, whole),
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


def held(padding: Padding) -> Any:
    """Padding as torch's layers hold it: a word, or a tuple."""
    if isinstance(padding, str):
        return padding
    return tuple(padding) if isinstance(padding, Sequence) else (padding,)


def check_divisible(in_channels: int, out_channels: int, groups: int) -> None:
    """Refuse channels that can't be divided into so many groups."""
    for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
        if channels % groups:
            raise ShapeError(
                f"{name} must be divisible by groups",
                got=f"{name} ({channels}) and groups ({groups})",
                expected=f"a divisor of {channels}, as {math.gcd(channels, groups)}",
            )
