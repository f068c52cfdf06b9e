"""SciPy's filter states and changes of rate: the same numbers, and the same when streamed."""

import numpy as np
import pytest
import scipy.signal
import torch

import tapwise as tw

F64 = torch.float64


@pytest.mark.parametrize("taps", [[1.0], [2.0, -1.0], [1.0, 2.0, 3.0, 0.0], "lowpass"])
def test_states_go_both_ways(taps):
    taps = scipy.signal.firwin(101, 0.2) if taps == "lowpass" else np.array(taps)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 2, 60 + 2 * len(taps)))
    layer = tw.Conv1d.from_taps(taps, channels=2, dtype=F64)
    cut = 30 + len(taps)
    start = np.zeros((3, 2, len(taps) - 1))
    want_first, zf = scipy.signal.lfilter(taps, [1.0], x[..., :cut], zi=start)
    want_rest, _ = scipy.signal.lfilter(taps, [1.0], x[..., cut:], zi=zf)
    first, state = layer.step(torch.from_numpy(x[..., :cut]), layer.init_state(3))
    np.testing.assert_allclose(first.detach(), want_first, atol=1e-12)
    np.testing.assert_allclose(tw.zi_of_state(layer, state).detach(), zf, atol=1e-12)
    # From SciPy to a stream: what comes next is what SciPy would have given.
    rest, _ = layer.step(torch.from_numpy(x[..., cut:]), tw.state_of_zi(layer, zf))
    np.testing.assert_allclose(rest.detach(), want_rest, atol=1e-12)


def test_a_state_before_many_samples_is_that_of_zeros():
    taps = np.array([1.0, 2.0, 3.0, 4.0])
    layer = tw.Conv1d.from_taps(taps, dtype=F64)
    _, state = layer.step(torch.ones(1, 1, 1, dtype=F64), layer.init_state())
    _, zf = scipy.signal.lfilter(taps, [1.0], [1.0], zi=np.zeros(3))
    np.testing.assert_allclose(tw.zi_of_state(layer, state)[0, 0], zf)


def test_other_layers_have_no_such_state():
    for layer in (
        tw.Conv1d(1, 1, 3, padding="causal"),
        tw.Conv1d.from_taps([1.0, 1.0], padding="same"),
        tw.Conv1d.from_taps([1.0, 1.0], stride=2),
        tw.CausalConv1d(2, 2, 3, bias=False),
    ):
        with pytest.raises(tw.ShapeError, match="lfilter"):
            tw.zi_of_state(layer, layer.init_state())
    with pytest.raises(tw.ShapeError, match="zi doesn't fit"):
        tw.state_of_zi(tw.Conv1d.from_taps([1.0, 1.0, 1.0]), [1.0])


@pytest.mark.parametrize("up", [1, 2, 3, 5])
@pytest.mark.parametrize("down", [1, 2, 3, 7])
@pytest.mark.parametrize("many", [1, 4, 31])
def test_upfirdn_is_scipys_and_streams(up, down, many):
    rng = np.random.default_rng(up * 10 + down)
    taps, x = rng.standard_normal(many), rng.standard_normal((2, 3, 83))
    layer = tw.Upfirdn(taps, up, down)
    want = scipy.signal.upfirdn(taps, x, up, down)
    signal = torch.from_numpy(x)
    np.testing.assert_allclose(layer(signal), want, atol=1e-12)
    live = tw.stream(layer, signal)
    parts = [live.step(chunk) for chunk in signal.split([1, 0, 20, 3, 59], -1)] + [live.flush()]
    np.testing.assert_allclose(torch.cat(parts, -1), want, atol=1e-12)


@pytest.mark.parametrize(("up", "down"), [(1, 2), (2, 1), (3, 2), (2, 3), (160, 147), (4, 4)])
def test_resampling_is_scipys_and_streams(up, down):
    x = np.random.default_rng(0).standard_normal((1, 2, 400))
    layer = tw.Resample(up, down)
    want = scipy.signal.resample_poly(x, up, down, axis=-1)
    signal = torch.from_numpy(x)
    np.testing.assert_allclose(layer(signal), want, atol=1e-12)
    live = tw.stream(layer, signal)
    parts = [live.step(chunk) for chunk in signal.split(33, -1)] + [live.flush()]
    np.testing.assert_allclose(torch.cat(parts, -1), want, atol=1e-12)


