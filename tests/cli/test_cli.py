"""The command, as a user runs it: a process of its own for what matters there, else in this one."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.signal
import soundfile
import torch
from numpy.lib import format as npy
from safetensors.torch import save_file

import tapwise as tw
from tapwise import cli
from tapwise.explanation.steps import number

TUTORIAL = json.loads((Path(__file__).parents[1] / "data" / "tutorial.json").read_text())
ENVIRONMENT = {**os.environ, "COLUMNS": "100"}


def tapwise(*arguments, code=0, **options):
    """Run the command in a process of its own: (standard output, standard error)."""
    run = subprocess.run(
        [sys.executable, "-m", "tapwise", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        check=False,
        **options,
    )
    assert run.returncode == code, run.stderr
    return run.stdout, run.stderr


@pytest.fixture
def here(capsys):
    """Run the command in this process: what it prints; for mistakes, what it says of them."""

    def run(*arguments):
        code = 0
        try:
            cli.main([str(argument) for argument in arguments])
        except SystemExit as ended:
            code = ended.code or 0
        printed = capsys.readouterr()
        return printed.out if code == 0 else printed.err

    return run


@pytest.mark.parametrize("case", TUTORIAL["cases"], ids=lambda case: case["name"])
def test_the_tutorials_cases(case, here):
    taps = ";".join(",".join(map(str, row)) for row in case["weight"])
    settings = ["--stride", case["stride"], "--dilation", case["dilation"]]
    printed = here("explain", "--input", "0:10", "--taps", taps, "--padding", case["padding"], *settings)
    final = printed[printed.index("Final : ") + 8 :].split("Numbers in")[0]
    numbers = [float(n) for n in final.replace("[", " ").replace("]", " ").split()]
    assert numbers == [y for row in case["output"] for y in row]


def test_the_tutorials_loop_to_the_letter(here):
    printed = here("explain", "--input", "0:10", "--taps", "1,1,1")
    assert printed.endswith("\n".join([*TUTORIAL["trace"], TUTORIAL["final"]]) + "\n")
    assert here("explain", "--taps", "1,1,1") == printed


def test_explain_of_files(here, tmp_path):
    layer = torch.nn.Conv1d(2, 3, 4)
    with torch.no_grad():  # whole numbers: sums of others round apart in their last digit
        for parameter in layer.parameters():
            parameter.copy_(torch.randint(-9, 10, parameter.shape))
    save_file({"a.weight": layer.weight.data, "a.bias": layer.bias.data}, tmp_path / "m.safetensors")
    x = torch.randint(-9, 10, (2, 9)).float()
    np.save(tmp_path / "x.npy", x.numpy())
    printed = here("explain", tmp_path / "x.npy", "--weights", f"{tmp_path}/m.safetensors:a.weight", "--causal")
    y = tw.conv1d(x, layer.weight, layer.bias, padding="causal")
    assert f"= {number(y[0, 0].detach().numpy())}\n" in printed
    assert here("explain", "--taps", "1,1", "--save", tmp_path / "f.svg") == f"wrote {tmp_path}/f.svg\n"
    assert (tmp_path / "f.svg").read_text().startswith("<svg")
    here("explain", "--taps", "1,1", "--save", tmp_path / "f.txt")
    assert "Step 0" in (tmp_path / "f.txt").read_text()
    soundfile.write(tmp_path / "s.wav", np.zeros(1000), 8000)
    assert "x       (1, 16)" in here("explain", tmp_path / "s.wav", "--taps", "lowpass:1000:5", "--samples", 16)


def test_apply_on_a_table(here, tmp_path):
    (tmp_path / "t.csv").write_text("month,ppm\n" + "".join(f"{i},{i * i}\n" for i in range(20)))
    printed = here(
        "apply", tmp_path / "t.csv", "--taps", "mean:4", "--padding", "causal", "--column", "ppm", "--stride", 2
    )
    assert "20 samples, 1 channel" in printed
    table = pl.read_csv(tmp_path / "t.filtered.csv")
    assert table.columns == ["month", "ppm"]
    assert table["month"].to_list() == list(range(0, 20, 2))
    assert table["ppm"].to_list() == pytest.approx(
        [np.mean([j * j for j in range(max(i - 3, 0), i + 1)]) for i in range(0, 20, 2)]
    )


def test_apply_on_a_sound_says_what_it_did(tmp_path):
    soundfile.write(tmp_path / "x.wav", np.sin(np.arange(8000) / 3) * 0.9, 8000)
    out, err = tapwise("apply", tmp_path / "x.wav", "--taps", "2", "--stride", 2, "-o", tmp_path / "y.flac")
    assert "8,000 samples, 1 channel" in out
    assert "4,000 samples at 4000 Hz" in out
    assert "x real time" in out
    assert "clipped" in err
    assert "1.8 times full scale" in err
    info = soundfile.info(tmp_path / "y.flac")
    assert (info.samplerate, info.frames, info.subtype) == (4000, 4000, "PCM_16")


def test_flip_convolves_as_numpy(here, tmp_path):
    np.save(tmp_path / "x.npy", np.arange(5.0))
    here("apply", tmp_path / "x.npy", "--taps", "1,2,3", "--flip", "--padding", "full", "-o", tmp_path / "y.npy")
    assert np.load(tmp_path / "y.npy").tolist() == np.convolve(np.arange(5.0), [1, 2, 3]).tolist()
    here("apply", tmp_path / "x.npy", "--taps", "1,2,3", "--padding", "2,0", "-o", tmp_path / "y.npy")
    assert np.load(tmp_path / "y.npy").tolist() == [0, 3, 8, 14, 20]
    for taps in ([2.0], [1.0, 2.0], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0]):
        text = ",".join(map(str, taps))
        here("apply", tmp_path / "x.npy", "--taps", text, "--flip", "--padding", "same", "-o", tmp_path / "y.npy")
        assert np.load(tmp_path / "y.npy").tolist() == np.convolve(np.arange(5.0), taps, "same").tolist()


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("responses", [1, 2, 4])
def test_impulse_responses_of_several_channels(here, tmp_path, channels, responses):
    rng = np.random.default_rng(0)
    x, h = rng.standard_normal((400, channels)), rng.standard_normal((30, responses))
    soundfile.write(tmp_path / "x.wav", x, 8000, "DOUBLE")
    soundfile.write(tmp_path / "h.wav", h, 8000, "DOUBLE")
    names = ("x.wav", "--taps", "h.wav", "--flip", "--padding", "full", "-o", "y.wav")
    here("apply", *(tmp_path / name if name.endswith(".wav") else name for name in names))
    y, _ = soundfile.read(tmp_path / "y.wav", always_2d=True)

    def convolved(source, response):
        return np.convolve(x[:, source], h[:, response])

    if responses == 1:
        want = [convolved(c, 0) for c in range(channels)]
    elif channels == 1:
        want = [convolved(0, r) for r in range(responses)]
    elif responses == 2:
        want = [convolved(0, 0), convolved(1, 1)]
    else:  # left to left, left to right, right to left, right to right
        want = [convolved(0, 0) + convolved(1, 2), convolved(0, 1) + convolved(1, 3)]
    np.testing.assert_allclose(y.T, want, atol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["absent.wav", "--taps", "1"], "absent.wav: there is no such file"),
        (["x.npy", "--taps", "zork"], "can't be read"),
        (["x2.npy", "--taps", "1;2;3"], "expected one filter"),
        (["x.npy", "--taps", "1", "--padding", "casual"], "Invalid padding string 'casual'"),
        (["x.npy", "--taps", "mean:50", "--padding", "valid"], "at least 50 samples"),
        (["x.npy", "--taps", "1", "-o", "y.wav"], "--rate"),
        (["x.npy", "--taps", "1", "-o", "y.xyz"], "suffix"),
        (["x.npy", "--taps", "1", "--stride", "0"], "non-positive stride"),
    ],
)
def test_mistakes_are_told_in_a_line_and_write_nothing(arguments, words, here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.ones(20))
    np.save("x2.npy", np.ones((2, 20)))
    said = here("apply", *arguments)
    assert words in said
    assert "Traceback" not in said
    assert os.listdir() == ["x.npy", "x2.npy"]


def test_explain_wants_taps_once(here):
    assert "Final : [ 3.  6." in here("explain")
    assert "give the taps as" in here("explain", "--taps", "1", "--weights", "a.safetensors:b")
    assert "expected START:STOP" in here("explain", "--taps", "1", "--input", "a:b")


def test_explain_refuses_what_it_cant_take(here, tmp_path):
    assert "expected START:STOP" in here("explain", "--taps", "1", "--input", "0:10:0")
    np.save(tmp_path / "x.npy", np.ones(20))
    assert "--samples must be at least 1, got -5" in here(
        "explain", tmp_path / "x.npy", "--taps", "1", "--samples", "-5"
    )
    assert "--rate must be a positive number" in here("apply", tmp_path / "x.npy", "--taps", "1", "--rate", "-8")


def test_taps_may_begin_with_a_minus(here, tmp_path):
    assert "Final : [1. 1. 1.]" in here("explain", "--taps", "-1,1", "--input", "0:4")
    assert "Final : [-1.  0.]" in here("explain", "--taps", "1", "--input", "-1,0")
    (tmp_path / "t.csv").write_text("self,note\n1,a\n4,b\n")
    here("apply", tmp_path / "t.csv", "--taps", "-1,1", "--padding", "causal", "--padding-mode", "zeros")
    assert pl.read_csv(tmp_path / "t.filtered.csv")["self"].to_list() == [1, 3]


def test_the_form_of_taps_decides_how_they_are_used(here, tmp_path):
    """In every command alike: filters are convolved, centred or causal; weights are a layer's."""
    x = np.arange(6.0) ** 2
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "filter.npy", np.array([1.0, 2.0, 4.0]))
    np.save(tmp_path / "weight.npy", np.array([[[1.0, 2.0, 4.0]]]))
    rows = {
        "1,2,4": np.correlate(x, [1, 2, 4], "valid"),
        f"{tmp_path}/weight.npy": np.correlate(x, [1, 2, 4], "valid"),
        f"{tmp_path}/filter.npy": np.convolve(x, [1, 2, 4])[:6],
        "diff": np.convolve(x, [1, -1])[:6],
        "lowpass:0.5:5": np.convolve(x, scipy.signal.firwin(5, 0.5), "same"),
        "lowpass:0.5:4": np.convolve(x, scipy.signal.firwin(4, 0.5), "same"),
    }
    for taps, expected in rows.items():
        here("apply", tmp_path / "x.npy", tmp_path / "y.npy", "--taps", taps)
        np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, atol=1e-12)
        final = here("explain", tmp_path / "x.npy", "--taps", taps).partition("Final : [")[2].partition("]")[0]
        np.testing.assert_allclose([float(n) for n in final.split()], expected, rtol=1e-3, atol=1e-4)
    for options, expected in (
        (["--flip", "--causal"], np.convolve(x, [1, 2, 4])[:6]),
        (["--causal"], np.correlate(np.r_[0, 0, x], [1, 2, 4], "valid")),
    ):
        here("apply", tmp_path / "x.npy", tmp_path / "y.npy", "--taps", "1,2,4", *options)
        assert np.load(tmp_path / "y.npy").tolist() == expected.tolist()
    said = here("apply", tmp_path / "x.npy", tmp_path / "y.npy", "--taps", f"{tmp_path}/filter.npy", "--no-flip")
    assert "a filter, used as it stands, zeros beyond the ends" in said
    assert np.load(tmp_path / "y.npy").tolist() == np.correlate(np.r_[0, 0, x], [1, 2, 4], "valid").tolist()
    assert "given twice" in here("apply", tmp_path / "x.npy", "a.npy", "-o", "b.npy", "--taps", "1")
    assert "a padding of its own" in here("apply", tmp_path / "x.npy", "--taps", "1", "--causal", "--padding", "same")


