"""Report: what a model needs of the past and of the future, as numbers, a table and a picture."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

from tapwise.atomic_file import write_atomically
from tapwise.explanation.canvas import Canvas, escape
from tapwise.explanation.model import ModelExplanation
from tapwise.explanation.page import document
from tapwise.explanation.rendering import picture_forms
from tapwise.network.figure import figure
from tapwise.network.graph import Graph
from tapwise.network.operations import Accumulate, Recur, multiplications
from tapwise.network.page_state import network_state
from tapwise.network.receptive_field import Extent, ReceptiveField, extents, receptive_field_of
from tapwise.network.timeline import Windows


@dataclass(frozen=True)
class Leak:
    """An operation through which the future comes in.

    Arguments:
        node: its number in the graph.
        where: the operation and its module.
        samples: how many samples of the signal after its own moment its outputs read.
    """

    where: str
    samples: int
    node: int


@dataclass(frozen=True, eq=False)
class Report:
    """What ``tapwise.inspect`` found. Shows itself in a notebook.

    ``report["path"]`` explains one of the model's convolutions on the example.

    Arguments:
        rate: samples a second of the signal; None: time is said in samples alone.
    """

    title: str
    graph: Graph
    table: ModelExplanation | None
    weights: int
    rate: float | None = None

    @cached_property
    def reach(self) -> ReceptiveField:
        """The receptive field and the delay of the model's first output."""
        return receptive_field_of(self.graph)

    @cached_property
    def extents(self) -> list[Extent]:
        """By operation, which inputs of the model its outputs read."""
        return extents(self.graph)

    @property
    def stride(self) -> Any:
        """Input samples for each output, an exact fraction."""
        return self.reach.stride

    @property
    def receptive_field(self) -> tuple[int | None, int]:
        """The earliest and the latest input that output j reads, relative to ``floor(j * stride)``.

        The earliest is None where all of the past is read.
        """
        return self.reach.first, self.reach.last

    @property
    def count(self) -> int | None:
        """How many inputs an output reads; None where it reads all of the past."""
        return self.reach.count

    @property
    def holes(self) -> int | None:
        """Inputs between the first and the last that it doesn't read."""
        return self.reach.holes

    @cached_property
    def delay(self) -> int:
        """Input samples by which the latest of the outputs comes late; 0 for a causal model."""
        return max(0, *(self.extents[n].latest for n in self.graph.results))

    @property
    def causal(self) -> bool:
        """Whether output j reads no input after ``floor(j * stride)``."""
        return self.delay == 0

    @cached_property
    def leaks(self) -> tuple[Leak, ...]:
        """The operations whose outputs read further into the future than their inputs do."""
        # Padding alone moves an operation back in time: what counts is the furthest that any before it read.
        found: list[Leak] = []
        furthest: list[int] = []
        for number, (node, extent) in enumerate(zip(self.graph.nodes, self.extents, strict=True)):
            before = max((furthest[n] for n in node.inputs), default=0)
            if extent.latest > before:
                found.append(Leak(node.where, extent.latest, number))
            furthest.append(max(before, extent.latest))
        return tuple(found)

    def output_length(self, length: int) -> int:
        """Outputs for a signal of ``length`` samples.

        Raises:
            ValueError: a length that the model doesn't take, as it takes multiples alone.
        """
        if length < 0 or self.graph.missing(length):
            raise ValueError(f"the model takes no signal of {length} samples; {self._time()}")
        return self.graph.totals(length)[self.graph.results[0]]

    @cached_property
    def start_up(self) -> int:
        """Samples that have to come before the first output."""
        result = self.graph.results[0]
        return _least(lambda seen: self.graph.counts(seen)[result][0] > 0)

    @cached_property
    def minimum_input(self) -> int:
        """The fewest samples that give an output."""
        return _least(lambda length: min(self.graph.totals(length)) > 0)

    @cached_property
    def multiplications(self) -> float:
        """Multiplications by weights for each input sample."""
        total = 0.0
        for node, rate in zip(self.graph.nodes, self.graph.rates, strict=True):
            geometry = node.timeline.geometry if isinstance(node.timeline, Windows) else None
            total += float(rate) * multiplications(node.name, node.work, geometry)
        return total

    @cached_property
    def state_bytes(self) -> int:
        """Bytes that a stream of one row keeps between two samples."""
        graph, total = self.graph, 0
        seen = graph.settled
        counts = graph.counts(seen)
        for number, node in enumerate(graph.nodes):
            emitted = counts[number][0]
            if not node.inputs:
                continue
            if isinstance(node.work, Accumulate):
                total += node.dtype.itemsize * _numbers(node.size)
            elif isinstance(node.work, Recur):
                total += sum(s.numel() * s.element_size() for s in node.work.start(1))
            else:
                for source in node.inputs:
                    seen = counts[source][0]
                    kept = seen - node.timeline.first_needed(emitted, seen)
                    total += kept * _numbers(graph.nodes[source].size) * graph.nodes[source].dtype.itemsize
        return total

    # Shown

    @property
    def text(self) -> str:
        """All of it in words, and the table."""
        lines = [self.title, "", *self._facts_lines()]
        if self.leaks:
            lines += ["", "the future comes in through"]
            lines += [f"  {leak.where}: {self._samples(leak.samples)} ahead" for leak in self.leaks[:_LEAKS]]
            if len(self.leaks) > _LEAKS:
                lines.append(f"  and {len(self.leaks) - _LEAKS} more, to {self.leaks[-1].samples} samples")
        if self.table is not None:
            lines += ["", *self.table.text.splitlines()[2:]]
        return "\n".join(lines)

    def facts(self) -> list[tuple[str, str]]:
        """Names and what is said of them: time, receptive field, stride, delay and more."""
        reach = self.reach
        bound = "no more than " if self.is_bound else ""
        if reach.first is None:
            field = f"all of the past, to {reach.last:+d}"
        else:
            holes = f", {reach.holes} holes between" if reach.holes else ""
            field = f"{self._samples(reach.count)}, {reach.first:+d} to {reach.last:+d}{holes}"
            wide = reach.last - reach.first + 1
            if reach.count is not None and reach.holes is not None and reach.count + reach.holes < wide:
                phases = int(self.graph.repeats[self.graph.results[0]] / reach.stride)
                field = (
                    f"{reach.count} samples each{holes}; over the {phases} phases of the outputs, "
                    f"{reach.first:+d} to {reach.last:+d}"
                )
        return [
            ("time", self._time()),
            ("causal", "yes" if self.causal else f"no: it reads {bound}{self._samples(self.delay)} ahead"),
            ("receptive field", bound + field),
            ("stride", f"{reach.stride} of the signal's samples for each output{self._output_rate()}"),
            ("delay", f"{self._samples(self.delay)}; the first output comes after {self._samples(self.start_up)}"),
            ("shortest input", self._samples(self.minimum_input)),
            ("multiplications", f"{self.multiplications:,.0f} for each sample{self._each_second()}"),
            ("bytes", f"{self.weights:,} of weights, {self.state_bytes:,} kept while streaming"),
        ]

    def _samples(self, count: int | None) -> str:
        """A number of samples, and how long they last."""
        lasts = f" ({1e3 * count / self.rate:.3g} ms)" if self.rate and count else ""
        return f"{count} sample{'s' * (count != 1)}{lasts}"

    def _output_rate(self) -> str:
        return f": {self.rate:g} Hz in, {float(self.rate / self.stride):g} Hz out" if self.rate else ""

    def _each_second(self) -> str:
        return f", {self.multiplications * self.rate:,.0f} a second" if self.rate else ""

    def _time(self) -> str:
        """Which axis of the input is time, and which lengths the model takes."""
        graph = self.graph
        source = graph.nodes[0].size
        shown = ["length" if axis == source.time else str(n) for axis, n in enumerate(source.of(graph.batch, 0))]
        words = f"axis {source.time} of the input ({', '.join(shown)})"
        if graph.multiple > 1:
            rest = graph.example_length % graph.multiple
            words += f"; lengths: multiples of {graph.multiple}" + (f" and {rest} more" if rest else "")
        if graph.n_sources > 1:
            words += f"; the inputs {', '.join(map(str, graph.places))} are signals"
        return words

    @cached_property
    def is_bound(self) -> bool:
        """Whether the receptive field and the delay say what is read at most: channels that were joined, then parted."""
        reached = set(self.graph.results)
        for number in range(len(self.graph.nodes) - 1, -1, -1):
            if number in reached:
                if self.graph.nodes[number].is_bound:
                    return True
                reached.update(self.graph.nodes[number].inputs)
        return False

    def _facts_lines(self) -> list[str]:
        return [f"{name:<16} {value}" for name, value in self.facts()]

    def svg(self) -> str:
        """What one output reads, operation by operation, as an SVG image."""
        return self._drawn().svg()

    def _drawn(self) -> Canvas:
        return figure(self.graph, self.extents, self.title)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the report (``.txt``), the picture (``.svg``, ``.png``, ``.pdf``) or both (``.html``), complete or not at all.

        Raises:
            ValueError: a name that ends otherwise.
            OSError: a place that can't be written.
        """
        forms = {".txt": lambda: self.text + "\n", ".html": self.page}
        return write_atomically(path, {**forms, **picture_forms(self._drawn)})

    def page(self) -> str:
        """The network as an HTML page: its operations, what they read, and each convolution's own page within."""
        leaks = {leak.node: leak.samples for leak in self.leaks}
        network = network_state(self.title, self.facts(), self.graph, self.extents, leaks, self.table)
        return document({"title": self.title, "network": network})

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><th scope="row">{name}</th><td style="white-space:normal">{escape(value)}</td></tr>'
            for name, value in self.facts()
        )
        leaks = "".join(
            f"<li>{escape(leak.where)}: {self._samples(leak.samples)} ahead</li>" for leak in self.leaks[:_LEAKS]
        )
        more = f"<li>and {len(self.leaks) - _LEAKS} more</li>" if len(self.leaks) > _LEAKS else ""
        future = f"<p>The future comes in through</p><ul>{leaks}{more}</ul>" if leaks else ""
        table = "" if self.table is None else self.table._repr_html_()
        return f"<h3>{escape(self.title)}</h3><table>{rows}</table>{future}{self.svg()}{table}"

    def __getitem__(self, path: str | int) -> Any:
        """The explanation of one of the model's convolutions, by its path or place in the table."""
        if self.table is None:
            raise KeyError("the model has no convolution layers")
        return self.table[path]


_LEAKS = 8


def _numbers(size: Any) -> int:
    return prod(entry for axis, entry in enumerate(size.of(1, 1)) if axis != size.time)


def _least(holds: Any) -> int:
    """The least count for which something holds that goes on holding."""
    most = 1
    while not holds(most):
        most *= 2
        if most > 1 << 40:
            raise ValueError("the model gives no output, however long its input")
    low = most // 2
    while most - low > 1:
        middle = (low + most) // 2
        low, most = (low, middle) if holds(middle) else (middle, most)
    return most
