"""Rules of operations: each followed exactly, or refused by its true reason."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tapwise as tw
from networks import Of
from streamed import streamed

F64 = torch.float64


def signal(*size):
    return torch.randn(*size, dtype=F64, generator=torch.Generator().manual_seed(0))


X, SPECTROGRAM = signal(2, 4, 64), signal(2, 3, 12, 48)
WEIGHT, BIAS = signal(4, 6), signal(6)
PLACES = torch.tensor([0, 2])


def conv(taps=3, fan_in=4, fan_out=4, **settings):
    return nn.Conv1d(fan_in, fan_out, taps, **settings).double()


FOLLOWED = {
    "repeat": (lambda x: x.repeat(1, 3, 1), (0, 0)),
    "tile": (lambda x: x.tile(3, 1), (0, 0)),
    "index_select": (lambda x: x.index_select(1, PLACES), (0, 0)),
    "gather": (lambda x: x.gather(1, PLACES.view(1, 2, 1).expand(x.shape[0], 2, x.shape[-1])), (0, 0)),
    "baddbmm": (lambda x: torch.baddbmm(BIAS, x.mT, WEIGHT.expand(x.shape[0], -1, -1)), (0, 0)),
    "tensordot": (lambda x: torch.tensordot(x, WEIGHT, ([1], [0])), (0, 0)),
    "channel_shuffle": (lambda x: F.channel_shuffle(x, 2), (0, 0)),
    "diff": (lambda x: torch.diff(x), (0, 1)),
    "second diff": (lambda x: x.diff(n=2, dim=-1), (0, 2)),
    "view_as_complex": (
        lambda x: torch.view_as_complex(x.unflatten(1, (2, 2)).movedim(1, -1).contiguous()).abs(),
        (0, 0),
    ),
    "layer norm over [C, 1]": (lambda x: F.layer_norm(x.mT[..., None], (4, 1)), (0, 0)),
    "cumsum": (lambda x: x.cumsum(-1), (None, 0)),
    "cumsum of counts": (lambda x: (x > 0).cumsum(-1), (None, 0)),
    "cumprod": (lambda x: (x / 9 + 1).cumprod(-1), (None, 0)),
    "cummax": (lambda x: x.cummax(-1).values, (None, 0)),
    "cummin": (lambda x: torch.cummin(x, 2)[0], (None, 0)),
    "logcumsumexp": (lambda x: x.logcumsumexp(-1), (None, 0)),
    "positions": (lambda x: x * torch.arange(1, x.shape[-1] + 1), (0, 0)),
    "linear, 2": (lambda x: F.interpolate(x, scale_factor=2, mode="linear"), (-1, 1)),
    "linear, 3": (lambda x: F.interpolate(x, scale_factor=3, mode="linear"), (-1, 1)),
    "linear, 1": (lambda x: F.interpolate(x, scale_factor=1, mode="linear"), (0, 0)),
    "linear, to a size": (lambda x: F.interpolate(x, size=5 * x.shape[-1], mode="linear"), (-1, 1)),
    "softmax of no dim": (lambda x: F.softmax(x.permute(1, 0, 2)), (0, 0)),
    "patches": (lambda x: F.unfold(x[:, :, None], (1, 4), padding=(0, 2), stride=3), (-2, 1)),
    "frames": (lambda x: x.unfold(-1, 4, 2), (0, 3)),
    "nothing but an unused crop": (lambda x: [x[..., :10], torch.flip(x, (-1,)), x * 2][-1], (0, 0)),
}


@pytest.mark.filterwarnings("ignore:Implicit dimension")
@pytest.mark.parametrize("name", FOLLOWED)
def test_operations_are_followed(name):
    function, reads = FOLLOWED[name]
    model = Of(lambda self, x: function(x))
    assert tw.inspect(model, X).receptive_field == reads
    x, live = signal(3, 4, 41), tw.stream(model, X)
    parts = streamed(live, x, [1, 0, 13, 2, 25])
    axis = live.graph.nodes[live.graph.results[0]].size.time
    torch.testing.assert_close(torch.cat(parts, axis), model(x))


TWO_DIMENSIONAL = {
    "one moment": nn.Conv2d(3, 4, (3, 1), padding=(1, 0)),
    "stride, dilation": nn.Conv2d(3, 4, (3, 5), padding=(1, 2), stride=(2, 3), dilation=(1, 2)),
    "same": nn.Conv2d(3, 4, 3, padding="same"),
    "grouped": nn.Conv2d(3, 6, (2, 4), groups=3, bias=False),
    "transposed": nn.ConvTranspose2d(3, 4, (3, 4), stride=(2, 2), padding=(1, 1)),
    "transposed, wide": nn.ConvTranspose2d(3, 4, (3, 7), stride=(1, 3), padding=(0, 2), dilation=(1, 2)),
    "average": nn.AvgPool2d((2, 3), (2, 2), (0, 1)),
    "largest": nn.MaxPool2d((2, 3), (2, 1), (1, 1)),
    "normalised": nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval(),
}


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("name", TWO_DIMENSIONAL)
def test_windows_over_time_and_frequency(name, transposed):
    layer = TWO_DIMENSIONAL[name].double()
    model = layer if not transposed else Of(lambda self, x: self.layer(x), layer=layer)
    x = SPECTROGRAM
    if transposed:  # time on the third axis: the kernel's first
        x = x.mT.contiguous()
    time = 2 if transposed else 3
    assert tw.verify_stream(model, x, time=time) < 1e-12
    tw.inspect(model, x, time=time)  # a NaN reaches what it should
    live = tw.stream(model, x, time=time)
    parts = [live.step(chunk) for chunk in x.split([1, 30, 0, 17], time)] + [live.flush()]
    torch.testing.assert_close(torch.cat(parts, time), model(x))


def cumulative_norm(self, x):
    """Of all moments so far, as Conv-TasNet's causal separator has it."""
    count = torch.arange(1, x.shape[-1] + 1, dtype=x.dtype) * x.shape[1]
    mean = x.sum(1, keepdim=True).cumsum(-1) / count
    power = x.pow(2).sum(1, keepdim=True).cumsum(-1) / count
    return (x - mean) / (power - mean**2 + 1e-5).sqrt()