def test_bad_rates_are_refused():
    with pytest.raises(tw.ShapeError, match="at least 1"):
        tw.Upfirdn([1.0], up=0)
    with pytest.raises(tw.ShapeError, match="one list"):
        tw.Upfirdn([[1.0]])
    with pytest.raises(ValueError, match="at least 1"):
        tw.Resample(0, 1)


def test_a_nan_reaches_the_outputs_that_read_it_alone():
    x = torch.ones(1, 1, 12, dtype=torch.float64)
    change = tw.Upfirdn([1.0, 2.0], 2, 5)
    for value in (float("nan"), float("inf")):
        x[0, 0, 6] = value
        expected = torch.from_numpy(scipy.signal.upfirdn([1.0, 2.0], x.numpy(), 2, 5))
        torch.testing.assert_close(change(x), expected, equal_nan=True)


def test_an_empty_batch_and_signals_without_one():
    change = tw.Upfirdn([1.0, 2.0, 3.0], 3, 2)
    assert change(torch.zeros(0, 1, 5)).shape == (0, 1, 8)
    assert torch.equal(change(torch.ones(2, 5)), change(torch.ones(1, 2, 5))[0])
    assert tw.verify_stream(change, torch.randn(2, 40)) < 1e-6  # of the example's rows alone: they are channels


def test_a_stream_that_only_goes_down_computes_what_it_keeps():
    report = tw.inspect(tw.Upfirdn(torch.ones(256), 1, 8), torch.randn(1, 4, 4800))
    assert report.multiplications == 4 * 256 / 8


def test_taps_that_fade_keep_scipys_states():
    taps = scipy.signal.windows.gaussian(301, 20)
    taps /= taps.sum()
    layer = tw.Conv1d.from_taps(taps, dtype=F64)
    state = tw.state_of_zi(layer, scipy.signal.lfilter_zi(taps, 1) * 5)
    y, _ = layer.step(torch.full((1, 1, 400), 5.0, dtype=F64), state)
    np.testing.assert_allclose(y.detach(), 5.0, rtol=1e-12)


def test_states_that_no_samples_give_are_refused():
    layer = tw.Conv1d.from_taps([1.0, 2.0, 0.0], dtype=F64)
    with pytest.raises(tw.ShapeError, match="before the first give this zi"):
        tw.state_of_zi(layer, [1.0, 1.0])
    y, _ = layer.step(torch.zeros(1, 1, 2, dtype=F64), tw.state_of_zi(layer, [1.0, 0.0]))
    np.testing.assert_allclose(y.detach()[0, 0], [1, 0], atol=1e-15)
    zeros = tw.Conv1d.from_taps([1.0, 0.0, 0.0], dtype=F64)
    assert not tw.state_of_zi(zeros, [0.0, 0.0]).kept.any()


def test_complex_states_keep_their_imaginary_part():
    taps = np.array([1 + 1j, 2.0, 1j])
    layer = tw.Conv1d.from_taps(taps, dtype=torch.complex128)
    zi, x = np.array([1 + 2j, 3j]), np.arange(6) * (1 - 1j)
    want, _ = scipy.signal.lfilter(taps, [1.0], x, zi=zi)
    y, _ = layer.step(torch.from_numpy(x)[None, None], tw.state_of_zi(layer, zi))
    np.testing.assert_allclose(y.detach()[0, 0], want, atol=1e-13)
    with pytest.raises(tw.ShapeError, match="complex zi"):
        tw.state_of_zi(tw.Conv1d.from_taps([1.0, 2.0]), np.array([1j]))


