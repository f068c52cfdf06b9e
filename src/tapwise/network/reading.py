"""Reading: runs of a model become a graph, checked against runs of other lengths."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from torch import nn

from tapwise.errors import TimelineError
from tapwise.network import rules
from tapwise.network.bundle import Bundle
from tapwise.network.graph import Graph, Node
from tapwise.network.operations import Size, Work
from tapwise.network.recording import Recording, Slot
from tapwise.network.runs import Runs
from tapwise.network.timeline import Aligned, Timeline

RUNS = 16
# Lengths beyond the first: next to it, where remainders show, and apart, where multiples do.
_MORE = (1, 2, 3, 5, 8, 64, 521, 2053)
# Numbers that a run may compute, for it to be one of the longer ones.
_NUMBERS = (2e8, 3e7)


class Reader:
    """Builds a graph from runs that made the same calls.

    Arguments:
        runs: of the model, the first of them with one batch.
        rows: the batch of each.
    """

    def __init__(self, runs: Sequence[Recording], rows: Sequence[int], time: int) -> None:
        self.runs = runs
        self.rows = rows
        self.one_batch = [n for n, many in enumerate(rows) if many == rows[0]]
        self.nodes: list[Node] = []
        self.rates = [Fraction(1)]  # of nodes
        self.numbers: dict[int, int] = {}  # of nodes, by values
        sizes = [run.sizes[0] for run in runs]
        entries = tuple(0 if axis == time else size for axis, size in enumerate(sizes[0]))
        batch = ((0, 1),) if len({size[0] for size in sizes}) > 1 and time != 0 else ()
        source = Node("", "input", (), Aligned(), None, Size(entries, time, batch), value=0)
        source.kind = runs[0].kinds[0]
        self.nodes.append(source)
        self.numbers[0] = 0

    def number(self, value: int, bundle: Bundle) -> int:
        """The node that a tensor of the signal came from."""
        if value not in self.numbers:
            raise bundle.refuse(
                "reads what depends on the end of the signal, as a recurrence's last state",
                "use its outputs, sample by sample",
            )
        return self.numbers[value]

    def node(self, value: int, bundle: Bundle) -> Node:
        """The node itself."""
        return self.nodes[self.number(value, bundle)]

    def add(
        self, bundle: Bundle, timeline: Timeline, work: Work, inputs: tuple[int, ...], size: Size,
        value: int | None, **more: Any,
    ) -> int:  # fmt: skip
        """A node for a call, or for a step of it."""
        node = Node(bundle.path, bundle.name, inputs, timeline, work, size, value=value, **more)
        node.kind = self.nodes[inputs[0]].kind if value is None else self.runs[0].kinds[value]
        self.nodes.append(node)
        self.rates.append(self.rates[inputs[0]] * timeline.rate)
        if value is not None:
            self.numbers[value] = len(self.nodes) - 1
        return len(self.nodes) - 1

    def read(self) -> None:
        """Turn every call into nodes."""
        first = self.runs[0].calls
        for run in self.runs[1:]:
            for one, other in zip(first, run.calls, strict=False):
                if (one.name, one.path, one.outputs, one.slots) != (
                    other.name, other.path, other.outputs, other.slots,
                ):  # fmt: skip
                    raise _other_calls(one.path, one.name)
            if len(run.calls) != len(first):
                longer = max(first, run.calls, key=len)
                extra = longer[min(len(first), len(run.calls))]
                raise _other_calls(extra.path, extra.name)
        for calls in zip(*(run.calls for run in self.runs), strict=True):
            bundle = Bundle(self, calls)
            if all(slot in self.numbers for slot in bundle.slots):
                rules.rule_of(bundle)(bundle)
            # else it reads what no rule gave a node, as a recurrence's last state: an error if it is used

    def graph(self, batches: bool) -> Graph:
        """The graph, without what the model's output doesn't need."""
        run = self.runs[0]
        assert run.spec is not None
        leaves = []
        for other in self.runs[1:]:
            if other.spec != run.spec or any(
                isinstance(one, Slot | int | float | str | bool) and one != two
                for one, two in zip(run.leaves, other.leaves, strict=True)
            ):
                raise TimelineError(
                    "what the model returns, besides the signal, depends on its length", "", "output",
                    "return sequences alone, from a small module around the model",
                )  # fmt: skip
        for leaf in run.leaves:
            if isinstance(leaf, Slot) and leaf.value not in self.numbers:
                raise TimelineError(
                    "the model returns what depends on the end of the signal", "", "output",
                    "return sequences alone, from a small module around the model",
                )  # fmt: skip
            leaves.append(self.numbers[leaf.value] if isinstance(leaf, Slot) else leaf)
        wanted = {
            leaf for leaf, slot in zip(leaves, run.leaves, strict=True) if isinstance(slot, Slot)
        }
        if not wanted:
            raise TimelineError(
                "nothing that the model returns came of the signal by torch's operations", "", "output",
                "check that the first of its inputs is the signal; what is compiled or scripted can't be read",
            )  # fmt: skip
        for number in range(len(self.nodes) - 1, -1, -1):
            if number in wanted:
                node = self.nodes[number]
                wanted.update(node.inputs)
                wanted.update(() if node.reference is None else (node.reference,))
        order = sorted(wanted | {0})
        places = {number: place for place, number in enumerate(order)}
        nodes = []
        for number in order:
            node = self.nodes[number]
            node.inputs = tuple(places[n] for n in node.inputs)
            node.reference = None if node.reference is None else places[node.reference]
            nodes.append(node)
        outputs = [
            places[leaf] if isinstance(slot, Slot) else (leaf,)
            for leaf, slot in zip(leaves, run.leaves, strict=True)
        ]
        return Graph(nodes, outputs, run.spec, self.rows[0], batches, calls=len(run.calls))


def _other_calls(path: str, name: str) -> TimelineError:
    return TimelineError(
        "the model calls other operations for signals of other lengths", path, name,
        "keep loops and branches free of the signal's length, or tapwise.register the module",
    )  # fmt: skip


def read(model: nn.Module, example: Any, time: int | None = None) -> tuple[Graph, Runs]:
    """A model as a graph of operations with timelines, and what runs it.

    The model is run some twenty times, as in evaluation, with random numbers of the example's kind:
    what depends on the signal's length is fitted, then held against other lengths.

    Arguments:
        example: a tensor that the model takes, or a tuple of its inputs, the signal first.
        time: the signal's axis of time; None finds it.

    Raises:
        TimelineError: an operation that can't be followed, by the path of its module, with a remedy.
    """
    runs = Runs(model, example, time)
    base = runs.shortest()
    first = runs.run(runs.signal(base))
    made = [first, *(runs.run(runs.signal(base + more)) for more in _affordable(first, base))]
    others = _other_batch(runs, base, first)
    tried = {base + more for more in (0, *_MORE)}
    while True:
        rows = [runs.rows] * len(made) + [runs.rows + 1] * len(others)
        reader = Reader([*made, *others], rows, runs.time)
        reader.read()
        graph = reader.graph(bool(others))
        wrong = _wrong(graph, runs, base)
        if wrong is None:
            return graph, runs
        length, run = wrong
        if length in tried:
            check_lengths(graph, run, length)
        tried.add(length)
        made.append(run)  # what it shows was not seen before: fit anew


def _affordable(first: Recording, base: int) -> list[int]:
    """How much longer than the first the further runs are: less where each sample costs much."""
    numbers = sum(math.prod(size) for size in first.sizes) / base
    return [more for more in _MORE if numbers * (base + more) <= _NUMBERS[more > 521] or more <= 64]


def _other_batch(runs: Runs, length: int, like: Recording) -> list[Recording]:
    """A run with one row more, where the first axis is the batch's and the model takes it."""
    if runs.time == 0:
        return []
    try:
        other = runs.run(runs.signal(length, runs.rows + 1))
    except Exception:
        return []
    same = [call.name for call in other.calls] == [call.name for call in like.calls]
    axes = [len(size) for size in other.sizes] == [len(size) for size in like.sizes]
    return [other] if same and axes else []


