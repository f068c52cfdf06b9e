"""Costs: the seconds that each kernel is predicted to take for one batch row.

Formulas on a frozen ``Rates`` value; every number stands in ``rates.json``. A kernel has one formula for
its outputs and, where it computes the weight's gradient too, one for that.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from tapwise.engine.adjoint import weight_gradient_problem
from tapwise.engine.kernels import direct, fft, gemm, implicit_gemm
from tapwise.engine.kernels.amx import layout as matrices
from tapwise.engine.kernels.inputs import WIDER, summed_bytes
from tapwise.engine.kernels.loops.spans import rows_read
from tapwise.engine.kernels.winograd import layout
from tapwise.engine.problem import Problem
from tapwise.engine.rates import FITTED_THREADS, NativeRates, Rates
from tapwise.geometry import Geometry

Cost = Callable[[Problem, int, Rates], float]

# native: torch's own convolution


def native(problem: Problem, threads: int, rates: Rates) -> float:
    """A call by which nothing requires a gradient."""
    geometry, r = problem.geometry, _of_native(problem, rates)
    seconds = native_training(problem, threads, rates)
    if geometry.dilation > 1 and geometry.groups == 1:
        seconds += r.dilated_call
        if problem.n_inputs <= r.loop_inputs:
            seconds += problem.multiplications * r.dilated_product * _share_of_fitted(threads)
    return seconds


def native_training(problem: Problem, threads: int, rates: Rates) -> float:
    """The same where a gradient is required: without what dilation adds.

    Gradients take none of it, and a larger batch takes less of it. Saving it alone would not pay for
    an autograd function of ours.
    """
    r = _of_native(problem, rates)
    rate = {torch.float16: r.float16_rate, torch.bfloat16: r.bfloat16_rate}.get(problem.dtype, 0.0)
    seconds = _native_training(problem, threads, rates)
    if not rate:
        return seconds
    products = problem.multiplications - 8 * rates.small_products  # those are native's in any dtype
    return max(seconds, products / rate * _share_of_fitted(threads))


def _of_native(problem: Problem, rates: Rates) -> NativeRates:
    """The rates of torch's convolution in a problem's dtype."""
    if problem.dtype == torch.bfloat16 and rates.native_bfloat16 is not None:
        return rates.native_bfloat16
    return rates.native


def _native_training(problem: Problem, threads: int, rates: Rates) -> float:
    geometry, r = problem.geometry, _of_native(problem, rates)
    if geometry.transposed and _reads_weight_anew(problem, r):
        return r.loop_call + problem.n_weights * r.few_inputs_weight
    if geometry.transposed and geometry.stride > 1 and r.scatter_output:
        near = problem.n_outputs < r.scatter_cached_outputs
        each = r.scatter_output if near else r.scatter_output_far
        adjoint = _native_training(weight_gradient_problem(problem), threads, rates)
        scattered = problem.n_outputs * each * _share_of_fitted(threads)
        return r.scatter_slowdown * adjoint + scattered
    padding, slowdown = 0.0, 1.0
    call = 0.0
    if not geometry.pads_as_torch:
        call, slowdown = r.padding_call, r.padded_slowdown
        pads = problem.in_channels * (geometry.left + geometry.right)
        padding = (problem.n_inputs + pads) * r.padded_sample
    if geometry.groups == 1 and problem.n_inputs <= r.loop_inputs and problem.device == "cpu":
        windows = problem.in_channels * geometry.kernel_size * problem.output_length
        rate = min(r.loop_rate, r.loop_rate_per_channel * problem.out_channels)
        return r.loop_call + call + padding + windows * r.loop_window + problem.multiplications / rate
    product, output = _onednn(problem, r)
    seconds = padding + problem.n_outputs * output + problem.multiplications * product
    return r.onednn_call + call + seconds * slowdown * FITTED_THREADS / threads


def _reads_weight_anew(problem: Problem, r: NativeRates) -> bool:
    """Whether a transposed convolution has so few inputs that torch's product reads the weight many times."""
    return 1 < problem.length <= r.few_inputs and problem.n_weights >= r.few_inputs_weights