def test_an_impulse_response_echoes_after_the_sound(here, tmp_path):
    click, room = np.zeros(4000), np.zeros(2500)
    click[1000], room[0], room[2400] = 0.5, 1, 0.5
    soundfile.write(tmp_path / "click.wav", click, 8000)
    soundfile.write(tmp_path / "room.wav", room, 8000, subtype="FLOAT")
    said = here("apply", tmp_path / "click.wav", tmp_path / "hall.wav", "--taps", tmp_path / "room.wav")
    assert "an impulse response, convolved" in said
    heard, _ = soundfile.read(tmp_path / "hall.wav")
    assert np.flatnonzero(heard).tolist() == [1000, 3400]
    assert heard[[1000, 3400]].tolist() == [0.5, 0.25]


def test_an_array_may_have_time_first(here, tmp_path):
    x = np.random.default_rng(0).normal(size=(500, 2))
    for name, array in (("c", x), ("f", np.asfortranarray(x))):
        np.save(tmp_path / f"{name}.npy", array)
        said = here("apply", tmp_path / f"{name}.npy", "--taps", "lowpass:0.3:9")
        assert "2 samples of 500 channels" in said
        assert "500 samples of 2: --axis -1 says the first, --axis 0 the second" in said
        for axis in ("0", "-2"):
            here("apply", tmp_path / f"{name}.npy", tmp_path / "y.npy", "--taps", "lowpass:0.3:9", "--axis", axis)
            y = np.load(tmp_path / "y.npy")
            expected = [np.convolve(row, scipy.signal.firwin(9, 0.3), "same") for row in x.T]
            np.testing.assert_allclose(y, np.transpose(expected), atol=1e-12)
        here("apply", tmp_path / f"{name}.npy", tmp_path / "y.npy", "--taps", "1,1", "--axis", "1")
        np.testing.assert_allclose(np.load(tmp_path / "y.npy"), x[:, :1] + x[:, 1:])
    assert "there is no axis 2" in here("apply", tmp_path / "c.npy", "--taps", "1", "--axis", "2")
    (tmp_path / "t.csv").write_text("v\n1\n")
    assert "belongs to arrays" in here("apply", tmp_path / "t.csv", "--taps", "1", "--axis", "0")


