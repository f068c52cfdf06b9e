"""Break one module of Tapwise in many places, one at a time, and see that the tests notice.

    python tests/mutants.py geometry.py tests/test_geometry.py [TEST ...] [--most 40] [--seed 0]

cosmic-ray reads the module's syntax tree and makes each mutant: an operator, a comparison, a number, a
condition. Works on a copy; prints the mutants that survive, with their place, and fails if there are any. A
survivor is a gap in the tests, or a change that means the same.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import TestOutcome, WorkerOutcome, WorkResult

ROOT = Path(__file__).parent.parent

CONFIG = """[cosmic-ray]
module-path = "src/tapwise/{module}"
timeout = 300.0
excluded-modules = []
test-command = "{python} -m pytest -q -x -m 'not fuzz and not slow' -p no:cacheprovider {tests}"

[cosmic-ray.distributor]
name = "local"
"""


def run(folder, *arguments):
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder / "src"),
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    program = Path(sys.executable).with_name("cosmic-ray")
    subprocess.run([program, *arguments], cwd=folder, env=environment, check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("module", help="within src/tapwise")
    parser.add_argument("tests", nargs="+", help="that have to notice")
    parser.add_argument("--most", type=int, default=40, help="mutants, drawn at random")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("src", "tests", "docs", "benchmarks"):
            ignore = shutil.ignore_patterns("__pycache__", "results")
            shutil.copytree(ROOT / part, folder / part, ignore=ignore)
        for part in ("pyproject.toml", "conftest.py", "README.md"):
            shutil.copy(ROOT / part, folder / part)
        tests = " ".join(options.tests)
        config = CONFIG.format(module=options.module, tests=tests, python=sys.executable)
        (folder / "mutants.toml").write_text(config)
        run(folder, "baseline", "mutants.toml")
        run(folder, "init", "mutants.toml", "mutants.sqlite")
        with use_db(folder / "mutants.sqlite", mode=WorkDB.Mode.open) as work:
            items = sorted(work.pending_work_items, key=lambda item: item.job_id)
            random.Random(options.seed).shuffle(items)
            # The bar of `int | None` is no operator to break.
            bars = [i for i in items if "BinaryOperator_BitOr" in i.mutations[0].operator_name]
            broken = [item for item in items if item not in bars]
            for item in [*bars, *broken[options.most :]]:
                work.set_result(item.job_id, WorkResult(WorkerOutcome.SKIPPED))
        run(folder, "exec", "mutants.toml", "mutants.sqlite")
        survivors = killed = 0
        with use_db(folder / "mutants.sqlite", mode=WorkDB.Mode.open) as work:
            for _, result in work.completed_work_items:
                if result.worker_outcome == WorkerOutcome.SKIPPED:
                    continue
                if result.test_outcome == TestOutcome.SURVIVED:
                    survivors += 1
                    print(f"SURVIVES\n{result.diff}")
                else:
                    killed += 1
    print(f"{options.module}: {killed} killed, {survivors} survived")
    sys.exit(bool(survivors))


if __name__ == "__main__":
    main()
