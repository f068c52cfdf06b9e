"""freeze: a model for inference, prepared once."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tapwise.engine.options import check_dtype, current_options
from tapwise.errors import TimelineError
from tapwise.frozen.network import Frozen
from tapwise.frozen.parts import PartlyFrozen, copied, freeze_parts


def freeze(
    model: nn.Module, example: Any, *, time: int | None = None, dtype: torch.dtype | None = None
) -> Frozen | PartlyFrozen:
    """A model for inference on a CPU, equal to it up to rounding, and prepared once.

    The model is copied, read as ``tapwise.inspect`` reads it, and becomes a program of compiled loops: weights lie in
    the order in which they are read, weight_norm and BatchNorm are folded into them, activations and sums are done
    on a block of samples while it is in the cache, memory is planned and used again. LSTM and GRU are compiled
    too. What torch alone can do, as a cumulative sum, torch does, on the same memory. Of a model that can't be read as one, as it attends to all of time, the
    modules that can be are frozen.

    Convolutions with enough channels run by Winograd's filtering, with a stride and transposed too, with half to three
    quarters of the products: of a long signal, not of a stream. It rounds by about three times more than sums of products do; freeze under
    ``options(exact=True)`` to exclude it. Source: Lavin and Gray, arXiv 1509.09308.

    Arguments:
        model: any module; it stays as it is.
        example: a tensor that it takes, or a tuple of its inputs, of which the first is the signal. Batch and length
            may differ later, channels and dtype may not. Only float32 is compiled.
        time: the signal's axis of time; None finds it.
        dtype: ``torch.bfloat16``: dense convolutions and linear layers of 16 channels and more may round what they read, and
            their weights, to bfloat16, by the processor's matrices (Intel AMX), with sums in float32: several times as fast,
            live too, and off by about a percent of the largest output after many layers. What the model takes and gives
            stays float32, as does everything on other processors. None: as ``options(dtype=...)`` says where it is frozen.

    Returns:
        A module for inference, called as the model is: in evaluation, without gradients. ``print`` says what torch
        runs. ``tapwise.stream`` takes it too.

    Raises:
        ValueError: another dtype.
        FreezeMismatchError: a model that gives something else than its program does, tried on noise.

    Example:
        >>> import torch, tapwise as tw
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Conv1d(4, 32, 5, padding=2), torch.nn.ReLU(), torch.nn.Conv1d(32, 8, 1)
        ... )
        >>> fast = tw.freeze(model, torch.randn(1, 4, 100))
        >>> x = torch.randn(2, 4, 333)
        >>> torch.testing.assert_close(fast(x), model(x).detach())
        >>> fast
        Frozen(Sequential: 3 compiled steps)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    check_dtype(dtype)
    own, found = copied(model).eval(), current_options()
    is_exact, dtype = bool(found.exact), dtype or found.dtype
    try:
        return Frozen(own, example, time, is_exact, dtype)
    except TimelineError as error:
        if not any(isinstance(module, nn.Conv1d | nn.ConvTranspose1d) for module in own.modules()):
            raise
        return freeze_parts(own, example, is_exact, dtype, error)
