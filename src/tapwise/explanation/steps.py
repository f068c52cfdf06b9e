"""Steps: every step of a convolution as a value, and its line of text. Figures only read them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from tapwise.explanation.words import phrase
from tapwise.geometry import Geometry

Array = npt.NDArray[Any]

# How many are shown in all, and how many at the front and the back of more.
STEPS, CHANNELS, SUMMANDS = (24, 8, 3), (8, 3, 1), (4, 2, 1)
# Numbers in a list: how many are shown in all, and how many at either end of more.
NUMBERS, EDGE = 24, 4


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """How one number of the output is computed. ``str(step)`` is the tutorial's line.

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
        sum: the number: all products and the bias added up; of pooling, the window's largest or average.
        pooling: ``"max"`` or ``"mean"`` of the values; empty where products are summed.
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
    pooling: str = ""

    def __str__(self) -> str:
        """As the tutorial prints it: ``Step 0: sum([0. 1. 2.]*[1. 1. 1.]) = 3.0``."""
        n_rows = len(self.values)
        hidden = n_rows - sum(SUMMANDS[1:])
        summands = [
            self._row(row) if row is not None else phrase("more_channels", n=hidden) for row in shown(n_rows, *SUMMANDS)
        ]
        if not self.positions or not n_rows:
            summands = [phrase("no_input")]
        bias = ""
        if self.bias is not None and np.isrealobj(self.bias):
            bias = f" {'-' if self.bias < 0 else '+'} {number(abs(self.bias))}"
        elif self.bias is not None:
            bias = f" + {number(self.bias)}"
        return f"Step {self.output}: {' + '.join(summands)}{bias} = {number(self.sum)}"

    __repr__ = __str__  # in a notebook or at a prompt: steps as text

    def _row(self, row: int) -> str:
        if self.pooling:
            return f"{self.pooling}({numbers(self.values[row], self.padded)})"
        return f"sum({numbers(self.values[row], self.padded)}*{numbers(self.taps[row])})"


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

    def __repr__(self) -> str:
        hidden = len(self) - sum(STEPS[1:])
        return "\n".join(
            f"... {hidden} more steps ..." if i is None else str(self[i]) for i in shown(len(self), *STEPS)
        )


