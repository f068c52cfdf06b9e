"""The errors that Tapwise raises."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from textwrap import wrap


class ShapeError(RuntimeError, ValueError):
    """Shapes or settings of a convolution that don't fit together.

    It is a ``RuntimeError``, as torch raises, and a ``ValueError``, as NumPy and SciPy raise, so that
    code which catches either goes on working. The text opens with torch's own sentence, then says
    what was got, what was expected and how to mend it; each part is an attribute too.

    Arguments:
        drawing: rows (name, squares, squares missing) that show the mismatch; a notebook shows them as
            a picture.

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
        drawing: tuple[tuple[str, int, int], ...] = (),
    ) -> None:
        self.sentence = sentence
        self.got = got
        self.expected = expected
        self.fix = fix
        self.drawing = drawing
        parts = (("got:      ", got), ("expected: ", expected), ("fix:      ", fix))
        lines = [sentence, *(f"  {label}{text}" for label, text in parts if text)]
        super().__init__("\n".join([*lines, *self._drawn()]))

    def _drawn(self) -> list[str]:
        """Rows of squares, one a channel or sample: those that both rows have, and what is over."""
        if not self.drawing:
            return []
        width = max(len(name) for name, _, _ in self.drawing)
        return [
            "",
            *(
                f"  {name:<{width}}  {_FULL * min(have, _SQUARES)}{_EMPTY * min(miss, _SQUARES)}"
                f"{' ...' if max(have, miss) > _SQUARES else ''}"
                for name, have, miss in self.drawing
            ),
        ]

    def _repr_svg_(self) -> str:
        """The error as a picture, for a notebook."""
        rows, top = [], 14
        for line in wrap(self.sentence, 92):
            top += 20
            rows.append(f'<text class="said" x="12" y="{top - 8}">{escape(line)}</text>')
        for n, (name, have, miss) in enumerate(self.drawing):
            y = top + 6 + 30 * n
            rows.append(f'<text x="12" y="{y + 14}">{escape(name)}</text>')
            shown = min(have, _SQUARES)
            for k in range(shown + min(miss, _SQUARES)):
                kind = "have" if k < shown else "miss"
                rows.append(f'<rect class="{kind}" x="{250 + 21 * k}" y="{y}" width="18" height="18" rx="3"/>')
        height = top + 10 + 30 * len(self.drawing) + (24 if self.fix else 0)
        fix = ""
        if self.fix:
            fix = f'<text class="fix" x="12" y="{height - 12}">fix: {escape(self.fix)}</text>'
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="twe" viewBox="0 0 780 {height}" '
            f'width="780" height="{height}" role="img" aria-label="{escape(str(self), quote=True)}">'
            f'<style>{_STYLE}</style><rect class="ground" width="100%" height="100%"/>'
            f"{''.join(rows)}{fix}</svg>"
        )

    def _render_traceback_(self) -> list[str]:
        """What IPython shows: the picture, where there is one, above its own traceback."""
        from IPython import get_ipython
        from IPython.display import SVG, display

        if self.drawing:
            display(SVG(self._repr_svg_()))  # type: ignore[no-untyped-call]
        shown: list[str] = get_ipython().InteractiveTB.structured_traceback(type(self), self, self.__traceback__)
        return shown

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (self.sentence, self.got, self.expected, self.fix, self.drawing))


# Squares of a row that are drawn; more are counted by an ellipsis.
_SQUARES = 12
_FULL, _EMPTY = "\u25a0", "\u25a1"
_STYLE = """
.twe{--ink:#1b1f24;--page:#fff;--have:#dcebf7;--edge:#0072b2;--miss:#b3261e}
@media (prefers-color-scheme:dark){.twe{--ink:#eceff2;--page:#15191e;--have:#173a56;--edge:#6cb8ee;--miss:#ff8a80}}
.twe text{font:14px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;fill:var(--ink)}
.twe .said{font-weight:600}.twe .fix{font-size:13px}.twe .ground{fill:var(--page)}
.twe .have{fill:var(--have);stroke:var(--edge)}
.twe .miss{fill:none;stroke:var(--miss);stroke-width:2;stroke-dasharray:4 2}
"""


def _rebuild(
    sentence: str,
    got: str | None,
    expected: str | None,
    fix: str | None,
    drawing: tuple[tuple[str, int, int], ...] = (),
) -> ShapeError:
    return ShapeError(sentence, got=got, expected=expected, fix=fix, drawing=drawing)


class SignalError(ValueError):
    """A signal file, or what it holds, that can't be used: names the file and the line or sample."""


class TapsError(ValueError):
    """A description of taps that can't be read: shows what was got and what the form is."""


class TimelineError(ValueError):
    """An operation of a model that can't be followed through time, or mixes all of it.

    Arguments:
        reason: what is in the way.
        path: the module in which it stands, as ``model.get_submodule`` takes it.
        operation: what the module calls.
        remedy: what to do about it.

    Example:
        >>> raise TimelineError("takes its mean over all of time", "features.0", "group_norm", "...")
        Traceback (most recent call last):
        ...
        tapwise.errors.TimelineError: group_norm in features.0: takes its mean over all of time
          fix:      ...
    """

    def __init__(self, reason: str, path: str, operation: str, remedy: str) -> None:
        self.reason, self.path, self.operation, self.remedy = reason, path, operation, remedy
        place = path or "the model itself"
        super().__init__(f"{operation} in {place}: {reason}\n  fix:      {remedy}")

    def __reduce__(self) -> tuple[object, ...]:
        return (TimelineError, (self.reason, self.path, self.operation, self.remedy))


class StreamMismatchError(AssertionError):
    """A stream that differs from the model's own run: names the first operation that does."""


class FreezeMismatchError(AssertionError):
    """A frozen network that differs from its model's own run."""


class ModelChangedError(RuntimeError):
    """A stream's model was changed in a way that the stream can't follow: names the parameter or module."""


class MissingPackageError(ModuleNotFoundError):
    """A package that an extra of Tapwise brings isn't installed: says what it is for, and which extra."""


def listed(names: Iterable[str], most: int = 12) -> str:
    """Names with commas between them, the first ones of many.

    Example:
        >>> listed("abcde", 3)
        'a, b, c and 2 more'
    """
    all_names = list(names)
    if len(all_names) <= most:
        return ", ".join(all_names)
    return f"{', '.join(all_names[:most])} and {len(all_names) - most:,} more"
