"""What is done to Tapwise on purpose: a program for each case, which prints "well" where it holds.

The sections are those of what may break: memory, changes of a model, states, arguments, files, commands,
processes.
"""

HEAD = '''
import contextlib, copy, ctypes, io, os, signal, subprocess, sys, threading, time
from pathlib import Path
import numpy as np, torch, tapwise as tw
from torch import nn

torch.manual_seed(0)

def refused(call, words, kinds=(ValueError, RuntimeError, TypeError, OSError)):
    try:
        result = call()
    except kinds as error:
        assert words in str(error), f"{type(error).__name__}: {error}"
        return
    raise SystemExit(f"not refused: {result!r}")

def command(*arguments, words=None, code=None, data=None, **options):
    """The command in a process of its own: what it prints. With ``words``, a mistake told in a few lines."""
    run = subprocess.run([sys.executable, "-m", "tapwise", *map(str, arguments)], input=data, capture_output=True,
                         timeout=100, **options)
    said = run.stderr.decode(errors="replace")
    assert "Traceback" not in said, said
    wanted = (1 if words is not None else 0) if code is None else code
    assert run.returncode == wanted or (words is not None and run.returncode == 2), (run.returncode, said)
    if words is not None:
        assert words in said and len(said) < 4000, said
        assert "\\x1b" not in said
    return run.stdout

def network():
    """A stream after three steps, its model, and the next chunk."""
    model = nn.Sequential(nn.Conv1d(8, 8, 31, groups=8), nn.ReLU(), nn.Conv1d(8, 4, 3)).eval()
    live = tw.stream(model, torch.randn(1, 8, 300))
    for _ in range(3):
        live.step(torch.randn(1, 8, 40))
    return model, live, torch.randn(1, 8, 40)

def in_threads(*works):
    """Run each in a thread of its own; raise what the first of them raised."""
    errors = []
    def guarded(work):
        try:
            work()
        except BaseException as error:
            errors.append(error)
    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    [t.start() for t in threads]
    [t.join() for t in threads]
    if errors:
        raise errors[0]

def in_child(work):
    """Do the work in a forked child, which must end by itself."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            print(type(error).__name__, error, file=sys.stderr, flush=True)
            os._exit(1)
    for _ in range(400):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            assert status == 0, status
            return
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    raise SystemExit("the child hangs")
'''

# Memory: nothing is read or written beyond its tensors.

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

# Changes of a model that a stream runs.

CHANGES = {
    "a parameter replaced": """
def assign(m): m.load_state_dict({k: v.clone() for k, v in m.state_dict().items()}, assign=True)
def parameter(m): m[0].weight = nn.Parameter(torch.randn(8, 1, 31))
def bias(m): m[2].bias = None
def deleted(m): del m[2]._parameters["bias"]
def meta(m): m.to("meta")
for change, name in ((assign, "0.weight"), (parameter, "0.weight"), (bias, "2.bias"), (deleted, "2.bias"), (meta, "")):
    model, live, chunk = network()
    change(model)
    refused(lambda: live.step(chunk), name, tw.ModelChangedError)
    refused(lambda: live.flush(), name, tw.ModelChangedError)
""",
    "a module replaced": """
def other(m): m[1] = nn.Tanh()
def gone(m): del m[1]
def more(m): m.append(nn.Tanh())
for change in (other, gone, more):
    model, live, chunk = network()
    change(model)
    refused(lambda: live.step(chunk), "stream anew", tw.ModelChangedError)
""",
    "a parameter changed in place is followed": """
model, live, chunk = network()
with torch.no_grad():
    for p in model.parameters():
        p.mul_(0)
assert not live.step(chunk).any()
step = torch.optim.SGD(model.parameters(), 0.1)
model(torch.randn(1, 8, 100)).sum().backward()
step.step()
assert live.step(chunk).any()
""",
    "a weight that others are computed from": """
model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 4, 3))).eval()
live = tw.stream(model, torch.randn(1, 4, 100))
live.step(torch.randn(1, 4, 10))
with torch.no_grad():
    model[0].parametrizations.weight.original0.mul_(2)
refused(lambda: live.step(torch.randn(1, 4, 10)), "original0", tw.ModelChangedError)
""",
    "a functional stream of a changed model": """
model = nn.Sequential(nn.Conv1d(2, 2, 3, padding=1), nn.ReLU()).eval()
init, step = tw.stream(model, torch.randn(1, 2, 40)).functional(8)
step(torch.randn(1, 2, 8), init(1))
for chunk, state in ((torch.randn(1, 2, 9), init(1)), (None, init(1)), (torch.randn(1, 2, 8), {}), (torch.randn(1, 2, 8), 5)):
    refused(lambda: step(chunk, state), "", (TypeError, tw.ShapeError))
model[0].weight = nn.Parameter(torch.randn(2, 2, 3))
refused(lambda: step(torch.randn(1, 2, 8), init(1)), "0.weight", tw.ModelChangedError)
""",
    "a recurrent weight of another size": """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(4, 16, batch_first=True)
    def forward(self, x):
        return self.rnn(x.transpose(1, 2))[0].transpose(1, 2)
model = Net().eval()
live = tw.stream(model, torch.randn(1, 4, 60))
live.step(torch.randn(1, 4, 10))
model.rnn.weight_hh_l0.data = torch.randn(32, 16)
refused(lambda: live.step(torch.randn(1, 4, 10)), "rnn.weight_hh_l0", tw.ModelChangedError)
""",
    "a running mean that nothing reads may change": """
model = nn.Sequential(nn.Conv1d(2, 2, 3), nn.BatchNorm1d(2))
live = tw.stream(model, torch.randn(2, 2, 40))
live.step(torch.randn(2, 2, 10))
model.train()
model(torch.randn(2, 2, 30))
live.step(torch.randn(2, 2, 10))
""",
}

