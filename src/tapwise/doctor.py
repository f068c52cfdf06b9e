"""Doctor: what this machine has, and which kernels can run on it."""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version

import torch

from tapwise.engine import machine_code, threads
from tapwise.engine.kernels import KERNELS
from tapwise.engine.problem import Problem
from tapwise.geometry import Geometry

_PACKAGES = (
    "tapwise", "torch", "numpy", "numba", "triton", "scipy", "soundfile", "polars", "safetensors",
)  # fmt: skip


def report() -> str:
    """Versions, processor, and each kernel with the reason where it doesn't run, as text."""
    lines = [f"python       {platform.python_version()} on {platform.platform(terse=True)}"]
    lines += [f"{name:<12} {_version(name)}" for name in _PACKAGES]
    lines += [
        "",
        f"processor    {_processor()}, {platform.machine()}, {os.cpu_count()} cores",
        f"vector units {torch.backends.cpu.get_cpu_capability()} (as torch uses them)",
        f"threads      {torch.get_num_threads()} for torch, {threads.count()} of them for Tapwise",
        f"compiled     {_compiled()}",
        f"GPU          {_gpu()}",
        "",
        "kernels, for a depthwise float32 layer on the CPU:",
    ]
    problem = Problem(Geometry(3, groups=8), 8, 8, 4096, torch.float32, "cpu")
    for kernel in KERNELS.values():
        lines.append(f"  {kernel.name:<10} {kernel.why_not(problem) or 'runs'}")
    return "\n".join(lines)


# The loops that convolutions of float32 and float64 need.
LOOPS = [("_direct_loops", name) for name in ("float32", "float64")] + [
    ("_fft_loops", f"{kind}_{size}")
    for size in ("32_64", "64_64", "32_32")
    for kind in ("filters", "frames", "outputs")
]


def warmed() -> str:
    """Compile every loop and keep it on disk; what was done, as text."""
    lines = []
    for module, name in LOOPS:
        kept, started = machine_code.kept(module, name), time.perf_counter()
        machine_code.body(module, name)
        seconds = time.perf_counter() - started
        after = "" if machine_code.kept(module, name) else ", but can't be kept"
        done = "was there" if kept else f"compiled in {seconds:.1f} s{after}"
        lines.append(f"{module.strip('_').removesuffix('_loops')} {name}: {done}")
    return "\n".join([*lines, f"in {machine_code.folder()}"])


def _compiled() -> str:
    kept = sum(machine_code.kept(module, name) for module, name in LOOPS)
    missing = "" if kept == len(LOOPS) else "; tapwise doctor --warm compiles the rest"
    return f"{kept} of {len(LOOPS)} loops, in {machine_code.folder()}{missing}"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
        return names[0] if names else platform.processor() or "unknown"
    except OSError:
        return platform.processor() or "unknown"


def _gpu() -> str:
    if not torch.cuda.is_available():
        return "none that torch can use"
    return str(torch.cuda.get_device_name())
