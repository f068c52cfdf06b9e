"""Rates: what operations take on a family of processors, read from ``rates.json``.

``python benchmarks/fit_rates.py --write`` measures them on the machine at hand and writes its family's
entry; an entry's ``measured`` says where its numbers came from. Times are in seconds, rates in products
a second; sizes, which are integers, say where a processor's behaviour changes and are set by hand. Every
number is for two threads, where nothing else is said.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import torch

FITTED_THREADS = 2


@dataclass(frozen=True)
class NativeRates:
    """torch's convolution: a plain loop for small problems without groups, oneDNN for all others.

    Where torch's times vary, the fast ones count: another kernel is then chosen only where it is
    surely faster.
    """

    # One call: of the loop, of oneDNN, and of padding before either.
    loop_call: float
    onednn_call: float
    padding_call: float
    # A sample that is copied to be padded; the slowdown of a convolution that reads such a copy.
    padded_sample: float
    padded_slowdown: float
    # The loop: input samples up to which torch takes it, a window, and products a second for each
    # output channel and at most.
    loop_inputs: int
    loop_window: float
    loop_rate_per_channel: float
    loop_rate: float
    # oneDNN, depthwise: products a second, and an output.
    depthwise_rate: float
    depthwise_output: float
    # oneDNN, dense: the same; channels at which the rate is full; its share below them, with a stride,
    # and in groups.
    dense_rate: float
    dense_output: float
    full_in_channels: int
    full_out_channels: int
    full_in_channels_strided: int
    full_in_channels_grouped: int
    partial_share: float
    grouped_share: float
    # The share of the rate that dilation leaves, where taps are more, or channels fewer, than these.
    dilated_share: float
    dilated_taps: int
    dilated_in_channels: int
    # Slowdown of products and of outputs with a stride: few channels, one channel, depthwise.
    few_channels: int
    strided_few_channels: tuple[float, float]
    strided_one_channel: tuple[float, float]
    strided_depthwise: tuple[float, float]
    # Dilation without groups, where nothing requires a gradient: a call, and a product of the loop.
    dilated_call: float
    dilated_product: float
    # Transposed with a stride: the slowdown of the convolution it is the adjoint of, and an output,
    # while they fit the cache and beyond. An output of 0 s: such calls cost as convolutions do.
    scatter_slowdown: float
    scatter_output: float
    scatter_output_far: float
    scatter_cached_outputs: int
    # Half precision: products a second of torch's own loops, at most; 0: as fast as float32.
    float16_rate: float
    bfloat16_rate: float
    # Transposed, of two to ``few_inputs`` inputs: the time of a weight, where they are more than these.
    few_inputs: int
    few_inputs_weights: int
    few_inputs_weight: float
    # The gradients' times, as multiples of the convolution's; one call of the weight's, in seconds.
    grad_input: float
    grad_weight_call: float
    grad_weight: float
    grad_weight_depthwise: float


@dataclass(frozen=True)
class DirectRates:
    """The compiled loops: products a second, by the rows of outputs that are computed at a time, in float32."""

    vector_bytes: int
    call: float
    task: float
    byte: float
    rows: tuple[tuple[int, float], ...]
    half_precision_bytes: float
    gathered_sample: float
    gathered_strided_sample: float
    padding_sample: float
    # Rows of few vectors: taps are then read for few products each.
    few_vectors: int
    few_vectors_slowdown: float
    start_vectors: int
    start_byte: float
    start_few_rows: float
    # The ends of a short row: tiles that read zeros outside, or a copy of the row with its padding.
    end_tap: float
    end_copy: float
    end_copy_output: float
    # Transposed: a phase of the stride, an output written a stride apart, and a factor on all of it.
    phase: float
    strided_output: float
    transposed_slowdown: float
    # A weight of a transposed convolution of so few inputs that native reads it anew for each tap.
    few_inputs_weight: float
    # The weight's gradient: products a second of four rows of outputs at a time and of one.
    grad_call: float
    grad_rows: tuple[tuple[int, float], ...]
    grad_tap: float
    grad_sample: float
    grad_strided_sample: float
    grad_float64_slowdown: float


@dataclass(frozen=True)
class GemmRates:
    """Matrix products: one a tap, one a block of gathered windows, or one for all taps of few inputs.

    ``scattered_weight`` and ``scattered_product`` are for the last: a weight, and a product that is added up.
    """

    call: float
    product_call: float
    rate: float
    full_out_channels: int
    sample: float
    tap: float
    output: float
    window: float
    scattered_weight: float
    scattered_product: float


@dataclass(frozen=True)
class ImplicitGemmRates:
    """Products of matrices in the cache, a second, for one thread; columns that only fill the last vector up count too.

    Vectors have ``lanes`` columns, panels at most ``widest`` vectors.
    """

    lanes: int
    widest: int
    call: float
    task: float
    rate: float
    # A tap of a sum, which begins anew; a number of the gathered inputs, an output, and a number of the packed weight.
    start: float
    input: float
    output: float
    weight: float
    weight_transposed: float
    # A sample that is copied to or from half precision.
    half_precision_sample: float
    # The weight's gradient: a sum that is added to the others, for each weight.
    grad_call: float
    grad_rate: float
    grad_input: float
    grad_sum: float


@dataclass(frozen=True)
class WinogradRates:
    """Minimal filtering, for one thread: products a second in the transformed domain, and what is transformed.

    Products are at full rate from some output channels on.
    """

    call: float
    rate: float
    full_out_channels: int
    # A number of the transformed inputs, an output, and a number of the transformed weight.
    input: float
    output: float
    weight: float
    # The time of a product of a convolution with a stride by that of one without: its rows are long. Where it wasn't
    # measured, so long that filtering runs where it surely gains.
    strided: float


@dataclass(frozen=True)
class AmxRates:
    """Products by the processor's matrices, a second, for one thread, those with zeros that fill them up too.

    A number of the inputs, an output, and a number of the weight, which is packed in each call.
    """

    call: float
    rate: float
    input: float
    output: float
    weight: float


@dataclass(frozen=True)
class FftRates:
    """Transforms in float64: a butterfly, in frames that fit the cache and in larger ones."""

    call: float
    butterfly: float
    butterfly_large: float
    # A product of spectra: with one input channel a group, and with several, which are summed.
    product: float
    product_summed: float
    float32_share: float
    # How much longer a large frame counts where the frame's size is chosen.
    large_frame: float
    grad_weight: float
    grad_weight_depthwise: float


@dataclass(frozen=True)
class ReferenceRates:
    """The tutorial's loop: one step is one NumPy call for all channels and rows."""

    call: float
    step: float


