"""Inspection: a model read, compared with itself, and reported."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from tapwise.evaluation import evaluating
from tapwise.explanation.explain import explain
from tapwise.explanation.model import ModelExplanation, explain_model
from tapwise.network.graph import Graph
from tapwise.network.operations import Convolve
from tapwise.network.probe import probe
from tapwise.network.reading import read
from tapwise.network.receptive_field import extents, receptive_field_of
from tapwise.network.report import Report
from tapwise.network.runs import Runs


def inspect(model: nn.Module, example: Any, *, time: int | None = None, rate: float | None = None) -> Report:
    """What a model needs of the past and of the future, and through which layer the future leaks.

    The model is run some thirty times on random numbers, as in evaluation, and left as it was. The
    report is checked against the model itself: a NaN at one sample has to reach exactly the outputs
    that read it, after every operation.

    Arguments:
        example: a tensor that the model takes, or a tuple of its inputs, of which the first is the
            signal; long enough for all its layers.
        time: the signal's axis of time; None finds it.
        rate: samples a second of the signal: times are then said in milliseconds too.

    Raises:
        ValueError: a rate that is none.
        TimelineError: an operation that mixes all of time, or isn't known, by the path of its module.

    Example:
        >>> import torch, tapwise as tw
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Conv1d(1, 4, 3, dilation=2, padding=2), torch.nn.Conv1d(4, 1, 4, stride=2)
        ... )
        >>> report = tw.inspect(model, torch.zeros(1, 1, 64))
        >>> report.receptive_field, report.stride, report.causal, report.output_length(64)
        ((-2, 5), Fraction(2, 1), False, 31)
    """
    if rate is not None and not 0 < rate < math.inf:
        raise ValueError(f"rate must be a positive number of samples a second, got {rate:g}")
    graph, runs = read(model, example, time)
    probe(graph, runs, _probed_length(graph, runs))
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    return Report(type(model).__name__, graph, _table(model, example, graph), weights, rate)


def _probed_length(graph: Graph, runs: Runs) -> int:
    """Long enough for a NaN in the middle to leave outputs on both sides untouched, if that is short."""
    base = runs.shortest()
    reach = receptive_field_of(graph)
    wide = reach.last - (reach.first or 0)
    most = max(2 * base, 8192)
    return base + min(-(-max(wide, 0) // runs.multiple), (most - base) // runs.multiple) * runs.multiple


def _table(model: nn.Module, example: Any, graph: Graph) -> ModelExplanation | None:
    """The table of ``explain``, with what each convolution reads of the model's input."""
    try:
        with evaluating(model):
            table = explain_model(model, example, explain)
    except TypeError:
        return None
    strides, reads = {}, {}
    for number, (node, extent) in enumerate(zip(graph.nodes, extents(graph), strict=True)):
        if isinstance(node.work, Convolve) and node.path not in reads:
            strides[node.path] = str(1 / graph.rates[number])
            first = "-inf" if extent.earliest is None else f"{extent.earliest:+d}"
            reads[node.path] = f"{first} to {extent.latest:+d}"
    for layer in table:  # it ran, and nothing that the model returns reads it
        reads.setdefault(layer.path, "not used by the output")
    return table.with_columns({"stride of all": strides, "reads of the signal": reads})
