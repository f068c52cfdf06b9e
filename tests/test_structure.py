"""The house: imports run one way and in no circle, nothing heavy loads early, messages name real files."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tapwise
from tapwise.engine import rates

ROOT = Path(tapwise.__file__).parent
REPOSITORY = Path(__file__).parent.parent
SOURCES = sorted(ROOT.rglob("*.py"))

# Each layer may import from those before it in this list, and from its own; never from a later one.
LAYERS = [
    ["tapwise.errors", "tapwise.atomic_file", "tapwise.forks", "tapwise.interrupts"],
    ["tapwise.padding", "tapwise.evaluation", "tapwise.extras"],
    ["tapwise.geometry"],
    ["tapwise.partition"],
    ["tapwise.engine"],
    ["tapwise.functional", "tapwise.chunks"],
    [
        "tapwise.layers",
        "tapwise.lazy_layers",
        "tapwise.tuning",
        "tapwise.plans",
        "tapwise.acceleration",
        "tapwise.forwards",
        "tapwise.compat",
    ],
    ["tapwise.filters", "tapwise.containers", "tapwise.fir"],
    ["tapwise.explanation"],
    ["tapwise.network"],
    ["tapwise.frozen"],
    ["tapwise.streaming"],
    ["tapwise.signals"],
    ["tapwise.scale"],
    ["tapwise.cli"],
    ["tapwise.__main__"],
]
# Within the engine, from problems to calls.
ENGINE = [
    "checks compiled rates outputs memory",
    "threads problem preparing",
    "adjoint kernels",
    "deterministic",
    "options costs measured",
    "plan",
    "op",
    "autograd",
    "dispatch",
    "trials",
]


def module_of(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path) for path in SOURCES}


def imported(path):
    """The modules of tapwise that a file imports anywhere in it, lazily or for types too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("tapwise"))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            module = node.module or ""
            if module == "tapwise" or module.startswith("tapwise."):
                inner = [f"{module}.{alias.name}" for alias in node.names]
                found = [name for name in inner if name in MODULES]
                yield from found
                if len(found) < len(inner):
                    yield module


def layer_of(module):
    for level, layer in enumerate(LAYERS):
        if any(module == name or module.startswith(name + ".") for name in layer):
            return level
    raise AssertionError(f"{module} has no place in LAYERS")


def engine_level(module):
    name = module.split(".")[2]
    return next(level for level, names in enumerate(ENGINE) if name in names.split())


def test_imports_run_one_way():
    arrows = 0
    for path in SOURCES:
        module = module_of(path)
        if module == "tapwise":
            continue
        for other in imported(path):
            assert layer_of(other) <= layer_of(module), f"{module} imports {other}"
            arrows += 1
            if module.startswith("tapwise.engine.") and other.startswith("tapwise.engine."):
                assert engine_level(other) <= engine_level(module), f"{module} imports {other}"
    assert arrows > 200


def test_there_is_no_circle_of_imports():
    """Not even a lazy one, nor one for types. A package may import its own modules."""
    graph = {module_of(path): set(imported(path)) for path in ROOT.rglob("*.py")}
    done, trail = set(), []

    def visit(module):
        assert module not in trail, " -> ".join([*trail[trail.index(module) :], module])
        if module in done:
            return
        trail.append(module)
        for other in sorted(graph[module] - {module}):
            if not module.startswith(other + "."):  # of its own package a module loads siblings
                visit(other)
        trail.pop()
        done.add(module)

    for module in sorted(graph):
        visit(module)
    assert len(done) == len(MODULES)


def test_the_stub_names_everything_public_and_nothing_more():
    stub = ast.parse((ROOT / "__init__.pyi").read_text())
    packages = [alias.asname for node in stub.body if node.module is None for alias in node.names]
    assert packages == ["plans", "scale"]
    names = [alias.asname for node in stub.body for alias in node.names]
    assert sorted(names) == sorted(set(tapwise.__all__)) == sorted(set(names))
    modules = {path.stem for path in ROOT.iterdir()}
    for name in names:
        assert getattr(tapwise, name).__doc__, f"{name} has no docstring"
        assert name in packages or name not in modules, f"{name} is both a public name and a module"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_say_what_they_are(path):
    assert ast.get_docstring(ast.parse(path.read_text()))


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


def test_every_page_that_the_source_names_is_there():
    """Messages and docstrings send their reader to files that exist."""
    found = 0
    for path in [*SOURCES, *ROOT.rglob("*.js")]:
        for name in re.findall(r"\b(?:docs|benchmarks|examples)/[\w./-]+\.(?:md|py|json)", path.read_text()):
            assert (REPOSITORY / name).exists(), f"{path.name} names {name}"
            found += 1
    assert found >= 3


def test_what_things_cost_is_said_in_the_data_file_alone():
    """No small float stands in the cost formulas, the plan or the kernels: those are rates."""
    formulas = [ROOT / "engine" / name for name in ("costs.py", "plan.py", "dispatch.py")]
    for path in [*formulas, *(ROOT / "engine" / "kernels").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and type(node.value) is float:
                assert not 0 < node.value < 1e-3 or path.parent.name == "fft", f"{path}: {node.value}"
                assert path.name != "costs.py" or node.value in (0.0, 1.0), f"{path}: {node.value}"
    assert {rates.rates_of(name).direct.vector_bytes for name in ("avx512", "avx2")} == {32, 64}


def test_every_entry_of_the_rates_says_where_it_was_measured():
    text = (ROOT / "engine" / "rates.json").read_text()
    for name, entry in json.loads(text).items():
        assert set(entry["measured"]) >= {"date", "processor", "torch", "command"}
        assert rates.rates_of(name).margin < 1


def test_the_glossary_is_short():
    text = (REPOSITORY / "docs" / "design.md").read_text()
    table = text.split("## Glossary")[1].split("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert 10 < len(rows) <= 25
    assert len((REPOSITORY / "docs" / "design.md").read_text().splitlines()) <= 155
