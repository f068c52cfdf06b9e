"""compat.causal_conv1d against the sums that its documentation describes, and under transformers."""

import copy
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tapwise import ShapeError
from tapwise.compat import causal_conv1d as compat


def silu(y):
    return y / (1 + np.exp(-y))


def brute(x, w, b, before=None, seq_idx=None, activation=None):
    """Sample by sample, for x (B, D, L) in NumPy."""
    batch, dim, length = x.shape
    width = w.shape[1]
    y = np.zeros((batch, dim, length))
    for n in range(batch):
        for t in range(length):
            if seq_idx is not None and seq_idx[n, t] < 0:
                continue
            if b is not None:
                y[n, :, t] = b
            for k in range(width):
                j = t - (width - 1) + k
                if j >= 0 and (seq_idx is None or seq_idx[n, j] == seq_idx[n, t]):
                    y[n, :, t] += w[:, k] * x[n, :, j]
                elif j < 0 and before is not None and (seq_idx is None or seq_idx[n, t] == seq_idx[n, 0]):
                    y[n, :, t] += w[:, k] * before[n, :, width - 1 + j]
    return silu(y) if activation else y


sizes = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 12), st.integers(1, 6))


@given(sizes, st.booleans(), st.sampled_from([None, "silu", "swish"]), st.booleans(), st.booleans())
def test_the_function_with_states(size, has_bias, activation, has_before, given_room):
    batch, dim, length, width = size
    random = np.random.default_rng(length)
    x, w = random.standard_normal((batch, dim, length)), random.standard_normal((dim, width))
    b = random.standard_normal(dim) if has_bias else None
    before = random.standard_normal((batch, dim, width - 1)) if has_before else None
    room = torch.empty(batch, dim, width - 1, dtype=torch.float64) if given_room else None
    tensors = [None if a is None else torch.from_numpy(a) for a in (x, w, b, before)]
    out, final = compat.causal_conv1d_fn(
        *tensors[:3], initial_states=tensors[3], return_final_states=True, final_states_out=room, activation=activation
    )
    np.testing.assert_allclose(out, brute(x, w, b, before, None, activation), atol=1e-12)
    earlier = np.zeros((batch, dim, width - 1)) if before is None else before
    offline = np.concatenate([earlier, x], -1)
    np.testing.assert_array_equal(final, offline[..., offline.shape[-1] - (width - 1) :])
    assert room is None or final is room


@given(sizes, st.booleans(), st.sampled_from([None, "silu"]), st.booleans(), st.data())
def test_sequences_that_dont_see_one_another(size, has_bias, activation, has_before, data):
    batch, dim, length, width = size
    random = np.random.default_rng(length)
    x, w = random.standard_normal((batch, dim, length)), random.standard_normal((dim, width))
    b = random.standard_normal(dim) if has_bias else None
    before = random.standard_normal((batch, dim, width - 1)) if has_before else None
    rises = data.draw(st.lists(st.booleans(), min_size=length, max_size=length))
    first = data.draw(st.integers(-1, 1))
    seq_idx = np.tile(first + np.cumsum(rises), (batch, 1)).astype(np.int32)
    out = compat.causal_conv1d_fn(
        torch.from_numpy(x),
        torch.from_numpy(w),
        None if b is None else torch.from_numpy(b),
        seq_idx=torch.from_numpy(seq_idx),
        initial_states=None if before is None else torch.from_numpy(before),
        activation=activation,
    )
    np.testing.assert_allclose(out, brute(x, w, b, before, seq_idx, activation), atol=1e-12)


def test_a_nan_in_one_sequence_stays_there():
    x = torch.ones(1, 1, 6)
    x[..., 2] = float("nan")
    y = compat.causal_conv1d_fn(x, torch.ones(1, 3), seq_idx=torch.tensor([[0, 0, 0, 1, 1, 1]]))
    assert y[0, 0, 3:].tolist() == [1, 2, 3]


@given(sizes, st.integers(0, 4), st.booleans(), st.booleans(), st.sampled_from([None, "silu"]))
def test_updates_are_the_function_step_by_step(size, spare, ring, chosen, activation):
    batch, dim, length, width = size
    random = np.random.default_rng(length + spare)
    x, w = random.standard_normal((batch, dim, 3 * length)), random.standard_normal((dim, width))
    rows = batch + 2 if chosen else batch
    indices = torch.randperm(rows)[:batch].int() if chosen else None
    state = torch.zeros(rows, dim, max(width - 1 + spare, 1), dtype=torch.float64)
    seen, outs = torch.zeros(batch, dtype=torch.int32), []
    for start in range(0, 3 * length, length):
        chunk = torch.from_numpy(x[..., start : start + length])
        one = chunk[..., 0] if length == 1 else chunk
        out = compat.causal_conv1d_update(
            one, state, torch.from_numpy(w), None, activation, seen if ring else None, indices
        )
        outs.append(out[..., None] if length == 1 else out)
        seen += length
    np.testing.assert_allclose(torch.cat(outs, -1), brute(x, w, None, activation=activation), atol=1e-12)


