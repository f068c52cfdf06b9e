"""tapwise apply: a recording filtered, or run through a model, by blocks."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from tapwise.cli.options import (
    NO_STORE_OPTIONS,
    NO_TABLE_OPTIONS,
    Axis,
    Causal,
    Dilation,
    Flip,
    PaddingMode,
    PaddingOption,
    Rate,
    Size,
    StoreOptions,
    Stride,
    TableOptions,
    Weights,
    as_used,
    rate_of,
    refuse_missing,
    refuse_target,
    usual_mode,
)
from tapwise.cli.terminal import say
from tapwise.extras import need

if TYPE_CHECKING:
    from tapwise.geometry import Geometry
    from tapwise.signals import Reader


def apply(
    signal: Annotated[
        Path,
        Parameter(
            help="A .wav, .flac, .npy, .csv, .tsv or .parquet file, or a store: .zarr or .h5, .zarr:NAME for one array."
        ),
    ],
    result: Annotated[Path | None, Parameter(help="The file to write, as -o.")] = None,
    /,
    *,
    taps: Annotated[
        str | None, Parameter(help="The filter; its forms are listed below.", allow_leading_hyphen=True)
    ] = None,
    model: Annotated[str | None, Parameter(help="Instead of taps: module:factory or file.py:factory.")] = None,
    weights: Weights = None,
    size: Size = "",
    output: Annotated[
        Path | None, Parameter(name=["--output", "-o"], help="Default: NAME.filtered.SUFFIX beside it.")
    ] = None,
    padding: PaddingOption = None,
    causal: Causal = False,
    stride: Stride = 1,
    dilation: Dilation = 1,
    padding_mode: Annotated[
        Literal[PaddingMode, "shorter"] | None,
        Parameter(
            help="What stands in the padding; shorter: nothing, the window is shortened and its weights grow. "
            "Default: shorter for mean and gauss, else replicate for tables and zeros for others."
        ),
    ] = None,
    flip: Flip = None,
    axis: Axis = None,
    plot: Annotated[
        Path | None,
        Parameter(help="Draw before, after, their difference and their spectra: an .svg, .png or .pdf file."),
    ] = None,
    table: TableOptions = NO_TABLE_OPTIONS,
    store: StoreOptions = NO_STORE_OPTIONS,
    rate: Rate = None,
    nan: Annotated[
        Literal["error", "propagate", "skip"],
        Parameter(help="At a NaN or gap: stop, let it through, or average what else is in the window (mean, gauss)."),
    ] = "error",
) -> None:
    """Filter every channel of a recording, or run it through a model, by blocks: its size doesn't matter.

    One filter is every channel's. Several, as those of a stereo impulse response, are a filter for each channel, or make as many channels of one. Four on a stereo recording are true stereo: L to L, L to R, R to L, R to R. An impulse response has to have the signal's rate.

    A model of one channel runs on each channel by itself. Sounds in integers are given to it from -1 to 1, all else as it stands; its strides give the rate and the length.

    The dtype stays, the rate is divided by the stride, a table keeps its other columns. Integers are rounded, and what is beyond their range is clipped and counted. The output appears complete or not at all.

    A table's separator, decimal sign and heading are detected. What isn't the usual is told. The result is written alike. A first column of times isn't the signal.

    An array has the shape (length,) or (channels, length); with --axis 0, (length, channels).

    Into a store, .zarr or .h5, parts are computed by several workers at once. A run that was killed goes on with --resume.

    A Zarr store can be seen while it is written. Its attribute tapwise says whether it is complete.
    """
    if output is not None and result is not None:
        raise ValueError(f"the file to write is given twice: {result} and -o {output}")
    if (taps is None) == (model is None):
        raise ValueError("give the filter as --taps, or a network as --model" + ", not both" * (taps is not None))
    from tapwise import signals

    target = output or result or usual_target(signal)
    refuse_target(signal, target)
    is_stored = signals.suffix_of(target) in signals.STORES
    if store != NO_STORE_OPTIONS and not is_stored:
        raise ValueError(f"{target}: --resume, --workers and the like belong to stores (.zarr, .h5)")
    if plot is not None and (plot.suffix.lower() not in (".svg", ".png", ".pdf") or not plot.parent.is_dir()):
        raise ValueError(f"--plot {plot}: expected the name of an .svg, .png or .pdf file in a folder that is there")
    if plot is not None and plot.suffix.lower() != ".svg":
        need("matplotlib")
    if model is not None:
        settings = {
            "--padding": padding,
            "--causal": causal,
            "--stride": stride != 1,
            "--dilation": dilation != 1,
            "--padding-mode": padding_mode,
            "--flip": flip is not None,
            "--nan skip": nan == "skip",
        }
        if given := [name for name, value in settings.items() if value]:
            raise ValueError(f"{given[0]} belongs to --taps: a model has its own")
        refuse_missing(model, weights)
        with opened(signal, axis, table, is_stored) as reader:
            reader.rate = rate = rate_of(signal, reader.rate, rate)
            refuse_complex(plot, reader)
            if is_stored:
                from tapwise.cli.stores import run_model

                strides = run_model(model, weights, size, reader, target, rate, nan, store)
                if plot is not None:
                    save_plot(plot, reader, target, strides, 0, rate)
                return
            from tapwise.cli.model_files import run_file

            live, _ = run_file(model, weights, size, reader, target, rate, nan)
            if plot is not None:
                save_plot(plot, reader, target, float(live.stride), 0, rate)
        return
    assert taps is not None
    if weights is not None or size:
        raise ValueError(
            f"{'--size' if weights is None else '--weights'} belongs to --model; a layer's weights are "
            "--taps FILE.safetensors:NAME"
        )
    from tapwise.cli import taps as designs

    with opened(signal, axis, table, is_stored) as reader:
        reader.rate = rate = rate_of(signal, reader.rate, rate)
        refuse_complex(plot, reader)
        filter, groups = designs.for_channels(designs.parse(taps, rate), reader.channels, taps)
        used = as_used(taps, filter, flip, padding, causal, dilation)
        mode = padding_mode or ("shorter" if used.is_average else usual_mode(signal))
        if (mode == "shorter" or nan == "skip") and (filter.ndim > 1 or not _weighs(filter)):
            named = "--nan skip" if nan == "skip" else "--padding-mode shorter"
            raise ValueError(f"{named} is for averages, one filter of taps of 0 and above, as mean and gauss")
        from tapwise.geometry import Geometry
        from tapwise.partition import first_row_of, rows_of_outputs

        geometry = Geometry(
            filter.shape[-1], stride, dilation, used.padding, groups, "zeros" if mode == "shorter" else mode
        )
        outputs = geometry.output_length(reader.length)
        from tapwise.cli.progress import Progress, print_losses, print_outputs, speed
        from tapwise.engine.compiled import announce_by
        from tapwise.signals import filtering  # torch, after what may be wrong

        rows = None
        if signals.keeps_rows(signal, target):
            rows = rows_of_outputs(geometry, reader.length)
        rate_out = None if rate is None else rate / stride
        announce_by(lambda text: say(text, error=True))
        runnable = filtering.Filter(reader, used.weight, geometry, nan, mode == "shorter")
        if is_stored:
            from tapwise.cli.stores import run_into_store
            from tapwise.scale.filter_computation import FilterComputation

            run_into_store(FilterComputation(runnable, reader, used.words), reader, target, rate_out, store)
            say(f"  K={geometry.kernel_size}, padding {geometry.padding}; taps: {used.words}{_ends(mode, geometry)}")
            if plot is not None:
                save_plot(plot, reader, target, stride, first_row_of(geometry), rate)
            return
        with (
            signals.open_writer(
                target, reader, outputs, rate_out, rows, reader.channels if filter.ndim == 1 else len(filter)
            ) as writer,
            Progress(outputs, rate_out) as progress,
        ):
            summary = filtering.run(reader, writer, runnable, progress)
        seconds = progress.seconds
    print_outputs(reader, reader.length, target, summary.outputs, rate_out)
    kernel = f"kernel {summary.plan.kernel}, " if summary.plan else ""
    if summary.is_uncompiled:
        kernel = "kernel native, since compiling another would take longer, "
    say(
        f"  K={geometry.kernel_size}, padding {geometry.padding}, {kernel}{seconds:.2f} s, "
        f"{speed(summary.outputs, seconds, rate_out)}"
    )
    print_losses(summary, reader.dtype, summary.outputs * summary.channels)
    say(f"  taps: {used.words}{_ends(mode, geometry)}")
    for note in (*reader.notes, *writer.notes):
        say(f"  {note}", error=True)
    if plot is not None:
        with table.open_reader(signal, axis) as reader:
            save_plot(plot, reader, target, stride, first_row_of(geometry), rate)


def opened(signal: Path, axis: int | None, table: TableOptions, is_shared: bool) -> Reader:
    """A reader of a recording; one that several threads and other processes may use, where it is shared."""
    if not is_shared:
        return table.open_reader(signal, axis)
    from tapwise.scale.sources import SharedReader
    from tapwise.signals.stored import StoredReader

    reader = table.open_reader(signal, axis)
    if isinstance(reader, StoredReader):
        return reader
    reader.close()
    return SharedReader(partial(table.open_reader, signal, axis))


def usual_target(signal: Path) -> Path:
    """The file beside a recording that holds its outputs."""
    from tapwise.signals.stored_array import place_of

    place = place_of(signal)
    if place is None:
        return signal.with_suffix(f".filtered{signal.suffix}")
    store = Path(place.store)
    target = str(store.with_suffix(f".filtered{store.suffix}"))
    return Path(f"{target}:{place.name}" if place.name and not place.is_zarr else target)


def _ends(mode: str, geometry: Geometry) -> str:
    """What stands beyond the ends, in words."""
    return f", {_ENDS[mode]} beyond the ends" if any(geometry.padding) else ", no padding"


def save_plot(path: Path, before: Reader, target: Path, stride: float, offset: int, rate: float | None) -> None:
    """Draw a signal and what was made of it.

    Arguments:
        before: the signal.
        target: the file that was written.
        stride: samples of the signal for each output.
        offset: the sample that the first output belongs to.
    """
    from tapwise import signals
    from tapwise.atomic_file import write_atomically
    from tapwise.explanation.rendering import picture_forms
    from tapwise.signals.comparison import picture

    with signals.open_result(target, before) as after:
        drawn = picture(before, after, stride, offset, rate, f"{before.path.name} and {target.name}")
    say(f"  wrote {write_atomically(path, picture_forms(lambda: drawn))}")


def refuse_complex(plot: Path | None, reader: Reader) -> None:
    """Refuse to draw complex samples, before any work."""
    if plot is not None and reader.dtype.kind == "c":
        raise ValueError(f"{reader.path}: complex samples are not drawn: leave out --plot, and draw their magnitude")


def _weighs(filter: Any) -> bool:
    """Whether the taps are weights of an average: not negative, not complex, not all 0."""
    return filter.dtype.kind != "c" and bool((filter >= 0).all() and filter.any())


_ENDS = {
    "zeros": "zeros",
    "reflect": "the signal reflected",
    "replicate": "the nearest sample",
    "circular": "the other end",
    "shorter": "nothing (shorter windows)",
}
