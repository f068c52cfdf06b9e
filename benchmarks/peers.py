"""The peers of the benchmark: each makes, for one row of shapes, the calls that its user would write.

A peer runs in a process of its own: ``python benchmarks/peers.py NAME THREADS`` reads rows as JSON, one a
line, and answers with seconds.
"""

from __future__ import annotations

import io
import json
import math
import sys
import time
from collections.abc import Callable
from typing import Any

Call = Callable[[], Any]
# What a convolution takes from one row: input, weight, bias and grad as tensors, settings as integers.
Row = dict[str, Any]


def torch_calls(row: Row) -> list[Call]:
    """What a torch user would write; where the sides differ, pad first, or pad both and crop."""
    import torch.nn.functional as F
    from torch import nn

    x, left, right = row["x"], row["left"], row["right"]
    s, d = row["stride"], row["dilation"]
    if left == right:
        layer = _layer(nn.Conv1d, row, left)
        return [lambda: layer(x)]
    plain = _layer(nn.Conv1d, row, 0)
    calls = [lambda: plain(F.pad(x, (left, right)))]
    if right == 0 and s == 1:
        n, both = x.shape[-1] + left - d * (row["K"] - 1), _layer(nn.Conv1d, row, left)
        calls.append(lambda: both(x)[..., :n])
    return calls


def tapwise_calls(row: Row) -> list[Call]:
    """Ours."""
    import tapwise as tw

    x, left, right = row["x"], row["left"], row["right"]
    layer = _layer(tw.Conv1d, row, left if left == right else (left, right))
    if row.get("tuned") and not row["w"].requires_grad:
        tw.tune(layer, x, row["backward"], save=False)
    return [lambda: layer(x)]


def _layer(kind: Any, row: Row, padding: Any) -> Any:
    """A layer of the row's weight and bias."""
    layer = kind(row["Cin"], row["Cout"], row["K"], row["stride"], padding, row["dilation"], row["groups"])
    layer.weight, layer.bias = row["w"], row["b"]
    return layer


def overheads() -> dict[str, float]:
    """Microseconds of the tutorial's ten samples: our layer and function beside torch's, in turns."""
    import torch
    from torch import nn

    import tapwise as tw

    x, w, b = torch.randn(1, 1, 10), torch.randn(1, 1, 3), torch.randn(1)
    theirs, ours = nn.Conv1d(1, 1, 3), tw.Conv1d(1, 1, 3)
    calls: dict[str, Call] = {
        "nn.Conv1d": lambda: theirs(x),
        "tw.Conv1d": lambda: ours(x),
        "F.conv1d": lambda: nn.functional.conv1d(x, w, b),
        "tw.conv1d": lambda: tw.conv1d(x, w, b),
    }

    def thousand(call: Call) -> None:
        for _ in range(1000):
            call()

    least = dict.fromkeys(calls, math.inf)
    with torch.no_grad():
        for _ in range(10):
            for name, call in calls.items():
                least[name] = min(least[name], best(lambda c=call: thousand(c), 0.05) * 1e3)
    return least


def tapwise32_calls(row: Row) -> list[Call]:
    import tapwise as tw

    (inner,) = tapwise_calls(row)

    def call() -> Any:
        with tw.options(exact=False):
            return inner()

    return [call]


