import copy
import importlib.metadata
import io
import pickle

import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import tapwise as tw
from strategies import paddings
from tapwise.padding import PADDING_MODES


@given(st.integers(1, 5), st.integers(1, 3), st.integers(1, 3), st.booleans())
def test_a_layer_is_torchs_where_torch_has_it(kernel_size, stride, dilation, bias):
    settings = {"stride": stride, "padding": 2, "dilation": dilation, "groups": 2, "bias": bias}
    for mode in PADDING_MODES:
        torch.manual_seed(7)
        theirs = nn.Conv1d(4, 6, kernel_size, padding_mode=mode, **settings)
        torch.manual_seed(7)
        ours = tw.Conv1d(4, 6, kernel_size, padding_mode=mode, **settings)
        assert isinstance(ours, nn.Conv1d)
        assert ours.padding == theirs.padding == (2,)
        assert repr(ours) == repr(theirs)
        x = torch.randn(2, 4, 20)
        torch.testing.assert_close(ours(x), theirs(x))
        other = nn.Conv1d(4, 6, kernel_size, padding_mode=mode, **settings)
        other.load_state_dict(ours.state_dict())
        ours.load_state_dict(other.state_dict())
        assert torch.equal(ours.weight, theirs.weight)


@given(paddings, st.integers(1, 6), st.integers(1, 4))
def test_padding_is_held_as_the_truth(padding, kernel_size, stride):
    layer = tw.Conv1d(1, 1, kernel_size, stride, padding)
    held = padding if isinstance(padding, str | tuple) else (padding,)
    assert layer.padding == held
    assert layer.kernel_size == (kernel_size,)
    pads = tw.Geometry(kernel_size, stride, 1, padding).padding
    assert tuple(layer._reversed_padding_repeated_twice) == pads
    assert f"padding={held}" in repr(layer) or not any(pads)


