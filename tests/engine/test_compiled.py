"""Compiled loops on disk: found again, and no harm where they can't be kept or read."""

import os
import subprocess
import sys
import time

import pytest

from tapwise.engine import compiled, memory, threads
from tapwise.engine.kernels.fft.records import FramesJob

CALL = """
import sys, time, torch, tapwise as tw
x, w = torch.ones(1, 1, 100_000), torch.ones(1, 1, 31)
begin = time.perf_counter()
assert tw.explain(torch.nn.Conv1d(1, 1, 31), x[0]).plan.kernel == "direct"
begin = time.perf_counter()
y = tw.conv1d(x, w)
took = time.perf_counter() - begin
assert y.shape[-1] == 99_970 and (y == 31).all()
print(took, "numba" in sys.modules)
"""


def call(folder):
    environment = {**os.environ, "TAPWISE_CACHE_DIR": str(folder)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CALL], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    took, with_numba = done.stdout.split()
    return float(took), with_numba == "True"


@pytest.mark.slow
def test_a_later_process_loads_what_the_first_compiled(tmp_path):
    assert call(tmp_path / "cache")[1]
    took, with_numba = call(tmp_path / "cache")
    assert took < 0.5
    assert not with_numba


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["cut", "other", "empty", "a folder"])
def test_a_damaged_file_is_compiled_again_and_mended(tmp_path, damage):
    call(tmp_path)
    (file,) = tmp_path.glob("*.o")
    code = file.read_bytes()
    if damage == "a folder":
        file.unlink()
        file.mkdir()
    else:
        file.write_bytes({"cut": code[:1000], "other": b"x" * len(code), "empty": b""}[damage])
    assert call(tmp_path)[1]
    if damage != "a folder":
        assert not call(tmp_path)[1]


@pytest.mark.slow
@pytest.mark.parametrize("place", ["/proc/tapwise", "/dev/null/tapwise"])
def test_a_folder_that_cant_be_written(place):
    if not os.path.exists(os.path.dirname(place)):
        pytest.skip(f"no {os.path.dirname(place)} here")
    assert call(place)[1]


@pytest.mark.slow
def test_nothing_half_written_is_left(tmp_path):
    call(tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [".o"]


@pytest.mark.slow
def test_two_processes_that_compile_at_once_agree(tmp_path):
    environment = {**os.environ, "TAPWISE_CACHE_DIR": str(tmp_path)}
    both = [subprocess.Popen([sys.executable, "-c", CALL], env=environment) for _ in "ab"]
    assert [process.wait(120) for process in both] == [0, 0]
    assert not call(tmp_path)[1]


def test_code_of_other_sources_or_processors_is_not_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("TAPWISE_CACHE_DIR", str(tmp_path))
    compiled.fingerprint.cache_clear()
    here = compiled._file("direct.loops", "convolve_32")
    monkeypatch.setenv("NUMBA_CPU_NAME", "haswell")
    compiled.fingerprint.cache_clear()
    there = compiled._file("direct.loops", "convolve_32")
    monkeypatch.undo()
    compiled.fingerprint.cache_clear()
    assert here.name != there.name
    assert here.name.startswith("direct_loops-convolve_32-")


def test_the_body_is_compiled_once_for_all_threads(monkeypatch):
    from concurrent.futures import ThreadPoolExecutor

    made = []

    def prepare(module, name):
        time.sleep(0.05)
        made.append(name)
        return object()

    monkeypatch.setattr(compiled, "_prepare", prepare)
    monkeypatch.setattr(compiled, "_loops", {})
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: compiled.loop("m", "n"), range(8)))
    assert made == ["n"]
    assert len({id(body) for body in found}) == 1


CANT = """
import torch, tapwise as tw
plan = tw.explain(torch.nn.Conv1d(1, 1, 31), torch.ones(1, 100_000)).plan
assert plan.kernel in ("native", "gemm"), plan  # what needs no loops
print(dict(plan.rejected)["direct"])
assert tw.conv1d(torch.ones(1, 1, 100_000), torch.ones(1, 1, 31)).shape[-1] == 99_970
"""


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ("NUMBA_DISABLE_JIT", "turns the compiler off"),
        ("numba", "Numba can't be imported: it is"),
        ("llvmlite", "Numba can't be imported: it is"),
    ],
)
def test_without_a_working_compiler_torch_runs_and_the_plan_says_why(tmp_path, trouble, said):
    environment = {**os.environ, "TAPWISE_CACHE_DIR": str(tmp_path / "cache")}
    if trouble != "NUMBA_DISABLE_JIT":
        package = tmp_path / "lib" / trouble
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("raise ImportError('it is too old')")
        environment["PYTHONPATH"] = str(package.parent)
    else:
        environment[trouble] = "1"
    done = subprocess.run([sys.executable, "-c", CANT], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout


def test_what_other_versions_kept_is_forgotten_when_nobody_has_read_it_for_a_month(tmp_path, monkeypatch):
    monkeypatch.setenv("TAPWISE_CACHE_DIR", str(tmp_path))
    names = ["direct_loops-convolve_32-old.o", "direct_loops-convolve_32-new.o", "direct_loops-convolve_64-old.o"]
    for name in names:
        (tmp_path / name).write_bytes(b"")
        if "old" in name:
            os.utime(tmp_path / name, (0, 0))
    compiled._write("direct.loops", "convolve_32", b"code")
    assert not (tmp_path / names[0]).exists()
    assert (tmp_path / names[1]).exists()
    assert (tmp_path / names[2]).exists()
    assert compiled._read("direct.loops", "convolve_32") == b"code"


@pytest.mark.parametrize("workers", [1, 2])
def test_no_memory_for_a_block_is_an_error_in_python(workers, monkeypatch):
    monkeypatch.setattr(memory, "IS_CHECKED", False)  # the job has no memory of its own
    job = FramesJob(samples=1 << 56)  # of a frame, for which there is no memory
    with pytest.raises(MemoryError, match="no memory"):
        threads.run(compiled.loop("fft.loops", "frames_64_64"), job, 100, workers)


def test_the_processors_vectors_are_those_of_its_features(monkeypatch):
    for kind, features, size in (
        ("x86_64", "+sse2", 16),
        ("x86_64", "+avx,-avx512f", 32),
        ("x86_64", "+avx,+avx2,+avx512f", 64),
        ("x86_64", "", 32),
        ("aarch64", "", 16),
    ):
        monkeypatch.setattr(compiled, "processor", lambda features=features: ("any", features))
        monkeypatch.setattr(compiled.platform, "machine", lambda kind=kind: kind)
        assert compiled.vector_bytes.__wrapped__() == size


def test_a_terminal_is_told_once_why_the_first_call_takes_long(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TAPWISE_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compiled, "_is_announced", False)
    monkeypatch.setattr(compiled, "_say", compiled._say_on_terminal)
    monkeypatch.setattr(compiled, "_compile", lambda module, name: b"code")
    monkeypatch.setattr(compiled, "_load", lambda code, name: 1)
    monkeypatch.setattr(compiled, "_loops", {})
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    compiled.loop("direct.loops", "convolve_32")
    said = capsys.readouterr().err
    assert "compiling for this processor, once: about 15 s" in said
    assert str(tmp_path) in said
    compiled.loop("direct.loops", "convolve_64")
    assert not capsys.readouterr().err


def test_nothing_is_printed_where_nobody_reads_along(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TAPWISE_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compiled, "_is_announced", False)
    monkeypatch.setattr(compiled, "_say", compiled._say_on_terminal)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    compiled.announce(15)
    assert not capsys.readouterr().err
