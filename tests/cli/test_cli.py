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
import soundfile
import torch
from numpy.lib import format as npy
from safetensors.torch import save_file

import tapwise as tw
from tapwise.cli.doctor import loops_here
from tapwise.engine import compiled, preparing, rates, trials
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


def test_doctor_compiles_ahead(here, tmp_path, monkeypatch):
    quick = [("fft.loops", "filters_32_32"), ("fft.loops", "outputs_32_32"), ("winograd.loops", "weights_32")]
    assert set(quick) < set(loops_here())
    monkeypatch.setattr(sys.modules["tapwise.cli.doctor"], "loops_here", lambda: quick)
    monkeypatch.setattr(preparing, "_WORTH_A_PROCESS", 0)  # seconds
    monkeypatch.setattr(compiled, "_loops", {})
    monkeypatch.setenv("TAPWISE_CACHE_DIR", str(tmp_path / "kept"))
    assert "compiled     0 of 3 loops" in here("doctor")
    first = here("doctor", "--warm")
    for words in ("fft filters_32_32: compiled in", "winograd weights_32: compiled in", str(tmp_path / "kept")):
        assert words in first
    assert "fft filters_32_32: cached" in here("doctor", "--warm")
    assert "compiled     3 of 3 loops" in here("doctor")


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


def test_doctor_measures_this_machines_rates_and_keeps_them(here, tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "_PROBE_ROUNDS", 1)
    monkeypatch.setattr(trials, "_PROBE_SECONDS", 0.001)
    monkeypatch.setenv("TAPWISE_PLANS", str(tmp_path / "plans.json"))
    tw.plans.clear()
    assert "tapwise doctor --tune measures them" in here("doctor")
    printed = here("doctor", "--tune")
    assert "native, dense" in printed
    assert f"kept in {tmp_path / 'plans.json'}" in printed
    assert "as this machine was measured to have them" in here("doctor")
    family = rates.current_rates()
    here_too = {name for name, group in rates.GROUPS.items() if getattr(family, group.section) is not None}
    assert set(json.loads((tmp_path / "plans.json").read_text())["machines"][0]["rates"]) == here_too
    monkeypatch.setenv("TAPWISE_PLANS", "")
    assert "not kept: TAPWISE_PLANS is empty" in here("doctor", "--tune")
    tw.plans.clear()


def test_help_imports_no_torch_and_is_quick():
    command = [sys.executable, "-X", "importtime", "-m", "tapwise"]
    for arguments in (["--help"], ["apply", "--help"], ["--version"]):
        run = subprocess.run([*command, *arguments], capture_output=True, text=True, check=True)
        loaded = {line.rpartition("|")[2].strip() for line in run.stderr.splitlines()}
        assert "cyclopts" in loaded
        assert not loaded & {"torch", "numba", "scipy", "polars", "soundfile", "triton"}
    bare, ours = [], []
    for _ in range(20):
        for seconds, arguments in ((bare, ["-c", ""]), (ours, ["-m", "tapwise", "--help"])):
            started = time.perf_counter()
            subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
            seconds.append(time.perf_counter() - started)
        if min(ours) - min(bare) < max(0.3, 20 * min(bare)):  # a slow machine starts Python slowly
            break
    else:
        pytest.fail(f"the command starts in {min(ours):.2f} s, Python in {min(bare):.2f} s")


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
        "except SystemExit as error: code = error.code\n"
        "sys.exit(code != 1 or 'torch' in sys.modules or 'scipy.signal' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stderr.startswith("tapwise: ")
