"""Signals as people have them: the samples of an array, tensor, series or table, and the way back.

No package is imported for this: an object of pandas, polars or xarray brings its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

# From outputs, (..., n), and the row that each belongs to, to what the signal was. Rows may lie beyond its ends.
Wrap = Callable[[Tensor, range], Any]


def opened(signal: Any, axis: int | str | None) -> tuple[Tensor, Wrap]:
    """The samples of a signal, (..., length), and what makes its kind of outputs.

    Arguments:
        axis: of time; None: the last, of a table its rows.

    Raises:
        TypeError: what holds no numbers.
        IndexError: an axis that isn't there.
    """
    if isinstance(signal, Tensor):
        place = axis_of(signal.ndim, axis)
        return signal.movedim(place, -1), lambda y, rows: y.movedim(-1, place)
    kinds = [(kind.__module__.partition(".")[0], kind.__name__) for kind in type(signal).__mro__]  # of subclasses too
    for kind in kinds:
        if kind in _OPENERS:
            return _OPENERS[kind](signal, axis)
    package, name = kinds[0]
    if package == "dask":
        raise TypeError("got a Dask array, which tapwise.scale.map_array filters lazily, by a layer")
    if package in ("pandas", "polars", "xarray"):
        raise TypeError(f"got a {package} {name}, expected an array, a tensor, a Series, a DataFrame or a DataArray")
    if isinstance(signal, np.ma.MaskedArray):
        raise TypeError("got a masked array: x.filled(numpy.nan) with nan='skip' leaves out what is masked")
    values = np.asarray(signal)
    place = axis_of(values.ndim, axis)
    return _tensor_of(np.moveaxis(values, place, -1)), lambda y, rows: np.moveaxis(_array_of(y), -1, place)


def axis_of(ndim: int, axis: int | str | None) -> int:
    """The axis of time, counted from 0; None: the last.

    Raises:
        TypeError: a name.
        IndexError: an axis that isn't there.
    """
    axis = -1 if axis is None else axis
    if isinstance(axis, str):
        raise TypeError(f"axis must be an integer, got {axis!r}: names belong to a DataArray")
    if not -ndim <= axis < ndim:
        raise IndexError(f"there is no axis {axis} in a signal of {ndim} axes")
    return axis % ndim


def _tensor_of(values: Any) -> Tensor:
    if values.dtype.kind not in "biufc" or values.dtype.itemsize > (16 if values.dtype.kind == "c" else 8):
        raise TypeError(f"a signal is of real or complex numbers of up to 64 bits a part, got {values.dtype}")
    if values.dtype.kind in "biu":
        values = values.astype(np.float64)
    values = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
    return torch.from_numpy(values if values.flags.writeable else values.copy())


def _array_of(y: Tensor) -> Any:
    return y.detach().numpy()


def _complete(rows: range, length: int, kind: str) -> list[int]:
    """Rows, which all have to be there."""
    complete = [row for row in rows if 0 <= row < length]
    if len(complete) < len(rows):
        raise ValueError(
            f"{len(rows) - len(complete)} outputs lie beyond the ends of the {kind}, where it has no index: "
            "use another padding, or give its values"
        )
    return complete


def _pandas_series(series: Any, axis: int | str | None) -> tuple[Tensor, Wrap]:
    axis_of(1, axis)

    def wrap(y: Tensor, rows: range) -> Any:
        index = series.index.take(_complete(rows, len(series), "Series"))
        return type(series)(_array_of(y), index=index, name=series.name)

    return _tensor_of(_pandas_values(series)), wrap


def _pandas_values(series: Any) -> Any:
    """A column's numbers; what stands for no value is NaN."""
    is_nullable = not isinstance(series.dtype, np.dtype)
    if is_nullable and getattr(series.dtype, "kind", "O") in "biuf":
        return series.to_numpy(dtype=np.float64, na_value=np.nan)
    return series.to_numpy()


