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
    needed = min(max(1, geometry.input_length(1)), x.shape[1])  # samples without which there is no output
    if groups > 1 and (weight.size > weights or x.shape[0] * needed > samples):
        fan_in, outs = x.shape[0] // groups, trace.output.shape[0] // groups
        kept = max(1, min(int(groups * weights / weight.size), samples // (fan_in * needed)))
        if kept < groups:
            said.append(f"the first {kept} of {groups} groups")
            bias = None if bias is None else bias[: outs * kept]
            x, weight, groups = x[: fan_in * kept], weight[: weight.shape[0] // groups * kept], kept
    if groups == 1 and (weight.size > weights or x.shape[0] * needed > samples):
        axis = 1 if geometry.transposed else 0
        outs, ins = weight.shape[axis], weight.shape[1 - axis]
        kept = max(1, int(outs * weights / weight.size))
        if kept < outs:
            said.append(f"the first {kept} of {outs} output channels")
            weight = weight[:, :kept] if axis else weight[:kept]
            bias = None if bias is None else bias[:kept]
        most = max(1, min(weights // (min(kept, outs) * geometry.kernel_size), samples // needed))
        if most < ins:
            said.append(f"the first {most} of {ins} input channels, so the outputs are a part of the layer's")
            x = x[:most]
            weight = weight[:most] if axis else weight[:, :most]
    if x.size > samples:
        kept = max(samples // x.shape[0], needed)
        if kept < x.shape[1]:
            said.append(f"the first {kept} of {x.shape[1]} samples")
            x = x[:, :kept]
    return Part(x, weight, bias, groups, tuple(said))