def _onednn(problem: Problem, r: NativeRates) -> tuple[float, float]:
    """Seconds of oneDNN for a product and for an output."""
    geometry = problem.geometry
    fan_in, fan_out = problem.in_channels_per_group, problem.out_channels_per_group
    single = fan_in == fan_out == 1
    if single and geometry.groups > 1:
        rate, output = r.depthwise_rate, r.depthwise_output
    else:
        rate, output = r.dense_rate, r.dense_output
        rate *= min(1.0, fan_out / r.full_out_channels)
        rate *= min(1.0, (fan_in + 2) / (r.full_in_channels + 2))
        if geometry.groups > 1 and fan_in < r.full_in_channels_grouped:
            rate *= r.grouped_share
        elif geometry.stride > 1 and fan_in <= r.full_in_channels_strided:
            rate *= r.partial_share
    few = geometry.kernel_size > r.dilated_taps or fan_in < r.dilated_in_channels
    if geometry.dilation > 1 and few:
        rate *= r.dilated_share
    if geometry.stride > 1 and min(fan_in, fan_out) < r.few_channels:
        slowdown = r.strided_few_channels
        if single:
            slowdown = r.strided_depthwise if geometry.groups > 1 else r.strided_one_channel
        rate, output = rate / slowdown[0], output * slowdown[1]
    return 1 / rate, output


def _share_of_fitted(threads: int) -> float:
    """The share of the fitted time that more threads leave; one thread takes as long as two."""
    return FITTED_THREADS / max(threads, FITTED_THREADS)


def native_grad_input(forward: Problem, backward: Problem, threads: int, rates: Rates) -> float:
    """The input's gradient by torch: a matrix product, or a convolution.

    Arguments:
        forward: the problem whose gradient it is.
        backward: the problem whose output it is.
    """
    convolution = native_training(backward, threads, rates)
    geometry = backward.geometry
    if geometry.transposed and geometry.stride > 1 and _of_native(backward, rates).scatter_output:
        return convolution
    product = _of_native(forward, rates).grad_input * native_training(forward, threads, rates)
    return min(product, convolution)


def _native_grad_weight(problem: Problem, threads: int, rates: Rates) -> float:
    r, geometry = _of_native(problem, rates), problem.geometry
    depthwise = problem.in_channels_per_group == problem.out_channels_per_group == 1
    factor = r.grad_weight
    if depthwise and geometry.groups > 1 and geometry.stride == 1:
        factor = r.grad_weight_depthwise
    return r.grad_weight_call + factor * native_training(problem, threads, rates)


# direct: compiled loops