def test_cumulative_norms_and_their_slots():
    model = Of(cumulative_norm)
    assert tw.inspect(model, X).causal
    live = tw.stream(model, X)
    a, b = signal(2, 4, 30), signal(2, 4, 30) * 3
    first = live.step(a[..., :10])
    live.reset(torch.tensor([True, False]))
    mixed = torch.stack((b[0], a[1]))
    second, lengths = live.step(torch.stack((b[0, :, :20], a[1, :, 10:])))
    assert lengths.tolist() == [20, 20]
    torch.testing.assert_close(first, model(a)[..., :10])
    torch.testing.assert_close(second[0], model(mixed)[0, :, :20])
    torch.testing.assert_close(second[1], model(mixed)[1, :, 10:])
    other = live.fork()
    assert torch.equal(other.step(a)[0], live.step(a)[0])


def quantised(self, x):
    """The nearest of a table of codes, time and batch laid into one axis and back."""
    flat = x.permute(0, 2, 1).reshape(-1, 4)
    codes = torch.cdist(flat, self.table.weight).argmin(-1)
    nearest = self.table(codes).view(x.shape[0], -1, 4).permute(0, 2, 1)
    return nearest, codes.view(x.shape[0], -1)


@pytest.mark.parametrize("rows", [1, 3])
def test_batch_and_time_in_one_axis_and_back(rows):
    model = Of(quantised, table=nn.Embedding(7, 4)).double()
    tw.inspect(model, signal(rows, 4, 50))
    assert tw.verify_stream(model, signal(rows, 4, 50)) < 1e-12
    live = tw.stream(model, signal(rows, 4, 50))
    x = signal(2, 4, 33)
    parts = streamed(live, x, [5, 28])
    assert torch.equal(torch.cat([p[1] for p in parts], -1), model(x)[1])
    live.step(x)
    live.reset(torch.tensor([False, True]))
    (_, codes), lengths = live.step(x)
    assert torch.equal(codes, model(x)[1])
    assert lengths.tolist() == [33, 33]


# Branches that were joined


