"""FIR filters over signals as people have them: arrays, tensors, series and tables."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from tapwise.containers import opened
from tapwise.engine.dispatch import convolve
from tapwise.errors import ShapeError
from tapwise.functional import conv1d
from tapwise.geometry import Geometry
from tapwise.padding import PADDING_MODES, Padding, numpy_same
from tapwise.partition import rows_of_outputs

# Of the sum of the taps: on less than this nothing can be averaged, since transforms leave noise in the sums.
_LEAST = 1e-9


def filter(
    signal: Any,
    taps: Any,
    *,
    padding: Padding = "causal",
    padding_mode: str = "zeros",
    stride: int = 1,
    dilation: int = 1,
    flip: bool = True,
    axis: int | str | None = None,
    nan: str = "propagate",
) -> Any:
    """A signal filtered by taps, as what it was given: an array, a tensor, a series or a table.

    With the defaults it is ``scipy.signal.lfilter(taps, 1, signal)``; ``padding="full"`` and ``"same"`` are
    ``numpy.convolve``'s. A moving average as pandas' ``rolling(n, min_periods=1).mean()`` has
    ``taps=numpy.ones(n) / n``, ``padding_mode="shorter"`` and ``nan="skip"``; ``center=True`` is ``padding="same"``.

    Arguments:
        signal: a NumPy array (..., length) or what becomes one, a torch tensor, a pandas or polars Series or
            DataFrame, or an xarray DataArray. Tensors keep their gradients, series and tables their index,
            coordinates and names: an output has the row of the last position of its window; where padding lets windows
            reach over both ends, that in the window's middle. Columns of a table that aren't numbers are kept.
        taps: (K,) numbers.
        padding: samples on both sides, a pair, ``"valid"``, ``"same"``, ``"causal"``, ``"semicausal"`` or ``"full"``.
        padding_mode: ``"zeros"``, ``"reflect"``, ``"replicate"``, ``"circular"``; or ``"shorter"``: windows are cut
            off at the signal's ends, and the other taps grow.
        stride: samples from one output's window to the next.
        dilation: samples from one tap to the next.
        flip: reverse the taps, as convolution does; False uses them as they stand, as a trained layer does.
        axis: of time; None: the last, of a table its rows: for an array (length, channels) give 0. Of a DataArray a
            dimension's name, which has to be given where there are several.
        nan: ``"propagate"``, ``"error"``, or ``"skip"``: what is no number is left out, and the other taps grow.

    Returns:
        What ``signal`` is, of its dtype; integers become float64, and complex taps make it complex.

    Raises:
        TypeError: what is no signal, or no taps.
        ShapeError: settings that don't fit together, or a signal shorter than the window.
        ValueError: a NaN with ``nan="error"``; outputs beyond the ends of a series with an index.

    Example:
        >>> import numpy as np, tapwise as tw
        >>> tw.filter([0.0, 1.0, 2.0, 3.0], [1.0, 2.0])
        array([0., 1., 4., 7.])
        >>> tw.filter(
        ...     np.array([10, 10.5, 11, np.nan]), np.ones(3) / 3, padding="same", padding_mode="shorter", nan="skip"
        ... )
        array([10.25, 10.5 , 10.75, 11.  ])

    Source: ``scipy.signal.lfilter`` for the defaults.
    """
    weight = _weight_of(taps, flip)
    if nan not in ("propagate", "error", "skip"):
        raise ValueError(f"nan must be 'propagate', 'error' or 'skip', got {nan!r}")
    is_shortened = padding_mode == "shorter"
    if not is_shortened and padding_mode not in PADDING_MODES:
        raise ValueError(f"padding_mode must be 'shorter' or one of {', '.join(PADDING_MODES)}, got {padding_mode!r}")
    if (is_shortened or nan == "skip") and not _is_average(weight):
        named = "nan='skip'" if nan == "skip" else "padding_mode='shorter'"
        raise ValueError(f"{named} is for averages, whose taps are 0 or above and not all 0")
    pads = numpy_same(weight.shape[-1], dilation) if flip and padding == "same" else padding
    geometry = Geometry(
        weight.shape[-1], stride, dilation, pads, padding_mode="zeros" if is_shortened else padding_mode
    )
    values, wrap = opened(signal, axis)
    x = values if values.is_floating_point() or values.is_complex() else values.double()
    is_half = x.dtype in (torch.float16, torch.bfloat16) and not values.is_cuda
    x = x.float() if is_half else x
    x = x.to(torch.promote_types(x.dtype, torch.complex64)) if weight.is_complex() and not x.is_complex() else x
    weight = weight.to(x)
    gaps = x.isnan() if nan != "propagate" else None
    if gaps is not None and not gaps.any():
        gaps = None
    if gaps is not None and nan == "error":
        place = [int(n) for n in gaps.nonzero()[0]]
        raise ValueError(f"no value (NaN) at sample {place[-1]}{_of_rows(place[:-1])}: fill the gap, or nan='skip'")
    rows = x.reshape(-1, 1, x.shape[-1])
    if gaps is not None:
        gaps = gaps.reshape(-1, x.shape[-1])
        rows = rows.masked_fill(gaps[:, None], 0)
    y = conv1d(rows, weight, None, stride, geometry.padding, dilation, 1, geometry.padding_mode)[:, 0]
    if gaps is not None or (is_shortened and any(geometry.padding)):
        more = gain(gaps, x.shape[-1], weight, geometry, is_shortened)
        undefined = more.isnan()  # multiplied, they would be in every gradient
        y = (y * more.masked_fill(undefined, 1)).masked_fill(undefined, torch.nan)
    y = y.reshape(*x.shape[:-1], y.shape[-1])
    return wrap(y.to(values.dtype) if is_half and not y.is_complex() else y, rows_of_outputs(geometry, x.shape[-1]))


def gain(gaps: Tensor | None, length: int, weight: Tensor, geometry: Geometry, is_shortened: bool) -> Tensor:
    """For each output, the sum of the taps over the sum of those that lie on samples: (channels or 1, n).

    A window with next to no weight on samples has NaN. Samples of the padding count where windows aren't shortened.

    Arguments:
        gaps: where no sample is, (channels, length); None: nowhere.
        length: of the signal.
        weight: (1, 1, K).
    """
    there = torch.ones((1, length), dtype=torch.float64, device=weight.device) if gaps is None else (~gaps).double()
    if geometry.padding_mode == "zeros":
        there = pad(there, geometry.padding, value=0.0 if is_shortened else 1.0)
        geometry = replace(geometry, padding=(0, 0))
    taps = weight.double()
    sums = convolve(there[:, None], taps, None, geometry)[:, 0]
    empty = sums < _LEAST * taps.sum()
    gains: Tensor = (taps.sum() / sums.masked_fill(empty, 1)).masked_fill(empty, torch.nan)
    return gains.to(weight.dtype)


def _weight_of(taps: Any, flip: bool) -> Tensor:
    """Taps as a weight, (1, 1, K), as they are laid on the signal."""
    if not isinstance(taps, Tensor):
        numbers = np.array(taps)
        if numbers.dtype.kind not in "biufc":
            raise TypeError(f"taps must be numbers, got {taps!r}: scipy.signal.firwin makes those of a filter")
        taps = torch.from_numpy(numbers.astype(np.complex128 if numbers.dtype.kind == "c" else np.float64))
    if taps.ndim != 1 or taps.numel() == 0:
        raise ShapeError(
            "taps must be one list of numbers", got=f"taps of size {list(taps.shape)}", expected="(K,), K >= 1"
        )
    weight: Tensor = (taps.flip(0) if flip else taps)[None, None]
    return weight


def _is_average(weight: Tensor) -> bool:
    return not weight.is_complex() and bool((weight >= 0).all()) and bool(weight.any())


def _of_rows(place: list[int]) -> str:
    return f" of row {', '.join(map(str, place))}" if place else ""
