import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import oracle
import tapwise as tw
from strategies import convolutions, transposed
from tapwise.padding import PADDING_MODES, PADDING_WORDS


def brute(geometry):
    """The oracle's convolution of this geometry, all taps 1."""
    groups = geometry.groups
    ones = np.ones((groups, 1, geometry.kernel_size))

    def convolve(x):
        x = np.repeat(x, groups, axis=1)
        if geometry.transposed:
            y = oracle.conv_transpose1d(
                x, ones, None, geometry.stride, geometry.padding, geometry.output_padding, geometry.dilation, groups
            )
        else:
            y = oracle.conv1d(
                x, ones, None, geometry.stride, geometry.padding, geometry.dilation, groups, geometry.padding_mode
            )
        return y[:, :1]

    return convolve


@given(st.one_of(convolutions(), transposed()))
def test_windows_lengths_and_feeds_are_the_oracles(case):
    geometry, length = case
    reached = oracle.influence(brute(geometry), length)
    assert geometry.output_length(length) == len(reached)
    for i, inputs in enumerate(reached):
        assert {j for j, _ in geometry.reads(i, length)} == inputs
    for j in range(length):
        assert set(geometry.feeds(j, length)) == {i for i, inputs in enumerate(reached) if j in inputs}
        assert list(geometry.feeds(j, length)) == sorted(set(geometry.feeds(j, length)))


@given(convolutions())
def test_each_window_holds_one_position_a_tap_in_the_order_of_the_taps(case):
    geometry, length = case
    for i in range(min(geometry.output_length(length), 5)):
        window = geometry.window(i)
        assert len(window) == geometry.kernel_size
        assert window[0] == i * geometry.stride - geometry.left
        assert set(np.diff(window)) <= {geometry.dilation}
        marks = np.arange(1.0, length + 1)[None, None]
        line = oracle.padded(marks, *geometry.padding, geometry.padding_mode)[0, 0]
        for position in window:
            source = geometry.source(position, length)
            assert line[position + geometry.left] == (0 if source is None else source + 1)


@given(st.one_of(convolutions(), transposed()), st.integers(1, 30))
def test_input_length_is_the_shortest_that_gives_as_many_outputs(case, outputs):
    geometry, _ = case
    needed = geometry.input_length(outputs)
    assert geometry.output_length(needed) >= outputs
    assert needed == 0 or geometry.output_length(needed - 1) < outputs


