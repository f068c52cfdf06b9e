"""Adjoints: the convolutions that gradients are, as geometries and problems."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from tapwise.engine.problem import Problem
from tapwise.geometry import Geometry


class GradInput(NamedTuple):
    """How the input's gradient is computed from the outputs' gradient.

    Arguments:
        geometry: the convolution whose output it is.
        start: the first output whose gradient it reads.
        stop: the end of those outputs.
    """

    geometry: Geometry
    start: int
    stop: int


def without_padding(geometry: Geometry) -> Geometry:
    """The geometry of an input that holds its padding already."""
    return replace(geometry, padding=(0, 0), padding_mode="zeros")


def adjoint_of_transposed(geometry: Geometry) -> Geometry:
    """The convolution that a transposed one without cuts is the adjoint of."""
    return Geometry(geometry.kernel_size, geometry.stride, geometry.dilation, groups=geometry.groups)


def adjoint_of_cut(geometry: Geometry, length: int, outputs: int) -> tuple[Geometry, int]:
    """The convolution that a transposed one is the adjoint of, and how many gradients it reads.

    # full length:  . . 2 3 4 5 6 .     zeros where outputs were cut off, the output padding left out
    """
    full_length = (length - 1) * geometry.stride + geometry.effective_kernel_size
    right = full_length - geometry.left - outputs
    padding = (geometry.left, max(right, 0))
    convolution = Geometry(geometry.kernel_size, geometry.stride, geometry.dilation, padding, geometry.groups)
    return convolution, outputs + min(right, 0)


def grad_input_of(geometry: Geometry, length: int, outputs: int) -> GradInput:
    """The input's gradient of a convolution that is not transposed and pads with zeros.

    At stride 1 it is a convolution with flipped taps, padded by what windows read beyond the input.
    """
    effective = geometry.effective_kernel_size
    if geometry.stride == 1:
        left, right = effective - 1 - geometry.left, effective - 1 - geometry.right
        padding = (max(left, 0), max(right, 0))
        backward = Geometry(geometry.kernel_size, 1, geometry.dilation, padding, geometry.groups)
        return GradInput(backward, max(-left, 0), outputs - max(-right, 0))
    padded = length + geometry.left + geometry.right
    unread = padded - effective - (outputs - 1) * geometry.stride
    backward = replace(geometry, transposed=True, padding_mode="zeros", output_padding=unread)
    return GradInput(backward, 0, outputs)


def weight_gradient_problem(problem: Problem) -> Problem:
    """The problem itself; of a transposed one, the convolution with the same weight's gradient."""
    geometry = problem.geometry
    if not geometry.transposed:
        return problem
    outputs = problem.output_length
    convolution, _ = adjoint_of_cut(geometry, problem.length, outputs)
    return _reversed(problem, convolution, outputs)


def input_gradient_problem(problem: Problem) -> Problem:
    """The problem whose output is the gradient of the input."""
    geometry = problem.geometry
    if geometry.transposed:
        return weight_gradient_problem(problem)
    length, outputs = problem.length, problem.output_length
    if geometry.padding_mode != "zeros":
        geometry = without_padding(geometry)
        length += sum(problem.geometry.padding)
    return _reversed(problem, grad_input_of(geometry, length, outputs).geometry, outputs)


def _reversed(problem: Problem, geometry: Geometry, length: int) -> Problem:
    """A problem from the outputs' channels to the inputs'."""
    return replace(
        problem, geometry=geometry, in_channels=problem.out_channels, out_channels=problem.in_channels, length=length
    )
