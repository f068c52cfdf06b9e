"""Without the packages of the extras: what works, and the one sentence that is said where something doesn't."""

import subprocess
import sys

import numpy as np
import pytest

from tapwise.errors import MissingPackageError
from tapwise.extras import PACKAGES, is_installed, need, sentence

# An environment without them, as far as Python can see.
WITHOUT = f"""
import importlib.machinery, importlib.metadata, sys

class Finder(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] in {set(PACKAGES) | {"pandas", "xarray", "traitlets", "onnxruntime", "transformers"}}:
            return None
        return super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(importlib.machinery.PathFinder)] = Finder
found = importlib.metadata.version
def version(name):
    if name in {set(PACKAGES)}:
        raise importlib.metadata.PackageNotFoundError(name)
    return found(name)
importlib.metadata.version = version
"""


def run(code, folder, *arguments, python=sys.executable):
    command = [python, "-W", "error::ImportWarning", "-c", WITHOUT + code, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


EVERYTHING = """
import numpy as np, torch, tapwise as tw
layer, x = tw.Conv1d(1, 1, 3, padding="causal"), torch.arange(10.0)
explanation = tw.explain(layer, x)
explanation.text, explanation.svg(), explanation.page(), explanation._repr_mimebundle_()
model = torch.nn.Sequential(layer, torch.nn.ReLU())
tw.inspect(model, x[None, None]).text
live = tw.stream(model, x[None, None])
live.step(x[None, None]); live.flush()
live.functional(4).export()
tw.filter(x, [1.0, 2.0]); tw.filter(np.arange(9), [1.0])
tw.accelerate(model)
from tapwise import cli
for arguments in (["explain"], ["apply", "x.npy", "y.npy", "--taps", "mean:3"], ["doctor"]):
    try:
        cli.main(arguments)
    except SystemExit as ended:
        assert not ended.code, ended.code
"""


def test_everything_else_works_without_them(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(30.0))
    done = run(EVERYTHING, tmp_path)
    assert done.returncode == 0, done.stderr
    assert np.load(tmp_path / "y.npy").shape == (30,)
    for package, extra in PACKAGES.items():
        assert f"{package:<12} not installed: no {extra.purpose}; pip install 'tapwise[{extra.name}]'" in done.stdout


STREAM = "import torch, tapwise as tw\nlive = tw.stream(torch.nn.Conv1d(1, 1, 3), torch.zeros(1, 1, 50))\n"
CLI = """
from tapwise import cli
try:
    cli.main(sys.argv[1:])
finally:
    print("torch imported:", "torch" in sys.modules)
"""


@pytest.mark.parametrize(
    ("package", "code", "arguments"),
    [
        ("soundfile", CLI, ["apply", "x.wav", "--taps", "mean:3"]),
        ("polars", CLI, ["apply", "x.csv", "--taps", "mean:3"]),
        ("scipy", CLI, ["apply", "x.npy", "--taps", "lowpass:0.5:31"]),
        ("safetensors", CLI, ["explain", "--weights", "w.safetensors:conv"]),
        ("scipy", "import tapwise as tw\ntw.Resample(2, 1)", []),
        ("safetensors", STREAM + "live.save('s.safetensors')", []),
        ("safetensors", STREAM + "live.load('w.safetensors')", []),
        ("onnx", STREAM + "live.functional(4).to_onnx('m.onnx')", []),
        ("anywidget", "import tapwise as tw\ntw.explain([1.0], [1.0, 2.0]).widget()", []),
    ],
)
def test_what_is_missing_is_told_with_one_sentence(tmp_path, package, code, arguments):
    for name in ("x.wav", "x.csv", "w.safetensors"):
        (tmp_path / name).write_text("something")
    np.save(tmp_path / "x.npy", np.arange(30.0))
    before = sorted(tmp_path.iterdir())
    done = run(code, tmp_path, *arguments)
    assert done.returncode == 1
    assert sentence(package) in done.stderr
    assert ("Traceback" in done.stderr) is not bool(arguments)
    if arguments:  # so that it is told at once
        assert "torch imported: False" in done.stdout
    assert sorted(tmp_path.iterdir()) == before


def test_need_gives_modules_and_names_packages(monkeypatch):
    assert need("scipy.signal").firwin
    assert is_installed("numpy")
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(MissingPackageError, match=r"tables \(CSV, TSV, Parquet\): the package polars is not installed"):
        need("polars")
