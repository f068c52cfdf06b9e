"""Networks that frozen programs once got wrong."""

import pickle
import random
import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tapwise as tw
from frozen_networks import Of
from streamed import chunks_of
from tapwise.frozen.instructions import Writer
from tapwise.network.rules import unregister


def check(model, example, lengths, live=True):
    """Offline at several lengths and batches; live in random chunks."""
    model.eval()
    frozen = tw.freeze(model, example)
    dice = random.Random(0)
    for length in lengths:
        x = torch.randn(dice.choice([1, 3]), example.shape[1], length)
        with torch.no_grad():
            wanted = model(x)
            scale = 1 + float(wanted.abs().max())
            frozen._arena.numbers.fill_(float("nan"))
            torch.testing.assert_close(frozen(x), wanted, rtol=1e-4, atol=2e-5 * scale)
            if live:
                stream = tw.stream(frozen)
                parts = [stream.step(chunk) for chunk in x.split(chunks_of(dice, length), -1)]
                y = torch.cat([*parts, stream.flush()], -1)
                torch.testing.assert_close(y, wanted, rtol=1e-4, atol=2e-5 * scale)
    return frozen


def test_padding_to_the_length_of_another_tensor():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.d1, self.d2 = nn.Conv1d(2, 4, 4, 2, 1), nn.Conv1d(4, 4, 4, 2, 1)
            self.up = nn.ConvTranspose1d(4, 4, 4, 2, 1)

        def forward(self, x):
            s = self.d1(x)
            u = self.up(self.d2(s))
            return s + F.pad(u, (0, s.shape[-1] - u.shape[-1]))

    check(Net(), torch.randn(1, 2, 200), range(200, 209))


def test_a_crop_to_the_length_of_another_tensor_then_padding():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv1d(1, 8, 1, 4), nn.Conv1d(1, 8, 3, 4), nn.Conv1d(8, 8, 3, padding=1)

        def forward(self, x):
            v = self.b(x)
            return self.c(self.a(x)[..., : v.shape[-1]]) + v

    check(Net(), torch.randn(1, 1, 203), range(203, 211))


@pytest.mark.parametrize("after", [nn.Conv1d(8, 8, 4, stride=4), Of(lambda x: x[..., 5:-7])])
def test_a_norm_over_time_counts_samples_that_no_output_reads(after):
    model = nn.Sequential(nn.Conv1d(1, 8, 3), nn.GroupNorm(2, 8), after)
    frozen = check(model, torch.randn(1, 1, 102), range(102, 109), live=False)
    x = torch.randn(1, 1, 105)
    x[..., -1] = float("nan")
    assert frozen(x).isnan().all()


def test_forks_step_in_threads_of_their_own():
    frozen = tw.freeze(nn.Sequential(nn.Conv1d(4, 32, 9, padding=4), nn.Conv1d(32, 4, 9)), torch.randn(1, 4, 100))
    first = tw.stream(frozen)
    streams = [first, first.fork(), first.fork(), first.fork()]
    signals = [torch.randn(1, 4, 2000) for _ in streams]
    found = [None] * len(streams)

    def work(n):
        parts = [streams[n].step(chunk) for chunk in signals[n].split(20, -1)]
        found[n] = torch.cat([*parts, streams[n].flush()], -1)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(len(streams))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for signal, y in zip(signals, found, strict=True):
        assert torch.equal(y, frozen(signal))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.RNN(4, 4, batch_first=True)

    def forward(self, x):
        return self.layer(x.mT)[0].mT


HELPED = {
    "upsampled": nn.Upsample(scale_factor=2),
    "a recurrence": Recurrent(),
    "flip": Of(lambda x: x.flip(1)),
    "cumsum": Of(lambda x: x.cumsum(-1) * 0.01),
    "cropped, then flip": Of(lambda x: x[..., :-2].flip(1)),
}


@pytest.mark.parametrize("mode", ["zeros", "replicate"])
@pytest.mark.parametrize("name", HELPED)
def test_padding_around_what_torch_gives(name, mode):
    model = nn.Sequential(HELPED[name], nn.Conv1d(4, 4, 5, padding=2, padding_mode=mode))
    check(model, torch.randn(1, 4, 60), (60, 61, 90))


def test_signals_of_other_batches_are_the_models():
    frozen = tw.freeze(Of(lambda x, mask: x * mask), (torch.randn(2, 3, 50), torch.rand(2, 3, 50)))
    x, mask = torch.randn(4, 3, 80), torch.rand(1, 3, 80)
    assert torch.equal(frozen(x, mask), x * mask)
    frozen = tw.freeze(Of(lambda x, mask: x * mask), (torch.randn(2, 8, 50), torch.rand(1, 8, 50)))
    mask = torch.rand(2, 8, 80)
    x = torch.randn(2, 8, 80)
    assert torch.equal(frozen(x, mask), x * mask)


