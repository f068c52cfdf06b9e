"""Commands: models that fail, names, pipes."""

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
    command("stream", "m.py:loud", *option, words="", data=x.tobytes(), fork=True)
for name in ("ints", "wide", "two", "takes_complex"):
    command("stream", f"m.py:{name}", words="", data=x.tobytes(), fork=True)
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
        command(verb, name, words=word, fork=True)
for size in ("0,1,100", "-1,2", "1,x", "1,1,1e3", ","):
    command("inspect", "m.py:none", "--size", size, words="--size", fork=True)
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
