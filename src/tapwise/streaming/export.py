"""Export: a stream's step as a program of torch.export, and as an ONNX file, its state explicit."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from tapwise.atomic_file import write_atomically
from tapwise.extras import need

# By input, its axes of open size: of the chunk, and of the states.
DynamicShapes = tuple[dict[int, Any] | None, tuple[dict[int, Any] | None, ...]]


class StepModule(nn.Module):
    """A stream's step as a module: ``(chunk, *state)`` in, ``(*outputs, *state)`` out, all tensors.

    Arguments:
        step: ``step(chunk, state) -> (outputs, state)``, both pytrees.
        state: the state before the first chunk.
        example: a chunk.
    """

    def __init__(self, step: Callable[[Tensor, Any], Any], state: Any, example: Tensor) -> None:
        super().__init__()
        self._step, self.example = step, example
        self.state, self._spec = pytree.tree_flatten(state)
        self.eval()

    def forward(self, chunk: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """The outputs of the chunk, and the state after it."""
        y, after = self._step(chunk, pytree.tree_unflatten(list(state), self._spec))
        outputs = [leaf for leaf in pytree.tree_leaves(y) if isinstance(leaf, Tensor)]
        return (*outputs, *pytree.tree_leaves(after))

    def exported(self) -> Any:
        """The step as a ``torch.export`` program of fixed shapes."""
        with torch.no_grad(), _quiet():
            return torch.export.export(self, (self.example, *self.state))


def write_onnx(
    step: StepModule, path: str | os.PathLike[str], opset: int | None = None, dynamic: DynamicShapes | None = None
) -> Path:
    """Write the step as an ONNX file, complete or not at all.

    Inputs are ``chunk`` and ``state0``, ``state1``, ...; outputs are ``output0``, ..., and ``next0``, ...,
    to be given as the state of the next step.

    Arguments:
        opset: of ONNX; None: torch's default.
        dynamic: sizes that the file leaves open; None: none.

    Raises:
        MissingPackageError: without onnx and onnxscript: pip install 'tapwise[onnx]'.
        ValueError: an opset that can't be written.
    """
    for package in ("onnx", "onnxscript"):
        need(package)
    with torch.no_grad(), _quiet():
        n_states = len(step.state)
        n_outputs = len(step(step.example, *step.state)) - n_states
        outputs = [f"output{n}" for n in range(n_outputs)] + [f"next{n}" for n in range(n_states)]
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "step.onnx"
            torch.onnx.export(
                step,
                (step.example, *step.state),
                str(target),
                input_names=["chunk", *(f"state{n}" for n in range(n_states))],
                output_names=outputs,
                opset_version=opset,
                dynamic_shapes=dynamic,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
            data = target.read_bytes()
    _check_opset(need("onnx"), data, opset)
    return write_atomically(path, {".onnx": lambda: data})


def _check_opset(onnx: Any, data: bytes, opset: int | None) -> None:
    """Refuse a file of another opset than was asked for: torch's exporter then only logs that it couldn't."""
    written = {entry.domain: entry.version for entry in onnx.load_from_string(data).opset_import}.get("")
    if opset is not None and written != opset:
        raise ValueError(f"opset={opset} can't be written of this model: torch's exporter gave {written}")


def shapes_of_any_batch(two: Sequence[Tensor], three: Sequence[Tensor]) -> DynamicShapes:
    """The shapes of a chunk and of states for any batch, from those of batches of two and of three."""
    batch = torch.export.Dim("batch")

    def sizes(a: Tensor, b: Tensor) -> dict[int, Any] | None:
        per_row = {axis: n - m for axis, (m, n) in enumerate(zip(a.shape, b.shape, strict=True)) if m != n}
        return {axis: batch if count == 1 else count * batch for axis, count in per_row.items()} or None

    chunk, *states = (sizes(a, b) for a, b in zip(two, three, strict=True))
    return chunk, tuple(states)


@contextmanager
def _quiet() -> Iterator[None]:
    """Nothing of what torch's exporter says of itself: missing packages, its own deprecations, its progress."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            for kind in (FutureWarning, DeprecationWarning, UserWarning):
                warnings.simplefilter("ignore", kind)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