def test_an_average_is_one_of_what_is_there(here, tmp_path):
    """At the ends as pandas' rolling(3, center=True, min_periods=1), and at gaps where asked for."""
    (tmp_path / "t.csv").write_text("at,celsius\na,10\nb,10.5\nc,11\nd,15.5\n")
    said = here("apply", tmp_path / "t.csv", tmp_path / "u.csv", "--taps", "mean:3")
    assert "shorter windows" in said
    assert pl.read_csv(tmp_path / "u.csv")["celsius"].to_list() == pytest.approx([10.25, 10.5, 37 / 3, 13.25])
    here("apply", tmp_path / "t.csv", tmp_path / "u.csv", "--taps", "lowpass:0.5:3")
    assert pl.read_csv(tmp_path / "u.csv")["celsius"][0] == pytest.approx(scipy.signal.firwin(3, 0.5) @ [10, 10, 10.5])
    (tmp_path / "t.csv").write_text("at,celsius\na,10\nb,\nc,\nd,\ne,4\nf,6\n")
    assert "--nan skip" in here("apply", tmp_path / "t.csv", "--taps", "mean:3")
    here("apply", tmp_path / "t.csv", tmp_path / "u.csv", "--taps", "mean:3", "--nan", "skip")
    filled = pl.read_csv(tmp_path / "u.csv")["celsius"].to_list()
    assert np.isnan(filled[2])
    assert filled[:2] + filled[3:] == pytest.approx([10, 10, 4, 5, 5])
    assert "is for averages" in here("apply", tmp_path / "t.csv", "--taps", "diff", "--nan", "skip")


