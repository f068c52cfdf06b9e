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
from sounds import pair
from torch import Tensor

SECONDS, BATCH = 1.0, 6


def batch_of(seed: int) -> tuple[Tensor, Tensor]:
    """Clean and noisy sounds, (batch, 1, time), the same for the same seed."""
    dice = np.random.default_rng(seed)
    pairs = [pair(dice, SECONDS) for _ in range(BATCH)]
    clean, noisy = (torch.tensor(np.stack(side), dtype=torch.float32)[:, None] for side in zip(*pairs, strict=True))
    return clean, noisy


def loudness(x: Tensor, size: int) -> Tensor:
    """The magnitudes of frames of a sound, compressed as an ear does."""
    window = torch.hann_window(size)
    spectra = torch.stft(x[:, 0], size, size // 4, window=window, return_complex=True)
    return (spectra.abs() + 1e-5) ** 0.4


def loss_of(found: Tensor, clean: Tensor) -> Tensor:
    """Distance of waves and of spectra at two resolutions."""
    spectra = sum((loudness(found, n) - loudness(clean, n)).abs().mean() for n in (256, 1024))
    return 10 * (found - clean).abs().mean() + spectra


def decibels(found: Tensor, clean: Tensor) -> float:
    """Signal to noise, over all of a batch."""
    return float(10 * torch.log10(clean.square().sum() / (found - clean).square().sum()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "denoiser.safetensors")
    options = parser.parse_args()
    model, _ = denoiser()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-4)
    held_out = batch_of(10**9)
    started, step = time.monotonic(), 0
    with ProcessPoolExecutor(1, get_context("spawn")) as makers:
        coming = [makers.submit(batch_of, n) for n in range(4)]
        while (part := (time.monotonic() - started) / (60 * options.minutes)) < 1:
            clean, noisy = coming.pop(0).result()
            coming.append(makers.submit(batch_of, step + 4))
            for group in optimizer.param_groups:  # up at once, then down to nothing
                group["lr"] = 3e-3 * min(1, (step + 1) / 50) * (1 - part) ** 0.7
            optimizer.zero_grad()
            loss = loss_of(model(noisy), clean)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            step += 1
            if step % 50 == 0:
                model.eval()
                with torch.no_grad():
                    better = decibels(model(held_out[1]), held_out[0]) - decibels(held_out[1], held_out[0])
                model.train()
                print(f"step {step}, {part:.0%} of the time: loss {loss.item():.3f}, {better:+.1f} dB", flush=True)
        for future in coming:
            future.cancel()
    save_file(model.state_dict(), options.out)
    size = options.out.stat().st_size
    print(f"wrote {options.out}: {size / 1e3:.0f} kB, {RATE} Hz, after {step} steps")


if __name__ == "__main__":
    main()
