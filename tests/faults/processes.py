"""Processes: forks, and machine code that they share."""

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
    for kernel in ("native", "direct", "gemm", "winograd", "fft")
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
    "a fork while another thread imports what Tapwise needs": """
code = '''
import os, sys, threading, time
import tapwise as tw  # before the fork: what comes before this line is beyond our reach
def use():
    tw.conv1d
thread = threading.Thread(target=use)
thread.start()
time.sleep({delay})
child = os.fork()
if child == 0:
    try:
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