def test_doctor_compiles_ahead(here, tmp_path, monkeypatch):
    monkeypatch.setenv("TAPWISE_CACHE_DIR", str(tmp_path / "kept"))
    first = here("doctor", "--warm")
    assert "direct convolve_32: " in first
    assert str(tmp_path / "kept") in first
    assert "2 of " in here("doctor") or "of 11 loops" in here("doctor")


@pytest.mark.slow
def test_bench_times_well_known_layers(here):
    printed = here("bench", "--seconds", "0.001")
    assert "Mamba, depthwise" in printed
    assert "geometric mean of the ratios: " in printed
    assert "spread" in printed


def test_doctor_names_versions_and_kernels(here):
    printed = here("doctor")
    for words in ("torch", "numba", "processor", "native", "direct", "reference", "runs"):
        assert words in printed


def test_help_imports_no_torch_and_is_quick():
    command = [sys.executable, "-X", "importtime", "-m", "tapwise"]
    for arguments in (["--help"], ["apply", "--help"], ["--version"]):
        run = subprocess.run([*command, *arguments], capture_output=True, text=True, check=True)
        loaded = {line.rpartition("|")[2].strip() for line in run.stderr.splitlines()}
        assert "cyclopts" in loaded
        assert not loaded & {"torch", "numba", "scipy", "polars", "soundfile", "triton"}
    bare, ours = [], []
    for _ in range(5):
        for seconds, arguments in ((bare, ["-c", ""]), (ours, ["-m", "tapwise", "--help"])):
            started = time.perf_counter()
            subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
            seconds.append(time.perf_counter() - started)
    assert min(ours) - min(bare) < max(0.3, 20 * min(bare))  # a slow machine starts Python slowly


