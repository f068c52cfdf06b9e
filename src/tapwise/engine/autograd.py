"""The convolution as torch differentiates it: every gradient is a convolution by the same plans.

Two things enter torch's graph of gradients: ``Convolution``, for calls made one by one, and the ops, for
graphs that are compiled. Both have the one derivative below.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tapwise.engine import deterministic, op
from tapwise.engine.adjoint import GradInput, adjoint_of_cut, adjoint_of_transposed, grad_input_of, without_padding
from tapwise.engine.checks import TRACED, check_fits, only_native_because, without_autocast
from tapwise.engine.kernels import KERNELS, direct, native
from tapwise.engine.plan import NATIVE_TRAINING, DeterministicTraining, Training, choose_training
from tapwise.engine.problem import Problem, channels_of
from tapwise.engine.threads import leave_lost_pool
from tapwise.geometry import Geometry

Gradients = tuple[Tensor | None, ...]


class Convolution(torch.autograd.Function):
    """A convolution by our kernels that requires a gradient; the op would take longer to dispatch."""

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, training: Training
    ) -> Tensor:
        ctx.geometry, ctx.training = geometry, training
        ctx.save_for_backward(input, weight)
        if isinstance(training, DeterministicTraining):
            return deterministic.run(training.forward, geometry, input, weight, bias)
        return KERNELS[training.forward].run(geometry, input, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        input, weight = ctx.saved_tensors
        needs = ctx.needs_input_grad[:3]
        return (*gradients(ctx.geometry, grads[0], input, weight, needs, ctx.training), None, None)


def requires_grad(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    """Whether a convolution of these enters the graph of gradients."""
    return torch.is_grad_enabled() and (
        input.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
    )


def is_traced(*tensors: Tensor | None) -> bool:
    """Whether a compiler, a mode, a tracer or a tensor that stands for another has to see the op itself."""
    for tensor in tensors:  # a loop: half the time of any()
        if type(tensor) in TRACED:
            return True
    return (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._get_tracing_state() is not None
    )


@without_autocast
def gradients(
    geometry: Geometry,
    grad: Tensor,
    input: Tensor,
    weight: Tensor,
    needs: tuple[bool, ...],
    training: Training | None = None,
) -> Gradients:
    """The gradients of input, weight and bias, those needed, from the outputs' gradient.

    They are themselves differentiable. ``training`` names the kernels; where it is None, they are
    chosen here, or by the ops in a graph.
    """
    leave_lost_pool()
    ordinary = only_native_because(grad, input, weight) is None
    traced = is_traced(grad, input, weight)
    if not traced:
        check_fits(geometry, input, weight, None, grad)
    elif training is not None:
        training = None
    if training is None and ordinary and not traced:
        training = choose_training(Problem.unchecked(geometry, input, weight))
    if isinstance(training, DeterministicTraining) and ordinary:
        with deterministic.one_thread:
            return _deterministic_gradients(geometry, grad, input, weight, needs, training)
    if training is not None and training[1:] == NATIVE_TRAINING[1:]:
        return native.gradients(geometry, grad, input, weight, needs)
    by_input, by_weight = (training.grad_input, training.grad_weight) if training else (None, None)
    if not ordinary:
        by_input = by_weight = None
    grad_input = grad_weight = None
    if needs[0] and by_input == native.NAME:
        grad_input = native.gradients(geometry, grad, input, weight, (True, False, False))[0]
    elif needs[0]:
        grad_input = input_gradient(geometry, grad, weight, input.shape[-1], by_input)
    if needs[1]:
        grad_weight = weight_gradient(geometry, grad, input, weight, by_weight)
    return grad_input, grad_weight, grad.sum((0, 2)) if needs[2] else None


def _deterministic_gradients(
    geometry: Geometry, grad: Tensor, input: Tensor, weight: Tensor, needs: tuple[bool, ...], training: Training
) -> Gradients:
    grad_input = grad_weight = None
    if needs[0]:
        rows = [grad] if training.grad_input == direct.NAME else [row.clone() for row in torch.split(grad, 1)]
        parts = [_input_gradient_by(training.grad_input, geometry, row, weight, input.shape[-1]) for row in rows]
        grad_input = torch.cat(parts)
    if needs[1]:
        grad_weight = weight_gradient(geometry, grad, input, weight, training.grad_weight)
    return grad_input, grad_weight, grad.sum((0, 2)) if needs[2] else None


def _input_gradient_by(kernel: str, geometry: Geometry, grad: Tensor, weight: Tensor, length: int) -> Tensor:
    if kernel != native.NAME:
        return input_gradient(geometry, grad, weight, length, kernel)
    like = grad.new_empty((grad.shape[0], channels_of(geometry, weight)[0], length))
    found = native.gradients(geometry, grad, like, weight, (True, False, False))[0]
    assert found is not None
    return found


def input_gradient(geometry: Geometry, grad: Tensor, weight: Tensor, length: int, kernel: str | None = None) -> Tensor:
    """The gradient of the input (B, C_in, length) from that of the outputs.

    # padded input    p p|x x x x x|p      the gradient of a copied sample is added to its source
    """
    # A graph for all lengths can't hold a geometry that depends on the length: torch's own then.
    depends_on_length = geometry.transposed or geometry.stride > 1
    if depends_on_length and geometry.padding_mode == "zeros" and type(length) is not int:
        return native.input_gradient(geometry, grad, weight, length)
    if geometry.transposed:
        forward, outputs = adjoint_of_cut(geometry, length, grad.shape[-1])
        if outputs <= 0:  # every output is output padding: none reads an input
            return native.input_gradient(geometry, grad, weight, length)
        return _convolve(forward, _narrow(grad, 0, outputs), weight, kernel)
    if geometry.padding_mode != "zeros" and geometry.padding != (0, 0):
        padded = length + geometry.left + geometry.right
        grad_padded = input_gradient(without_padding(geometry), grad, weight, padded, kernel)
        return native.unpad(geometry, grad_padded, length)
    backward: GradInput = grad_input_of(geometry, length, grad.shape[-1])
    if backward.geometry.transposed:
        return _convolve(backward.geometry, grad, weight, kernel)
    flipped = flip_taps(weight, geometry.groups)
    return _convolve(backward.geometry, _narrow(grad, backward.start, backward.stop), flipped, kernel)


def flip_taps(weight: Tensor, groups: int) -> Tensor:
    """The weight (C_out, C_in / groups, K) of the adjoint: (C_in, C_out / groups, K), taps reversed."""
    outer, inner, taps = weight.shape
    flipped = weight.flip(-1)
    if groups == 1:
        return flipped.transpose(0, 1)
    if outer == groups and inner == 1:
        return flipped
    flipped = flipped.reshape(groups, outer // groups, inner, taps).transpose(1, 2)
    return flipped.reshape(groups * inner, outer // groups, taps)


def _convolve(geometry: Geometry, input: Tensor, weight: Tensor, kernel: str | None) -> Tensor:
    """A convolution within a gradient: by the kernel named, or by the op where a graph has to hold it."""
    if only_native_because(input, weight, None) is not None:
        return native.run(geometry, input, weight, None)
    if kernel is None or is_traced(input, weight):
        return op.convolution(geometry, input, weight, None)
    if requires_grad(input, weight):  # of a gradient's gradient
        training = choose_training(Problem.unchecked(geometry, input, weight))._replace(forward=kernel)
        return Convolution.apply(input, weight, None, geometry, training)  # type: ignore[no-untyped-call,no-any-return]
    return KERNELS[kernel].run(geometry, input, weight, None)


def _narrow(grad: Tensor, start: int, stop: int) -> Tensor:
    return grad if (start, stop) == (0, grad.shape[-1]) else grad.narrow(-1, start, stop - start)


def weight_gradient(
    geometry: Geometry, grad: Tensor, input: Tensor, weight: Tensor, kernel: str | None = None
) -> Tensor:
    """The gradient of the weight from that of the outputs; of ``weight`` only the shape counts."""
    if geometry.transposed:  # the same sum of products, input and gradient swapped
        length = input.shape[-1]
        if type(length) is int:  # a graph for all lengths can't hold a geometry that depends on them
            forward, outputs = adjoint_of_cut(geometry, length, grad.shape[-1])
            if outputs > 0:
                return weight_gradient(forward, input, _narrow(grad, 0, outputs), weight, kernel)
        full = native.full_length_grad(geometry, grad, length)
        return weight_gradient(adjoint_of_transposed(geometry), input, full, weight, kernel)
    if only_native_because(grad, input, weight) is not None:
        return native.weight_gradient(geometry, grad, input, weight)
    if kernel is None or is_traced(grad, input) or requires_grad(grad, input):
        return op.weight_gradient(geometry, grad, input, weight)
    return run_weight_gradient(kernel, geometry, grad, input, weight)


def run_weight_gradient(kernel: str, geometry: Geometry, grad: Tensor, input: Tensor, weight: Tensor) -> Tensor:
    """The weight's gradient by a kernel, in memory of its own."""
    run = KERNELS[kernel].weight_gradient
    assert run is not None
    return run(geometry, grad, input, weight).contiguous()


