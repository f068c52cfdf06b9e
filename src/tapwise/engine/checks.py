"""Checks: what a convolution's tensors must be, said in torch's sentence, with both values and the fix."""

from __future__ import annotations

from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.autograd import forward_ad

from tapwise.errors import ShapeError
from tapwise.geometry import Geometry
from tapwise.padding import Padding

ORDINARY = (Tensor, torch.nn.Parameter)
TRACED = (FakeTensor, FunctionalTensor)  # what torch's tracers use in place of a tensor
_is_zeros, _is_functional = torch._is_zerotensor, torch._is_functional_tensor
EMPTY_ALLOWED = ("causal", "semicausal")


def autocast_dtype(tensor: Tensor) -> torch.dtype:
    """The dtype in which autocast lets the tensor be computed."""
    device = tensor.device.type
    if (
        tensor.is_floating_point()
        and tensor.dtype != torch.float64
        and device != "meta"
        and torch.is_autocast_enabled(device)
    ):
        return torch.get_autocast_dtype(device)
    return tensor.dtype


def without_autocast(function: Any) -> Any:
    """The function with autocast off: a gradient has the dtype that its forward had."""

    @wraps(function)
    def run(*arguments: Any) -> Any:
        device = next(a for a in arguments if isinstance(a, Tensor)).device.type
        if device == "meta" or not torch.is_autocast_enabled(device):
            return function(*arguments)
        with torch.autocast(device, enabled=False):
            return function(*arguments)

    return run


def refuse_dimensions(name: str, input: Tensor, weight: Tensor) -> None:
    """Say which dimensions were expected, and how to get them."""
    if weight.ndim > 3:
        raise ShapeError(
            f"Expected a weight of 3 dimensions for {name}, but got weight of size {list(weight.shape)}",
            fix="Tapwise computes one-dimensional convolutions only",
        )
    fixes = {
        0: "give a signal, not a single number",
        1: "x[None, :] makes one channel of it, x[None, None, :] a batch of one",
    }
    raise ShapeError(
        f"Expected 2D (unbatched) or 3D (batched) input to {name}, but got input of size: {list(input.shape)}",
        got=f"{input.ndim} dimensions",
        expected="(channels, length) or (batch, channels, length)",
        fix=fixes.get(input.ndim, "x.flatten(0, -3) makes one batch axis of the leading ones"),
    )


def check_channels(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    groups: int,
    in_channels: int,
    out_channels: int,
    transposed: bool,
) -> None:
    """Refuse channels, groups and bias that don't fit together."""
    outer = weight.shape[0]
    size = list(weight.shape)
    if outer < groups:
        raise ShapeError(
            f"Given groups={groups}, expected weight to be at least {groups} at dimension 0, but "
            f"got weight of size {size} instead"
        )
    if transposed and weight.numel() == 0:
        raise ShapeError(
            f"non-empty weight tensor expected, but got weight of size {size}", expected="out_channels >= 1"
        )
    if outer % groups:
        kind = "in_channels" if transposed else "out_channels"
        raise ShapeError(
            f"Given groups={groups}, expected weight to be divisible by {groups} at dimension 0, "
            f"but got weight of size {size} instead",
            got=f"{kind}={outer}, groups={groups}",
            expected=f"{kind} ({outer}) divisible by groups ({groups})",
        )
    channels = input.shape[-2]
    if channels != in_channels:
        given = f"transposed={int(transposed)}" if transposed else f"groups={groups}"
        axes = "(0, 1)" if input.ndim == 2 else "(1, 2)"
        fix = None
        if input.shape[-1] == in_channels:
            fix = (
                f"x has {in_channels} channels on its last axis: did you mean x.transpose{axes}?"
                if in_channels != 1
                else f"x has its one channel on its last axis: did you mean x.transpose{axes}?"
            )
        elif not transposed and channels == weight.shape[1]:
            fix = f"each of the {groups} groups takes {weight.shape[1]} channels: give {in_channels}, or set groups=1"
        elif input.ndim == 3 and channels == 1:
            fix = f"x.expand(-1, {in_channels}, -1) gives every channel the same signal"
        raise ShapeError(
            f"Given {given}, weight of size {size}, expected input{list(input.shape)} to have "
            f"{in_channels} channels, but got {channels} channels instead",
            got=f"x of size {list(input.shape)}",
            expected=f"x of size {_expected_size(input, in_channels)}",
            fix=fix,
            drawing=_side_by_side("channels of x", channels, "channels that weight reads", in_channels),
        )
    if bias is not None and tuple(bias.shape) != (out_channels,):
        raise ShapeError(
            f"Given weight of size {size}, expected bias to be 1-dimensional with {out_channels} "
            f"elements, but got bias of size {list(bias.shape)} instead"
        )


