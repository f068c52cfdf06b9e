"""Peers of the benchmark of networks: each makes, of a model and a signal, the call that is timed."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

Call = Callable[[], Any]


def eager(model: Any, x: Any) -> Call:
    return lambda: model(x)


def accelerated(model: Any, x: Any) -> Call:
    import tapwise as tw

    tw.accelerate(model)
    return lambda: model(x)


def tuned(model: Any, x: Any) -> Call:
    import tapwise as tw

    tw.accelerate(model, x)
    return lambda: model(x)


def frozen(model: Any, x: Any) -> Call:
    import tapwise as tw

    network = tw.freeze(model, x)
    return lambda: network(x)


def compiled(model: Any, x: Any) -> Call:
    import torch
    import torch._inductor.config as config

    config.freezing = True
    fast = torch.compile(model)
    return lambda: fast(x)


def onnxruntime(model: Any, x: Any) -> Call:
    session = _session(_exported(model, (x,)))
    feed = {session.get_inputs()[0].name: x.numpy()}
    return lambda: session.run(None, feed)[0]


def _exported(model: Any, example: tuple[Any, ...]) -> bytes:
    import warnings

    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(model, example, dynamo=True, verbose=False)
    buffer = io.BytesIO()
    program.save(buffer)
    return buffer.getvalue()


def _session(data: bytes) -> Any:
    import onnxruntime as ort
    import torch

    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


PEERS: dict[str, Callable[[Any, Any], Call]] = {
    "eager": eager,
    "accelerate": accelerated,
    "tuned": tuned,
    "freeze": frozen,
    "torch.compile": compiled,
    "ONNX Runtime": onnxruntime,
    "eager again": eager,
}


# In bfloat16


def autocast(model: Any, x: Any) -> Call:
    import torch

    def call() -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return model(x)

    return call


def accelerated_autocast(model: Any, x: Any) -> Call:
    import tapwise as tw

    tw.accelerate(model)
    return autocast(model, x)


def accelerated_in_bfloat16(model: Any, x: Any) -> Call:
    import torch

    import tapwise as tw

    tw.accelerate(model, dtype=torch.bfloat16)
    return lambda: model(x)


def frozen_in_bfloat16(model: Any, x: Any) -> Call:
    import torch

    import tapwise as tw

    network = tw.freeze(model, x, dtype=torch.bfloat16)
    return lambda: network(x)


BFLOAT16_PEERS: dict[str, Callable[[Any, Any], Call]] = {
    "eager": eager,
    "autocast": autocast,
    "accelerate, autocast": accelerated_autocast,
    "accelerate, bfloat16": accelerated_in_bfloat16,
    "freeze": frozen,
    "freeze, bfloat16": frozen_in_bfloat16,
    "eager again": eager,
}
IN_BFLOAT16 = ("autocast", "accelerate, autocast", "accelerate, bfloat16", "freeze, bfloat16")


# Training steps: the loss and all gradients, without an optimizer


def trained(model: Any, x: Any) -> Call:
    import torch
    from torch.utils._pytree import tree_leaves

    x = x.clone().requires_grad_()

    def step() -> Any:
        with torch.enable_grad():
            model.zero_grad(set_to_none=True)
            loss = sum(y.square().mean() for y in tree_leaves(model(x)))
            loss.backward()
        return loss.detach()

    model.train()
    return step


def trained_accelerated(model: Any, x: Any) -> Call:
    import tapwise as tw

    tw.accelerate(model)
    return trained(model, x)


def trained_tuned(model: Any, x: Any) -> Call:
    import tapwise as tw

    tw.accelerate(model, x, backward=True)
    return trained(model, x)


TRAINING_PEERS: dict[str, Callable[[Any, Any], Call]] = {
    "eager": trained,
    "accelerate": trained_accelerated,
    "tuned": trained_tuned,
    "eager again": trained,
}


# Live steps


def streamed(model: Any, x: Any, samples: int) -> Call:
    return _stepped(model, x, samples, False)


def frozen_stream(model: Any, x: Any, samples: int) -> Call:
    return _stepped(model, x, samples, True)


def frozen_stream_in_bfloat16(model: Any, x: Any, samples: int) -> Call:
    import torch

    return _stepped(model, x, samples, True, torch.bfloat16)


def _stepped(model: Any, x: Any, samples: int, is_frozen: bool, dtype: Any = None) -> Call:
    import tapwise as tw

    live = tw.stream(tw.freeze(model, x, dtype=dtype) if is_frozen else model, x)
    chunk = _chunk(x, samples, live.time_axes[0])
    return lambda: live.step(chunk)


def onnx_step(model: Any, x: Any, samples: int) -> Call:
    """ONNX Runtime on the step that tapwise exports; the state goes from step to step."""
    import tempfile

    import tapwise as tw

    live = tw.stream(model, x)
    step = live.functional(samples)
    with tempfile.TemporaryDirectory() as folder:
        path = step.to_onnx(Path(folder) / "step.onnx", live.batch)
        session = _session(path.read_bytes())
    chunk = _chunk(x, samples, live.time_axes[0]).numpy()
    state = step.initial_inputs(live.batch)

    def call() -> Any:
        nonlocal state
        found = session.run(None, {"chunk": chunk, **state})
        state = dict(zip(state, found[len(found) - len(state) :], strict=True))
        return found[0]

    return call


def _chunk(x: Any, samples: int, axis: int) -> Any:
    return x.narrow(axis, 0, samples).contiguous()


LIVE_PEERS: dict[str, Callable[[Any, Any, int], Call]] = {
    "stream": streamed,
    "frozen stream": frozen_stream,
    "frozen stream, bfloat16": frozen_stream_in_bfloat16,
    "ONNX Runtime": onnx_step,
}


def peers_of(kind: str) -> dict[str, Any]:
    """By name, what is compared."""
    return {"live": LIVE_PEERS, "training": TRAINING_PEERS, "bfloat16": BFLOAT16_PEERS}.get(kind, PEERS)
