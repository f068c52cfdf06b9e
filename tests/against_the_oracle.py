"""One run of a kernel, and what the oracle says of it."""

import numpy as np
import torch

import oracle
from tapwise.engine.kernels import KERNELS
from tapwise.engine.problem import Problem

# A transform in float32 has another bound, in test_fft; kernels of dense layers need eight channels, in tests of their own.
DENSE = ("implicit_gemm", "winograd", "amx")
EVERY = [k.name for k in KERNELS.values() if k.transform_dtype != torch.float32 and k.name not in DENSE]
SUMS = [name for name in EVERY if KERNELS[name].is_exact]
FLOATS = [torch.float32, torch.float64]
# rtol and atol of torch.testing; the rest of the bound is contract 3 of the design.
TOLERANCE = {
    torch.float64: (1e-7, 1e-7),
    torch.float32: (1.3e-6, 1e-5),
    torch.float16: (1e-3, 1e-5),
    torch.bfloat16: (1.6e-2, 1e-5),
}

# Tensors whose numbers don't lie one after the other.
VIEWS = {
    "reversed channels": lambda t: t.flip(1),
    "channels last": lambda t: t.transpose(1, 2).contiguous().transpose(1, 2),
    "every second sample": lambda t: t.repeat_interleave(2, -1)[..., ::2],
    "a row expanded": lambda t: t[:1].expand(t.shape),
    "one sample expanded": lambda t: t[..., :1].expand(t.shape),
    "within a larger array": lambda t: torch.nn.functional.pad(t, (3, 5, 1, 1))[:, 1:-1, 3:-5],
    "batch and channels swapped": lambda t: t.transpose(0, 1).contiguous().transpose(0, 1),
}


def tensor(random, *shape, dtype=torch.float64):
    return torch.from_numpy(random.standard_normal(shape)).to(dtype)


def array(value):
    if value is None:
        return None
    return (value.double() if value.dtype in TOLERANCE else value).numpy()


def expected(geometry, x, w, b, **options):
    if geometry.transposed:
        y = oracle.conv_transpose1d(
            array(x),
            array(w),
            array(b),
            geometry.stride,
            (geometry.left, 0),
            geometry.output_padding,
            geometry.dilation,
            geometry.groups,
        )
        return y[..., : y.shape[-1] - geometry.right]
    return oracle.conv1d(
        array(x),
        array(w),
        array(b),
        geometry.stride,
        geometry.padding,
        geometry.dilation,
        geometry.groups,
        geometry.padding_mode,
        **options,
    )


def problem_of(geometry, x, w):
    outer, inner = w.shape[0], w.shape[1] * geometry.groups
    channels = (outer, inner) if geometry.transposed else (inner, outer)
    return Problem(geometry, *channels, x.shape[-1], x.dtype, "cpu")


def expected_weight_gradient(geometry, grad, x, weight_shape):
    """The sum of what each tap met, and that of its magnitudes."""
    line = oracle.padded(array(x), *geometry.padding, geometry.padding_mode)
    fan_out, fan_in, truth, size = weight_shape[0] // geometry.groups, weight_shape[1], *np.zeros((2, *weight_shape))
    for o, c, k in np.ndindex(*weight_shape):
        met = line[:, o // fan_out * fan_in + c, k * geometry.dilation :: geometry.stride][:, : grad.shape[-1]]
        products = met * array(grad)[:, o]
        truth[o, c, k], size[o, c, k] = products.sum(), abs(products).sum()
    return truth, size


def check(kernel, geometry, x, w, b=None):
    """One run of a kernel against the oracle, within contract 3; False where it can't run."""
    if KERNELS[kernel].why_not(problem_of(geometry, x, w)):
        return False
    y = KERNELS[kernel].run(geometry, x, w, b)
    truth = expected(geometry, x, w, b)
    assert y.shape == truth.shape
    assert y.dtype == x.dtype
    rtol, atol = TOLERANCE[x.dtype]
    if geometry.transposed:
        size = expected(geometry, x.abs(), w.abs(), None if b is None else b.abs())
    else:
        size = expected(geometry, x, w, b, magnitude=True)
    eps = torch.finfo(x.dtype).eps
    if kernel == "winograd":  # a tile's rounding, in float32, is relative to its loudest sample
        eps = torch.finfo(torch.float32).eps
        size = float(w.double().abs().sum((1, 2)).max()) * float(x.abs().max()) if x.numel() else 0.0
    bound = atol + rtol * abs(truth) + 16 * eps * size
    error = abs(y.double().numpy() - truth)
    assert (error <= bound).all(), f"{kernel}: {error.max()} at {np.argmax(error - bound)}"
    return True


def check_not_finite(kernel, geometry, x, w, value):
    """A number that isn't finite, or overflows, in the second of three rows reaches what it reaches in torch."""
    run, native = KERNELS[kernel].run, KERNELS["native"].run
    before = run(geometry, x, w, None)
    for position in (0, 3, x.shape[-1] // 2, x.shape[-1] - 1):
        z = x.clone()
        z[1, 7, position] = value
        y, wanted = run(geometry, z, w, None), native(geometry, z, w, None)
        assert torch.equal(y.isnan(), wanted.isnan())
        assert torch.equal(y.isinf(), wanted.isinf())
        assert torch.equal(y[[0, 2]], before[[0, 2]])
