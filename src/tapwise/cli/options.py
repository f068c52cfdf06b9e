"""Options that several commands share: a convolution and its signal, a model and its weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from cyclopts import Parameter

from tapwise.extras import need

if TYPE_CHECKING:
    from tapwise.explanation.explain import Explanation
    from tapwise.signals import Reader

Signal = Annotated[Path | None, Parameter(help="A file whose first samples are the signal, instead of --input.")]
Model = Annotated[str, Parameter(help="module:factory or file.py:factory; it makes the model.")]
Weights = Annotated[Path | None, Parameter(help="The model's state_dict, a .safetensors file; never a pickle.")]
Size = Annotated[str, Parameter(help="Size of an example, as 1,1,16000, if the factory gives none.")]

Rate = Annotated[float | None, Parameter(help="Samples a second, where the file has no rate.")]


def _integer(type_: Any, tokens: Any) -> int:
    """An integer as it is written: 2.5 is none, nor is 2e3."""
    text = tokens[0].value
    try:
        return int(text, 10)
    except ValueError:
        raise ValueError(f"expected an integer, got {text!r}") from None


Stride = Annotated[int, Parameter(converter=_integer, help="Input samples from one output's window to the next.")]
Dilation = Annotated[int, Parameter(converter=_integer, help="Input samples from one tap to the next.")]
PaddingOption = Annotated[
    str | None,
    Parameter(help="A number, LEFT,RIGHT, valid, same, causal, semicausal or full. Default: as the taps' form has it."),
]
Causal = Annotated[bool, Parameter(negative="", help="The same as --padding causal: never sees the future.")]
Axis = Annotated[
    int | None,
    Parameter(converter=_integer, help="An array's axis of time, 0 for (length, channels). Default: the last."),
]
Flip = Annotated[
    bool | None,
    Parameter(
        negative="--no-flip", help="Reverse the taps, to convolve as NumPy and SciPy do. Default: filters, not weights."
    ),
]
PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
Mode = Annotated[
    PaddingMode | None, Parameter(help="What stands in the padding. Default: replicate for tables, zeros for others.")
]


@Parameter(name="*")
@dataclass(frozen=True)
class TableOptions:
    """How a table is read; what isn't given is detected, and told."""

    column: Annotated[
        tuple[str, ...],
        Parameter(help="A table's column to read; repeat for more.", negative="", consume_multiple=False),
    ] = ()
    separator: Annotated[
        str | None, Parameter(help="Between a table's cells: ';', ',', '|' or tab.", allow_leading_hyphen=True)
    ] = None
    decimal: Annotated[Literal[".", ","] | None, Parameter(help="The decimal sign of a table.")] = None
    null_value: Annotated[
        tuple[str, ...],
        Parameter(
            help="A cell for a gap, as -999, beside NA, NaN, null and pandas' others; repeat for more.",
            negative="",
            consume_multiple=False,
            allow_leading_hyphen=True,
        ),
    ] = ()
    header: Annotated[
        bool | None, Parameter(negative="--no-header", help="Whether a table's first line names the columns.")
    ] = None

    def open_reader(self, path: Path, axis: int | None) -> Reader:
        """A reader of a file, a table as the options have it."""
        from tapwise.signals import open_reader
        from tapwise.signals.dialect import TableFormat

        separator = "\t" if self.separator in ("tab", "\\t") else self.separator
        given = TableFormat(separator, self.decimal, self.header, self.null_value)
        return open_reader(path, self.column, axis, None if given == TableFormat() else given)


NO_TABLE_OPTIONS = TableOptions()


