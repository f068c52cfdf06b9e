"""What reviews and fuzzing found in streams: each was wrong once."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tapwise as tw
from networks import Of
from streamed import streamed
from tapwise.engine.kernels import gemm
from tapwise.network import rules

X = torch.randn(2, 4, 100)


def equal(model, x, sizes=(13, 0, 40)):
    live = tw.stream(model, x)
    rest = x.shape[-1] - sum(sizes)
    y = torch.cat(streamed(live, x, [*sizes, rest]), -1)
    torch.testing.assert_close(y, model(x), rtol=1e-4, atol=1e-5)
    return live


def test_a_recurrence_over_bands_has_a_state_for_each():
    def bands(self, x):
        y = self.rnn(x.reshape(-1, x.shape[2], 1))[0]
        return y.reshape(x.shape[0], 4, x.shape[2], 8).permute(0, 1, 3, 2)

    for kind in (nn.LSTM, nn.GRU):
        model = Of(bands, rnn=kind(1, 8, batch_first=True)).eval()
        live = equal(model, X)
        live.reset(batch=3)
        live.step(torch.randn(3, 4, 20))
        live.reset(torch.tensor([True, False, False]))
        _, lengths = live.step(torch.randn(3, 4, 5))
        assert lengths.tolist() == [5, 5, 5]


def test_time_first_recurrences_of_one_row():
    model = Of(lambda self, x: self.rnn(x)[0], rnn=nn.GRU(4, 8)).eval()
    for rows in (1, 2):
        x = torch.randn(50, rows, 4)
        live = tw.stream(model, x, time=0)
        y = torch.cat([live.step(x[:20]), live.step(x[20:]), live.flush()])
        torch.testing.assert_close(y, model(x))


@pytest.mark.parametrize(
    "function",
    [
        lambda self, x: self.c(F.pad(x, (6, 6), mode="reflect" if x.shape[-1] > 6 else "constant")),
        lambda self, x: self.c(F.pad(x, (6, 6), "reflect") if x.shape[-1] > 6 else F.pad(x, (6, 6))),
        lambda self, x: self.c(F.pad(x, (0, max(0, 64 - x.shape[-1])))),
        lambda self, x: self.c(F.pad(x, (0, 64 - x.shape[-1])) if x.shape[-1] < 64 else x),
    ],
)
def test_models_that_do_otherwise_for_short_signals(function):
    model = Of(function, c=nn.Conv1d(4, 3, 13))
    live = tw.stream(model, X)
    for length in (5, 6, 7, 12, 40, 63, 64, 65, 90):
        x = torch.randn(2, 4, length)
        try:
            whole = model(x)
        except RuntimeError:
            continue
        y = torch.cat(streamed(live, x, [1, 0, 2, length - 3]), -1)
        torch.testing.assert_close(y, whole, rtol=1e-4, atol=1e-5)


def test_too_short_a_signal_gives_nothing_and_leaves_a_stream_that_goes_on():
    model = nn.Conv1d(4, 4, 7, padding=3, padding_mode="reflect")
    live = tw.stream(model, X)
    live.step(X[..., :1])
    assert live.flush().shape[-1] == 0
    torch.testing.assert_close(torch.cat(streamed(live, X, [50, 50]), -1), model(X))


def test_rows_that_cannot_go_apart_take_no_masks():
    def mixed(self, x):
        one, other = self.c(torch.cat([x, x.flip(1)], 0)).chunk(2, 0)
        return one - other

    def turned(self, x):
        y = self.c(x.transpose(0, 1).reshape(-1, 1, x.shape[-1]))
        return y.reshape(4, -1, x.shape[-1]).transpose(0, 1)

    for model in (
        Of(mixed, c=nn.Conv1d(4, 4, 5, padding=2)),
        Of(turned, c=nn.Conv1d(1, 1, 5, padding=2)),
        Of(lambda self, x: self.c(x).softmax(0), c=nn.Conv1d(4, 4, 5, padding=2)),
    ):
        live = equal(model, X)
        with pytest.raises(tw.ShapeError, match="told apart"):
            live.reset(torch.tensor([True, False]))
    live = equal(nn.Conv1d(4, 4, 5, padding=2), X)
    live.reset(torch.tensor([True, False]))


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda self, x: (lambda a, b: torch.relu(a if x.shape[-1] % 2 else b))(x * 2, x * 3), "other operations"),
        (lambda self, x: x[:, x.shape[-1] % 2], "depends on the length"),
        (lambda self, x: (x * 2, x.shape[-1] % 3), "isn't the same for every length"),
        (lambda self, x: x.flip(1, 2), "all of time"),
        (lambda self, x: x.renorm(2, 1, 1.0), "isn't known"),
        (lambda self, x: F.rrelu(x, training=True), "is random"),
        (lambda self, x: F.interpolate(x[:, None], scale_factor=2.0), "other axes"),
    ],
)
def test_what_was_let_through_is_refused(function, words):
    with pytest.raises(tw.TimelineError, match=words):
        tw.stream(Of(function), X)


def test_a_stream_that_is_made_is_held_against_the_model(monkeypatch):
    from tapwise.network.timeline import Aligned

    monkeypatch.setitem(rules.SHAPES, "flip", lambda bundle: bundle.add(Aligned(), bundle.apply()))
    with pytest.raises(tw.StreamMismatchError, match="flip in the model itself"):
        tw.stream(Of(lambda self, x: x.flip(-1)), X)


def test_long_filters_follow_their_weights():
    model = nn.Conv1d(1, 1, 1500, padding=1499, bias=False)
    x = torch.randn(1, 1, 4000)
    live = equal(model, x, (700, 900))
    with torch.no_grad():
        model.weight.mul_(2)
    torch.testing.assert_close(torch.cat(streamed(live, x, [300, 3700]), -1), model(x), rtol=1e-4, atol=1e-4)


def test_kinds_of_numbers_change_on_the_way():
    model = Of(
        lambda self, t: self.c(self.e(t).transpose(1, 2)), e=nn.Embedding(10, 4), c=nn.Conv1d(4, 4, 3, padding=1)
    )
    tokens = torch.randint(0, 10, (2, 100))
    live = tw.stream(model, tokens)
    live.step(tokens[:, :10])
    other = live.fork()
    assert torch.equal(other.step(tokens[:, 10:20]), live.step(tokens[:, 10:20]))
    live.reset(torch.tensor([True, False]))
    y, lengths = live.step(tokens[:, :7])
    assert y.dtype == torch.float32
    assert lengths.tolist() == [6, 7]
    codes = Of(lambda self, x: self.c(x).argmax(1), c=nn.Conv1d(4, 9, 3))
    parts = streamed(tw.stream(codes, X), X, [1, 99])
    assert {part.dtype for part in parts} == {torch.int64}
    assert torch.equal(torch.cat(parts, -1), codes(X))
    wide = Of(lambda self, x: self.c(x.float()), c=nn.Conv1d(4, 2, 1200))
    x = torch.randn(1, 4, 3000, dtype=torch.float64)
    y = torch.cat(streamed(tw.stream(wide, x), x, [1000, 2000]), -1)
    torch.testing.assert_close(y, wide(x), rtol=1e-4, atol=1e-4)


def test_a_model_that_casts_by_itself_is_refused():
    def inner(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            return self.c(x)

    with pytest.raises(tw.TimelineError, match="autocast"):
        tw.stream(Of(inner, c=nn.Conv1d(4, 2, 3)), X)


def test_states_of_like_layers_are_told_apart():
    one, other = (tw.stream(nn.Conv1d(4, 4, k), X) for k in (9, 5))
    one.step(X)
    with pytest.raises(tw.ShapeError, match="another model's"):
        other.load_state(one.state)


def test_a_taught_operation_in_slots_and_as_a_subclass():
    class Delay(nn.Module):
        def forward(self, x):
            return F.pad(x, (3, 0))[..., :-3]

    class Later(Delay):
        pass

    def step(module, inputs, state, end):
        (x,) = inputs
        held = x.new_zeros(*x.shape[:-1], 3) if state is None else state["held"]
        both = torch.cat((held, x), -1)
        return both[..., : x.shape[-1]], {"held": both[..., x.shape[-1] :]}

    tw.register(Delay, tw.Geometry(2, dilation=3, padding=(3, 0)), step)
    try:
        live = equal(nn.Sequential(nn.Conv1d(4, 4, 2), Later()), X)
        live.step(torch.zeros(2, 4, 0))
        live.reset(torch.tensor([True, False]))
        live.step(X)
    finally:
        rules.unregister(Delay)


@pytest.mark.parametrize(
    "model",
    [
        Of(
            lambda self, x: self.d(self.e(self.c(x).argmax(1)).transpose(1, 2)),
            c=nn.Conv1d(4, 9, 3),
            e=nn.Embedding(9, 4),
            d=nn.Conv1d(4, 1, 3),
        ),
        Of(lambda self, x: x * (x > 0).float()),
        Of(lambda self, x: torch.where(x > 0, x, torch.zeros_like(x))),
        Of(lambda self, x: torch.nan_to_num(x)),
        Of(lambda self, x: torch.cat([x.new_zeros(*x.shape[:-1], 3), x], -1)),
        Of(lambda self, x: torch.maximum(x, torch.zeros(1)) + torch.max(x, torch.zeros(1))),
        Of(lambda self, x: x.mean(1, keepdim=True).expand_as(x) + x),
        nn.Dropout1d().eval(),
        nn.InstanceNorm1d(4, track_running_stats=True).eval(),
    ],
)
def test_models_that_were_refused_are_read(model):
    tw.inspect(model, X)
    live = tw.stream(model, X)
    y = torch.cat(streamed(live, X, [40, 60]), -1)
    torch.testing.assert_close(y, model.eval()(X), rtol=1e-4, atol=1e-5)


def test_inference_mode_and_strides_longer_than_a_few_samples():
    class Quick(nn.Module):
        def __init__(self):
            super().__init__()
            self.c = nn.Conv1d(4, 4, 3)

        @torch.inference_mode()
        def forward(self, x):
            return self.c(x) * 2

    equal(Quick(), X)
    wide = nn.Sequential(nn.Conv1d(1, 1024, 600, stride=512), *(nn.Tanh() for _ in range(12)))
    x = torch.randn(1, 1, 8192)
    equal(wide, x, (1000, 3000))


def test_filters_keep_what_scipy_keeps():
    import numpy as np
    import scipy.signal

    taps = np.array([0.5, 0.25, 0.1])
    whole = torch.arange(20)[None, None]
    np.testing.assert_allclose(tw.Upfirdn(taps)(whole)[0, 0], scipy.signal.upfirdn(taps, np.arange(20)))
    both = taps + 1j * taps[::-1]
    np.testing.assert_allclose(tw.Upfirdn(both)(X.double()), scipy.signal.upfirdn(both, X.double().numpy()), atol=1e-9)
    own = scipy.signal.firwin(41, 1 / 3)
    want = scipy.signal.resample_poly(X.double().numpy(), 3, 2, axis=-1, window=own)
    np.testing.assert_allclose(tw.Resample(3, 2, window=own)(X.double()), want, atol=1e-9)


def test_pure_forms_of_several_outputs_and_of_padding_after_a_look_ahead():
    model = Of(
        lambda self, x: (self.a(x), self.b(x)), a=nn.Conv1d(4, 4, 3, padding=1), b=nn.Conv1d(4, 4, 21, padding=10)
    )
    pure = tw.stream(model, X).functional(8)
    (init_state, step), parts = pure, []
    state = init_state(2)
    for chunk in X[..., :96].split(8, -1):
        y, state = step(chunk, state)
        parts.append(y)
    for n, (lead, whole) in enumerate(zip(pure.leads, model(X), strict=True)):
        y = torch.cat([part[n] for part in parts], -1)[..., lead:]
        torch.testing.assert_close(y, whole[..., : y.shape[-1]], rtol=1e-4, atol=1e-5)
    late = nn.Sequential(nn.Conv1d(4, 4, 12), nn.ReflectionPad1d(3), nn.Conv1d(4, 4, 7))
    live = tw.stream(late, X)
    for chunk in (8, 16, 48):
        try:
            init_state, step = pure = live.functional(chunk)
        except tw.TimelineError:
            continue
        state, parts = init_state(2), []
        for part in X[..., :96].split(chunk, -1):
            y, state = step(part, state)
            parts.append(y)
        y = torch.cat(parts, -1)[..., pure.lead :]
        many = min(y.shape[-1], 70)
        torch.testing.assert_close(y[..., :many], late(X)[..., :many], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("settings", [(64, 256, 16, 8, 1), (256, 256, 12, 5, 2), (512, 128, 7, 3, 1)])
def test_frames_of_a_large_transposed_layer(settings):
    """Few inputs are one product of matrices: the same outputs and gradients."""
    torch.manual_seed(0)
    fan_in, fan_out, taps, stride, groups = settings
    layer = nn.ConvTranspose1d(fan_in, fan_out, taps, stride, 2, 1, groups, dilation=2).double().eval()
    x = torch.randn(2, fan_in, 9, dtype=torch.float64)
    stream = tw.stream(layer, x)
    parts = [stream.step(part) for part in (x[..., :1], x[..., 1:2], x[..., 2:5], x[..., 5:])]
    y = torch.cat([part for part in (*parts, stream.flush()) if part is not None], -1)
    torch.testing.assert_close(y, layer(x))


def test_a_batch_of_frames_takes_the_way_of_one(monkeypatch):
    """A row's way to its outputs must not depend on the rows beside it."""
    taken, product = [], gemm._all_taps
    monkeypatch.setattr(gemm, "_all_taps", lambda g, x, *a: taken.append(x.shape) or product(g, x, *a))
    layer = tw.CausalConvTranspose1d(256, 256, 8, stride=4).requires_grad_(False)
    state = layer.init_state(3)
    x = torch.randn(3, 256, 13)
    y, state = layer.step(x[..., :2], state)
    assert taken == 3 * [(256, 2)]
    alone, _ = layer.step(x[1:2, :, :2], layer.init_state())
    torch.testing.assert_close(y[1:2], alone, rtol=0, atol=0)
    layer.step(x[..., 2:], state)
    assert len(taken) == 4  # more inputs are torch's


