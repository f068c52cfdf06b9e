"""The wheel and the sdist: what is in them, what runs from them, and what a package index shows."""

import importlib.util
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "tapwise"
PICTURE = re.compile(r"!\[[^\]]*\]\(([^)]+)\)")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)]+)\)")


def for_index(repository):
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    return hook.for_index((ROOT / "README.md").read_text(), repository)


def test_pictures_and_links_work_where_no_files_are_beside_them():
    own = (ROOT / "README.md").read_text()
    pictures = PICTURE.findall(own)
    relative = [link for link in LINK.findall(own) if "://" not in link]
    assert len(pictures) >= 3
    assert len(relative) >= 8
    for path in (*pictures, *relative):
        assert (ROOT / path.partition("#")[0]).exists(), path
    text = for_index("https://example.org/us/tapwise/")
    for path in pictures:
        end = "?sanitize=true" if path.endswith(".svg") else ""
        assert f"](https://example.org/us/tapwise/raw/HEAD/{path}{end})" in text
    for path in relative:
        assert f"](https://example.org/us/tapwise/blob/HEAD/{path})" in text
    for repository in ("https://example.org/us/tapwise", None):
        found = PICTURE.findall(for_index(repository)) + LINK.findall(for_index(repository))
        assert all(path.startswith("https://") for path in found)
        assert len(for_index(repository)) > 0.9 * len(own)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The wheel and the sdist of a clean tree, with the sdist unpacked."""
    folder = tmp_path_factory.mktemp("dist")
    tree = folder / "tree"
    if (ROOT / ".git").exists():
        subprocess.run(["git", "clone", "-q", "--no-hardlinks", str(ROOT), str(tree)], check=True)
        names = subprocess.run(["git", "diff", "HEAD", "--name-only", "-z"], cwd=ROOT, capture_output=True, check=True)
        for name in names.stdout.decode().split("\0")[:-1]:  # what isn't committed yet
            (tree / name).unlink(missing_ok=True)
            if (ROOT / name).exists():
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                (tree / name).write_bytes((ROOT / name).read_bytes())
    else:
        tree = ROOT
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", str(folder)], cwd=tree, check=True)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    return wheel, unpacked


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(built):
    wheel, unpacked = built
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = message_from_bytes(next(archive.read(n) for n in names if n.endswith("/METADATA")))
    inside = {name.removeprefix("tapwise/") for name in names if name.startswith("tapwise/")}
    source = unpacked / "src" / "tapwise"
    assert inside == {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}
    assert {"py.typed", "__init__.pyi", "engine/rates.json", "explanation/page/page.js"} <= inside
    assert {name.partition("/")[0] for name in names} == {"tapwise", names[-1].partition("/")[0]}
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert "(docs/" not in metadata.get_payload()


@pytest.mark.slow
def test_an_installed_wheel_works_without_extras(built, tmp_path):
    from test_extras import EVERYTHING, run

    wheel, _ = built
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "env")], check=True)
    python = tmp_path / "env" / "bin" / "python"
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*pip, str(wheel)], check=True)
    (site,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    # Its dependencies are this environment's; the extras' packages are hidden by ``run``.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    import numpy as np

    np.save(tmp_path / "x.npy", np.arange(30.0))
    done = run(EVERYTHING + "print(tw.__file__)", tmp_path, python=str(python))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith(str(site))
    command = subprocess.run(
        [tmp_path / "env" / "bin" / "tapwise", "--version"], capture_output=True, text=True, check=True
    )
    assert command.stdout.startswith("tapwise ")


@pytest.mark.slow
def test_tests_run_from_the_sdist(built):
    _, unpacked = built
    for name in ("Makefile", "constraints.txt", "docs/design.md", "examples/demo.py", "notebooks/tour.ipynb"):
        assert (unpacked / name).exists()
    assert not (unpacked / ".ci").exists()
    tests = ["tests/test_geometry.py", "tests/test_structure.py", "tests/test_fir.py", "tests/signals/test_tables.py"]
    code = (
        f"import sys; sys.path.insert(0, {str(unpacked / 'src')!r}); import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "-q", "-p", "no:cacheprovider", "-m", "not slow", *tests],
        cwd=unpacked,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
