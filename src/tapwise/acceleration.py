"""Acceleration: run an existing model's convolutions on this engine, and undo it; ``forwards.py`` is what runs then."""

from __future__ import annotations

import inspect
from functools import partial
from pathlib import Path
from types import CodeType, TracebackType
from typing import Any

import torch
from torch import nn

from tapwise.chunks import StreamingLayer
from tapwise.engine import measured
from tapwise.engine.options import allowing, check_dtype, current_options
from tapwise.engine.plan import NATIVE, choose_kernel, lowered
from tapwise.engine.problem import Problem
from tapwise.evaluation import evaluating
from tapwise.forwards import FORWARDS, HOOKS, NAMES, REROUTED, convolution, in_dtype
from tapwise.geometry import Geometry
from tapwise.padding import pads_of
from tapwise.tuning import Recorder, Tuning, refuse_options, tuned


class Acceleration:
    """What ``accelerate`` did to a model; as a context manager, undone at the end of the block.

    Arguments:
        changed: by path, each layer that runs on the engine now.
        left: by path, each convolution that was left as it was, and why.
        tuning: what was timed, where an example was given.
    """

    def __init__(self, changed: dict[str, nn.Module], left: dict[str, str]) -> None:
        self.changed = changed
        self.left = left
        self.tuning: Tuning | None = None

    def undo(self) -> None:
        """Restore every changed layer's own forward. A layer that was changed again since is left."""
        for layer in self.changed.values():
            for name in NAMES:
                if _is_ours(layer, name):
                    del layer.__dict__[name]
                    layer.__dict__.pop(_FOR_SCRIPTS, None)
        self.changed = {}

    def __enter__(self) -> Acceleration:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.undo()

    def kernels(self, length: int = 16_384) -> dict[str, list[str]]:
        """By kernel, the paths of the layers that run on it, without gradients, where their own input is so long.

        ``"native"`` is torch's own. A layer whose forward is somebody's own is under ``"decided when called"``.
        """
        found: dict[str, list[str]] = {}
        for path, layer in self.changed.items():
            found.setdefault(_kernel_of(layer, length), []).append(path)
        return dict(sorted(found.items(), key=lambda item: item[0] == NATIVE))

    def __str__(self) -> str:
        count = len(self.changed)
        first = f"{count} convolution{'s' * (count != 1)} on Tapwise's engine"
        lines = [first, str(self.tuning)] if self.tuning is not None else self._predicted(first)
        reasons: dict[str, list[str]] = {}
        for path, why in self.left.items():
            reasons.setdefault(why, []).append(path)
        lines += [f"{len(self.left)} left as {'they were' if len(self.left) > 1 else 'it was'}"] if self.left else []
        lines += [f"  {why}: {_listed(paths)}" for why, paths in reasons.items()]
        return "\n".join(lines)

    def _predicted(self, first: str) -> list[str]:
        """The layers by their kernels, at some length."""
        length = 16_384
        kernels = self.kernels(length)
        native = len(kernels.get(NATIVE, ()))
        ours = len(self.changed) - native - len(kernels.get(_LATER, ()))
        first += (
            f": at {length:,} samples {ours} leave{'s' * (ours == 1)} torch's kernel, "
            f"{native} stay{'s' * (native == 1)} on it"
        )
        return [first, *(f"  {kernel}: {_listed(paths)}" for kernel, paths in kernels.items())]

    __repr__ = __str__


def _kernel_of(layer: nn.Module, length: int) -> str:
    if not isinstance(layer, nn.Conv1d | nn.ConvTranspose1d) or any(_is_rerouted(layer, name) for name in NAMES):
        return _LATER
    geometry, weight = Geometry.of(layer), layer.weight
    channels = layer.in_channels, layer.out_channels
    length = max(length, geometry.effective_kernel_size)
    hook = next((layer.__dict__[name] for name in NAMES if _is_ours(layer, name)), None)
    dtype = hook.args[0] if hook is not None and hook.func is in_dtype else current_options().dtype
    with allowing(dtype):
        return choose_kernel(lowered(Problem(geometry, *channels, length, weight.dtype, weight.device.type)))


def _is_rerouted(layer: nn.Module, name: str) -> bool:
    hook = layer.__dict__.get(name)
    return isinstance(hook, partial) and any(f in REROUTED.values() for f in (hook.func, *hook.args[1:2]))


def _listed(paths: list[str]) -> str:
    """Some paths, and how many more there are."""
    shown = [path or "the model itself" for path in paths[:_SHOWN]]
    more = len(paths) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


