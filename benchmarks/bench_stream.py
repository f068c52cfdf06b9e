"""Streams: the time of a chunk, beside computing its context again, and beside other libraries' streams.

Each subject runs in a process of its own, in turns; the least of the rounds counts, of medians and of
99th percentiles alike.

    python benchmarks/bench_stream.py [--threads 2] [--rounds 3] [--steps 300] [--name NAME]

prints tables and writes results/NAME.json with the machine, the versions and the date.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
Step = Callable[[], Any]


def _model(name: str) -> tuple[Any, Any, int, float]:
    """A model with random weights, an example, samples of a chunk, and the chunk's milliseconds."""
    import torch
    import transformers as hf

    torch.manual_seed(0)
    if name == "encodec encoder":
        from transformers.models.encodec.modeling_encodec import EncodecEncoder

        return EncodecEncoder(hf.EncodecConfig()), torch.randn(1, 1, 4800), 320, 1000 / 75
    if name == "encodec decoder":
        from transformers.models.encodec.modeling_encodec import EncodecDecoder

        return EncodecDecoder(hf.EncodecConfig()), torch.randn(1, 128, 24), 1, 1000 / 75
    if name == "hifigan":
        model = hf.SpeechT5HifiGan(hf.SpeechT5HifiGanConfig())
        return model, torch.randn(1, 24, 80), 1, 16.0
    if name == "denoiser":
        sys.path.insert(0, str(HERE.parent / "examples" / "denoise"))
        from model import denoiser
        from safetensors.torch import load_file

        model, example = denoiser()
        model.load_state_dict(load_file(HERE.parent / "examples/denoise/denoiser.safetensors"))
        return model, example, 160, 10.0
    if name == "reverb":
        from tapwise import Conv1d

        taps = torch.randn(48_000) * torch.exp(-torch.arange(48_000) / 8000)
        return Conv1d.from_taps(taps), torch.randn(1, 1, 50_000), 240, 10.0
    raise ValueError(name)


def _stack() -> Any:
    """Ten causal layers of 64 channels, dilations 1 to 512, for all libraries."""
    from torch import nn

    parts: list[Any] = []
    for n in range(10):
        parts += [nn.ConstantPad1d((2 * 2**n, 0), 0.0), nn.Conv1d(64, 64, 3, dilation=2**n), nn.ReLU()]
    return nn.Sequential(*parts).eval()


def ours(name: str) -> tuple[Step, dict[str, Any]]:
    import tapwise as tw

    model, example, chunk, ms = _model(name)
    live = tw.stream(model.eval(), example)
    x = _chunk_like(example, live.graph.nodes[0].size.time, chunk)
    nodes = live.graph.nodes
    facts = {"operations": len(nodes) - 1, "delay": live.delay, "chunk_ms": ms}
    return lambda: live.step(x), facts


def recomputed(name: str) -> tuple[Step, dict[str, Any]]:
    """The last second before the chunk, or what the receptive field asks for, once more with each chunk."""
    import torch

    import tapwise as tw
    from tapwise.network.receptive_field import receptive_field_of

    model, example, chunk, ms = _model(name)
    live = tw.stream(model.eval(), example)
    reach = receptive_field_of(live.graph)
    second = int(chunk * 1000 / ms)
    context = second if reach.first is None else min(reach.last - reach.first + 1, 4 * second)
    x = _chunk_like(example, live.graph.nodes[0].size.time, context + chunk)

    def step() -> Any:
        with torch.no_grad():
            return model(x)

    return step, {"context": context}


def bare(name: str) -> tuple[Step, dict[str, Any]]:
    """What the operations of one step compute, and nothing around it: the kernels alone."""
    import torch

    import tapwise as tw
    from tapwise.network.operations import Convolve, Recur

    model, example, chunk, _ = _model(name)
    live = tw.stream(model.eval(), example)
    engine, nodes = live._scheduler, live.graph.nodes
    x = _chunk_like(example, nodes[0].size.time, chunk)
    for _ in range(200):
        live.step(x)
    given = {0: x}
    engine.watch = given.__setitem__
    live.step(x)
    engine.watch = None
    calls: list[Step] = []
    for number, node in enumerate(nodes[1:], 1):
        inputs, work, many = [given[n] for n in node.inputs], node.work, given[number].shape[-1]
        if isinstance(work, Convolve) and many:
            g = node.timeline.geometry  # type: ignore[attr-defined]
            w, b, settings = work.weight, work.bias, (g.stride, 0)
            if g.transposed:
                calls.append(
                    lambda x=inputs[0], w=w, b=b, s=settings, g=g: torch.conv_transpose1d(
                        x, w, b, *s, 0, g.groups, g.dilation
                    )
                )
            else:
                span = (many - 1) * g.stride + g.effective_kernel_size
                known = torch.randn(*inputs[0].shape[:-1], span)
                calls.append(lambda x=known, w=w, b=b, s=settings, g=g: torch.conv1d(x, w, b, *s, g.dilation, g.groups))
        elif isinstance(work, Recur) and inputs[0].numel():
            held = work.start(1)
            calls.append(lambda work=work, x=inputs[0], held=held: work(x, held))
        elif callable(work) and len(inputs) == 1 and inputs[0].numel():
            calls.append(lambda work=work, inputs=inputs: work(inputs))

    def step() -> None:
        with torch.no_grad():
            for call in calls:
                call()

    return step, {"kernels": len(calls)}