def branches(**more):
    return {"a": conv(3, padding=1), "b": conv(9, padding=4), **more}


PARTED = {
    "chunk": (lambda s, x: torch.cat([s.a(x), s.b(x)], 1).chunk(2, 1)[0], (-1, 1), False),
    "split": (lambda s, x: torch.cat([s.b(x), s.a(x)], 1).split([4, 4], 1)[1], (-1, 1), False),
    "slice": (lambda s, x: torch.cat([s.a(x), s.b(x)], 1)[:, :4], (-1, 1), False),
    "narrow": (lambda s, x: torch.cat([s.b(x), s.a(x)], 1).narrow(1, 4, 4), (-1, 1), False),
    "stack": (lambda s, x: torch.stack([s.b(x), s.a(x)])[1], (-1, 1), False),
    "unbind": (lambda s, x: torch.stack([s.a(x), s.b(x)], 1).unbind(1)[0], (-1, 1), False),
    "joined again": (lambda s, x: torch.cat(torch.cat([s.a(x), s.b(x)], 1).chunk(2, 1), 1), (-4, 4), False),
    "through tanh": (lambda s, x: torch.cat([s.a(x), s.b(x)], 1).tanh().chunk(2, 1)[0], (-4, 4), True),
    "a part of one": (lambda s, x: torch.cat([s.a(x), s.b(x)], 1)[:, :2], (-4, 4), True),
    "polyphase": (lambda s, x: torch.stack([s.a(x), s.b(x)], -1).flatten(-2), (-4, 4), True),
    "frames picked": (lambda s, x: x.unfold(-1, 5, 2)[..., 2], (0, 4), True),
    "frames and back": (lambda s, x: x.view(x.shape[0], 4, -1, 8).relu().view(x.shape), (-7, 7), True),
    "a part of frames": (lambda s, x: x.unfold(-1, 5, 1)[..., 1:3].mean(-1), (0, 4), True),
    "a median": (lambda s, x: x.unfold(-1, 5, 1).sort(-1).values[..., 2], (0, 4), True),
    "summed": (lambda s, x: s.c(torch.cat([s.a(x), s.b(x)], 1)).chunk(2, 1)[0], (-4, 4), False),
}


@pytest.mark.parametrize("name", PARTED)
def test_joined_branches_that_are_parted_again(name):
    function, reads, is_bound = PARTED[name]
    model = Of(function, **branches(c=conv(1, 8, 8)))
    report = tw.inspect(model, X)
    assert report.receptive_field == reads
    assert report.is_bound == is_bound
    assert ("no more than" in report.text) == is_bound
    assert tw.verify_stream(model, X) < 1e-12


# Refused


REFUSED = {
    "repeat": (lambda x: x.repeat(1, 1, 2), "repeats the signal along time"),
    "index_select": (lambda x: x.index_select(2, PLACES), "single moments"),
    "shuffled moments": (lambda x: F.channel_shuffle(x.mT[:, :64, :, None], 2), "first 64|moments"),
    "aligned corners": (lambda x: F.interpolate(x, scale_factor=2, mode="linear", align_corners=True), "corners"),
    "size": (lambda x: F.interpolate(x, size=90), "no multiple of the signal's"),
    "factor": (lambda x: F.interpolate(x, scale_factor=1.5), "factor of 3/2|no multiple"),
    "addmm": (lambda x: torch.addmm(x.new_zeros(1), WEIGHT.t(), x[0].t()), "sums|mat|size"),
    "tensordot": (lambda x: torch.tensordot(x, x, ([2], [2])), "itself|axis"),
    "diff with more": (lambda x: torch.diff(x, prepend=x[..., :1]), "before or after|keeps"),
    "classes of the numbers": (lambda x: F.one_hot((x > 0).long()), "give num_classes"),
    "a tensor's place": (lambda x: x[..., : torch.tensor(10_000)], "first 10000 samples"),
    "cummax's places": (lambda x: x.cummax(-1).indices, "end of the signal"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_not_be_followed_says_why(name):
    function, words = REFUSED[name]
    with pytest.raises((tw.TimelineError, ValueError), match=words):
        tw.inspect(Of(lambda self, x: function(x)), X)
