"""Explain: one value that holds trace and plan, and gives them as text, picture and file."""

from __future__ import annotations

import html
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from tapwise.engine.autograd import plan_of
from tapwise.engine.checks import autocast_dtype
from tapwise.engine.plan import Plan
from tapwise.engine.problem import Problem
from tapwise.explanation.page import document, state_of
from tapwise.explanation.svg import FIGURES, figures
from tapwise.explanation.text import text_of_explanation
from tapwise.explanation.trace import Trace, follow
from tapwise.files import WholeFile

FORMS = (".html", ".svg", ".txt")


@dataclass(frozen=True, eq=False)
class Explanation:
    """What one convolution does to one signal. Shows itself in a notebook.

    Arguments:
        title: what is explained, in a line.
        trace: every step.
        plan: which kernel runs it, why, and what was rejected.
    """

    title: str
    trace: Trace
    plan: Plan

    @property
    def text(self) -> str:
        """Shapes, geometry, the length formula with the numbers put in, the plan and the steps."""
        return text_of_explanation(self.trace, self.title, str(self.plan))

    def svg(self, figure: str | None = None) -> str:
        """The figures as one SVG image.

        Arguments:
            figure: ``"window"`` (samples, taps over the first window, outputs), ``"shapes"`` (of x,
                weight and output) or ``"sources"`` (which samples each output is tied to); None for
                all three, one under the other.

        Raises:
            ValueError: a figure of another name.
        """
        if figure is not None and figure not in FIGURES:
            names = ", ".join(map(repr, FIGURES))
            raise ValueError(f"figure must be one of {names} or None, got {figure!r}")
        return figures(self.trace, FIGURES if figure is None else (figure,))

    @property
    def state(self) -> dict[str, Any]:
        """What the page starts with: input, weight, settings and plan, as JSON can hold them."""
        return state_of(self.trace, self.title, str(self.plan))

    def page(self) -> str:
        """A whole HTML page that explains this convolution and lets its reader change it, offline.

        Raises:
            ValueError: complex numbers, which the page doesn't compute with.
        """
        return document(self.state)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the page (``.html``), the figures (``.svg``) or the text (``.txt``), whole or not at all.

        Raises:
            ValueError: a name that ends otherwise.
            OSError: a place that can't be written.
        """
        target = Path(path)
        suffix = target.suffix.lower()
        if suffix not in FORMS:
            raise ValueError(f"save to a name ending in one of {FORMS}, got {target.name!r}")
        if not target.parent.is_dir():
            raise FileNotFoundError(f"{target}: there is no folder {target.parent}")
        content = self.text + "\n"
        if suffix != ".txt":
            content = self.page() if suffix == ".html" else self.svg()
        whole = WholeFile(target)
        try:
            whole.file.write(content.encode())
            whole.commit()
        finally:
            whole.discard()
        return target

    def __str__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return f"{self.svg()}<pre>{html.escape(self.text)}</pre>"


def explain(layer: Any, x: Any, **options: Any) -> Explanation:
    """What a convolution does to a signal: shapes, geometry, plan and every step.

    Arguments:
        layer: a one-dimensional convolution layer, torch's or ours, or a weight, as for ``trace``.
        x: one signal: (L,), (C_in, L) or (1, C_in, L).
        options: with a weight: ``stride``, ``padding`` and the like, as for ``trace``.

    Raises:
        ShapeError: a signal that the layer doesn't take, or a batch of several.
        TypeError: something that is no one-dimensional convolution.

    Example:
        >>> import torch, tapwise as tw
        >>> print(tw.explain([1.0, 1.0, 1.0], torch.arange(10.0)).text.splitlines()[-1])
        Final : [ 3.  6.  9. 12. 15. 18. 21. 24.]
    """
    trace, signal, weight, bias = follow(layer, x, options)
    title = str(layer)
    if not isinstance(layer, nn.Module):
        title = f"A weight of shape {tuple(weight.shape)}"
    problem = Problem(
        trace.geometry,
        trace.input.shape[0],
        trace.output.shape[0],
        trace.input.shape[1],
        autocast_dtype(signal),
        signal.device.type,
    )
    return Explanation(title, trace, plan_of(problem, signal[None], weight, bias))
