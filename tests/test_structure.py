"""The house: imports run one way, files stay short, nothing heavy loads early."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tapwise
from mutants import MUTANTS

ROOT = Path(tapwise.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))

# Each room may import from those above it in this list, and from its own; never from below.
ROOMS = [
    ["tapwise.errors", "tapwise.files"],
    ["tapwise.settings"],
    ["tapwise.geometry"],
    ["tapwise.partition"],
    ["tapwise.engine.checks"],
    ["tapwise.engine.machine_code"],
    ["tapwise.engine.threads", "tapwise.engine.memory"],
    ["tapwise.engine.problem"],
    ["tapwise.engine.adjoint"],
    ["tapwise.engine.kernels"],
    ["tapwise.engine.steering"],
    ["tapwise.engine.plan"],
    ["tapwise.engine.calls"],
    ["tapwise.engine.op"],
    ["tapwise.engine.autograd"],
    ["tapwise.functional", "tapwise.stepping"],
    ["tapwise.layers", "tapwise.acceleration", "tapwise.compat"],
    ["tapwise.filters"],
    ["tapwise.explanation"],
    ["tapwise.network"],
    ["tapwise.streaming"],
    ["tapwise.forms"],
    ["tapwise.taps", "tapwise.signals"],
    ["tapwise.blocks", "tapwise.doctor", "tapwise.timing"],
    ["tapwise.progress", "tapwise.case", "tapwise.factory", "tapwise.live"],
    ["tapwise.cli"],
    ["tapwise.__main__"],
]


def module_of(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module):
    for level, rooms in enumerate(ROOMS):
        for room in rooms:
            if module == room or module.startswith(room + "."):
                return level, room
    raise AssertionError(f"{module} has no room in ROOMS")


def imported(path):
    """The modules of tapwise that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("tapwise"))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            module = node.module or ""
            if module == "tapwise":
                yield from (f"tapwise.{alias.name}" for alias in node.names)
            elif module.startswith("tapwise."):
                inner = [f"{module}.{alias.name}" for alias in node.names]
                known = {module_of(source) for source in SOURCES}
                yield from ([name for name in inner if name in known] or [module])


def test_imports_run_one_way():
    arrows = 0
    for path in SOURCES:
        module = module_of(path)
        if module in ("tapwise", "tapwise.engine"):
            continue
        level, room = room_of(module)
        for other in imported(path):
            other_level, other_room = room_of(other)
            assert other_level < level or other_room == room, f"{module} imports {other}"
            arrows += 1
    assert arrows > 40


def test_the_stub_names_everything_public_and_nothing_more():
    stub = ast.parse((ROOT / "__init__.pyi").read_text())
    names = [alias.asname for node in stub.body for alias in node.names]
    assert sorted(names) == sorted(set(tapwise.__all__)) == sorted(set(names))
    modules = {path.stem for path in ROOT.iterdir()}
    for name in names:
        assert getattr(tapwise, name).__doc__, f"{name} has no docstring"
        assert name not in modules, f"{name} is both a public name and a module"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_short_and_say_what_they_are(path):
    text = path.read_text()
    assert text.count("\n") <= 300
    assert ast.get_docstring(ast.parse(text))


def test_importing_tapwise_imports_nothing_heavy():
    code = "import sys, tapwise; sys.exit(bool({'torch', 'numpy', 'numba'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)
    code = "import sys, tapwise; tapwise.Conv1d; sys.exit('numba' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_oracle_shares_nothing_with_the_package():
    for node in ast.walk(ast.parse((Path(__file__).parent / "oracle.py").read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            assert not any(name.startswith("tapwise") for name in names)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant[0])
def test_what_a_mutant_breaks_is_there(mutant):
    _, name, old, new, tests = mutant
    assert old in (ROOT / name).read_text()
    assert old != new
    assert all((Path(__file__).parent / name).exists() for name in tests.split())