def _chunk_like(example: Any, axis: int, count: int) -> Any:
    import torch

    size = list(example.shape)
    size[axis] = count
    return torch.randn(size)


def stack_tapwise(name: str) -> tuple[Step, dict[str, Any]]:
    import torch

    import tapwise as tw

    live = tw.stream(_stack(), torch.randn(1, 64, 100))
    x = torch.randn(1, 64, 16)
    return lambda: live.step(x), {}


def stack_cached_conv(name: str) -> tuple[Step, dict[str, Any]]:
    import cached_conv as cc
    import torch
    from torch import nn

    cc.use_cached_conv(True)
    parts: list[Any] = []
    for n in range(10):
        pad = cc.get_padding(3, 1, 2**n, mode="causal")
        parts += [cc.Conv1d(64, 64, 3, dilation=2**n, padding=pad), nn.ReLU()]
    model, x = cc.CachedSequential(*parts).eval(), torch.randn(1, 64, 16)

    def step() -> Any:
        with torch.no_grad():
            return model(x)

    return step, {}


def tcn_tapwise(name: str) -> tuple[Step, dict[str, Any]]:
    import torch

    import tapwise as tw

    live = tw.stream(_tcn(), torch.randn(1, 64, 100))
    x = torch.randn(1, 64, 16)
    return lambda: live.step(x), {}


def tcn_itself(name: str) -> tuple[Step, dict[str, Any]]:
    import torch

    model, x = _tcn(), torch.randn(1, 64, 16)

    def step() -> Any:
        with torch.no_grad():
            return model(x, inference=True)

    return step, {}


def _tcn() -> Any:
    from pytorch_tcn import TCN

    return TCN(64, [64] * 6, kernel_size=3, use_norm=None, dropout=0.0).eval()


MODELS = ("encodec encoder", "encodec decoder", "hifigan", "denoiser", "reverb")
KINDS = {"ours": ours, "recomputed": recomputed, "bare": bare}
PEERS = {
    "stack": {"tapwise": stack_tapwise, "cached_conv": stack_cached_conv},
    "pytorch-tcn's TCN": {"tapwise": tcn_tapwise, "pytorch-tcn": tcn_itself},
}


def measure(step: Step, steps: int) -> dict[str, float]:
    """Seconds of a step: the median and the 99th percentile."""
    import numpy as np

    for _ in range(min(40, steps)):
        step()
    spent = []
    began = time.perf_counter()
    while len(spent) < steps and (time.perf_counter() - began < 15 or len(spent) < 20):
        started = time.perf_counter()
        step()
        spent.append(time.perf_counter() - started)
    return {"median": float(np.median(spent)), "p99": float(np.quantile(spent, 0.99))}


def child(group: str, subject: str, threads: int, steps: int) -> None:
    import torch

    torch.set_num_threads(threads)
    make = KINDS[subject] if group in MODELS else PEERS[group][subject]
    step, facts = make(group)
    print(json.dumps({**measure(step, steps), **facts}))


def turn(group: str, subject: str, options: argparse.Namespace) -> dict[str, Any] | None:
    command = [
        sys.executable,
        __file__,
        "--child",
        group,
        subject,
        "--threads",
        str(options.threads),
        "--steps",
        str(options.steps),
    ]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        print(f"{group}, {subject}: {found.stderr.strip().splitlines()[-1][:160]}", file=sys.stderr)
        return None
    return json.loads(found.stdout.strip().splitlines()[-1])  # type: ignore[no-any-return]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--name", default="", help="of the result file; none is written without")
    parser.add_argument("--only", nargs="*", default=[], help="models; the file's other rows stay")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child, options.threads, options.steps)
        return
    groups = {**{name: list(KINDS) for name in MODELS}, **{g: list(p) for g, p in PEERS.items()}}
    rows = []
    print(f"{'model':<20}{'subject':<14}{'median ms':>10}{'p99 ms':>9}{'ratio':>8}")
    for group, subjects in groups.items():
        if options.only and group not in options.only:
            continue
        best: dict[str, dict[str, Any]] = {}
        for _ in range(options.rounds):
            for subject in subjects:
                found = turn(group, subject, options)
                if found is not None:
                    known = best.setdefault(subject, found)
                    known |= {k: min(known[k], found[k]) for k in ("median", "p99")}
        first = subjects[0]
        for subject in subjects:
            if subject not in best:
                continue
            facts = best[subject]
            ratio = facts["median"] / best[first]["median"]
            if subject == "bare":  # what the stream adds to its kernels, for each operation
                ours_ = best[first]
                facts["overhead_us"] = 1e6 * (ours_["median"] - facts["median"]) / ours_["operations"]
            rows.append({"model": group, "subject": subject, "ratio": ratio, **facts})
            print(
                f"{group:<20}{subject:<14}{1e3 * facts['median']:>10.3f}{1e3 * facts['p99']:>9.3f}{ratio:>8.2f}",
                flush=True,
            )
    if options.name:
        from bench_conv1d import machine

        result = {"machine": machine(), "threads": options.threads, "rows": rows}
        path = HERE / "results" / f"{options.name}.json"
        if options.only and path.exists():
            known = json.loads(path.read_text())["rows"]
            rows += [row for row in known if row["model"] not in options.only]
            rows.sort(key=lambda row: list(groups).index(row["model"]))
        path.write_text(json.dumps(result, indent=1) + "\n")
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
