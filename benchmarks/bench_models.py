"""Whole networks of transformers with random weights, as they are and after ``tapwise.accelerate``.

Both run in processes of their own, in turns; the minimum of all counts. For Mamba, whose convolution
is a call of causal_conv1d and no layer's, ``tapwise.compat.causal_conv1d.install()`` is done too.

    python benchmarks/bench_models.py [--threads 2] [--rounds 3] [--name NAME] [--only MODEL ...]

prints a table and writes results/NAME.json with the machine, the versions and the date.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
Call = Callable[[], Any]


def wav2vec2() -> tuple[Any, Call]:
    """4 seconds of sound at 16 kHz, to features."""
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    model = Wav2Vec2Model(Wav2Vec2Config())
    x = torch.randn(1, 64_000)
    return model, lambda: model(x).last_hidden_state


def wav2vec2_features() -> tuple[Any, Call]:
    """Its convolutions alone."""
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    model = Wav2Vec2Model(Wav2Vec2Config()).feature_extractor
    x = torch.randn(1, 64_000)
    return model, lambda: model(x)


def hifigan() -> tuple[Any, Call]:
    """SpeechT5's vocoder: 100 frames to 25,600 samples."""
    import torch
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

    model = SpeechT5HifiGan(SpeechT5HifiGanConfig())
    x = torch.randn(100, 80)
    return model, lambda: model(x)


def mamba() -> tuple[Any, Call]:
    """512 tokens, 4 layers."""
    import torch
    from transformers import MambaConfig, MambaModel

    model = MambaModel(MambaConfig(num_hidden_layers=4, vocab_size=1000))
    x = torch.randint(0, 1000, (1, 512))
    return model, lambda: model(x, use_cache=False).last_hidden_state


def encodec() -> tuple[Any, Call]:
    """1 second at 24 kHz, to codes and back."""
    import torch
    from transformers import EncodecConfig, EncodecModel

    model = EncodecModel(EncodecConfig())
    x = torch.randn(1, 1, 24_000)
    return model, lambda: model(x).audio_values


MODELS = {
    "wav2vec2": wav2vec2,
    "wav2vec2 features": wav2vec2_features,
    "SpeechT5HifiGan": hifigan,
    "Mamba": mamba,
    "EnCodec": encodec,
}


def work(name: str, accelerated: bool, threads: int) -> None:
    """Answer every line of the input with the seconds of a run; first, with what came out."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model, call = MODELS[name]()
    model.eval()
    changed = 0
    if accelerated:
        import tapwise as tw
        from tapwise.compat import causal_conv1d

        changed = len(tw.accelerate(model).changed)
        if name == "Mamba":
            causal_conv1d.install()
    with torch.no_grad():
        y = call().double().reshape(-1)
        call()
        places = torch.arange(4096) * (y.numel() - 1) // 4095
        print(json.dumps({"changed": changed, "sample": y[places].tolist()}), flush=True)
        for _ in sys.stdin:
            started = time.perf_counter()
            call()
            print(json.dumps(time.perf_counter() - started), flush=True)


def compare(name: str, threads: int, rounds: int) -> dict[str, Any]:
    """Both, in turns; their outputs compared first."""
    arguments = [sys.executable, __file__, "--threads", str(threads), "--work", name]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    workers: list[Any] = [
        subprocess.Popen([*arguments, *more], text=True, **pipes)  # type: ignore[call-overload]
        for more in ([], [], ["--accelerated"])
    ]
    theirs, _, ours = (json.loads(worker.stdout.readline()) for worker in workers)
    difference = max(abs(a - b) for a, b in zip(theirs["sample"], ours["sample"], strict=True))
    scale = max(map(abs, theirs["sample"]))
    assert difference <= 1e-3 * scale, f"{name}: outputs differ by {difference}, of {scale}"
    best = [math.inf] * 3
    for _ in range(rounds):
        for number, worker in enumerate(workers):
            for _ in range(3):
                print(file=worker.stdin, flush=True)
                best[number] = min(best[number], json.loads(worker.stdout.readline()))
    for worker in workers:
        worker.stdin.close()
        worker.wait()
    before, again, after = (seconds * 1e3 for seconds in best)
    return {
        "name": name,
        "layers": ours["changed"],
        "before_ms": before,
        "after_ms": after,
        "ratio": before / after,
        "spread": max(before, again) / min(before, again),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[], help="names of models")
    parser.add_argument("--name", default="", help="of the result file; none is written without")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--accelerated", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work, options.accelerated, options.threads)
        return
    print(f"{'model':<20}{'layers':>7}{'before ms':>12}{'after ms':>12}{'ratio':>8}{'spread':>8}")
    rows = []
    for name in options.only or MODELS:
        rows.append(row := compare(name, options.threads, options.rounds))
        print(
            f"{row['name']:<20}{row['layers']:>7}{row['before_ms']:>12.1f}{row['after_ms']:>12.1f}"
            f"{row['ratio']:>8.2f}{row['spread']:>8.2f}",
            flush=True,
        )
    if options.name:
        from bench_conv1d import machine

        result = {"machine": machine(), "threads": options.threads, "rows": rows}
        path = HERE / "results" / f"{options.name}.json"
        path.write_text(json.dumps(result, indent=1) + "\n")
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
