"""Export: a stream's step as a program of torch.export, and as an ONNX file, its state explicit."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from tapwise.files import write_whole

if TYPE_CHECKING:
    from tapwise.streaming.pure import Functional


class Step(nn.Module):
    """A stream's step as a module: ``(chunk, *state)`` in, ``(*outputs, *state)`` out, all tensors.

    Arguments:
        functional: what ``Stream.functional`` gave.
        batch: rows of a chunk.
    """

    def __init__(self, functional: Functional, batch: int = 1) -> None:
        super().__init__()
        self._step = functional[1]
        self.example = functional.example(batch)
        self.state, self._spec = pytree.tree_flatten(functional[0](batch))

    def forward(self, chunk: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """The outputs of the chunk, and the state after it."""
        y, after = self._step(chunk, pytree.tree_unflatten(list(state), self._spec))
        outputs = [leaf for leaf in pytree.tree_leaves(y) if isinstance(leaf, Tensor)]
        return (*outputs, *pytree.tree_leaves(after))


def exported(functional: Functional, batch: int = 1) -> Any:
    """The step as a ``torch.export`` program of fixed shapes."""
    step = Step(functional, batch)
    with torch.no_grad():
        return torch.export.export(step, (step.example, *step.state))


def to_onnx(functional: Functional, path: str | os.PathLike[str], batch: int = 1) -> Path:
    """Write the step as an ONNX file, whole or not at all.

    Inputs are ``chunk`` and ``state0``, ``state1``, ...; outputs are ``output0``, ..., and ``next0``, ...,
    to be given as the state of the next step. ``Functional.example`` and ``init_state`` say their sizes.

    Raises:
        ModuleNotFoundError: without onnx and onnxscript: pip install 'tapwise[onnx]'.
    """
    step = Step(functional, batch)
    with torch.no_grad():
        outputs = len(step(step.example, *step.state)) - len(step.state)
        names = [f"state{n}" for n in range(len(step.state))]
        results = [f"output{n}" for n in range(outputs)] + [f"next{n}" for n in range(len(names))]
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "step.onnx"
            torch.onnx.export(
                step, (step.example, *step.state), str(target), input_names=["chunk", *names],
                output_names=results, dynamo=True, external_data=False, verbose=False,
            )  # fmt: skip
            data = target.read_bytes()
    return write_whole(path, {".onnx": lambda: data})
