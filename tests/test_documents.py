"""Numbers in documents come from files that commands wrote."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tapwise as tw

ROOT = Path(__file__).parent.parent
RESULT = json.loads((ROOT / "benchmarks" / "results" / "conv1d-cpu.json").read_text())


def test_the_speed_page_is_the_result_file():
    spec = importlib.util.spec_from_file_location("report", ROOT / "benchmarks" / "report.py")
    report = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(report)
    assert (ROOT / "docs" / "speed.md").read_text() == report.document()
    assert (ROOT / "docs" / "images" / "speed.svg").read_text() == report.chart(RESULT)


def test_the_readmes_ratios_are_the_result_files():
    text = " ".join((ROOT / "README.md").read_text().split())
    ratios = {row["name"]: row["ratio"] for row in RESULT["rows"]}
    for words, name in (
        ("31 taps", "fir31"),
        ("51 taps", "ecg12"),
        ("depthwise layer", "conformer"),
        ("48,000 taps", "reverb"),
    ):
        shown = re.search(re.escape(words) + r" ([\d,]+(?:\.\d)?) times", text)
        assert float(shown[1].replace(",", "")) == float(f"{ratios[name]:.2g}"), name


def test_the_figures_of_varying_lengths_are_the_result_files():
    ways = json.loads((ROOT / "benchmarks" / "results" / "lengths-cpu.json").read_text())["ways"]
    page = " ".join((ROOT / "docs" / "howto.md").read_text().split())
    for way in ("torch", "torch, 64 primitives", "direct"):
        assert f"{ways[way]['grown_mb']} MB in {ways[way]['seconds']} s" in page


def test_the_readmes_picture_is_what_the_command_writes():
    picture = (ROOT / "docs" / "images" / "causal.svg").read_text()
    explanation = tw.explain([1.0, 1.0, 1.0], [float(n) for n in range(10)], padding="causal")
    assert picture == explanation.svg()


def test_the_gallery_is_what_the_command_writes():
    spec = importlib.util.spec_from_file_location("gallery", ROOT / "docs" / "make_gallery.py")
    gallery = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(gallery)
    assert (ROOT / "docs" / "gallery.md").read_text() == gallery.page()
    for name, (_, _, svg) in gallery.figures().items():
        assert (ROOT / "docs" / "images" / "gallery" / f"{name}.svg").read_text() == svg
    for name in gallery.SHOTS:
        assert (ROOT / "docs" / "images" / "gallery" / f"{name}.png").stat().st_size < 400_000


def test_the_networks_page_lists_what_is_known():
    spec = importlib.util.spec_from_file_location("reports", ROOT / "docs" / "make_reports.py")
    reports = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reports)
    text = (ROOT / "docs" / "networks.md").read_text()
    assert reports.HEAD + reports.operations() in text
    for name in ("Mimi's encoder", "HiFi-GAN"):
        assert f"## {name}\n" in text


@pytest.mark.slow
def test_the_denoisers_picture_is_what_its_script_draws(tmp_path):
    import subprocess
    import sys

    folder = ROOT / "examples" / "denoise"
    run = subprocess.run(
        [sys.executable, str(folder / "live.py"), str(tmp_path)], capture_output=True, text=True, check=True
    )
    before, after, naive = map(float, re.findall(r"(-?[\d.]+) dB", run.stdout))
    assert after > before + 4
    assert naive < after - 1
    assert {p.name for p in tmp_path.iterdir()} == {"noisy.wav", "streamed.wav", "naive.wav", "denoise.svg"}
    assert (folder / "denoiser.safetensors").stat().st_size < 1_000_000
    shown = (ROOT / "docs" / "images" / "denoise.svg").read_text()
    assert shown.split("<path")[0] == (tmp_path / "denoise.svg").read_text().split("<path")[0]


@pytest.mark.slow
def test_the_documentation_builds_with_one_list_of_arguments(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", ROOT / "docs", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "reference.html").read_text(encoding="utf-8")
    start = page.index('id="tapwise.functional.conv1d"')
    entry = page[start : page.index('id="tapwise.functional.conv_transpose1d"')]
    assert entry.count("Parameters") == 1
    assert "Arguments" not in entry
    tour = (tmp_path / "_generated" / "tour.html").read_text(encoding="utf-8")
    assert "Final : [ 3.  6.  9. 12. 15. 18. 21. 24.]" in tour
