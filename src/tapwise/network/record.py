"""Record: one run of a model, as the calls that the signal passed through.

The model runs with concrete values, whatever Python it is made of. Every call of torch's that takes the
signal, or a tensor computed from it, is recorded. Nothing is traced symbolically.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from tapwise.errors import TimelineError
from tapwise.evaluation import evaluating, read_through, version_of


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

    The first values are the signals that the model was given.

    Arguments:
        signals: how many those are.
        numbers: by the id of a tensor that was computed from positions (``torch.arange``), the numbers that it
            met on its way, as those that positions are compared with.
        operands: the ids of the tensors that calls read beside the signal.
        beside: the ids of those from which others were computed without the signal, as weight_norm does.
    """

    signals: int = 1
    calls: list[Call] = field(default_factory=list)
    sizes: list[tuple[int, ...]] = field(default_factory=list)
    dtypes: list[torch.dtype] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    leaves: list[Any] = field(default_factory=list)
    spec: pytree.TreeSpec | None = None
    numbers: dict[int, frozenset[float]] = field(default_factory=dict)
    operands: set[int] = field(default_factory=set)
    beside: set[int] = field(default_factory=set)


# What asks about a tensor without reading its numbers.
_READS_NUMBERS = frozenset(
    """
    item tolist bool int float index contains numpy array equal allclose is_nonzero complex
    """.split()
)


# Where the signal may stand for its dtype, device or size alone: no number of it goes in.
_LIKENESS = frozenset(["to", "type_as", "view_as", "expand_as", "reshape_as"])
# Of the signal's size and dtype: constants where the model writes into them.
_LIKE = frozenset(["zeros_like", "ones_like", "full_like", "empty_like"])
# Constants that differ from moment to moment begin here.
_POSITIONS = frozenset(["arange", "linspace", "cumsum", "tril", "triu", "tril_indices", "triu_indices"])
_WRITES_WITHOUT_READING = frozenset(["setitem", "copy", "zero", "fill"])


class _Recorder(TorchFunctionMode):
    def __init__(self, keep: bool, atomic: tuple[type, ...]) -> None:
        super().__init__()
        self.recording = Recording()
        self.keep = keep
        self.atomic = atomic
        self.paths = [""]
        self.inside = 0  # of how many atomic modules
        self.numbers: dict[int, int] = {}
        self.alive: list[Any] = []  # so that no two tensors share an id
        self.stale: dict[int, str] = {}
        self.like: set[int] = set()
        # Memory of constants that the signal was written into, and by what.
        self.written: dict[int, str] = {}
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
        self.like.discard(id(tensor))
        self.alive.append(tensor)
        return number

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.inside:
            return func(*args, **kwargs)
        leaves, spec = pytree.tree_flatten((args, kwargs))
        is_signal = [isinstance(leaf, Tensor) and id(leaf) in self.numbers for leaf in leaves]
        name = plain_name(func)
        self._check_written(name, leaves, is_signal)
        if not any(is_signal):
            return self._beside(name, leaves, func(*args, **kwargs))
        self.recording.operands |= {id(leaf) for leaf in leaves if isinstance(leaf, Tensor)}
        if name.startswith("new_") or (name in _LIKENESS and not is_signal[0]):
            return func(*args, **kwargs)
        in_place = name == "setitem" or _is_in_place(func)
        if in_place and id(leaves[0]) in self.like and not any(is_signal[1:]):
            self._forget(leaves[0])
            return func(*args, **kwargs)
        if name in ("setitem", "copy") and not is_signal[0]:
            self._mark_written(leaves[0], name)  # a buffer of the model's own: fine as long as nothing reads it
            return func(*args, **kwargs)
        if name == "setitem" or kwargs.get("out") is not None:
            raise TimelineError(
                "writes into a part of a tensor", self.paths[-1], name, "make a new tensor, by torch.cat or torch.where"
            )
        refs: list[Any] = [
            Ref(self.numbers[id(leaf)]) if yes else leaf for leaf, yes in zip(leaves, is_signal, strict=True)
        ]
        signals = [leaf for leaf, yes in zip(leaves, is_signal, strict=True) if yes]
        versions = [version_of(tensor) for tensor in signals]
        recorded = func
        if in_place and not is_signal[0] and isinstance(leaves[0], Tensor):
            refs[0] = leaves[0].clone()  # what it held before the signal was added to it
            recorded = getattr(torch.Tensor, name, func)
            self._mark_written(leaves[0], name)
        result = func(*args, **kwargs)
        if torch.is_autocast_enabled(signals[0].device.type) != self.autocast:
            raise TimelineError(
                "turns autocast on or off by itself",
                self.paths[-1],
                name,
                "stream all of it under autocast, or convert the model's parameters",
            )
        writes = versions != [version_of(tensor) for tensor in signals]
        self._record(Call(recorded, name, self.paths[-1], refs, spec, [], writes), result, leaves)
        if name in _LIKE:
            self.like.add(id(result))
        return result

    def _beside(self, name: str, leaves: list[Any], result: Any) -> Any:
        """A call without the signal: of what is computed from positions, the numbers that it met."""
        if name not in _READS_NOTHING:
            self.recording.beside |= {id(leaf) for leaf in leaves if isinstance(leaf, Tensor)}
        met = self.recording.numbers
        before = [met[id(leaf)] for leaf in leaves if id(leaf) in met]
        if before or name in _POSITIONS or any(isinstance(leaf, slice) for leaf in leaves):
            numbers = frozenset(n for leaf in leaves for n in _numbers(leaf)).union(*before)
            for leaf in pytree.tree_leaves(leaves[0] if name == "setitem" else result):
                if isinstance(leaf, Tensor):
                    met[id(leaf)] = numbers
                    self.alive.append(leaf)
        return result

    def _forget(self, tensor: Tensor) -> None:
        del self.numbers[id(tensor)]
        self.like.discard(id(tensor))

    def _mark_written(self, tensor: Any, name: str) -> None:
        if isinstance(tensor, Tensor):
            self.written[tensor.untyped_storage().data_ptr()] = f"{name} in {self.paths[-1] or 'the model itself'}"
            self.alive.append(tensor)

    def _check_written(self, name: str, leaves: list[Any], is_signal: list[bool]) -> None:
        """Refuse to read a constant's memory after the signal was written into it."""
        if not self.written or name in _READS_NOTHING:
            return
        for n, (leaf, yes) in enumerate(zip(leaves, is_signal, strict=True)):
            if yes or not isinstance(leaf, Tensor) or (n == 0 and name in _WRITES_WITHOUT_READING):
                continue
            by = self.written.get(leaf.untyped_storage().data_ptr())
            if by is not None:
                raise TimelineError(
                    f"reads a tensor that {by} wrote the signal into",
                    self.paths[-1],
                    name,
                    "make a new tensor, by torch.cat or torch.where; a buffer of earlier samples is the stream's to keep",
                )

    def check_returned(self, leaves: list[Any]) -> None:
        """Refuse a model that returns a constant's memory after the signal was written into it."""
        is_signal = [isinstance(leaf, Tensor) and id(leaf) in self.numbers for leaf in leaves]
        self._check_written("output", [None, *leaves], [False, *is_signal])

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

        reader = threading.get_ident()  # another thread may run the model meanwhile

        def enters(module: nn.Module, args: Any, kwargs: Any, path: str) -> None:
            if threading.get_ident() != reader:
                return
            self.paths.append(path)
            self.inside += isinstance(module, self.atomic)

        def leaves(module: nn.Module, args: Any, kwargs: Any, result: Any, path: str) -> None:
            if threading.get_ident() != reader:
                return
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


