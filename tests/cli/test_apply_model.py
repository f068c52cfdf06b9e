"""Models over files: `tapwise apply SIGNAL --model`, against the model's own run over the whole recording."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import soundfile
import torch
from safetensors.torch import save_file

from tapwise.cli import models

CODE = """
import torch
from torch import nn

class Half(nn.Module):
    '''One channel to two, of half the rate, from both sides.'''

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.conv = nn.Conv1d(1, 2, 5, padding=2, stride=2, dtype=dtype)

    def forward(self, x):
        return torch.tanh(self.conv(x))

class Multiples(nn.Module):
    def forward(self, x):
        return x.reshape(x.shape[0], 1, -1, 8).flip(-1).reshape(x.shape)

class Down(nn.Module):
    def forward(self, x):
        return x.reshape(x.shape[0], 1, -1, 8).sum(-1)

class Last(nn.Module):
    '''Time last but one, in float64.'''

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(3, 3, 3, padding=(1,), dtype=torch.float64)

    def forward(self, x):
        return self.conv(x.transpose(1, 2)).transpose(1, 2)

class Loud(nn.Module):
    def forward(self, x):
        return 3 * x

class Codes(nn.Module):
    def forward(self, x):
        return (x * 10).long()

class Pair(nn.Module):
    def forward(self, x):
        return x, 2 * x

def seeded(model, *size, dtype=torch.float32):
    return model, torch.randn(size, dtype=dtype)

def same():
    torch.manual_seed(0)
    return seeded(nn.Conv1d(1, 1, 5, padding=2), 1, 1, 400)

def half():
    torch.manual_seed(0)
    return seeded(Half(), 1, 1, 400)

def last():
    torch.manual_seed(0)
    return seeded(Last(), 1, 400, 3, dtype=torch.float64)

def multiples(): return seeded(Multiples(), 1, 1, 400)
def loud(): return seeded(Loud(), 1, 1, 400)
def codes(): return seeded(Codes(), 1, 1, 400)
def pair(): return seeded(Pair(), 1, 1, 400)
def nothing(): return seeded(nn.Conv1d(1, 1, 1500), 1, 1, 4000)
def down(): return seeded(Down(), 1, 1, 400)
def resampled():
    import tapwise as tw
    return tw.Resample(147, 160), torch.randn(1, 1, 3200)

def third(): return seeded(nn.Conv1d(1, 1, 3, stride=3), 1, 1, 400)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(CODE)
    return tmp_path


def offline(name, x):
    """What the model gives for a full signal, a batch of one."""
    with torch.no_grad():
        return models.load(f"net.py:{name}")[0](torch.from_numpy(x))[0].numpy()


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_a_sound_in_integers_goes_from_minus_one_to_one_and_back(folder, here, suffix, subtype):
    x = np.random.default_rng(0).uniform(-0.9, 0.9, (70_001, 2))  # more than a block
    soundfile.write("x" + suffix, x, 16_000, subtype=subtype)
    said = here("apply", "x" + suffix, "y" + suffix, "--model", "net.py:half")
    assert f"x{suffix}: 70,001 samples, 2 channels -> y{suffix}: 35,001 samples at 8000 Hz" in said
    assert "net.py:half, each channel by itself, 4 channels out, reads 2 samples (0.125 ms) ahead" in said
    y, rate = soundfile.read("y" + suffix)
    assert (rate, soundfile.info("y" + suffix).subtype) == (8000, subtype)
    signal = soundfile.read("x" + suffix, dtype="float32")[0].T
    expected = np.concatenate([offline("half", signal[None, [channel]]) for channel in (0, 1)])
    np.testing.assert_allclose(y.T, expected, rtol=0, atol=2**-15 if subtype == "PCM_16" else 1e-6)


def test_what_is_clipped_is_counted_and_told(folder, capsys):
    from tapwise import cli

    soundfile.write("x.wav", np.full(1000, 0.5), 8000, subtype="PCM_16")
    with pytest.raises(SystemExit):
        cli.main(["apply", "x.wav", "y.wav", "--model", "net.py:loud"])
    assert "clipped 1,000 of 1,000 samples to the range of int16: the loudest was 1.5 times" in capsys.readouterr().err
    assert set(soundfile.read("y.wav", dtype="int16")[0].tolist()) == {32767}


def test_arrays_stand_as_they_are(folder, here):
    x = np.random.default_rng(0).normal(size=(500, 3))
    np.save("x.npy", x)
    here("apply", "x.npy", "y.npy", "--model", "net.py:last", "--axis", 0)
    y = np.load("y.npy")
    assert (y.shape, y.dtype) == ((500, 3), np.float64)
    np.testing.assert_allclose(y, offline("last", x[None]), atol=1e-12)
    np.save("i.npy", np.arange(40, dtype=np.int16))
    here("apply", "i.npy", "c.npy", "--model", "net.py:codes")
    assert np.load("c.npy").dtype == np.int64
    assert np.load("c.npy").tolist() == list(range(0, 400, 10))
    assert "int64, which is no sound: write .npy" in here(
        "apply", "i.npy", "c.wav", "--rate", 100, "--model", "net.py:codes"
    )


