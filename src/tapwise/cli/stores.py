"""tapwise apply into a Zarr store or an HDF5 file: by parts, on threads or a cluster, resumable."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

from tapwise.cli import models
from tapwise.cli.options import StoreOptions
from tapwise.cli.progress import Progress, print_losses, print_outputs, speed
from tapwise.cli.terminal import say
from tapwise.engine.compiled import announce_by
from tapwise.errors import TimelineError
from tapwise.extras import need
from tapwise.scale.amounts import bytes_of
from tapwise.scale.begin import begin
from tapwise.scale.computation import Computation, ModelComputation
from tapwise.scale.layout import Moments, layout_of
from tapwise.scale.out_of_core import Applied, run
from tapwise.scale.sequential_writer import SequentialWriter
from tapwise.signals.base import Reader
from tapwise.signals.models import ChannelStream, Kind
from tapwise.signals.models import run as run_stream


def run_into_store(
    computation: Computation, reader: Reader, target: Path, rate: float | None, options: StoreOptions
) -> Applied:
    """Compute all outputs into a store, and say what was done.

    Arguments:
        rate: samples a second of the outputs, or None.
    """
    announce_by(lambda text: say(text, error=True))
    n_outputs = computation.output_length(reader.length)
    with cluster(options) as client, Progress(n_outputs, rate) as progress:
        done = run(
            computation,
            reader,
            target,
            client=client,
            max_memory=bytes_of(options.max_memory),
            resume=options.resume,
            overwrite=options.overwrite,
            workers=options.workers,
            chunk=options.chunk,
            progress=progress,
        )
    if not done.n_computed:
        say(str(done))
        return done
    print_outputs(reader, reader.length, target, done.n_outputs, rate)
    there = done.n_tasks - done.n_computed
    before = f"{there:,} of {done.n_tasks:,} parts were there already, " if there else ""
    by = f"{done.workers} worker{'s' * (done.workers > 1)}"
    say(f"  shape {done.shape}, {before}{by}, {done.seconds:.2f} s, {speed(done.n_outputs, done.seconds, rate)}")
    print_losses(done.losses, computation.dtype, done.n_outputs * computation.channels_out)
    for note in reader.notes:
        say(f"  {note}", error=True)
    return done


@contextmanager
def cluster(options: StoreOptions) -> Iterator[Any]:
    """The cluster that the options name or ask for; None for threads of this process."""
    if options.scheduler is None and not options.processes:
        yield None
        return
    distributed = need("distributed")
    with ExitStack() as stack:
        if options.scheduler is not None:
            try:
                client = distributed.Client(options.scheduler, timeout=10)
            except (OSError, ValueError) as error:
                raise ValueError(f"--scheduler {options.scheduler}: {error}") from None
        else:
            workers = options.workers or 2
            local = distributed.LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0")
            client = distributed.Client(stack.enter_context(local))
        yield stack.enter_context(client)


def run_model(
    name: str,
    weights: Path | None,
    size: str,
    reader: Reader,
    target: Path,
    rate: float | None,
    nan: str,
    options: StoreOptions,
) -> float:
    """Run the model of a name into a store: by parts, or, where it carries a state, from beginning to end.

    Returns:
        Samples of the recording for each output.
    """
    make = partial(models.load, name, weights, size)
    try:
        computation = ModelComputation(make, reader, nan)
    except TimelineError as error:
        live = _streamed(make, reader, error)
        if options != StoreOptions(overwrite=options.overwrite, chunk=options.chunk):
            raise ValueError(
                f"{error.operation} in {error.path}: {error.reason}: leave out --resume, --workers, --processes, "
                "--scheduler and --max-memory, and it runs from beginning to end"
            ) from None
        say(f"{name} carries a state: it runs from beginning to end, without --resume", error=True)
        _run_in_order(name, live, reader, target, rate, nan, options)
        return float(live.stride)
    rate_out = None if rate is None else float(Fraction(rate) / computation.moments.stride)
    done = run_into_store(computation, reader, target, rate_out, options)
    by_channel = ", each channel by itself" if computation.channels_in == 1 < reader.channels else ""
    if done.n_computed:
        say(f"  {name}{by_channel}")
    return float(computation.moments.stride)


def _streamed(make: Any, reader: Reader, error: TimelineError) -> ChannelStream:
    """A stream of a model that can't be computed by parts; the reason, where it can't be streamed either."""
    try:
        model, example = make()
        return ChannelStream(model, example, reader.channels, reader.path)
    except TimelineError:
        raise error from None


def _run_in_order(
    name: str, live: ChannelStream, reader: Reader, target: Path, rate: float | None, nan: str, options: StoreOptions
) -> None:
    outputs = live.output_length(reader.length)
    if not outputs:
        raise ValueError(f"{reader.path}: of {reader.length:,} samples the model makes no output")
    rate_out = None if rate is None else float(Fraction(rate) / live.stride)
    layout = layout_of(reader, outputs, live.out_channels, live.dtype, Moments(live.stride), options.chunk)
    record = {"layer": name, "source": str(reader.path), "recipe": secrets.token_hex(16)}
    store = begin(target, layout, record, source=reader, resume=False, overwrite=options.overwrite)
    with SequentialWriter(store, record) as writer, Progress(outputs, rate_out) as progress:
        summary = run_stream(reader, writer, live, Kind(live.dtype), nan=nan, progress=progress)
    print_outputs(reader, reader.length, target, summary.outputs, rate_out)
    print_losses(summary, live.dtype, summary.outputs * live.out_channels)
    say(
        f"  {name}, from beginning to end, since it carries a state, {progress.seconds:.2f} s, "
        f"{speed(summary.outputs, progress.seconds, rate_out)}"
    )
    for note in reader.notes:
        say(f"  {note}", error=True)