def test_one_result_twice():
    frozen = tw.freeze(Of(lambda x: (y := x.relu(), y)), torch.randn(1, 3, 50))
    x = torch.randn(1, 3, 60)
    assert all(torch.equal(y, x.relu()) for y in frozen(x))


def test_joined_values_of_different_groups():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Conv1d(3, 5, 3, padding=1), nn.Conv1d(5, 4, 3, padding=1)
            self.last = nn.Conv1d(9, 2, 1)

        def forward(self, x):
            h = self.one(x)
            return self.last(torch.cat((self.two(h), h), 1).relu()) + self.last(torch.cat((h, self.two(h)), 1))

    check(Net(), torch.randn(1, 3, 100), (100, 101, 150))


@pytest.mark.parametrize("part", [slice(0, 1), slice(0, 12), slice(3, 7)])
def test_a_part_of_a_convolutions_channels_is_scaled(part):
    layer = nn.Conv1d(3, 24, 7)
    check(Of(lambda x: layer(x)[:, part] * 2 + 1), torch.randn(1, 3, 50), (50, 200))


def test_a_step_that_fails_in_one_of_two_groups_changes_nothing():
    class Breaks(nn.Module):
        calls_left = 1 << 30

        def forward(self, x):
            Breaks.calls_left -= 1
            if Breaks.calls_left < 0:
                raise KeyboardInterrupt
            return x * 1.0

    tw.register(Breaks, tw.Geometry(1))
    try:
        model = nn.Sequential(nn.Conv1d(2, 4, 5, padding=2), Breaks(), nn.Conv1d(4, 2, 5)).eval()
        frozen = tw.freeze(model, torch.randn(2, 2, 100))
        live, x = tw.stream(frozen), torch.randn(2, 2, 100)
        first = live.step(x[..., :40])
        live.reset([False, True])
        Breaks.calls_left = 1
        with pytest.raises(KeyboardInterrupt):
            live.step(x[..., 40:60])
        assert live.state_bytes
        Breaks.calls_left = 1 << 30
        middle, lengths = live.step(x[..., 40:])
        last, ends = live.flush()
        together = torch.cat([first[0], middle[0, :, : lengths[0]], last[0, :, : ends[0]]], -1)
        assert torch.equal(together, frozen(x)[0])
        alone = torch.cat([middle[1, :, : lengths[1]], last[1, :, : ends[1]]], -1)
        torch.testing.assert_close(alone, frozen(x[1:, :, 40:])[0])
    finally:
        unregister(Breaks)


def test_snapshots_of_streams_that_settle_late():
    frozen = tw.freeze(nn.Sequential(nn.ConstantPad1d((2, 0), 0.0), nn.Conv1d(4, 4, 3)), torch.randn(1, 4, 100))
    x = torch.randn(1, 4, 300)
    for seen in (1, 2, 3, 100):
        live = tw.stream(frozen)
        before = live.step(x[..., :seen])
        for other in (live.fork(), pickle.loads(pickle.dumps(live)), live):
            parts = [before, other.step(x[..., seen:]), other.flush()]
            assert torch.equal(torch.cat(parts, -1), frozen(x))


def test_what_is_returned_shares_no_memory_with_the_next_run():
    frozen = tw.freeze(Of(lambda x: torch.view_as_complex(x * 1.0)), torch.randn(1, 4, 100, 2), time=2)
    x = torch.randn(1, 4, 100, 2)
    y = frozen(x)
    frozen(torch.randn(1, 4, 100, 2))
    assert torch.equal(torch.view_as_real(y), x)


def test_channels_that_lie_unevenly():
    frozen = tw.freeze(Of(lambda x: x.relu() * 2), torch.randn(2, 4, 100, 2), time=2)
    x = torch.randn(3, 4, 120, 2)
    assert torch.equal(frozen(x), x.relu() * 2)


def test_halves_of_channels_where_the_batch_is_not_the_first_axis():
    check(Of(lambda x: F.glu(x.permute(2, 0, 1), -1).permute(1, 2, 0)), torch.randn(1, 6, 50), (50, 60))
    check(Of(lambda x: F.glu(x.permute(1, 0, 2), 0).permute(1, 0, 2)), torch.randn(1, 6, 50), (50, 60))


def test_autocast_around_it_changes_nothing():
    frozen = tw.freeze(nn.Sequential(nn.Conv1d(2, 3, 3, padding=1), Recurrent2()), torch.randn(1, 2, 50))
    x = torch.randn(1, 2, 60)
    y, live = frozen(x), tw.stream(frozen)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(frozen(x), y)
        assert torch.equal(torch.cat([live.step(x[..., :7]), live.step(x[..., 7:]), live.flush()], -1), y)


