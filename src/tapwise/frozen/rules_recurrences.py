"""Rules for recurrences: LSTM and GRU, layer by layer.

# sums over the input   a product of all rows at once          PRODUCT, gates of blocks of units side by side
# the recurrence        row t from row t - 1 of itself         LSTM, GRU
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tapwise.engine.kernels.program import record
from tapwise.engine.kernels.program.packing import blocks_of_units
from tapwise.frozen.layout import Arguments
from tapwise.frozen.steps import Ref, Step
from tapwise.frozen.steps_builder import StepsBuilder
from tapwise.network.graph import Node
from tapwise.network.operations import Recur

_CODES = {"lstm": record.LSTM, "gru": record.GRU}


def recurrence(builder: StepsBuilder, number: int, node: Node) -> Ref | None:
    """All layers of one call: each reads h of the layer before it."""
    assert isinstance(node.work, Recur)
    (source,) = node.inputs
    code, units = _CODES.get(node.name), builder.columns[number]
    arguments = Arguments.of(node.work.apply).positional
    if code is None or units is None:
        return None
    parameters, has_biases, n_layers = arguments[2:5]
    begins_with_zeros = not any(bool(node.work.apply.leaves[n].any()) for n in node.work.state)
    each = len(parameters) // n_layers
    if each != (4 if has_biases else 2) or not begins_with_zeros or not _are_float32_on_cpu(parameters):
        return None
    layers = [parameters[n : n + each] for n in range(0, len(parameters), each)]
    if layers[0][0].shape[1] != builder.columns[source]:
        return None
    ref = builder.ref(source)
    for layer in layers:
        ref = _layer(builder, number, code, ref, units, [p.detach() for p in layer])
    return ref


def _are_float32_on_cpu(parameters: Sequence[Tensor]) -> bool:
    return all(p.dtype == torch.float32 and p.device.type == "cpu" for p in parameters)


def _layer(builder: StepsBuilder, number: int, code: int, x: Ref, units: int, layer: Sequence[Tensor]) -> Ref:
    """The rows of h of one layer.

    Arguments:
        layer: weights over the input and over h, then, if there are any, biases.
    """
    gates = record.GATES[code]
    of_x, of_h = layer[:2]
    bias, bias_of_h = layer[2:] if len(layer) > 2 else (of_x.new_zeros(gates * units),) * 2
    # A GRU's reset gate multiplies the sum over h with its bias; all others are added at once.
    added = 2 * units if code == record.GRU else gates * units
    bias = torch.cat([bias[:added] + bias_of_h[:added], bias[added:]])
    bias_of_h = torch.cat([torch.zeros_like(bias_of_h[:added]), bias_of_h[added:]])
    sums = builder.value(number, gates * units)
    source = (torch.cat(blocks_of_units(of_x, gates))[..., None], torch.cat(blocks_of_units(bias, gates)))
    builder.append(Step(record.PRODUCT, sums, x, columns=gates * units, source=source))
    columns = 2 * units if code == record.LSTM else units
    out = builder.value(number, columns)
    builder.steps.values[out].fill = 0.0  # the state before the first row
    own = Ref(out).moved(-1)
    builder.append(Step(code, out, own, z=Ref(sums), columns=columns, groups=gates, source=(of_h, bias_of_h)))
    return Ref(out)
