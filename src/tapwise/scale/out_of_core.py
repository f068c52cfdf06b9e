"""Apply: a layer or a model over a recording larger than memory, into a store; goes on after a kill."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from tapwise.errors import SignalError
from tapwise.padding import integer
from tapwise.scale.amounts import bytes_of
from tapwise.scale.begin import begin
from tapwise.scale.computation import Computation, ModelComputation, example_for
from tapwise.scale.layout import layout_of
from tapwise.scale.sources import OverlapReader, open_source
from tapwise.scale.target import FinishedError, Target
from tapwise.scale.tasks import Division, Task, divide, interleaved
from tapwise.signals.base import Array, Reader
from tapwise.signals.samples import Losses
from tapwise.signals.stored import StoredReader


@dataclass(frozen=True)
class Applied:
    """What a run did.

    Arguments:
        target: where the outputs are.
        shape: of the target.
        n_outputs: samples of each channel.
        n_tasks: parts in which they are computed.
        n_computed: parts that this run computed; the others were there already.
        workers: that computed at the same time.
        seconds: that it took.
        losses: what was clipped, or was neither NaN nor infinite before and is now, in what this run computed.
    """

    target: str
    shape: tuple[int, ...]
    n_outputs: int
    n_tasks: int
    n_computed: int
    workers: int
    seconds: float
    losses: Losses = field(default_factory=Losses)

    def __str__(self) -> str:
        if not self.n_computed:
            return f"{self.target}: {self.n_outputs:,} outputs, shape {self.shape}: the same run has made it before"
        there = self.n_tasks - self.n_computed
        before = f", {there:,} of {self.n_tasks:,} parts were there already" if there else ""
        if self.losses.overflowed:
            before += f"; {self.losses.overflowed:,} outputs are beyond the dtype's range"
        return f"{self.target}: {self.n_outputs:,} outputs, shape {self.shape}, in {self.seconds:.2f} s{before}"


def apply(
    layer_or_model: nn.Module,
    source: Any,
    target: Any,
    *,
    axis: int | str | None = None,
    client: Any = None,
    max_memory: int | str = "1GB",
    resume: bool = True,
    overwrite: bool = False,
    workers: int | None = None,
    example: Any = None,
    chunk: int | None = None,
    progress: Callable[[int], None] = lambda n_outputs: None,
) -> Applied:
    """Run a layer or a model over a recording larger than memory, and write its outputs to a store.

    The outputs are those of one run over all of the recording. Each task reads exactly the samples that its
    outputs need, and writes complete chunks of the target. Attributes and coordinates of the source are kept;
    the coordinate of time is moved and the sampling rate divided as the strides have it: an output of one convolution
    belongs to the sample that a table's row would (the last that it reads, of a centred one the middle), output j of a
    model to ``j * stride``. Samples are computed in the model's dtype, which is the target's.

    Arguments:
        layer_or_model: what ``tapwise.inspect`` reads, but for recurrences. Run as in evaluation.
        source: a path or address of a Zarr array or an HDF5 dataset (``"day.zarr"``, ``"day.h5:eeg"``), a
            ``zarr.Array``, an ``h5py.Dataset``, an array, or a file that ``tapwise apply`` reads. One axis is time, the
            last of the others the model's channels; a model of one channel runs on each channel by itself.
        target: a path or address likewise, a ``zarr.Group``, a store of Zarr's, or an empty ``zarr.Array``.
        axis: of time, as a number or a name; None: the dimension named ``"time"``, else the last.
        client: a ``dask.distributed.Client``, whose cluster then computes; None: threads of this process.
        max_memory: of all parts that are computed at the same time in one process, as ``"500MB"``.
        resume: go on with a target that the same run began and didn't finish. False: refuse it.
        overwrite: replace a target that something else made.
        workers: threads; None: as many as torch uses.
        example: a tensor that the model takes, (1, channels, time); None: zeros of the source's channels.
        chunk: outputs of a chunk of the target along time; None: as many as a chunk of the source gives.
        progress: called with the outputs of a channel that are written so far.

    Raises:
        SignalError: a source that can't be read, or changed meanwhile; a target that holds something else.
        TimelineError: a model that can't be computed by parts, by the path of its module.
        ValueError: channels that aren't the model's; too little memory.

    Example:
        >>> import tempfile, numpy as np, zarr, tapwise as tw
        >>> folder = tempfile.mkdtemp()
        >>> x = np.random.default_rng(0).normal(size=(2, 10_000)).astype(np.float32)
        >>> source = zarr.create_array(f"{folder}/in.zarr", data=x, chunks=(2, 1000))
        >>> layer = tw.Conv1d.from_taps(np.ones(5) / 5)
        >>> tw.scale.apply(layer, source, f"{folder}/out.zarr").n_outputs
        10000
        >>> y = zarr.open_array(f"{folder}/out.zarr")[:]
        >>> np.allclose(y[1], np.convolve(x[1], np.ones(5) / 5)[:10_000], atol=1e-6)
        True
    """
    if not isinstance(layer_or_model, nn.Module):
        raise TypeError(f"expected a torch.nn.Module, got {type(layer_or_model).__name__}")
    budget = bytes_of(max_memory)
    with open_source(source, axis) as reader:
        model = layer_or_model
        given = example_for(model, reader) if example is None else example
        computation = ModelComputation(Loaded(model, given), reader)
        return run(
            computation,
            reader,
            target,
            client=client,
            max_memory=budget,
            resume=resume,
            overwrite=overwrite,
            workers=workers,
            chunk=chunk,
            progress=progress,
        )


@dataclass(frozen=True)
class Loaded:
    """A model and an example, as a function that gives them."""

    model: nn.Module
    example: Any

    def __call__(self) -> tuple[nn.Module, Any]:
        return self.model, self.example


def run(
    computation: Computation,
    reader: Reader,
    target: Any,
    *,
    client: Any = None,
    max_memory: int,
    resume: bool = True,
    overwrite: bool = False,
    workers: int | None = None,
    chunk: int | None = None,
    progress: Callable[[int], None] = lambda n_outputs: None,
) -> Applied:
    """Compute all outputs of a recording and write them, as ``apply`` has it."""
    if workers is not None and integer("workers", workers) < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    if chunk is not None and integer("chunk", chunk) < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    started = time.perf_counter()
    n_outputs = computation.output_length(reader.length)
    if not n_outputs:
        raise SignalError(f"{reader.path}: of {reader.length:,} samples there is no output")
    n_rows = reader.channels // computation.channels_in
    layout = layout_of(
        reader, n_outputs, n_rows * computation.channels_out, computation.dtype, computation.moments, chunk
    )
    n_workers = workers or torch.get_num_threads()
    if client is not None:
        threads = client.nthreads().values()
        n_workers, at_once = max(1, sum(threads)), max([1, *threads])
    else:
        at_once = n_workers
    mark = reader.mark()
    record = {
        "layer": computation.words,
        "source": str(reader.path),
        "recipe": _recipe(computation, reader, mark, layout.axis),
    }
    # Refuses what doesn't fit, before anything is made.
    division = divide(layout, computation, reader, at_once, max_memory)
    try:
        writer = begin(target, layout, record, source=reader, resume=resume, overwrite=overwrite)
    except FinishedError as finished:
        return Applied(str(finished), layout.shape, n_outputs, division.n_tasks, 0, n_workers, 0.0)
    try:
        division = divide(writer.layout, computation, reader, at_once, max_memory)
        missing = [t for t in division.tasks() if not writer.is_written(t.start, t.stop, t.channels)]
        reports = _Progress(division, len(missing), n_outputs, progress)
        if missing:
            computation.prepare(missing[0].rows, missing[0].block, reader.length)
        if client is None:
            missing = interleaved(missing, n_workers)
        parts = _with_overlap(reader, division.overlap(computation, reader.length), at_once, max_memory)
        with _executor(client, n_workers) as executor:
            losses = _compute(
                executor, client, computation, parts, writer, missing, 2 * n_workers if client else n_workers, reports
            )
        if reader.mark() != mark:
            raise SignalError(
                f"{reader.path}: changed while it was read, so that {writer.place} may hold outputs of both: "
                "run again, with overwrite (--overwrite)"
            )
        writer.finish({**record, **_versions()})
    finally:
        writer.close()
    seconds = time.perf_counter() - started
    return Applied(
        writer.place, writer.layout.shape, n_outputs, division.n_tasks, len(missing), n_workers, seconds, losses
    )


def _with_overlap(reader: Reader, overlap: int, at_once: int, max_memory: int) -> Reader:
    """A store's samples, kept for the part that follows, where that takes little memory."""
    held = 2 * at_once * overlap * reader.channels * reader.dtype.itemsize
    if not overlap or not isinstance(reader, StoredReader) or held > max_memory // 16:
        return reader
    return OverlapReader(reader, overlap, 2 * at_once)


