"""Steps that fail or are interrupted, and threads."""

STEPS = {
    "an interrupted transform of a long filter": """
model = nn.Sequential(nn.Conv1d(1, 1, 3000, padding=2999)).double().eval()
x = torch.randn(1, 1, 9000, dtype=torch.float64)
live = tw.stream(model, x)
rfft = torch.fft.rfft
for at in range(3):  # of the samples, of the taps, of the samples again
    live.step(x[..., :4000])
    with torch.no_grad():
        model[0].weight.mul_(3)
    calls = iter(range(100))
    def interrupted(*arguments, **named):
        if next(calls) == at:
            raise KeyboardInterrupt
        return rfft(*arguments, **named)
    torch.fft.rfft = interrupted
    refused(lambda: live.step(x[..., 4000:]), "", KeyboardInterrupt)
    torch.fft.rfft = rfft
    live.reset()
    y = torch.cat([live.step(x), live.flush()], -1)
    torch.testing.assert_close(y, model(x), rtol=1e-9, atol=1e-9)
    live.reset()
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
beginning = threading.Barrier(8)
def run(n):
    beginning.wait()
    for _ in range(50):  # all at once
        mine = live.fork()
    results[n] = torch.cat([mine.step(part) for part in x[n].split(33, -1)], -1)
in_threads(*[lambda n=n: run(n) for n in range(8)])
for n in range(8):
    torch.testing.assert_close(results[n], model(x[n]), rtol=1e-4, atol=1e-5)
""",
}
