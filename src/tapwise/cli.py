"""The command: parses, calls, prints. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import math
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from tapwise.case import Case, Dilation, Mode, PaddingOption, Stride, padding_of
from tapwise.forms import FORMS

if TYPE_CHECKING:
    from collections.abc import Sequence


app = App(
    name="tapwise",
    help="One-dimensional convolutions: explain every tap, filter recordings of any size.",
    help_format="plaintext",
    version=lambda: _version(),
)

_Signal = Annotated[
    Path | None, Parameter(help="A file whose first samples are the signal, instead of --input.")
]


@app.command
def explain(
    signal: _Signal = None,
    /,
    *,
    case: Case = Case(),  # noqa: B008 (frozen)
    save: Annotated[
        Path | None,
        Parameter(help="Write the page (.html), the figures (.svg) or the text (.txt) there."),
    ] = None,
) -> None:
    """Print every step of a convolution: its products and their sum.

    tapwise explain --input 0:10 --taps 1,1,1
    """
    explanation = case.explained(signal)
    if save is None:
        print(explanation.text)
    else:
        print(f"wrote {explanation.save(save)}")


@app.command
def explore(
    signal: _Signal = None,
    /,
    *,
    case: Case = Case(),  # noqa: B008 (frozen)
    output: Annotated[
        Path, Parameter(name=["--output", "-o"], help="The page to write; it needs no network.")
    ] = Path("tapwise.html"),
    open: Annotated[bool, Parameter(help="Show the page in the browser.")] = True,
) -> None:
    """Write a page in which every number of a convolution can be seen and changed, and open it.

    tapwise explore                              the tutorial's: ten samples, three taps

    tapwise explore --taps 1,2,1 speech.wav      your own
    """
    if case.taps is None and case.weights is None:
        case = replace(case, taps="1,1,1")
    if output.suffix.lower() != ".html":
        raise ValueError(f"the page is an .html file, got {output.name!r}")
    page = case.explained(signal).save(output)
    print(f"wrote {page}")
    if open:
        import webbrowser

        webbrowser.open(page.resolve().as_uri())


@app.command(help_epilogue=f"Taps, for --taps:\n\n{FORMS}")
def apply(
    signal: Annotated[Path, Parameter(help="A .wav, .flac, .npy or .csv file.")],
    /,
    *,
    taps: Annotated[
        str, Parameter(help="The filter; its forms are listed below.", allow_leading_hyphen=True)
    ],
    output: Annotated[
        Path | None,
        Parameter(name=["--output", "-o"], help="Default: NAME.filtered.SUFFIX beside it."),
    ] = None,
    padding: PaddingOption = "same",
    stride: Stride = 1,
    dilation: Dilation = 1,
    padding_mode: Mode = "zeros",
    flip: Annotated[
        bool, Parameter(negative="", help="Reverse the taps, to convolve as NumPy and SciPy do.")
    ] = False,
    column: Annotated[
        list[str] | None,
        Parameter(help="A table's column to filter; repeat for more.", negative=""),
    ] = None,
    rate: Annotated[
        float | None, Parameter(help="Samples a second, where the file has no rate.")
    ] = None,
    nan: Annotated[
        Literal["error", "propagate"], Parameter(help="Stop at a NaN or gap, or let it through.")
    ] = "error",
) -> None:
    """Filter every channel of a recording alike, by blocks: its size doesn't matter.

    The dtype stays, the rate is divided by the stride, a table keeps its other columns. Whole numbers are rounded, and what is beyond their range is clipped and counted. The output appears whole or not at all.

    Taps are used as they stand (cross-correlation, as nn.Conv1d); --flip reverses them.
    """
    from tapwise import blocks, signals
    from tapwise import taps as named
    from tapwise.geometry import Geometry
    from tapwise.progress import Progress, told

    target = output or signal.with_suffix(f".filtered{signal.suffix}")
    if target.exists() and signal.exists() and target.samefile(signal):
        raise ValueError(f"-o {target} is the recording itself: give another name")
    if rate is not None and not 0 < rate < math.inf:
        raise ValueError(f"--rate must be a positive number of samples a second, got {rate:g}")
    with signals.open_reader(signal, tuple(column or ())) as reader:
        if rate is not None and reader.rate not in (None, rate):
            raise ValueError(
                f"{signal} says {reader.rate:g} Hz: --rate is for files without a rate"
            )
        rate = reader.rate if reader.rate is not None else rate
        filter = named.one_filter(named.parse(taps, rate), taps)
        geometry = Geometry(
            len(filter), stride, dilation, padding_of(padding), padding_mode=padding_mode
        )
        outputs = geometry.output_length(reader.length)
        rows = None
        if target.suffix.lower() == signal.suffix.lower() == ".csv":
            rows = blocks.rows_of_outputs(geometry, reader.length)
        rate_out = None if rate is None else rate / stride
        started = time.perf_counter()
        with (
            signals.open_writer(target, reader, outputs, rate_out, rows) as writer,
            Progress(outputs, rate_out) as progress,
        ):
            summary = blocks.run(
                reader, writer, filter[::-1] if flip else filter, geometry,
                refuse_nan=nan == "error", progress=progress,
            )  # fmt: skip
    told(reader, target, geometry, summary, rate_out, time.perf_counter() - started)


_Model = Annotated[str, Parameter(help="module:factory or file.py:factory; it makes the model.")]
_Weights = Annotated[
    Path | None, Parameter(help="The model's state_dict, a .safetensors file; never a pickle.")
]
_Size = Annotated[
    str, Parameter(help="Size of an example, as 1,1,16000, if the factory gives none.")
]


@app.command
def inspect(
    model: _Model,
    /,
    *,
    weights: _Weights = None,
    size: _Size = "",
    save: Annotated[
        Path | None, Parameter(help="Write the report there: .txt, .html, or .svg.")
    ] = None,
) -> None:
    """Say what a model needs of the past and of the future: receptive field, delay, what isn't causal.

    tapwise inspect examples/denoise/model.py:denoiser
    """
    from tapwise import factory
    from tapwise.network import inspection

    report = inspection.inspect(*factory.load(model, weights, size))
    print(report if save is None else f"wrote {report.save(save)}")


@app.command
def stream(
    model: _Model,
    /,
    *,
    weights: _Weights = None,
    size: _Size = "",
    rate: Annotated[float, Parameter(help="Samples a second.")] = 16_000,
    chunk: Annotated[float, Parameter(help="Milliseconds of a chunk.")] = 10,
    form: Annotated[
        Literal["s16", "f32"],
        Parameter(
            name="--format", help="Raw samples: 16-bit, or 32-bit floats; channels interleaved."
        ),
    ] = "s16",
) -> None:
    """Run a model live: raw samples from standard input, chunk by chunk, to standard output.

    arecord -t raw -f S16_LE -r 16000 | tapwise stream model.py:factory --weights w.safetensors | aplay -t raw -f S16_LE -r 16000
    """
    from tapwise import factory, live

    print(live.standard(*factory.load(model, weights, size), rate, chunk, form), file=sys.stderr)


@app.command
def doctor(*, warm: bool = False) -> None:
    """Print versions, processor and which kernels run here, and why others don't.

    Parameters
    ----------
    warm
        Compile the loops of the kernels now and keep them on disk, so that no later process must.
    """
    from tapwise.doctor import report, warmed

    print(warmed() if warm else report())


@app.command
def bench(*, seconds: float = 0.3) -> None:
    """Time ten well-known layers here, torch's beside Tapwise's.

    Parameters
    ----------
    seconds
        How long to time each.
    """
    from tapwise.timing import table

    for line in table(seconds):
        print(line)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; a mistake of the user's is told in a few lines, without a traceback."""
    try:
        app(sys.argv[1:] if arguments is None else arguments)
    except BrokenPipeError:  # whoever read has had enough, as head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (ValueError, OSError, MemoryError, OverflowError) as error:
        print(f"tapwise: {error}", file=sys.stderr)
        sys.exit(1)
    except ModuleNotFoundError as error:
        print(f"tapwise: {error}: pip install 'tapwise[io]'", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("tapwise: interrupted; nothing was written", file=sys.stderr)
        sys.exit(130)


def _version() -> str:
    from importlib.metadata import version

    return f"tapwise {version('tapwise')}"
