"""One convolution as a frozen program of its own, without a model around it."""

import torch

from tapwise.frozen.lowering import lowered
from tapwise.frozen.matrices import use_matrices
from tapwise.frozen.memory import Block
from tapwise.frozen.program import Program
from tapwise.frozen.rewriting import rewrite
from tapwise.frozen.spans import offline_span, operations_of
from tapwise.frozen.steps import TorchStep
from tapwise.frozen.weights import pack
from tapwise.network.graph import Graph, Node
from tapwise.network.operations import Convolve, Fill, Size
from tapwise.network.timeline import Aligned, Ends, Windows, without_ends


def graph_of(geometry, x, w, b):
    """A graph of an input and a convolution."""
    outer, inner = w.shape[0], w.shape[1] * geometry.groups
    channels, outputs = (outer, inner) if geometry.transposed else (inner, outer)
    batch = ((0, 1),)
    source = Node("", "input", (), Aligned(), None, Size((0, channels, 0), 2, batch), value=0)
    nodes = [source]
    if geometry.padding_mode != "zeros" and geometry.padding != (0, 0):
        ends = Ends(geometry.left, (geometry.right,), geometry.padding_mode)
        nodes.append(Node("", "pad", (0,), ends, Fill(), Size((0, channels, 0), 2, batch)))
        geometry = without_ends(geometry)
    size = Size((0, outputs, 0), 2, batch)
    nodes.append(Node("", "conv1d", (len(nodes) - 1,), Windows(geometry), Convolve(w, b), size))
    return Graph(nodes, [len(nodes) - 1], None, 1, True, example_length=x.shape[-1])


def steps_of(graph, dtype=None):
    steps = lowered(graph)
    rewrite(graph, steps)
    pack(steps)
    if dtype is not None:
        use_matrices(steps)
    return steps


def program_of(graph, x, dtype=None):
    """The program of a graph for a signal; None where torch would have to help."""
    steps = steps_of(graph, dtype)
    if any(isinstance(step, TorchStep) for step in steps.steps):
        return None
    return Program(graph, steps, offline_span(graph, operations_of(graph), x.shape[-1]), x.shape[0])


def run(geometry, x, w, b=None, dtype=None, memory=float("nan")):
    """The output, by a compiled program alone; None where torch would have to help.

    Its memory is full of a number beforehand: what a program leaves unwritten shows.
    """
    program = program_of(graph_of(geometry, x, w, b), x, dtype)
    if program is None:
        return None
    low, high = program.span.rows[0]
    arena = Block()
    arena.ensure(program.plan.arena_bytes)
    arena.numbers.fill_(memory)
    (y,) = program.run([x[..., low:high]], arena, None, lambda *_: None)
    return y.clone() if y.numel() else torch.empty(y.shape)
