"""Files: hostile, odd, cut short, and how others are written."""

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
command("apply", "c.npy", "--taps", "1,1", "-o", "o.npy", "--padding", "same")
assert np.load("o.npy").dtype == np.complex128 and np.load("o.npy")[5] == 2j
""",
    "numbers that a table can't hold": """
for cell, word in (("1e400", "range"), ("9007199254740993", "exactly"), ("9007199254740993.0", "exactly"), ("-1e999", "range"), ("abc", "not a number")):
    Path("a.csv").write_text(f"v\\n1\\n2\\n{cell}\\n4\\n")
    command("apply", "a.csv", "--taps", "1,1", words="line 4", fork=True)
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
        command("apply", name, "--taps", "1,1", "-o", "o" + Path(name).suffix, words=name, fork=True)
        command("apply", "whole.wav", "--taps", name, "-o", "o.wav", words=name, fork=True)
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
    command("apply", "c.npy", "--taps", "1", words=word, fork=True)
    command("explain", "--taps", "c.npy", words="c.npy", fork=True)
size = 5 << 30
head = b"RF64" + b"\\xff" * 4 + b"WAVE" + b"ds64" + struct.pack("<IQQQI", 28, size + 72, size, size // 2, 0)
head += b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16000, 2, 16) + b"data" + b"\\xff" * 4
Path("b.wav").write_bytes(head + bytes(1 << 20))
command("apply", "b.wav", "--taps", "1", words="cut short")
""",
    "many channels": """
np.save("a.npy", np.random.default_rng(0).normal(size=(60_000, 16)).astype(np.float32))
started = time.time()
command("apply", "a.npy", "--taps", "1,1,1", "-o", "o.npy", "--axis", "1", "--padding", "same")
assert time.time() - started < 60
x, y = np.load("a.npy"), np.load("o.npy")
assert np.allclose(y[:, 1:-1], x[:, :-2] + x[:, 1:-1] + x[:, 2:], atol=1e-5)
np.save("b.npy", np.random.default_rng(0).normal(size=(700, 5000)).astype(np.float32))
command("apply", "b.npy", "--taps", "mean:3001", "-o", "p.npy", "--padding-mode", "zeros", "--stride", "3")
x, y = np.load("b.npy"), np.load("p.npy")
wanted = torch.nn.functional.conv1d(torch.from_numpy(x[[0, 350, 699]])[:, None].double(), torch.full((1, 1, 3001), 1 / 3001).double(),
                                    stride=3, padding=1500)[:, 0]
assert np.allclose(y[[0, 350, 699]], wanted.numpy(), atol=1e-4)
""",
    "a target's mode, its link and long names": """
np.save("in.npy", np.ones(100, np.float32))
np.save("out.npy", np.zeros(3))
os.chmod("out.npy", 0o600)
command("apply", "in.npy", "--taps", "1", "-o", "out.npy", fork=True)
assert os.stat("out.npy").st_mode & 0o777 == 0o600 and len(np.load("out.npy")) == 100
os.mkdir("far")
np.save("far/real.npy", np.zeros(3))
os.symlink("far/real.npy", "link.npy")
command("apply", "in.npy", "--taps", "1", "-o", "link.npy", fork=True)
assert os.path.islink("link.npy") and len(np.load("far/real.npy")) == 100
long = "x" * 251 + ".npy"
command("apply", "in.npy", "--taps", "1", "-o", long, fork=True)
assert len(np.load(long)) == 100
command("apply", "in.npy", "--taps", "1", "-o", "far", words="", fork=True)
os.mkfifo("pipe.npy")
command("apply", "in.npy", "--taps", "1", "-o", "pipe.npy", words="no file", fork=True)
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
            assert len(soundfile.read(name)[0]) == 299_998
            Path(name).unlink()
        else:
            assert run.returncode != 0, said
        assert run.returncode in (0, 130, -2, 1), (run.returncode, said)
""",
}
