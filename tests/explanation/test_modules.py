"""Modules around one convolution, as tutorials write them, and pooling: their windows, steps and figures."""

import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import tapwise as tw


class Causal(nn.Module):
    """The tutorial's: pads on both sides, and drops what would see the future."""

    def __init__(self, k=3, dilation=1, channels=1, stride=1):
        super().__init__()
        self.padding = (k - 1) * dilation
        self.conv1d = nn.Conv1d(channels, channels, k, stride, self.padding, dilation)

    def forward(self, x):
        y = self.conv1d(x)
        return y[:, :, : -self.padding] if self.padding else y


class Around(nn.Module):
    """Pads by ``pads`` before its layer, and keeps a slice of what it gives."""

    def __init__(self, layer, pads=(0, 0), mode="constant", kept=slice(None)):
        super().__init__()
        self.layer, self.pads, self.mode, self.kept = layer, pads, mode, kept

    def forward(self, x):
        return self.layer(functional.pad(x, self.pads, self.mode))[..., self.kept]


class More(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv1d(1, 2, 3)

    def forward(self, x):
        return torch.relu(self.layer(x))


@pytest.mark.parametrize(
    "module",
    [
        Causal(),
        Causal(5, 2, 3),
        Causal(1),
        Around(nn.Conv1d(1, 2, 4), (3, 0)),
        Around(nn.Conv1d(1, 2, 4, stride=2), (3, 2)),
        Around(nn.Conv1d(2, 2, 4, groups=2), (1, 2), "reflect"),
        Around(nn.Conv1d(1, 1, 3), (2, 0), "replicate"),
        Around(nn.Conv1d(1, 1, 3), (1, 1), "circular"),
        Around(nn.Conv1d(1, 1, 3, padding=4, stride=2), kept=slice(1, -2)),
        Around(nn.Conv1d(1, 1, 3, padding=2), (1, 0), kept=slice(None, -2)),
        Around(nn.ConvTranspose1d(1, 2, 4, stride=2), kept=slice(1, -1)),
        tw.CausalConv1d(1, 1, 3),
    ],
)
def test_the_one_convolution_of_a_module_is_found(module):
    channels = next(part.in_channels for part in module.modules() if hasattr(part, "in_channels"))
    x = torch.randn(1, channels, 17)
    y = module(x)[0].detach().numpy()
    trace = tw.trace(module, x)
    np.testing.assert_array_equal(trace.output, y)
    sums = np.array([step.sum for step in trace.steps]).reshape(y.shape)
    np.testing.assert_allclose(sums, y, rtol=1e-4, atol=1e-5)
    explanation = tw.explain(module, x)
    if isinstance(module, Causal) and not module.padding:  # nothing around it: a model of one layer
        explanation = explanation["conv1d"]
    np.testing.assert_array_equal(explanation.trace.output, y)
    assert "<svg" in explanation.svg()


def test_the_outputs_that_are_dropped_are_shown_grey():
    module = Causal()
    nn.init.ones_(module.conv1d.weight)
    nn.init.zeros_(module.conv1d.bias)
    explanation = tw.explain(module, torch.arange(10.0))
    assert explanation.trace.geometry == tw.Geometry(3, padding="causal")
    assert explanation.title.startswith("Causal, by its conv1d: Conv1d(1, 1, kernel_size=(3,)")
    assert explanation.lesson.endswith(
        "The convolution within has padding (2, 2) and 2 more outputs, which are dropped:\n"
        "  Step 10: sum([8. 9. (0.)]*[1. 1. 1.]) + 0.0 = 17.0\n"
        "  Step 11: sum([9. (0.) (0.)]*[1. 1. 1.]) + 0.0 = 9.0"
    )
    figure = explanation.svg("window")
    assert re.findall(r"output (\d+), dropped", figure) == ["10", "11"]
    assert explanation.state["padding"] == "causal"
    assert "dropped" not in tw.explain(tw.CausalConv1d(1, 1, 3), torch.arange(10.0)).svg()


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (
            More(),
            "More does more than to pad its convolution and to drop outputs of it: trace the convolution, model.layer",
        ),
        (nn.Sequential(nn.Conv1d(1, 1, 3), nn.Conv1d(1, 1, 3)), r"holds 2 convolutions: .*\['0'\] is one of them"),
        (nn.Linear(3, 3), "a module that holds one, got Linear"),
        (Around(nn.Conv1d(1, 1, 3), kept=slice(2, None)), "drops 2 outputs of its convolution at the beginning and 0"),
        (Causal(stride=2), "at the end, more than padding gives"),
    ],
)
def test_a_module_that_does_more_is_told_of(module, words):
    with pytest.raises(TypeError, match=words):
        tw.trace(module, torch.arange(10.0))