def test_a_table_keeps_its_other_columns_where_rows_are_the_same(folder, here):
    x = np.random.default_rng(0).normal(size=30).astype(np.float32)
    pl.DataFrame({"at": [f"{n}h" for n in range(30)], "v": x}).write_csv("t.csv")
    here("apply", "t.csv", "o.csv", "--model", "net.py:same")
    table = pl.read_csv("o.csv")
    assert table["at"].to_list() == [f"{n}h" for n in range(30)]
    np.testing.assert_allclose(table["v"].to_numpy(), offline("same", x[None, None])[0], atol=1e-6)
    here("apply", "t.csv", "h.csv", "--model", "net.py:half")
    assert pl.read_csv("h.csv").shape == (15, 2)


@pytest.mark.parametrize("length", [1000, 1001, 1007])
@pytest.mark.parametrize("name", ["multiples", "down"])
def test_a_model_of_multiples_gets_zeros_at_the_end(folder, capsys, length, name):
    from tapwise import cli

    x = np.random.default_rng(0).normal(size=length).astype(np.float32)
    np.save("x.npy", x)
    with pytest.raises(SystemExit) as ended:
        cli.main(["apply", "x.npy", "y.npy", "--model", f"net.py:{name}"])
    assert not ended.value.code
    filled = -length % 8
    expected = offline(name, np.pad(x, (0, filled))[None, None])[0]
    y = np.load("y.npy")
    np.testing.assert_allclose(y, expected[: len(y)], atol=1e-6)
    assert len(y) == (length if name == "multiples" else -(-length // 8))
    assert os.path.getsize("y.npy") == 128 + y.nbytes  # and nothing behind them
    assert (f"{filled} zeros were put after the last sample" in capsys.readouterr().err) is bool(filled)


def test_an_exact_fraction_of_a_rate(folder, here):
    soundfile.write("x.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 9600), 48_000)
    here("apply", "x.wav", "y.wav", "--model", "net.py:resampled")
    assert (soundfile.info("y.wav").samplerate, soundfile.info("y.wav").frames) == (44_100, 8820)


@pytest.mark.parametrize("length", [1, 2, 3, 65_536, 65_537])
def test_any_length(folder, here, length):
    x = np.random.default_rng(0).normal(size=length).astype(np.float32)
    np.save("x.npy", x)
    here("apply", "x.npy", "y.npy", "--model", "net.py:half")
    np.testing.assert_allclose(np.load("y.npy"), offline("half", x[None, None]), atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "net.py:same", "--taps", "mean:3"], "or a network as --model, not both"),
        ([], "give the filter as --taps, or a network as --model"),
        (["--taps", "mean:3", "--weights", "w.safetensors"], "--weights belongs to --model"),
        (["--model", "net.py:same", "--causal"], "--causal belongs to --taps"),
        (["--model", "net.py:same", "--no-flip"], "--flip belongs to --taps"),
        (["--model", "net.py:same", "--nan", "skip"], "--nan skip belongs to --taps"),
        (["--model", "net.py:last"], "the model takes 3 channels, x.wav has 1"),
        (["--model", "net.py:pair"], "the model returns more than one tensor"),
        (["--model", "net.py:third"], "a sound file's rate is a whole number, got 2666.67"),
        (["--model", "net.py:nothing"], "x.wav: of 1,001 samples the model makes no output"),
        (["--model", "gone.py:same"], "gone.py: no such file"),
    ],
)
def test_mistakes_leave_nothing(folder, here, arguments, words):
    soundfile.write("x.wav", np.zeros(1001), 8000)
    assert words in here("apply", "x.wav", "y.wav", *arguments)
    assert sorted(path.name for path in folder.glob("*.wav")) == ["x.wav"]


def test_a_gap_is_refused_or_let_through(folder, here):
    x = np.ones(100, np.float32)
    x[50] = np.nan
    np.save("x.npy", x)
    said = here("apply", "x.npy", "y.npy", "--model", "net.py:same")
    assert "x.npy: sample 50: no value (NaN): fill the gap, let it through with --nan propagate" in said
    assert not os.path.exists("y.npy")
    here("apply", "x.npy", "y.npy", "--model", "net.py:same", "--nan", "propagate")
    assert np.flatnonzero(np.isnan(np.load("y.npy"))).tolist() == [48, 49, 50, 51, 52]


def test_weights_are_the_given_ones(folder, here):
    model, _ = models.load("net.py:same")
    save_file({name: 2 * value for name, value in model.state_dict().items()}, "w.safetensors")
    x = np.random.default_rng(0).normal(size=100).astype(np.float32)
    np.save("x.npy", x)
    here("apply", "x.npy", "y.npy", "--model", "net.py:same", "--weights", "w.safetensors")
    np.testing.assert_allclose(np.load("y.npy"), 2 * offline("same", x[None, None])[0], atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_memory_does_not_grow_with_the_recording(folder):
    code = (
        "import sys; from tapwise import cli\n"
        "try: cli.main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print(next(int(line.split()[1]) for line in open('/proc/self/status') if 'VmHWM' in line))"
    )
    used = []
    for length in (1 << 20, 1 << 25):
        np.lib.format.open_memmap("x.npy", "w+", np.float32, (length,)).flush()
        arguments = ["apply", "x.npy", "y.npy", "--model", "net.py:same"]
        run = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, check=True, text=True)
        used.append(int(run.stdout.splitlines()[-1]) / 1024)
    assert used[1] - used[0] < 30, used  # megabytes, of 256 in the file
