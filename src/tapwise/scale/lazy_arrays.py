"""Dask and xarray arrays through a layer or a model: lazy, chunk by chunk, coordinates kept."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tapwise.containers import axis_of
from tapwise.extras import need
from tapwise.scale.computation import ModelComputation, example_for
from tapwise.scale.layout import Moments, MovedCoordinate
from tapwise.scale.out_of_core import Loaded
from tapwise.signals.base import Array, Reader
from tapwise.signals.samples import Losses
from tapwise.signals.stored_array import RATES, TIMES


def map_array(layer_or_model: nn.Module, array: Any, *, axis: int | str | None = None, example: Any = None) -> Any:
    """A layer or a model over a Dask, xarray or NumPy array: an array of the same kind, lazy where it was.

    One axis is time, the last of the others the model's channels; a model of one channel runs on each channel by
    itself. Each chunk of the result reads exactly the samples that it needs from the array's chunks.

    Arguments:
        layer_or_model: what ``tapwise.inspect`` reads, but for recurrences. Run as in evaluation.
        array: a ``dask.array.Array``, an ``xarray.DataArray``, whose coordinates are kept (that of time moved and
            divided as the strides have it; others along time are left out where they aren't of one axis and of numbers or
            dates), or a NumPy array.
        axis: of time, of a DataArray its name too; None: the dimension named ``"time"``, else the last.
        example: a tensor that the model takes, (1, channels, time); None: zeros of the array's channels.

    Raises:
        TypeError: another kind of array.
        TimelineError: a model that can't be computed by parts, by the path of its module.
        ValueError: channels that aren't the model's.
        IndexError: an axis that isn't there.

    Example:
        >>> import dask.array as da, numpy as np, tapwise as tw
        >>> x = da.random.random((4, 10_000), chunks=(2, 1000))
        >>> y = tw.scale.map_array(tw.Conv1d(1, 1, 5, stride=2, padding="causal"), x)
        >>> y.shape, y.chunks[1][:3]
        ((4, 5000), (500, 500, 500))
    """
    if not isinstance(layer_or_model, nn.Module):
        raise TypeError(f"expected a torch.nn.Module, got {type(layer_or_model).__name__}")
    package = type(array).__module__.partition(".")[0]
    if package == "xarray":
        return _data_array(layer_or_model, array, axis, example)
    if package != "dask" and not isinstance(array, np.ndarray):
        raise TypeError(f"got {type(array).__name__}, expected an array of Dask, xarray or NumPy")
    if not hasattr(array, "ndim") or array.ndim == 0 or array.dtype.kind not in "fiuc":
        raise TypeError(f"expected an array of numbers with at least one axis, got {array!r}")
    if any(math.isnan(n) for n in array.shape):
        raise ValueError("the array's chunks have unknown sizes: array.compute_chunk_sizes() finds them")
    return _Mapped(layer_or_model, array, axis_of(array.ndim, axis), example).result


class _Mapped:
    """An array's outputs, and which moments they belong to."""

    def __init__(self, model: nn.Module, array: Any, axis: int, example: Any) -> None:
        others = tuple(n for a, n in enumerate(array.shape) if a != axis)
        length = int(array.shape[axis])
        about = BlockReader(others, array.dtype, length)
        computation = ModelComputation(Loaded(model, example_for(model, about) if example is None else example), about)
        self.moments: Moments = computation.moments
        n_outputs = computation.output_length(length)
        is_row = not others and computation.channels_out == 1
        self.keeps_channels = is_row or bool(others and computation.channels_in == computation.channels_out)
        if isinstance(array, np.ndarray):
            values = np.moveaxis(array, axis, -1)
            made = _computed(values, computation, 0, 0, n_outputs, length)
            self.result: Any = np.moveaxis(made, -1, axis if others or is_row else -1)
            return
        da = need("dask.array")
        x = da.moveaxis(array, axis, -1)
        if others and (computation.channels_in, computation.channels_out) != (1, 1):
            x = x.rechunk({-2: -1})  # a row's channels are computed together
        x = x.rechunk({-1: _merged(x.chunks[-1], length)}) if length else x
        parts = []
        for start, stop in _ranges(x.chunks[-1], computation.moments.stride, n_outputs):
            first, last = computation.samples(start, stop, length)
            piece = x[..., first:last].rechunk({-1: -1})
            parts.append(_mapped(piece, computation, first, start, stop, length))
        y = da.concatenate(parts, axis=-1) if len(parts) != 1 else parts[0]
        self.result = da.moveaxis(y, -1, axis if others or is_row else -1)


