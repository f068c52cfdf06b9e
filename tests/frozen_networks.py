"""Small networks for frozen programs, and what they are compared by."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations


class Of(nn.Module):
    """A function as a model."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


def assert_same(model, frozen, *signals):
    with torch.no_grad():
        for x in signals:
            wanted, found = model(x), frozen(x)
            torch.testing.assert_close(found, wanted, rtol=2e-5, atol=2e-5 * (1 + float(wanted.abs().max())))


class Residual(nn.Module):
    def __init__(self, dilation, normed, channels=24):
        super().__init__()
        layer = nn.Conv1d(channels, 2 * channels, 3, padding=dilation, dilation=dilation)
        self.wide = parametrizations.weight_norm(layer) if normed else layer
        self.back = nn.Conv1d(2 * channels, channels, 1)

    def forward(self, x):
        return x + self.back(F.leaky_relu(self.wide(F.leaky_relu(x, 0.1)), 0.1))


def small(normed=True):  # torch pickles no weight_norm
    torch.manual_seed(0)
    layers = [nn.Conv1d(3, 24, 7, 2, 3), Residual(1, normed), Residual(3, normed), nn.ConvTranspose1d(24, 2, 4, 2, 1)]
    return nn.Sequential(*layers).eval()