def _side_by_side(one: str, n: int, other: str, m: int) -> tuple[tuple[str, int, int], ...]:
    """Two rows of squares, the shorter one filled up with what it lacks."""
    return (f"{one}: {n}", n, max(m - n, 0)), (f"{other}: {m}", m, max(n - m, 0))


def _expected_size(input: Tensor, in_channels: int) -> str:
    batch = "" if input.ndim == 2 else "batch, "
    return f"({batch}{in_channels}, length)"


def check_dtypes(input: Tensor, weight: Tensor, bias: Tensor | None) -> torch.dtype:
    """The one dtype of all, after autocast; refuse several, and several devices."""
    dtype = autocast_dtype(input)
    if input.is_quantized or weight.is_quantized:
        raise ShapeError(
            "quantised tensors aren't convolved here: torch quantises its own layers alone",
            got=f"x of {input.dtype}, weight of {weight.dtype}",
            expected="floating-point numbers",
            fix="quantise a model of torch.nn.Conv1d, or x.dequantize()",
        )
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor is None:
            continue
        other = autocast_dtype(tensor)
        if other != dtype:
            convert, target = ("x", other) if name == "weight" else (name, dtype)
            raise ShapeError(
                f"Input type ({input.type()}) and {name} type ({tensor.type()}) should be the same",
                got=f"x of {dtype}, {name} of {other}",
                expected=f"{convert} of {target}",
                fix=f"{convert}.to({target})",
            )
        if tensor.device != input.device:
            raise ShapeError(
                f"Expected x and {name} to be the same: both on one device",
                got=f"x on {input.device}, {name} on {tensor.device}",
                fix=f"{name}.to({str(input.device)!r})",
            )
    return dtype


def check_fits(
    geometry: Geometry, input: Tensor, weight: Tensor, bias: Tensor | None, grad: Tensor | None = None
) -> None:
    """Refuse tensors that are not those for which a geometry was made: a weight may have been changed since.

    Arguments:
        grad: of the outputs, where a gradient is computed.

    Raises:
        ShapeError: the first that doesn't fit.
    """
    fan_in = weight.shape[0] if geometry.transposed else (weight.shape[1] if weight.ndim == 3 else 0) * geometry.groups
    if weight.ndim != 3 or weight.shape[2] != geometry.kernel_size or input.shape[-2] != fan_in:
        raise ShapeError(
            "the weight doesn't fit the convolution that was prepared",
            got=f"weight of size {list(weight.shape)}, x of size {list(input.shape)}",
            expected=f"kernel_size {geometry.kernel_size}, groups {geometry.groups}, and x's channels",
            fix="a weight that was replaced or reshaped needs a new stream, or a new call",
        )
    out_channels = weight.shape[1] * geometry.groups if geometry.transposed else weight.shape[0]
    if bias is not None and tuple(bias.shape) != (out_channels,):
        raise ShapeError(
            "the bias doesn't fit the weight", got=f"bias of size {list(bias.shape)}", expected=f"({out_channels},)"
        )
    check_dtypes(input, weight, bias)
    if grad is None:
        return
    wanted = (input.shape[0], out_channels, geometry.output_length(input.shape[-1]))
    if tuple(grad.shape) != wanted or grad.dtype != input.dtype or grad.device != input.device:
        raise ShapeError(
            "the gradient is not that of this convolution's outputs",
            got=f"{grad.dtype} of size {list(grad.shape)} on {grad.device}",
            expected=f"{input.dtype} of size {list(wanted)} on {input.device}",
        )


