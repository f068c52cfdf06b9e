"""What torch's own convolution and its gradients take, in seconds.

Fitted low to what torch 2.13 takes on two cores with AVX-512, or with AVX2 (benchmarks/bench_conv1d.py
prints prediction beside measurement): where torch is erratic its good days count, so that another kernel is
chosen only where it is surely faster. torch has a plain loop for small problems without groups, and oneDNN,
whose every call takes longer, for the rest.
"""

from __future__ import annotations

import torch

from tapwise.engine.adjoint import of_weight_gradient
from tapwise.engine.problem import Problem
from tapwise.geometry import Geometry

_CALL, _CALL_ONEDNN, _PADDING_CALL = 6e-6, 38e-6, 3e-6
_SMALL_INPUT = 20480
_FITTED_THREADS = 2

# With AVX2 alone; with AVX-512 nothing of the kind was measured. Windows with gaps: what each call takes
# besides, and in the plain loop each product. A transposed convolution with a stride: each number written,
# while they lie in the cache and when they don't. The weight's gradient of depthwise layers: so many times
# the outputs' time.
_GAPS_CALL, _A_GAPS_PRODUCT = 80e-6, 0.02e-9
_SCATTERED, _SCATTERED_FAR, _FAR = 1e-9, 4e-9, 1 << 20
_DEPTHWISE_WEIGHTS = 2.5


def cost(problem: Problem, threads: int) -> float:
    """Predicted seconds for one batch row."""
    geometry = problem.geometry
    seconds = recorded_cost(problem, threads)
    if geometry.dilation > 1 and geometry.groups == 1 and narrow():
        seconds += _GAPS_CALL
        if problem.in_channels * problem.length <= _SMALL_INPUT:
            seconds += problem.multiplications * _A_GAPS_PRODUCT * _share(threads)
    return seconds


def recorded_cost(problem: Problem, threads: int) -> float:
    """The same where gradients are recorded: without what windows with gaps take besides.

    Gradients take none of it, and of a larger batch less; what a kernel of ours saves of it alone,
    recording its call mostly costs again.
    """
    geometry = problem.geometry
    if geometry.transposed and geometry.stride > 1 and narrow():
        return _cost_scattered(problem, threads)
    groups, fan_in, fan_out = geometry.groups, problem.channels_in_group, problem.outputs_in_group
    inputs = problem.in_channels * problem.length
    outputs = problem.out_channels * problem.output_length
    call, padded, fitted = _CALL, 0.0, float(_FITTED_THREADS)
    if not geometry.pads_as_torch:
        call += _PADDING_CALL
        fitted *= 1.25  # a padded copy lies elsewhere in the cache
        padded = (inputs + problem.in_channels * (geometry.left + geometry.right)) * 0.2e-9
    if groups == 1 and inputs <= _SMALL_INPUT and problem.device == "cpu":
        windows = problem.in_channels * geometry.kernel_size * problem.output_length
        rate = min(25e9 * _FITTED_THREADS, 2e9 * fan_out)
        seconds = windows * 0.1e-9 + problem.multiplications / rate
        return call + padded + (1.4 if narrow() else 1.0) * seconds
    call += _CALL_ONEDNN - _CALL
    rate, an_output = _rates(geometry, fan_in, fan_out)
    if geometry.stride > 1 and min(fan_in, fan_out) < 8:
        slower, longer = 1.5, 1.5
        if fan_in == fan_out == 1:
            slower, longer = 1.2 if narrow() and groups > 1 else 6, 4
        rate, an_output = rate / slower, longer * an_output
    seconds = padded + outputs * an_output + problem.multiplications / rate
    return call + seconds * fitted / threads


def _cost_scattered(problem: Problem, threads: int) -> float:
    """Of a transposed convolution with a stride: of the convolution it is the adjoint of, and more."""
    written = problem.out_channels * problem.output_length
    each = _SCATTERED if written < _FAR else _SCATTERED_FAR
    seconds = 1.2 * recorded_cost(of_weight_gradient(problem), threads)
    return seconds + written * each * _share(threads)


def _share(threads: int) -> float:
    """Of what two threads take: less with more, though with one it is the same."""
    return _FITTED_THREADS / max(threads, _FITTED_THREADS)


def _rates(geometry: Geometry, fan_in: int, fan_out: int) -> tuple[float, float]:
    """Of oneDNN: products a second, and seconds an output."""
    halved = narrow()
    if geometry.groups > 1 and fan_in == fan_out == 1:
        rate, an_output = 34e9, 0.4e-9
    else:
        few_channels = min(1.0, (fan_in + 2) / (24 if halved else 16))
        rate, an_output = 160e9 * min(1.0, fan_out / 48) * few_channels, 0.25e-9
        half_full = fan_in < 64 if halved else fan_in <= 64
        large_groups = halved and fan_in >= 48
        if (geometry.groups > 1 and not large_groups) or (geometry.stride > 1 and half_full):
            rate *= 0.75
    if halved:
        gaps = geometry.dilation > 1 and (geometry.kernel_size > 3 or fan_in < 64)
        rate *= 0.3 if gaps else 0.5
    return rate, an_output


def narrow() -> bool:
    """Whether torch's vectors are AVX2's, half as long as those that its rates were fitted to.

    Of others nothing was measured: they count as those.
    """
    return torch.backends.cpu.get_cpu_capability() == "AVX2"


def input_gradient_cost(forward: Problem, backward: Problem, threads: int) -> float:
    """Predicted seconds of the input's gradient for one batch row: a product of matrices, or a convolution.

    Arguments:
        forward: the problem whose gradient it is.
        backward: the problem whose output it is.
    """
    if backward.geometry.transposed and backward.geometry.stride > 1 and narrow():
        return recorded_cost(backward, threads)
    return min(1.2 * recorded_cost(forward, threads), recorded_cost(backward, threads))


def gradient_cost(problem: Problem, threads: int) -> float:
    """Predicted seconds of the weight's gradient for one batch row."""
    depthwise = problem.channels_in_group == problem.outputs_in_group == 1 < problem.geometry.groups
    slow = narrow() and depthwise and problem.geometry.stride == 1
    return 3e-6 + (_DEPTHWISE_WEIGHTS if slow else 1.1) * recorded_cost(problem, threads)