# Steps that fail or are interrupted, and threads.

STEPS = {
    "an interrupted transform of a long filter": """
model = nn.Sequential(nn.Conv1d(1, 1, 3000, padding=2999)).double().eval()
x = torch.randn(1, 1, 9000, dtype=torch.float64)
live = tw.stream(model, x)
live.step(x[..., :4000])
with torch.no_grad():
    model[0].weight.mul_(3)
kept, torch.fft.rfft = torch.fft.rfft, lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt())
refused(lambda: live.step(x[..., 4000:]), "", KeyboardInterrupt)
torch.fft.rfft = kept
live.reset()
y = torch.cat([live.step(x), live.flush()], -1)
torch.testing.assert_close(y, model(x), rtol=1e-9, atol=1e-9)
""",
    "an exception in a step changes nothing": """
from tapwise import chunks
model = nn.Sequential(nn.Conv1d(2, 2, 5), nn.ReLU(), nn.Conv1d(2, 2, 3)).eval()
x = torch.randn(3, 2, 200)
live = tw.stream(model, x)
live.step(x[..., :21])
live.reset(torch.tensor([True, False, False]))
live.step(x[..., 21:23])
assert len(live._at.groups) == 2
leaves = torch.utils._pytree.tree_leaves
before, convolve = live.state, chunks.convolve
twin = live.fork()
for at in range(4):  # two convolutions of two groups
    calls = iter(range(10))
    def interrupted(*arguments):
        if next(calls) == at:
            raise KeyboardInterrupt
        return convolve(*arguments)
    chunks.convolve = interrupted
    refused(lambda: live.step(x[..., 23:90]), "", KeyboardInterrupt)
    chunks.convolve = convolve
    assert all(torch.equal(a, b) for a, b in zip(leaves(before), leaves(live.state), strict=True))
refused(lambda: live.step(torch.randn(7, 2, 5)), "fit")
assert live.batch == 3
for one, two in zip(live.step(x[..., 23:]), twin.step(x[..., 23:]), strict=True):
    assert torch.equal(one, two)
fresh = tw.stream(model, x)
refused(lambda: fresh.step(torch.randn(7, 3, 5)), "fit")
assert fresh.batch == 3
""",
    "eight threads on one stream": """
_, live, _ = network()
live.reset()
done, said, counting = [0], [], threading.Lock()
def steps():
    for _ in range(200):
        try:
            live.step(torch.randn(1, 8, 10))
            with counting:
                done[0] += 1
        except RuntimeError as error:
            said.append(str(error))
sys.setswitchinterval(1e-5)
in_threads(*[steps] * 8)
assert done[0] + len(said) == 1600 and said and all("at work already" in s for s in said)
assert live.seen == (10 * done[0],)
live.step(torch.randn(1, 8, 10))
""",
    "a step within a step": """
class Inner(nn.Module):
    def forward(self, x):
        return x
_, live, chunk = network()
from tapwise import chunks
convolve, said = chunks.convolve, []
def nested(*arguments):
    refused(lambda: live.step(chunk), "at work", RuntimeError)
    said.append(1)
    return convolve(*arguments)
chunks.convolve = nested
live.step(chunk)
assert len(said) == 2
""",
    "three threads that read one model": """
model = nn.Sequential(nn.Conv1d(2, 4, 5), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Conv1d(4, 2, 3)).train()
x = torch.randn(2, 2, 60)
mean = model[1].running_mean.clone()
def read():
    for _ in range(3):
        tw.inspect(model, x)
        tw.stream(model, x)
sys.setswitchinterval(1e-4)
in_threads(read, read, read, lambda: [model[3](torch.randn(1, 4, 30)) for _ in range(200)])
assert all(m.training for m in model.modules()) and torch.equal(mean, model[1].running_mean)
""",
    "a fork while another thread reads a model": """
model, x = nn.Sequential(nn.Conv1d(2, 4, 5), nn.ReLU()).eval(), torch.randn(1, 2, 60)
tw.inspect(model, x)
stop = []
def read():
    while not stop:
        tw.inspect(model, x)
thread = threading.Thread(target=read)
thread.start()
try:
    for _ in range(6):
        in_child(lambda: tw.inspect(model, x))
finally:
    stop.append(1)
    thread.join()
""",
    "a thread for each fork of a stream": """
model, live, _ = network()
x = torch.randn(8, 1, 8, 400)
live.reset()
results = {}
def run(n):
    mine = live.fork()
    results[n] = torch.cat([mine.step(part) for part in x[n].split(33, -1)], -1)
in_threads(*[lambda n=n: run(n) for n in range(8)])
for n in range(8):
    torch.testing.assert_close(results[n], model(x[n]), rtol=1e-4, atol=1e-5)
""",
}

