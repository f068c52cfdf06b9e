"""One layer and one signal in float64, of which tests make small models."""

import torch
from torch import nn

F64 = torch.float64


def conv(taps=3, fan_in=4, fan_out=4, **settings):
    return nn.Conv1d(fan_in, fan_out, taps, **settings).double()


def signal(*size):
    return torch.randn(*size, dtype=F64, generator=torch.Generator().manual_seed(0))


X = signal(1, 4, 64)
