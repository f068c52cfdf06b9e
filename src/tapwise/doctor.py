"""Doctor: what this machine has, and which kernels can run on it."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

import torch

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
        f"threads      {torch.get_num_threads()} for torch; Tapwise's own kernels use one",
        f"GPU          {_gpu()}",
        "",
        "kernels, for a depthwise float32 layer on the CPU:",
    ]
    problem = Problem(Geometry(3, groups=8), 8, 8, 4096, torch.float32, "cpu")
    for kernel in KERNELS.values():
        lines.append(f"  {kernel.name:<10} {kernel.why_not(problem) or 'runs'}")
    return "\n".join(lines)


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