@Parameter(name="*")
@dataclass(frozen=True)
class StoreOptions:
    """How a store is written: by whom, in which memory, and what becomes of one that is there."""

    resume: Annotated[
        bool, Parameter(negative="", help="Go on with a store (.zarr, .h5) that the same run began and didn't finish.")
    ] = False
    overwrite: Annotated[bool, Parameter(negative="", help="Replace what something else made there.")] = False
    workers: Annotated[
        int | None, Parameter(converter=_integer, help="Parts that are computed at once. Default: as many as threads.")
    ] = None
    processes: Annotated[
        bool, Parameter(negative="", help="Workers are processes of a cluster on this machine, by Dask.")
    ] = False
    scheduler: Annotated[str | None, Parameter(help="The address of a Dask cluster, which computes.")] = None
    max_memory: Annotated[str, Parameter(help="Of all parts at once in one process.")] = "1GB"
    chunk: Annotated[
        int | None, Parameter(converter=_integer, help="Outputs of a stored chunk. Default: by the source's chunks.")
    ] = None


NO_STORE_OPTIONS = StoreOptions()

# What a convolution's taps are where none are given.
TUTORIAL_TAPS = "1,1,1"


@Parameter(name="*")
@dataclass(frozen=True)
class ConvolutionOptions:
    """The options that `tapwise explain` and `tapwise explore` share."""

    input: Annotated[
        str,
        Parameter(help="Samples: 0:10 for 0..9, or numbers: 1,2,3. ';' separates channels.", allow_leading_hyphen=True),
    ] = "0:10"
    taps: Annotated[
        str | None, Parameter(help="The taps, as in 'tapwise apply --help'; default: 1,1,1.", allow_leading_hyphen=True)
    ] = None
    weights: Annotated[str | None, Parameter(help="FILE.safetensors:NAME: a trained layer's weight; its bias too.")] = (
        None
    )
    stride: Stride = 1
    padding: PaddingOption = None
    dilation: Dilation = 1
    groups: Annotated[int, Parameter(converter=_integer, help="Independent groups of channels.")] = 1
    padding_mode: Mode = None
    causal: Causal = False
    flip: Flip = None
    axis: Axis = None
    samples: Annotated[int, Parameter(converter=_integer, help="How many samples of a file are taken.")] = 32
    table: TableOptions = NO_TABLE_OPTIONS

    def explained(self, signal: Path | None) -> Explanation:
        """The explanation of the convolution, on the beginning of a file or on ``--input``."""
        import numpy as np

        from tapwise.cli.taps import parse
        from tapwise.geometry import Geometry

        if self.taps is not None and self.weights is not None:
            raise ValueError("give the taps as --taps, or as --weights FILE.safetensors:NAME, not both")
        description = self.weights or self.taps or TUTORIAL_TAPS
        x, rate = (_numbers(self.input), None)
        if signal is not None:
            x, rate = _beginning(signal, self.samples, self.table, self.axis)
        weight, groups = parse(description, rate), self.groups
        used = as_used(description, weight, self.flip, self.padding, self.causal, self.dilation)
        weight, mode = used.weight, self.padding_mode or usual_mode(signal)
        if signal is None and self.input == "0:10":
            x = np.tile(x, (weight.shape[1] * self.groups, 1))  # the ramp for every channel
        if weight.shape[:2] == (1, 1) and len(x) > 1 and groups == 1:
            # One filter for several channels: each alike, as `apply` does.
            weight, groups = np.tile(weight, (len(x), 1, 1)), len(x)
        Geometry(weight.shape[-1], self.stride, self.dilation, used.padding, groups, mode)  # refuses settings

        import torch  # after what may be wrong

        from tapwise.explanation.explain import explain

        dtype = np.complex64 if np.iscomplexobj(weight) or np.iscomplexobj(x) else np.float32
        return explain(
            torch.from_numpy(np.ascontiguousarray(weight, dtype)),
            torch.from_numpy(x.astype(dtype)),
            bias=_bias_of(self.weights) if self.weights else None,
            stride=self.stride,
            padding=used.padding,
            dilation=self.dilation,
            groups=groups,
            padding_mode=mode,
        )


