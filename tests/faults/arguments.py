"""Arguments that are no integers, and rates that are."""

ARGUMENTS = {
    "fractions and texts for integers": """
x = torch.randn(1, 2, 50)
model = nn.Conv1d(2, 2, 3)
for call in (
    lambda: tw.Upfirdn([1.0], up=2.7), lambda: tw.Upfirdn([1.0], up="3"), lambda: tw.Resample(1.5, 2),
    lambda: tw.conv1d(x, torch.randn(2, 2, 3), stride=1.5), lambda: tw.conv1d(x, torch.randn(2, 2, 3), padding=0.5),
    lambda: tw.stream(model, x, time=1.5), lambda: tw.inspect(model, x, time="2"), lambda: tw.Conv1d(2, 2, 3.5),
    lambda: tw.stream(model, x, time=2**63), lambda: tw.stream(model, x).functional(2.5),
    lambda: tw.stream(model, x).reset(batch=1.5), lambda: tw.Geometry(3, stride=2.5), lambda: tw.Geometry(3.0),
    lambda: tw.CausalConv1d(2, 2, 3, dilation=1.5), lambda: tw.Geometry(3).window(1.5),
    lambda: tw.Geometry(3).output_length(10.5), lambda: tw.Geometry(3).feeds(1.5, 10),
    lambda: tw.Conv1d.from_taps([1.0, 2.0], channels=2.5), lambda: tw.Geometry(3).output_length(np.float32(10.5)),
    lambda: tw.Geometry(3).output_length(torch.tensor(10.5)), lambda: tw.Geometry(3).input_length("4"),
    lambda: tw.Geometry(3).window_taps(1.5), lambda: tw.Geometry(3).reads(0, 10.5),
):
    refused(call, "", (TypeError, ValueError, RuntimeError))
""",
    "fractions on the command line": """
for option in ("--stride", "--dilation", "--groups", "--samples"):
    for value in ("2.5", "2e0", "x", ""):
        command("explain", "--taps", "1,1,1", option, value, words="", code=1)
""",
    "rates that share no factor": """
from scipy.signal import resample_poly
x = torch.randn(1, 1, 1000)
started = time.time()
for up, down in ((16000, 15999), (48000, 44101)):
    y = tw.Resample(up, down)(x)
    assert np.allclose(y[0, 0].numpy(), resample_poly(x[0, 0].double().numpy(), up, down), atol=1e-4)
tw.Upfirdn([1.0, 2.0], 10**6, 10**6 - 1)(x)
assert time.time() - started < 20 and peak_memory() < 1500
""",
    "states and positions of compat": """
from tapwise.compat.causal_conv1d import causal_conv1d_fn, causal_conv1d_update, causal_conv1d_varlen_states
x, w = torch.randn(2, 4), torch.randn(4, 3)
def state(): return torch.zeros(2, 4, 5)
refused(lambda: causal_conv1d_update(x, torch.zeros(2, 4, 5, dtype=torch.int64), w), "conv_state")
refused(lambda: causal_conv1d_update(x, state(), w, cache_seqlens=torch.tensor([-1, 0])), "cache_seqlens")
refused(lambda: causal_conv1d_update(x, state(), w, cache_seqlens=torch.tensor([0.5, 0])), "cache_seqlens")
refused(lambda: causal_conv1d_update(x, state(), w, conv_state_indices=torch.tensor([1.5, 0])), "conv_state_indices")
refused(lambda: causal_conv1d_update(x, state(), w, conv_state_indices=torch.tensor([7, 0])), "conv_state_indices")
refused(lambda: causal_conv1d_fn(x[..., None].expand(2, 4, 9), w, seq_idx=torch.zeros(2, 9)), "seq_idx")
refused(lambda: causal_conv1d_fn(torch.randn(2, 4, 9), w, initial_states=torch.zeros(2, 4, 2).int()), "initial_states")
refused(lambda: causal_conv1d_varlen_states(torch.randn(9, 4), torch.tensor([0, 20]), 3), "cu_seqlens")
refused(lambda: causal_conv1d_varlen_states(torch.randn(9, 4), torch.tensor([0, 9]), 2.5), "state_len")
""",
}
