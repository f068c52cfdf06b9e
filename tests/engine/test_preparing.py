"""Loops that are compiled at once, in processes of their own."""

import os
import shutil
import subprocess
import sys
import time

import pytest
import torch

import tapwise as tw
from tapwise.engine import compiled, preparing
from tapwise.frozen import program

LOOPS = [("fft.loops", "filters_32_32"), ("fft.loops", "outputs_32_32")]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder of compiled code, nothing loaded, and processes for the quickest of loops."""
    monkeypatch.setenv("TAPWISE_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compiled, "_loops", {})
    monkeypatch.setattr(preparing, "_WORTH_A_PROCESS", 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    return tmp_path


@pytest.fixture
def started(monkeypatch):
    """The processes that were started."""
    found, start = [], preparing._start
    monkeypatch.setattr(preparing, "_start", lambda key: found.append(start(key)) or found[-1])
    return found


def test_what_is_missing_is_compiled_at_once_and_loaded(folder, started, monkeypatch):
    monkeypatch.setattr(compiled, "_compile", lambda *key: pytest.fail(f"compiled here: {key}"))
    preparing.prepare([*LOOPS, *LOOPS])
    assert len(started) == 2
    assert set(compiled._loops) == set(LOOPS)
    assert sorted(path.name.split("-")[1] for path in folder.iterdir()) == ["filters_32_32", "outputs_32_32"]
    monkeypatch.setattr(compiled, "_loops", {})
    preparing.prepare(LOOPS)  # loaded
    assert len(started) == 2


def test_one_loop_or_one_processor_needs_no_process(folder, started, monkeypatch):
    monkeypatch.setattr(compiled, "_compile", lambda *key: b"")
    monkeypatch.setattr(compiled, "_load", lambda *key: 8)
    preparing.prepare(LOOPS[:1])
    for attribute, value in ((os, ("sched_getaffinity", lambda pid: {0})), (sys, ("frozen", True))):
        shutil.rmtree(folder)
        monkeypatch.setattr(compiled, "_loops", {})
        monkeypatch.setattr(attribute, *value, raising=False)
        assert len(compiled.missing(LOOPS)) == 2
        preparing.prepare(LOOPS)
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    assert not started


def test_modules_of_the_working_folder_are_not_run(folder, started, monkeypatch):
    (folder / "here").mkdir()
    (folder / "here" / "random.py").write_text("raise SystemExit('the wrong one')")
    monkeypatch.chdir(folder / "here")
    monkeypatch.setattr(sys, "path", [*sys.path, "", folder])
    monkeypatch.setattr(compiled, "_compile", lambda *key: pytest.fail(f"compiled here: {key}"))
    preparing.prepare(LOOPS)
    assert [process.returncode for process in started] == [0, 0]


@pytest.mark.parametrize("trouble", ["fails", "no program", "no folder"])
def test_what_a_process_can_not_compile_is_compiled_here(folder, monkeypatch, trouble):
    if trouble == "fails":
        monkeypatch.setattr(preparing, "_PROGRAM", "raise SystemExit(1)")
        assert list(preparing.compiled_beside(LOOPS)) == []
    elif trouble == "no program":
        monkeypatch.setattr(sys, "executable", "/nowhere/python")
    else:
        monkeypatch.setattr(preparing, "_can_keep", lambda: False)
    here = []
    monkeypatch.setattr(compiled, "_compile", lambda *key: here.append(key) or b"")
    monkeypatch.setattr(compiled, "_load", lambda *key: 8)
    preparing.prepare(LOOPS)
    assert here == LOOPS


def test_an_interrupt_ends_the_processes(folder, started, monkeypatch):
    monkeypatch.setattr(preparing, "_PROGRAM", "import time; time.sleep(600)")

    def interrupted(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        preparing.prepare(LOOPS)
    assert [process.poll() is not None for process in started] == [True, True]


def test_the_seconds_that_are_announced(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    loops = [("program.loops", "program_32"), ("direct.loops", "convolve_32"), ("fft.loops", "filters_32_64")]
    assert preparing.seconds_of(loops) == compiled.seconds_of(loops[:1])
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0}, raising=False)
    assert preparing.seconds_of(loops) == compiled.seconds_of(loops)


def test_the_program_runs_as_a_user_starts_it():
    done = subprocess.run([sys.executable, "-c", preparing._PROGRAM, "direct.loops", "convolve_32"], check=False)
    assert done.returncode == 0


def test_a_frozen_network_prepares_its_loops(monkeypatch):
    prepared = []
    monkeypatch.setattr(program, "prepare", prepared.append)
    x = torch.randn(1, 8, 100)
    tw.freeze(torch.nn.Conv1d(8, 8, 3).eval(), x)(x)
    assert prepared[0] == program.LOOPS