def test_a_module_that_does_more_is_a_model():
    assert [layer.path for layer in tw.explain(More(), torch.randn(1, 1, 10))] == ["layer"]
    one = nn.Sequential(nn.Conv1d(1, 1, 3))
    assert tw.explain(one, torch.randn(1, 1, 10))["0"].trace.output.shape == (1, 8)


def test_looking_leaves_no_trace():
    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.layer = nn.BatchNorm1d(1), nn.Conv1d(1, 1, 3)

        def forward(self, x):
            return self.layer(self.norm(x))

    module = Normed().train()
    before = module.norm.num_batches_tracked.clone()
    tw.explain(module, torch.randn(1, 1, 10))
    assert module.training
    assert module.norm.training
    assert torch.equal(module.norm.num_batches_tracked, before)
    assert not module.layer._forward_hooks


POOLS = [
    nn.MaxPool1d(3),
    nn.MaxPool1d(3, 2, 1),
    nn.MaxPool1d(3, 1, 1, dilation=2),
    nn.MaxPool1d(4, 3, ceil_mode=True),
    nn.AvgPool1d(3),
    nn.AvgPool1d(3, 2, 1),
    nn.AvgPool1d(3, 2, 1, count_include_pad=False),
    nn.AvgPool1d(4, 3, ceil_mode=True),
    nn.AvgPool1d(4, 3, 1, ceil_mode=True, count_include_pad=False),
]


@pytest.mark.parametrize("pool", POOLS, ids=str)
@pytest.mark.parametrize("length", [9, 12])
def test_pooling_is_windows_too(pool, length):
    x = torch.randn(2, length)
    trace = tw.trace(pool, x)
    y = pool(x).numpy()
    np.testing.assert_array_equal(trace.output, y)
    for channel in range(2):
        for i, expected in enumerate(y[channel]):
            step = trace.step(i, channel)
            made = {"max": np.max, "mean": np.mean, "": np.sum}[trace.pooling]
            found = made(step.values if trace.pooling else step.products)
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
            assert step.inputs == range(channel, channel + 1)
    explanation = tw.explain(pool, x)
    assert f"= {y.shape[1]}" in explanation.text
    assert "<svg" in explanation.svg()
    for figure in ("channels", "response"):
        assert "<svg" in explanation.svg(figure)
    assert explanation.why()
    if trace.pooling:
        assert f"{trace.pooling}(" in str(trace)
        assert "text/html" in explanation._repr_mimebundle_()
        with pytest.raises(ValueError, match="pooling has none"):
            explanation.page()


def test_pooling_that_can_not_be_explained():
    pool = nn.AvgPool1d(4, 3, 1, ceil_mode=True)
    with pytest.raises(TypeError, match="beyond the padding that it counts"):
        tw.trace(pool, torch.arange(9.0))
    assert str(tw.trace(nn.MaxPool1d(2), [1, 5, 2, 3])).splitlines()[0] == "Step 0: max([1. 5.]) = 5.0"


@pytest.mark.parametrize("limit", [lambda y: y.clamp(max=20.0), lambda y: torch.where(y > 20, 0.0, y)])
def test_what_depends_on_the_values_is_seen_on_the_signal(limit):
    class Limited(Causal):
        def forward(self, x):
            return limit(super().forward(x))

    module = Limited()
    nn.init.ones_(module.conv1d.weight)
    with pytest.raises(TypeError, match="does more than"):
        tw.trace(module, torch.arange(10.0) * 3)


def test_a_module_with_nothing_around_its_layer_takes_one_signal():
    assert tw.explain(Around(nn.Conv1d(1, 2, 3)), torch.randn(10))["layer"].trace.output.shape == (2, 8)
    assert tw.trace(nn.MaxPool1d(2, return_indices=True), [1, 5, 2, 3]).output.tolist() == [[5, 3]]
    assert "pooling is torch's own" in tw.explain(nn.AvgPool1d(2), torch.randn(10)).why()


def test_the_padding_of_pooling_is_no_zeros():
    text = tw.explain(nn.MaxPool1d(3, 2, 1), torch.arange(9.0)).text
    assert "padding=(1, 1); what lies in the padding is left out of its window" in text
    assert "zeros" not in text
    with pytest.raises(tw.ShapeError, match="another number of channels"):
        tw.trace(Causal(channels=2), torch.arange(9.0))
