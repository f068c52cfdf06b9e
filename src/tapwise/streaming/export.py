"""Export: a stream's step as a program of torch.export, and as an ONNX file, its state explicit."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from tapwise.atomic_file import write_atomically


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
        with torch.no_grad():
            return torch.export.export(self, (self.example, *self.state))


def write_onnx(step: StepModule, path: str | os.PathLike[str]) -> Path:
    """Write the step as an ONNX file, complete or not at all.

    Inputs are ``chunk`` and ``state0``, ``state1``, ...; outputs are ``output0``, ..., and ``next0``, ...,
    to be given as the state of the next step.

    Raises:
        ModuleNotFoundError: without onnx and onnxscript: pip install 'tapwise[onnx]'.
    """
    with torch.no_grad():
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
                dynamo=True,
                external_data=False,
                verbose=False,
            )
            data = target.read_bytes()
    return write_atomically(path, {".onnx": lambda: data})
