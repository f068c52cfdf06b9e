"""GraphBuilder: the nodes of a graph, as the rules add them, and the graph that they make."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from tapwise.errors import TimelineError
from tapwise.network.graph import Graph, Node
from tapwise.network.operations import Size
from tapwise.network.record import Recording, Ref
from tapwise.network.timeline import Aligned


class GraphBuilder:
    """Builds a graph from runs that made the same calls.

    Arguments:
        runs: of the model, the first of them with one batch.
        rows: the batch of each.
    """

    def __init__(self, runs: Sequence[Recording], rows: Sequence[int], time: int) -> None:
        self.runs = runs
        self.rows = rows
        self.one_batch = [n for n, count in enumerate(rows) if count == rows[0]]
        self.nodes: list[Node] = []
        self.rates = [Fraction(1)]  # of nodes
        self.numbers: dict[int, int] = {}  # of nodes, by the tensors' numbers
        sizes = [run.sizes[0] for run in runs]
        entries = tuple(0 if axis == time else size for axis, size in enumerate(sizes[0]))
        batch = ((0, 1),) if len({size[0] for size in sizes}) > 1 and time != 0 else ()
        source = Node("", "input", (), Aligned(), None, Size(entries, time, batch), value=0)
        source.dtype = runs[0].dtypes[0]
        self.nodes.append(source)
        self.numbers[0] = 0

    def number(self, value: int, path: str, name: str) -> int:
        """The node that a tensor of the signal came from; ``path`` and ``name`` of the call that reads it."""
        if value not in self.numbers:
            raise TimelineError(
                "reads what depends on the end of the signal, as a recurrence's last state",
                path,
                name,
                "use its outputs, sample by sample",
            )
        return self.numbers[value]

    def rate_of(self, value: int) -> Fraction:
        """The samples of a tensor of the signal for each of the signal's."""
        return self.rates[self.numbers[value]]

    def add(self, node: Node, value: int | None) -> int:
        """Add a node, whose output is the tensor ``value`` of the runs, or an intermediate step's."""
        node.value = value
        first = node.inputs[0]
        node.dtype = self.nodes[first].dtype if value is None else self.runs[0].dtypes[value]
        self.nodes.append(node)
        self.rates.append(self.rates[first] * node.timeline.rate)
        if value is not None:
            self.numbers[value] = len(self.nodes) - 1
        return len(self.nodes) - 1

    def graph(self, batches: bool) -> Graph:
        """The graph, without what the model's output doesn't need."""
        run = self.runs[0]
        assert run.spec is not None
        leaves = []
        for other in self.runs[1:]:
            if other.spec != run.spec or any(
                isinstance(one, Ref | int | float | str | bool) and one != two
                for one, two in zip(run.leaves, other.leaves, strict=True)
            ):
                raise TimelineError(
                    "what the model returns, besides the signal, depends on its length",
                    "",
                    "output",
                    "return sequences alone, from a small module around the model",
                )
        for leaf in run.leaves:
            if isinstance(leaf, Ref) and leaf.value not in self.numbers:
                raise TimelineError(
                    "the model returns what depends on the end of the signal",
                    "",
                    "output",
                    "return sequences alone, from a small module around the model",
                )
            leaves.append(self.numbers[leaf.value] if isinstance(leaf, Ref) else leaf)
        wanted = {leaf for leaf, ref in zip(leaves, run.leaves, strict=True) if isinstance(ref, Ref)}
        if not wanted:
            raise TimelineError(
                "nothing that the model returns is computed from the signal by torch's operations",
                "",
                "output",
                "check that the first of its inputs is the signal; what is compiled or scripted can't be read",
            )
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
            places[leaf] if isinstance(ref, Ref) else (leaf,) for leaf, ref in zip(leaves, run.leaves, strict=True)
        ]
        return Graph(nodes, outputs, run.spec, self.rows[0], batches, calls=len(run.calls))
