"""freeze: networks held against their models, whatever batch, length, chunks and threads."""

import copy
import pickle
import random
import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tapwise as tw
from frozen_networks import Of, assert_same, small
from streamed import chunks_of, random_layer

torch.manual_seed(0)


ONE = torch.linspace(-2, 2, 25)[:, None]
# By name: a function of (batch, 25, T) that compiled steps do without torch's help.
FUNCTIONS = {
    "relu": F.relu,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.1),
    "elu": lambda x: F.elu(x, 1.5),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu, tanh": lambda x: F.gelu(x, approximate="tanh"),
    "sin": lambda x: torch.sin(20 * x),
    "exp": torch.exp,
    "abs": torch.abs,
    "square": lambda x: x**2,
    "add": lambda x: x + 1,
    "add by channel": lambda x: x + ONE,
    "1 - x": lambda x: 1 - x,
    "x - 1": lambda x: x - ONE,
    "times": lambda x: 3 * x,
    "times by channel": lambda x: x * ONE,
    "divided": lambda x: x / 3,
    "two operands": lambda x: x * x.sigmoid() + x.tanh() - x / x.exp(),
    "a gate": lambda x: x[:, :12].tanh() * x[:, 13:].sigmoid(),
    "glu": lambda x: F.glu(x[:, 1:], 1),
    "snake": lambda x: x + 1 / (ONE.abs() + 0.5) * torch.sin((ONE.abs() + 0.5) * x).pow(2),
    "chunk": lambda x: x[:, :24].chunk(2, 1)[1],
    "cat": lambda x: torch.cat((x, x * 2, x[:, 3:4]), 1),
    "transposed": lambda x: x.transpose(1, 2).relu(),
    "layer_norm": lambda x: F.layer_norm(x.transpose(1, 2), (25,), ONE[:, 0], ONE[:, 0] + 1).transpose(1, 2),
    "linear": lambda x: F.linear(x.transpose(1, 2), ONE.expand(25, 40).T, torch.ones(40)).transpose(1, 2),
    "group_norm": lambda x: F.group_norm(x, 5, ONE[:, 0], ONE[:, 0] + 1),
    "group_norm, one group": lambda x: F.group_norm(x, 1),
    "prelu": lambda x: F.prelu(x, ONE[:, 0]),
    "prelu, one": lambda x: F.prelu(x, torch.tensor([0.3])),
    "batch_norm": lambda x: F.batch_norm(x, ONE[:, 0], ONE[:, 0].abs() + 0.1, ONE[:, 0], ONE[:, 0]),
    "max_pool1d": lambda x: F.max_pool1d(x, 3, 2, 1),
    "avg_pool1d": lambda x: F.avg_pool1d(x, 3, 2, 1),
    "crop": lambda x: x[..., 3:-2].relu() + x[..., 2:-3],
    "pad": lambda x: F.pad(x, (5, 3), value=2.0) * 3,
    "pad by reflection": lambda x: F.pad(x, (5, 3), mode="reflect").relu(),
    "pad twice": lambda x: F.pad(x, (2, 3), value=2.0) + F.pad(x, (1, 4)),
    "dropout": lambda x: F.dropout(x, 0.5, False).contiguous().clone() * 2,
    "view": lambda x: x.reshape(x.shape[0], 5, 5, x.shape[-1]).flatten(1, 2) + x,
}
# What torch helps with.
HELPED = {
    "cumsum": lambda x: torch.cumsum(x, -1) * 2,
    "flip": lambda x: x.flip(1) + 1,
    "upsampled": lambda x: F.interpolate(x, scale_factor=2).relu(),
    "masked": lambda x: x * (x[:, :1] > 0),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name):
    model = Of(FUNCTIONS[name])
    frozen = tw.freeze(model, torch.randn(2, 25, 100))
    assert frozen.torch_operations == []
    assert_same(model, frozen, *(torch.randn(batch, 25, length) for batch, length in ((2, 100), (1, 333), (3, 41))))


@pytest.mark.parametrize("name", HELPED)
def test_functions_that_torch_helps_with(name):
    model = Of(HELPED[name])
    frozen = tw.freeze(model, torch.randn(2, 25, 100))
    assert frozen.torch_operations
    assert_same(model, frozen, torch.randn(2, 25, 100), torch.randn(3, 25, 77))


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "elu", "sigmoid", "tanh", "silu", "gelu", "gelu, tanh", "exp"])
def test_functions_over_their_range(name):
    """Errors stay within a few units of the last place of the result, or of 1."""
    model = Of(FUNCTIONS[name])
    frozen = tw.freeze(model, torch.randn(1, 16, 100))
    far = torch.cat([torch.linspace(-110, 110, 6000), torch.logspace(-30, 2, 1000), -torch.logspace(-30, 2, 1000)])
    far = torch.cat([far, torch.tensor([0.0, -0.0, float("inf"), -float("inf"), float("nan"), 3e38, -3e38, 1e-40])])
    x = F.pad(far, (0, -len(far) % 16)).reshape(1, 16, -1)
    with torch.no_grad():
        wanted, found = model(x.double()), frozen(x)
    assert torch.equal(found.isnan(), wanted.float().isnan())
    finite = wanted.float().isfinite()
    assert torch.equal(found[~finite & ~found.isnan()], wanted.float()[~finite & ~found.isnan()])
    error = (found.double() - wanted)[finite].abs()
    assert (error <= 4e-7 * (1 + wanted[finite].abs())).all(), float((error / (1 + wanted[finite].abs())).max())


