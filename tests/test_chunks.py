import copy
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tapwise as tw
from strategies import convolutions, transposed

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
STREAMED = ("zeros", "reflect", "replicate")


def layer_of(geometry, bias=True):
    """A float64 layer with this geometry."""
    channels = 2 * geometry.groups
    if geometry.transposed:
        return tw.ConvTranspose1d(
            channels,
            channels,
            geometry.kernel_size,
            geometry.stride,
            geometry.padding,
            geometry.output_padding,
            geometry.groups,
            bias,
            geometry.dilation,
            dtype=torch.float64,
        )
    return tw.Conv1d(
        channels,
        channels,
        geometry.kernel_size,
        geometry.stride,
        geometry.padding,
        geometry.dilation,
        geometry.groups,
        bias,
        geometry.padding_mode,
        dtype=torch.float64,
    )


def streamed(layer, x, chunks):
    state = layer.init_state(x.shape[0] if x.ndim == 3 else None)
    pieces = []
    for chunk in x.split(chunks, dim=-1):
        y, state = layer.step(chunk, state)
        pieces.append(y)
    return torch.cat([*pieces, layer.flush(state)], dim=-1), state


@st.composite
def cuts(draw, length):
    """Ragged chunk lengths that add up to ``length``: empty, single and long ones."""
    places = sorted(draw(st.lists(st.integers(0, length), max_size=20)))
    edges = [0, *places, length]
    return [stop - start for start, stop in itertools.pairwise(edges)]


@settings(max_examples=2000)
@given(st.one_of(convolutions(STREAMED), transposed()), st.data())
def test_any_stream_is_the_offline_run(case, data):
    geometry, length = case
    torch.manual_seed(length)
    batch = data.draw(st.sampled_from([None, 0, 1, 3]))
    layer = layer_of(geometry, bias=data.draw(st.booleans()))
    shape = (layer.in_channels, length) if batch is None else (batch, layer.in_channels, length)
    x = torch.randn(shape, dtype=torch.float64)
    with torch.no_grad():
        offline = layer(x)
        online, state = streamed(layer, x, data.draw(cuts(length)))
    assert online.shape == offline.shape
    torch.testing.assert_close(online, offline, rtol=0, atol=1e-12)
    kept = geometry.effective_kernel_size + geometry.stride + geometry.left + geometry.right
    assert state.kept.shape[-1] <= kept + 1
    assert int(state.seen) == length


@given(st.one_of(convolutions(STREAMED), transposed()))
def test_a_step_gives_all_that_is_determined_and_the_flush_the_rest(case):
    geometry, length = case
    layer, x = layer_of(geometry), torch.randn(1, 2 * geometry.groups, length).double()
    state, emitted = layer.init_state(1), 0
    with torch.no_grad():
        for n in range(length):
            y, state = layer.step(x[..., n : n + 1], state)
            emitted += y.shape[-1]
            if not geometry.transposed and geometry.padding_mode != "reflect":
                complete = [i for i in range(geometry.output_length(length)) if geometry.window(i)[-1] <= n]
                assert emitted == len(complete)
            assert emitted == int(state.emitted)
        assert layer.flush(state).shape[-1] == geometry.output_length(length) - emitted


def test_too_short_a_stream_gives_nothing():
    layer = tw.Conv1d(1, 1, 5)
    y, state = layer.step(torch.ones(1, 1, 3), layer.init_state())
    assert y.shape == (1, 1, 0)
    assert layer.flush(state).shape == (1, 1, 0)
    for padding in ("causal", "full", 10):
        layer = tw.Conv1d(1, 1, 5, padding=padding)
        assert layer.flush(layer.init_state(2)).shape == (2, 1, 0)


def test_states_share_no_memory():
    layer = tw.CausalConv1d(1, 1, 4)
    chunk = torch.randn(1, 1, 6)
    before = layer.init_state()
    _, state = layer.step(chunk, before)
    assert int(before.seen) == 0
    kept = state.kept.clone()
    copies = [state.clone(), copy.deepcopy(state)]
    chunk.zero_()
    assert torch.equal(state.kept, kept)
    state.kept.zero_()
    for other in copies:
        assert torch.equal(other.kept, kept)
    ahead, _ = layer.step(torch.ones(1, 1, 2), copies[0])
    again, _ = layer.step(torch.ones(1, 1, 2), copies[0])
    assert torch.equal(ahead, again)


