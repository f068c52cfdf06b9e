"""Stack: convolutions one after the other, and what one output of the last reads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path

from tapwise.atomic_file import write_atomically
from tapwise.errors import ShapeError
from tapwise.explanation.canvas import Canvas
from tapwise.explanation.diagrams import cone
from tapwise.explanation.rendering import picture_forms
from tapwise.geometry import Geometry


@dataclass(frozen=True)
class Stack:
    """Layers without branches, by their geometries, or the convolution layers themselves.

    Raises:
        ShapeError: no layer, or a transposed one.
        TypeError: something that is neither a geometry nor a convolution; what works sample by sample,
            as an activation, is left out of the list.

    Example:
        >>> stack = Stack([Geometry(2, dilation=d, padding="causal") for d in (1, 2, 4)])
        >>> stack.first, stack.last, stack.count, stack.holes
        (-7, 0, 8, 0)
    """

    geometries: Sequence[Geometry]

    def __post_init__(self) -> None:
        layers = [layer if isinstance(layer, Geometry) else Geometry.of(layer) for layer in self.geometries]
        object.__setattr__(self, "geometries", tuple(layers))
        if not self.geometries or any(g.transposed for g in self.geometries):
            raise ShapeError("a stack is of convolutions that are not transposed, at least one")

    def reads(self, output: int) -> list[tuple[int, ...]]:
        """The positions that one output reads: of the last layer itself first, of the input last."""
        levels: list[tuple[int, ...]] = [(output,)]
        for geometry in reversed(self.geometries):
            met = {p for i in levels[-1] for p in geometry.window(i)}
            levels.append(tuple(sorted(met)))
        return levels

    @cached_property
    def _field(self) -> tuple[int, ...]:
        return self.reads(0)[-1]

    @property
    def stride(self) -> int:
        """Inputs from one output of the last layer to the next."""
        return prod(geometry.stride for geometry in self.geometries)

    @property
    def first(self) -> int:
        """The earliest input that output i reads, relative to ``i * stride``."""
        return self._field[0]

    @property
    def last(self) -> int:
        """The latest, relative to ``i * stride``: above 0, it lies in the future."""
        return self._field[-1]

    @property
    def count(self) -> int:
        """How many inputs one output reads."""
        return len(self._field)

    @property
    def holes(self) -> int:
        """Inputs between the first and the last that it doesn't read."""
        return self.last - self.first + 1 - self.count

    def svg(self) -> str:
        """One output and all that it reads, layer by layer, as an SVG image."""
        return self._drawn().svg()

    def _drawn(self) -> Canvas:
        output = max(0, -(self.first // self.stride))
        words = str(self)
        strides = [prod(g.stride for g in self.geometries[:n]) for n in range(len(self.geometries) + 1)]
        windows = [g.window for g in self.geometries]
        return cone(self.reads(output)[::-1], strides, windows, words)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the figure (``.svg``, ``.png``, ``.pdf``), complete or not at all."""
        return write_atomically(path, picture_forms(self._drawn))

    def __str__(self) -> str:
        holes = f", {self.holes} holes" if self.holes else ""
        future = f"sees {self.last} ahead" if self.last > 0 else "causal"
        return f"reads {self.count} of {self.last - self.first + 1} samples{holes}; {future}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.svg()