def test_sine_far_out():
    model = Of(torch.sin)
    frozen = tw.freeze(model, torch.randn(1, 16, 100))
    x = torch.linspace(-5000, 5000, 160_000).reshape(1, 16, -1)
    assert (frozen(x).double() - x.double().sin()).abs().max() < 4e-7


def random_network(dice, channels):
    layers = []
    for _ in range(dice.randrange(2, 6)):
        layer, channels = random_layer(dice, channels)
        layers += [layer, dice.choice([nn.ReLU(), nn.ELU(), nn.BatchNorm1d(channels), nn.Identity(), nn.GELU()])]
    model = nn.Sequential(*layers).eval()
    for module in model:
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    return model


@pytest.mark.parametrize("seed", range(40))
def test_random_networks_offline_and_live(seed):
    dice = random.Random(seed)
    torch.manual_seed(seed)
    channels = dice.choice([1, 2, 6, 18])
    model = random_network(dice, channels)
    length = 400 + dice.randrange(200)
    batch = dice.choice([1, 2])
    x = torch.randn(batch, channels, length)
    try:
        frozen = tw.freeze(model, x)
    except (tw.TimelineError, ValueError, RuntimeError):  # the model takes no signal so short
        with pytest.raises((tw.TimelineError, ValueError, RuntimeError)):
            tw.stream(model, x)
        return
    others = [torch.randn(dice.choice([1, 3]), channels, length + dice.randrange(-50, 300)) for _ in range(3)]
    assert_same(model, frozen, x, *others)
    live = tw.stream(frozen)
    for _ in range(2):
        parts = [live.step(chunk) for chunk in x.split(chunks_of(dice, length), -1)]
        y = torch.cat([*parts, live.flush()], -1)
        with torch.no_grad():
            wanted = model(x)
        assert y.shape == wanted.shape
        torch.testing.assert_close(y, wanted, rtol=1e-4, atol=3e-5 * (1 + float(wanted.abs().max())))


def test_the_same_bits_whatever_the_batch_the_threads_and_the_chunks():
    frozen = tw.freeze(small(), torch.randn(1, 3, 200))
    x = torch.randn(4, 3, 5000)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        y = frozen(x)
        assert torch.equal(frozen(x[2:3]), y[2:3])
        torch.set_num_threads(2)
        assert torch.equal(frozen(x), y)
        dice, live = random.Random(0), tw.stream(frozen)
        parts = [live.step(chunk) for chunk in x.split(chunks_of(dice, 5000), -1)]
        assert torch.equal(torch.cat([*parts, live.flush()], -1), y)
    finally:
        torch.set_num_threads(before)


def test_memory_that_was_used_before_leaves_no_trace():
    frozen = tw.freeze(small(), torch.randn(1, 3, 200))
    x = torch.randn(1, 3, 300)
    y = frozen(x)
    frozen(torch.full((1, 3, 900), float("nan")))
    frozen._arena.numbers.fill_(float("nan"))
    assert torch.equal(frozen(x), y)


def test_the_model_stays_as_it_is_and_later_changes_are_not_followed():
    model = small()
    before = copy.deepcopy(model.state_dict())
    frozen = tw.freeze(model, torch.randn(1, 3, 200))
    x = torch.randn(1, 3, 200)
    y = frozen(x)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(frozen(x), y)
    assert not list(frozen.parameters())


def test_short_signals_are_what_the_model_makes_of_them():
    model = small()
    frozen = tw.freeze(model, torch.randn(1, 3, 200))
    for length in (2, 3, 7, 20, 20, 199):
        x = torch.randn(2, 3, length)
        with torch.no_grad():
            torch.testing.assert_close(frozen(x), model(x))
            torch.testing.assert_close(frozen(x), model(x))


def test_copies_compute_by_themselves_and_pickles_come_back():
    frozen = tw.freeze(small(normed=False), torch.randn(1, 3, 200))
    x = torch.randn(1, 3, 250)
    other, back = copy.deepcopy(frozen), pickle.loads(pickle.dumps(frozen))
    assert torch.equal(other(x), frozen(x))
    assert torch.equal(back(x), frozen(x))
    assert other._arena is not frozen._arena