# States.

STATES = {
    "flush refuses what step refuses": """
one, two = tw.CausalConv1d(2, 3, 5), tw.Conv1d(2, 3, 9, padding=4)
x = torch.randn(1, 2, 40)
_, state = two.step(x, two.init_state())
for call in (one.flush, lambda s: one.step(x, s)):
    refused(lambda: call(state), "state")
    refused(lambda: call({"kept": x}), "State")
    for changes in ({"seen": torch.tensor(-4)}, {"emitted": torch.tensor(10**6)}, {"seen": 3}, {"kept": None},
                    {"kept": torch.randn(1, 7, 4)}, {"seen": torch.tensor(2.5)}, {"kept": torch.randn(2)}):
        mine = one.step(x, one.init_state())[1]
        mine.__dict__.update(changes)
        refused(lambda: call(mine), "state")
""",
    "malformed states of a stream": """
_, live, chunk = network()
good = live.state
def broken(change):
    state = copy.deepcopy(good)
    change(state)
    return state
changes = [
    lambda s: s.pop("groups"), lambda s: s.pop("batch"), lambda s: s.pop("active"), lambda s: s["groups"][0].pop("seen"),
    lambda s: s["groups"][0].update(slots=torch.tensor([5])), lambda s: s["groups"][0].update(slots=torch.tensor([0.5])),
    lambda s: s["groups"][0].update(seen=torch.tensor(-3)), lambda s: s.update(batch=torch.tensor(2)),
    lambda s: s.update(active=torch.tensor([True, False])), lambda s: s.update(active=torch.tensor([1.0])),
    lambda s: s.update(groups=5), lambda s: s.update(groups=[None]), lambda s: s["groups"].append(s["groups"][0]),
    lambda s: s["groups"][0]["states"].update({"1": [torch.zeros(1, 8, 3)]}),
    lambda s: s["groups"][0]["states"].update({"99": []}), lambda s: s["groups"][0]["states"].update({"x": []}),
    lambda s: s.update(format=torch.tensor(-5)), lambda s: s.update(format="2"), lambda s: s.update(groups=[], active=torch.tensor([False])),
    lambda s: s["groups"][0].update(seen=torch.tensor(2**63 - 1)), lambda s: s["groups"][0]["states"].update({"-1": []}),
    lambda s: s.update(format=torch.tensor(99)), lambda s: s.update(batch=torch.tensor(0)),
]
for change in changes:
    refused(lambda: live.load_state(broken(change)), "state", tw.ShapeError)
for nothing in (None, 5, [], "x", {}):
    refused(lambda: live.load_state(nothing), "state", tw.ShapeError)
live.load_state(good)
live.step(chunk)
""",
    "files that are no states": """
_, live, chunk = network()
from safetensors.torch import save_file
Path("a.safetensors").write_bytes(b"no file of tensors")
save_file({"groups.0.states.0": torch.zeros(2)}, "b.safetensors")
live.save("good.safetensors")
cut = Path("good.safetensors").read_bytes()
Path("c.safetensors").write_bytes(cut[: len(cut) // 2])
for name in ("a", "b", "c"):
    refused(lambda: live.load(f"{name}.safetensors"), "state", tw.ShapeError)
refused(lambda: live.load("nowhere.safetensors"), "nowhere", OSError)
live.load("good.safetensors")
live.step(chunk)
""",
}

