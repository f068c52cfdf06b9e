"""A small causal denoiser: a filter bank, a temporal convolutional network, a mask, and back.

Plain torch.nn, written without a thought of streaming: `tapwise.stream` runs it live as it stands.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

RATE = 16_000  # samples a second
TAPS, STRIDE = 256, 64  # of the filter bank: frames of 16 ms, one every 4 ms
BANDS = 128


class Block(nn.Module):
    """Depthwise, dilated and causal, between two layers across channels; added to what came in."""

    def __init__(self, width: int, hidden: int, dilation: int) -> None:
        super().__init__()
        self.pad = 2 * dilation
        self.widen = nn.Conv1d(width, hidden, 1)
        self.first = nn.BatchNorm1d(hidden)
        self.depthwise = nn.Conv1d(hidden, hidden, 3, dilation=dilation, groups=hidden)
        self.second = nn.BatchNorm1d(hidden)
        self.narrow = nn.Conv1d(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(F.relu(self.widen(x)))
        y = self.second(F.relu(self.depthwise(F.pad(y, (self.pad, 0)))))
        return x + self.narrow(y)


class Denoiser(nn.Module):
    """Noisy samples in, clean samples out, both (batch, 1, time)."""

    def __init__(self, width: int = 48, hidden: int = 96, blocks: int = 8) -> None:
        super().__init__()
        self.encoder = nn.Conv1d(1, 2 * BANDS, TAPS, stride=STRIDE, bias=False)
        self.enter = nn.Conv1d(BANDS, width, 1)
        self.blocks = nn.Sequential(*(Block(width, hidden, 2**n) for n in range(blocks)))
        self.mask = nn.Conv1d(width, BANDS, 1)
        self.decoder = nn.ConvTranspose1d(2 * BANDS, 1, TAPS, stride=STRIDE, bias=False)
        self._begin_with_fourier()

    def _begin_with_fourier(self) -> None:
        """Cosines and sines under a window, there and back: to learn from, not to keep."""
        time = torch.arange(TAPS)
        turns = 2 * math.pi * (torch.arange(BANDS) + 0.5)[:, None] * time / TAPS
        window = torch.hann_window(TAPS).sqrt()
        waves = torch.cat((turns.cos(), turns.sin()))[:, None] * window
        with torch.no_grad():
            self.encoder.weight.copy_(waves)
            self.decoder.weight.copy_(waves * (2 * STRIDE / TAPS / TAPS * 2))

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[-1]
        # Whole frames: zeros before the first, and up to the last that any sample needs.
        frames = self.encoder(F.pad(x, (TAPS - STRIDE, TAPS - STRIDE + -length % STRIDE)))
        even, odd = frames.chunk(2, dim=1)
        loudness = torch.log(even * even + odd * odd + 1e-3)
        mask = torch.sigmoid(self.mask(self.blocks(self.enter(loudness))) + 2)
        return self.decoder(frames * torch.cat((mask, mask), 1))[..., TAPS - STRIDE :][..., :length]


def denoiser() -> tuple[Denoiser, Tensor]:
    """The model with random weights, and an example of its input."""
    torch.manual_seed(0)
    return Denoiser(), torch.randn(1, 1, RATE // 4)