_SHOWN = 6
_LATER = "decided when called"
_ON_IT_ALREADY = "it is on the engine already: options(dtype=...) around its calls lets it be computed in another dtype"


def accelerate(
    model: nn.Module,
    example: Any = None,
    *,
    backward: bool = False,
    save: bool = True,
    dtype: torch.dtype | None = None,
) -> Acceleration:
    """Run every ``nn.Conv1d`` and ``nn.ConvTranspose1d`` of a model on Tapwise's engine, in place.

    So run subclasses that do something of their own and then call torch's ``forward``, and other modules whose
    ``forward`` calls ``F.conv1d`` or ``F.conv_transpose1d``.

    Layers stay the objects that they are: class, parameters, parametrizations, hooks and state_dict
    are untouched, and so are outputs, up to rounding. Where no kernel of ours is faster, torch's runs
    as before. ``copy.deepcopy`` of a model copies the acceleration, beyond an ``undo`` too; a shallow copy
    goes on computing with the original layer's settings, and its weights too unless it is a plain ``Conv1d``. What is
    traced or exported to ONNX holds torch's own operations; ``torch.export`` holds Tapwise's, and
    ``torch.jit.script`` says that it can't compile an accelerated layer.

    Arguments:
        model: any module, a single convolution too.
        example: a tensor that it takes, or a tuple of its inputs: ``tune`` first times the kernels for it, and the report
            has a line for each kind of convolution, before and after. None: kernels are those predicted.
        backward: time training steps too.
        save: add what was timed to the file of plans, for later processes.
        dtype: ``torch.bfloat16``: convolutions of float32 may be computed in it, as ``options(dtype=...)`` says; what the model
            gives, and its parameters, stay float32. It changes nothing on processors without matrices (Intel AMX), nor in
            streams, compiled graphs and frozen networks of the model: ``freeze`` has a ``dtype`` of its own.

    Returns:
        A report: ``print`` it, or use it as a context manager, which undoes the change at the end.

    Raises:
        TypeError: a model that is no ``nn.Module``.
        ValueError: another dtype.
        ValueError, OSError: with an example, as ``tune`` raises them; the model is then left as it was.

    Example:
        >>> import torch, tapwise as tw
        >>> model = torch.nn.Sequential(torch.nn.Conv1d(1, 4, 31), torch.nn.ReLU())
        >>> print(tw.accelerate(model))
        1 convolution on Tapwise's engine: at 16,384 samples 1 leaves torch's kernel, 0 stay on it
          direct: 0
        >>> with tw.accelerate(model):
        ...     y = model(torch.zeros(1, 1, 100))
    """
    check_dtype(dtype)
    if example is None:
        if backward:
            raise ValueError(
                "backward=True times training steps, which takes an example: accelerate(model, example, ...)"
            )
        return _accelerated(model, dtype)
    file = _before_tuning(model, save)
    acceleration = _accelerated(model, dtype)
    try:
        with allowing(dtype or current_options().dtype):
            acceleration.tuning = tuned(_recorded(model, example), backward, file)
    except BaseException:
        acceleration.undo()
        raise
    return acceleration


def tune(model: nn.Module, example: Any, backward: bool = False, *, save: bool = True) -> Tuning:
    """Time every kernel that can run each convolution of a model, and use the fastest from now on.

    The model runs once, as ``accelerate`` would run it, and stays as it is. What is measured replaces predictions
    wherever the same problem (geometry, channels, length, dtype) runs on as many threads, in this process and, from
    the file ``tapwise.plans.path()``, in later ones. It takes a fraction of a second for each problem, and longer where a
    call does, once for a machine. The batch is the example's, the largest of a problem's, and the plan holds for any.
    Nothing else should compute meanwhile.

    Arguments:
        model: any module; one convolution too.
        example: a tensor that it takes, or a tuple of its inputs, of the lengths and the batch that it will be used with.
        backward: time training steps too.
        save: add what was measured to the file, for later processes.

    Returns:
        What was measured; ``print`` it.

    Raises:
        TypeError: a model that is no ``nn.Module``.
        ValueError: a file of plans that holds something else; options in force that look at no measurement; a lazy layer
            without weights.
        OSError: a file that can't be written.

    Example:
        >>> import torch, tapwise as tw
        >>> layer = tw.Conv1d(2, 2, 31, groups=2)
        >>> tuning = tw.tune(layer, torch.randn(1, 2, 20_000), save=False)
        >>> tuning.problems[0].kind
        'depthwise'
    """
    file = _before_tuning(model, save)
    with _accelerated(model):
        posed = _recorded(model, example)
    return tuned(posed, backward, file)