# Arguments.

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
import resource
from scipy.signal import resample_poly
x = torch.randn(1, 1, 1000)
started = time.time()
for up, down in ((16000, 15999), (48000, 44101)):
    y = tw.Resample(up, down)(x)
    assert np.allclose(y[0, 0].numpy(), resample_poly(x[0, 0].double().numpy(), up, down), atol=1e-4)
tw.Upfirdn([1.0, 2.0], 10**6, 10**6 - 1)(x)
assert time.time() - started < 20 and resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 1_500_000
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

# Files.

FILES = {
    "complex numbers stay complex": """
np.save("long.npy", np.ones(50, np.clongdouble))
command("apply", "long.npy", "--taps", "1,1", words="complex128")
np.save("wide.npy", np.ones(50, np.longdouble))
command("apply", "wide.npy", "--taps", "1,1", words="float64")
from safetensors.torch import save_file
save_file({"weight": torch.tensor([[[1 + 2j, 3j]]])}, "w.safetensors")
assert b"j" in command("explain", "--weights", "w.safetensors:weight", "--input", "1,2,3")
np.save("c.npy", np.ones(50, np.complex128) * 1j)
command("apply", "c.npy", "--taps", "1,1", "-o", "o.npy")
assert np.load("o.npy").dtype == np.complex128 and np.load("o.npy")[5] == 2j
""",
    "numbers that a table can't hold": """
for cell, word in (("1e400", "range"), ("9007199254740993", "exactly"), ("9007199254740993.0", "exactly"), ("-1e999", "range"), ("abc", "not a number")):
    Path("a.csv").write_text(f"v\\n1\\n2\\n{cell}\\n4\\n")
    command("apply", "a.csv", "--taps", "1,1", words="line 4")
Path("a.csv").write_text("v\\n1\\n9007199254740994\\n4\\n")
command("apply", "a.csv", "--taps", "1")
Path("a.csv").write_text("v,w\\n1,2\\n3,4,5\\n")
command("apply", "a.csv", "--taps", "1", "--column", "v", words="line 3")
""",
    "tables of too many columns": """
Path("a.csv").write_text(",".join(f"c{n}" for n in range(10_000)) + "\\n" + ",".join("1" * 10_000) + "\\n")
command("apply", "a.csv", "--taps", "1", words="more")
Path("a.csv").write_text(",".join(f"c{n}" for n in range(1_000_000)) + "\\n" + ",".join("1" * 1_000_000) + "\\n")
command("apply", "a.csv", "--taps", "1", words="1,000,000 columns")
""",
    "sound that was cut short": """
import soundfile
x = np.random.default_rng(0).uniform(-0.5, 0.5, (9000, 2))
soundfile.write("whole.wav", x, 8000)
for name, kind in (("a.wav", "WAV"), ("b.wav", "RF64"), ("c.wav", "WAVEX"), ("d.flac", "FLAC")):
    soundfile.write(name, x[:, :1], 8000, format=kind)
    data = Path(name).read_bytes()
    for part in (0.3, 0.5, 0.99):
        Path(name).write_bytes(data[: int(len(data) * part)])
        command("apply", name, "--taps", "1,1", "-o", "o" + Path(name).suffix, words=name)
        command("apply", "whole.wav", "--taps", name, "-o", "o.wav", words=name)
        assert not Path("o" + Path(name).suffix).exists() and not Path("o.wav").exists()
    soundfile.write(name, x[:, :1], 8000, format=kind)
    command("apply", "whole.wav", "--taps", name, "-o", "o.wav")
    Path("o.wav").unlink()
""",
    "a header that promises gigabytes": """
import struct
Path("a.npy").write_bytes(b"\\x93NUMPY\\x02\\x00" + struct.pack("<I", 3_000_000_000) + b"{" * 100)
command("apply", "a.npy", "--taps", "1", words="header")
for header, word in (("{'descr': '<f4', 'fortran_order': True, 'shape': (-1, 8)}", "shape"), ("((((", "header"),
                     ("-" * 9000 + "1", "NPY")):
    text = header.ljust(9500).encode() + b"\\n"
    Path("c.npy").write_bytes(b"\\x93NUMPY\\x01\\x00" + struct.pack("<H", len(text)) + text + bytes(64))
    command("apply", "c.npy", "--taps", "1", words=word)
    command("explain", "--taps", "c.npy", words="c.npy")
size = 5 << 30
head = b"RF64" + b"\\xff" * 4 + b"WAVE" + b"ds64" + struct.pack("<IQQQI", 28, size + 72, size, size // 2, 0)
head += b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16000, 2, 16) + b"data" + b"\\xff" * 4
Path("b.wav").write_bytes(head + bytes(1 << 20))
command("apply", "b.wav", "--taps", "1", words="cut short")
""",
    "many channels": """
np.save("a.npy", np.random.default_rng(0).normal(size=(60_000, 16)).astype(np.float32))
started = time.time()
command("apply", "a.npy", "--taps", "1,1,1", "-o", "o.npy")
assert time.time() - started < 60
x, y = np.load("a.npy"), np.load("o.npy")
assert np.allclose(y[:, 1:-1], x[:, :-2] + x[:, 1:-1] + x[:, 2:], atol=1e-5)
np.save("b.npy", np.random.default_rng(0).normal(size=(700, 5000)).astype(np.float32))
command("apply", "b.npy", "--taps", "mean:3001", "-o", "p.npy", "--padding", "reflect" if 0 else "same", "--stride", "3")
x, y = np.load("b.npy"), np.load("p.npy")
wanted = torch.nn.functional.conv1d(torch.from_numpy(x[[0, 350, 699]])[:, None].double(), torch.full((1, 1, 3001), 1 / 3001).double(),
                                    stride=3, padding=1500)[:, 0]
assert np.allclose(y[[0, 350, 699]], wanted.numpy(), atol=1e-4)
""",
    "a target's mode, its link and long names": """
np.save("in.npy", np.ones(100, np.float32))
np.save("out.npy", np.zeros(3))
os.chmod("out.npy", 0o600)
command("apply", "in.npy", "--taps", "1", "-o", "out.npy")
assert os.stat("out.npy").st_mode & 0o777 == 0o600 and len(np.load("out.npy")) == 100
os.mkdir("far")
np.save("far/real.npy", np.zeros(3))
os.symlink("far/real.npy", "link.npy")
command("apply", "in.npy", "--taps", "1", "-o", "link.npy")
assert os.path.islink("link.npy") and len(np.load("far/real.npy")) == 100
long = "x" * 251 + ".npy"
command("apply", "in.npy", "--taps", "1", "-o", long)
assert len(np.load(long)) == 100
command("apply", "in.npy", "--taps", "1", "-o", "far", words="")
os.mkfifo("pipe.npy")
command("apply", "in.npy", "--taps", "1", "-o", "pipe.npy", words="no file")
assert not [n for n in os.listdir(".") if n.endswith(".partial")]
""",
    "without nameless files": """
del os.O_TMPFILE
from tapwise.atomic_file import AtomicFile, write_atomically
def save(n): write_atomically("a.txt", {".txt": lambda: str(n) * 100_000})
in_threads(*[lambda n=n: save(n) for n in range(8)])
assert len(set(Path("a.txt").read_text())) == 1 and os.listdir(".") == ["a.txt"]
file = AtomicFile(Path("b.txt"))
class Full:
    def __init__(self, inner): self.inner = inner
    def close(self):
        self.inner.close()
        raise OSError(28, "No space left on device")
file.file = Full(file.file)
file.discard()
assert os.listdir(".") == ["a.txt"]
""",
    "a full disk": """
import resource, soundfile
x = np.random.default_rng(0).uniform(-0.5, 0.5, 400_000)
for name in ("a.wav", "a.flac", "a.npy", "a.csv"):
    if name.endswith("npy"):
        np.save(name, x)
    elif name.endswith("csv"):
        Path(name).write_text("v\\n" + "\\n".join(map(repr, x[:60_000].tolist())) + "\\n")
    else:
        soundfile.write(name, x, 8000)
    out = "o" + name[1:]
    def limited():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    for optimised in ("", "1"):
        command("apply", name, "--taps", "1,1,1", "-o", out, words="", preexec_fn=limited,
                env={**os.environ, "PYTHONOPTIMIZE": optimised})
        assert not Path(out).exists() and not [n for n in os.listdir(".") if n.endswith(".partial")]
""",
    "interrupted while a sound is written": """
import soundfile
x = np.random.default_rng(0).uniform(-0.5, 0.5, 300_000)
soundfile.write("a.wav", x, 8000)
for name in ("o.flac", "o.wav"):
    for n in range(6):
        run = subprocess.Popen([sys.executable, "-m", "tapwise", "apply", "a.wav", "--taps", "1,1,1", "-o", name],
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        time.sleep(1.6 + 0.15 * n)
        run.send_signal(signal.SIGINT)
        _, said = run.communicate(timeout=60)
        if Path(name).exists():
            assert len(soundfile.read(name)[0]) == 300_000
            Path(name).unlink()
        else:
            assert run.returncode != 0, said
        assert run.returncode in (0, 130, -2, 1), (run.returncode, said)
""",
}