def _direct(problem: Problem, threads: int, rates: Rates) -> float:
    if problem.geometry.transposed:
        return _direct_transposed(problem, threads, rates)
    r, geometry, outputs = rates.direct, problem.geometry, problem.output_length
    fan_in, fan_out = problem.in_channels_per_group, problem.out_channels_per_group
    size = summed_bytes(problem.dtype)
    lanes = r.vector_bytes // size
    padded_outputs = outputs + -outputs % lanes
    products = geometry.groups * fan_in * geometry.kernel_size * padded_outputs
    seconds, remaining = 0.0, fan_out
    for rows, rate in r.rows:
        seconds += remaining // rows * rows * products / (rate * 4 / size)
        remaining %= rows
    moved = float(problem.n_inputs + problem.n_outputs)
    if problem.dtype in WIDER:
        moved *= r.half_precision_bytes
    seconds += moved * size * r.byte
    block = direct.block_length(geometry, fan_in, fan_out, size)
    tasks = geometry.groups * -(-outputs // block)
    if geometry.stride > 1 or direct.gathers(fan_in, fan_out):
        share = direct.channels_per_task(fan_out, tasks, threads, geometry.stride)
        sample = r.gathered_sample
        if geometry.stride > 1:
            sample = r.gathered_strided_sample * _read_share(geometry)
        seconds += -(-fan_out // share) * problem.n_inputs * sample
    seconds += problem.in_channels * (geometry.left + geometry.right) * r.padding_sample
    few = r.few_vectors * lanes
    if fan_out >= 8 and outputs < few:
        seconds *= 1 + r.few_vectors_slowdown * (1 - outputs / few)
    if 0 < outputs < r.start_vectors * lanes:
        seconds += fan_out * products / padded_outputs * size * r.start_byte
        seconds *= 1.0 if fan_out >= 8 else r.start_few_rows
    parallel = min(threads, tasks * max(fan_out // 8, 1))
    return r.call + (seconds + tasks * r.task) / max(parallel, 1)


def _read_share(geometry: Geometry) -> float:
    """The share of the inputs that taps read: with a stride, some lie between windows."""
    if geometry.dilation % geometry.stride == 0:
        return 1 / geometry.stride
    return min(geometry.effective_kernel_size / geometry.stride, 1.0)


def _direct_transposed(problem: Problem, threads: int, rates: Rates) -> float:
    """A convolution for each phase of the stride, whose outputs are written a stride apart."""
    r, geometry = rates.direct, problem.geometry
    taps = -(-geometry.kernel_size // geometry.stride)
    phase = Problem(
        Geometry(taps, padding=taps - 1, groups=geometry.groups),
        problem.in_channels,
        problem.out_channels,
        problem.length,
        problem.dtype,
        problem.device,
    )
    scattered = 0.0 if geometry.stride == 1 else r.strided_output * problem.n_outputs
    phases = geometry.stride * (_direct(phase, threads, rates) + r.phase)
    seconds = r.transposed_slowdown * (phases + scattered / threads)
    reads_anew = _reads_weight_anew(problem, _of_native(problem, rates))
    return seconds + problem.n_weights * r.few_inputs_weight if reads_anew else seconds


def _direct_grad_weight(problem: Problem, threads: int, rates: Rates) -> float:
    r, geometry = rates.direct, problem.geometry
    fan_in, fan_out = problem.in_channels_per_group, problem.out_channels_per_group
    rate = next(rate for rows, rate in r.grad_rows if fan_out >= rows)
    block = min(direct.block_length(geometry, fan_in, fan_out, 4), direct.LONGEST_BLOCK)
    blocks = -(-problem.output_length // block)
    seconds = problem.multiplications / rate
    if problem.dtype == torch.float64:
        seconds *= r.grad_float64_slowdown
    seconds += problem.n_weights * blocks * r.grad_tap
    seconds += (problem.n_inputs + problem.n_outputs) * r.grad_sample
    if problem.dtype in WIDER:  # which are copied
        seconds += (problem.n_inputs + problem.n_outputs) * 4 * r.byte * (r.half_precision_bytes - 1)
    if geometry.stride > 1:
        seconds += problem.n_inputs * r.grad_strided_sample * _read_share(geometry)
    return r.grad_call + seconds / threads


# gemm: matrix products


def _gemm(problem: Problem, threads: int, rates: Rates) -> float:
    r, geometry = rates.gemm, problem.geometry
    if geometry.transposed:
        scattered = problem.length * problem.n_weights / problem.in_channels_per_group * r.scattered_product
        seconds = problem.multiplications / r.rate + problem.n_weights * r.scattered_weight + scattered
        return r.call + geometry.groups * r.product_call + seconds
    fan_in, fan_out, taps = (problem.in_channels_per_group, problem.out_channels_per_group, geometry.kernel_size)
    block = gemm.block_length(geometry, fan_in)
    seconds = problem.multiplications / (r.rate * min(1.0, fan_out / r.full_out_channels))
    seconds += (problem.n_inputs + problem.n_outputs) * r.sample
    if block == 0:
        calls = geometry.groups * taps
        # Taps lie K apart: each product first copies its own together, on one thread.
        seconds += problem.n_weights * r.tap * (threads if taps > 1 else 0)
        seconds += taps * problem.n_outputs * r.output
    else:
        calls = 4 * geometry.groups * -(-problem.output_length // block)
        windows = geometry.groups * fan_in * taps * problem.output_length
        seconds += windows * r.window * threads
    return r.call + calls * r.product_call + seconds / threads


# implicit_gemm: products of matrices in the cache


def _implicit_gemm(problem: Problem, threads: int, rates: Rates) -> float:
    r, geometry, outputs = rates.implicit_gemm, problem.geometry, problem.output_length
    fan_in, fan_out = problem.in_channels_per_group, problem.out_channels_per_group
    layout, phases = implicit_gemm.layout, geometry.stride if geometry.transposed else 1
    block = layout.block_of(geometry, fan_in, outputs)
    blocks, rows = -(-outputs // (block * phases)), layout.input_rows(geometry, block)
    columns = -(-fan_out // r.lanes) * r.lanes
    products = block * blocks * problem.n_weights * columns / fan_out
    # A tap's products begin anew for each tile of rows and columns.
    starts = block * blocks * geometry.groups * columns * geometry.kernel_size
    seconds = products / r.rate + starts * r.start + blocks * rows * problem.in_channels * r.input
    seconds += problem.n_outputs * r.output + blocks * geometry.groups * phases * r.task
    if problem.dtype in WIDER:  # which are copied
        seconds += (problem.n_inputs + problem.n_outputs) * r.half_precision_sample
    tasks = blocks * geometry.groups
    most = -(-tasks // threads) / tasks  # the share of the thread that has most of the blocks
    weight = r.weight_transposed if geometry.transposed else r.weight
    return r.call + problem.n_weights * weight / threads + seconds * most


def _implicit_gemm_grad_weight(problem: Problem, threads: int, rates: Rates) -> float:
    r, geometry, outputs = rates.implicit_gemm, problem.geometry, problem.output_length
    fan_in, fan_out = problem.in_channels_per_group, problem.out_channels_per_group
    layout = implicit_gemm.layout
    rows = layout.grad_rows(fan_out, fan_in, geometry.groups, geometry.kernel_size)
    summed = min(layout.outputs_a_sum(geometry.stride), max(outputs, 1))
    if layout.grad_scratch_bytes(geometry, rows, summed) > implicit_gemm.MOST_SCRATCH:
        return math.inf
    times, columns = -(-outputs // summed), -(-fan_in // r.lanes) * r.lanes
    weights = problem.n_weights * columns / fan_in
    read = times * layout.input_rows(geometry, summed)
    shares = -(-fan_out // rows)
    seconds = (
        outputs * weights / r.grad_rate
        + shares * read * problem.in_channels * r.grad_input
        + times * weights * r.grad_sum
    )
    if problem.dtype in WIDER:
        seconds += (problem.n_inputs + problem.n_outputs) * r.half_precision_sample
    tasks = geometry.groups * shares * -(-columns // (r.widest * r.lanes))
    return r.grad_call + seconds * -(-tasks // threads) / tasks


# winograd: minimal filtering


def _winograd(problem: Problem, threads: int, rates: Rates) -> float:
    r, geometry = rates.winograd, problem.geometry
    inputs, taps = layout.unstrided(problem.in_channels, geometry.kernel_size, geometry.stride)
    block = layout.block_of(inputs, geometry.dilation, problem.output_length)
    tiles = -(-problem.output_length // layout.OUTPUTS)
    products = layout.points_of(taps) * tiles
    weights = layout.points_of(taps) * layout.segments_of(taps) * inputs * problem.out_channels
    seconds = tiles * weights / (r.rate * min(1.0, problem.out_channels / r.full_out_channels))
    seconds *= r.strided if geometry.stride > 1 else 1.0
    seconds += products * inputs * r.input + problem.n_outputs * r.output
    tasks = -(-problem.output_length // block)
    shares = -(-tasks // threads) / tasks  # of the thread that has most of the blocks
    return r.call + weights * r.weight / threads + seconds * shares


# amx: the processor's matrices


def _amx(problem: Problem, threads: int, rates: Rates) -> float:
    r, geometry, outputs = rates.amx, problem.geometry, problem.output_length
    if r is None:
        return math.inf
    channels = matrices.chunks_of(problem.in_channels) * matrices.CHANNELS
    columns = -(-problem.out_channels // matrices.SUMS) * matrices.SUMS
    rows = -(-outputs // matrices.STEP) * matrices.STEP
    weights = geometry.kernel_size * channels * columns
    block = matrices.block_of(problem.in_channels, geometry.stride, outputs)
    tasks = -(-outputs // block)
    inputs = tasks * rows_read(block, geometry.kernel_size, geometry.dilation, geometry.stride) * problem.in_channels
    seconds = rows * weights / r.rate + inputs * r.input + problem.n_outputs * r.output
    shares = -(-tasks // threads) / tasks  # of the thread that has most of the blocks
    return r.call + weights * r.weight / threads + seconds * shares


# fft: overlap-save


def _fft(problem: Problem, threads: int, rates: Rates, share: float = 1.0) -> float:
    r, geometry = rates.fft, problem.geometry
    size, step = fft.frames_of(geometry, problem.output_length)
    frames = -(-max((problem.output_length - 1) * geometry.stride + 1, 1) // step)
    filters = problem.out_channels * problem.in_channels_per_group
    transforms = frames * (problem.in_channels + problem.out_channels) + filters
    butterfly = r.butterfly if size <= fft.CACHED_FRAME else r.butterfly_large
    seconds = transforms * size * math.log2(size) / 2 * butterfly * share
    product = r.product if problem.in_channels_per_group == 1 else r.product_summed
    seconds += frames * filters * size * product * share
    return fft.segments.count(geometry) * (r.call + seconds / threads)


def _fft32(problem: Problem, threads: int, rates: Rates) -> float:
    return _fft(problem, threads, rates, rates.fft.float32_share)


def _fft_grad_weight(problem: Problem, threads: int, rates: Rates) -> float:
    if problem.geometry.stride > 1:
        return math.inf
    r = rates.fft
    single = problem.in_channels_per_group == problem.out_channels_per_group == 1
    factor = r.grad_weight_depthwise if single else r.grad_weight
    return factor * _fft(problem, threads, rates)


# reference: the definition


def _reference(problem: Problem, threads: int, rates: Rates) -> float:
    r = rates.reference
    return r.call + problem.output_length * problem.geometry.kernel_size * r.step


COSTS: dict[str, Cost] = {
    "native": native,
    "direct": _direct,
    "gemm": _gemm,
    "implicit_gemm": _implicit_gemm,
    "winograd": _winograd,
    "amx": _amx,
    "fft": _fft,
    "fft32": _fft32,
    "reference": _reference,
}
GRAD_WEIGHT_COSTS: dict[str, Cost] = {
    "native": _native_grad_weight,
    "direct": _direct_grad_weight,
    "implicit_gemm": _implicit_gemm_grad_weight,
    "fft": _fft_grad_weight,
}
