"""Streams of layers and of random networks: equal to one run, whatever the settings and the chunks."""

import random

import pytest
import torch

import tapwise as tw
from marks import slow_after
from streamed import Branches, assert_streams, random_layer

F64 = torch.float64


def case(seed):
    dice = random.Random(seed)
    torch.manual_seed(seed)
    channels = dice.randrange(1, 5)
    layer, _ = random_layer(dice, channels)
    layer = layer.double()
    geometry = tw.Geometry.of(layer)
    shortest = max(geometry.input_length(1), 1 + (max(geometry.padding) if geometry.padding_mode == "reflect" else 0))
    length = shortest + dice.randrange(60)
    x = torch.randn(dice.randrange(1, 4), channels, length, dtype=F64)
    assert_streams(layer, x, dice)


@pytest.mark.parametrize("block", slow_after(2, range(10)))
def test_every_setting_of_a_layer_streams(block):
    for seed in range(40):
        case(1000 * block + seed)


@pytest.mark.fuzz
@pytest.mark.parametrize("block", range(20))
def test_ten_thousand_layers_stream(block):
    for seed in range(500):
        case(100_000 + 500 * block + seed)


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


@pytest.mark.parametrize("block", slow_after(1, range(6)))
def test_random_networks_stream(block):
    assert sum(random_network(1000 * block + seed) for seed in range(12)) > 3


@pytest.mark.fuzz
@pytest.mark.parametrize("block", range(20))
def test_a_thousand_networks_stream(block):
    assert sum(random_network(50_000 + 100 * block + seed) for seed in range(70)) >= 50


@pytest.mark.parametrize("length", [0, 1, 3, 4, 5, 100, 101])
def test_output_length_is_what_a_full_signal_gives(length):
    model = torch.nn.Sequential(
        torch.nn.Conv1d(1, 2, 5, padding=1, stride=2), torch.nn.ConvTranspose1d(2, 1, 4, stride=3)
    )
    live = tw.stream(model, torch.randn(1, 1, 200))
    x = torch.randn(1, 1, length)
    expected = model(x).shape[-1] if length >= 3 else 0
    assert live.output_length(length) == expected
    assert live.step(x).shape[-1] + live.flush().shape[-1] == expected
    with pytest.raises(ValueError, match="length must be at least 0"):
        live.output_length(-1)


def test_output_length_of_signals_that_the_model_itself_runs():
    class Filled(torch.nn.Module):
        """Fills short signals up."""

        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv1d(1, 1, 9)

        def forward(self, x):
            return self.conv(torch.nn.functional.pad(x, (0, max(20 - x.shape[-1], 0))))

    model = Filled()
    live = tw.stream(model, torch.randn(1, 1, 100))
    for length in (1, 5, 19, 20, 21, 50):
        assert live.output_length(length) == model(torch.zeros(1, 1, length)).shape[-1]