def _mapped(piece: Any, computation: ModelComputation, first: int, start: int, stop: int, length: int) -> Any:
    """The outputs [start, stop) of a piece of the array, lazily."""
    c_in, c_out = computation.channels_in, computation.channels_out
    chunks = [*piece.chunks[:-1], (stop - start,)]
    new_axis = None
    if piece.ndim > 1:
        chunks[-2] = tuple(c // c_in * c_out for c in chunks[-2])
    elif c_out > 1:
        chunks, new_axis = [(c_out,), (stop - start,)], 0
    return piece.map_blocks(
        _computed,
        computation,
        first,
        start,
        stop,
        length,
        chunks=tuple(chunks),
        new_axis=new_axis,
        dtype=computation.dtype,
        meta=np.empty((0,) * len(chunks), computation.dtype),
        name=None,
    )


def _merged(chunks: tuple[int, ...], length: int) -> tuple[int, ...]:
    """Chunks without empty ones."""
    return tuple(c for c in chunks if c) or (length,)


def _ranges(chunks: tuple[int, ...], stride: Fraction, n_outputs: int) -> Iterator[tuple[int, int]]:
    """The outputs that belong to each chunk of the signal; to the last all that follow."""
    ends = [min(n_outputs, math.ceil(end / stride)) for end in accumulate(chunks)]
    bounds = sorted({0, *ends[:-1], n_outputs})
    yield from pairwise(bounds)
    if len(bounds) == 1:
        yield (0, 0)


def _computed(values: Array, computation: ModelComputation, first: int, start: int, stop: int, length: int) -> Array:
    """The outputs [start, stop), from the samples of (..., n) that begin at ``first``."""
    others = values.shape[:-1]
    reader = BlockReader(others, values.dtype, length, values.reshape(math.prod(others), values.shape[-1]), first)
    rows = range(reader.channels // computation.channels_in)
    with _one_thread():
        made = computation.outputs(reader, rows, start, stop, Losses())
    if others:
        others = (*others[:-1], others[-1] // computation.channels_in * computation.channels_out)
    elif computation.channels_out > 1:
        others = (computation.channels_out,)
    return made.reshape(*others, stop - start)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Dask's own threads share the processors."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class BlockReader(Reader):
    """Some samples of a longer signal, in memory; or, without them, what the signal is.

    Arguments:
        others: the axes besides time.
        length: of the signal.
        values: (channels, n).
        first: the place of the first of them in the signal.
    """

    quantum = 0
    rate = None

    def __init__(
        self, others: tuple[int, ...], dtype: np.dtype[Any], length: int, values: Array | None = None, first: int = 0
    ) -> None:
        self.path = Path("the array")
        self.shape, self.axis = (*others, length), len(others)
        self.channels, self.dtype, self.length = math.prod(others), dtype, length
        self._values, self._first = values, first

    def read(self, start: int, stop: int) -> Array:
        """The samples [start, stop) of every channel: (channels, stop - start)."""
        assert self._values is not None
        return self._values[:, start - self._first : stop - self._first]


def _data_array(model: nn.Module, array: Any, axis: int | str | None, example: Any) -> Any:
    if type(array).__name__ != "DataArray":
        raise TypeError(f"got an xarray {type(array).__name__}, expected a DataArray: take one of its variables")
    dims = [str(dim) for dim in array.dims]
    if axis is None:
        named = [n for n, dim in enumerate(dims) if dim.lower() in TIMES]
        axis = named[0] if len(named) == 1 else -1
    if isinstance(axis, str):
        if axis not in dims:
            raise IndexError(f"there is no dimension {axis!r}: the DataArray has {', '.join(dims)}")
        axis = dims.index(axis)
    place = axis_of(array.ndim, axis)
    mapped = _Mapped(model, array.data, place, example)
    time, y = array.dims[place], mapped.result
    new_dims = list(array.dims)
    if y.ndim > array.ndim:
        new_dims.insert(0, "channel")
    others = [dim for dim in array.dims if dim != time]
    lost = set() if mapped.keeps_channels or not others else {others[-1]}
    coordinates = {}
    for name, values in array.coords.items():
        if lost & set(values.dims):
            continue
        if time not in values.dims:
            coordinates[name] = values
        elif values.dims == (time,) and values.dtype.kind in "fiuM":
            moved = MovedCoordinate(values.values, y.shape[new_dims.index(time)], mapped.moments)
            coordinates[name] = ((time,), moved[:], values.attrs)
    attributes = dict(array.attrs)
    for name in RATES:
        if isinstance(attributes.get(name), int | float):
            attributes[name] = float(Fraction(attributes[name]) / mapped.moments.stride)
            break
    return type(array)(y, coords=coordinates, dims=new_dims, name=array.name, attrs=attributes)
