"""A small causal denoiser: a learned filter bank, a temporal convolutional network, a mask.

Plain torch.nn, written without a thought of streaming: `tapwise.stream` runs it live as it stands.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

RATE = 16_000  # samples a second
STRIDE, TAPS = 16, 64  # of the filter bank: a frame each millisecond


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

    def __init__(self, bank: int = 96, width: int = 48, hidden: int = 96, blocks: int = 9) -> None:
        super().__init__()
        self.encoder = nn.Conv1d(1, bank, TAPS, stride=STRIDE, bias=False)
        self.enter = nn.Conv1d(bank, width, 1)
        self.blocks = nn.Sequential(*(Block(width, hidden, 2**n) for n in range(blocks)))
        self.mask = nn.Conv1d(width, bank, 1)
        self.decoder = nn.ConvTranspose1d(bank, 1, TAPS, stride=STRIDE, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[-1]
        # Whole frames: zeros before the first, and up to a whole frame after the last.
        padded = F.pad(x, (TAPS - STRIDE, -length % STRIDE))
        bank = F.relu(self.encoder(padded))
        mask = torch.sigmoid(self.mask(self.blocks(self.enter(torch.log(bank + 1e-2)))))
        return self.decoder(bank * mask)[..., TAPS - STRIDE : TAPS - STRIDE + length]


def denoiser() -> tuple[Denoiser, Tensor]:
    """The model with random weights, and an example of its input."""
    torch.manual_seed(0)
    return Denoiser(), torch.randn(1, 1, RATE // 4)