# Attributes of a tensor, and what asks about it without reading its numbers.
_ASKS = """
    shape size dim ndim ndimension numel nelement dtype device layout requires_grad is_floating_point is_complex
    is_contiguous stride storage_offset data_ptr element_size itemsize nbytes is_cuda grad grad_fn is_leaf untyped_storage
"""
_READS_NOTHING = frozenset(_ASKS.split())


def _numbers(leaf: Any) -> list[float]:
    """The numbers of an argument: itself, that of a tensor of one, the ends of a slice."""
    if isinstance(leaf, slice):
        return [n for end in (leaf.start, leaf.stop) for n in _numbers(end)]
    if isinstance(leaf, Tensor):
        is_one = leaf.numel() == 1 and not leaf.is_complex()
        return [abs(float(leaf.reshape(()).item()))] if is_one else []
    return [abs(float(leaf))] if type(leaf) in (int, float) else []


def _is_in_place(func: Callable[..., Any]) -> bool:
    name = getattr(func, "__name__", "")
    if name.startswith("__i") and name.endswith("__"):
        return name[3:-2] in _OPERATORS
    return name.endswith("_") and not name.endswith("__")


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
    return str(name).strip("_")


_OPERATORS = {"add", "sub", "mul", "truediv", "div", "floordiv", "mod", "pow", "and", "or", "xor"}


def record(
    model: nn.Module,
    inputs: tuple[Any, ...],
    keep: bool = False,
    atomic: tuple[type, ...] = (),
    places: Sequence[int] = (0,),
) -> Recording:
    """Run a model, as in evaluation and without gradients, and record every call that takes the signal.

    Arguments:
        inputs: the model's arguments.
        keep: keep a copy of every tensor of the signal.
        atomic: types of modules that are one call each, whatever they contain.
        places: which of the arguments are signals; the first is.
    """
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise TimelineError(
                "is compiled by TorchScript, which hides its operations",
                path,
                "forward",
                "give the module that was scripted or traced",
            )
    recorder = _Recorder(keep, atomic)
    arguments = list(inputs)
    for place in places:
        arguments[place] = inputs[place].detach().clone()  # a model may write over its input
        recorder.admit(arguments[place])
    recorder.autocast = torch.is_autocast_enabled(arguments[places[0]].device.type)
    try:
        with evaluating(model), read_through(), recorder.watching(model), recorder:
            result = model(*arguments)
    except (SystemExit, StopIteration) as error:
        raise RuntimeError(f"the model ends by {type(error).__name__} where it should return") from error
    found = recorder.recording
    found.signals = len(places)
    leaves, found.spec = pytree.tree_flatten(result)
    recorder.check_returned(leaves)
    found.leaves = [
        Ref(recorder.numbers[id(leaf)]) if isinstance(leaf, Tensor) and id(leaf) in recorder.numbers else leaf
        for leaf in leaves
    ]
    return found
