"""Memory: nothing is read or written beyond its tensors."""

MEMORY = {
    "a model converted under its stream": """
for convert, word in ((nn.Module.double, "weight"), (nn.Module.half, "weight"), (nn.Module.bfloat16, "weight")):
    model, live, chunk = network()
    convert(model)
    before = live.state
    refused(lambda: live.step(chunk), word)
    model.float()
    assert live.step(chunk).shape == (1, 4, 40)
""",
    "a weight cut short under its stream": """
for change in (lambda w: w[..., :5], lambda w: w[:4], lambda w: w[:, :0], lambda w: w.repeat(1, 2, 1)):
    model, live, chunk = network()
    model[0].weight.data = change(model[0].weight.data).clone()
    refused(lambda: live.step(chunk), "fit")
model, live, chunk = network()
model[0].bias.data = model[0].bias.data[:3].clone()
refused(lambda: live.step(chunk), "bias")
""",
    "a weight cut short between forward and backward": """
for kernel in ("direct", "fft", None):
    layer = tw.Conv1d(8, 8, 31, groups=8)
    x = torch.randn(2, 8, 4000, requires_grad=True)
    with tw.options(kernel=kernel):
        y = layer(x)
    layer.weight.data = layer.weight.data[..., :3].clone()
    refused(lambda: y.sum().backward(), "fit" if kernel else "")
layer = tw.Conv1d(8, 8, 31, groups=8)
with tw.options(kernel="direct"):
    y = layer(torch.randn(2, 8, 4000, requires_grad=True))
layer.weight.data = layer.weight.data.half()
refused(lambda: y.sum().backward(), "same")
""",
    "the ops called with settings that don't fit": """
tw.conv1d(torch.ones(1, 1, 9), torch.ones(1, 1, 3))
x, w, g = torch.randn(1, 8, 500), torch.randn(8, 1, 31), torch.randn(1, 8, 470)
gradient = torch.ops.tapwise.weight_gradient
gradient(g, x, w, 31, 1, 1, 0, 0, 8, "zeros")
for settings in ((300, 1, 1, 0, 0, 8, "zeros"), (31, 1, 1, 50, 0, 8, "zeros"), (31, 1, 1, 0, 0, 4, "zeros")):
    refused(lambda: gradient(g, x, w, *settings), "fit" if settings[2] == 1 and settings[3] == 0 else "gradient")
refused(lambda: gradient(g[..., :5].contiguous(), x, w, 31, 1, 1, 0, 0, 8, "zeros"), "gradient")
refused(lambda: gradient(g.half(), x, w, 31, 1, 1, 0, 0, 8, "zeros"), "gradient")
refused(lambda: torch.ops.tapwise.convolution(x, w.double(), None, 31, 1, 1, 0, 0, 8, "zeros", False, 0), "same")
""",
    "tensors whose memory was freed": """
for kernel in ("direct", "fft", "gemm"):
    with tw.options(kernel=kernel):
        x, w = torch.randn(1, 8, 3000), torch.randn(8, 8, 31)
        tw.conv1d(x, w)
        w.untyped_storage().resize_(0)
        try:
            tw.conv1d(x, w)
        except RuntimeError as error:
            assert "memory" in str(error) or "storage" in str(error), error
""",
    "storages that were made smaller": """
for kernel in ("direct", "fft", None):
    with tw.options(kernel=kernel):
        for which in range(3):
            tensors = [torch.randn(1, 64, 20000), torch.randn(64, 1, 31), torch.randn(64)]
            tensors[which].untyped_storage().resize_(8)
            refused(lambda: tw.conv1d(*tensors, groups=64), "storage", RuntimeError)
        x = torch.randn(1, 64, 20000, requires_grad=True)
        y = tw.conv1d(x, torch.randn(64, 1, 31, requires_grad=True), groups=64)
        x.untyped_storage().resize_(64)
        refused(lambda: y.sum().backward(), "storage", RuntimeError)
layer = tw.CausalConv1d(2, 2, 5)
_, state = layer.step(torch.randn(1, 2, 9), layer.init_state())
state.kept.untyped_storage().resize_(0)
refused(lambda: layer.step(torch.randn(1, 2, 9), state), "storage", RuntimeError)
from tapwise.compat.causal_conv1d import causal_conv1d_update
kept = torch.zeros(2, 4, 5)
kept.untyped_storage().resize_(0)
refused(lambda: causal_conv1d_update(torch.randn(2, 4), kept, torch.randn(4, 3)), "storage", RuntimeError)
""",
    "fake tensors outside their mode": """
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from tapwise.compat.causal_conv1d import causal_conv1d_fn
real = torch.randn(1, 16, 5000), torch.randn(16, 1, 31)
for kernel in (None, "direct", "fft", "gemm", "reference", "native"):
    with tw.options(kernel=kernel):
        tw.conv1d(*real, groups=16)  # decided for such shapes
        with FakeTensorMode():
            x, w = torch.randn(1, 16, 5000), torch.randn(16, 1, 31)
            layer = tw.Conv1d(16, 16, 31, groups=16)
        y = tw.conv1d(x, w, groups=16)
        assert type(y) is FakeTensor and y.shape == (1, 16, 4970), kernel
        w.requires_grad_()
        tw.conv1d(x, w, groups=16).sum().backward()
        assert type(w.grad) is FakeTensor
        for call in (lambda: tw.conv1d(x, real[1], groups=16), lambda: layer(x), lambda: layer(real[0])):
            try:
                y = call()
            except (AssertionError, RuntimeError) as error:  # torch's: of another mode, or of none
                assert "ake" in str(error), error
            else:
                assert type(y) is FakeTensor
with FakeTensorMode():
    x, w, narrow = torch.randn(1, 16, 5000), torch.randn(16, 31), torch.randn(1, 8, 40)
assert type(causal_conv1d_fn(x, w)) is FakeTensor
_, live, _ = network()
layer = tw.Conv1d(8, 8, 31, groups=8)
for call in (lambda: live.step(narrow), lambda: layer.step(narrow, layer.init_state())):
    refused(call, "ake", (AssertionError, RuntimeError))
""",
}
