"""Trace: every step of a convolution as a value. The text and the pictures only read it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tapwise.engine.problem import Problem
from tapwise.errors import ShapeError
from tapwise.functional import conv1d, conv_transpose1d
from tapwise.geometry import Geometry

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """How one number of the output came about.

    Arguments:
        output: its position i in the output.
        channel: its output channel.
        inputs: the input channels that it sums, as many as rows of ``values``.
        positions: the n input positions that its window reads, those in the padding included.
        padded: for each position, whether padding put the value there.
        values: (C_in/groups, n): what stood at the positions.
        taps: (C_in/groups, n): the weights laid over them.
        products: (C_in/groups, n): values times taps.
        bias: what was added in the end, or None.
        sum: the number: all products and the bias added up.
    """

    output: int
    channel: int
    inputs: range
    positions: tuple[int, ...]
    padded: tuple[bool, ...]
    values: Array
    taps: Array
    products: Array
    bias: Any
    sum: Any


class Steps(Sequence[Step]):
    """All steps of a trace, each made when it is asked for: channel by channel, position by position."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    def __len__(self) -> int:
        channels, outputs = self._trace.output.shape
        return int(channels * outputs)

    @overload
    def __getitem__(self, index: int) -> Step: ...
    @overload
    def __getitem__(self, index: slice) -> list[Step]: ...
    def __getitem__(self, index: int | slice) -> Step | list[Step]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"step {index} of {len(self)}")
        channel, output = divmod(index % len(self), self._trace.output.shape[1])
        return self._trace.step(output, channel)

    def __iter__(self) -> Iterator[Step]:
        return (self[i] for i in range(len(self)))


@dataclass(frozen=True, eq=False)
class Trace:
    """A convolution of one signal, step by step.

    Arguments:
        geometry: the convolution's shape.
        input: (C_in, L).
        weight: (C_out, C_in/groups, K), transposed (C_in, C_out/groups, K).
        bias: (C_out,) or None.
        output: (C_out, L_out), as the layer itself gave it where no gradients are recorded.
    """

    geometry: Geometry
    input: Array
    weight: Array
    bias: Array | None
    output: Array

    @property
    def steps(self) -> Steps:
        """Every step, channel by channel."""
        return Steps(self)

    def step(self, output: int, channel: int = 0) -> Step:
        """The step that made ``output[channel, output]``.

        Raises:
            IndexError: an output or a channel that there isn't.
        """
        channels, outputs = self.output.shape
        if not (0 <= output < outputs and 0 <= channel < channels):
            raise IndexError(
                f"step ({output}, channel {channel}) of {outputs} outputs in {channels} channels"
            )
        geometry = self.geometry
        length = self.input.shape[1]
        group = channel // (channels // geometry.groups)
        fan_in = self.input.shape[0] // geometry.groups
        inputs = range(group * fan_in, (group + 1) * fan_in)
        pairs = geometry.window_taps(output)
        positions = tuple(p for p, _ in pairs)
        if geometry.transposed:  # there is no sample to be seen outside the input
            pairs = [(p, k) for p, k in pairs if 0 <= p < length]
            positions = tuple(p for p, _ in pairs)
        sources = [geometry.source(p, length) for p in positions]
        rows = self.input[inputs.start : inputs.stop]
        values = np.zeros((fan_in, len(pairs)), self.input.dtype)
        for n, source in enumerate(sources):
            if source is not None:
                values[:, n] = rows[:, source]
        taps = self._taps(channel, inputs, [k for _, k in pairs])
        products = values * taps
        bias = None if self.bias is None else self.bias[channel]
        wide = np.result_type(products, np.float64) if products.dtype.kind in "fc" else np.int64
        total = products.astype(wide).sum() + (0 if bias is None else bias)
        padded = tuple(not 0 <= p < length for p in positions)
        return Step(
            output, channel, inputs, positions, padded, values, taps, products, bias,
            self.output.dtype.type(total),
        )  # fmt: skip

    def _taps(self, channel: int, inputs: range, taps: list[int]) -> Array:
        if not self.geometry.transposed:
            rows: Array = self.weight[channel][:, taps]
            return rows
        inner = channel % self.weight.shape[1]
        columns: Array = self.weight[inputs.start : inputs.stop, inner][:, taps]
        return columns

    def __str__(self) -> str:
        from tapwise.explanation.text import text_of_trace

        return text_of_trace(self)


def trace(layer: Any, x: Any, **settings: Any) -> Trace:
    """Every step of a convolution of one signal.

    Arguments:
        layer: a one-dimensional convolution layer, torch's or ours, or a weight: (K,), (out, in/groups,
            K), as a tensor, an array or lists.
        x: (L,) for one channel, (C_in, L), or (1, C_in, L).
        settings: with a weight: ``stride``, ``padding``, ``dilation``, ``groups``, ``padding_mode``,
            ``bias``.

    Raises:
        ShapeError: a signal that the layer doesn't take, or a batch of several.
        TypeError: something that is no one-dimensional convolution.

    Example:
        >>> print(trace([1.0, 1.0, 1.0], [0.0, 1.0, 2.0, 3.0]))
        Step 0: sum([0. 1. 2.]*[1. 1. 1.]) = 3.0
        Step 1: sum([1. 2. 3.]*[1. 1. 1.]) = 6.0
        Final : [3. 6.]

    Source: the loop by which tutorials of ``nn.Conv1d`` explain it.
    """
    return follow(layer, x, settings)[0]


