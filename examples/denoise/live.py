"""The denoiser live: in chunks of 10 ms by `tapwise.stream`, and, to compare, each chunk by itself.

    python examples/denoise/live.py [FOLDER]

writes noisy.wav, streamed.wav, naive.wav (with its seams) and denoise.svg.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import soundfile
import torch
from model import RATE, denoiser
from picture import picture
from safetensors.torch import load_file
from sounds import noise, speech_like

import tapwise as tw

HERE = Path(__file__).parent
CHUNK = RATE // 100  # 10 ms
SECONDS = 4.0


def main(folder: Path) -> None:
    dice = np.random.default_rng(2024)  # neither voice nor noise was in the training
    clean = speech_like(dice, SECONDS)
    noisy = clean + noise(dice, SECONDS) * clean.std() / 10 ** (5 / 20)
    x = torch.tensor(noisy, dtype=torch.float32)[None, None]

    model, example = denoiser()
    model.load_state_dict(load_file(HERE / "denoiser.safetensors"))
    model.eval()
    with torch.no_grad():
        offline = model(x)
        naive = torch.cat([model(chunk) for chunk in x.split(CHUNK, -1)], -1)
    live = tw.stream(model, example)
    parts, spent = [], []
    for chunk in x.split(CHUNK, -1):
        started = time.perf_counter()
        parts.append(live.step(chunk))
        spent.append(time.perf_counter() - started)
    kept = live.state_bytes
    streamed = torch.cat([*parts, live.flush()], -1)

    sounds = {"noisy": x, "streamed": streamed, "naive": naive}
    for name, sound in sounds.items():
        soundfile.write(folder / f"{name}.wav", sound[0, 0].numpy(), RATE, subtype="PCM_16")
    rows = {name: sound[0, 0].numpy() for name, sound in sounds.items()}
    (folder / "denoise.svg").write_text(picture(clean, rows, offline[0, 0].numpy(), RATE, CHUNK), encoding="utf-8")
    reference = torch.tensor(clean, dtype=torch.float32)

    def decibels(found: torch.Tensor) -> float:
        wrong = (found[0, 0] - reference).square().sum()
        return float(10 * torch.log10(reference.square().sum() / wrong))

    print(
        f"signal to noise: {decibels(x):.1f} dB before, {decibels(streamed):.1f} dB streamed, "
        f"{decibels(naive):.1f} dB by naive chunks"
    )
    print(
        f"streamed against offline: {float((streamed - offline).abs().max()):.1e} apart at most; "
        f"naive chunks: {float((naive - offline).abs().max()):.1e}"
    )
    print(
        f"a chunk of 10 ms takes {1e3 * np.median(spent):.2f} ms (99% of them at most "
        f"{1e3 * np.quantile(spent, 0.99):.2f} ms); look-ahead {1e3 * live.delay / RATE:.0f} ms; "
        f"{kept:,} bytes kept"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path())