def test_several_threads_may_call_it():
    frozen = tw.freeze(small(), torch.randn(1, 3, 200))
    signals = [torch.randn(1, 3, 300 + n) for n in range(8)]
    wanted = [frozen(x) for x in signals]
    wrong = []

    def work(n):
        for _ in range(20):
            wrong.extend([n] if not torch.equal(frozen(signals[n]), wanted[n]) else [])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_programs_are_few_whatever_the_lengths():
    frozen = tw.freeze(small(), torch.randn(1, 3, 200))
    for length in range(300, 400):
        frozen(torch.randn(1, 3, length))
    assert len(frozen._programs) <= 32


def test_what_does_not_fit():
    frozen = tw.freeze(small(), torch.randn(1, 3, 200))
    with pytest.raises(tw.ShapeError, match="doesn't fit the network"):
        frozen(torch.randn(1, 4, 200))
    with pytest.raises(tw.ShapeError, match="float64"):
        frozen(torch.randn(1, 3, 200).double())
    with pytest.raises(tw.ShapeError, match="gives no gradients"):
        frozen(torch.randn(1, 3, 200, requires_grad=True))
    with pytest.raises(TypeError, match="takes 1 inputs"):
        frozen(torch.randn(1, 3, 200), 3)
    with pytest.raises(TypeError, match=r"must be a torch\.Tensor"):
        frozen([1, 2])
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module"):
        tw.freeze(3, torch.zeros(1))
    assert not frozen(torch.randn(1, 3, 200)).requires_grad


def test_a_further_input_that_is_no_signal():
    model = Of(lambda x, by: x.relu() * by)
    frozen = tw.freeze(model, (torch.randn(1, 3, 50), torch.tensor(2.0)))
    x = torch.randn(1, 3, 70)
    assert torch.equal(frozen(x, torch.tensor(2.0)), x.relu() * 2)
    assert torch.equal(frozen(x, torch.tensor(3.0)), x.relu() * 3)


def test_two_signals_and_several_results():
    model = Of(lambda x, mask: {"y": x * mask, "n": [x.relu(), 7]})
    frozen = tw.freeze(model, (torch.randn(2, 3, 50), torch.rand(2, 3, 50)))
    x, mask = torch.randn(2, 3, 80), torch.rand(2, 3, 80)
    found = frozen(x, mask)
    assert torch.equal(found["y"], x * mask)
    assert torch.equal(found["n"][0], x.relu())
    assert found["n"][1] == 7


def test_another_dtype_runs_in_torch():
    model = small().double()
    x = torch.randn(1, 3, 200, dtype=torch.float64)
    frozen = tw.freeze(model, x)
    assert frozen.torch_operations
    with torch.no_grad():
        torch.testing.assert_close(frozen(x), model(x))


def test_long_filters_are_transformed_by_torchs_step():
    model = nn.Conv1d(1, 1, 3000, padding=1500)
    frozen = tw.freeze(model, torch.randn(1, 1, 20_000))
    assert frozen.torch_operations == ["conv1d in the model itself"]
    assert_same(model, frozen, torch.randn(1, 1, 30_000))


def test_parts_of_a_model_that_can_not_be_read():
    class Attends(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = small(), nn.Conv1d(2, 4, 3)

        def forward(self, x):
            y = self.first(x)
            return self.last(F.scaled_dot_product_attention(y.mT, y.mT, y.mT).mT)

    model = Attends().eval()
    frozen = tw.freeze(model, torch.randn(1, 3, 200))
    assert isinstance(frozen, tw.PartlyFrozen)
    assert set(frozen.frozen) == {"first", "last"}
    assert "scaled_dot_product_attention" in str(frozen)
    assert_same(model, frozen, torch.randn(1, 3, 200), torch.randn(2, 3, 300))
    assert type(model.first) is nn.Sequential


def test_old_weight_norm_that_can_not_be_copied():
    with pytest.warns(FutureWarning):
        layer = nn.utils.weight_norm(nn.Conv1d(3, 5, 3))
    layer(torch.zeros(1, 3, 9))
    frozen = tw.freeze(layer, torch.randn(1, 3, 50))
    x = torch.randn(1, 3, 60)
    with torch.no_grad():
        torch.testing.assert_close(frozen(x), layer(x))


def test_a_model_that_says_otherwise_is_refused():
    class Varies(nn.Module):
        calls = 0

        def forward(self, x):
            Varies.calls += 1
            return x * 1.0 + (0.0 if Varies.calls < 20 else 5.0)

    with pytest.raises((tw.FreezeMismatchError, tw.TimelineError)):
        tw.freeze(Varies(), torch.randn(1, 3, 64))
