"""Explain: one value that holds trace and plan, and gives them as text, picture and file."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from operator import index
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from tapwise.atomic_file import write_atomically
from tapwise.engine.checks import autocast_dtype
from tapwise.engine.plan import Plan, plan_of
from tapwise.engine.problem import Problem
from tapwise.engine.threads import leave_lost_pool
from tapwise.errors import ShapeError
from tapwise.explanation.candidates import Candidate, candidates, table
from tapwise.explanation.canvas import Canvas, escape
from tapwise.explanation.page import document, frame, state_of
from tapwise.explanation.pooling import KINDS
from tapwise.explanation.rendering import animation, picture_forms
from tapwise.explanation.steps import Trace
from tapwise.explanation.svg import FIGURES, USUAL, figures, shown_outputs
from tapwise.explanation.text import text_of_explanation
from tapwise.explanation.trace import follow, is_convolution, one_signal
from tapwise.explanation.widget import has_widgets, widget
from tapwise.explanation.wrapped import convolutions_of, unwrapped


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
    _ran: tuple[Problem, Tensor, Tensor, Tensor | None]

    @property
    def candidates(self) -> list[Candidate]:
        """Every kernel that could run this, timed now on this signal: measured and predicted seconds.

        Example:
            >>> import torch, tapwise as tw
            >>> seen = tw.explain(torch.nn.Conv1d(1, 1, 3), torch.zeros(1, 50)).candidates
            >>> [row.kernel for row in seen if row.chosen]
            ['native']
        """
        problem, signal, weight, bias = self._ran
        if self.plan is _POOLED:
            return []
        return candidates(problem, self.plan, signal, weight, bias)

    def why(self) -> str:
        """Why this kernel: the plan, and the measured time of each candidate, as text."""
        return str(self.plan) if self.plan is _POOLED else f"{self.plan}\n\n{table(self.candidates)}"

    @property
    def text(self) -> str:
        """Shapes, geometry, the length formula with the numbers put in, the steps, and the plan."""
        return text_of_explanation(self.trace, self.title, str(self.plan))

    @property
    def lesson(self) -> str:
        """The text without the plan."""
        return text_of_explanation(self.trace, self.title)

    def svg(self, figure: str | None = None, *, output: int = 0, slide: bool = False) -> str:
        """The figures as one SVG image.

        Arguments:
            figure: ``"window"`` (samples, taps over one output's window, products, sum, outputs), ``"shapes"`` (of
                x, weight and output), ``"sources"`` (which samples each output is tied to),
                ``"channels"`` (which channels read which), ``"response"`` (impulse, magnitude and
                delay of the taps) or ``"kernel"`` (the taps to scale); None for the first three, one under the other.
            output: whose window is drawn.
            slide: a page of 16 to 9, for a lecture.

        Raises:
            ValueError: a figure of another name.
            IndexError: there is no such output.

        Example:
            >>> import torch, tapwise as tw
            >>> tw.explain([1.0, 1.0, 1.0], torch.arange(10.0)).svg("window", output=5)[:4]
            '<svg'
        """
        return self._drawn(figure, output).svg(slide)

    def _drawn(self, figure: str | None = None, output: int = 0, hidden: bool = False) -> Canvas:
        if figure is not None and figure not in FIGURES:
            names = ", ".join(map(repr, FIGURES))
            raise ValueError(f"figure must be one of {names} or None, got {figure!r}")
        count = self.trace.output.shape[1]
        try:
            at = index(output)
        except TypeError:
            at = -1
        if not 0 <= at < max(count, 1):
            raise IndexError(f"output must be from 0 to {count - 1}, got {output!r}")
        return figures(self.trace, USUAL if figure is None else (figure,), at, hidden)

    def _refuse(self, suffix: str, figure: str | None, output: int, slide: bool) -> None:
        """Refuse what there isn't, and what a file of this kind has no use for."""
        self._drawn(figure, output)
        if suffix in (".html", ".txt") and (figure or output or slide):
            raise ValueError(f"figure, output and slide are of pictures, not of {suffix}: save as .svg, .png or .pdf")
        if suffix in (".gif", ".apng") and (figure not in (None, "window") or output):
            raise ValueError(f"{suffix} shows the window at one output after the other: give no figure and no output")

    def _animated(self, kind: str, slide: bool) -> bytes:
        """The window at one output after the other, as many as there is room for."""
        frames = [self._drawn("window", i, hidden=True) for i in shown_outputs(self.trace)]
        for canvas in frames:
            canvas.height = max(other.height for other in frames)
        if not frames:
            raise ValueError("there is no output, so nothing moves: save as .svg or .txt")
        return animation(frames, kind, slide)

    @property
    def state(self) -> dict[str, Any]:
        """What the page starts with: input, weight, settings and plan, as JSON can hold them."""
        return state_of(self.trace, self.title, str(self.plan))

    def state_within(self, most: int) -> dict[str, Any]:
        """The same of at most about so many numbers, rounded to six digits: what is left out is said."""
        return state_of(self.trace, self.title, str(self.plan), most)

    def page(self) -> str:
        """A whole HTML page that explains this convolution and lets its reader change it, offline.

        Raises:
            ValueError: complex numbers, which the page doesn't compute with.
        """
        return document(self.state)

    def widget(self) -> Any:
        """The page as a notebook's widget; its ``state`` follows what the reader does, and can be set.

        Raises:
            MissingPackageError: anywidget is not installed: ``pip install 'tapwise[notebook]'``.
        """
        return widget(self.state)

    def save(
        self, path: str | os.PathLike[str], figure: str | None = None, *, output: int = 0, slide: bool = False
    ) -> Path:
        """Write the page, a picture, an animation or the text, by the name's ending, complete or not at all.

        Arguments:
            path: ``.html``: the page. ``.svg``, ``.png``, ``.pdf``: the figures. ``.gif``, ``.apng``: the taps
                sliding from the first output on. ``.txt``: the text.
            figure, output, slide: of a picture, as for ``svg``; ``slide`` of an animation, too.

        Raises:
            ValueError: a name that ends otherwise; a figure of another name.
            IndexError: there is no such output.
            MissingPackageError: a picture that isn't SVG, without matplotlib: ``pip install 'tapwise[figures]'``.
            OSError: a place that can't be written.
        """
        self._refuse(Path(path).suffix.lower(), figure, output, slide)
        forms: dict[str, Callable[[], str | bytes]] = {
            ".html": self.page,
            **picture_forms(lambda: self._drawn(figure, output), slide),
            ".gif": lambda: self._animated("gif", slide),
            ".apng": lambda: self._animated("apng", slide),
            ".txt": lambda: self.text + "\n",
        }
        return write_atomically(path, forms)

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"{self.svg()}<pre>{escape(self.text)}</pre>"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        """The page in a frame where notebooks are meant to be rich, else the figures and the text.

        The frame needs no kernel and no network, and stays in a notebook that is exported; ``widget``
        is the same page tied to Python.
        """
        complex_numbers = np.iscomplexobj(self.trace.input) or np.iscomplexobj(self.trace.weight)
        still = complex_numbers or bool(self.trace.pooling) or not has_widgets()
        shown = self._repr_html_() if still else frame(self.state)
        return {"text/plain": self.text, "text/html": shown, "image/svg+xml": self.svg()}


