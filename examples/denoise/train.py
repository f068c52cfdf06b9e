"""Train the denoiser on sounds that it makes itself, and write its weights.

python examples/denoise/train.py [--minutes 10] [--out examples/denoise/denoiser.safetensors]
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from model import RATE, denoiser
from safetensors.torch import save_file
from sounds import noise, speech_like
from torch import Tensor

SOUNDS, LONG = 160, 6.0  # recordings of each kind, and their seconds
SECONDS, BATCH = 1.5, 8


def recordings(kind: str, seed: int) -> np.ndarray:
    """Recordings of one kind, (count, time), the same for the same seed."""
    dice = np.random.default_rng(seed)
    make = speech_like if kind == "speech" else noise
    return np.stack([make(dice, LONG).astype(np.float32) for _ in range(SOUNDS // 4)])


def batch_of(dice: np.random.Generator, clean: np.ndarray, other: np.ndarray) -> tuple[Tensor, Tensor]:
    """Clean and noisy cuts, (batch, 1, time), the noise from 0 to 15 dB below."""
    count = int(SECONDS * RATE)

    def cut(sounds: np.ndarray) -> np.ndarray:
        start = dice.integers(0, sounds.shape[1] - count)
        return sounds[dice.integers(len(sounds)), start : start + count]

    signals, sums = [], []
    for _ in range(BATCH):
        signal = cut(clean) * dice.uniform(0.3, 1.2)
        level = max(float(signal.std()), 0.01) / 10 ** (dice.uniform(0, 15) / 20)
        signals.append(signal)
        sums.append(signal + level * cut(other))
    return tuple(torch.from_numpy(np.stack(s))[:, None].float() for s in (signals, sums))  # type: ignore[return-value]


def decibels(found: Tensor, clean: Tensor) -> Tensor:
    """Signal to noise of each of a batch."""
    wrong = (found - clean).square().sum((1, 2)) + 1e-4
    return 10 * torch.log10((clean.square().sum((1, 2)) + 1e-4) / wrong)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "denoiser.safetensors")
    options = parser.parse_args()
    started = time.monotonic()
    jobs = [(kind, seed) for kind in ("speech", "noise") for seed in range(4)]
    with ProcessPoolExecutor(2, get_context("spawn")) as makers:
        made = list(makers.map(recordings, *zip(*jobs, strict=True)))
    clean, other = np.concatenate(made[:4]), np.concatenate(made[4:])
    print(f"{2 * SOUNDS} recordings made in {time.monotonic() - started:.0f} s", flush=True)
    held_out = batch_of(np.random.default_rng(1), clean[:8], other[:8])
    clean, other, dice = clean[8:], other[8:], np.random.default_rng(2)
    model, _ = denoiser()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-4)
    step = 0
    while (part := (time.monotonic() - started) / (60 * options.minutes)) < 1:
        for group in optimizer.param_groups:  # up at once, then down to nothing
            group["lr"] = 2e-3 * min(1, (step + 1) / 50) * (1 - part) ** 0.7
        signal, noisy = batch_of(dice, clean, other)
        optimizer.zero_grad()
        loss = -decibels(model(noisy), signal).clamp(max=30).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        step += 1
        if step % 100 == 0:
            model.eval()
            with torch.no_grad():
                better = decibels(model(held_out[1]), held_out[0]) - decibels(held_out[1], held_out[0])
            model.train()
            print(f"step {step}, {part:.0%} of the time: {better.mean():+.1f} dB on sounds never heard", flush=True)
    save_file(model.state_dict(), options.out)
    size = options.out.stat().st_size
    print(f"wrote {options.out}: {size / 1e3:.0f} kB, {RATE} Hz, after {step} steps")


if __name__ == "__main__":
    main()
