"""Adjoints: the convolutions that gradients are, as geometries and problems."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from tapwise.engine.problem import Problem
from tapwise.geometry import Geometry


def unpadded(geometry: Geometry) -> Geometry:
    """The geometry of an input with its padding written out."""
    return replace(geometry, padding=(0, 0), padding_mode="zeros")


def whole_of(geometry: Geometry) -> Geometry:
    """The convolution that a transposed one without cuts is the adjoint of."""
    return Geometry(
        geometry.kernel_size, geometry.stride, geometry.dilation, groups=geometry.groups
    )


def forward_of(geometry: Geometry, length: int, outputs: int) -> tuple[Geometry, int]:
    """The convolution that a transposed one is the adjoint of, and how much of its input it reads.

    # full:  . . 2 3 4 5 6 .     the gradient put back where it was cut from, the added part dropped
    """
    whole = (length - 1) * geometry.stride + geometry.effective_kernel_size
    right = whole - geometry.left - outputs
    forward = Geometry(
        geometry.kernel_size, geometry.stride, geometry.dilation, (geometry.left, max(right, 0)),
        geometry.groups,
    )  # fmt: skip
    return forward, outputs + min(right, 0)


def backward_of(geometry: Geometry, length: int, outputs: int) -> tuple[Geometry, tuple[int, int]]:
    """The convolution whose output is the gradient of the input, and which gradients it reads.

    At stride 1 it is one with turned taps: each side is padded by what windows reached beyond it.
    """
    reach = geometry.effective_kernel_size
    if geometry.stride == 1:
        left, right = reach - 1 - geometry.left, reach - 1 - geometry.right
        backward = Geometry(
            geometry.kernel_size, 1, geometry.dilation, (max(left, 0), max(right, 0)),
            geometry.groups,
        )  # fmt: skip
        return backward, (max(-left, 0), outputs - max(-right, 0))
    extra = length + geometry.left + geometry.right - reach - (outputs - 1) * geometry.stride
    backward = Geometry(
        geometry.kernel_size, geometry.stride, geometry.dilation, geometry.padding,
        geometry.groups, transposed=True, output_padding=extra,
    )  # fmt: skip
    return backward, (0, outputs)


known_backward_of = lru_cache(maxsize=1024)(backward_of)  # where lengths are numbers, not symbols


@lru_cache(maxsize=512)
def of_weight_gradient(problem: Problem) -> Problem:
    """The problem, or for a transposed one the convolution whose weight's gradient is the same."""
    geometry = problem.geometry
    if not geometry.transposed:
        return problem
    length = problem.output_length
    forward, _ = forward_of(geometry, problem.length, length)
    return Problem(
        forward, problem.out_channels, problem.in_channels, length, problem.dtype, problem.device
    )


@lru_cache(maxsize=512)
def of_input_gradient(problem: Problem) -> Problem:
    """The problem whose output is the gradient of the input."""
    geometry = problem.geometry
    if geometry.transposed:
        return of_weight_gradient(problem)
    length = problem.length
    if geometry.padding_mode != "zeros":
        geometry = unpadded(geometry)
        length += sum(problem.geometry.padding)
    backward, _ = backward_of(geometry, length, problem.output_length)
    return Problem(
        backward, problem.out_channels, problem.in_channels, problem.output_length, problem.dtype,
        problem.device,
    )  # fmt: skip
