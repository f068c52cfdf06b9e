"""Measured: what kernels took on this machine, kept in a file, by which plans are made instead of by predictions.

``tapwise.tune`` adds to it. The file is ``TAPWISE_PLANS``, or ``plans.json`` beside the machine code; an empty
``TAPWISE_PLANS`` means none. What was measured elsewhere, on another processor or with other versions, stays in
the file and counts for nothing here.

# {"format": 1, "machines": [{
#     "machine": {...},
#     "plans": [{problem, "threads": 2, "batch": 1, "seconds": {kernel: s}, "training": {kernels: s}}, ...],
#     "rates": {group: factor}
# }]}
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from operator import index
from pathlib import Path
from threading import RLock
from typing import Any, TextIO

import torch

from tapwise.atomic_file import AtomicFile
from tapwise.engine import compiled
from tapwise.engine.problem import Problem
from tapwise.engine.rates import GROUPS, Rates, adapted, current_rates, processor_name
from tapwise.geometry import Geometry

try:
    import fcntl
except ImportError:  # no such locks here: of two processes that write at once, the later one's plans stay
    fcntl = None  # type: ignore[assignment]

FORMAT = 1
NOTHING: Mapping[str, float] = {}
# A kernel replaces native where it took at most this share of native's time: less is noise.
MARGIN = 0.97

Key = tuple[Problem, int]  # and threads


@dataclass(frozen=True, slots=True)
class Measurement:
    """What kernels took for a problem on some threads, in seconds a batch row.

    Arguments:
        batch: rows that were computed at a time.
        date: when, as ``"2026-11-30"``.
        seconds: by kernel, without gradients.
        training: by the kernels of the outputs and of both gradients, ``"direct native fft"``, of all three together;
            empty where gradients were not measured.
    """

    batch: int
    date: str
    seconds: Mapping[str, float]
    training: Mapping[str, float]


_lock, _writing = RLock(), RLock()
_found: dict[Key, Measurement] = {}
_factors: dict[str, float] = {}
_is_loaded = False
_is_ignored: ContextVar[bool] = ContextVar("tapwise_measured_ignored", default=False)


def _after_fork_in_child() -> None:
    global _lock, _writing
    _lock, _writing = RLock(), RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def lookup(problem: Problem, threads: int) -> Measurement | None:
    """What was measured of a problem, here or in the file; None where nothing was."""
    if not _is_loaded:
        _load_at_first()
    if _is_ignored.get():
        return None
    return _found.get((problem, threads)) if _found else None


def everything() -> dict[Key, Measurement]:
    """All that was measured on this machine: a copy."""
    if not _is_loaded:
        _load_at_first()
    with _lock:
        return dict(_found)


def rates() -> Rates:
    """The rates of this processor's family, as this machine was measured to have them."""
    if not _is_loaded:
        _load_at_first()
    family = current_rates()
    return family if _is_ignored.get() or not _factors else _adapted(family, tuple(sorted(_factors.items())))


_adapted = lru_cache(maxsize=8)(lambda family, factors: adapted(family, dict(factors)))


def add(found: Mapping[Key, Measurement], factors: Mapping[str, float] = NOTHING) -> None:
    """Use measurements from now on, in this process; ``factors``: by group of rates, how many times as long it takes."""
    everything()
    with _lock:
        _found.update(found)
        _factors.update(factors)


def factors() -> dict[str, float]:
    """By group of rates, how many times as long it takes here: a copy."""
    everything()
    with _lock:
        return dict(_factors)


def forget() -> None:
    """Use no measurement in this process, the file's neither."""
    global _is_loaded
    with _lock:
        _found.clear()
        _factors.clear()
        _is_loaded = True


@contextmanager
def ignored() -> Iterator[None]:
    """Within the block, plans are predicted, in this thread."""
    token = _is_ignored.set(True)
    try:
        yield
    finally:
        _is_ignored.reset(token)


def path() -> Path | None:
    """The file that later processes read; None where there is none."""
    chosen = os.environ.get("TAPWISE_PLANS")
    if chosen is not None:
        return Path(chosen) if chosen else None
    try:
        return compiled.folder() / "plans.json"
    except RuntimeError:  # the user has no home
        return None


def _load_at_first() -> None:
    global _is_loaded
    with _lock:
        if _is_loaded:
            return
        file = path()
        if file is not None and file.exists():
            try:
                found, factors = read(file)
                _found.update(found)
                _factors.update(factors)
            except (OSError, ValueError) as error:
                warnings.warn(f"plans are predicted, not measured: {error}", RuntimeWarning, stacklevel=2)
        _is_loaded = True


# The file