def test_a_negative_index_writes_no_state():
    state = torch.zeros(2, 1, 2)
    indices = torch.tensor([-1, 1])
    y = compat.causal_conv1d_update(torch.ones(2, 1), state, torch.ones(1, 3), conv_state_indices=indices)
    assert y.tolist() == [[0], [1]]
    assert state.tolist() == [[[0, 0]], [[0, 1]]]


def test_states_of_sequences_laid_end_to_end():
    x = torch.arange(20.0).reshape(10, 2)
    bounds = torch.tensor([0, 3, 3, 10], dtype=torch.int32)
    states = compat.causal_conv1d_varlen_states(x, bounds, 4)
    assert states[0, 0].tolist() == [0, 0, 2, 4]
    assert states[1].abs().max() == 0
    assert states[2, 1].tolist() == [13, 15, 17, 19]


def test_gradients_reach_everything():
    x, w, b = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((2, 3, 7), (3, 4), (3,)))
    before = torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True)
    seq_idx = torch.tensor([[0, 0, 0, 1, 1, 2, 2]] * 2)
    fn = compat.causal_conv1d_fn
    assert torch.autograd.gradcheck(lambda *a: fn(*a, activation="silu"), (x, w, b))
    assert torch.autograd.gradcheck(lambda *a: fn(*a[:3], None, a[3], True), (x, w, b, before))
    assert torch.autograd.gradcheck(lambda *a: fn(*a, seq_idx), (x, w, b))


def test_half_precision_against_wide_weights():
    x = torch.randn(1, 4, 300, dtype=torch.bfloat16)
    y = compat.causal_conv1d_fn(x, torch.randn(4, 4), activation="silu")
    assert y.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x, w: compat.causal_conv1d_fn(x, w[:, None]), "conv.weight.squeeze"),
        (lambda x, w: compat.causal_conv1d_fn(x, w, initial_states=x), "initial_states of size"),
        (lambda x, w: compat.causal_conv1d_fn(x, w, seq_idx=x[:, 0].int(), return_final_states=True), "exclude"),
        (lambda x, w: compat.causal_conv1d_update(x, x[..., :1], w), "conv_state of size"),
    ],
)
def test_what_doesnt_fit_is_refused(call, words):
    with pytest.raises(ShapeError, match=words):
        call(torch.zeros(2, 3, 8), torch.zeros(3, 4))


def test_another_activation_is_refused():
    with pytest.raises(NotImplementedError, match=r"None, silu, or swish(?s:.*)'zork'"):
        compat.causal_conv1d_fn(torch.zeros(1, 1, 3), torch.zeros(1, 2), activation="zork")
    x, w = torch.randn(1, 2, 9), torch.randn(2, 3)
    plain = compat.causal_conv1d_fn(x, w)
    torch.testing.assert_close(compat.causal_conv1d_fn(x, w, activation="gelu"), torch.nn.functional.gelu(plain))


def models():
    from transformers import (
        FalconH1Config,
        FalconH1Model,
        Lfm2Config,
        Lfm2Model,
        Mamba2Config,
        Mamba2Model,
        MambaConfig,
        MambaModel,
    )

    small = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 48}
    return {
        "mamba": (MambaModel, MambaConfig(**small, state_size=8)),
        "mamba2": (Mamba2Model, Mamba2Config(**small, num_heads=4, head_dim=16, state_size=8, n_groups=1)),
        "falcon_h1": (
            FalconH1Model,
            FalconH1Config(**small, **heads, mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8, mamba_d_state=8),
        ),
        "lfm2": (Lfm2Model, Lfm2Config(**small, **heads, layer_types=["conv", "full_attention"])),
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["mamba", "mamba2", "falcon_h1", "lfm2"])
def test_transformers_give_the_same_outputs_whole_and_token_by_token(name):
    kind, config = models()[name]
    torch.manual_seed(0)
    model = kind(config).eval()
    tokens = torch.randint(0, 50, (2, 12))

    def outputs():
        with torch.no_grad():
            offline = model(tokens, use_cache=False).last_hidden_state
            first = model(tokens[:, :8], use_cache=True)
            cache = getattr(first, "past_key_values", None) or getattr(first, "cache_params", None)
            named = "past_key_values" if getattr(first, "past_key_values", None) is not None else "cache_params"
            steps = [first.last_hidden_state]
            for t in range(8, 12):
                step = model(tokens[:, t : t + 1], use_cache=True, **{named: copy.copy(cache)})
                steps.append(step.last_hidden_state)
        return offline, torch.cat(steps, 1)

    expected = outputs()
    changed = compat.install()
    try:
        assert f"transformers.models.{name}.modeling_{name}" in changed
        assert sys.modules["causal_conv1d"] is compat
        found = outputs()
    finally:
        compat.uninstall()
    assert "causal_conv1d" not in sys.modules
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_no_samples_leave_the_states():
    states = torch.randn(1, 2, 3)
    y, final = compat.causal_conv1d_fn(
        torch.zeros(1, 2, 0), torch.ones(2, 4), initial_states=states, return_final_states=True
    )
    assert y.shape == (1, 2, 0)
    assert torch.equal(final, states)


