"""Models from the command line: named by their factory, inspected, and run on raw samples."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
import scipy.signal
import soundfile
import torch
from safetensors.torch import save_file
from torch import nn

import tapwise as tw
from tapwise.cli import live, main, models
from tapwise.signals import open_reader
from tapwise.signals.pcm import PipeSource

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


@pytest.mark.parametrize("key", [None, "state_dict", "model"])
def test_a_pickle_is_refused_with_the_line_that_converts_it(model, capsys, key):
    """A state_dict, or a training checkpoint that holds one."""
    weights = model[0].state_dict()
    torch.save({"epoch": 3, key: weights} if key else weights, "w.pt")
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
    assert "tapwise-state" in (tmp_path / "report.html").read_text()


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


def streamed(model, example, data, form="s16", rate=1000, chunk_ms=7):
    """Raw samples, or a WAV, through a model to a pipe: the report, and what was written."""
    target = io.BytesIO()
    source = PipeSource(io.BytesIO(data), form)
    source.rate = source.rate or rate
    return live.stream_samples(model, example, source, target, chunk_ms=chunk_ms, form=form), target.getvalue()


def test_what_is_clipped_is_counted():
    layer, example = tw.Conv1d.from_taps([3.0]), torch.zeros(1, 1, 50)
    data = np.full(100, 20000, "<i2").tobytes()
    report, written = streamed(layer, example, data + b"\x01")  # and half a sample
    assert report.summary.clipped == report.summary.outputs == report.summary.samples == 100
    assert "100 output samples were clipped" in str(report)
    assert "1 bytes at the end" in str(report)
    assert set(np.frombuffer(written, "<i2").tolist()) == {32767}
    assert str(streamed(layer, example, b"")[0]) == "no samples came"
    with pytest.raises(tw.SignalError, match="is a FLAC, Ogg or AIFF file"):
        streamed(layer, example, b"fLaC........")
    with pytest.raises(ValueError, match="holds no sample"):
        streamed(layer, example, data, rate=10)


def test_what_is_no_number_is_told():
    data = np.array([1.0, np.nan, np.inf, 0.5], "<f4").tobytes()
    report, written = streamed(nn.Conv1d(1, 1, 1), torch.zeros(1, 1, 50), data, "f32")
    assert "the model gave 2 samples that are NaN or infinite, written as they are" in str(report)
    assert np.isnan(np.frombuffer(written, "<f4")).tolist() == [False, True, False, False]


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("has_length", [True, False])
@pytest.mark.parametrize("kind", ["WAV", "WAVEX"])
def test_a_wav_on_standard_input_gives_a_wav(tmp_path, subtype, has_length, kind):
    x = np.random.default_rng(0).uniform(-0.9, 0.9, (1001, 2))
    soundfile.write(tmp_path / "x.wav", x, 8000, subtype=subtype, format=kind)
    data = (tmp_path / "x.wav").read_bytes()
    start = data.index(b"data") + 4
    if has_length:
        data += b"LIST\x04\x00\x00\x00abcd"  # no samples
    else:
        data = data[:start] + b"\xff\xff\xff\xff" + data[start + 4 :]
    model = tw.Conv1d.from_taps([0.5, 0.25], channels=2, dtype=torch.float64)
    report, written = streamed(model, torch.zeros(1, 2, 50, dtype=torch.float64), data)
    assert "1,001 samples in (2 x 8000 Hz), 1,001 out (2 x 8000 Hz)" in str(report)
    (tmp_path / "y.wav").write_bytes(written)
    info = soundfile.info(tmp_path / "y.wav")
    assert (info.subtype, info.samplerate, info.channels) == (subtype, 8000, 2)
    signal, _ = soundfile.read(tmp_path / "x.wav")
    with open_reader(tmp_path / "y.wav") as reader:  # which counts the samples of a header without a length
        got = reader.read(0, reader.length) / reader.full_scale
    expected = scipy.signal.lfilter([0.5, 0.25], 1, signal, axis=0).T
    tolerance = {"PCM_U8": 2**-8, "PCM_16": 2**-16, "PCM_24": 2**-24, "PCM_32": 2**-32}.get(subtype, 1e-7)
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * (1 + 1e-9) if tolerance > 1e-9 else 1e-9)


def test_a_wav_on_standard_input_that_can_not_be_read(tmp_path):
    layer, example = nn.Conv1d(1, 1, 1), torch.zeros(1, 1, 50)
    soundfile.write(tmp_path / "x.wav", np.zeros(1000), 8000)
    data = (tmp_path / "x.wav").read_bytes()
    with pytest.raises(
        tw.SignalError, match=r"standard input ends at sample 500 \(0.062 s\): its header promises 1000"
    ):
        streamed(layer, example, data[:-1000])
    with pytest.raises(tw.SignalError, match="header ends before its samples"):
        streamed(layer, example, data[:30])
    soundfile.write(tmp_path / "x.wav", np.zeros(1000), 8000, subtype="ULAW")
    with pytest.raises(tw.SignalError, match="a WAV of 8 bits and format 7 is not read"):
        streamed(layer, example, (tmp_path / "x.wav").read_bytes())
    with pytest.raises(ValueError, match="takes 3 channels, standard input has 1"):
        streamed(nn.Conv1d(3, 1, 1), torch.zeros(1, 3, 50), data)
    with pytest.raises(ValueError, match="a WAV's rate is a whole number"):
        streamed(nn.Conv1d(1, 1, 1, stride=3), torch.zeros(1, 1, 50), data)


def test_the_command_reads_and_writes_files(model, here):
    x = np.random.default_rng(0).uniform(-0.9, 0.9, (3001, 2))
    soundfile.write("x.wav", x, 8000, subtype="PCM_24")
    name = ["stereo_net.py:stereo", "--weights", "w.safetensors"]
    assert here("stream", *name, "x.wav", "-o", "y.wav") == ""
    made = model[0](torch.from_numpy(soundfile.read("x.wav", dtype="float32")[0].T.copy())[None])[0]
    y, rate = soundfile.read("y.wav")
    assert (rate, soundfile.info("y.wav").subtype) == (8000, "PCM_24")
    np.testing.assert_allclose(y.T, made.detach().numpy(), atol=1e-6)
    np.save("x.npy", x.T.astype("f4"))
    assert "x.npy has no rate" in here("stream", *name, "x.npy", "-o", "y.npy")
    here("stream", *name, "x.npy", "-o", "y.npy", "--rate", 8000)
    np.testing.assert_allclose(np.load("y.npy"), y.T, atol=1e-6)
    assert "is the recording itself" in here("stream", *name, "x.wav", "-o", "x.wav")
    assert "--axis and the options of tables belong to a file" in here("stream", *name, "--axis", 0, "-o", "y.wav")
    assert "says 8000 Hz" in here("stream", *name, "x.wav", "-o", "y.wav", "--rate", 9000)
    assert "expected one of .wav" in here("stream", *name, "-o", "y.mp9")


def test_a_pipe_becomes_a_file(model, tmp_path):
    x = np.random.default_rng(0).integers(-9999, 9999, (1003, 2)).astype("<i2")
    arguments = [sys.executable, "-m", "tapwise", "stream", "stereo_net.py:stereo", "--rate", "8000", "-o"]
    run = subprocess.run([*arguments, "y.flac"], input=x.tobytes(), capture_output=True, cwd=tmp_path, check=True)
    assert "1,003 samples in (2 x 8000 Hz)" in run.stderr.decode()
    assert soundfile.info(tmp_path / "y.flac").frames == 1003
    run = subprocess.run([*arguments, "y.npy"], input=x.tobytes(), capture_output=True, cwd=tmp_path, check=False)
    assert "begins with its length, which a pipe doesn't tell" in run.stderr.decode()
    assert not (tmp_path / "y.npy").exists()


def test_samples_do_not_go_to_a_terminal(model, here, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert "samples would fill the terminal" in here("stream", "stereo_net.py:stereo")


def test_an_rf64_on_standard_input_ends_where_it_says(tmp_path):
    soundfile.write(tmp_path / "x.wav", np.zeros(1000), 8000, format="RF64")
    data = (tmp_path / "x.wav").read_bytes() + b"LIST\x04\x00\x00\x00abcd"
    report, _ = streamed(nn.Conv1d(1, 1, 1), torch.zeros(1, 1, 50), data)
    assert report.summary.samples == 1000


def test_a_sound_of_unknown_length_is_a_wav_again(tmp_path):
    source = PipeSource(io.BytesIO(np.arange(2000, dtype="<i2").tobytes()), "s16")
    source.rate = 8000.0
    live.stream_samples(nn.Conv1d(1, 1, 1), torch.zeros(1, 1, 50), source, tmp_path / "y.wav", chunk_ms=10, form="s16")
    info = soundfile.info(tmp_path / "y.wav")
    assert (info.format, info.frames) == ("WAV", 2000)
    data = (tmp_path / "y.wav").read_bytes()
    assert data[:4] == b"RIFF"
    assert int.from_bytes(data[4:8], "little") == len(data) - 8


def test_raw_channels_each_by_themselves(model, tmp_path):
    (tmp_path / "mono.py").write_text(
        "import torch\ndef net():\n    torch.manual_seed(0)\n    return torch.nn.Conv1d(1, 1, 3), torch.zeros(1, 1, 400)\n"
    )
    x = np.random.default_rng(0).normal(size=(1000, 2)).astype("<f4")
    arguments = [sys.executable, "-m", "tapwise", "stream", "mono.py:net", "--format", "f32", "--channels"]
    run = subprocess.run([*arguments, "2"], input=x.tobytes(), capture_output=True, cwd=tmp_path, check=True)
    made, _ = models.load(str(tmp_path / "mono.py") + ":net")
    want = made(torch.from_numpy(x.T.copy())[:, None])[:, 0].detach().numpy().T
    np.testing.assert_allclose(np.frombuffer(run.stdout, "<f4").reshape(-1, 2), want, atol=1e-5)
    assert "each channel by itself" in run.stderr.decode()
    run = subprocess.run([*arguments, "0"], input=x.tobytes(), capture_output=True, cwd=tmp_path, check=False)
    assert "--threads and --channels are at least 1" in run.stderr.decode()


@pytest.mark.parametrize(("arguments", "threads"), [([], 1), (["--threads", "2"], 2)])
def test_a_chunk_is_computed_on_as_many_threads_as_said(model, here, monkeypatch, arguments, threads):
    said = []
    monkeypatch.setattr(torch, "set_num_threads", said.append)
    soundfile.write("x.wav", np.zeros((100, 2)), 8000)
    here("stream", "stereo_net.py:stereo", "x.wav", "-o", "y.wav", *arguments)
    assert said == [threads]


def test_a_sound_of_unknown_length_may_be_larger_than_a_wav(tmp_path, monkeypatch):
    from tapwise.signals import audio

    monkeypatch.setattr(audio, "_LARGEST_WAV", 1000)
    source = PipeSource(io.BytesIO(np.arange(2000, dtype="<i2").tobytes()), "s16")
    source.rate = 8000.0
    target = tmp_path / "y.wav"
    live.stream_samples(nn.Conv1d(1, 1, 1), torch.zeros(1, 1, 50), source, target, chunk_ms=10, form="s16")
    assert (soundfile.info(target).format, soundfile.info(target).frames) == ("RF64", 2000)
