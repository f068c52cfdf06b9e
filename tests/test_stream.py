"""Streams of layers and of random networks: equal to one run, whatever the settings and the chunks."""

import random

import pytest
import torch
from torch import nn

import tapwise as tw
from streamed import assert_streams

F64 = torch.float64


def random_layer(dice, channels, transposed=None):
    """A convolution of any setting and its output channels."""
    groups = dice.choice([g for g in (1, 1, 2, 3) if channels % g == 0])
    out = groups * dice.randrange(1, 4)
    taps, stride = dice.randrange(1, 18), dice.randrange(1, 6)
    dilation = dice.choice([1, 1, 2, 3, 8])
    transposed = dice.random() < 0.3 if transposed is None else transposed
    bias = dice.random() < 0.7
    if transposed:
        extra = dice.randrange(max(stride, dilation))
        reach = dilation * (taps - 1) + 1
        pad = dice.choice([0, dice.randrange(reach)])
        return nn.ConvTranspose1d(
            channels, out, taps, stride, min(pad, reach // 2), extra, groups, bias, dilation
        ), out  # fmt: skip
    mode = dice.choice(["zeros", "zeros", "reflect", "replicate"])
    reach = dilation * (taps - 1) + 1
    padding = dice.choice(
        [
            "causal",
            "semicausal",
            "valid",
            "same",
            (dice.randrange(9), dice.randrange(9)),
            dice.randrange(9),
        ]
    )
    if padding == "same" and stride > 1:
        padding = (reach // 2, reach // 2)
    return tw.Conv1d(
        channels, out, taps, stride, padding, dilation, groups, bias, padding_mode=mode
    ), out  # fmt: skip


def case(seed):
    dice = random.Random(seed)
    torch.manual_seed(seed)
    channels = dice.randrange(1, 5)
    layer, _ = random_layer(dice, channels)
    layer = layer.double()
    geometry = tw.Geometry.of(layer)
    shortest = max(
        geometry.input_length(1),
        1 + (max(geometry.padding) if geometry.padding_mode == "reflect" else 0),
    )
    length = shortest + dice.randrange(60)
    x = torch.randn(dice.randrange(1, 4), channels, length, dtype=F64)
    assert_streams(layer, x, dice)


@pytest.mark.parametrize("block", range(10))
def test_every_setting_of_a_layer_streams(block):
    for seed in range(40):
        case(1000 * block + seed)


@pytest.mark.fuzz
@pytest.mark.parametrize("block", range(20))
def test_ten_thousand_layers_stream(block):
    for seed in range(500):
        case(100_000 + 500 * block + seed)


class Branches(nn.Module):
    """A random network: layers, activations, skips cut to the shortest, channels side by side."""

    def __init__(self, dice, channels, depth=4):
        super().__init__()
        self.kinds, self.layers = [], nn.ModuleList()
        for _ in range(depth):
            kind = dice.choice(
                ["layer", "skip", "cat", "down-up", "pool", "act", "up", "cut", "mul"]
            )
            layer = nn.Identity()
            if kind == "layer":
                layer, channels = random_layer(dice, channels)
            elif kind == "skip":
                pad = dice.randrange(4)
                layer = nn.Conv1d(channels, channels, 5, padding=pad)
            elif kind == "cat":
                layer = tw.CausalConv1d(channels, 2, dice.randrange(1, 6))
                channels += 2
            elif kind == "mul":
                layer = nn.Conv1d(channels, channels, 4)
            elif kind == "down-up":
                s = dice.randrange(1, 4)
                layer = nn.Sequential(
                    nn.Conv1d(channels, 3, 5, stride=s, padding=4),
                    nn.ConvTranspose1d(3, channels, 2 * s, stride=s),
                )
            elif kind == "pool":
                layer = dice.choice([nn.AvgPool1d, nn.MaxPool1d])(
                    dice.randrange(2, 4), dice.randrange(1, 4), padding=dice.randrange(2)
                )
            elif kind == "up":
                layer = nn.Upsample(scale_factor=dice.randrange(2, 4))
            elif kind == "act":
                layer = dice.choice(
                    [nn.ReLU(inplace=True), nn.ELU(), nn.BatchNorm1d(channels), nn.Tanh()]
                )
            self.kinds.append(kind)
            self.layers.append(layer)

    def forward(self, x):
        for kind, layer in zip(self.kinds, self.layers, strict=True):
            y = layer(x)
            if kind == "skip":
                short = min(x.shape[-1], y.shape[-1])
                y = x[..., :short] + y[..., :short]
            elif kind == "cat":
                y = torch.cat((x, y), 1)
            elif kind == "mul":
                y = torch.sigmoid(y) * x[..., 3:]
            elif kind == "down-up":
                y = y[..., : x.shape[-1]] - x
            elif kind == "cut":
                y = x[..., 1:-2]
            x = y
        return x


def random_network(seed):
    dice = random.Random(seed)
    torch.manual_seed(seed)
    channels = dice.randrange(1, 4)
    model = Branches(dice, channels).double().eval()
    x = torch.randn(1, channels, 150 + dice.randrange(50), dtype=F64)
    try:
        model(x)
        model(x[..., :100])
    except (RuntimeError, ValueError):
        return False  # layers that need longer signals than these
    assert_streams(model, x, dice)
    return True


@pytest.mark.parametrize("block", range(6))
def test_random_networks_stream(block):
    assert sum(random_network(1000 * block + seed) for seed in range(12)) > 3


@pytest.mark.fuzz
@pytest.mark.parametrize("block", range(20))
def test_a_thousand_networks_stream(block):
    assert sum(random_network(50_000 + 100 * block + seed) for seed in range(70)) >= 50
