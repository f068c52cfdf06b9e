"""Filtering: a filter over a signal on disk, a block of outputs at a time, equal to one run over it all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tapwise import partition
from tapwise.engine import compiled, preparing
from tapwise.engine.dispatch import convolve
from tapwise.engine.kernels import KERNELS
from tapwise.engine.options import options
from tapwise.engine.plan import NATIVE, Plan, choose, choose_kernel, predict
from tapwise.engine.problem import Problem
from tapwise.errors import SignalError
from tapwise.fir import gain
from tapwise.geometry import Geometry
from tapwise.signals.arrays import ArrayWriter
from tapwise.signals.base import Array, Reader, Writer
from tapwise.signals.samples import Losses, Samples, as_stored

# Samples of all channels in a block: a few megabytes whatever the dtype.
BLOCK = 1 << 18
# Outputs of a block that are worth one of all channels.
_FEWEST = 256
_SUM_DTYPES = {
    "int8": torch.float32,
    "uint8": torch.float32,
    "int16": torch.float32,
    "uint16": torch.float32,
    "float16": torch.float32,
    "float32": torch.float32,
    "complex64": torch.complex64,
    "complex128": torch.complex128,
}


@dataclass
class Summary(Losses):
    """What a run did.

    Arguments:
        outputs: samples written to each channel.
        plan: by which the first block ran; None where there was none.
        is_uncompiled: whether torch's kernel ran because another would have had to be compiled first.
        channels: of the outputs.
    """

    outputs: int = 0
    plan: Plan | None = None
    is_uncompiled: bool = False
    channels: int = 1


class Filter:
    """A filter as it runs over a signal: any outputs are computed by themselves. It may be pickled.

    Arguments:
        taps: (K,) for every channel alike, or a weight (C_out, C_in / groups, K), used as they stand.
        geometry: of the convolution; its ``groups`` are the weight's.
        nan: ``"error"`` stops at the first NaN of the signal, ``"propagate"`` lets it reach the outputs that
            read it, ``"skip"`` leaves it out: the other taps of a window grow in its place. That is for (K,)
            taps of 0 and above; a window with next to no weight on numbers gives NaN.
        is_shortened: taps in the padding are left out alike.

    Raises:
        SignalError: taps that the signal's dtype can't be filtered with.
        ShapeError: a signal shorter than the window, without padding.
    """

    def __init__(
        self, reader: Reader, taps: Array, geometry: Geometry, nan: str = "error", is_shortened: bool = False
    ) -> None:
        dtype = _SUM_DTYPES.get(reader.dtype.name, torch.float64)
        if np.iscomplexobj(taps) and not dtype.is_complex:
            raise SignalError(f"{reader.path}: complex taps need a complex signal, got {reader.dtype}")
        self.geometry, self.nan, self.is_shortened, self.dtype = geometry, nan, is_shortened, dtype
        self.is_alike = taps.ndim == 1  # every channel is a row of a batch
        weight = torch.from_numpy(np.array(taps, order="C")).to(dtype)
        self.weight = weight.reshape(1, 1, -1) if self.is_alike else weight
        if not weight.isfinite().all():
            raise SignalError(f"{reader.path}: taps beyond the range of {dtype}, in which it is filtered")
        like = torch.empty((1, 1 if self.is_alike else reader.channels, reader.length), dtype=dtype, device="meta")
        g, meta = geometry, self.weight.to("meta")
        self.problem = Problem.of(like, meta, None, g.stride, g.padding, g.dilation, g.groups, g.padding_mode)
        self.channels = reader.channels if self.is_alike else int(weight.shape[0])

    def plan(self, start: int, stop: int, length: int) -> Plan:
        """How some outputs are computed."""
        needed, problem = partition.part(self.geometry, start, stop, length), self.problem
        count = needed.inputs[1] - needed.inputs[0] + len(needed.left) + len(needed.right)
        return choose(Problem(needed.geometry, problem.in_channels, problem.out_channels, count, self.dtype, "cpu"))

    def outputs(self, reader: Reader, channels: range | None, start: int, stop: int, losses: Losses) -> Array:
        """The outputs [start, stop) as the signal's samples are stored: (channels, stop - start).

        Arguments:
            channels: of the signal, where every one is filtered alike; None: all.
            losses: what is clipped is counted there.

        Raises:
            SignalError: a NaN, or integers too large to be computed exactly.
        """
        read = Samples(reader, self.dtype, self.nan == "error", channels)
        needed = partition.part(self.geometry, start, stop, reader.length)
        pieces = [_copied(read, needed.left), read(*needed.inputs), _copied(read, needed.right)]
        x = torch.cat([piece for piece in pieces if piece is not None], dim=-1)  # (channels, n)
        gaps = x.isnan() if self.nan == "skip" and not read.finite else None
        if gaps is not None:
            x = x.masked_fill(gaps, 0)
        with torch.no_grad():
            if self.is_alike:
                y = convolve(x[:, None], self.weight, None, needed.geometry)[:, 0]  # (channels, n)
                if gaps is not None or (self.is_shortened and any(needed.geometry.padding)):
                    y *= gain(gaps, x.shape[-1], self.weight, needed.geometry, self.is_shortened)
            else:
                y = convolve(x[None], self.weight, None, needed.geometry)[0]
        return as_stored(y.numpy(), reader.dtype, reader.quantum, read.finite, losses, reader.path)


def run(reader: Reader, writer: Writer, filter: Filter, progress: Callable[[int], None] = lambda n: None) -> Summary:
    """Filter a signal and write the outputs.

    Arguments:
        progress: called with the number of outputs written so far, first with 0 when all is ready.

    Raises:
        SignalError: a NaN, or integers too large to be computed exactly; nothing is committed.
    """
    outputs = filter.problem.output_length
    summary = Summary(outputs=outputs, channels=filter.channels)
    prepared = _prepared(filter.problem, reader.channels if filter.is_alike else 1)
    summary.is_uncompiled = not isinstance(prepared, nullcontext)
    with prepared:
        progress(0)
        for channels, start, stop in _blocks(reader, writer, outputs, filter.geometry, filter.is_alike):
            if summary.plan is None:
                summary.plan = filter.plan(start, stop, reader.length)
            stored = filter.outputs(reader, channels, start, stop, summary)
            if channels is None:
                writer.write(stored)
                progress(stop)
            else:
                assert isinstance(writer, ArrayWriter)
                writer.write(stored, start, channels.start)
                progress((channels.start * outputs + len(channels) * stop) // reader.channels)
    return summary


def _prepared(problem: Problem, rows: int) -> AbstractContextManager[Any]:
    """Compile what the filter needs; or, where torch's kernel is done with the signal sooner, choose that.

    Arguments:
        rows: of the batch.
    """
    positions = BLOCK // (rows * problem.in_channels) + problem.geometry.effective_kernel_size
    problem = replace(problem, device="cpu")
    block = replace(problem, length=min(problem.length, positions))
    loops = KERNELS[choose_kernel(block)].compiled_loops(block)
    absent = compiled.missing(loops)
    if absent and rows * predict(NATIVE, problem) < preparing.seconds_of(absent):
        return options(kernel=NATIVE)
    preparing.prepare(loops)
    return nullcontext()


Block = tuple[range | None, int, int]  # channels, None for all; outputs from, to


def _blocks(reader: Reader, writer: Writer, outputs: int, geometry: Geometry, is_alike: bool) -> Iterator[Block]:
    """The outputs by parts that fit the memory: of all channels, or of some where all would leave few samples each."""
    window = geometry.effective_kernel_size
    together = reader.channels * (_FEWEST * geometry.stride + window)
    if together > 4 * BLOCK and is_alike and reader.has_rows and isinstance(writer, ArrayWriter) and writer.has_rows:
        length = min(reader.length, max(BLOCK, 4 * window))
        at_a_time = max(1, BLOCK // length)
        for first in range(0, reader.channels, at_a_time):
            channels = range(first, min(first + at_a_time, reader.channels))
            block = max(1, length // geometry.stride)
            yield from ((channels, start, min(start + block, outputs)) for start in range(0, outputs, block))
        return
    block = max(1, BLOCK // (reader.channels * geometry.stride))
    if isinstance(writer, ArrayWriter):  # which writes each channel's part of a block to a place of its own
        block = max(block, 64)
    yield from ((None, start, min(start + block, outputs)) for start in range(0, outputs, block))


def _copied(read: Samples, sources: tuple[int, ...]) -> Tensor | None:
    """The samples that padding copies, in the order in which it places them."""
    if not sources:
        return None
    first = min(sources)
    return read(first, max(sources) + 1)[:, [j - first for j in sources]]