def test_types_that_dont_fit_are_refused_before_any_work():
    x, w, state = torch.ones(1, 2, 9), torch.ones(2, 4), torch.zeros(1, 2, 3)
    with pytest.raises(ShapeError, match="x must hold floating-point numbers"):
        compat.causal_conv1d_fn(x.long(), w)
    with pytest.raises(ShapeError, match=r"weight.to\(x.dtype\)"):
        compat.causal_conv1d_fn(x, w.double())
    with pytest.raises(ShapeError, match="weight must hold floating-point numbers"):
        compat.causal_conv1d_update(x, state, w.int())
    assert not state.any()
    assert compat.causal_conv1d_fn(x.bfloat16(), w).dtype == torch.bfloat16


def test_the_librarys_own_modules_are_found_too():
    compat.install()
    try:
        import causal_conv1d.causal_conv1d_interface as interface
        from causal_conv1d import causal_conv1d_interface as attribute
        from causal_conv1d.causal_conv1d_interface import causal_conv1d_fn
        from causal_conv1d.causal_conv1d_varlen import causal_conv1d_varlen_states
    finally:
        compat.uninstall()
    assert interface is attribute is compat
    assert causal_conv1d_fn is compat.causal_conv1d_fn
    assert causal_conv1d_varlen_states is compat.causal_conv1d_varlen_states
    assert not any(name.startswith("causal_conv1d") for name in sys.modules)


def test_the_forms_to_compare_with_give_the_same():
    x, w, b, state = torch.randn(2, 3, 9), torch.randn(3, 4), torch.randn(3), torch.randn(2, 3, 3)
    named = {"initial_states": state, "return_final_states": True, "activation": "silu"}
    for one, other in zip(
        compat.causal_conv1d_fn(x, w, b, **named), compat.causal_conv1d_ref(x, w, b, **named), strict=True
    ):
        torch.testing.assert_close(one, other)
    copy_of_state = state.clone()
    one = compat.causal_conv1d_update(x[..., 0], state, w, b, "silu")
    torch.testing.assert_close(one, compat.causal_conv1d_update_ref(x[..., 0], copy_of_state, w, b, "silu"))
    assert torch.equal(state, copy_of_state)
    with pytest.raises(ShapeError, match="varlen_states"):
        compat.causal_conv1d_fn(x, w, seq_idx=torch.zeros(2, 9), return_final_states=True)


def test_states_of_sequences_sequence_by_sequence():
    x, bounds = torch.randn(11, 3), torch.tensor([0, 1, 5, 11])
    for length in (1, 3, 7):
        found = compat.causal_conv1d_varlen_states_ref(x, bounds, length)
        assert torch.equal(found, compat.causal_conv1d_varlen_states(x, bounds, length))


@pytest.mark.filterwarnings("ignore")
def test_other_activations_stay_the_models_own():
    from transformers import JambaConfig, JambaModel

    config = JambaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        attn_layer_period=2,
        attn_layer_offset=1,
        num_experts=1,
        mamba_d_state=8,
        mamba_dt_rank=4,
        hidden_act="gelu",
        use_mamba_kernels=False,
    )
    torch.manual_seed(0)
    model, tokens = JambaModel(config).eval(), torch.randint(0, 50, (2, 12))
    with torch.no_grad():
        expected = model(tokens, use_cache=False).last_hidden_state
        changed = compat.install()
        try:
            assert "transformers.models.jamba.modeling_jamba" in changed
            found = model(tokens, use_cache=False).last_hidden_state
        finally:
            compat.uninstall()
    torch.testing.assert_close(found, expected)
