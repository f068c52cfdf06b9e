"""The example that trains on divided sequences: the same losses on one, two and four ranks."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "long_sequences" / "train.py"


def losses(ranks):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", ranks, "--rdzv_backend", "c10d"]
    command += ["--rdzv_endpoint", "127.0.0.1:0", EXAMPLE, "--samples", 30_000, "--steps", 4]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(re.findall(r"MB at most", done.stdout)) == ranks
    return [float(loss) for loss in re.findall(r"loss ([\d.]+)", done.stdout)]


@pytest.mark.slow
def test_the_losses_do_not_depend_on_the_number_of_ranks():
    one = losses(1)
    assert len(one) == 4
    assert one[-1] < one[0]
    for ranks in (2, 4):
        assert losses(ranks) == pytest.approx(one, abs=1e-6)