def _before_tuning(model: nn.Module, save: bool) -> Path | None:
    """Check what tuning takes, before any work; the file to which plans are added."""
    _check_module(model)
    refuse_options()
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if nn.parameter.is_lazy(tensor):
            raise ValueError(f"{name} has no numbers yet: run the model once, then tune it")
    file = measured.path() if save else None
    if file is not None:
        measured.prepare(file)
    return file


def _recorded(model: nn.Module, example: Any) -> Recorder:
    inputs = example if isinstance(example, tuple) else (example,)
    recorder = Recorder()
    with evaluating(model), recorder:
        model(*inputs)
    return recorder


def _check_module(model: Any) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")


def _accelerated(model: nn.Module, dtype: torch.dtype | None = None) -> Acceleration:
    _check_module(model)
    changed: dict[str, nn.Module] = {}
    left: dict[str, str] = {}
    for path, layer in model.named_modules():
        if isinstance(layer, StreamingLayer) or any(_is_ours(layer, name) for name in NAMES):
            if dtype is not None:
                left[path] = _ON_IT_ALREADY
            continue
        kind = next((kind for kind in HOOKS if isinstance(layer, kind)), None)
        name, function = _replacement(layer, kind)
        if kind is None and not name:
            continue
        obstacle = _obstacle(layer, name, function)
        if obstacle is None:
            hook = partial(function, layer) if dtype is None else partial(in_dtype, dtype, function, layer)
            layer.__dict__[name] = hook
            layer.__dict__[_FOR_SCRIPTS] = partial(_refuse_scripts, layer)
            changed[path] = layer
        else:
            left[path] = obstacle
    return Acceleration(changed, left)


def _replacement(layer: nn.Module, kind: type[nn.Module] | None) -> tuple[str, Any]:
    """The method of a layer to be replaced, empty where none is, and by what."""
    for name in NAMES if kind is nn.Conv1d else ("forward",):
        method = getattr(type(layer), name, None)
        if method is None or method is getattr(kind, name, None):
            continue
        called = _names_in(method)
        if called & {"conv1d", "conv_transpose1d"} - set(dir(layer)):  # self.conv1d(x) is a module of the layer's
            return name, REROUTED[name]
        if kind is None:
            return "", None
        if not called & {"forward", "_conv_forward"}:
            return "", None
        if name == "_conv_forward" or kind is nn.ConvTranspose1d:
            return name, REROUTED[name]
    return (HOOKS[kind], FORWARDS[kind]) if kind is not None else ("", None)


def _names_in(method: Any) -> set[str]:
    """The names that the code of a method uses, and that of the functions in it."""
    waiting: list[Any] = [getattr(inspect.unwrap(method), "__code__", None)]
    names: set[str] = set()
    while waiting:
        code = waiting.pop()
        if isinstance(code, CodeType):
            names.update(code.co_names)
            waiting.extend(code.co_consts)
    return names


def _obstacle(layer: nn.Module, name: str, function: Any) -> str | None:
    """Why a layer is left as it is; None where it can be changed."""
    replaced = next((name for name in NAMES if name in layer.__dict__), None)
    if replaced is not None:
        return f"its {replaced} was replaced by somebody else"
    if isinstance(layer, nn.modules.lazy.LazyModuleMixin):
        return "it has no weight yet: run the model once first"
    if function is convolution and _pads_differently(layer):
        return "it pads by other numbers than its padding says"
    return (
        None if name else f"{type(layer).__name__} has a forward of its own, which calls none of torch's convolutions"
    )


def _pads_differently(layer: Any) -> bool:
    """Whether torch pads, where not with zeros, by other numbers than those of ``padding``."""
    if layer.padding_mode == "zeros":
        return False
    effective = layer.dilation[0] * (layer.kernel_size[0] - 1) + 1
    pads = pads_of(layer.padding, effective, layer.stride[0], transposed=False)
    return tuple(layer._reversed_padding_repeated_twice) != pads


def _is_ours(layer: nn.Module, name: str) -> bool:
    hook = layer.__dict__.get(name)
    functions = (*FORWARDS.values(), *REROUTED.values(), in_dtype)
    return isinstance(hook, partial) and hook.func in functions and hook.args[-1] is layer


# What ``torch.jit.script`` calls first on every module that has it.
_FOR_SCRIPTS = "__prepare_scriptable__"


def _refuse_scripts(layer: nn.Module) -> nn.Module:
    raise TypeError(
        f"torch.jit.script can't compile an accelerated {type(layer).__name__}: "
        "undo() the acceleration, script the model, then accelerate it again"
    )