def follow(
    layer: Any, x: Any, settings: dict[str, Any]
) -> tuple[Trace, Tensor, Tensor, Tensor | None]:
    """The trace, with the signal (C_in, L), the weight and the bias as the tensors that ran."""
    bias: Tensor | None
    weight: Tensor
    if isinstance(layer, nn.Module):
        if settings:
            raise TypeError(f"{', '.join(settings)}: these belong to a weight; a layer has its own")
        module: Any = layer
        geometry, weight, bias = Geometry.of(module), module.weight, module.bias
        signal = one_signal(x, weight)
        g = geometry
        Problem.of(
            signal, weight, bias, g.stride, _padding_of(module), g.dilation, g.groups, g.padding_mode,
            transposed=g.transposed, output_padding=g.output_padding,
        )  # fmt: skip
        with torch.no_grad():
            output = layer(signal[None])[0]
            _refuse_more_than_a_convolution(layer, geometry, signal, output)
    else:
        unknown = set(settings) - _SETTINGS
        if unknown:
            raise TypeError(
                f"got {', '.join(sorted(unknown))}; with a weight, the settings are "
                f"{', '.join(sorted(_SETTINGS))}"
            )
        settings = dict(settings)
        weight = _tensor(layer, x if isinstance(x, Tensor) else None)
        weight = weight.reshape(1, 1, -1) if weight.ndim == 1 else weight
        bias = settings.pop("bias", None)
        bias = None if bias is None else _tensor(bias, weight)
        geometry = Geometry(weight.shape[-1], **settings)
        signal = one_signal(x, weight)
        run = conv_transpose1d if settings.pop("transposed", False) else conv1d
        with torch.no_grad():
            output = run(signal, weight, bias, **settings)
    trace = Trace(geometry, array(signal), array(weight), array(bias), array(output))
    return trace, signal, weight, bias


def _refuse_more_than_a_convolution(
    layer: nn.Module, geometry: Geometry, signal: Tensor, output: Tensor
) -> None:
    """A layer whose own forward, or a hook, does more than its weight and settings say."""
    run: Any = conv_transpose1d if geometry.transposed else conv1d
    settings: dict[str, Any] = {"padding_mode": geometry.padding_mode}
    if geometry.transposed:
        settings = {"output_padding": geometry.output_padding}
    expected = run(
        signal, layer.weight, layer.bias, stride=geometry.stride, padding=_padding_of(layer),
        dilation=geometry.dilation, groups=geometry.groups, **settings,
    )  # fmt: skip
    finite = expected[expected.isfinite()].abs()
    slack = 1e-3 * float(finite.max()) if finite.numel() else 0.0
    if expected.shape != output.shape or not torch.allclose(
        expected, output, rtol=1e-2, atol=slack, equal_nan=True
    ):
        raise TypeError(
            f"{type(layer).__name__} does more than the convolution that its weight and settings "
            f"describe: it gave {list(output.shape)} where that gives {list(expected.shape)}, or "
            "other numbers. Trace the layer within it, or a tw.CausalConv1d in its place"
        )


def _padding_of(layer: Any) -> Any:
    """A layer's padding as it was given, word or numbers; torch's transposed "causal" isn't a word."""
    return layer.padding if isinstance(layer.padding, str) else Geometry.of(layer).padding


_SETTINGS = {"bias", "stride", "padding", "dilation", "groups", "padding_mode", "transposed",
             "output_padding"}  # fmt: skip


def _tensor(value: Any, like: Tensor | None) -> Tensor:
    """A weight or bias as a tensor of ``like``'s dtype, where that can hold it.

    Whole numbers in a list stand for themselves in any dtype; fractions are never cut off.
    """
    if isinstance(value, Tensor):
        return value
    tensor = torch.as_tensor(np.asarray(value))
    whole = not (tensor.is_floating_point() or tensor.is_complex())
    if like is None:
        default = torch.get_default_dtype()
        return tensor.to(torch.complex64 if tensor.is_complex() else default)
    tensor = tensor.to(like.device)
    same_kind = tensor.is_floating_point() and like.is_floating_point()
    if whole or same_kind or like.is_complex():
        return tensor.to(like.dtype)
    return tensor.to(torch.promote_types(tensor.dtype, like.dtype))


def one_signal(x: Any, weight: Tensor) -> Tensor:
    """One signal, (C_in, L), of the weight's dtype and device where ``x`` has none of its own.

    Raises:
        ShapeError: a batch of several signals, or too many dimensions.
    """
    signal = x if isinstance(x, Tensor) else _tensor(x, weight)
    if signal.ndim == 1:
        signal = signal[None]
    if signal.ndim == 3 and signal.shape[0] == 1:
        signal = signal[0]
    if signal.ndim != 2:
        raise ShapeError(
            "a trace follows one signal",
            got=f"x of size {list(signal.shape)}",
            expected="(length,), (in_channels, length) or (1, in_channels, length)",
            fix="take one row of the batch: x[0]",
        )
    return signal


@overload
def array(tensor: Tensor) -> Array: ...
@overload
def array(tensor: None) -> None: ...
def array(tensor: Tensor | None) -> Array | None:
    """A tensor as a NumPy array; what NumPy has no dtype for becomes float32."""
    if tensor is None:
        return None
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
