"""What is recorded of a run: constants, writes, buffers, scripts, threads."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tapwise as tw
from networks import Of
from small_models import F64, X, conv, signal
from streamed import streamed

# The signal where it is no signal, and writes


K = torch.full((1, 4, 1), 0.5)


@pytest.mark.parametrize(
    "function",
    [
        lambda self, x: x * K.to(x),
        lambda self, x: x * K.type_as(x),
        lambda self, x: x * torch.ones(x.shape).view_as(x),
        lambda self, x: x * K.expand_as(x),
        lambda self, x: x * torch.ones(x.numel()).reshape_as(x),
        lambda self, x: x * x.shape[0],
        lambda self, x: x + x.new_zeros(x.shape[-1]),
        lambda self, x: torch.add(x, 1.0, out=None),
        lambda self, x: F.normalize(x, dim=1),
        lambda self, x: [o := torch.zeros_like(x), o.add_(x), o.mul_(2), o][-1],
        lambda self, x: [o := torch.zeros(x.shape, dtype=x.dtype), o.add_(x), o][-1],
        lambda self, x: [o := x.new_ones(x.shape), o := o + x, o][-1],
        lambda self, x: [m := torch.zeros_like(x), m.__setitem__((slice(None), slice(0, 2)), 1.0), x * m][-1],
        lambda self, x: [m := torch.zeros(x.shape), m.__setitem__((slice(None), slice(0, 2)), 1.0), x * m][-1],
    ],
)
def test_constants_of_the_signals_size_and_dtype(function):
    model = Of(lambda self, x: self.c(function(self, x)), c=conv())
    assert tw.inspect(model, X).receptive_field == (0, 2)
    assert tw.verify_stream(model, X) < 1e-12
    x = signal(1, 4, 30)
    torch.testing.assert_close(torch.cat(streamed(tw.stream(model, X), x, [7, 23]), -1), model(x))


class WithBuffer(nn.Module):
    """Keeps its last samples, as some streaming layers do, and may read them."""

    def __init__(self, reads):
        super().__init__()
        self.c, self.reads = conv(), reads
        self.register_buffer("previous", torch.zeros(1, 4, 2, dtype=F64))

    def forward(self, x):
        y = F.pad(x, (2, 0))
        self.previous.copy_(x[..., -2:])
        self.previous[:] = x[..., -2:]
        return self.c(torch.cat((self.previous, x), -1) if self.reads else y)


def test_a_models_own_buffer_is_let_be_and_left_as_it_was():
    model = WithBuffer(reads=False)
    assert tw.inspect(model, X).receptive_field == (-2, 0)
    assert tw.verify_stream(model, X) < 1e-12
    assert not model.previous.any()
    with pytest.raises(tw.TimelineError, match="wrote the signal into"):
        tw.stream(WithBuffer(reads=True), X)
    with pytest.raises(tw.TimelineError, match="wrote the signal into"):
        tw.stream(Of(lambda self, x: [o := x.new_zeros(x.shape), o[:, :2].copy_(x[:, :2]), o][-1]), X)


def test_padding_only_where_the_length_asks_for_it():
    def forward(self, x):
        rest = x.shape[-1] % 4
        if rest:
            x = F.pad(x, (0, 4 - rest))
        y = self.up(self.down(x))
        if rest:
            y = y[..., : rest - 4]
        return y

    up = nn.ConvTranspose1d(4, 4, 4, 4).double()
    model = Of(forward, down=conv(4, stride=4), up=up)
    for length in (64, 63):
        assert tw.verify_stream(model, signal(1, 4, length)) < 1e-12
    live = tw.stream(model, X)
    for length in (5, 8, 31, 64):
        x = signal(1, 4, length)
        torch.testing.assert_close(torch.cat(streamed(live, x, [3, length - 3]), -1), model(x))


# What hides its operations


@torch.jit.script
def snake(x, alpha: float):
    return x + torch.sin(alpha * x) ** 2 / alpha


def test_scripted_and_compiled_functions_are_read_through():
    model = Of(lambda self, x: self.c(snake(x, 2.0)), c=conv())
    assert tw.verify_stream(model, X) < 1e-12
    assert tw.inspect(model, X).receptive_field == (0, 2)
    with pytest.raises(tw.TimelineError, match="forward in 1: is compiled by TorchScript"):
        tw.inspect(nn.Sequential(conv(), torch.jit.script(nn.ReLU())), X)


@pytest.mark.filterwarnings("ignore")
def test_traced_functions_are_refused():
    traced = torch.jit.trace(lambda x: x + (x.shape[-1] >= 64), X)
    with pytest.raises(tw.TimelineError, match="is traced"):
        tw.inspect(Of(lambda self, x: traced(x)), X)


def test_mixed_precision_is_compared_by_its_coarsest():
    model = Of(lambda self, x: self.c(x.float()).double(), c=nn.Conv1d(4, 4, 9))
    assert tw.verify_stream(model, X) < 1e-5


@pytest.mark.parametrize("power", [0, 1, 2])
def test_powers_that_swallow_a_nan(power):
    assert tw.inspect(Of(lambda self, x: self.c(x) ** power, c=conv()), X).receptive_field == (0, 2)


@pytest.mark.filterwarnings("ignore")
def test_other_threads_call_their_scripts_meanwhile():
    from threading import Event, Thread

    started, ended, errors = Event(), Event(), []
    traced = torch.jit.trace(lambda x: x * 2, X)

    def calls():
        started.set()
        while not ended.is_set():
            try:
                assert float(traced(snake(torch.zeros(1), 1.0))) == 0
            except Exception as error:
                errors.append(error)

    before = torch.jit.ScriptFunction.__call__
    model, other_model = (Of(lambda self, x: self.c(snake(x, 2.0)), c=conv()) for _ in "ab")
    others = [Thread(target=calls), Thread(target=lambda: tw.inspect(other_model, X))]
    for other in others:
        other.start()
    started.wait()
    tw.inspect(model, X)
    ended.set()
    for other in others:
        other.join()
    assert not errors
    assert torch.jit.ScriptFunction.__call__ is before


@pytest.mark.parametrize("value", [float("inf"), float("nan"), None, "words"])
def test_odd_constants_beside_the_signal_stay(value):
    live = tw.stream(Of(lambda self, x: (x * 2, value)), X)
    assert str(live.step(X)[1]) == str(value)