def is_model(layer: Any, x: Any) -> bool:
    """Whether a module holds convolutions and does more than one of them: its layers are explained, each by itself."""
    return isinstance(layer, nn.Module) and not (is_convolution(layer) or isinstance(layer, KINDS) or _wraps(layer, x))


def explain(layer: Any, x: Any, **options: Any) -> Explanation:
    """What one convolution, or pooling, does to a signal; ``network.explain.explain`` takes models, too."""
    leave_lost_pool()
    trace, signal, weight, bias = follow(layer, x, options)
    title = _named(layer) if isinstance(layer, nn.Module) else f"A weight of shape {tuple(weight.shape)}"
    if isinstance(layer, nn.Module) and not (is_convolution(layer) or isinstance(layer, KINDS)):
        path = convolutions_of(layer)[0]
        title = f"{type(layer).__name__}, by its {path}: {_named(layer.get_submodule(path))}"
    problem = Problem(
        trace.geometry,
        trace.input.shape[0],
        trace.output.shape[0],
        trace.input.shape[1],
        autocast_dtype(signal),
        signal.device.type,
    )
    plan = plan_of(problem, signal[None], weight, bias) if not isinstance(layer, KINDS) else _POOLED
    return Explanation(title, trace, plan, (problem, signal, weight, bias))


def _named(layer: nn.Module) -> str:
    """A layer in one line; what computes its weight, as weight norm, stands in further ones."""
    return f"{type(layer).__name__}({layer.extra_repr()})" if "\n" in str(layer) else str(layer)


_POOLED = Plan("native", "pooling is torch's own operation")


def _wraps(module: nn.Module, x: Any) -> bool:
    """Whether a module is one convolution with padding before it or outputs dropped after it, and no container."""
    if isinstance(module, nn.Sequential) or len(paths := convolutions_of(module)) != 1:
        return False
    layer: Any = module.get_submodule(paths[0])
    try:
        found = unwrapped(module, one_signal(x, layer.weight))
    except (ShapeError, TypeError, RuntimeError, ValueError):  # a model that takes another input
        return False
    return found is not None and found.kept is not None and found.does_more
