"""Pictures beside SVG: PNG, PDF, animations, slides; the kernel to scale; sums whose printed digits add up."""

import io
import itertools
import re
import xml.etree.ElementTree as ElementTree
from importlib.resources import files

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import tapwise as tw
from pages import needs_chromium
from tapwise.explanation import rendering
from tapwise.explanation.printed_sum import PrintedSum

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def explanation():
    return tw.explain([1.0, 2.0, -1.0], torch.arange(10.0), padding="causal", dilation=2)


def opened_image(path):
    return Image.open(io.BytesIO(path.read_bytes()))


def size_of(svg):
    root = ElementTree.fromstring(svg)
    return float(root.get("width")), float(root.get("height"))


def test_a_png_has_the_figures_size_and_colours(explanation, tmp_path):
    path = explanation.save(tmp_path / "a.png")
    image = opened_image(path).convert("RGB")
    width, height = size_of(explanation.svg())
    assert image.size == (2 * width, 2 * height)
    colours = {colour for _, colour in image.getcolors(1 << 24)}
    for name in ("x", "w", "y", "p", "xe", "we", "ye", "pe", "ink", "page"):
        value = rendering._colour(f"var(--{name})")
        assert tuple(int(value[n : n + 2], 16) for n in (1, 3, 5)) in colours, name
    assert explanation.save(tmp_path / "b.png").read_bytes() == path.read_bytes()


def test_a_pdf_is_drawn_by_lines_and_letters(explanation, tmp_path):
    content = explanation.save(tmp_path / "a.pdf").read_bytes()
    assert content.startswith(b"%PDF-")
    assert b"/Subtype /Image" not in content
    assert b"DejaVuSans" in content
    assert explanation.save(tmp_path / "b.pdf").read_bytes() == content


@pytest.mark.parametrize("kind", ["gif", "apng"])
def test_an_animation_has_a_frame_for_each_output(explanation, tmp_path, kind):
    image = opened_image(explanation.save(tmp_path / f"a.{kind}"))
    assert image.n_frames == 10
    assert image.info["loop"] == 0
    frames, times = [], []
    for n in range(image.n_frames):
        image.seek(n)
        times.append(image.info["duration"])
        frames.append(np.asarray(image.convert("RGB"), int))
    assert times[-1] > times[0] > 500
    # Output i is empty until its frame.
    green = np.array([int(rendering._colour("var(--y)")[n : n + 2], 16) for n in (1, 3, 5)])
    filled = [int((abs(frame - green).max(-1) < 8).sum()) for frame in frames]
    assert all(later > earlier for earlier, later in itertools.pairwise(filled))


def test_a_long_signal_moves_as_far_as_there_is_room(tmp_path):
    image = opened_image(tw.explain([1.0] * 5, torch.randn(3000), stride=2).save(tmp_path / "a.gif"))
    assert image.n_frames == 8


def test_the_signal_stands_still_while_the_taps_slide(tmp_path):
    explanation = tw.explain([1.0] * 5, torch.arange(60.0), stride=2)
    frames = [explanation._drawn("window", i, hidden=True).svg() for i in range(8)]
    indices = [re.findall(r'class="index"[^>]*>(\d+)<', frame) for frame in frames]
    assert all(one == indices[0] for one in indices)


@pytest.mark.parametrize("figure", ["window", "channels", "kernel", None])
def test_a_slide_is_16_to_9(explanation, tmp_path, figure):
    width, height = size_of(explanation.svg(figure, slide=True))
    assert width / height == pytest.approx(16 / 9, abs=0.01)
    image = opened_image(explanation.save(tmp_path / "a.png", figure, slide=True))
    assert image.size[0] / image.size[1] == pytest.approx(16 / 9, abs=0.01)


def test_the_window_of_any_output(explanation):
    drawn = explanation.svg("window", output=6)
    numbers = re.findall(r'class="number"[^>]*>([^<]*)<', drawn)
    assert "2 + 8 − 6 = 4" in numbers
    assert "window of output 6" in drawn
    far = tw.explain([1.0, 1.0], torch.arange(1000.0)).svg("window", output=700)
    assert "700 + 701 = 1401" in far
    with pytest.raises(IndexError, match="from 0 to 9, got 10"):
        explanation.svg("window", output=10)
    with pytest.raises(IndexError, match="from 0 to 9, got -1"):
        explanation.svg("window", output=-1)


