"""Numbers in documents come from files that commands wrote."""

import importlib.util
import json
import re
from pathlib import Path

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
