"""tapwise doctor: what this machine has, and which kernels can run on it."""

from __future__ import annotations

import os
import platform
import time

from tapwise.cli.terminal import say
from tapwise.extras import PACKAGES

_PACKAGES = ["tapwise", "torch", "numpy", "numba", "triton", *PACKAGES]
# The loops that convolutions of float32 and float64 need.
LOOPS = [("direct.loops", f"convolve_{size}") for size in (32, 64)] + [
    ("fft.loops", f"{kind}_{size}") for size in ("32_64", "64_64", "32_32") for kind in ("filters", "frames", "outputs")
]
LOOPS += [("implicit_gemm.loops", name) for name in ("packing_32", "products_32")]
LOOPS += [("implicit_gemm.gradients", "gradients_32")]
LOOPS += [("winograd.loops", name) for name in ("weights_32", "filtering_32")]
LOOPS += [("program.loops", name) for name in ("program_32", "sequence_32")]


def loops_here() -> list[tuple[str, str]]:
    """All loops that can run on this processor."""
    from tapwise.engine.kernels import amx

    return LOOPS + (list(amx.LOOPS) if amx.obstacle() is None else [])


def doctor(*, warm: bool = False, tune: bool = False) -> None:
    """Print versions, processor and which kernels run here, and why others don't.

    Parameters
    ----------
    warm
        Compile the loops of the kernels now and cache them on disk, so that no later process must.
    tune
        Measure this machine's rates on torch's threads, by which plans are predicted where nothing was measured, and keep
        them in the file of plans. Half a minute; nothing else should compute meanwhile.
    """
    texts = ([warmed()] if warm or tune else []) + ([measured_rates()] if tune else [])
    say("\n".join(texts) if texts else report())


def report() -> str:
    """Versions, processor, and each kernel with the reason where it doesn't run, as text."""

    import torch

    from tapwise.engine import threads
    from tapwise.engine.kernels import KERNELS
    from tapwise.engine.problem import Problem
    from tapwise.engine.rates import processor_family, processor_name
    from tapwise.geometry import Geometry

    lines = [f"python       {platform.python_version()} on {platform.platform(terse=True)}"]
    lines += [f"{name:<12} {_version(name)}" for name in _PACKAGES]
    lines += [
        "",
        f"processor    {processor_name()}, {platform.machine()}, {os.cpu_count()} cores",
        f"vector units {torch.backends.cpu.get_cpu_capability()} (as torch uses them)",
        f"rates        {processor_family()}'s, by which plans are predicted{_adapted()}",
        f"plans        {_plans()}",
        f"threads      {torch.get_num_threads()} for torch, {threads.count()} of them for Tapwise",
        f"compiled     {_compiled()}",
        f"GPU          {_gpu()}",
        "",
        "kernels, for layers on the CPU, depthwise or dense, in float32 or bfloat16:",
    ]
    dtypes = (torch.float32, torch.bfloat16)
    problems = [Problem(Geometry(3, groups=n), 8, 8, 4096, dtype, "cpu") for dtype in dtypes for n in (8, 1)]
    for kernel in KERNELS.values():
        obstacles = [kernel.why_not(problem) for problem in problems]
        lines.append(f"  {kernel.name:<13} {'runs' if None in obstacles else obstacles[-1]}")
    return "\n".join(lines)


def warmed() -> str:
    """Compile every loop and cache it on disk; what was done, as text."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from tapwise.engine import compiled
    from tapwise.engine.preparing import compiled_beside

    lines = []
    compiled.announce_by(lambda text: None)  # the bar says it
    columns = (TextColumn("compiling"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, TextColumn("{task.description}"), console=console, transient=True) as bar:
        found = loops_here()
        task, took = bar.add_task("", total=len(found)), dict[tuple[str, str], float]()
        cached = {key for key in found if compiled.is_cached(*key)}
        bar.advance(task, len(cached))
        for key, seconds in compiled_beside([key for key in found if key not in cached]):
            took[key] = seconds
            bar.advance(task)
        for module, name in found:
            kernel, key = module.partition(".")[0], (module, name)
            bar.update(task, description=f"{kernel} {name}")
            started = time.perf_counter()
            compiled.loop(module, name)
            seconds = took.get(key, time.perf_counter() - started)
            after = "" if compiled.is_cached(module, name) else ", but can't be cached"
            lines.append(f"{kernel} {name}: " + ("cached" if key in cached else f"compiled in {seconds:.1f} s{after}"))
            if key not in cached and key not in took:
                bar.advance(task)
    return "\n".join([*lines, f"in {compiled.folder()}"])


def measured_rates() -> str:
    """Measure this machine's rates and keep them; what was found, as text."""
    from tapwise.engine import dispatch, measured, trials
    from tapwise.engine.rates import processor_family

    file = measured.path()
    if file is not None:
        measured.prepare(file)
    factors = trials.measure_rates()
    measured.add({}, factors)
    dispatch.forget()
    width = max(map(len, factors), default=0)
    lines = [f"times of this machine, by those of the table of {processor_family()}:"]
    lines += [f"  {name:<{width}}  {factor:.2f}" for name, factor in factors.items()]
    if file is None:
        return "\n".join([*lines, "not kept: TAPWISE_PLANS is empty"])
    measured.write(file, {}, factors)
    return "\n".join([*lines, f"kept in {file}"])


def _compiled() -> str:
    from tapwise.engine import compiled

    loops = loops_here()
    cached = sum(compiled.is_cached(module, name) for module, name in loops)
    missing = "" if cached == len(loops) else "; tapwise doctor --warm compiles the rest"
    return f"{cached} of {len(loops)} loops, in {compiled.folder()}{missing}"


def _adapted() -> str:
    from tapwise.engine import measured

    return (
        ", as this machine was measured to have them" if measured.factors() else "; tapwise doctor --tune measures them"
    )


def _plans() -> str:
    from tapwise.engine import measured

    file, count = measured.path(), len(measured.everything())
    return f"{count} measured{'' if file is None else f', in {file}'}"


def _version(name: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        if name not in PACKAGES:
            return "not installed"
        extra = PACKAGES[name]
        return f"not installed: no {extra.purpose}; pip install 'tapwise[{extra.name}]'"


def _gpu() -> str:
    import torch

    if not torch.cuda.is_available():
        return "none that torch can use"
    return str(torch.cuda.get_device_name())