@dataclass(frozen=True, eq=False)
class Trace:
    """A convolution of one signal, step by step. ``str(trace)`` is its text.

    Arguments:
        geometry: the convolution's shape.
        input: (C_in, L).
        weight: (C_out, C_in/groups, K), transposed (C_in, C_out/groups, K).
        bias: (C_out,) or None.
        output: (C_out, L_out), as the layer itself gave it where nothing requires a gradient.
        pooling: ``"max"`` or ``"mean"``: each window's largest value or average, and there are no products.
        within: of a module that drops outputs of its one convolution, that convolution's own trace.
        dropped: of such a convolution, the outputs that are dropped at the beginning and at the end.
    """

    geometry: Geometry
    input: Array
    weight: Array
    bias: Array | None
    output: Array
    pooling: str = ""
    within: Trace | None = None
    dropped: tuple[int, int] = (0, 0)

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
            raise IndexError(f"step ({output}, channel {channel}) of {outputs} outputs in {channels} channels")
        geometry = self.geometry
        length = self.input.shape[1]
        group = channel // (channels // geometry.groups)
        fan_in = self.input.shape[0] // geometry.groups
        inputs = range(group * fan_in, (group + 1) * fan_in)
        pairs = geometry.window_taps(output)
        if geometry.transposed or self.pooling:  # nothing stands outside the input
            pairs = [(p, k) for p, k in pairs if 0 <= p < length]
        positions = tuple(p for p, _ in pairs)
        rows = self.input[inputs.start : inputs.stop]
        values = np.zeros((fan_in, len(pairs)), self.input.dtype)
        for n, position in enumerate(positions):
            source = geometry.source(position, length)
            if source is not None:
                values[:, n] = rows[:, source]
        taps = self._taps(channel, inputs, [k for _, k in pairs])
        products = values * taps
        bias = None if self.bias is None else self.bias[channel]
        dtype = np.result_type(products, np.float64) if products.dtype.kind in "fc" else np.int64
        total = products.astype(dtype).sum() + (0 if bias is None else bias)
        padded = tuple(not 0 <= p < length for p in positions)
        total = self.output[channel, output] if self.pooling else self.output.dtype.type(total)
        return Step(output, channel, inputs, positions, padded, values, taps, products, bias, total, self.pooling)

    def _taps(self, channel: int, inputs: range, taps: list[int]) -> Array:
        if not self.geometry.transposed:
            rows: Array = self.weight[channel][:, taps]
            return rows
        inner = channel % self.weight.shape[1]
        columns: Array = self.weight[inputs.start : inputs.stop, inner][:, taps]
        return columns

    def __str__(self) -> str:
        """A line for each step, then the output; the middle of what is long is counted, not shown."""
        channels, outputs = self.output.shape
        lines: list[str] = []
        has_padding = False
        for channel in shown(channels, *CHANNELS):
            if channel is None:
                lines.append(f"... {channels - sum(CHANNELS[1:])} more output channels ...")
                continue
            if channels > 1:
                lines.append(self._heading(channel))
            for i in shown(outputs, *STEPS):
                if i is None:
                    lines.append(f"... {outputs - sum(STEPS[1:])} more steps ...")
                    continue
                step = self.step(i, channel)
                has_padding = has_padding or any(step.padded)
                lines.append(str(step))
        final = self.output if channels > 1 else self.output[0]
        lines.append("Final : " + numbers(final, indent=8))
        if has_padding:
            lines.append(phrase("brackets"))
        if self.within is not None:
            lines += self.within._dropped_lines()
        return "\n".join(lines)

    __repr__ = __str__

    def _dropped_lines(self) -> list[str]:
        """What the outputs that are dropped would be, of the first channel."""
        first, last = self.dropped
        n_outputs = self.output.shape[1]
        places = [*range(first), *range(n_outputs - last, n_outputs)]
        shown_places = [None if n is None else places[n] for n in shown(len(places), *STEPS)]
        steps = [
            f"... {len(places) - sum(STEPS[1:])} more steps ..." if place is None else f"  {self.step(place)}"
            for place in shown_places
        ]
        return [phrase("dropped", n=len(places), padding=self.geometry.padding), *steps]

    def _heading(self, channel: int) -> str:
        inputs = self.step(0, channel).inputs if self.output.shape[1] else range(0)
        heading = f"Output channel {channel}"
        if self.geometry.groups > 1 and len(inputs):
            group = inputs.start // len(inputs)
            which = str(inputs[0]) if len(inputs) == 1 else f"{inputs[0]}..{inputs[-1]}"
            heading += f" (group {group}: input channel{'s' * (len(inputs) > 1)} {which})"
        return heading + ":"


def number(value: Any) -> str:
    """A number to eight digits, as Python writes it: ``3.0``; large ones in full."""
    scalar = np.asarray(value)
    if scalar.dtype.kind in "iub":
        return str(scalar.item())
    if scalar.dtype.kind == "c":
        return f"({scalar.item():.8g})"
    exact = float(str(scalar[()]))
    return repr(exact if abs(exact) >= 1e8 else float(f"{exact:.8g}"))


def numbers(values: Array, padded: tuple[bool, ...] = (), indent: int = 0) -> str:
    """A list of numbers; those that padding put there stand in round brackets."""
    style: dict[str, Any] = {"precision": 4, "threshold": NUMBERS, "edgeitems": EDGE}
    if not any(padded):
        prefix = " " * indent
        return np.array2string(values, max_line_width=10**6, prefix=prefix, **style)
    words = [np.array2string(value, **style) for value in values]
    words = [f"({word})" if flag else word for word, flag in zip(words, padded, strict=True)]
    if len(words) > NUMBERS:
        words = [*words[:EDGE], "...", *words[-EDGE:]]
    return f"[{' '.join(words)}]"


def shown(count: int, most: int, front: int, back: int) -> list[int | None]:
    """The indices to show, None standing for those left out."""
    if count <= most:
        return list(range(count))
    return [*range(front), None, *range(count - back, count)]
