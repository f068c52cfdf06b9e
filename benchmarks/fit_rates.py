"""Measure what convolutions take here and fit the rates by which plans are predicted.

Random shapes are drawn, steps of transposed streams, of a few inputs each, and dense convolutions, with a stride and transposed too. On each, every kernel
that can run it is timed (torch.utils.benchmark, the minimum of several blocks), outputs and weight gradients; native's input
gradients too. Then the rates of this processor's family are fitted: the
sum of squared logarithms of measured over predicted, less sensitive to outliers, by scipy.optimize.

    python benchmarks/fit_rates.py [--shapes 120] [--frames 30] [--dense 30] [--strided 0] [--seed 0]
                                   [--seconds 0.05]
                                   [--only PATH ...] [--kernels NAME ...] [--dtype bfloat16] [--write]

prints, for each kernel, how far predictions are off before and after, and the rates that changed. ``--only``
fits the rates whose paths begin so (``native.few_inputs_weight gemm.scattered``) and leaves the others, to which all
times are then scaled where native is timed too; ``--kernels`` times these kernels alone; in ``--dtype bfloat16``
native is timed in float32 too, for that scale. With
``--write`` the entry of this family in src/tapwise/engine/rates.json is replaced, with machine, versions and
date. Nothing else may run meanwhile; the plans pinned in tests/engine/test_plan.py say what changes.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import platform
from collections.abc import Iterator
from dataclasses import fields, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_conv1d import random_shapes
from scipy.optimize import least_squares
from torch.utils.benchmark import Timer

from tapwise.engine import costs, rates
from tapwise.engine.adjoint import input_gradient_problem
from tapwise.engine.kernels import KERNELS, native
from tapwise.engine.problem import Problem
from tapwise.engine.rates import processor_name

FILE = Path(rates.__file__).with_name("rates.json")
# By which a processor is used as one that has less: part of the command that is recorded.
LIMITS = ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES")
# The weight of an error that lets another kernel run where native is faster.
DOUBTFUL = 1.5
# Choices, not times.
FIXED = {"margin", "small_products", "fft.large_frame"}

Measurement = tuple[str, str, Problem, float]  # (what, kernel, problem, seconds a batch row)


def seconds_of(call: Any, least: float) -> float:
    """The least seconds of a call."""
    timer = Timer("call()", globals={"call": call}, num_threads=torch.get_num_threads())
    return float(min(timer.blocked_autorange(min_run_time=least).times))


def measured(
    shapes: list[dict[str, Any]], least: float, kernels: list[str], dtype: torch.dtype
) -> Iterator[Measurement]:
    """The times of some kernels on every shape that they can run, for one batch row; and native's in float32."""
    for row in shapes:
        transposed, groups = row.get("transposed", False), row["groups"]
        x = torch.randn(1, row["Cin"], row["L"])
        fans = (row["Cin"], row["Cout"] // groups) if transposed else (row["Cout"], row["Cin"] // groups)
        w = torch.randn(*fans, row["K"])
        padding = (row["left"], row["right"])
        problem = Problem.of(x, w, None, row["stride"], padding, row["dilation"], groups, transposed=transposed)
        if dtype != torch.float32:
            call = partial(KERNELS["native"].run, problem.geometry, x, w, None)
            with torch.no_grad():
                yield "outputs", "native", problem, seconds_of(call, least)
            x, w, problem = x.to(dtype), w.to(dtype), replace(problem, dtype=dtype)
        grad = torch.randn(1, row["Cout"], problem.output_length, dtype=dtype)
        for name, kernel in KERNELS.items():
            if name not in kernels or kernel.why_not(problem) is not None:
                continue
            with torch.no_grad():
                call = partial(kernel.run, problem.geometry, x, w, None)
                yield "outputs", name, problem, seconds_of(call, least)
                if transposed or name not in costs.GRAD_WEIGHT_COSTS or kernel.weight_gradient is None:
                    continue
                if name == "fft" and problem.geometry.stride > 1:
                    continue
                call = partial(kernel.weight_gradient, problem.geometry, grad, x, w)
                yield "weight gradient", name, problem, seconds_of(call, least)
                if name == "native":  # other kernels' is another problem's outputs
                    call = partial(native.gradients, problem.geometry, grad, x, w, (True, False, False))
                    yield "input gradient", name, problem, seconds_of(call, least)
        print(f"{row['name']:<12}{row['family']}", flush=True)


def transposed_frames(count: int, seed: int) -> list[dict[str, Any]]:
    """Steps of decoders' streams: transposed, K twice the stride, of 2 to 10 inputs."""
    rng = np.random.default_rng(seed)
    shapes = []
    for n in range(count):
        fan_in, fan_out = (int(2 ** rng.integers(5, 11)) for _ in range(2))
        stride = int(rng.integers(2, 10))
        shape = {"Cin": fan_in, "Cout": fan_out, "L": int(rng.integers(2, 11)), "K": 2 * stride, "stride": stride}
        shapes.append(shape | {"name": f"frame{n}", "family": "transposed", "transposed": True, "groups": 1})
        shapes[-1] |= {"dilation": 1, "left": 0, "right": 0}
    return shapes


def dense(count: int, seed: int) -> list[dict[str, Any]]:
    """Convolutions of stride 1 and one group, from a few channels to many, and from short to long."""
    rng = np.random.default_rng(seed)
    shapes = []
    for n in range(count):
        fan_in, fan_out = (int(2 ** rng.uniform(3, 9.5)) for _ in range(2))
        if n % 2:
            fan_in, fan_out = (-(-channels // 16) * 16 for channels in (fan_in, fan_out))
        taps, dilation = int(rng.integers(2, 16)), int(rng.choice([1, 1, 2, 5]))
        reach = (taps - 1) * dilation
        products = 10 ** rng.uniform(6, 9.3)
        length = int(np.clip(products / (fan_in * fan_out * taps), 30, 100_000))
        shape = {"Cin": fan_in, "Cout": fan_out, "L": length + reach, "K": taps, "stride": 1, "dilation": dilation}
        shapes.append(shape | {"name": f"dense{n}", "family": "dense", "groups": 1, "left": 0, "right": 0})
    return shapes


def strided(count: int, seed: int) -> list[dict[str, Any]]:
    """Dense convolutions with a stride, and every third transposed with one."""
    shapes = dense(count, seed + 1)
    rng = np.random.default_rng(seed)
    for n, shape in enumerate(shapes):
        stride = int(rng.choice([2, 2, 3, 4, 5, 8]))
        shape |= {"name": f"strided{n}", "stride": stride, "dilation": 1}
        if n % 3:
            shape["L"] = min(shape["L"] * stride, 100_000)
        else:
            shape |= {"L": max(shape["L"] // stride, 30), "transposed": True}
    return shapes


def numbers(tree: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """The paths of all rates that are fitted, with their values.

    Fields that ``engine/rates.py`` declares as ``int`` are sizes at which a behaviour changes, which
    are not fitted, nor is a rate of 0, which switches a term off.
    """
    for section, kind in rates.SECTIONS.items():
        if section not in tree:
            continue
        for field in fields(kind):
            path, value = f"{section}.{field.name}", tree[section][field.name]
            if field.type == "int" or path in FIXED:
                continue
            if field.type == "tuple[tuple[int, float], ...]":
                yield from ((f"{path}.{n}.1", pair[1]) for n, pair in enumerate(value))
            elif isinstance(value, list):
                yield from ((f"{path}.{n}", number) for n, number in enumerate(value))
            elif value > 0:
                yield path, value


def replaced(tree: dict[str, Any], values: dict[str, float]) -> dict[str, Any]:
    """The rates with other values at some paths."""
    tree = copy.deepcopy(tree)
    for path, value in values.items():
        *folders, last = path.split(".")
        branch: Any = tree
        for key in folders:
            branch = branch[int(key) if isinstance(branch, list) else key]
        branch[int(last) if isinstance(branch, list) else last] = value
    return tree


def errors(tree: dict[str, Any], measurements: list[Measurement]) -> np.ndarray[Any, Any]:
    """The logarithm of measured over predicted seconds, for each measurement."""
    value, threads = rates.from_json(tree), torch.get_num_threads()
    formulas = {"outputs": costs.COSTS, "weight gradient": costs.GRAD_WEIGHT_COSTS}
    formulas["input gradient"] = {"native": native_grad_input}
    predicted = [formulas[what][kernel](p, threads, value) for what, kernel, p, _ in measurements]
    return np.log([m[3] / p for m, p in zip(measurements, predicted, strict=True)])


def native_grad_input(problem: Problem, threads: int, values: rates.Rates) -> float:
    """The seconds that torch's gradient of the input is predicted to take."""
    return costs.native_grad_input(problem, input_gradient_problem(problem), threads, values)


def fitted(tree: dict[str, Any], measurements: list[Measurement], only: tuple[str, ...]) -> dict[str, Any]:
    """The rates that predict the measurements best, each at most a factor of 4 from where it was.

    Arguments:
        only: how the paths of the rates begin that may change; "" is the beginning of all.
    """
    paths, start = zip(*((p, a) for p, a in numbers(tree) if p.startswith(only)), strict=True)

    is_native = np.array([kernel == "native" for _, kernel, _, _ in measurements])

    def residuals(logs: Any) -> Any:
        values = dict(zip(paths, np.exp(logs), strict=True))
        found = errors(replaced(tree, values), measurements)
        # Another kernel runs only where it is surely faster: native's fast times count more, and others' slow ones.
        found = np.where((found < 0) == is_native, found * DOUBTFUL, found)
        # A rate that no measurement asks for stays where it was.
        return np.r_[found, 0.05 * (logs - np.log(start))]

    highest = [min(4 * a, 1.0) if path.endswith("_share") else 4 * a for path, a in zip(paths, start, strict=True)]
    bounds = (np.log(start) - math.log(4), np.log(np.maximum(highest, np.multiply(start, 1.001))))
    found = least_squares(residuals, np.log(start), bounds=bounds, loss="soft_l1", f_scale=0.2, diff_step=1e-3)
    return replaced(tree, {path: float(f"{math.exp(log):.4g}") for path, log in zip(paths, found.x, strict=True)})


def scaled(tree: dict[str, Any], measurements: list[Measurement]) -> list[Measurement]:
    """The measurements as on the processor that the other rates are of: native's as they are predicted.

    Rates of one table are only compared with each other. The median of larger problems counts, of channels that fill
    vectors: of others native's formula doesn't say how slow they are.
    """
    large = [
        m
        for m in measurements
        if m[:2] == ("outputs", "native")
        and m[2].dtype == torch.float32
        and m[2].multiplications > 50_000_000
        and m[2].in_channels % 16 == m[2].out_channels % 16 == 0
    ]
    if not large:
        return measurements
    factor = math.exp(-float(np.median(errors(tree, large))))
    print(
        f"native takes {1 / factor:.2f} of what is predicted, in the median of {len(large)}: all times are scaled by that"
    )
    return [(*m[:3], m[3] * factor) for m in measurements]


def table(before: Any, after: Any, measurements: list[Measurement]) -> str:
    """By kernel, how far predictions are off: the root mean square of the factor."""
    lines = [f"{'':<28}{'count':>6}{'before':>8}{'after':>8}"]
    for key in sorted({(m[0], m[1]) for m in measurements}):
        rows = [n for n, m in enumerate(measurements) if (m[0], m[1]) == key]
        factors = [math.exp(math.sqrt(float((e[rows] ** 2).mean()))) for e in (before, after)]
        lines.append(f"{key[1] + ', ' + key[0]:<28}{len(rows):>6}{factors[0]:>8.2f}{factors[1]:>8.2f}")
    return "\n".join(lines)


def text_of(tree: Any, indent: str = "") -> str:
    """JSON with a line for each rate; lists on one line."""
    if not isinstance(tree, dict):
        return json.dumps(tree)
    inner = [f"{indent}  {json.dumps(k)}: {text_of(v, indent + '  ')}" for k, v in tree.items()]
    return "{\n" + ",\n".join(inner) + "\n" + indent + "}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", type=int, default=120)
    parser.add_argument("--frames", type=int, default=30)
    parser.add_argument("--dense", type=int, default=30)
    parser.add_argument("--strided", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=[""])
    parser.add_argument("--kernels", nargs="+", default=[name for name in KERNELS if name != "reference"])
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=0.05)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(rates.FITTED_THREADS)
    document = json.loads(FILE.read_text())
    family = rates.processor_family()
    old = rates.complete(document, family)
    shapes = random_shapes(options.shapes, options.seed) + transposed_frames(options.frames, options.seed)
    shapes += dense(options.dense, options.seed) + strided(options.strided, options.seed)
    measurements = list(measured(shapes, options.seconds, options.kernels, getattr(torch, options.dtype)))
    if options.only != [""]:
        measurements = scaled(old, measurements)
    new = fitted(old, measurements, tuple(options.only))
    print(f"\n{family}: predictions off by a factor of (root mean square)")
    print(table(errors(old, measurements), errors(new, measurements), measurements))
    changed = [(p, a, dict(numbers(new))[p]) for p, a in numbers(old)]
    for path, one, other in changed:
        if abs(math.log(other / one)) > 0.1:
            print(f"{path:<40}{one:>12.4g} -> {other:.4g}")
    if options.write:
        limits = " ".join(f"{name}={os.environ[name]}" for name in LIMITS if name in os.environ)
        command = f"{limits} python benchmarks/fit_rates.py --shapes {options.shapes} --frames {options.frames}".strip()
        command += f" --dense {options.dense} --strided {options.strided} --seconds {options.seconds}"
        if options.dtype != "float32":
            command += f" --dtype {options.dtype}"
        if options.only != [""]:
            command += f" --only {' '.join(options.only)} --kernels {' '.join(options.kernels)}"
        entry = {
            "date": date.today().isoformat(),
            "processor": f"{processor_name()}, {platform.machine()}",
            "torch": torch.__version__,
            "command": f"{command} --seed {options.seed}",
        }
        before = document[family]["measured"]
        if options.only == [""]:
            entry["rates"] = "those that float32 outputs and weight gradients on random shapes depend on; others: "
            entry["rates"] += before.get("command", "")
        else:
            entry = before | {" ".join(options.only): entry}
        own = {name: new[name] for name in document[family]["rates"]}
        document[family] |= {"measured": entry, "rates": own}
        FILE.write_text(text_of(document) + "\n")
        print(f"wrote {FILE}")


if __name__ == "__main__":
    main()
