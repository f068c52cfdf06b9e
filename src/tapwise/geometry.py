"""Geometry: the integers that fix the shape of a one-dimensional convolution.

The one home of the arithmetic: lengths, windows, which input feeds which output, and what padding
puts where. It knows no tensors and imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tapwise.errors import ShapeError
from tapwise.padding import PADDING_MODES, Padding, at_least_one, integer, pads_of, refuse_fraction, single


@dataclass(frozen=True, init=False, slots=True)
class Geometry:
    """The shape of a convolution, checked once and frozen.

    Arguments:
        kernel_size: number of taps, K >= 1.
        stride: input samples from one window to the next (transposed: outputs from the first
            tap of one input to that of the next), >= 1.
        dilation: input samples from one tap to the next, >= 1.
        padding: an int, a 1-tuple, a pair ``(left, right)``, or ``"valid"``, ``"same"``, ``"causal"``,
            ``"semicausal"``, ``"full"``. Held as the pair. Transposed: what is cut from the ends;
            a number, a pair or ``"causal"``.
        groups: channels are divided into this many independent convolutions, >= 1.
        padding_mode: ``"zeros"``, ``"reflect"``, ``"replicate"`` or ``"circular"``.
        transposed: the adjoint, as ``torch.nn.ConvTranspose1d`` computes it.
        output_padding: transposed only: outputs added on the right.

    Raises:
        ShapeError: a value that no convolution can have.
        TypeError: a value that is no integer.

    Example:
        >>> causal = Geometry(3, dilation=2, padding="causal")
        >>> causal.padding, causal.effective_kernel_size, causal.output_length(10)
        ((4, 0), 5, 10)
        >>> causal.window(0)
        (-4, -2, 0)
    """

    kernel_size: int
    stride: int
    dilation: int
    padding: tuple[int, int]
    groups: int
    padding_mode: str
    transposed: bool
    output_padding: int

    def __init__(
        self,
        kernel_size: int,
        stride: int = 1,
        dilation: int = 1,
        padding: Padding = (0, 0),
        groups: int = 1,
        padding_mode: str = "zeros",
        transposed: bool = False,
        output_padding: int = 0,
    ) -> None:
        kernel_size = integer("kernel_size", kernel_size)
        stride = integer("stride", stride)
        dilation = integer("dilation", dilation)
        groups = integer("groups", groups)
        output_padding = integer("output_padding", output_padding)
        at_least_one("groups", groups, "non-positive groups is not supported")
        at_least_one("stride", stride, "non-positive stride is not supported")
        at_least_one("dilation", dilation, "dilation should be greater than zero")
        at_least_one("kernel_size", kernel_size, "kernel size should be greater than zero")
        if padding_mode not in PADDING_MODES or (transposed and padding_mode != "zeros"):
            sentence = f"padding_mode must be one of {PADDING_MODES}, but got padding_mode={padding_mode!r}"
            if transposed:
                sentence = 'Only "zeros" padding mode is supported for ConvTranspose1d'
            raise ShapeError(sentence, got=f"padding_mode={padding_mode!r}")
        effective = dilation * (kernel_size - 1) + 1
        pair = pads_of(padding, effective, stride, transposed)
        if transposed and padding == "causal":
            output_padding += max(stride - effective, 0)
        if output_padding < 0 or (output_padding and not transposed):
            raise ShapeError(
                "negative output_padding is not supported"
                if output_padding < 0
                else "output_padding belongs to transposed convolutions",
                got=f"output_padding={output_padding}, transposed={transposed}",
                expected="output_padding >= 0, and 0 unless transposed",
            )
        for name, value in (
            ("kernel_size", kernel_size),
            ("stride", stride),
            ("dilation", dilation),
            ("padding", pair),
            ("groups", groups),
            ("padding_mode", padding_mode),
            ("transposed", bool(transposed)),
            ("output_padding", output_padding),
        ):
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        """As it is made, without what is usual: ``Geometry(3, dilation=2, padding=(4, 0))``."""
        usual: dict[str, Any] = {
            "stride": 1,
            "dilation": 1,
            "padding": (0, 0),
            "groups": 1,
            "padding_mode": "zeros",
            "transposed": False,
            "output_padding": 0,
        }
        said = [f", {name}={getattr(self, name)!r}" for name, value in usual.items() if getattr(self, name) != value]
        return f"Geometry({self.kernel_size}{''.join(said)})"

    @classmethod
    def of(cls, layer: Any) -> Geometry:
        """The geometry of a ``torch.nn.Conv1d`` or ``ConvTranspose1d``, or of one of ours.

        The kernel size is that of the layer's weight, so that a weight of another length put in
        afterwards counts.

        Raises:
            TypeError: anything that is no one-dimensional convolution.

        Example:
            >>> import torch
            >>> Geometry.of(torch.nn.Conv1d(1, 1, 4, padding="same")).padding
            (1, 2)
        """
        weight = getattr(layer, "weight", None)
        if not hasattr(layer, "padding_mode") or getattr(weight, "ndim", None) != 3:
            raise TypeError(
                f"expected a one-dimensional convolution layer with a weight of three dimensions, "
                f"got {type(layer).__name__}"
            )
        transposed = bool(layer.transposed)
        output_padding = single("output_padding", layer.output_padding) if transposed else 0
        return cls(
            weight.shape[-1],  # type: ignore[union-attr]
            stride=single("stride", layer.stride),
            dilation=single("dilation", layer.dilation),
            padding=layer.padding,
            groups=layer.groups,
            padding_mode=layer.padding_mode,
            transposed=transposed,
            output_padding=output_padding,
        )

    @property
    def left(self) -> int:
        """Positions padded before the first input (transposed: outputs cut there)."""
        return self.padding[0]

    @property
    def right(self) -> int:
        """Positions padded after the last input (transposed: outputs cut there)."""
        return self.padding[1]

    @property
    def pads_as_torch(self) -> bool:
        """Whether the padding is what torch's convolutions do by themselves: as many zeros on both sides."""
        return self.left == self.right and self.padding_mode == "zeros"

    @property
    def effective_kernel_size(self) -> int:
        """Input samples that one output spans: ``dilation * (K - 1) + 1``."""
        return self.dilation * (self.kernel_size - 1) + 1

    def output_length(self, length: int) -> int:
        """Outputs for ``length`` inputs, 0 where there is none.

        Example:
            >>> Geometry(3, stride=2).output_length(10)
            4
        """
        if type(length) is not int:
            refuse_fraction("length", length)
        effective = self.effective_kernel_size
        if self.transposed:
            if length == 0:
                return 0
            full = (length - 1) * self.stride + effective + self.output_padding
            return max(0, full - self.left - self.right)
        return max(0, (length + self.left + self.right - effective) // self.stride + 1)

    def input_length(self, outputs: int) -> int:
        """The fewest inputs that give at least ``outputs`` outputs.

        Example:
            >>> Geometry(3, stride=2).input_length(4)
            9
        """
        if type(outputs) is not int:
            refuse_fraction("outputs", outputs)
        if outputs <= 0:
            return 0
        effective = self.effective_kernel_size
        if self.transposed:
            missing = outputs - effective - self.output_padding + self.left + self.right
            return max(1, -(-missing // self.stride) + 1)
        return max(0, (outputs - 1) * self.stride + effective - self.left - self.right)

    def window(self, output: int) -> tuple[int, ...]:
        """Input positions that an output reads, before padding answers for those outside.

        Position ``output * stride - left + k * dilation`` for each tap k. Transposed: each j with
        ``output + left - j * stride == k * dilation`` for some tap k, in the order of the taps.

        Example:
            >>> Geometry(3, dilation=2, padding=2).window(0)
            (-2, 0, 2)
        """
        return tuple(position for position, _ in self.window_taps(output))

    def window_taps(self, output: int) -> list[tuple[int, int]]:
        """The pairs ``(position, tap)`` of an output's window, in the order of the taps."""
        output = integer("output", output)
        if not self.transposed:
            first = output * self.stride - self.left
            return [(first + k * self.dilation, k) for k in range(self.kernel_size)]
        shifts = ((output + self.left - k * self.dilation, k) for k in range(self.kernel_size))
        return [(shift // self.stride, k) for shift, k in shifts if shift % self.stride == 0]

    def reads(self, output: int, length: int) -> list[tuple[int, int]]:
        """The pairs ``(input, tap)`` that an output sums, padding resolved; zero padding is left out.

        Example:
            >>> Geometry(3, padding=1, padding_mode="reflect").reads(0, 10)
            [(1, 0), (0, 1), (1, 2)]
        """
        length = integer("length", length)
        pairs = ((self.source(p, length), k) for p, k in self.window_taps(output))
        return [(j, k) for j, k in pairs if j is not None]

    def source(self, position: int, length: int) -> int | None:
        """The input whose value stands at ``position``; None where a zero does.

        Raises:
            ShapeError: a position outside that the padding mode can't fill from so few samples.

        Example:
            >>> [Geometry(3, padding=2, padding_mode="circular").source(p, 4) for p in (-2, 0, 5)]
            [2, 0, 1]
        """
        if 0 <= position < length:
            return position
        if self.padding_mode == "zeros":
            return None
        self.refuse_too_few(length)
        return int(self.fold(position, length))

    def refuse_too_few(self, length: int) -> None:
        """Raise a ShapeError where the padding mode can't fill padding from so few samples."""
        fewest = 2 if self.padding_mode == "reflect" else 1
        if length < fewest:
            raise ShapeError(
                f"padding_mode {self.padding_mode!r} can't fill padding from {length} samples",
                got=f"{length} samples",
                expected=f"at least {fewest}",
                fix="give a longer input, or use padding_mode='zeros'",
            )

    def fold(self, positions: Any, length: int) -> Any:
        """For modes other than zeros: the inputs whose values stand at positions outside.

        Plain arithmetic, so that an int, a NumPy array or a tensor of positions gives the same.

        Example:
            >>> import numpy as np
            >>> Geometry(3, padding=2, padding_mode="reflect").fold(np.array([-2, -1, 10, 11]), 10)
            array([2, 1, 8, 7])
        """
        if self.padding_mode == "circular":
            return positions % length
        last = length - 1
        if self.padding_mode == "reflect":
            #  -2 -1 | 0 1 2 3 | 4 5      positions
            #   2  1 | 0 1 2 3 | 2 1      a period of 2 * last, up and down again
            return last - abs(positions % (2 * last) - last)
        # The nearest end, as half of a distance sum, since clip is spelt differently everywhere.
        return (abs(positions) - abs(positions - last) + last) // 2

    def feeds(self, position: int, length: int) -> tuple[int, ...]:
        """The outputs that an input feeds, in order, through every copy that padding makes of it.

        Raises:
            IndexError: an input outside ``[0, length)``.

        Example:
            >>> Geometry(3, padding=1, padding_mode="circular").feeds(9, 10)
            (0, 8, 9)
        """
        position, length = integer("position", position), integer("length", length)
        if not 0 <= position < length:
            raise IndexError(f"input {position} is outside [0, {length})")
        outputs = self.output_length(length)
        fed: set[int] = set()
        if self.transposed:
            start = position * self.stride - self.left
            fed.update(start + k * self.dilation for k in range(self.kernel_size))
        else:
            for copy in self._copies(position, length):
                shifts = (copy + self.left - k * self.dilation for k in range(self.kernel_size))
                fed.update(shift // self.stride for shift in shifts if shift % self.stride == 0)
        return tuple(sorted(i for i in fed if 0 <= i < outputs))

    def _copies(self, position: int, length: int) -> list[int]:
        copies = [position]
        if self.padding_mode != "zeros":
            pads = (*range(-self.left, 0), *range(length, length + self.right))
            copies += [p for p in pads if self.source(p, length) == position]
        return copies
