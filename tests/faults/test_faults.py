"""Each fault in a process of its own: no death, no hang, no wrong number, no half-written file, no traceback."""

import os
import subprocess
import sys

import pytest

from faults.cases import CASES, HEAD, SAMPLE


def mark(name):
    return pytest.param(name, marks=() if name in SAMPLE else pytest.mark.faults)


@pytest.mark.parametrize("name", [mark(name) for name in CASES])
def test_holds(name, tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-X", "faulthandler", "-c", HEAD + CASES[name] + "\nprint('well')"],
        capture_output=True,
        text=True,
        timeout=280,
        cwd=tmp_path,
        env={key: value for key, value in os.environ.items() if key != "PYTHONOPTIMIZE" and not key.startswith("OMP_")},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().endswith("well"), done.stdout[-2000:]


def test_the_sample_is_of_the_cases():
    assert set(SAMPLE) <= set(CASES)
