"""What travels between ranks, in bytes: by halos, or where channels are exchanged for time. Formulas on integers alone."""

from __future__ import annotations

from tapwise.scale.shards import Shards, Transfer


def halo_bytes(plan: Transfer, batch: int, channels: int, itemsize: int) -> int:
    """Bytes that all ranks together send for one convolution by halos; as many again backward.

    Example:
        >>> from tapwise.geometry import Geometry
        >>> from tapwise.scale.shards import transfer
        >>> shards = Shards.of_lengths([100, 100, 100])
        >>> halo_bytes(transfer(Geometry(5, padding="causal"), shards, shards, 0), 1, 8, 4)
        256
    """
    return plan.halo * batch * channels * itemsize


def swap_bytes(shards: Shards, outputs: Shards, batch: int, fan_in: int, fan_out: int, itemsize: int) -> int:
    """Bytes that all ranks together send where channels are exchanged for time, and back; as many again backward.

    Example:
        >>> shards = Shards.of_lengths([100, 100])
        >>> swap_bytes(shards, shards, 1, 8, 8, 4)
        6400
    """
    inputs = _moved(shards.lengths(), channel_bounds(fan_in, shards.n_ranks))
    multiple = fan_out // fan_in
    made = _moved(outputs.lengths(), tuple(b * multiple for b in channel_bounds(fan_in, shards.n_ranks)))
    return batch * itemsize * (inputs + made)


def _moved(lengths: tuple[int, ...], bounds: tuple[int, ...]) -> int:
    """Numbers that leave their rank: all samples, of all channels but the rank's own."""
    return sum(n * (bounds[-1] - (bounds[r + 1] - bounds[r])) for r, n in enumerate(lengths))


def channel_bounds(channels: int, ranks: int) -> tuple[int, ...]:
    """Of rank r, the channels [bounds[r], bounds[r + 1]).

    Example:
        >>> channel_bounds(8, 3)
        (0, 2, 5, 8)
    """
    return tuple(channels * rank // ranks for rank in range(ranks + 1))