@dataclass(frozen=True)
class AutogradRates:
    """What a function of ours costs beyond torch's own node in the graph of gradients."""

    node: float
    gradients: float
    least_share: float
    padded_sample: float
    flip_call: float
    flip_tap: float


@dataclass(frozen=True)
class Rates:
    """All rates of one family of processors.

    Arguments:
        margin: a kernel replaces native only where it is predicted to take at most this share of
            native's time.
        small_products: products of one row, of up to eight output channels, below which native is
            chosen without asking the others: their calls alone cost more.
        amx: None for processors without such matrices.
        native_bfloat16: torch's convolution in bfloat16 on processors with them; None: as ``native``, by its ``bfloat16_rate``.
    """

    margin: float
    small_products: int
    native: NativeRates
    direct: DirectRates
    gemm: GemmRates
    implicit_gemm: ImplicitGemmRates
    winograd: WinogradRates
    fft: FftRates
    reference: ReferenceRates
    autograd: AutogradRates
    amx: AmxRates | None = None
    native_bfloat16: NativeRates | None = None


SECTIONS = {
    "native": NativeRates,
    "direct": DirectRates,
    "gemm": GemmRates,
    "implicit_gemm": ImplicitGemmRates,
    "winograd": WinogradRates,
    "fft": FftRates,
    "reference": ReferenceRates,
    "autograd": AutogradRates,
    "amx": AmxRates,
    "native_bfloat16": NativeRates,
}


