"""The command: parses, calls, prints. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from tapwise.taps import FORMS

if TYPE_CHECKING:
    from collections.abc import Sequence


app = App(
    name="tapwise",
    help="One-dimensional convolutions: explain every tap, filter recordings of any size.",
    help_format="plaintext",
    version=lambda: _version(),
)

Stride = Annotated[int, Parameter(help="Input samples from one output's window to the next.")]
Dilation = Annotated[int, Parameter(help="Input samples from one tap to the next.")]
PaddingOption = Annotated[
    str, Parameter(help="A number, LEFT,RIGHT, valid, same, causal, semicausal or full.")
]
Mode = Annotated[
    Literal["zeros", "reflect", "replicate", "circular"],
    Parameter(help="What stands in the padding."),
]


@app.command
def explain(
    signal: Annotated[
        Path | None,
        Parameter(help="A file whose first samples are the signal, instead of --input."),
    ] = None,
    /,
    *,
    input: Annotated[
        str,
        Parameter(
            help="Samples: 0:10 for 0..9, or numbers: 1,2,3. Channels apart by ';'.",
            allow_leading_hyphen=True,
        ),
    ] = "0:10",
    taps: Annotated[
        str | None,
        Parameter(help="The taps; see 'tapwise apply --help'.", allow_leading_hyphen=True),
    ] = None,
    weights: Annotated[
        str | None, Parameter(help="FILE.safetensors:NAME: a trained layer's weight; its bias too.")
    ] = None,
    stride: Stride = 1,
    padding: PaddingOption = "0",
    dilation: Dilation = 1,
    groups: Annotated[int, Parameter(help="Independent groups of channels.")] = 1,
    padding_mode: Mode = "zeros",
    causal: Annotated[
        bool, Parameter(negative="", help="The same as --padding causal: never sees the future.")
    ] = False,
    samples: Annotated[int, Parameter(help="How many samples of a file are taken.")] = 32,
    column: Annotated[list[str] | None, Parameter(help="Columns of a table.", negative="")] = None,
    save: Annotated[
        Path | None, Parameter(help="Write the figures (.svg) or the text (.txt) there.")
    ] = None,
) -> None:
    """Print every step of a convolution: its products and their sum.

    tapwise explain --input 0:10 --taps 1,1,1
    """
    import numpy as np
    import torch

    from tapwise.explanation.explain import explain as explain_layer
    from tapwise.taps import parse

    if (taps is None) == (weights is None):
        raise ValueError("give the taps as --taps, or as --weights FILE.safetensors:NAME")
    x, rate = (
        (_numbers(input), None) if signal is None else _beginning(signal, samples, column or [])
    )
    weight = parse(weights or taps or "", rate)
    dtype = np.complex64 if np.iscomplexobj(weight) or np.iscomplexobj(x) else np.float32
    bias = _bias_beside(weights) if weights else None
    explanation = explain_layer(
        torch.from_numpy(weight.astype(dtype)),
        torch.from_numpy(x.astype(dtype)),
        bias=bias,
        stride=stride,
        padding="causal" if causal else _padding(padding),
        dilation=dilation,
        groups=groups,
        padding_mode=padding_mode,
    )
    if save is None:
        print(explanation.text)
    else:
        print(f"wrote {explanation.save(save)}")


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

    started = time.perf_counter()
    target = output or signal.with_suffix(f".filtered{signal.suffix}")
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
            len(filter), stride, dilation, _padding(padding), padding_mode=padding_mode
        )
        outputs = geometry.output_length(reader.length)
        rows = None
        if target.suffix.lower() == signal.suffix.lower() == ".csv":
            rows = blocks.rows_of_outputs(geometry, reader.length)
        rate_out = None if rate is None else rate / stride
        with (
            signals.open_writer(target, reader, outputs, rate_out, rows) as writer,
            Progress(outputs, rate_out) as progress,
        ):
            summary = blocks.run(
                reader, writer, filter[::-1] if flip else filter, geometry,
                refuse_nan=nan == "error", progress=progress,
            )  # fmt: skip
    told(reader, target, geometry, summary, rate_out, time.perf_counter() - started)


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
    """Time convolutions of a dozen well-known networks here, torch's beside Tapwise's.

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


def _padding(text: str) -> Any:
    """A word stays a word; numbers become an int or a pair."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        return text
    return numbers[0] if len(numbers) == 1 else tuple(numbers)


def _numbers(text: str) -> Any:
    import numpy as np

    rows = []
    try:
        for row in text.split(";"):
            bounds = row.split(":")
            if len(bounds) > 1:
                rows.append(np.arange(*(float(b) for b in bounds)))
            else:
                rows.append(np.array([float(n) for n in row.split(",")]))
    except (ValueError, TypeError, ZeroDivisionError, MemoryError):
        raise ValueError(
            f"--input {text!r}: expected START:STOP, START:STOP:STEP or numbers apart by commas"
        ) from None
    if len({len(row) for row in rows}) != 1:
        raise ValueError(f"--input {text!r}: the channels differ in length")
    return np.stack(rows)


def _beginning(path: Path, samples: int, columns: list[str]) -> tuple[Any, float | None]:
    from tapwise.signals import open_reader

    if samples < 1:
        raise ValueError(f"--samples must be at least 1, got {samples}")
    with open_reader(path, tuple(columns)) as reader:
        return reader.read(0, min(samples, reader.length)), reader.rate


def _bias_beside(weights: str) -> Any:
    """The bias that stands beside a layer's weight in a checkpoint, or None."""
    import torch
    from safetensors import safe_open

    path, _, name = weights.partition(":")
    if not name.endswith("weight"):
        return None
    with safe_open(path, framework="pt") as tensors:
        bias = name.removesuffix("weight") + "bias"
        return tensors.get_tensor(bias).to(torch.float32) if bias in set(tensors.keys()) else None
