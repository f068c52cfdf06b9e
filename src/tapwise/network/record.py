"""Record: one run of a model, as the calls that the signal passed through.

The model runs with concrete values, whatever Python it is made of. Every call of torch's that takes the
signal, or a tensor computed from it, is recorded. Nothing is traced symbolically.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from tapwise.errors import TimelineError


@dataclass(frozen=True, slots=True)
class Ref:
    """In a call's arguments: stands for a tensor computed from the signal, by its number."""

    value: int


@dataclass(slots=True)
class Call:
    """One thing that the model did with the signal.

    Arguments:
        name: what is called, without underscores: ``add`` for ``torch.add``, ``x += y`` and the like.
        path: the module within which it was called, as ``model.get_submodule`` takes it.
        leaves: its arguments and keyword arguments flattened by ``spec``; tensors of the signal are refs.
        outputs: numbers of the output tensors, flattened; None for what is no tensor.
        writes: whether it writes over its first argument.
    """

    func: Callable[..., Any]
    name: str
    path: str
    leaves: list[Any]
    spec: pytree.TreeSpec
    outputs: list[int | None]
    writes: bool

    @property
    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments and keyword arguments, tensors of the signal as refs."""
        args, kwargs = pytree.tree_unflatten(self.leaves, self.spec)
        return args, kwargs

    @property
    def refs(self) -> list[int]:
        """The numbers of the tensors of the signal that go in, in order."""
        return [leaf.value for leaf in self.leaves if isinstance(leaf, Ref)]

    @property
    def where(self) -> str:
        """The call in words: what, and in which module."""
        return f"{self.name} in {self.path or 'the model itself'}"


@dataclass
class Recording:
    """A run: its calls in order, the size of every tensor of the signal, and what the model returned.

    Value 0 is the model's input.
    """

    calls: list[Call] = field(default_factory=list)
    sizes: list[tuple[int, ...]] = field(default_factory=list)
    dtypes: list[torch.dtype] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    leaves: list[Any] = field(default_factory=list)
    spec: pytree.TreeSpec | None = None


# What asks about a tensor without reading its numbers.
_READS_NUMBERS = frozenset(
    [
        "item",
        "tolist",
        "bool",
        "int",
        "float",
        "index",
        "contains",
        "numpy",
        "array",
        "equal",
        "allclose",
        "is_nonzero",
        "complex",
    ]
)


class _Recorder(TorchFunctionMode):
    def __init__(self, keep: bool, atomic: tuple[type, ...]) -> None:
        super().__init__()
        self.recording = Recording()
        self.keep = keep
        self.atomic = atomic
        self.paths = [""]
        self.inside = 0  # of how many atomic modules
        self.numbers: dict[int, int] = {}
        self.alive: list[Tensor] = []  # so that no two tensors share an id
        self.stale: dict[int, str] = {}
        self.autocast = False

    def admit(self, tensor: Tensor) -> int:
        """A number for a tensor of the signal."""
        number = len(self.recording.sizes)
        self.recording.sizes.append(tuple(tensor.shape))
        self.recording.dtypes.append(tensor.dtype)
        if self.keep:
            self.recording.values.append(tensor.detach().clone())
        self.numbers[id(tensor)] = number
        self.stale.pop(id(tensor), None)
        self.alive.append(tensor)
        return number

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.inside:
            return func(*args, **kwargs)
        leaves, spec = pytree.tree_flatten((args, kwargs))
        is_signal = [isinstance(leaf, Tensor) and id(leaf) in self.numbers for leaf in leaves]
        if not any(is_signal):
            return func(*args, **kwargs)
        name = plain_name(func)
        if name == "setitem" or "out" in kwargs:
            raise TimelineError(
                "writes into a part of a tensor", self.paths[-1], name, "make a new tensor, by torch.cat or torch.where"
            )
        refs: list[Any] = [
            Ref(self.numbers[id(leaf)]) if yes else leaf for leaf, yes in zip(leaves, is_signal, strict=True)
        ]
        signals = [leaf for leaf, yes in zip(leaves, is_signal, strict=True) if yes]
        versions = [_version(tensor) for tensor in signals]
        result = func(*args, **kwargs)
        if name.startswith("new_"):
            return result  # the signal gives its dtype alone
        if torch.is_autocast_enabled(signals[0].device.type) != self.autocast:
            raise TimelineError(
                "turns autocast on or off by itself",
                self.paths[-1],
                name,
                "stream all of it under autocast, or convert the model's parameters",
            )
        writes = versions != [_version(tensor) for tensor in signals]
        self._record(Call(func, name, self.paths[-1], refs, spec, [], writes), result, leaves)
        return result

    def _record(self, call: Call, result: Any, arguments: list[Any]) -> None:
        outputs = pytree.tree_leaves(result)
        if not any(isinstance(leaf, Tensor) for leaf in outputs):
            if call.name in _READS_NUMBERS:
                reason = "what the model does depends on the signal's numbers"
                remedy = "keep to tensors: torch.where chooses without looking"
                if call.name in ("numpy", "array", "tolist"):
                    reason = "takes the signal out of torch"
                    remedy = "stay with torch's operations"
                raise TimelineError(reason, call.path, call.name, remedy)
            return
        for leaf in arguments:
            if id(leaf) in self.stale:
                reason = f"reads a tensor whose memory {self.stale[id(leaf)]} wrote over"
                remedy = "write y = x + z in place of y += z there"
                raise TimelineError(reason, call.path, call.name, remedy)
        if call.writes:
            self._mark_views_stale(arguments[0], call.where)
        call.outputs = [self.admit(leaf) if isinstance(leaf, Tensor) else None for leaf in outputs]
        self.recording.calls.append(call)

    def _mark_views_stale(self, written: Tensor, by: str) -> None:
        """Other tensors in the memory that was written over no longer hold their values."""
        place = written.untyped_storage().data_ptr()
        for tensor in self.alive:
            if tensor is not written and tensor.untyped_storage().data_ptr() == place:
                self.stale[id(tensor)] = by

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """While the model runs: which module is running, and which ones are one call each."""
        hooks = []

        def enters(module: nn.Module, args: Any, kwargs: Any, path: str) -> None:
            self.paths.append(path)
            self.inside += isinstance(module, self.atomic)

        def leaves(module: nn.Module, args: Any, kwargs: Any, result: Any, path: str) -> None:
            if isinstance(module, self.atomic):
                self.inside -= 1
                flat, spec = pytree.tree_flatten((args, kwargs))
                refs = [Ref(self.numbers[id(x)]) if id(x) in self.numbers else x for x in flat]
                if self.inside == 0 and any(isinstance(ref, Ref) for ref in refs):
                    with torch._C.DisableTorchFunction():
                        call = Call(module, type(module).__name__, path, refs, spec, [], False)
                        self._record(call, result, flat)
            self.paths.pop()

        for path, module in model.named_modules(remove_duplicate=False):
            hooks.append(
                module.register_forward_pre_hook(lambda m, a, k, path=path: enters(m, a, k, path), with_kwargs=True)
            )
            hooks.append(
                module.register_forward_hook(lambda m, a, k, r, path=path: leaves(m, a, k, r, path), with_kwargs=True)
            )
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def plain_name(func: Callable[..., Any]) -> str:
    """A function's name without underscores and the prefixes of operators.

    Example:
        >>> import torch
        >>> plain_name(torch.Tensor.__iadd__), plain_name(torch.Tensor.relu_)
        ('add', 'relu')
    """
    name = getattr(func, "__name__", type(func).__name__)
    if name == "__get__":  # an attribute: x.shape, x.T
        return str(getattr(func, "__self__", func).__name__)
    if name.startswith("__") and name.endswith("__"):
        name = name[2:-2]
        return name[1:] if name[0] in "ir" and name[1:] in _OPERATORS else name
    return str(name).rstrip("_")


_OPERATORS = {"add", "sub", "mul", "truediv", "div", "floordiv", "mod", "pow", "and", "or", "xor"}


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation, without gradients; afterwards every part is as it was."""
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        with torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def record(model: nn.Module, inputs: tuple[Any, ...], keep: bool = False, atomic: tuple[type, ...] = ()) -> Recording:
    """Run a model, as in evaluation and without gradients, and record every call that takes the signal.

    Arguments:
        inputs: the model's arguments; the first is the signal.
        keep: keep a copy of every tensor of the signal.
        atomic: types of modules that are one call each, whatever they contain.
    """
    recorder = _Recorder(keep, atomic)
    signal = inputs[0].detach().clone()  # a model may write over its input
    recorder.admit(signal)
    recorder.autocast = torch.is_autocast_enabled(signal.device.type)
    with evaluating(model), recorder.watching(model), recorder:
        result = model(signal, *inputs[1:])
    found = recorder.recording
    leaves, found.spec = pytree.tree_flatten(result)
    found.leaves = [
        Ref(recorder.numbers[id(leaf)]) if isinstance(leaf, Tensor) and id(leaf) in recorder.numbers else leaf
        for leaf in leaves
    ]
    return found
