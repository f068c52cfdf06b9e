"""Models from the command line: named by their factory, inspected, and run on raw samples."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import tapwise as tw
from tapwise.cli import live, main, models

CODE = """
import torch
from torch import nn

class Stereo(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(2, 2, 5, padding=2)

    def forward(self, x):
        return torch.tanh(self.conv(x))

def stereo():
    torch.manual_seed(0)
    return Stereo(), torch.zeros(1, 2, 400)

def alone():
    return Stereo()

def words():
    return "no model"

def fails():
    raise RuntimeError("on purpose")

number, made = 3, nn.Conv1d(1, 1, 1)
"""


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stereo_net.py").write_text(CODE)
    made, example = models.load("stereo_net.py:stereo")
    with torch.no_grad():
        made.conv.weight.mul_(2)
    save_file(made.state_dict(), tmp_path / "w.safetensors")
    return made, example


def test_a_factory_by_file_by_module_and_with_a_size(model):
    for name in ("stereo_net.py:stereo", "stereo_net:stereo"):
        made, example = models.load(name, "w.safetensors")
        assert torch.equal(made.conv.weight, model[0].conv.weight)
        assert example.shape == (1, 2, 400)
    _, example = models.load("stereo_net.py:alone", size="1,2,64")
    assert example.shape == (1, 2, 64)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["stereo_net.py"], "module:factory"),
        (["nowhere.py:stereo"], "no such file"),
        (["nowhere:stereo"], "no module 'nowhere'"),
        (["stereo_net.py:other"], "it has Stereo, stereo, alone, words, fails"),
        (["stereo_net.py:number"], "has no function 'number'"),
        (["stereo_net.py:made"], "is a model already"),
        (["stereo_net.py:fails"], "failed: RuntimeError: on purpose"),
        (["stereo_net.py:words", "--size", "1,2,9"], "expected a torch.nn.Module"),
        (["stereo_net.py:alone"], "give --size"),
        (["stereo_net.py:alone", "--size", "1,x"], "as 1,1,16000"),
        (["stereo_net.py:stereo", "--weights", "w.pt"], "can't run code"),
        (["stereo_net.py:stereo", "--weights", "none.safetensors"], "no such file"),
        (["stereo_net.py:stereo", "--weights", "other.safetensors"], "another model's: conv.bias"),
        (["stereo_net.py:stereo", "--weights", "broken.safetensors"], "no safetensors file"),
    ],
)
def test_mistakes_are_told(model, tmp_path, capsys, arguments, words):
    save_file({"conv.bias": torch.zeros(3)}, tmp_path / "other.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"not this")
    with pytest.raises(SystemExit) as error:
        main(["inspect", *arguments])
    assert error.value.code == 1
    assert words in capsys.readouterr().err


def test_a_checkpoint_of_a_wrapped_model_loads(model):
    """torch.compile and data parallelism put a word before every name."""
    weights = model[0].state_dict()
    for prefix in ("module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod."):
        save_file({prefix + name: tensor for name, tensor in weights.items()}, "wrapped.safetensors")
        made, _ = models.load("stereo_net.py:stereo", "wrapped.safetensors")
        assert torch.equal(made.conv.weight, model[0].conv.weight)


def test_a_pickle_is_refused_with_the_line_that_converts_it(model, capsys):
    torch.save(model[0].state_dict(), "w.pt")
    with pytest.raises(SystemExit):
        main(["inspect", "stereo_net.py:stereo", "--weights", "w.pt"])
    line = capsys.readouterr().err.partition("python -c ")[2].strip()
    os.remove("w.safetensors")
    subprocess.run(f"{sys.executable} -c {line}", shell=True, check=True)
    made, _ = models.load("stereo_net.py:stereo", "w.safetensors")
    assert torch.equal(made.conv.weight, model[0].conv.weight)


def succeed(arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert not ended.value.code


def test_inspect_prints_and_saves(model, tmp_path, capsys):
    succeed(["inspect", "stereo_net.py:stereo", "--weights", "w.safetensors"])
    assert "receptive field  5 samples, -2 to +2" in capsys.readouterr().out
    succeed(["inspect", "stereo_net.py:stereo", "--save", "report.html"])
    assert "<svg" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("form", ["s16", "f32"])
def test_raw_samples_go_through_a_model(model, tmp_path, form):
    rng = np.random.default_rng(0)
    kind = np.dtype("<i2") if form == "s16" else np.dtype("<f4")
    floats = rng.uniform(-0.9, 0.9, (1003, 2))
    samples = (floats * 32767).astype(kind) if form == "s16" else floats.astype(kind)
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "tapwise",
            "stream",
            "stereo_net.py:stereo",
            "--weights",
            "w.safetensors",
            "--rate",
            "8000",
            "--format",
            form,
        ],
        input=samples.tobytes(),
        capture_output=True,
        cwd=tmp_path,
        check=True,
    )
    x = samples.astype(np.float32) / (32768 if form == "s16" else 1)
    want = model[0](torch.from_numpy(x.T.copy())[None])[0].detach().numpy().T
    got = np.frombuffer(run.stdout, kind).reshape(-1, 2)
    if form == "s16":
        assert np.abs(got - np.rint(want * 32768)).max() <= 1
    else:
        np.testing.assert_allclose(got, want, atol=1e-6)
    told = run.stderr.decode()
    assert "1,003 samples in (2 x 8000 Hz), 1,003 out (2 x 8000 Hz)" in told
    assert "real-time factor" in told


def test_what_is_clipped_is_counted(tmp_path):
    import io

    layer = tw.Conv1d.from_taps([3.0])
    source = io.BytesIO(np.full(100, 20000, "<i2").tobytes() + b"\x01")  # and half a sample
    target = io.BytesIO()
    told = live.run(layer, torch.zeros(1, 1, 50), source, target, rate=1000, chunk_ms=7, form="s16")
    assert told.clipped == told.outputs == told.samples == 100
    assert "clipped" in str(told)
    assert set(np.frombuffer(target.getvalue(), "<i2").tolist()) == {32767}
    empty = live.run(layer, torch.zeros(1, 1, 50), io.BytesIO(), target, rate=1000, chunk_ms=7, form="s16")
    assert str(empty) == "no samples came"
    assert "1 bytes at the end" in str(told)
    with pytest.raises(ValueError, match="audio file with a header"):
        live.run(layer, torch.zeros(1, 1, 50), io.BytesIO(b"RIFF...."), target, rate=1000, chunk_ms=7, form="s16")
    with pytest.raises(ValueError, match="holds no sample"):
        live.run(layer, torch.zeros(1, 1, 50), source, target, rate=10, chunk_ms=7, form="s16")
