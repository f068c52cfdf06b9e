"""Frozen: a network for inference, whose programs are made for each batch and length when they are first needed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from tapwise.engine import compiled
from tapwise.engine.options import options
from tapwise.engine.threads import leave_lost_pool
from tapwise.errors import FreezeMismatchError, ShapeError
from tapwise.evaluation import evaluating
from tapwise.forks import Turns
from tapwise.frozen.lowering import lowered
from tapwise.frozen.matrices import use_matrices
from tapwise.frozen.memory import Block
from tapwise.frozen.program import LOOPS, Program
from tapwise.frozen.rewriting import rewrite
from tapwise.frozen.spans import offline_span, operations_of
from tapwise.frozen.steps import TorchStep
from tapwise.frozen.weights import drop_filters, pack
from tapwise.network.execution import complete
from tapwise.network.reading import read
from tapwise.network.results import as_returned

# Programs that are cached, one for each batch and length.
_MOST_PROGRAMS = 32
# Of the largest output: by which a frozen network's outputs may differ from the model's where both are compared.
ALLOWED, ALLOWED_IN_BFLOAT16 = 1e-3, 0.05


class Frozen(nn.Module):
    """A network for inference: made by ``tapwise.freeze``.

    It is called as the model is, and gives what the model gives in evaluation, without gradients. It holds a copy of
    the model as it was: what changes the model later isn't followed. Several threads may call it; one at a time
    computes.

    Arguments:
        model: the model, a copy.
        example: a tensor that it takes, or a tuple of its inputs.
        time: the signal's axis of time.
        is_exact: whether every output is a sum of products, none of Winograd's filtering.
        product_dtype: bfloat16, where products may be computed in it by the processor's matrices; None: float32.
    """

    # Beside nn.Module's registers: a frozen network has no parameters, nor does anything move it.
    model: nn.Module
    example: Any
    time: int | None
    is_exact: bool
    product_dtype: torch.dtype | None
    allowed: float  # by which outputs may differ from the model's, of the largest

    def __init__(
        self, model: nn.Module, example: Any, time: int | None, is_exact: bool, product_dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.__dict__.update(model=model, example=example, time=time, is_exact=is_exact, product_dtype=product_dtype)
        self.graph, self.runs = read(model, example, time, is_offline=True)
        on_cpu = all(like.device.type == "cpu" for like in self.runs.inputs if isinstance(like, Tensor))
        is_compiled = on_cpu and all(compiled.obstacle(*loop) is None for loop in LOOPS)
        with options(exact=is_exact or None):  # whatever is in force where this is unpickled
            self.steps = lowered(self.graph, is_compiled)
        rewrite(self.graph, self.steps)
        pack(self.steps)
        self._operations = operations_of(self.graph)
        self._base = self.runs.shortest()
        self.allowed = ALLOWED
        if product_dtype is not None:
            self._start()
            self._check()  # whether the graph is the model, closely; then whether products are rounded as they should be
            use_matrices(self.steps)
            self.allowed = ALLOWED_IN_BFLOAT16
        drop_filters(self.steps, is_exact)
        self._start()
        self._check()
        self.eval()

    def _start(self) -> None:
        self._programs: OrderedDict[tuple[int, int], Program] = OrderedDict()
        # By length below those that the model was read at, whether the graph is the model there.
        self._holds: dict[int, bool] = {}
        self._arena, self._turns = Block(), Turns()

    @property
    def torch_operations(self) -> list[str]:
        """The operations that torch runs, each by its name and the module in which it stands."""
        numbers = [step.node for step in self.steps.steps if isinstance(step, TorchStep)]
        return [self.graph.nodes[n].where for n in numbers]

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, *inputs: Any) -> Any:
        """What the model gives in evaluation.

        Raises:
            ShapeError: a signal of another dtype, device or size than the model takes, or one that requires a gradient.
        """
        signals = self._signals(inputs)
        leave_lost_pool()
        with torch.no_grad(), torch.autocast("cpu", enabled=False):  # of one dtype, whatever surrounds it
            if signals is None:
                return self._by_model(inputs)
            axis = self.graph.nodes[0].size.time
            length = signals[0].shape[axis]
            if length < self._base:
                if length not in self._holds:
                    return self._first_of_length(length, inputs, signals)
                if not self._holds[length]:
                    return self._by_model(inputs)
            return self._by_programs(signals)

    def _by_programs(self, signals: Sequence[Tensor]) -> Any:
        node = self.graph.nodes[0]
        batch = signals[0].shape[node.size.batch[0][0]] if node.size.batch else self.graph.batch
        length = signals[0].shape[node.size.time]
        with self._turns:
            program = self._program(batch if node.size.batch else 1, length)
            rows = [
                x.narrow(self.graph.nodes[n].size.time, low, high - low)
                for n, (x, (low, high)) in enumerate(zip(signals, program.span.rows, strict=False))
            ]
            results = program.run(rows, self._arena, None, self._runner(program, batch))
        return as_returned(self.graph, results, [length] * batch, True)

    def _program(self, batch: int, length: int) -> Program:
        key = batch, length
        program = self._programs.get(key)
        if program is None:
            span = offline_span(self.graph, self._operations, length)
            program = self._programs[key] = Program(self.graph, self.steps, span, batch)
            if len(self._programs) > _MOST_PROGRAMS:
                self._programs.popitem(last=False)
        else:
            self._programs.move_to_end(key)
        return program

    def _runner(self, program: Program, batch: int) -> Callable[[int, list[Tensor]], Tensor | None]:
        """What runs a node in torch."""
        nodes, operations = self.graph.nodes, self._operations

        def run(number: int, inputs: list[Tensor]) -> Tensor | None:
            part = program.span.parts[number]
            assert part is not None
            axes = [nodes[n].size.time for n in nodes[number].inputs]
            if part.schedule is None:
                return complete(operations[number], nodes[number], inputs, axes, batch)
            nothing = [x.narrow(axis, 0, 0) for x, axis in zip(inputs, axes, strict=True)]
            y, _ = operations[number].run(part.schedule, nothing, inputs)
            return y  # type: ignore[no-any-return]

        return run

    def _by_model(self, inputs: Sequence[Any]) -> Any:
        with evaluating(self.model):
            return self.model(*inputs)

    # What it is called with

    def _signals(self, inputs: Sequence[Any]) -> list[Tensor] | None:
        """The signals among the inputs; None where the model itself has to run."""
        wanted = self.runs.inputs
        if len(inputs) != len(wanted):
            raise TypeError(f"the model takes {len(wanted)} inputs, as in its example, got {len(inputs)}")
        signals = []
        for place, (value, like) in enumerate(zip(inputs, wanted, strict=True)):
            if place in self.graph.places:
                number = self.graph.places.index(place)
                signals.append(self._checked(value, like, number, "input" if len(wanted) == 1 else f"input {place}"))
            elif not _is_same(value, like):
                return None  # read as a constant of the model's
        node = self.graph.nodes[0]
        length = signals[0].shape[node.size.time]
        batch = signals[0].shape[node.size.batch[0][0]] if node.size.batch else self.graph.batch
        counts = self.graph.counts(length)
        for number, signal in enumerate(signals):  # what torch would broadcast, or refuse, is the model's
            if tuple(signal.shape) != self.graph.nodes[number].size.of(batch, counts[number][0]):
                return None
        return None if 0 in (length, batch) or self.graph.missing(length) else signals

    def _checked(self, value: Any, like: Any, number: int, name: str) -> Tensor:
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
        if value.requires_grad and torch.is_grad_enabled():
            raise ShapeError(
                f"a frozen network gives no gradients, and the {name} requires one",
                got="requires_grad=True",
                expected="a tensor that requires none",
                fix="detach() it, or call the model itself",
            )
        size = self.graph.nodes[number].size
        fits = value.ndim == len(size.entries)
        if fits:
            batch = value.shape[size.batch[0][0]] if size.batch else self.graph.batch
            shape = size.of(batch, value.shape[size.time])
            fits = tuple(value.shape) == shape or not size.batch  # of one size: see _signals
        if not fits or value.dtype != like.dtype or value.device != like.device:
            shown = [str(entry) for entry in size.entries]
            shown[size.time] = "any length"
            for axis, _ in size.batch:
                shown[axis] = "any batch"
            raise ShapeError(
                f"the {name} doesn't fit the network",
                got=f"{value.dtype} of size {list(value.shape)} on {value.device}",
                expected=f"{like.dtype} of size ({', '.join(shown)}) on {like.device}",
                fix="axes, channels and dtype are those of the example; freeze the model with another for others",
            )
        return value.detach()

    # Held against the model

    def _check(self) -> None:
        """Compare one run with the model's.

        Raises:
            FreezeMismatchError: where they differ.
        """
        signals = self.runs.signals(self._base)
        inputs = list(self.runs.inputs)
        for place, signal in zip(self.graph.places, signals, strict=True):
            inputs[place] = signal
        with torch.no_grad():
            difference = difference_of(self._by_model(inputs), self._by_programs(list(signals)))
        if difference > self.allowed:
            raise FreezeMismatchError(
                f"the frozen network differs from the model by {difference:.2g} of its largest output, for a signal of "
                f"{self._base} samples: report it, with the model, and use tapwise.accelerate meanwhile"
            )

    def _first_of_length(self, length: int, inputs: Sequence[Any], signals: Sequence[Tensor]) -> Any:
        """A length shorter than those at which the model was read: its own run, unless programs give the same.

        The model refuses first what it refuses; where programs hold, their bits are those of every later call.
        """
        wanted = self._by_model(inputs)
        try:
            noise = self.runs.signals(length)
            others = list(inputs)
            for place, signal in zip(self.graph.places, noise, strict=True):
                others[place] = signal
            self._holds[length] = difference_of(self._by_model(others), self._by_programs(noise)) <= self.allowed
        except (RuntimeError, ValueError, IndexError, ArithmeticError):
            self._holds[length] = False
        return self._by_programs(signals) if self._holds[length] else wanted

    # As an object

    def __getattr__(self, name: str) -> Any:
        """What a frozen network hasn't, its model has: another module may ask for its stride."""
        if name.startswith("_") or "model" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return getattr(self.__dict__["model"], name)

    def extra_repr(self) -> str:
        n_torch = len(self.torch_operations)
        text = f"{type(self.model).__name__}: {len(self.steps.steps) - n_torch} compiled steps"
        return f"{text}, {n_torch} of torch's" if n_torch else text

    def __deepcopy__(self, memo: dict[int, Any]) -> Frozen:
        """Another that shares the weights and computes in memory of its own."""
        other = object.__new__(Frozen)
        other.__dict__.update(self.__dict__)
        other._start()
        return other

    def __reduce__(self) -> tuple[Any, ...]:
        return Frozen, (
            self.model,
            self.example,
            self.time,
            self.is_exact,
            self.product_dtype,
        )  # a graph's functions are the model's own


def _is_same(value: Any, like: Any) -> bool:
    if isinstance(value, Tensor) and isinstance(like, Tensor):
        return value is like or (value.dtype == like.dtype and torch.equal(value, like))
    try:
        return bool(value == like)
    except (RuntimeError, TypeError, ValueError):
        return False


def difference_of(wanted: Any, found: Any) -> float:
    """The largest difference of two results, of the largest number; infinite where they are not alike."""
    first, second = (pytree.tree_leaves(value) for value in (wanted, found))
    if len(first) != len(second):
        return float("inf")
    worst = 0.0
    for a, b in zip(first, second, strict=True):
        if not isinstance(a, Tensor):
            continue
        if not isinstance(b, Tensor) or a.shape != b.shape or a.dtype != b.dtype:
            return float("inf")
        if not a.numel() or not a.is_floating_point():
            continue
        same = (a == b) | (a.isnan() & b.isnan())
        error = torch.where(same, 0, (a - b).double().abs()).nan_to_num(float("inf"))
        finite = a[a.isfinite()]
        worst = max(worst, float(error.max()) / (1e-6 + (float(finite.abs().max()) if finite.numel() else 0.0)))
    return worst