MEASURED = """
import resource, subprocess, sys
subprocess.run([sys.executable, *sys.argv[1:]], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
"""


def peak(*arguments):
    """The most resident memory, in bytes, of a Python process with these arguments."""
    run = subprocess.run(
        [sys.executable, "-c", MEASURED, *map(str, arguments)], capture_output=True, text=True, check=True
    )
    return int(run.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["npy", "wav"])
def test_two_gigabytes_go_through_in_little_memory(kind, tmp_path):
    samples = 500_000_000  # of float32: 2 GB, all but the beginning a hole in the file
    source = tmp_path / f"x.{kind}"
    beginning = np.arange(1000, dtype=np.float32)
    if kind == "npy":
        with source.open("wb") as file:
            npy.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (samples,)})
            file.write(beginning.tobytes())
            file.truncate(128 + samples * 4)
    else:
        soundfile.write(source, beginning, 8000, subtype="FLOAT", format="WAV")
        _lengthen(source, samples)
    assert source.stat().st_size >= 2_000_000_000
    imports = "import torch, numba, scipy.signal, tapwise"
    before = peak("-c", imports)
    target = tmp_path / f"y.{kind}"
    try:
        used = peak("-m", "tapwise", "apply", source, "--taps", "1,2,1", "--padding", "same", "-o", target) - before
        print(f"{kind}: {used / 1e6:.0f} MB above the imports' {before / 1e6:.0f} MB")
        assert used < 150_000_000
        assert target.stat().st_size >= 2_000_000_000
        with target.open("rb") as file:
            file.seek(source.stat().st_size - samples * 4)
            begun = np.fromfile(file, "<f4", 998)
        assert begun[1:].tolist() == (4 * np.arange(1, 998)).tolist()
    finally:
        shutil.rmtree(tmp_path)


def _lengthen(path, samples):
    """Make a mono float WAV as long as ``samples``, without writing them."""
    head = path.read_bytes()[: path.stat().st_size - 4000]
    at = head.rindex(b"data")
    head = head[: at + 4] + (samples * 4).to_bytes(4, "little")
    head = head[:4] + (len(head) - 8 + samples * 4).to_bytes(4, "little") + head[8:]
    fact = head.find(b"fact")
    if fact > 0:
        head = head[: fact + 8] + samples.to_bytes(4, "little") + head[fact + 12 :]
    with path.open("wb") as file:
        file.write(head + np.arange(1000, dtype=np.float32).tobytes())
        file.truncate(len(head) + samples * 4)


@pytest.mark.parametrize(
    "arguments",
    [
        ["apply", "none.wav", "--taps", "1"],
        ["apply", "x.npy", "--taps", "zork"],
        ["apply", "x.npy", "--taps", "lowpass:2:3"],
        ["apply", "x.npy", "--taps", "1", "--padding", "zork"],
        ["apply", "x.npy", "--taps", "1", "--stride", "2.5"],
        ["apply", "x.npy", "--taps", "1", "-o", "a.zip"],
        ["apply", "x.npy", "--taps", "none.safetensors:w"],
        ["inspect", "none.py:f"],
        ["stream", "none.py:f"],
        ["explain", "--taps", "zork"],
        ["explain", "none.npy"],
        ["explain", "--padding", "zork"],
    ],
)
def test_a_mistake_is_told_before_torch_is_imported(tmp_path, arguments):
    np.save(tmp_path / "x.npy", np.ones(50))
    code = (
        "import sys; from tapwise.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as error: assert error.code == 1\n"
        "assert 'torch' not in sys.modules and 'scipy.signal' not in sys.modules"
    )
    run = subprocess.run([sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stderr.startswith("tapwise: ")
