"""Evaluation: how a model runs while it is read. Afterwards it is as it was."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from tapwise.errors import TimelineError

_is_evaluating: ContextVar[bool] = ContextVar("tapwise_is_evaluating", default=False)
# Whether a model runs to be read, now and in this thread: what it computes is then compared, in the dtype of its tensors.
is_evaluating = _is_evaluating.get
# One thread at a time reads models: what a scripted function does when it is called is one for all of Python.
_reading = threading.RLock()


def _after_fork_in_child() -> None:
    """A thread that was reading before the fork isn't in the child."""
    global _reading
    _reading = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def version_of(tensor: Tensor) -> int:
    """How often a tensor was written to; 0 where torch doesn't count."""
    return 0 if tensor.is_inference() else tensor._version


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation, without gradients; afterwards every part and every buffer is as it was."""
    with _reading:  # what another thread reads is then as it was
        yield from _evaluating(model)


def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    buffers = {name: (buffer, version_of(buffer), buffer.detach().clone()) for name, buffer in model.named_buffers()}
    token = _is_evaluating.set(True)
    try:
        model.eval()
        with torch.no_grad():
            yield
    finally:
        _is_evaluating.reset(token)
        for module, training in modes.items():
            module.training = training
        for name, (buffer, version, before) in buffers.items():
            owner, _, last = name.rpartition(".")
            module = model.get_submodule(owner)
            if module._buffers.get(last) is not buffer:
                module._buffers[last] = buffer
            if version_of(buffer) != version:
                with torch.no_grad():
                    buffer.copy_(before)


@contextmanager
def read_through() -> Iterator[None]:
    """Scripted and compiled functions run as the Python that they were made of, call by call."""
    reader = threading.get_ident()

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() != reader:
            return scripted(self, *args, **kwargs)
        if getattr(self, "__name__", "") != "ScriptFunction":
            raise TimelineError(
                "is traced, which hides its operations and froze its branches",
                "",
                getattr(self, "__name__", None) or "a traced function",
                "call the function that was traced",
            )
        function = getattr(self, "_torchdynamo_inline", None)
        return scripted(self, *args, **kwargs) if function is None else function(*args, **kwargs)

    with _reading:
        kind: Any = torch.jit.ScriptFunction
        scripted = kind.__call__
        kind.__call__ = call
        # Where torch's compiler was never loaded, nothing is compiled; loading it takes seconds.
        is_loaded = "torch._dynamo" in sys.modules
        try:
            with torch.compiler.set_stance("force_eager") if is_loaded else nullcontext():
                yield
        finally:
            kind.__call__ = scripted
