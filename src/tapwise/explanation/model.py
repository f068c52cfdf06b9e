"""Model: the convolutions of a network as a table, each with an explanation of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.benchmark import Timer

from tapwise.atomic_file import write_atomically
from tapwise.engine.checks import autocast_dtype
from tapwise.engine.plan import Plan, plan_of
from tapwise.engine.problem import Problem
from tapwise.errors import ShapeError, TimelineError
from tapwise.evaluation import evaluating
from tapwise.explanation.canvas import escape, style_of_figures
from tapwise.geometry import Geometry


@dataclass(frozen=True, eq=False)
class Layer:
    """A convolution within a model, at its first call.

    Arguments:
        path: its name within the model, as ``model.get_submodule`` takes it.
        layer: the layer itself.
        input: the input, (B, C_in, L) or (C_in, L).
        output: the shape of the output.
        geometry: its geometry.
        plan: which kernel Tapwise would run it by.
        seconds: the layer's own time on that input, the minimum of a few runs.
        calls: how often the model called it.
    """

    path: str
    layer: nn.Module
    input: Tensor
    output: tuple[int, ...]
    geometry: Geometry
    plan: Plan
    seconds: float
    calls: int

    @property
    def signal(self) -> Tensor:
        """The first row of the input's batch."""
        return self.input[0] if self.input.ndim == 3 else self.input


@dataclass(frozen=True, eq=False)
class ModelExplanation:
    """The convolutions of a model, in the order in which it calls them. Shows itself in a notebook.

    ``explanation["path"]`` explains one of them, on the signal that reached it.

    Example:
        >>> import torch, tapwise as tw
        >>> model = torch.nn.Sequential(torch.nn.Conv1d(1, 4, 3), torch.nn.Conv1d(4, 2, 5, stride=2))
        >>> seen = tw.explain(model, torch.zeros(1, 1, 20))
        >>> [layer.path for layer in seen], seen["1"].trace.output.shape
        (['0', '1'], (2, 7))
    """

    title: str
    layers: tuple[Layer, ...]
    unseen: tuple[str, ...]
    _explain: Callable[[Any, Tensor], Any]
    columns: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    example: Any = None
    _network: Callable[[], str] | None = None

    def with_network(self, page: Callable[[], str]) -> ModelExplanation:
        """The same, whose page is that of the whole network where it can be read."""
        return replace(self, _network=page)

    def with_columns(self, columns: Mapping[str, Mapping[str, str]]) -> ModelExplanation:
        """The same table with further columns: by their heads, what stands there for each path."""
        return replace(self, columns={**self.columns, **columns})

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, path: str | int) -> Any:
        """The explanation of one layer, by its path or its place in the table.

        Raises:
            KeyError: no convolution of that path was called.
            IndexError: the table is shorter.
        """
        if isinstance(path, int):
            path = self.layers[path].path
        for layer in self.layers:
            if layer.path == path:
                return self._explain(layer.layer, layer.signal)
        names = ", ".join(layer.path for layer in self.layers)
        raise KeyError(f"no convolution {path!r} was called; there are {names}")

    def _rows(self) -> list[tuple[str, ...]]:
        return [
            (
                layer.path or "the model itself",
                _brief(layer.geometry),
                _size(layer.input.shape),
                _size(layer.output),
                layer.plan.kernel,
                f"{layer.seconds * 1e3:.3g} ms",
                str(layer.calls),
                *(column.get(layer.path, "") for column in self.columns.values()),
            )
            for layer in self.layers
        ]

    @property
    def _head(self) -> tuple[str, ...]:
        return (*_HEAD, *self.columns)

    @property
    def text(self) -> str:
        """The table."""
        rows = [self._head, *self._rows()]
        widths = [max(len(row[n]) for row in rows) for n in range(len(self._head))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        if self.unseen:
            lines += ["", f"not called: {', '.join(self.unseen)}"]
        return "\n".join([self.title, "", *lines])

    def page(self) -> str:
        """An HTML page: the network's operations, what they read, and each convolution's own page within.

        Of a network that isn't read: the table, each layer with its figures, its steps and its plan beneath.
        """
        if self._network is None:
            return page_around(self.title, self._repr_html_())
        try:
            return self._network()
        except (TimelineError, ValueError, TypeError, RuntimeError) as error:  # of what isn't read, the table
            note = f"<p>The network's operations are not drawn: {escape(str(error))}</p>"
            return page_around(self.title, note + self._repr_html_())

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the page (``.html``) or the table (``.txt``), complete or not at all.

        Raises:
            ValueError: a name that ends otherwise.
            OSError: a place that can't be written.
        """
        return write_atomically(path, {".html": self.page, ".txt": lambda: self.text + "\n"})

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col">{cell}</th>' for cell in self._head)
        rows, parts = [], []
        for n, (layer, cells) in enumerate(zip(self.layers, self._rows(), strict=True)):
            first, *rest = (escape(cell) for cell in cells)
            place = f"tw-{id(self)}-{n}"
            link = f'<td><a href="#{place}">{first}</a></td>'
            rows.append(f"<tr>{link}{''.join(f'<td>{cell}</td>' for cell in rest)}</tr>")
            try:
                shown = self._explain(layer.layer, layer.signal)
                inner = f"{shown.svg()}<pre>{escape(shown.text)}</pre>"
            except (TypeError, ShapeError) as error:  # a layer that does more than its settings say
                inner = f"<p>{escape(str(error))}</p>"
            # A link to what lies within opens the details around it.
            parts.append(f'<details><summary>{first}</summary><div id="{place}">{inner}</div></details>')
        unseen = f"<p>not called: {escape(', '.join(self.unseen))}</p>" if self.unseen else ""
        return (
            f"<h3>{escape(self.title)}</h3><table><thead><tr>{head}</tr></thead>"
            f"<tbody>{''.join(rows)}</tbody></table>{unseen}{''.join(parts)}"
        )


_HEAD = ("layer", "geometry", "input", "output", "kernel", "measured", "calls")
_STYLE = """
body{font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;color:var(--ink);background:var(--page);
margin:0 auto;padding:16px;max-width:1180px;overflow-wrap:anywhere}
table{border-collapse:collapse;font-size:14px;display:block;overflow-x:auto}
td,th{border:1px solid var(--line);padding:4px 8px;text-align:left;white-space:nowrap}
a{color:var(--xe)}details{margin:8px 0}pre{overflow-x:auto}svg{max-width:100%;height:auto}
"""


def page_around(title: str, body: str) -> str:
    """An HTML page of its own around what a notebook would show."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{style_of_figures()}{_STYLE}</style></head>"
        f'<body class="tw">{body}</body></html>\n'
    )