def test_numbers_keep_their_precision():
    x = torch.ones(1, 1, 2, dtype=F64)
    assert tw.Upfirdn([0.1])(x).tolist() == [[[0.1, 0.1]]]
    assert tw.Upfirdn([0.1])(x.float()).dtype == torch.float32
    whole = torch.tensor([[[2**24 + 1, 3]]])
    for layer in (tw.Upfirdn([1, 1]), tw.Upfirdn(torch.ones(2), 1)):
        assert layer(whole).tolist() == [[[2**24 + 1, 2**24 + 4, 3]]]
        assert layer(whole).dtype == F64
    window = np.array([0.25, 0.5j, 0.25])
    want = scipy.signal.resample_poly(np.arange(9.0), 2, 3, window=window)
    np.testing.assert_allclose(
        tw.Resample(2, 3, window)(torch.arange(9.0, dtype=F64)[None, None])[0, 0], want, atol=1e-14
    )


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("shape", [(51, 3), (61, 4), (101, 5), (301, 20)])
def test_states_of_real_runs_in_every_dtype(dtype, shape):
    taps = scipy.signal.windows.gaussian(*shape)
    taps /= taps.sum()
    layer = tw.Conv1d.from_taps(taps, dtype=dtype)
    rng = np.random.default_rng(0)
    x = rng.standard_normal(700)
    _, zf = scipy.signal.lfilter(taps, [1.0], x[:400], zi=np.zeros(len(taps) - 1))
    want, _ = scipy.signal.lfilter(taps, [1.0], x[400:], zi=zf)
    y, _ = layer.step(torch.from_numpy(x[400:])[None, None].to(dtype), tw.state_of_zi(layer, zf))
    np.testing.assert_allclose(y.detach()[0, 0], want, atol=2e-4 if dtype == torch.float32 else 1e-7)
    y, _ = layer.step(
        torch.full((1, 1, 300), 5.0, dtype=dtype), tw.state_of_zi(layer, scipy.signal.lfilter_zi(taps, 1) * 5)
    )
    np.testing.assert_allclose(y.detach(), 5.0, atol=2e-4 if dtype == torch.float32 else 1e-7)


def test_a_state_that_float32_can_not_hold_is_refused():
    taps, zi = [1.0, 2.0, 3.0, 1e-4], [1.0, 1.0, 1.0]
    with pytest.raises(tw.ShapeError, match=r"float32(?s:.*)dtype=torch.float64"):
        tw.state_of_zi(tw.Conv1d.from_taps(taps), zi)


@pytest.mark.parametrize("window", [[1.0], [1.0, 2.0, 3.0], [1.0, 2.0]])
@pytest.mark.parametrize(("up", "down"), [(7, 3), (3, 7), (5, 1), (1, 5)])
def test_short_filters_resample_to_full_length(window, up, down):
    for length in (1, 2, 20, 21):
        x = np.random.default_rng(0).standard_normal(length)
        want = scipy.signal.resample_poly(x, up, down, window=np.array(window))
        found = tw.Resample(up, down, np.array(window))(torch.from_numpy(x)[None, None])[0, 0]
        np.testing.assert_allclose(found, want, atol=1e-13)


@pytest.mark.parametrize("rate", [2.7, "3", None])
def test_rates_are_integers(rate):
    for make in (
        lambda: tw.Upfirdn([1.0], up=rate),
        lambda: tw.Upfirdn([1.0], down=rate),
        lambda: tw.Resample(rate, 1),
    ):
        with pytest.raises(TypeError, match="must be an integer"):
            make()


@pytest.mark.filterwarnings("ignore:.*jit:DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize(
    "layer", [tw.Upfirdn([0.5, 1.0, 0.5], 3, 2), tw.Resample(2, 3), tw.Conv1d.from_taps([1.0, 2.0])]
)
def test_filters_are_traced_and_exported(layer):
    x = torch.randn(1, 1, 60)
    for program in (torch.jit.trace(layer, x), torch.export.export(layer, (x,)).module()):
        torch.testing.assert_close(program(x), layer(x))


@pytest.mark.parametrize("layer", [tw.Upfirdn([1.0, 2.0], 3, 2), tw.Resample(3, 2)])
def test_what_is_no_signal_is_refused(layer):
    with pytest.raises(tw.ShapeError, match=r"x\[None, :\] makes one channel"):
        layer(torch.zeros(100))
    with pytest.raises(TypeError, match="got ndarray"):
        layer(np.zeros((1, 10)))
