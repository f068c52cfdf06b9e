"""The errors that Tapwise raises."""

from __future__ import annotations


class ShapeError(RuntimeError, ValueError):
    """Shapes or settings of a convolution that don't fit together.

    It is a ``RuntimeError``, as torch raises, and a ``ValueError``, as NumPy and SciPy raise, so that
    code which catches either goes on working. The text opens with torch's own sentence, then says
    what was got, what was expected and how to mend it; each part is an attribute too.

    Example:
        >>> raise ShapeError("stride must be positive", got="stride=0", expected="stride >= 1")
        Traceback (most recent call last):
        ...
        tapwise.errors.ShapeError: stride must be positive
          got:      stride=0
          expected: stride >= 1
    """

    def __init__(
        self,
        sentence: str,
        *,
        got: str | None = None,
        expected: str | None = None,
        fix: str | None = None,
    ) -> None:
        self.sentence = sentence
        self.got = got
        self.expected = expected
        self.fix = fix
        parts = (("got:      ", got), ("expected: ", expected), ("fix:      ", fix))
        lines = [sentence, *(f"  {label}{text}" for label, text in parts if text)]
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (self.sentence, self.got, self.expected, self.fix))


def _rebuild(sentence: str, got: str | None, expected: str | None, fix: str | None) -> ShapeError:
    return ShapeError(sentence, got=got, expected=expected, fix=fix)


class SignalError(ValueError):
    """A signal file, or what it holds, that can't be used: names the file and the line or sample."""


class TapsError(ValueError):
    """A description of taps that can't be read: shows what was got and what the form is."""