def test_a_state_is_a_pytree_of_tensors():
    _, state = tw.CausalConv1d(1, 1, 4).step(torch.randn(1, 1, 6), tw.CausalConv1d(1, 1, 4).init_state())
    leaves, spec = torch.utils._pytree.tree_flatten(state)
    assert [leaf.shape for leaf in leaves] == [(1, 1, 3), (), ()]
    again = torch.utils._pytree.tree_unflatten(leaves, spec)
    assert type(again) is tw.State
    assert again.kept is state.kept


def test_gradients_flow_through_a_stream():
    layer = tw.CausalConv1d(2, 2, 3, dtype=torch.float64)
    x = torch.randn(1, 2, 11, dtype=torch.float64, requires_grad=True)
    online, _ = streamed(layer, x, [4, 1, 6])
    ours = torch.autograd.grad(online.square().sum(), (x, layer.weight))
    theirs = torch.autograd.grad(layer(x).square().sum(), (x, layer.weight))
    torch.testing.assert_close(ours, theirs)


def test_what_cant_be_streamed_is_refused():
    layer = tw.Conv1d(1, 1, 3, padding=1, padding_mode="circular")
    with pytest.raises(tw.ShapeError, match="circular padding can't be streamed"):
        layer.init_state()
    tw.Conv1d(1, 1, 3, padding_mode="circular").init_state()


@pytest.mark.parametrize("shape", [(2, 1, 5), (1, 2, 5), (1, 5), (5,)])
def test_a_chunk_that_doesnt_fit_is_refused(shape):
    layer = tw.CausalConv1d(1, 1, 3)
    with pytest.raises(tw.ShapeError, match=r"expected: x of size \(1, 1, any length\)"):
        layer.step(torch.zeros(shape), layer.init_state())


def test_a_chunk_of_another_dtype_is_refused_whatever_its_length():
    layer = tw.CausalConv1d(1, 1, 3)
    for chunk in (
        torch.zeros(1, 1, 0).double(),
        torch.zeros(1, 1, 200_000).double(),
        torch.zeros(1, 1, 5, dtype=torch.int64),
    ):
        with pytest.raises(tw.ShapeError, match="should be the same"):
            layer.step(chunk, layer.init_state())


def test_a_stream_under_autocast_has_one_dtype():
    layer = tw.Conv1d(1, 1, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        state, dtypes = layer.init_state(), set()
        for chunk in torch.randn(1, 1, 12).split(3, -1):
            y, state = layer.step(chunk, state)
            dtypes.add(y.dtype)
    assert dtypes == {torch.bfloat16}


def test_counts_stay_on_the_cpu():
    layer = tw.CausalConv1d(1, 1, 3)
    with torch.device("meta"):
        state = layer.init_state()
    y, state = layer.step(torch.zeros(1, 1, 4), state)
    assert (y.shape[-1], int(state.seen)) == (4, 4)


@pytest.mark.fuzz
@given(st.one_of(convolutions(STREAMED), transposed()), st.data())
def test_streams_all_night(case, data):
    test_any_stream_is_the_offline_run.hypothesis.inner_test(case, data)


def test_a_state_of_another_dtype_or_device_is_refused_and_autocast_is_followed():
    layer, x = tw.CausalConv1d(8, 8, 5, groups=8), torch.randn(1, 8, 40_000)
    with torch.no_grad():
        _, state = layer.step(x[..., :100], layer.init_state())
        for kept in (state.kept.double(), state.kept.to("meta")):
            other = tw.State(kept, state.seen, state.emitted)
            with pytest.raises(tw.ShapeError, match="state"):
                layer.step(x[..., 100:], other)
        layer, x = layer.bfloat16(), x.bfloat16()
        _, state = layer.step(x[..., :100], layer.init_state())
        with torch.autocast("cpu", torch.bfloat16):
            y, _ = layer.step(x[..., 100:].float(), state)
        torch.testing.assert_close(y, layer(x)[..., 100:])


def test_the_state_of_another_layer_is_refused():
    one, other, x = tw.CausalConv1d(1, 1, 5), tw.CausalConv1d(1, 1, 9), torch.randn(1, 1, 80)
    _, state = one.step(x, one.init_state())
    with pytest.raises(tw.ShapeError, match="another layer"):
        other.step(x, state)