@pytest.mark.parametrize("word", PADDING_WORDS)
def test_words_keep_their_promises_on_the_full_grid(word):
    for kernel_size in range(1, 9):
        for stride in range(1, 13):
            for dilation in range(1, 4):
                geometry = tw.Geometry(kernel_size, stride, dilation, word)
                assert geometry.padding == oracle.pads_of_word(word, kernel_size, stride, dilation)
                reach = geometry.effective_kernel_size
                for length in range(30):
                    outputs = geometry.output_length(length)
                    if word in ("same", "causal", "semicausal"):
                        assert outputs == -(-length // stride)
                    elif word == "valid":
                        assert outputs == len(range(0, length - reach + 1, stride))
                    else:
                        assert outputs == max(0, (length + reach - 2) // stride + 1)
                    for i in range(outputs):
                        if word == "causal":
                            assert geometry.window(i)[-1] == i * stride
                        if word == "semicausal" and reach >= stride:
                            assert geometry.window(i)[-1] == (i + 1) * stride - 1


@given(convolutions(modes=("zeros",)))
def test_lengths_are_torchs(case):
    geometry, length = case
    x = torch.nn.functional.pad(torch.zeros(1, 1, length), geometry.padding)
    y = torch.nn.functional.conv1d(
        x, torch.zeros(1, 1, geometry.kernel_size), None, geometry.stride, 0, geometry.dilation
    )
    assert y.shape[-1] == geometry.output_length(length)


@given(transposed())
def test_transposed_lengths_are_torchs(case):
    geometry, length = case
    y = torch.nn.functional.conv_transpose1d(
        torch.zeros(1, 1, length),
        torch.zeros(1, 1, geometry.kernel_size),
        None,
        geometry.stride,
        0,
        0,
        1,
        geometry.dilation,
    )
    whole = y.shape[-1] + geometry.output_padding - sum(geometry.padding)
    assert whole == geometry.output_length(length)


def test_causal_transposed_gives_stride_outputs_an_input_and_never_looks_ahead():
    for kernel_size in range(1, 12):
        for stride in range(1, 9):
            for dilation in (1, 2, 3):
                geometry = tw.Geometry(kernel_size, stride, dilation, padding="causal", transposed=True)
                for length in (0, 1, 2, 7):
                    assert geometry.output_length(length) == length * stride
                    for i in range(length * stride):
                        assert all(j <= i // stride for j, _ in geometry.reads(i, length))


@pytest.mark.parametrize(
    "layer",
    [
        torch.nn.Conv1d(4, 6, 5, 2, 3, 2, 2, padding_mode="reflect"),
        torch.nn.Conv1d(4, 6, 4, padding="same"),
        torch.nn.ConvTranspose1d(4, 6, 5, 3, 1, 2, 2, dilation=2),
        tw.Conv1d(4, 6, 5, padding=(1, 2)),
        tw.CausalConv1d(4, 6, 5, stride=2),
        tw.CausalConvTranspose1d(4, 6, 2, stride=5),
    ],
)
def test_geometry_of_a_layer_is_that_of_its_outputs(layer):
    geometry = tw.Geometry.of(layer)
    for length in range(8, 20):
        assert layer(torch.zeros(1, 4, length)).shape[-1] == geometry.output_length(length)
    assert geometry.groups == layer.groups
    assert geometry.transposed == layer.transposed


def test_geometry_of_something_else_is_a_type_error():
    for thing in (torch.nn.Linear(3, 3), torch.nn.Conv2d(1, 1, 3), 3):
        with pytest.raises(TypeError, match="one-dimensional convolution"):
            tw.Geometry.of(thing)


def test_it_is_a_value():
    one, other = tw.Geometry(3, padding="causal"), tw.Geometry(3, padding=(2, 0))
    assert one == other
    assert hash(one) == hash(other)
    assert pickle.loads(pickle.dumps(one)) == one
    with pytest.raises(AttributeError):
        one.stride = 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"kernel_size": 0}, "kernel size should be greater than zero"),
        ({"stride": 0}, "non-positive stride is not supported"),
        ({"dilation": -1}, "dilation should be greater than zero"),
        ({"groups": 0}, "non-positive groups is not supported"),
        ({"padding": -1}, "negative padding is not supported"),
        ({"padding": (1, -2)}, "negative padding is not supported"),
        ({"padding": (1, 2, 3)}, "or a pair"),
        ({"padding": "casual"}, "Invalid padding string 'casual'"),
        ({"padding": 2**63}, "beyond the largest supported value"),
        ({"dilation": 2**31}, "beyond the largest supported value"),
        ({"padding_mode": "mirror"}, "padding_mode must be one of"),
        ({"output_padding": 1}, "output_padding belongs to transposed"),
        ({"transposed": True, "padding": "same"}, "Invalid padding string"),
        ({"transposed": True, "padding_mode": "reflect"}, 'Only "zeros" padding mode'),
        ({"transposed": True, "output_padding": -1}, "negative output_padding"),
    ],
)
def test_impossible_values_are_refused_with_what_was_got(arguments, sentence):
    with pytest.raises(tw.ShapeError, match=sentence):
        tw.Geometry(**{"kernel_size": 3, **arguments})


@pytest.mark.parametrize("value", [1.5, "3", None])
def test_what_is_no_integer_is_a_type_error(value):
    with pytest.raises(TypeError, match="stride must be an integer"):
        tw.Geometry(3, stride=value)


@pytest.mark.parametrize(("mode", "length"), [("reflect", 1), ("replicate", 0), ("circular", 0)])
def test_padding_that_too_few_samples_cant_fill(mode, length):
    with pytest.raises(tw.ShapeError, match="can't fill padding"):
        tw.Geometry(3, padding=1, padding_mode=mode).source(-1, length)


def test_feeds_names_inputs_outside():
    with pytest.raises(IndexError, match=r"input 10 is outside \[0, 10\)"):
        tw.Geometry(3).feeds(10, 10)


def test_every_mode_is_known_to_the_oracle():
    assert set(PADDING_MODES) == {"zeros", "reflect", "replicate", "circular"}


VECTORS = json.loads((Path(__file__).parent / "data" / "geometry.json").read_text())


@pytest.mark.parametrize("n", range(0, len(VECTORS), 10))
def test_the_vectors_that_the_page_is_held_to_as_well(n):
    for v in VECTORS[n : n + 10]:
        geometry = tw.Geometry(
            v["kernel_size"],
            v["stride"],
            v["dilation"],
            v["padding"],
            1,
            v["padding_mode"],
            v["transposed"],
            v["output_padding"],
        )
        assert list(geometry.padding) == v["pads"]
        assert geometry.output_length(v["length"]) == len(v["reads"])
        for i, reads in enumerate(v["reads"]):
            met = {j for j, _ in geometry.reads(i, v["length"]) if 0 <= j < v["length"]}
            assert sorted(met) == reads
        for j in range(v["length"]):
            fed = [i for i, reads in enumerate(v["reads"]) if j in reads]
            assert list(geometry.feeds(j, v["length"])) == fed