def onnxruntime_calls(row: Row) -> list[Call]:
    """A graph of one Conv with its pads, weights baked in, as an exported model holds them."""
    import onnx
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper

    x, w, b = (row[name].detach().numpy() for name in "xwb")
    node = helper.make_node(
        "Conv",
        ["x", "w", "b"],
        ["y"],
        strides=[row["stride"]],
        dilations=[row["dilation"]],
        group=row["groups"],
        pads=[row["left"], row["right"]],
        kernel_shape=[w.shape[-1]],
    )
    graph = helper.make_graph(
        [node],
        "conv",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(w, "w"), numpy_helper.from_array(b, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 10
    options = ort.SessionOptions()
    options.intra_op_num_threads = row["threads"]
    buffer = io.BytesIO()
    onnx.save(model, buffer)
    session = ort.InferenceSession(buffer.getvalue(), options, providers=["CPUExecutionProvider"])
    return [lambda: session.run(None, {"x": x})[0]]


def scipy_calls(row: Row) -> list[Call]:
    """oaconvolve, channel by channel: what SciPy has for depthwise filters of stride 1."""
    import numpy as np
    from scipy.signal import oaconvolve

    w = row["w"].detach().numpy()
    if row["stride"] > 1 or row["dilation"] > 1 or w.shape[1] > 1 or w.shape[0] != row["groups"]:
        return []
    x, b = row["x"].detach().numpy(), row["b"].detach().numpy()[:, None]
    turned = np.ascontiguousarray(w[None, :, 0, ::-1])
    start, n = w.shape[-1] - 1 - row["left"], row["outputs"]
    return [lambda: oaconvolve(x, turned, axes=-1)[..., start : start + n] + b]


def julius_calls(row: Row) -> list[Call]:
    """julius.fft_conv1d, which knows no groups: a row of its own for each channel."""
    import torch.nn.functional as F
    from julius import fft_conv1d

    if row["dilation"] > 1 or row["groups"] > 1 or row["K"] < 8:
        return []
    x, w, b = row["x"], row["w"], row["b"]
    pads = (row["left"], row["right"])
    return [lambda: fft_conv1d(F.pad(x, pads), w, b, stride=row["stride"])]


def fftconv_calls(row: Row) -> list[Call]:
    """fft_conv_pytorch."""
    import torch.nn.functional as F
    from fft_conv_pytorch import fft_conv

    if row["K"] < 8 or row["Cin"] * row["Cout"] // row["groups"] * row["L"] > 3e8:
        return []
    x, w, b, pads = row["x"], row["w"], row["b"], (row["left"], row["right"])
    return [
        lambda: fft_conv(F.pad(x, pads), w, b, stride=row["stride"], dilation=row["dilation"], groups=row["groups"])
    ]


PEERS: dict[str, Callable[[Row], list[Call]]] = {
    "torch": torch_calls,
    "tapwise": tapwise_calls,
    "torch again": torch_calls,
    "tapwise float32": tapwise32_calls,
    "onnxruntime": onnxruntime_calls,
    "scipy": scipy_calls,
    "julius": julius_calls,
    "fft-conv-pytorch": fftconv_calls,
}
TRAINS = ("torch", "tapwise", "torch again")


def floor(row: Row, seconds: float) -> dict[str, float]:
    """Seconds that no sum of products can pass: the copy of its bytes, and a product of matrices."""
    import torch

    bytes_moved = 4 * (row["x"].numel() + row["w"].numel() + row["B"] * row["Cout"] * row["outputs"])
    source = torch.ones(max(bytes_moved // 8, 1))
    target = torch.empty_like(source)
    copying = best(lambda: target.copy_(source), seconds)
    a, b = torch.ones(1024, 1024), torch.ones(1024, 1024)
    c = torch.empty(1024, 1024)
    rate = 2 * 1024**3 / best(lambda: torch.mm(a, b, out=c), seconds)
    flops = 2 * row["B"] * row["outputs"] * row["w"].numel()
    return {"bytes": copying, "products": flops / rate}


def best(call: Call, seconds: float) -> float:
    """The shortest of many calls; of one where it is long."""
    started = time.perf_counter()
    call()
    first = time.perf_counter() - started
    if first > 4:
        return first
    least, until, runs = math.inf, time.perf_counter() + seconds, 0
    # What takes more than a second is long enough to be run once.
    while runs == 0 or (runs == 1 and least < 1) or time.perf_counter() < until:
        started = time.perf_counter()
        call()
        least = min(least, time.perf_counter() - started)
        runs += 1
    return least


def answer(peer: str, row: Row) -> dict[str, Any]:
    """Seconds of a row forward, and forward with backward where asked for, and what came out."""
    import torch

    torch.manual_seed(0)
    fan_in = row["Cin"] // row["groups"]
    reach = row["dilation"] * (row["K"] - 1) + 1
    row["outputs"] = (row["L"] + row["left"] + row["right"] - reach) // row["stride"] + 1
    dtype = getattr(torch, row.get("dtype", "float32"))
    row["x"] = torch.randn(row["B"], row["Cin"], row["L"]).to(dtype)
    weight = torch.randn(row["Cout"], fan_in, row["K"]) / math.sqrt(fan_in * row["K"])
    row["w"] = torch.nn.Parameter(weight.to(dtype), requires_grad=False)
    row["b"] = torch.nn.Parameter(torch.randn(row["Cout"]).to(dtype), requires_grad=False)
    if peer == "floor":
        return floor(row, row["seconds"])
    found: dict[str, Any] = {}
    with torch.no_grad():
        calls = PEERS[peer](row)
        if not calls:
            return found
        if "tapwise" in peer:
            calls[0]()  # the first call ever compiles
        started = time.perf_counter()
        result = torch.as_tensor(calls[0]())
        first = time.perf_counter() - started
        places = torch.arange(4096) * (result.numel() - 1) // 4095
        found["sample"] = result.reshape(-1)[places].double().tolist()
        slow = first > 3  # then one call has to do
        found["forward"] = first if slow else min(best(call, row["seconds"]) for call in calls)
        if peer == "tapwise":
            found |= _plan(row)
    # Where torch takes seconds forward, it takes a minute with backward: left out.
    if row["backward"] and peer in TRAINS and found["forward"] < 2:
        for name in "xwb":
            row[name].requires_grad_()
        grad = torch.randn_like(calls[0]())
        leaves = [row[name] for name in "xwb"]

        def train(call: Call) -> None:
            torch.autograd.grad(call(), leaves, grad)

        found["both"] = min(best(lambda c=call: train(c), row["seconds"]) for call in PEERS[peer](row))
    return found


def _plan(row: Row) -> dict[str, Any]:
    from tapwise.engine.plan import choose, choose_training
    from tapwise.engine.problem import Problem

    padding = (row["left"], row["right"])
    names = ("x", "w", "b", "stride")
    problem = Problem.of(*(row[n] for n in names), padding, row["dilation"], row["groups"])
    plan = choose(problem)
    seconds = math.nan if plan.seconds is None else plan.seconds * row["B"]
    return {"kernel": plan.kernel, "training": list(choose_training(problem)), "predicted": seconds}


def main() -> None:
    peer, threads = sys.argv[1], int(sys.argv[2])
    import torch

    torch.set_num_threads(threads)
    # The C library gives freed memory back to the system until a large block was freed once; each call's
    # pages are then made anew, in some processes and not in others. Here they are kept, as in a process
    # that has worked for a while.
    torch.empty(8_000_000).fill_(1.0)
    for line in sys.stdin:
        row = {**json.loads(line), "threads": threads}
        try:
            print(json.dumps(answer(peer, row)), flush=True)
        except Exception as error:  # a peer that can't do a row is left out of it
            print(json.dumps({"error": f"{type(error).__name__}: {error}"[:200]}), flush=True)


if __name__ == "__main__":
    main()