# The ops' derivatives


def _save_convolution(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input, weight, _, *ctx.settings = inputs
    ctx.save_for_backward(input, weight)


def _backward_of_convolution(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    input, weight = ctx.saved_tensors
    geometry = op.geometry_of(*ctx.settings)
    found = gradients(geometry, grad, input, weight, ctx.needs_input_grad[:3])
    return (*found, *(None,) * op.CONVOLUTION_SETTINGS)


def _save_weight_gradient(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    grad, input, _, *ctx.settings = inputs
    ctx.save_for_backward(grad, input)


def _backward_of_weight_gradient(ctx: Any, upstream: Tensor) -> tuple[Any, ...]:
    grad, input = ctx.saved_tensors
    geometry = op.geometry_of(*ctx.settings)
    found = _second_gradients(geometry, upstream, grad, input, ctx.needs_input_grad)
    return (*found, None, *(None,) * op.GRADIENT_SETTINGS)


@without_autocast
def _second_gradients(
    geometry: Geometry, upstream: Tensor, grad: Tensor, input: Tensor, needs: tuple[bool, ...]
) -> Gradients:
    # The sum of upstream * gradient is the convolution by ``upstream``, times the gradients.
    of_grad = _convolve(geometry, input, upstream, None) if needs[0] else None
    of_input = input_gradient(geometry, grad, upstream, input.shape[-1]) if needs[1] else None
    return of_grad, of_input


torch.library.register_autograd(
    "tapwise::convolution", _backward_of_convolution, setup_context=_save_convolution, lib=op.LIBRARY
)
torch.library.register_autograd(
    "tapwise::weight_gradient", _backward_of_weight_gradient, setup_context=_save_weight_gradient, lib=op.LIBRARY
)