def test_an_example_that_is_a_parameter_stays_beside_the_network():
    frozen = tw.freeze(nn.Conv1d(2, 3, 3), nn.Parameter(torch.randn(1, 2, 50)))
    assert not list(frozen.parameters())


def test_a_frozen_stream_is_held_against_the_model(monkeypatch):
    frozen = tw.freeze(nn.Sequential(nn.Conv1d(2, 3, 3, padding=1), nn.Conv1d(3, 2, 5)), torch.randn(1, 2, 50))
    move = Writer.keep
    monkeypatch.setattr(Writer, "keep", lambda *a: move(a[0], a[1], a[2] + 1, *a[3:]))
    with pytest.raises(tw.StreamMismatchError, match="conv1d in 1: the frozen stream differs from the model"):
        tw.stream(frozen)


def test_one_row_for_all_of_the_batch():
    check(Of(lambda x: x - x.mean(0, keepdim=True)), torch.randn(3, 4, 50), (50, 70), live=False)


def test_other_defaults():
    frozen = tw.freeze(nn.Sequential(nn.Conv1d(2, 3, 3, padding=1), Recurrent2()), torch.randn(1, 2, 50))
    x = torch.randn(1, 2, 60)
    y = frozen(x)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(frozen(x), y)
        assert frozen(torch.randn(1, 2, 777, dtype=torch.float32)).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


class Recurrent2(Recurrent):
    def __init__(self):
        super().__init__()
        self.layer = nn.RNN(3, 4, batch_first=True)


def test_powers_that_are_no_squares():
    check(Of(lambda x: 2**x), torch.rand(1, 4, 50), (50, 60))
    check(Of(lambda x: x.abs() ** torch.tensor([[2.0], [1.0], [3.0], [2.0]])), torch.rand(1, 4, 50), (50, 60))


def test_a_view_that_is_negated_lazily():
    z = torch.randn(1, 4, 50, dtype=torch.complex64)
    x = z.conj().imag
    frozen = tw.freeze(nn.ReLU(), torch.randn(1, 4, 50))
    assert torch.equal(frozen(x), x.relu())


def test_sines_of_large_numbers():
    frozen = tw.freeze(Of(torch.sin), torch.randn(1, 4, 50))
    x = (
        torch.tensor([1e6, 1e7, 1.2345e8, -1e8, 3e10, 1e30, -float("inf"), float("nan")])
        .reshape(1, 1, -1)
        .expand(1, 4, 8)
    )
    x = x.repeat(1, 1, 10)
    y = frozen(x)
    near = x.abs() < 2e8
    assert (y[near].double() - x[near].double().sin()).abs().max() < 1e-6
    finite = x.isfinite()
    assert y[finite].abs().max() <= 1
    assert y[~finite].isnan().all()


def test_a_parent_may_ask_for_a_frozen_modules_settings():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Conv1d(3, 8, 3), nn.Conv1d(8, 2, 3)

        def forward(self, x):
            y = self.first(x)[..., :: self.first.stride[0]]
            return self.last(F.scaled_dot_product_attention(y.mT, y.mT, y.mT).mT)

    model = Net().eval()
    frozen = tw.freeze(model, torch.randn(1, 3, 100))
    assert isinstance(frozen, tw.PartlyFrozen)
    x = torch.randn(1, 3, 150)
    with torch.no_grad():
        torch.testing.assert_close(frozen(x), model(x))


def test_an_empty_batch_and_an_empty_signal():
    frozen = tw.freeze(nn.Conv1d(3, 5, 3, padding=1), torch.randn(2, 3, 50))
    assert frozen(torch.randn(0, 3, 60)).shape == (0, 5, 60)
    with pytest.raises(RuntimeError):
        tw.freeze(nn.Conv1d(3, 5, 3), torch.randn(2, 3, 50))(torch.randn(2, 3, 0))


def test_memory_of_a_stream_does_not_grow_over_chunks():
    live = tw.stream(tw.freeze(nn.Conv1d(3, 5, 9), torch.randn(1, 3, 50)))
    for length in range(1, 60):
        live.step(torch.randn(1, 3, length))
    (group,) = live._at.groups
    assert group.machine.state.numbers.numel() < 40_000


def test_the_first_call_of_a_short_length_has_the_bits_of_later_ones():
    """It gave the model's own outputs, after it was compared: a row alone then differed from the same row of a batch."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(64, 64, 5), nn.ReLU(), nn.Conv1d(64, 64, 1)).eval()
    frozen, x = tw.freeze(model, torch.randn(1, 64, 400)), torch.randn(2, 64, 12)
    assert x.shape[-1] < frozen._base
    first = frozen(x)
    assert torch.equal(frozen(x), first)
    assert torch.equal(frozen(x[1:]), first[1:])
    assert not torch.equal(model(x), first)  # else this says nothing
