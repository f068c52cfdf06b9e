"""No compiled loop reads or writes beyond its tensors: a process on guarded memory lives to its end."""

import mmap
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("guarded.py")


def run(seed, count):
    arguments = [sys.executable, str(PROGRAM), str(seed), str(count)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=1500, check=False)
    last = done.stdout.strip().rpartition("\n")[2]
    assert done.returncode == 0, f"died at: {last}\n{done.stderr[-3000:]}"
    assert last == "well"


@pytest.mark.skipif(sys.platform != "linux", reason="pages are guarded by mprotect")
def test_loops_stay_within_their_tensors():
    run(0, 70)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="pages are guarded by mprotect")
@pytest.mark.parametrize("seed", range(1, 5))
def test_loops_stay_within_their_tensors_over_the_grid(seed):
    run(seed, 300)


@pytest.mark.fuzz
@pytest.mark.skipif(sys.platform != "linux", reason="pages are guarded by mprotect")
@pytest.mark.parametrize("seed", range(5, 9))
def test_loops_stay_within_their_tensors_over_a_long_grid(seed):
    run(seed, 1500)


@pytest.mark.skipif(sys.platform != "linux", reason="pages are guarded by mprotect")
def test_the_guard_holds():
    code = "import guarded; guarded.guarded_bytes(8)[7] = 1; import ctypes; print('armed')\n"
    code += f"b = guarded.guarded_bytes({mmap.PAGESIZE}); a = ctypes.addressof(ctypes.c_char.from_buffer(b))\n"
    code += f"ctypes.string_at(a + {mmap.PAGESIZE}, 1)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=PROGRAM.parent, timeout=120
    )
    assert done.returncode < 0, done.stderr
    assert "armed" in done.stdout