@pytest.mark.parametrize("stride", [1, 2, 5])
@pytest.mark.parametrize("dilation", [1, 3])
def test_a_causal_layer_never_sees_the_future(stride, dilation):
    layer = tw.CausalConv1d(2, 3, 4, stride=stride, dilation=dilation)
    x = torch.randn(1, 2, 40)
    y = layer(x)
    assert y.shape[-1] == -(-40 // stride)
    for cut in range(1, 40):
        torch.testing.assert_close(layer(x[..., :cut]), y[..., : -(-cut // stride)])


def test_a_causal_transposed_layer_never_sees_the_future():
    layer = tw.CausalConvTranspose1d(2, 3, 7, stride=3)
    x = torch.randn(1, 2, 10)
    y = layer(x)
    assert y.shape[-1] == 30
    for cut in range(1, 10):
        torch.testing.assert_close(layer(x[..., :cut]), y[..., : cut * 3])


def test_a_weight_of_another_length_may_be_put_in_afterwards():
    layer = tw.CausalConv1d(1, 1, 3, bias=False)
    layer.weight = nn.Parameter(torch.full((1, 1, 5), 0.5))
    x = torch.arange(8.0).reshape(1, 1, 8)
    assert layer(x).shape == (1, 1, 8)
    assert layer(x).tolist() == tw.conv1d(x, layer.weight, padding="causal").tolist()
    state = layer.init_state()
    y, _ = layer.step(x, state)
    assert torch.equal(y, layer(x))


def test_the_checkpoint_of_a_wrapping_causal_layer_loads():
    class Wrapping(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1d = nn.Conv1d(2, 3, 4)

    class Model(nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.first = layer

    theirs, ours = Model(Wrapping()), Model(tw.CausalConv1d(2, 3, 4))
    checkpoint = theirs.state_dict()
    names = list(checkpoint)
    assert ours.load_state_dict(checkpoint).missing_keys == []
    assert torch.equal(ours.first.weight, theirs.first.conv1d.weight)
    assert torch.equal(ours.first.bias, theirs.first.conv1d.bias)
    assert list(checkpoint) == names


def test_copies_pickles_and_parametrizations():
    layer = tw.Conv1d(2, 4, 3, padding="semicausal", stride=2)
    x = torch.randn(1, 2, 15)
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), torch.load(file, weights_only=False)):
        assert torch.equal(other(x), layer(x))
        assert other.padding == "semicausal"
    normed = nn.utils.parametrizations.weight_norm(copy.deepcopy(layer))
    torch.testing.assert_close(normed(x), layer(x))
    assert layer.to(torch.float64)(x.double()).dtype == torch.float64


@given(st.integers(1, 12), st.integers(1, 40), st.sampled_from(["causal", "full", "same"]))
def test_from_taps_filters_as_scipy_and_numpy_do(kernel_size, length, padding):
    random = np.random.default_rng(kernel_size * 100 + length)
    taps, x = random.standard_normal(kernel_size), random.standard_normal((3, length))
    layer = tw.Conv1d.from_taps(taps, 3, padding, dtype=torch.float64)
    y = layer(torch.from_numpy(x)[None])[0].detach().numpy()
    if padding == "causal":
        expected = scipy.signal.lfilter(taps, 1, x)
    elif padding == "full":
        expected = np.stack([np.convolve(row, taps) for row in x])
    else:
        full = np.stack([np.convolve(row, taps) for row in x])
        start = kernel_size // 2
        expected = full[:, start : start + length]
    np.testing.assert_allclose(y, expected, atol=1e-12)
    as_they_stand = tw.Conv1d.from_taps(taps, flip=False, dtype=torch.float64)
    assert as_they_stand.weight.flatten().tolist() == taps.tolist()


def test_from_taps_dtypes_and_errors():
    assert tw.Conv1d.from_taps([1, 2]).weight.dtype == torch.float32
    assert tw.Conv1d.from_taps(torch.ones(2, dtype=torch.float64)).weight.dtype == torch.float64
    assert tw.Conv1d.from_taps(torch.ones(2, dtype=torch.int64)).weight.dtype == torch.float32
    for taps in ([], [[1, 2]], 3):
        with pytest.raises(tw.ShapeError, match="one list of numbers"):
            tw.Conv1d.from_taps(taps)


def test_from_taps_keeps_complex_numbers():
    for taps in ([1j, 1.0], np.array([1j, 1]), torch.tensor([1j, 1.0])):
        layer = tw.Conv1d.from_taps(taps)
        assert layer.weight.dtype == torch.complex64
        assert layer.weight.flatten().tolist() == [1, 1j]
    with pytest.raises(tw.ShapeError, match="complex taps need a complex layer"):
        tw.Conv1d.from_taps([1j, 1], dtype=torch.float32)


def test_output_size_of_a_causal_layer_with_gaps():
    layer, x = tw.CausalConvTranspose1d(1, 1, 1, stride=4), torch.ones(1, 1, 5)
    assert layer(x, [20]).shape[-1] == 20
    with pytest.raises(ValueError, match=r"range from \[20\] to \[20\]"):
        layer(x, [21])


def test_outputs_are_contiguous():
    x = torch.randn(2, 2, 5)
    for layer in (
        tw.CausalConvTranspose1d(2, 2, 4, stride=2, bias=False),
        tw.ConvTranspose1d(2, 2, 4, padding=(0, 2), bias=False),
        tw.CausalConv1d(2, 2, 3),
    ):
        assert layer(x).is_contiguous()


def test_output_size_of_transposed_is_torchs():
    for stride in (1, 2, 5):
        theirs = nn.ConvTranspose1d(2, 2, 3, stride, 1)
        ours = tw.ConvTranspose1d(2, 2, 3, stride, 1)
        ours.load_state_dict(theirs.state_dict())
        x = torch.randn(1, 2, 7)
        least = theirs(x).shape[-1]
        for size in range(least, least + stride):
            for given_size in ([size], [1, 2, size]):
                torch.testing.assert_close(ours(x, given_size), theirs(x, given_size))
        for size in (least - 1, least + stride):
            with pytest.raises(ValueError, match="requested an output size"):
                theirs(x, [size])
            with pytest.raises(ValueError, match="requested an output size"):
                ours(x, [size])
        with pytest.raises(ValueError, match="must have 1 or 3 elements"):
            ours(x, [1, 2])


@pytest.mark.parametrize("layer", [tw.Conv1d, tw.ConvTranspose1d])
def test_errors_at_construction(layer):
    with pytest.raises(tw.ShapeError, match=r"in_channels \(6\) and groups \(4\)"):
        layer(6, 8, 3, groups=4)
    with pytest.raises(tw.ShapeError, match=r"out_channels \(6\) and groups \(4\)"):
        layer(8, 6, 3, groups=4)
    with pytest.raises(tw.ShapeError, match="negative padding"):
        layer(1, 1, 3, padding=-1)
    with pytest.raises(tw.ShapeError, match="Invalid padding string"):
        layer(1, 1, 3, padding="casual")


def test_what_is_no_tap_and_no_state_is_said():
    with pytest.raises(TypeError, match=r"got 'lowpass': scipy.signal.firwin"):
        tw.Conv1d.from_taps("lowpass")
    with pytest.raises(TypeError, match=r"got NoneType: init_state\(\) makes one"):
        tw.CausalConv1d(1, 1, 3).step(torch.zeros(1, 1, 4), None)


def test_the_version_is_the_distributions():
    assert tw.__version__ == importlib.metadata.version("tapwise")


# What torch's own tests ask for


@pytest.mark.parametrize("ours", [tw.Conv1d, tw.ConvTranspose1d])
@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"groups": 0}, "groups must be a positive integer"),
        ({"groups": -1}, "groups must be a positive integer"),
        ({"in_channels": 3, "groups": 2}, "in_channels must be divisible by groups"),
        ({"out_channels": 3, "groups": 2}, "out_channels must be divisible by groups"),
        ({"padding_mode": "wrap"}, 'padding_mode must be one of|Only "zeros" padding mode'),
    ],
)
def test_constructors_raise_torchs_errors(ours, settings, sentence):
    arguments = {"in_channels": 4, "out_channels": 4, "kernel_size": 3, **settings}
    theirs = getattr(nn, ours.__name__)
    for layer in (theirs, ours):
        with pytest.raises(ValueError, match=sentence):
            layer(**arguments)