def check_length(geometry: Geometry, padding: Padding, input: Tensor) -> None:
    """Refuse a signal too short for the window, or for what the padding mode copies."""
    length = input.shape[-1]
    if geometry.transposed:
        _check_length_transposed(geometry, padding, input)
        return
    outputs = geometry.output_length(length)
    if outputs == 0 or length == 0:
        if length == 0 and isinstance(padding, str) and padding in EMPTY_ALLOWED:
            return
        if length == 0:
            raise ShapeError(
                f"Only zero batch or zero channel inputs are supported, but got input shape: {list(input.shape)}",
                got="0 samples",
                expected="at least 1",
                fix="padding='causal' or 'semicausal' gives 0 outputs for 0 samples",
            )
        padded = length + geometry.left + geometry.right
        fewest = max(geometry.input_length(1), 1)
        raise ShapeError(
            f"Calculated padded input size per channel: ({padded}). Kernel size: "
            f"({geometry.effective_kernel_size}). Kernel size can't be greater than actual input "
            "size",
            got=f"{length} samples and padding {geometry.padding}",
            expected=f"at least {fewest} samples",
            fix="a longer input, a shorter kernel or dilation, or padding='causal' or 'same'",
            drawing=_side_by_side("padded input", padded, "samples under the taps", geometry.effective_kernel_size),
        )
    if geometry.padding_mode != "zeros" and geometry.padding != (0, 0):
        geometry.refuse_too_few(length)


def _check_length_transposed(geometry: Geometry, padding: Padding, input: Tensor) -> None:
    length = input.shape[-1]
    largest = max(geometry.stride, geometry.dilation)
    if geometry.output_padding >= largest:
        raise ShapeError(
            "output padding must be smaller than either stride or dilation, but got "
            f"output_padding: {geometry.output_padding} stride: {geometry.stride} dilation: "
            f"{geometry.dilation}"
        )
    if length == 0:
        if padding == "causal":
            return
        raise ShapeError(
            f"Only zero batch or zero channel inputs are supported, but got input shape: {list(input.shape)}",
            got="0 samples",
            expected="at least 1",
        )
    if geometry.output_length(length) == 0:
        full = (length - 1) * geometry.stride + geometry.effective_kernel_size
        outputs = full + geometry.output_padding - geometry.left - geometry.right
        raise ShapeError(
            f"Given input size per channel: ({length}). Calculated output size per channel: "
            f"({outputs}). Output size is too small",
            got=f"{length} samples and padding {geometry.padding}",
            expected=f"at least {geometry.input_length(1)} samples",
            fix="a longer input or less padding",
        )


def only_native_because(input: Tensor, weight: Tensor, bias: Tensor | None) -> str | None:
    """Why these tensors run on torch's own operations alone; None where every kernel takes them."""
    compiling = torch.compiler.is_compiling()
    for tensor in (input, weight) if bias is None else (input, weight, bias):
        if tensor.layout is not torch.strided:
            return f"torch alone reads the layout {tensor.layout}"
        if type(tensor) not in ORDINARY and type(tensor) not in TRACED:
            return f"torch alone knows what a {type(tensor).__name__} means"
        if not compiling and (tensor.is_neg() or _is_zeros(tensor) or _is_functional(tensor)):
            return "torch alone reads a view whose numbers are negated, or not there"
    exported = compiling and torch.onnx.is_in_onnx_export()
    if exported or torch._C._get_tracing_state() is not None:
        return "a graph that other programs read is made of torch's own operations"
    if input.is_complex():
        return "complex numbers run as torch's real convolutions"
    if input.numel() == 0:
        return "there is nothing to multiply"
    if forward_ad._current_level >= 0:
        return "forward-mode differentiation sees through torch's own operations only"
    if compiling:
        if torch._C._functorch.maybe_current_level() is not None:
            return "function transforms (vmap, grad, jvp) see through torch's own operations only"
    else:
        functorch = torch._C._functorch
        batched = functorch.is_legacy_batchedtensor
        inside = functorch.peek_interpreter_stack() is not None
        if inside or batched(input) or batched(weight) or (bias is not None and batched(bias)):
            return "function transforms (vmap, grad, jvp) see through torch's own operations only"
    return None
