"""Helpers: a signal cut in chunks, and a stream held against one run of its model."""

import torch
from torch import nn

import tapwise as tw


def chunks_of(dice, length):
    """A random way to cut a signal: lengths, 0 and 1 among them."""
    sizes = []
    while sum(sizes) < length:
        size = dice.choice([0, 1, 1, 2, 3, dice.randrange(1, 9), dice.randrange(1, length + 1)])
        sizes.append(min(size, length - sum(sizes)))
    return sizes or [0]


def streamed(live, x, sizes, time=-1):
    parts = [live.step(chunk) for chunk in x.split(sizes, time)]
    return [*parts, live.flush()]


def assert_streams(model, x, dice, live=None, bound=1e-12):
    """The stream's outputs together are the model's, and come when its timeline says."""
    live = tw.stream(model, x) if live is None else live
    offline = model(x)
    sizes = chunks_of(dice, x.shape[-1])
    seen, came = 0, 0
    graph = live.graph
    result = graph.results[0]
    parts = []
    for chunk in x.split(sizes, -1):
        parts.append(live.step(chunk))
        seen, came = seen + chunk.shape[-1], came + parts[-1].shape[-1]
        assert came == graph.counts(seen)[result][0]
    parts.append(live.flush())
    y = torch.cat(parts, -1)
    assert y.shape == offline.shape, (y.shape, offline.shape)
    scale = 1 + offline.abs().max().item() if offline.numel() else 1
    assert (y - offline).abs().max() <= bound * scale if offline.numel() else True
    return live


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
        return nn.ConvTranspose1d(channels, out, taps, stride, min(pad, reach // 2), extra, groups, bias, dilation), out
    mode = dice.choice(["zeros", "zeros", "reflect", "replicate"])
    reach = dilation * (taps - 1) + 1
    padding = dice.choice(
        ["causal", "semicausal", "valid", "same", (dice.randrange(9), dice.randrange(9)), dice.randrange(9)]
    )
    if padding == "same" and stride > 1:
        padding = (reach // 2, reach // 2)
    return tw.Conv1d(channels, out, taps, stride, padding, dilation, groups, bias, padding_mode=mode), out


class Branches(nn.Module):
    """A random network: layers, activations, skips cut to the shortest, channels side by side."""

    def __init__(self, dice, channels, depth=4):
        super().__init__()
        self.kinds, self.layers = [], nn.ModuleList()
        for _ in range(depth):
            kind = dice.choice(["layer", "skip", "cat", "down-up", "pool", "act", "up", "cut", "mul"])
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
                    nn.Conv1d(channels, 3, 5, stride=s, padding=4), nn.ConvTranspose1d(3, channels, 2 * s, stride=s)
                )
            elif kind == "pool":
                layer = dice.choice([nn.AvgPool1d, nn.MaxPool1d])(
                    dice.randrange(2, 4), dice.randrange(1, 4), padding=dice.randrange(2)
                )
            elif kind == "up":
                layer = nn.Upsample(scale_factor=dice.randrange(2, 4))
            elif kind == "act":
                layer = dice.choice([nn.ReLU(inplace=True), nn.ELU(), nn.BatchNorm1d(channels), nn.Tanh()])
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