# Commands.

COMMANDS = {
    "samples apart from prints": """
Path("m.py").write_text('''
import sys, torch
from torch import nn
print("imported")
class Loud(nn.Module):
    def __init__(self): super().__init__(); self.conv = nn.Conv1d(1, 1, 3, bias=False); self.conv.weight.data.fill_(1)
    def forward(self, x): print("forward"); return self.conv(x)
class Last(Loud):
    def forward(self, x): return self.conv(x.transpose(1, 2)).transpose(1, 2)
def loud(): print("made"); return Loud(), torch.randn(1, 1, 200)
def last(): return Last(), torch.randn(1, 200, 1)
class Other(nn.Module):
    def __init__(self, f): super().__init__(); self.f = f
    def forward(self, x): return self.f(x)
def ints(): return Other(lambda x: (x > 0).int()), torch.randn(1, 1, 200)
def wide(): return Other(lambda x: torch.complex(x, x)), torch.randn(1, 1, 200)
def two(): return Other(lambda x: (x, x)), torch.randn(1, 1, 200)
def takes_complex(): return nn.Conv1d(1, 1, 3, dtype=torch.complex64), torch.randn(1, 1, 200, dtype=torch.complex64)
''')
x = (np.arange(1600) % 100).astype("<i2")
wanted = x[:-2] + x[1:-1] + x[2:]
for name in ("loud", "last"):
    y = np.frombuffer(command("stream", f"m.py:{name}", data=x.tobytes()), "<i2")
    assert (y == wanted).all(), (name, y[:5])
for option in (("--rate", "nan"), ("--chunk", "inf"), ("--chunk", "-1"), ("--rate", "1e308")):
    command("stream", "m.py:loud", *option, words="", data=x.tobytes())
for name in ("ints", "wide", "two", "takes_complex"):
    command("stream", f"m.py:{name}", words="", data=x.tobytes())
run = subprocess.run([sys.executable, "-m", "tapwise", "stream", "m.py:loud"], input=x.tobytes(), stdout=subprocess.PIPE,
                     preexec_fn=lambda: os.close(2))
assert (np.frombuffer(run.stdout, "<i2") == wanted).all()
""",
    "models that fail": """
Path("m.py").write_text("def key(): raise KeyError('k')\\ndef zero(): return 1 / 0\\ndef none(): pass\\n"
                        "def deep(): return deep()\\ndef empty(): raise RuntimeError\\n"
                        "def leave(): raise SystemExit(0)\\n")
Path("s.py").write_text("def f(:\\n")
Path("n.py").write_text("import nowhere_to_be_found\\n")
for name, word in (("m.py:key", "KeyError"), ("m.py:zero", "ZeroDivisionError"), ("m.py:none", "NoneType"),
                   ("m.py:deep", "RecursionError"), ("s.py:f", "SyntaxError"), ("n.py:f", "nowhere_to_be_found"),
                   ("m.py:empty", "RuntimeError"), ("m.py:leave", "SystemExit"), (".:x", "module:factory"), ("..a:x", "module:factory"), (":", "named"),
                   ("m.py:", "named"), ("m.py:nope", "no function")):
    for verb in ("inspect", "stream"):
        command(verb, name, words=word)
for size in ("0,1,100", "-1,2", "1,x", "1,1,1e3", ","):
    command("inspect", "m.py:none", "--size", size, words="--size")
run = subprocess.run([sys.executable, "-m", "tapwise", "inspect", "m.py:key", "--debug"], capture_output=True)
assert b"Traceback" in run.stderr
""",
    "names with control characters": """
name = "a\\x1b[31mred\\x07.npy"
np.save(name, np.ones(50))
out = command("apply", name, "--taps", "1,1", "-o", "o.npy")
assert b"\\x1b" not in out
command("apply", "a\\x1b]0;t\\x07.npy", "--taps", "1", words="no such file")
command("\\x1b[31mred", words="red")
command("apply", name, "--taps", "1", "--\\x1b[31mred", words="red")
broken = b"b\\xff.npy"
command("apply", os.fsdecode(broken), "--taps", "1", words="no such file")
os.rename(name, broken)
command("apply", os.fsdecode(broken), "--taps", "1,1", "-o", "o.npy")
class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self._modules["a\\x1b\\x00b"] = nn.Conv1d(1, 1, 3)
    def forward(self, x):
        return next(iter(self._modules.values()))(x)
report = tw.inspect(Odd(), torch.randn(1, 1, 40))
for text in (report.svg(), report._repr_html_(), tw.explain(Odd(), torch.randn(1, 1, 40))._repr_html_()):
    assert "\\x1b" not in text and "\\x00" not in text
""",
    "closed pipes": """
code = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-m', 'tapwise', 'explain', '--input', '0:3000', '--taps', '1,1,1'], stdout=subprocess.PIPE, stderr=subprocess.PIPE); p.stdout.read(10); p.stdout.close(); sys.exit(b'Traceback' in p.stderr.read())"
assert subprocess.run([sys.executable, "-c", code], timeout=100).returncode == 0
run = subprocess.run([sys.executable, "-m", "tapwise", "explain", "--taps", "1,1,1"], preexec_fn=lambda: os.close(1),
                     stderr=subprocess.PIPE)
assert b"Traceback" not in run.stderr
""",
}