def _pandas_frame(frame: Any, axis: int | str | None) -> tuple[Tensor, Wrap]:
    _only_rows(axis)
    places = [n for n, dtype in enumerate(frame.dtypes) if getattr(dtype, "kind", "O") in "iufc"]
    if not places:
        raise TypeError("the DataFrame has no column of numbers")

    def wrap(y: Tensor, rows: range) -> Any:
        result = frame.take(_complete(rows, len(frame), "DataFrame")).copy()
        for place, column, row in zip(places, columns, y, strict=True):
            result.isetitem(place, _array_of(_as(row, column.dtype)))
        return result

    columns = [_tensor_of(_pandas_values(frame.iloc[:, place])) for place in places]
    return _stacked(columns), wrap


def _polars_series(series: Any, axis: int | str | None) -> tuple[Tensor, Wrap]:
    axis_of(1, axis)
    return _polars_values(series), lambda y, rows: type(series)(series.name, _array_of(y))


def _polars_values(series: Any) -> Tensor:
    if not series.dtype.is_numeric():
        raise TypeError(f"a signal is of numbers, got a Series of {series.dtype}")
    return _tensor_of(np.array(series.fill_null(np.nan) if series.dtype.is_float() else series.to_numpy()))


def _polars_frame(frame: Any, axis: int | str | None) -> tuple[Tensor, Wrap]:
    _only_rows(axis)
    names = [name for name, dtype in frame.schema.items() if dtype.is_numeric()]
    if not names:
        raise TypeError("the DataFrame has no column of numbers")

    def wrap(y: Tensor, rows: range) -> Any:
        kind = type(frame[names[0]])
        result = frame[_complete(rows, len(frame), "DataFrame")]
        return result.with_columns(
            kind(name, _array_of(_as(row, column.dtype))) for name, column, row in zip(names, columns, y, strict=True)
        )

    columns = [_polars_values(frame[name]) for name in names]
    return _stacked(columns), wrap


def _data_array(array: Any, axis: int | str | None) -> tuple[Tensor, Wrap]:
    if isinstance(axis, str):
        if axis not in array.dims:
            raise IndexError(f"there is no dimension {axis!r}: the DataArray has {', '.join(map(str, array.dims))}")
        place = array.dims.index(axis)
    elif axis is None and array.ndim > 1:
        dims = ", ".join(map(repr, array.dims))
        raise ValueError(f"say which dimension of the DataArray is time, axis={array.dims[0]!r}: it has {dims}")
    else:
        place = axis_of(array.ndim, axis)

    def wrap(y: Tensor, rows: range) -> Any:
        at_rows = array.isel({array.dims[place]: _complete(rows, array.shape[place], "DataArray")})
        return at_rows.copy(data=np.moveaxis(_array_of(y), -1, place))

    return _tensor_of(np.moveaxis(array.to_numpy(), place, -1)), wrap


def _only_rows(axis: int | str | None) -> None:
    if axis not in (None, 0):
        raise ValueError(f"the time of a DataFrame runs along its rows, axis 0, got axis={axis!r}: transpose it")


def _as(row: Tensor, dtype: torch.dtype) -> Tensor:
    """A row in the dtype of the column that it was, where that can hold it."""
    return row if row.is_complex() and not dtype.is_complex else row.to(dtype)


def _stacked(columns: list[Tensor]) -> Tensor:
    """Columns as rows of one dtype: (columns, length)."""
    dtype = columns[0].dtype
    for column in columns:
        dtype = torch.promote_types(dtype, column.dtype)
    return torch.stack([column.to(dtype) for column in columns])


_OPENERS: dict[tuple[str, str], Callable[[Any, int | str | None], tuple[Tensor, Wrap]]] = {
    ("pandas", "Series"): _pandas_series,
    ("pandas", "DataFrame"): _pandas_frame,
    ("polars", "Series"): _polars_series,
    ("polars", "DataFrame"): _polars_frame,
    ("xarray", "DataArray"): _data_array,
}