def refuse_missing(model: str, weights: Path | None) -> None:
    """Refuse a model's file and its weights that aren't there, before anything heavy is imported.

    Raises:
        FileNotFoundError: with the name.
    """
    place = model.rpartition(":")[0]
    for path in (Path(place) if place.endswith(".py") else None, weights):
        if path is not None and path.suffix in (".py", ".safetensors") and not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")


def refuse_target(signal: Path | None, target: Path) -> None:
    """Refuse a file that can't be written, before any work.

    Raises:
        ValueError: the recording itself.
        SignalError: a kind of file that isn't written.
    """
    from tapwise import signals

    signals.suffix_of(target)
    if signal is not None and str(signal) == str(target):
        raise ValueError(f"-o {target} is the recording itself: give another name")
    if signal is not None and target.exists() and signal.exists() and target.samefile(signal):
        raise ValueError(f"-o {target} is the recording itself: give another name")


def rate_of(path: Path, found: float | None, rate: float | None) -> float | None:
    """The rate of a file, else the option's.

    Raises:
        ValueError: a rate that contradicts the file, or is none.
    """
    if rate is not None and not 0 < rate < 1e12:
        raise ValueError(f"--rate must be a positive number of samples a second, got {rate:g}")
    if rate is not None and found not in (None, rate):
        raise ValueError(f"{path} says {found:g} Hz: --rate is for files without a rate")
    return rate if found is None else found


class Used(NamedTuple):
    """Taps as a convolution uses them.

    Arguments:
        weight: reversed where they are convolved.
        padding: a word, an int or a pair.
        is_average: they weigh samples, so that a window may be shorter at the ends.
        words: what they are, and whether they are convolved.
    """

    weight: Any
    padding: Any
    is_average: bool
    words: str


def as_used(description: str, weight: Any, flip: bool | None, padding: str | None, causal: bool, dilation: int) -> Used:
    """The taps of a description as the options have them, else as their form has it.

    Raises:
        ValueError: options that exclude each other.
    """
    from tapwise.cli.taps import use_of
    from tapwise.padding import numpy_same

    if causal and padding not in (None, "causal"):
        raise ValueError(f"--causal is a padding of its own: leave out --padding {padding}")
    use, taps = use_of(description), weight.shape[-1]
    is_flipped = use.is_filter if flip is None else flip
    pads = padding_of("causal" if causal else padding or use.padding)
    if is_flipped and pads == "same" and taps % 2 == 0:  # centred as numpy.convolve centres: one sample on
        pads = numpy_same(taps, dilation)
    words = f"{use.form}, {'convolved' if is_flipped else 'used as it stands'}"
    return Used(weight[..., ::-1] if is_flipped else weight, pads, use.is_average, words)


def usual_mode(signal: Path | None) -> PaddingMode:
    """What stands in the padding where no option says it."""
    from tapwise.signals import TABLES

    return "replicate" if signal is not None and signal.suffix.lower() in TABLES else "zeros"


def padding_of(text: str) -> Any:
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
            f"--input {text!r}: expected START:STOP, START:STOP:STEP or numbers separated by commas"
        ) from None
    if len({len(row) for row in rows}) != 1:
        raise ValueError(f"--input {text!r}: the channels differ in length")
    return np.stack(rows)


def _beginning(path: Path, samples: int, table: TableOptions, axis: int | None) -> tuple[Any, float | None]:
    if samples < 1:
        raise ValueError(f"--samples must be at least 1, got {samples}")
    with table.open_reader(path, axis) as reader:
        return reader.read(0, min(samples, reader.length)), reader.rate


def _bias_of(weights: str) -> Any:
    """The bias of the same layer in a checkpoint, or None."""
    import torch

    path, _, name = weights.partition(":")
    layer = name.removesuffix("weight").removesuffix(".")
    with need("safetensors").safe_open(path, framework="pt") as tensors:
        bias = f"{layer}.bias" if layer else "bias"
        if bias not in set(tensors.keys()):
            return None
        tensor = tensors.get_tensor(bias)
        return tensor.to(torch.complex64 if tensor.is_complex() else torch.float32)