def test_a_padding_word_that_is_nearly_one():
    with pytest.raises(
        ValueError, match=r"Invalid padding string 'casual', should be one of(?s:.*)did you mean 'causal'"
    ):
        tw.Conv1d(1, 1, 3, padding="casual")


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_no_input_channels_as_torch_has_them():
    x = torch.randn(2, 0, 15, dtype=torch.float64, requires_grad=True)
    for layer in (nn.Conv1d(0, 8, 2, stride=2).double(), tw.Conv1d(0, 8, 2, stride=2).double()):
        y = layer(x)
        assert y.shape == (2, 0, 7)
        y.backward(torch.rand_like(y))
        assert all(not p.grad.any() for p in layer.parameters())
        assert x.grad.shape == x.shape
    with pytest.raises(RuntimeError, match="non-empty"):
        tw.ConvTranspose1d(4, 0, 3)(torch.ones(1, 4, 12))


@pytest.mark.timeout(60)
def test_our_functions_may_stand_in_the_place_of_torchs(monkeypatch):
    x, weight = torch.randn(1, 2, 30), torch.randn(2, 2, 3)
    want = F.conv1d(x, weight), F.conv_transpose1d(x, weight, stride=2)
    for name in ("conv1d", "conv_transpose1d"):
        for place in (F, torch):
            monkeypatch.setattr(place, name, getattr(tw, name))
    torch.testing.assert_close(F.conv1d(x, weight), want[0])
    torch.testing.assert_close(F.conv_transpose1d(x, weight, stride=2), want[1])
    up = tw.ConvTranspose1d(2, 2, 3, stride=2, padding=(1, 0))
    up(x.requires_grad_()).sum().backward()
    assert tw.conv1d(x, weight, padding=(2, 0), padding_mode="reflect").shape == (1, 2, 30)
    pure = tw.stream(nn.Sequential(nn.Conv1d(2, 2, 3), up), x).functional(4)
    init_state, step = pure
    step(torch.zeros(1, 2, 4), init_state(1))


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_quantised_tensors_are_refused_by_name():
    x = torch.quantize_per_tensor(torch.randn(1, 1, 9), 0.1, 0, torch.quint8)
    with pytest.raises(tw.ShapeError, match=r"quantised(?s:.*)x.dequantize\(\)"):
        tw.Conv1d(1, 1, 3)(x)