# Processes.

PROCESSES = {
    f"a fork, then {kernel}": f"""
torch.set_num_threads(2)
x, w = torch.randn(4, 64, 3000), torch.randn(64, 64, 5)
with tw.options(kernel={kernel!r}):
    y = tw.conv1d(x, w)
    def again():
        assert torch.allclose(tw.conv1d(x, w), y, atol=1e-3)
    in_child(again)
    assert torch.get_num_threads() == 2
"""
    for kernel in ("native", "direct", "gemm", "fft")
} | {
    "a fork, then streams, reports and gradients": """
torch.set_num_threads(2)
model, live, chunk = network()
layer = tw.Conv1d(64, 64, 5)
big = torch.randn(4, 64, 3000)
layer(big).sum().backward()
long = nn.Sequential(nn.Conv1d(1, 1, 3000, padding=2999)).eval()
far = tw.stream(long, torch.randn(1, 1, 9000))
def work():
    live.step(chunk)
    live.flush()
    layer(big).sum().backward()
    far.step(torch.randn(1, 1, 5000))
    tw.inspect(model, chunk)
    tw.explain(layer, big[0, :, :50])
in_child(work)
""",
    "a fork, then a report first": """
torch.set_num_threads(2)
model = nn.Sequential(nn.Conv1d(64, 64, 5)).eval()
x = torch.randn(4, 64, 3000)
model(x)
in_child(lambda: tw.inspect(model, x))
in_child(lambda: tw.explain(model, x[:1, :, :60]))
in_child(lambda: tw.stream(model, x))
""",
    "a fork of a fork, and of a child that chose its threads": """
torch.set_num_threads(2)
x, w = torch.randn(4, 64, 3000), torch.randn(64, 64, 5)
def work():
    for kernel in ("native", "gemm", "fft"):
        with tw.options(kernel=kernel):
            tw.conv1d(x, w)
work()
in_child(lambda: in_child(work))
def chosen():
    torch.set_num_threads(4)
    work()
    torch.set_num_threads(3)
    work()
in_child(chosen)
""",
    "two threads of a child on one stream": """
_, live, chunk = network()
def steps():
    for _ in range(100):
        with contextlib.suppress(RuntimeError):
            live.step(chunk)
def work():
    sys.setswitchinterval(1e-5)
    in_threads(steps, steps, steps)
in_child(work)
""",
    "a fork while a stream is at work": """
_, live, chunk = network()
live._turn.__enter__()
in_threads(lambda: in_child(lambda: in_threads(*[lambda: live.step(chunk)])))
""",
    "a fork while another thread imports Tapwise": """
code = '''
import os, sys, threading, time
def use():
    import tapwise as tw
    tw.conv1d
thread = threading.Thread(target=use)
thread.start()
time.sleep({delay})
child = os.fork()
if child == 0:
    try:
        import tapwise as tw
        tw.conv1d
        import torch
        tw.conv1d(torch.ones(1, 1, 9), torch.ones(1, 1, 3))
    except ImportError as error:
        os._exit(0 if "fork" in str(error) else 4)
    os._exit(0)
for _ in range(300):
    ended, status = os.waitpid(child, os.WNOHANG)
    if ended:
        break
    time.sleep(0.1)
else:
    os.kill(child, 9)
    status = "hangs"
thread.join()
sys.exit(status != 0)
'''
for delay in (0.02, 0.1, 0.3, 0.7, 1.2):
    run = subprocess.run([sys.executable, "-c", code.format(delay=delay)], capture_output=True, timeout=100)
    assert run.returncode == 0, (delay, run.stderr[-500:])
""",
    "machine code of other loops": """
from tapwise.engine import compiled
os.environ["TAPWISE_CACHE_DIR"] = str(Path("cache").resolve())
compiled.loop("fft.loops", "filters_32_64")
compiled.loop("fft.loops", "filters_64_64")
one, two = (compiled._file("fft.loops", f"filters_{n}_64") for n in (32, 64))
a, b = one.read_bytes(), two.read_bytes()
one.write_bytes(b)
two.write_bytes(a)
assert compiled._read("fft.loops", "filters_32_64") is None
one.write_bytes(a)
assert compiled._read("fft.loops", "filters_32_64") == a[32:]
os.chmod(one, 0o666)
assert compiled._read("fft.loops", "filters_32_64") is None
os.chmod(one, 0o644)
if os.getuid() == 0:
    os.chown(one, 12345, 12345)
    assert compiled._read("fft.loops", "filters_32_64") is None
    os.chown(one, 0, 0)
os.chmod(one, 0o666)
compiled._write("fft.loops", "filters_32_64", a[32:])
assert compiled._read("fft.loops", "filters_32_64") == a[32:]  # not as open as what it replaces
Path("victim").write_text("mine")
one.unlink()
os.symlink(Path("victim").resolve(), one)
compiled._write("fft.loops", "filters_32_64", a[32:])
assert Path("victim").read_text() == "mine" and not one.is_symlink()
for damage in (a[:100], b"", a[:-1] + b"x", b"x" + a[1:]):
    one.write_bytes(damage)
    assert compiled._read("fft.loops", "filters_32_64") is None
refused(lambda: compiled._load(a[32:], "no_such_function"), "no function")
""",
    "processes on an empty cache": """
env = {**os.environ, "TAPWISE_CACHE_DIR": str(Path("cache").resolve())}
code = '''
import time
from tapwise.engine import compiled
kept, done = compiled._compile, []
def counted(*a):
    done.append(a)
    return kept(*a)
compiled._compile = counted
compiled.loop("fft.loops", "filters_64_64")
print(len(done))
'''
runs = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=env) for _ in range(3)]
counts = [int(run.communicate(timeout=200)[0]) for run in runs]
assert sorted(counts) == [0, 0, 1], counts
dying = subprocess.Popen([sys.executable, "-c", code.replace("filters_64", "outputs_64")], stdout=subprocess.PIPE, env=env)
time.sleep(3)
dying.kill()
dying.wait()
after = subprocess.run([sys.executable, "-c", code.replace("filters_64", "outputs_64")], stdout=subprocess.PIPE, env=env, timeout=200)
assert after.returncode == 0
""",
}

CASES = MEMORY | CHANGES | STEPS | STATES | ARGUMENTS | FILES | COMMANDS | PROCESSES
# The quick ones, which `make test` runs too.
SAMPLE = (
    "a model converted under its stream",
    "a weight cut short between forward and backward",
    "fake tensors outside their mode",
    "a parameter replaced",
    "an interrupted transform of a long filter",
    "malformed states of a stream",
    "fractions and texts for integers",
    "a target's mode, its link and long names",
    "samples apart from prints",
    "a fork, then streams, reports and gradients",
)