class _Progress:
    """Counts finished tasks and reports outputs."""

    def __init__(self, division: Division, n_missing: int, n_outputs: int, progress: Callable[[int], None]) -> None:
        self._total, self._done = division.n_tasks, division.n_tasks - n_missing
        self._n_outputs, self._progress = n_outputs, progress
        progress(self._done * n_outputs // self._total)

    def __call__(self) -> None:
        self._done += 1
        self._progress(self._done * self._n_outputs // self._total)


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {"tapwise": version("tapwise"), "torch": torch.__version__}


def _recipe(computation: Computation, reader: Reader, mark: Any, axis: int) -> str:
    """What two runs have in common where they make the same target."""
    parts = [computation.digest, str(reader.path), reader.length, reader.channels, str(reader.dtype), axis, mark]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@contextmanager
def _executor(client: Any, workers: int) -> Iterator[Executor]:
    """What runs tasks: threads that each compute alone, or a cluster."""
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(workers, "tapwise") if client is None else client.get_executor(pure=False)
    try:
        with pool as executor:
            yield executor
    finally:
        torch.set_num_threads(threads)


def _alone() -> None:
    """One thread for each task: the tasks share the processors, and a task's bits don't depend on their number."""
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)


def _compute(
    executor: Executor,
    client: Any,
    computation: Computation,
    reader: Reader,
    target: Target,
    tasks: list[Task],
    in_flight: int,
    report: Callable[[], None],
) -> Losses:
    """Run tasks, a few at a time; the first that fails ends the run once the others at work have ended."""
    writes_here = client is not None and target.writes_here
    shared: Any = (computation, reader, None if writes_here else target)
    if client is not None:
        shared = _shared_at_workers(client, shared)
    waiting: dict[Future[Any], Task] = {}
    losses = Losses()

    def settle() -> None:
        finished, _ = wait(waiting, return_when=FIRST_COMPLETED)
        for future in finished:
            task = waiting.pop(future)
            block, lost = future.result()
            losses.add(lost)
            if block is not None:
                target.write(block, task.start, task.channels)
            report()

    try:
        for task in tasks:
            while len(waiting) >= in_flight:
                settle()
            waiting[executor.submit(do, shared, task)] = task
        while waiting:
            settle()
    except BaseException:
        for future in waiting:
            future.cancel()
        wait([future for future in waiting if not future.cancelled()], timeout=60)
        raise
    return losses


def _shared_at_workers(client: Any, shared: Any) -> Any:
    """What all tasks share, as the result of a task: Dask makes it again where the worker that holds it dies.

    Scattered data would be gone with the last worker that held it.
    """
    import dask

    with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TB"}):  # a model is large, and sent once
        return client.submit(_same, shared, pure=False)


def _same(shared: Any) -> Any:
    return shared


def do(shared: tuple[Computation, Reader, Target | None], task: Task) -> tuple[Array | None, Losses]:
    """Compute the outputs of a task and write them; without a target they are returned."""
    _alone()
    (computation, reader, target), losses = shared, Losses()
    made = _outputs(computation, reader, task, losses)
    if target is None:
        return made, losses
    try:
        target.write(made, task.start, task.channels)
    except OSError as error:
        raise SignalError(f"{target.place}: can't be written: {error}; the run can be gone on with (resume)") from error
    return None, losses


def _outputs(computation: Computation, reader: Reader, task: Task, losses: Losses) -> Array:
    """All outputs of a task: (channels, n)."""
    out = computation.channels_out
    rows = range(task.channels.start // out, task.channels.stop // out)
    if task.rows >= len(rows) and task.block >= task.stop - task.start:
        return computation.outputs(reader, rows, task.start, task.stop, losses)
    made = np.empty((len(task.channels), task.stop - task.start), computation.dtype)
    for first in range(rows.start, rows.stop, task.rows):
        some = range(first, min(first + task.rows, rows.stop))
        at = slice(some.start * out - task.channels.start, some.stop * out - task.channels.start)
        for start in range(task.start, task.stop, task.block):
            stop = min(start + task.block, task.stop)
            made[at, start - task.start : stop - task.start] = computation.outputs(reader, some, start, stop, losses)
    return made