def explain_model(model: nn.Module, x: Any, explain: Callable[[Any, Tensor], Any]) -> ModelExplanation:
    """The convolutions that a model calls on an input, with shapes, plans and measured times.

    The model runs as in evaluation, and is left as it was.

    ``explain`` is what explains one of them.

    Raises:
        TypeError: a model without a one-dimensional convolution, or that calls none on this input.
    """
    kinds = (nn.Conv1d, nn.ConvTranspose1d)
    convolutions = {path: module for path, module in model.named_modules() if isinstance(module, kinds)}
    if not convolutions:
        raise TypeError(
            f"this {type(model).__name__} holds no one-dimensional convolution: nn.Conv1d, "
            "nn.ConvTranspose1d or one of Tapwise's"
        )
    calls: dict[str, list[tuple[Tensor, tuple[int, ...]]]] = {}
    hooks = []
    for path, module in convolutions.items():

        def enters(layer: nn.Module, given: tuple[Any, ...], named: dict[str, Any], path: str = path) -> None:
            x = given[0] if given else named["input"]
            # The first input is copied: the model may write over it later.
            kept = x if path in calls else x.detach().clone()
            calls.setdefault(path, []).append((kept, ()))

        def leaves(layer: nn.Module, given: Any, output: Tensor, path: str = path) -> None:
            calls[path][-1] = (calls[path][-1][0], tuple(output.shape))

        hooks.append(module.register_forward_pre_hook(enters, with_kwargs=True))
        hooks.append(module.register_forward_hook(leaves))
    try:
        with evaluating(model):  # looking leaves no trace: no statistics, no random numbers
            model(*x) if isinstance(x, tuple) else model(x)
    finally:
        for hook in hooks:
            hook.remove()
    if not calls:
        raise TypeError(f"{type(model).__name__} called none of its convolutions on this input")
    layers = tuple(_layer(path, convolutions[path], found) for path, found in calls.items())
    return ModelExplanation(
        f"{type(model).__name__}: {len(layers)} convolution{'s' * (len(layers) > 1)}",
        layers,
        tuple(path for path in convolutions if path not in calls),
        explain,
        example=x,
    )


def _layer(path: str, module: Any, found: list[tuple[Tensor, tuple[int, ...]]]) -> Layer:
    x, output = found[0]
    geometry = Geometry.of(module)
    signal = x if x.ndim == 3 else x[None]
    problem = Problem(geometry, module.in_channels, module.out_channels, x.shape[-1], autocast_dtype(x), x.device.type)
    plan = plan_of(problem, signal, module.weight, module.bias)
    # Without the hooks that others put on the layer.
    timer = Timer("forward(x)", globals={"forward": module.forward, "x": x}, num_threads=torch.get_num_threads())
    with torch.no_grad():
        least = min(timer.timeit(1).times[0] for _ in range(3))
    return Layer(path, module, x, output, geometry, plan, least, len(found))


def _brief(geometry: Geometry) -> str:
    """The settings that are not the usual ones."""
    usual = {"stride": 1, "dilation": 1, "padding": (0, 0), "groups": 1, "output_padding": 0}
    words = [f"kernel_size={geometry.kernel_size}"]
    words += [f"{name}={value}" for name, plain in usual.items() if (value := getattr(geometry, name)) != plain]
    words += [f"padding_mode={geometry.padding_mode}"] if geometry.padding_mode != "zeros" else []
    return ", ".join([*words, "transposed"] if geometry.transposed else words)


def _size(shape: Any) -> str:
    return "x".join(str(n) for n in shape)
