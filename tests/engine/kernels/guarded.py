"""Compiled loops on memory that ends at pages which may not be touched. Run as a program by test_guard_pages.

A read or a write of one byte beyond a tensor, on either side, ends the process. Each case is printed before it
runs, so that the last line names the one that died.

    python tests/engine/kernels/guarded.py SEED COUNT
"""

import ctypes
import faulthandler
import mmap
import os
import random
import sys

os.environ["TAPWISE_CHECK_MEMORY"] = "1"

import numpy as np
import torch

from tapwise.engine.kernels import KERNELS, direct, fft, implicit_gemm, inputs
from tapwise.engine.kernels import native as torch_kernel
from tapwise.engine.problem import Problem
from tapwise.geometry import Geometry

PAGE = mmap.PAGESIZE
_protect = ctypes.CDLL(None).mprotect
_protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
dice = random.Random()


def guarded_bytes(size):
    """A buffer of exactly ``size`` bytes, at the end of its pages or at their start."""
    pages = -(-size // PAGE)
    region = mmap.mmap(-1, (pages + 2) * PAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(region))
    for page in (0, pages + 1):
        if _protect(address + page * PAGE, PAGE, 0) != 0:
            raise OSError("the pages can't be guarded")
    offset = PAGE + (pages * PAGE - size if dice.random() < 0.7 else 0)
    return memoryview(region)[offset : offset + size]


def guarded(tensor):
    """The same numbers on guarded memory."""
    if not tensor.numel():
        return tensor
    size = tensor.numel() * tensor.element_size()
    copy = torch.frombuffer(guarded_bytes(size), dtype=tensor.dtype).view(tensor.shape)
    return copy.copy_(tensor)


def guarded_array(array):
    if not array.size:
        return array
    copy = np.frombuffer(guarded_bytes(array.nbytes), array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def guard_what_kernels_allocate():
    new_zeros = torch.Tensor.new_zeros
    torch.Tensor.new_zeros = lambda self, *a, **k: guarded(new_zeros(self, *a, **k))
    new_empty, zeros, empty, sources = torch.Tensor.new_empty, torch.zeros, np.empty, inputs.padding_sources
    poison = float("nan")

    def guarded_new_empty(self, *size, **kinds):
        return guarded(new_empty(self, *size, **kinds).fill_(poison))

    torch_empty = torch.empty
    torch.Tensor.new_empty = guarded_new_empty
    torch.empty = lambda *a, **k: guarded(torch_empty(*a, **k).fill_(poison))
    torch.zeros = lambda *a, **k: guarded(zeros(*a, **k))
    np.empty = lambda *a, **k: guarded_array(empty(*a, **k))
    inputs.padding_sources = lambda *a: guarded_array(sources(*a))


def drawn():
    """A geometry, shapes, a dtype and a way to lay the input out."""
    taps = dice.choice([1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100, dice.randint(1, 200)])
    stride, dilation = dice.choice([1, 1, 1, 2, 3, 5]), dice.choice([1, 1, 2, 4])
    groups = dice.choice([1, 1, 2, 3, 8])
    fan_in, fan_out = dice.choice([1, 1, 2, 3, 4, 5]), dice.choice([1, 1, 2, 4, 7, 8, 9, 17])
    dtype = dice.choice([torch.float32, torch.float32, torch.float64, torch.float64, torch.bfloat16])
    is_dense = dtype == torch.bfloat16 or dice.random() < 0.3
    if is_dense:
        groups = 1 if dtype == torch.bfloat16 else dice.choice([1, 1, 1, 3])
        fan_in, fan_out = dice.randint(8, 70), dice.randint(8, 70)
        stride = stride if dtype == torch.bfloat16 else dice.choice([1, stride])
    transposed = dice.random() < 0.25 and dtype != torch.bfloat16
    mode = "zeros"
    if not transposed and dtype != torch.bfloat16:
        mode = dice.choice(["zeros", "zeros", "reflect", "replicate", "circular"])
    window = dilation * (taps - 1) + 1
    length = dice.choice([window, window + 1, dice.randint(1, 300), dice.randint(1, 5000), dice.randint(1, 40_000)])
    most = min(window, length - 1) if mode != "zeros" else window + 3
    padding = (dice.randint(0, max(most, 0)), dice.randint(0, max(most, 0)))
    if transposed:
        padding = (dice.randint(0, window - 1), dice.randint(0, window - 1))
        length = min(length, 3000)
    geometry = Geometry(taps, stride, dilation, padding, groups, mode, transposed)
    if geometry.output_length(length) < 1:
        return drawn()
    return geometry, fan_in, fan_out, length, dice.randint(1, 9), dtype


def laid_out(x):
    """The input on guarded memory: as it is, a row between others, or one channel for all."""
    kind = dice.random()
    if kind < 0.2 and x.shape[0] > 1:
        return guarded(x)[1:]
    if kind < 0.4 and x.shape[-1] > 1:
        return guarded(torch.cat((x, x), -1))[..., x.shape[-1] :]
    if kind < 0.5:
        return guarded(x[:, :1]).expand(-1, x.shape[1], -1)
    return guarded(x)


def close(found, wanted, dtype):
    scale = 1 + float(wanted.abs().max()) if wanted.numel() else 1.0
    tolerance = {torch.float64: 1e-8, torch.float32: 1e-3, torch.bfloat16: 1e-2}[dtype]
    error = float((found.double() - wanted).abs().max()) if wanted.numel() else 0.0
    if found.shape != wanted.shape or not error <= tolerance * scale:
        raise ValueError(f"off by {error} of {scale}")


def one():
    geometry, fan_in, fan_out, length, batch, dtype = drawn()
    groups = geometry.groups
    x = laid_out(torch.randn(batch, fan_in * groups, length, dtype=dtype))
    shape = (fan_in * groups, fan_out) if geometry.transposed else (fan_out * groups, fan_in)
    w = guarded(torch.randn(*shape, geometry.kernel_size, dtype=dtype))
    b = guarded(torch.randn(fan_out * groups, dtype=dtype)) if dice.random() < 0.5 else None
    problem = Problem.unchecked(geometry, x, w)
    only = ("amx",) if dtype == torch.bfloat16 else ("direct", "implicit_gemm", "winograd", "fft", "fft32")
    names = [n for n in only if KERNELS[n].why_not(problem) is None]
    if not names:
        return
    kernel = KERNELS[dice.choice(names)]
    print(kernel.name, geometry, tuple(x.shape), x.stride(), tuple(w.shape), b is not None, dtype, flush=True)
    wanted = torch_kernel.run(geometry, x.double(), w.double(), None if b is None else b.double())
    loose = torch.float32 if kernel.name == "fft32" else dtype
    given = (x, w, b)
    if kernel.name == "amx" and dice.random() < 0.5:  # which rounds float32 by itself
        given = (guarded(x.float()), guarded(w.float()), None if b is None else guarded(b.float()))
    close(kernel.run(geometry, *given), wanted, loose)
    if geometry.transposed or "direct" not in names:
        return
    grad = guarded(torch.randn(wanted.shape, dtype=dtype))
    of_weight = fft if geometry.stride == 1 and "fft" in names and dice.random() < 0.5 else direct
    if "implicit_gemm" in names and dice.random() < 0.7:
        of_weight = implicit_gemm
    expected = torch_kernel.weight_gradient(geometry, grad.double(), x.double(), w.double())
    close(of_weight.weight_gradient(geometry, grad, x, w), expected, dtype)


def main():
    faulthandler.enable()
    seed, count = int(sys.argv[1]), int(sys.argv[2])
    torch.manual_seed(seed)
    dice.seed(seed)
    guard_what_kernels_allocate()
    for _ in range(count):
        one()
    print("well")


if __name__ == "__main__":
    main()