def test_several_channels_and_a_bias_add_up_in_print():
    layer = tw.Conv1d(3, 2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[[1.0, 2], [0, 1], [1, 1]], [[1, 1], [1, 1], [1, 1]]]))
        layer.bias.copy_(torch.tensor([0.5, 0]))
    drawn = tw.explain(layer, torch.arange(15.0).reshape(3, 5)).svg("window", output=1)
    # 1 + 2*2, 7, 11 + 12, and the bias
    assert "5.0 + 7.0 + 23.0 + 0.5 = 35.5" in drawn
    for words in ("add up to 5.0", "add up to 7.0", "add up to 23.0", "weight[0, 2]", "input ch. 2", "output ch. 0"):
        assert words in drawn


def test_the_kernel_is_drawn_to_scale():
    taps = [0.5, -1.0, 0.25, 0.0, 2.0]
    root = ElementTree.fromstring(tw.explain(taps, torch.arange(30.0), dilation=2).svg("kernel"))
    bars = [node for node in root.iter(f"{SVG}rect") if node.get("class") == "tap"]
    heights = np.array([float(bar.get("height")) for bar in bars])
    np.testing.assert_allclose(heights / heights.max(), np.maximum(np.abs(taps) / 2, 0.012), atol=0.01)
    places = [float(bar.get("x")) for bar in bars]
    np.testing.assert_allclose(np.diff(places), places[1] - places[0], atol=0.2)
    # A dilation apart: a bar is seven tenths of a sample wide.
    assert places[1] - places[0] == pytest.approx(2 * float(bars[0].get("width")) / 0.7, abs=0.3)
    top = [float(bar.get("y")) for bar in bars]
    assert top[1] > top[0]  # the negative one hangs
    assert [float(bar.find(f"{SVG}title").text.split(": ")[1]) for bar in bars] == taps


def test_without_matplotlib_the_extra_is_named(explanation, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    for name in ("a.png", "a.gif"):
        with pytest.raises(tw.MissingPackageError, match=r"tapwise\[figures\]"):
            explanation.save(tmp_path / name)
        assert not (tmp_path / name).exists()
    assert explanation.save(tmp_path / "a.svg").exists()


def test_stacks_and_reports_are_pictures_too(tmp_path):
    stack = tw.Stack([tw.Geometry(2, dilation=d, padding="causal") for d in (1, 2, 4)])
    report = tw.inspect(torch.nn.Sequential(torch.nn.Conv1d(1, 2, 3), torch.nn.Conv1d(2, 1, 3)), torch.zeros(1, 1, 50))
    for thing in (stack, report):
        assert thing.save(tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
        assert thing.save(tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=20))
def test_printed_digits_add_up(values):
    printed = PrintedSum(values)
    units = [printed.units(value) for value in values]
    if printed.decimals is None:
        return
    total = float(printed.text(sum(units)).replace("−", "-"))
    assert total == pytest.approx(sum(float(printed.text(u).replace("−", "-")) for u in units), abs=1e-9)
    # About four digits of what is printed are right, however many addends are rounded.
    size = max(abs(sum(values)), *map(abs, values))
    assert total == pytest.approx(sum(values), abs=2e-3 * size + 1e-12)


@needs_chromium
def test_python_and_the_page_print_the_same_sums(browser):
    rng = np.random.default_rng(0)
    vectors = [
        (rng.standard_normal(rng.integers(1, 15)) * 10.0 ** rng.integers(-6, 8)).round(rng.integers(0, 12)).tolist()
        for _ in range(300)
    ]
    vectors += [[0.1, 0.2], [1.0, 2.0, 3.0], [-0.0], [0.5, -0.5], [1e-15, 1.0], [1 / 3, 2 / 3], [2.5e8, 1.0], [3e10]]
    source = (files("tapwise.explanation") / "page" / "numbers.js").read_text()
    code = re.sub(r"^export ", "", source, flags=re.MULTILINE)
    page = browser.new_page()
    found = page.evaluate(
        "(vectors) => {"
        + code
        + """
        return vectors.map((values) => {
          const sum = new PrintedSum(values);
          const units = values.map((value) => sum.units(value));
          return [sum.decimals, units.length > 1 ? `${sum.line(units)} = ${sum.text(sumOf(units))}` : sum.text(units[0])];
        });
        }""",
        vectors,
    )
    page.close()
    for values, (decimals, line) in zip(vectors, found, strict=True):
        printed = PrintedSum(values)
        assert printed.decimals == decimals, values
        if decimals is not None:
            assert printed.line([printed.units(value) for value in values]) == line, values


def test_the_command_writes_them(tmp_path):
    from tapwise import cli

    for name, options in (("a.gif", []), ("a.png", ["--figure", "kernel", "--slide"]), ("a.svg", ["--at", "3"])):
        with pytest.raises(SystemExit) as ended:
            cli.main(["explain", "--taps", "1,2,1", "--save", str(tmp_path / name), *options])
        assert not ended.value.code
        assert (tmp_path / name).stat().st_size > 500
    assert "window of output 3" in (tmp_path / "a.svg").read_text()
