"""Taps by name: ``mean:12``, ``lowpass:1000:101``, ``FILE.npy`` and the like become a filter."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tapwise.cli.taps_forms import FORMS
from tapwise.errors import TapsError, listed
from tapwise.extras import need

Array = npt.NDArray[Any]

# Taps that a design may ask for.
MOST = 10_000_000


@dataclass(frozen=True)
class Use:
    """How taps are used where no option says otherwise, which the form of their description decides.

    Arguments:
        form: what they are, in words.
        is_filter: they are convolved, that is reversed, as NumPy and SciPy do; else used as they stand, as a
            layer's weight.
        padding: the padding.
        is_average: they weigh samples, so that a window may be shorter at the ends.
    """

    form: str
    is_filter: bool
    padding: str
    is_average: bool = False


def use_of(description: str) -> Use:
    """How the taps of a description are used.

    A filter is convolved: one that is designed around its centre, centred, any other causal, as
    ``Conv1d.from_taps`` has it. A layer's weight is used as ``nn.Conv1d`` uses it.

    Example:
        >>> use_of("mean:3")
        Use(form='an average', is_filter=True, padding='same', is_average=True)
        >>> use_of("1,2,3")
        Use(form='weights', is_filter=False, padding='0', is_average=False)
    """
    name = description.strip().partition(":")[0]
    if name == "diff":
        return Use("a filter", True, "causal")
    if name in ("mean", "gauss"):
        return Use("an average", True, "same", is_average=True)
    if name in _DESIGNS:
        return Use("a designed filter", True, "same")
    suffix = Path(name).suffix.lower()
    if suffix in (".wav", ".flac"):
        return Use("an impulse response", True, "causal")
    if suffix == ".npy" and _n_axes(Path(name)) == 1:
        return Use("a filter", True, "causal")
    return Use("weights", False, "0")


def parse(description: str, rate: float | None = None) -> Array:
    """The taps that a description names, as (out_channels, in_channels/groups, K).

    They are as they were given; ``use_of`` says whether they are to be reversed.

    Arguments:
        description: one of the forms that ``tapwise apply --help`` lists.
        rate: samples a second, where the signal has a rate: frequencies are then in Hz.

    Raises:
        TapsError: a description that can't be read, with what was got and the form expected.

    Example:
        >>> parse("mean:4")
        array([[[0.25, 0.25, 0.25, 0.25]]])
        >>> parse("1,1,1;2,2,2").shape
        (2, 1, 3)

    Source: ``scipy.signal.firwin`` designs lowpass, highpass and bandpass (Hamming window).
    """
    name, *arguments = description.strip().split(":")
    if name in _DESIGNS:
        form, count, design = _DESIGNS[name]
        numbers = [_number(description, text) for text in arguments]
        if len(numbers) != count:
            raise TapsError(f"taps {description!r}: got {len(numbers)} values, expected the form {form}")
        return _as_weight(design(description, rate, *numbers), description)
    path = Path(name)
    if path.suffix.lower() in (".npy", ".wav", ".flac", ".safetensors"):
        return _as_weight(_read(path, arguments, description, rate), description)
    if name and (name[0].isdigit() or name[0] in "+-.") and not arguments:
        rows = [[_number(description, n) for n in row.split(",")] for row in name.split(";")]
        if len({len(row) for row in rows}) != 1:
            raise TapsError(f"taps {description!r}: the filters differ in length")
        return _as_weight(np.array(rows)[:, None, :], description)
    raise TapsError(f"taps {description!r} can't be read. Taps are given as\n{FORMS}")


def for_channels(weight: Array, channels: int, description: str) -> tuple[Array, int]:
    """The taps for a signal of ``channels`` channels, and the groups: (K,) for every channel alike, or a weight.

    One filter is every channel's. As many filters as channels are a filter each. Several on one channel make
    as many of it. Four on two channels are true stereo: left to left, left to right, right to left, right to
    right.

    Raises:
        TapsError: filters that don't fit the channels.

    Example:
        >>> for_channels(np.ones((4, 1, 9)), 2, "room.wav")[0].shape
        (2, 2, 9)
    """
    filters, fan_in, _ = weight.shape
    if (filters, fan_in) == (1, 1):
        return weight[0, 0], 1
    if fan_in == channels:
        return weight, 1
    if fan_in == 1 and filters == channels:
        return weight, channels
    if fan_in == 1 and (filters, channels) == (4, 2):
        return weight.reshape(2, 2, -1).transpose(1, 0, 2), 1
    raise TapsError(
        f"taps {description!r}: got a weight of shape {weight.shape} for {channels} channels, expected one filter, "
        f"(1, 1, K), a filter for each channel, ({channels}, 1, K), or a weight (C_out, {channels}, K)"
        + ("; four filters are true stereo" if channels == 2 else "")
    )


def _number(description: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise TapsError(f"taps {description!r}: {text!r} is not a number") from None
    if not math.isfinite(number):
        raise TapsError(f"taps {description!r}: {text!r} is not a finite number")
    return number


def _whole(description: str, value: float) -> int:
    if value != int(value) or not 1 <= value <= MOST:
        raise TapsError(f"taps {description!r}: K must be a whole number from 1 to {MOST}, got {value:g}")
    return int(value)


def _mean(description: str, rate: float | None, taps: float) -> Array:
    count = _whole(description, taps)
    return np.full(count, 1 / count)


def _gauss(description: str, rate: float | None, taps: float, sigma: float) -> Array:
    count = _whole(description, taps)
    if not sigma > 0:
        raise TapsError(f"taps {description!r}: SIGMA must be positive, got {sigma:g}")
    offsets = np.arange(count) - (count - 1) / 2
    bell = np.exp(-0.5 * (offsets / sigma) ** 2)
    weights: Array = bell / bell.sum()
    return weights


def _diff(description: str, rate: float | None) -> Array:
    return np.array([1.0, -1.0])


def _lowpass(description: str, rate: float | None, cutoff: float, taps: float) -> Array:
    return _firwin(description, rate, [cutoff], taps, "lowpass")


def _highpass(description: str, rate: float | None, cutoff: float, taps: float) -> Array:
    return _firwin(description, rate, [cutoff], taps, "highpass")


def _bandpass(description: str, rate: float | None, low: float, high: float, taps: float) -> Array:
    return _firwin(description, rate, [low, high], taps, "bandpass")


def _firwin(description: str, rate: float | None, edges: list[float], taps: float, kind: str) -> Array:
    count = _whole(description, taps)
    nyquist = 1.0 if rate is None else rate / 2
    unit = "of the Nyquist frequency (in Hz with --rate)" if rate is None else "Hz"
    if not all(0 < edge < nyquist for edge in edges) or edges != sorted(edges):
        order = "LOW < HIGH, both " if len(edges) > 1 else ""
        raise TapsError(f"taps {description!r}: expected frequencies {order}above 0 and below {nyquist:g} {unit}")
    if kind != "lowpass" and count % 2 == 0:
        raise TapsError(f"taps {description!r}: {kind} needs an odd K, got {count}")
    designed: Array = need("scipy.signal").firwin(count, edges, pass_zero=kind, fs=2 * nyquist)
    return designed


_DESIGNS: dict[str, tuple[str, int, Callable[..., Array]]] = {
    "mean": ("mean:K", 1, _mean),
    "gauss": ("gauss:K:SIGMA", 2, _gauss),
    "diff": ("diff", 0, _diff),
    "lowpass": ("lowpass:CUTOFF:K", 2, _lowpass),
    "highpass": ("highpass:CUTOFF:K", 2, _highpass),
    "bandpass": ("bandpass:LOW:HIGH:K", 3, _bandpass),
}


def _read(path: Path, arguments: list[str], description: str, rate: float | None) -> Array:
    if not path.is_file():
        raise TapsError(f"taps {description!r}: there is no file {str(path)!r}")
    try:
        if path.suffix.lower() == ".npy":
            return _read_array(path)
        if path.suffix.lower() in (".wav", ".flac"):
            return _impulse_response(path, rate)
        return _read_safetensors(path, ":".join(arguments), description)
    except (ValueError, EOFError, OSError, RuntimeError) as error:
        if isinstance(error, TapsError):
            raise
        raise TapsError(f"taps {description!r}: {error}") from error


def _n_axes(path: Path) -> int:
    """The number of axes of an array in a file."""
    from tapwise.signals.arrays import ArrayReader

    with ArrayReader(path) as reader:
        return len(reader.shape)


def _read_array(path: Path) -> Array:
    from tapwise.signals.arrays import ArrayReader

    with ArrayReader(path) as reader:
        return np.asarray(reader.read(0, reader.length).reshape(reader.shape))


def _impulse_response(path: Path, rate: float | None) -> Array:
    """The samples of a sound file, full scale being 1: (K,), or of several channels (channels, 1, K)."""
    from tapwise.signals.audio import AudioReader

    with AudioReader(path) as reader:
        if rate is not None and reader.rate != rate:
            raise TapsError(
                f"taps {path}: the impulse response has {reader.rate:g} samples a second, the signal {rate:g}: "
                "resample one of them first, as scipy.signal.resample_poly does"
            )
        samples = reader.read(0, reader.length)
    if samples.dtype.kind == "i":
        samples = samples / 2.0 ** (8 * samples.dtype.itemsize - 1)
    impulse: Array = samples.astype(np.float64)
    return impulse[0] if len(impulse) == 1 else impulse[:, None]


def _read_safetensors(path: Path, name: str, description: str) -> Array:
    safetensors = need("safetensors")
    import torch

    try:
        with safetensors.safe_open(path, framework="pt") as tensors:
            weights = _weights_of(tensors)
            names = {*tensors.keys(), *weights}
            found = [n for n in (name, f"{name}.weight") if n in names]
            if not name or not found:
                wanted = f"no tensor {name!r} in {path.name}" if name else "name one, as FILE.safetensors:NAME"
                held = f"the convolutions' are {listed(sorted(weights))}"
                if not weights:
                    held = f"it holds {listed(sorted(tensors.keys()))}, which are no convolutions'"
                raise TapsError(f"taps {description!r}: {wanted}; {held}")
            parts = [tensors.get_tensor(n) for n in weights.get(found[0], found[:1])]
            tensor = parts[0] if len(parts) == 1 else _normed(*parts)
    except safetensors.SafetensorError as error:
        raise TapsError(f"taps {description!r}: {error}") from error
    if tensor.is_complex():
        return np.asarray(tensor.to(torch.complex128).numpy())
    return np.asarray(tensor.double().numpy())


# How weight norm names a weight's direction and its magnitude: torch's parametrization, and its older form.
_NORMED = ((".parametrizations.weight.original1", ".parametrizations.weight.original0"), (".weight_v", ".weight_g"))


def _weights_of(tensors: Any) -> dict[str, tuple[str, ...]]:
    """By name, as ``layer.weight``, the tensors that a convolution's weight is made of."""
    keys = set(tensors.keys())
    found: dict[str, tuple[str, ...]] = {}
    normed: set[str] = set()
    for key in keys:
        for direction, magnitude in _NORMED:
            other = key.removesuffix(direction) + magnitude
            if key.endswith(direction) and other in keys:
                found[f"{key.removesuffix(direction)}.weight"] = (key, other)
                normed |= {key, other}
    for key in keys - normed:
        if len(tensors.get_slice(key).get_shape()) == 3:
            found[key] = (key,)
    return found


def _normed(direction: Any, magnitude: Any) -> Any:
    """The weight that ``torch.nn.utils.weight_norm`` makes of the two."""
    axes = [axis for axis, size in enumerate(magnitude.shape) if size == 1] or list(range(direction.ndim))
    return direction * (magnitude / direction.norm(2, axes, keepdim=True))


def _as_weight(taps: Array, description: str) -> Array:
    weight = taps[None, None] if taps.ndim == 1 else taps
    if weight.ndim != 3 or weight.size == 0 or weight.dtype.kind not in "fiuc":
        raise TapsError(
            f"taps {description!r}: got {taps.dtype} of shape {taps.shape}, expected numbers of "
            "shape (K,) or (out_channels, in_channels/groups, K)"
        )
    if not np.isfinite(weight).all():
        raise TapsError(f"taps {description!r}: not all taps are finite numbers")
    return weight.astype(np.complex128 if weight.dtype.kind == "c" else np.float64)