def from_json(values: dict[str, Any]) -> Rates:
    """The rates that one entry of the file holds."""
    sections = {
        name: kind(**{key: _tuples(value) for key, value in values[name].items()})
        for name, kind in SECTIONS.items()
        if name in values
    }
    return Rates(values["margin"], values["small_products"], **sections)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


class RateGroup(NamedTuple):
    """Rates that a machine has more or less of, all alike.

    Arguments:
        section: where they stand.
        seconds, rates: the fields that are times, and those that are products a second.
    """

    section: str
    seconds: str
    rates: str


# By name, what one number adapts to a machine: see ``adapted``.
GROUPS = {
    "native, plain loop": RateGroup("native", "loop_call loop_window", "loop_rate_per_channel loop_rate"),
    "native, dense": RateGroup("native", "dense_output", "dense_rate"),
    "native, depthwise": RateGroup("native", "depthwise_output", "depthwise_rate"),
    "direct": RateGroup("direct", "byte task gathered_sample gathered_strided_sample padding_sample", "rows"),
    "direct, weight's gradient": RateGroup("direct", "grad_tap grad_sample grad_strided_sample", "grad_rows"),
    "gemm": RateGroup("gemm", "sample tap output window scattered_weight scattered_product", "rate"),
    "implicit_gemm": RateGroup("implicit_gemm", "task start input output weight weight_transposed", "rate"),
    "implicit_gemm, weight's gradient": RateGroup("implicit_gemm", "grad_input grad_sum", "grad_rate"),
    "winograd": RateGroup("winograd", "input output weight", "rate"),
    "native, bfloat16": RateGroup("native_bfloat16", "dense_output depthwise_output", "dense_rate depthwise_rate"),
    "amx": RateGroup("amx", "input output weight", "rate"),
    "fft": RateGroup("fft", "butterfly butterfly_large product product_summed", ""),
}


def adapted(rates: Rates, factors: Mapping[str, float]) -> Rates:
    """The rates of a machine on which what a group says takes ``factors[group]`` times as long."""
    for name, factor in factors.items():
        group = GROUPS[name]
        section = getattr(rates, group.section)
        if section is None:  # measured where the processor has more
            continue
        values = {field: getattr(section, field) * factor for field in group.seconds.split()}
        values |= {field: _slower(getattr(section, field), factor) for field in group.rates.split()}
        rates = replace(rates, **{group.section: replace(section, **values)})
    return rates


def _slower(value: Any, factor: float) -> Any:
    return tuple((rows, rate / factor) for rows, rate in value) if isinstance(value, tuple) else value / factor


@cache
def rates_of(family: str) -> Rates:
    """The rates of a family: ``"avx512"``, ``"amx"`` or ``"avx2"``."""
    text = (files("tapwise.engine") / "rates.json").read_text(encoding="utf-8")
    return from_json(complete(json.loads(text), family))


def complete(document: dict[str, Any], family: str) -> dict[str, Any]:
    """The rates of a family, with those of another that its entry adds to."""
    entry = document[family]
    base: dict[str, Any] = complete(document, entry["adds_to"]) if "adds_to" in entry else {}
    return {**base, **entry["rates"]}


def processor_family() -> str:
    """The family that this processor counts as.

    Other processors were not measured: they count as AVX-512's.
    """
    if torch.backends.cpu.get_cpu_capability() == "AVX2":
        return "avx2"
    return "amx" if getattr(torch.cpu, "_is_amx_tile_supported", bool)() else "avx512"


def current_rates() -> Rates:
    """The rates of this processor."""
    return rates_of(processor_family())


def processor_name() -> str:
    """The processor, as the system names it."""
    try:
        with open("/proc/cpuinfo") as lines:
            names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
        return names[0] if names else platform.processor() or "unknown"
    except OSError:
        return platform.processor() or "unknown"
