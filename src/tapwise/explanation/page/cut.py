"""Cut: the part of a large layer that a page holds, and what is said of the rest."""

from __future__ import annotations

from dataclasses import dataclass

from tapwise.explanation.steps import Array, Trace


@dataclass(frozen=True, eq=False)
class Part:
    """A convolution's numbers, as many as fit.

    Arguments:
        input: (C_in, L).
        weight: as the trace has it.
        left_out: what is shown of the whole, in words; empty where all is.
    """

    input: Array
    weight: Array
    bias: Array | None
    groups: int
    left_out: tuple[str, ...]


def cut_to(trace: Trace, samples: int, weights: int) -> Part:
    """The first channels and samples, so that x holds about ``samples`` numbers and weight ``weights``.

    Whole groups, then whole output channels, are left out first. Only where one output channel alone is too much are
    input channels left out: its outputs are then a part of the layer's, which the words say.
    """
    geometry = trace.geometry
    x, weight, bias, groups = trace.input, trace.weight, trace.bias, geometry.groups
    said: list[str] = []
    fan_in = x.shape[0] // groups
    outs = trace.output.shape[0]
    if groups > 1 and (weight.size > weights or fan_in * groups * geometry.input_length(1) > samples):
        kept = max(1, min(int(groups * weights / weight.size), samples // (fan_in * geometry.input_length(1))))
        if kept < groups:
            said.append(f"the first {kept} of {groups} groups")
            bias = None if bias is None else bias[: outs // groups * kept]
            x, weight, groups = x[: fan_in * kept], weight[: weight.shape[0] // groups * kept], kept
    elif groups == 1 and weight.size > weights:
        axis = 1 if geometry.transposed else 0
        kept = max(1, int(outs * weights / weight.size))
        said.append(f"the first {kept} of {outs} output channels")
        weight = weight[:, :kept] if geometry.transposed else weight[:kept]
        bias = None if bias is None else bias[:kept]
        most = max(1, min(weights // (kept * geometry.kernel_size), samples // geometry.input_length(1)))
        if weight.size > weights or x.shape[0] > samples // geometry.input_length(1):
            kept = min(most, x.shape[0])
            said.append(f"the first {kept} of {x.shape[0]} input channels, so the outputs are a part of the layer's")
            x = x[:kept]
            weight = weight[:kept] if axis else weight[:, :kept]
    if x.size > samples:
        kept = max(samples // x.shape[0], geometry.input_length(1), 1)
        if kept < x.shape[1]:
            said.append(f"the first {kept} of {x.shape[1]} samples")
            x = x[:, :kept]
    return Part(x, weight, bias, groups, tuple(said))
