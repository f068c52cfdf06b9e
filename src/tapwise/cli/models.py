"""Models by name, ``module:factory`` or ``file.py:factory``, with weights from safetensors."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tapwise.cli.options import refuse_missing
from tapwise.errors import listed
from tapwise.extras import need

# What torch.compile and data parallelism put before every name of a checkpoint, the outer one first.
_PREFIXES = ("_orig_mod.", "module.", "_orig_mod.")
FORM = "module:factory, or file.py:factory"


def load(name: str, weights: str | os.PathLike[str] | None = None, size: str = "") -> tuple[nn.Module, Any]:
    """The model that a factory makes, and an example of its input.

    Arguments:
        name: a module and a function in it that is called without arguments and returns a model, or a
            pair of a model and an example.
        weights: a ``.safetensors`` file with the model's state_dict; no pickle is ever read.
        size: of an example, as ``1,1,16000``, where the factory gives none.

    Raises:
        ValueError: a name, weights or an example that don't fit.
        FileNotFoundError: no such file.
    """
    weights = None if weights is None else Path(weights)
    refuse_missing(name, weights)
    model, example = _call_factory(name)
    if size:
        try:
            sizes = [int(n) for n in size.split(",")]
            if min(sizes) < 1:
                raise ValueError
            example = torch.randn(sizes)
        except (ValueError, RuntimeError):
            raise ValueError(f"--size must be positive integers, as 1,1,16000, got {size!r}") from None
    if not isinstance(model, nn.Module):
        raise ValueError(f"{name} gave {type(model).__name__}: expected a torch.nn.Module")
    if example is None:
        raise ValueError(
            f"{name} gives a model without an example: let it return (model, example), or give --size 1,1,16000"
        )
    if weights is not None:
        model.load_state_dict(_weights(weights, model))
    return model.eval(), example


def _call_factory(name: str) -> tuple[Any, Any]:
    place, colon, function = name.rpartition(":")
    if not colon or not place or not function:
        raise ValueError(f"a model is named {FORM}, got {name!r}")
    if place.endswith(".py"):
        path = Path(place)
        spec = importlib.util.spec_from_file_location(path.stem, path)  # its imports are the user's own
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules.setdefault(path.stem, module)
        sys.path.insert(0, str(path.resolve().parent))
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit, GeneratorExit) as error:
            raise _failed(place, error) from error
        finally:
            sys.path.remove(str(path.resolve().parent))
    else:
        sys.path.insert(0, "")
        try:
            module = importlib.import_module(place)
        except (Exception, SystemExit, GeneratorExit) as error:
            named = isinstance(error, ModuleNotFoundError) and error.name and place.startswith(error.name)
            if named or (isinstance(error, TypeError | ValueError) and place.startswith(".")):
                raise ValueError(f"no module {place!r}: a model is named {FORM}") from None
            raise _failed(place, error) from error
        finally:
            sys.path.remove("")
    factory = getattr(module, function, None)
    if isinstance(factory, nn.Module):
        raise ValueError(f"{name} is a model already: name a function that returns it, and an example")
    if not callable(factory):
        names = [
            name
            for name, value in vars(module).items()
            if getattr(value, "__module__", "") == module.__name__ and callable(value) and not name.startswith("_")
        ]
        raise ValueError(f"{place} has no function {function!r}; it has {', '.join(names) or 'none'}")
    try:
        result = factory()
    except (Exception, SystemExit, GeneratorExit) as error:
        raise _failed(name, error) from error
    return result if isinstance(result, tuple) and len(result) == 2 else (result, None)


def _failed(name: str, error: BaseException) -> ValueError:
    """What a user's file did, and where."""
    place = f" (line {error.lineno})" if isinstance(error, SyntaxError) else ""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is not None and not place and name.partition(":")[0].endswith(".py"):
        place = f" ({Path(last.tb_frame.f_code.co_filename).name}, line {last.tb_lineno})"
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return ValueError(f"{name} failed: {type(error).__name__}: {text}{place}")


def _weights(path: Path, model: nn.Module) -> dict[str, Tensor]:
    if path.suffix != ".safetensors":
        raise ValueError(
            f"{path}: weights are read from .safetensors alone, which can't run code. This converts a checkpoint: "
            f"python -c \"import torch, safetensors.torch as s; c = torch.load({str(path)!r}, map_location='cpu', "
            "weights_only=True); c = next((c[k] for k in ('state_dict', 'model_state_dict', 'model') if k in c), c); "
            f"s.save_file({{k: v.contiguous().clone() for k, v in c.items()}}, "
            f'{str(path.with_suffix(".safetensors"))!r})"'
        )
    try:
        weights: dict[str, Tensor] = need("safetensors.torch").load_file(path)
    except need("safetensors").SafetensorError as error:
        raise ValueError(f"{path}: no safetensors file: {error}") from None
    for prefix in _PREFIXES:
        if (
            weights
            and all(key.startswith(prefix) for key in weights)
            and not weights.keys() & model.state_dict().keys()
        ):
            weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    got = {key: tuple(value.shape) for key, value in weights.items()}
    if expected != got:
        wrong = sorted(k for k in expected.keys() | got.keys() if expected.get(k) != got.get(k))
        first = wrong[0]
        raise ValueError(
            f"{path}: the weights are another model's: {first} is {got.get(first, 'missing')}, the "
            f"model's {expected.get(first, 'missing')} ({len(wrong)} differ); the file has {listed(sorted(got), 4)}"
        )
    return weights
