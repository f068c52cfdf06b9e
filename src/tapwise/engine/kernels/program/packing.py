"""Packing: weights in the order in which the tiles read them.

# weight (C_out, C_in, K)   ->   panels of up to WIDEST vectors of output channels, each (K, C_in, columns)
"""

from __future__ import annotations

import torch
from torch import Tensor

from tapwise.engine.compiled import vector_bytes

LANES = vector_bytes() // 4
# Vectors of a panel: as the registers allow.
WIDEST = 4 if vector_bytes() == 64 else 2
# Those of the last panel of a program's products: 4 rows of three vectors fit in 16 registers, too, while tiles of one
# vector wait for what they read.
WIDEST_OF_PRODUCTS = max(WIDEST, 3)


def panels(columns: int, widest_last: int = WIDEST) -> list[int]:
    """The vectors of each panel of a product of some columns; ``widest_last``: of the last panel, at most.

    Example:
        >>> sum(panels(100)) == -(-100 // LANES)
        True
    """
    left, found = -(-columns // LANES), []
    while left:
        n = WIDEST - 1 if left == WIDEST + 1 and WIDEST > 2 else WIDEST
        if left <= widest_last:
            n = left
        found.append(n)
        left -= n
    return found


def padded(columns: int) -> int:
    """Columns with those that fill the last vector."""
    return -(-columns // LANES) * LANES


def packed(weight: Tensor, widest_last: int = WIDEST) -> Tensor:
    """A weight (K, C_in, C_out) in panels, one after the other; ``widest_last``: vectors of the last one, at most."""
    taps, inputs, columns = weight.shape
    wide = weight.new_zeros((taps, inputs, padded(columns)))
    wide[..., :columns] = weight
    parts, start = [], 0
    for n in panels(columns, widest_last):
        parts.append(wide[..., start : start + n * LANES].reshape(-1))
        start += n * LANES
    return torch.cat(parts) if parts else weight.new_zeros(0)


def packed_bias(bias: Tensor | None, columns: int, groups: int = 1) -> Tensor:
    """A bias (C_out,), or zeros, filled up to full vectors by group."""
    each = columns // groups
    wide = torch.zeros((groups, padded(each)), dtype=torch.float32, device="cpu")
    if bias is not None:
        wide[:, :each] = bias.reshape(groups, each)
    return wide.reshape(-1)


# Columns beyond full vectors that are dot products, at most, and the fewest products of one.
_MOST_DOTS, _LEAST_PRODUCTS = 2, 64


def dots_of(columns: int, inputs: int, taps: int) -> int:
    """The last columns of a product that are dot products, as a vector of outputs would hold little else than zeros.

    Example:
        >>> dots_of(2 * LANES + 1, LANES, 64)
        1
        >>> dots_of(2 * LANES, LANES, 64)
        0
    """
    rest = columns % LANES
    pays = columns > LANES and rest <= _MOST_DOTS and inputs >= LANES and inputs * taps >= _LEAST_PRODUCTS
    return rest if pays else 0


def packed_groups(weight: Tensor, groups: int, dots: int) -> Tensor:
    """The weight (C_out, C_in / groups, K) of a convolution, packed group by group; then ``dots`` columns, each (K, C_in)."""
    in_panels, last = torch.split(weight, [weight.shape[0] - dots, dots])
    parts = [packed(part.permute(2, 1, 0), WIDEST_OF_PRODUCTS) for part in torch.chunk(in_panels, groups)]
    return torch.cat([*parts, last.permute(0, 2, 1).reshape(-1)])


def packed_depthwise(weight: Tensor) -> Tensor:
    """The weight (C, 1, K) of a depthwise convolution as (K, C), each tap filled up to full vectors."""
    channels, _, taps = weight.shape
    wide = weight.new_zeros((taps, padded(channels)))
    wide[:, :channels] = weight[:, 0].T
    return wide.reshape(-1)


def packed_few_transposed(weight: Tensor, stride: int) -> Tensor:
    """The same of few outputs and taps that are a multiple of the stride: (taps / stride, C_in, stride * C_out), packed."""
    inputs, outputs, taps = weight.shape
    by_phase = weight.reshape(inputs, outputs, taps // stride, stride).permute(2, 0, 3, 1).flip(0)
    return packed(by_phase.reshape(taps // stride, inputs, stride * outputs), WIDEST_OF_PRODUCTS)


def packed_transposed(weight: Tensor, stride: int) -> Tensor:
    """The weight (C_in, C_out, K) of a transposed convolution, packed by phase of its stride, the last tap first."""
    parts = []
    for phase in range(stride):
        taps = weight[..., phase::stride].flip(-1)
        if taps.shape[-1]:
            parts.append(packed(taps.permute(2, 0, 1), WIDEST_OF_PRODUCTS))
    return torch.cat(parts)


def blocks_of_units(tensor: Tensor, gates: int) -> list[Tensor]:
    """The rows of a recurrence's weight, or bias, by blocks of units: their gates one after the other.

    # i of all units, f, g, o    ->    i f g o of LANES units, i f g o of the next
    """
    by_gate = tensor.reshape(gates, -1, *tensor.shape[1:])
    return [part.flatten(0, 1) for part in torch.split(by_gate, LANES, dim=1)]


def packed_recurrent(weight: Tensor, gates: int) -> Tensor:
    """A recurrence's weight (gates * H, H), or bias, by blocks of units: (blocks, H, gates, LANES), filled up with zeros."""
    by_gate = weight.reshape(gates, -1, *weight.shape[1:])
    wide = weight.new_zeros((gates, padded(by_gate.shape[1]), *weight.shape[1:]))
    wide[:, : by_gate.shape[1]] = by_gate
    blocks = wide.reshape(gates, -1, LANES, *weight.shape[1:])
    return blocks.movedim((1, 0, 2), (0, -2, -1)).reshape(-1)