def _wrong(graph: Graph, runs: Runs, base: int) -> tuple[int, Recording] | None:
    """The first of runs at other lengths in which an operation gave another length than the graph says."""
    period = graph.period
    dice = random.Random(0)
    rests = list(range(period)) if period <= RUNS else dice.sample(range(period), RUNS)
    while len(rests) < RUNS:
        rests.append(dice.randrange(period))
    spread = max(1, 64 // period)
    for rest in rests:
        length = base + (rest - base) % period + period * dice.randrange(spread)
        run = runs.run(runs.signal(length))
        if len(run.calls) != graph.calls:
            raise _other_calls("", "forward")
        try:
            check_lengths(graph, run, length)
        except TimelineError:
            return length, run
    return None


def check_lengths(graph: Graph, run: Recording, length: int) -> None:
    """Raise where an operation of a run gave another length than the graph says."""
    for node, total in zip(graph.nodes, graph.totals(length), strict=True):
        if node.value is None:
            continue
        found = run.sizes[node.value][node.size.time]
        if found != total:
            raise TimelineError(
                f"gave {found} samples where its timeline says {total}, for a signal of {length}",
                node.path, node.name,
                "its lengths are neither the same nor up to a multiple: make them so, or "
                "tapwise.register its module",
            )  # fmt: skip