def test_gradients_of_frames_of_a_large_transposed_layer():
    torch.manual_seed(0)
    layer = tw.CausalConvTranspose1d(256, 128, 8, stride=4).double()
    x = torch.randn(2, 256, 3, dtype=torch.float64, requires_grad=True)
    state, parts = layer.init_state(2), []
    for n in range(3):
        y, state = layer.step(x[..., n : n + 1], state)
        parts.append(y)
    streamed = torch.cat(parts, -1)
    offline = layer(x)
    torch.testing.assert_close(streamed, offline[..., : streamed.shape[-1]])
    leaves = (x, layer.weight, layer.bias)
    ours, theirs = (torch.autograd.grad(y[..., :12].square().sum(), leaves) for y in (streamed, offline))
    torch.testing.assert_close(ours, theirs)


def test_a_state_of_the_version_before_is_refused_where_it_means_something_else():
    for model, fits in ((nn.Conv1d(2, 2, 3), True), (nn.ConvTranspose1d(2, 2, 2, 1), False)):
        stream = tw.stream(model.eval(), torch.randn(1, 2, 20))
        stream.step(torch.randn(1, 2, 7))
        state = stream.state
        del state["format"]
        if fits:
            stream.load_state(state)
        else:
            with pytest.raises(tw.ShapeError, match="another version"):
                stream.load_state(state)