@cache
def machine() -> dict[str, str]:
    """What a measurement depends on, beside the problem and the threads."""
    versions = {name: _version(name) for name in ("tapwise", "torch", "numba")}
    return {
        "processor": processor_name(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "cores": str(os.cpu_count()),
        "loops": _loops(),
        **versions,
    }


def _loops() -> str:
    try:
        return compiled.fingerprint()
    except (PackageNotFoundError, ImportError):  # no compiler: no loops
        return "none"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def read(file: Path) -> tuple[dict[Key, Measurement], dict[str, float]]:
    """What a file holds of this machine: measurements, and the factors of its rates.

    Raises:
        ValueError: no such file, in a sentence.
    """
    for entry in _machines(file):
        if entry["machine"] == machine():
            return _parsed(file, entry["plans"]), _parsed_factors(file, entry.get("rates", {}))
    return {}, {}


def prepare(file: Path) -> None:
    """Make sure that plans can be added to a file, before they are measured.

    Raises:
        ValueError: a file that holds something else.
        OSError: one that can't be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.exists():
            read(file)
        AtomicFile(file).discard()
    except OSError as error:
        raise OSError(
            f"{file}: plans can't be kept there ({error}): name another file by TAPWISE_PLANS, or keep none"
        ) from error


def write(file: Path, found: Mapping[Key, Measurement], factors: Mapping[str, float] = NOTHING) -> None:
    """Add what was measured to a file, complete or not at all; what it holds of other machines stays."""
    with _one_writer(file):
        machines = _machines(file) if file.exists() else []
        own = next((entry for entry in machines if entry["machine"] == machine()), None)
        if own is None:
            own = {"machine": machine(), "plans": []}
            machines.append(own)
        merged = {**_parsed(file, own["plans"]), **found}
        own["plans"] = [_as_json(*item) for item in merged.items()]
        if rates := {**_parsed_factors(file, own.get("rates", {})), **factors}:
            own["rates"] = rates
        target = AtomicFile(file)
        try:
            target.file.write((json.dumps({"format": FORMAT, "machines": machines}, indent=1) + "\n").encode())
            target.commit()
        finally:
            target.discard()


@contextmanager
def _one_writer(file: Path) -> Iterator[None]:
    """Of all threads and processes that add to a file, one at a time; a lock ends with its process."""
    with _writing:
        held = _locked(file.with_name(f".{file.name}.lock"))
        try:
            yield
        finally:
            if held is not None:
                with suppress(OSError):
                    Path(held.name).unlink()
                held.close()


def _locked(lock: Path) -> TextIO | None:
    """The lock's file, locked; None where there are no such locks, or the folder is another user's: write beside others."""
    while True:
        try:
            held = lock.open("w")
        except OSError:
            return None
        try:
            if fcntl is not None:
                fcntl.lockf(held, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(held.fileno()), lock.stat()):
                return held
        except FileNotFoundError:
            pass  # the one before deleted what this one waited for
        except OSError:
            held.close()
            return None
        held.close()


def _machines(file: Path) -> list[dict[str, Any]]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"{file}: holds plans of format {content['format']}, and this version reads {FORMAT}")
        machines: list[dict[str, Any]] = content["machines"]
        if isinstance(machines, list) and all(
            isinstance(entry["machine"], dict) and isinstance(entry["plans"], list) for entry in machines
        ):
            return machines
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        pass
    raise ValueError(f"{file}: is no file of plans, as tapwise.plans.save writes it: delete it, or name another")


def _parsed(file: Path, plans: Iterable[Any]) -> dict[Key, Measurement]:
    try:
        return dict(map(_parsed_plan, plans))
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{file}: holds a plan that can't be read ({error}): delete it, or name another") from error


def _parsed_plan(plan: Any) -> tuple[Key, Measurement]:
    values = dict(plan)
    geometry = dict(values.pop("geometry"))
    geometry["padding"] = tuple(geometry["padding"])
    dtype = getattr(torch, values.pop("dtype"))
    threads, batch, date = index(values.pop("threads")), index(values.pop("batch")), str(values.pop("date"))
    seconds, training = _times(values.pop("seconds")), _times(values.pop("training"))
    channels = {name: index(values.pop(name)) for name in ("in_channels", "out_channels", "length")}
    problem = Problem(geometry=Geometry(**geometry), dtype=dtype, device=str(values.pop("device")), **channels)
    if values or not isinstance(dtype, torch.dtype) or any(len(names.split()) != 3 for names in training):
        raise ValueError(f"got {sorted(values) or dtype}")
    return (problem, threads), Measurement(batch, date, seconds, training)


def _parsed_factors(file: Path, values: Any) -> dict[str, float]:
    try:
        factors = _times(values)
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{file}: holds rates that can't be read ({error}): delete it, or name another") from error
    return {name: factor for name, factor in factors.items() if name in GROUPS}


def _times(values: dict[str, Any]) -> dict[str, float]:
    times = {str(name): float(seconds) for name, seconds in values.items()}
    if not all(0 < seconds < math.inf for seconds in times.values()):
        raise ValueError("seconds must be above 0")
    return times


def _as_json(key: Key, measurement: Measurement) -> dict[str, Any]:
    problem, threads = key
    plan = asdict(problem)
    plan["geometry"].update(padding=list(problem.geometry.padding))
    plan["dtype"] = str(problem.dtype).removeprefix("torch.")
    return {**plan, "threads": threads, **asdict(measurement)}
