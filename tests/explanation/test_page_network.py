"""The page of a network: what its operations read is what gradients reach, and its layers are their own pages."""

import json
import re

import numpy as np
import pytest
import torch
from torch import nn

import tapwise as tw
from pages import needs_chromium, opened

pytestmark = needs_chromium


class Residual(nn.Module):
    def __init__(self, channels, dilation):
        super().__init__()
        self.wide = nn.Conv1d(channels, channels, 3, dilation=dilation, padding=dilation)
        self.mix = nn.Conv1d(channels, channels, 1)

    def forward(self, x):
        return x + self.mix(nn.functional.elu(self.wide(x)))


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(1, 4, 7, padding=3),
        Residual(4, 1),
        Residual(4, 3),
        nn.ELU(),
        nn.Conv1d(4, 6, 4, stride=2, padding=1),
        tw.CausalConv1d(6, 6, 3, stride=2, dilation=2),
        nn.ConvTranspose1d(6, 2, 8, 4, padding=2),
        nn.Tanh(),
    )


@pytest.fixture
def page_text(tmp_path):
    return tw.explain(network(), torch.randn(1, 1, 200)).save(tmp_path / "model.html").read_text(encoding="utf-8")


def test_what_an_output_reads_is_what_its_gradient_reaches(browser, tmp_path, page_text):
    model = network().double()
    x = torch.randn(1, 1, 200, dtype=torch.float64, requires_grad=True)
    y = model(x)
    nodes = json.loads(re.search(r'id="tapwise-state">(.*?)</script>', page_text)[1])["network"]["nodes"]
    last = len(nodes) - 1
    assert nodes[last]["name"] == "tanh"
    with opened(browser, tmp_path, text=page_text) as page:
        for at in (0, 1, 37, 100, 101, 102, 103, y.shape[-1] - 1):
            page.evaluate("([number, at]) => tapwise.point(number, at)", [last, at])
            reads = page.evaluate("tapwise.reach()")
            (grad,) = torch.autograd.grad(y[0, :, at].sum(), x, retain_graph=True)
            touched = grad[0, 0].nonzero().flatten()
            first, latest = max(reads[0][0], 0), min(reads[0][1], 199)
            assert (first, latest) == (int(touched.min()), int(touched.max())), at
            words = page.inner_text(".sentence")
            assert f"reads samples {first} to {latest}" in words
            assert (f"those after {at} lie in its future" in words) == (latest > at)


def test_every_operation_is_a_row_with_its_shape_and_what_it_reads(browser, tmp_path, page_text):
    report = tw.inspect(network(), torch.randn(1, 1, 200))
    graph = report.graph
    totals = graph.totals(graph.example_length)
    with opened(browser, tmp_path, text=page_text) as page:
        rows = page.evaluate(
            "[...document.querySelectorAll('[data-node]')].map((row) => [...row.children].map((one) => one.innerText))"
        )
    assert len(rows) == len(graph.nodes)
    for row, node, extent, total in zip(rows, graph.nodes, report.extents, totals, strict=True):
        _, name, shape, moment, count, _ = row
        assert name.startswith(node.name)
        assert node.path in name
        assert shape.startswith(f"({', '.join(map(str, node.size.of(graph.batch, total)))})")
        assert moment.replace("+", "") == (f"{extent.earliest} to {extent.latest}" if node.inputs else "")
        assert count.isdigit()
    leaks = {leak.node: leak.samples for leak in report.leaks}
    shown = {n: int(found[1]) for n, row in enumerate(rows) if (found := re.search(r"▸ (\d+) ahead", row[1]))}
    assert shown == leaks


def test_a_convolution_opens_with_the_signal_that_reached_it(browser, tmp_path, page_text):
    model, x = network(), torch.randn(1, 1, 200)
    text = tw.explain(model, x).save(tmp_path / "model.html").read_text(encoding="utf-8")
    with torch.no_grad():
        before = model[:4](x)
        expected = model[4](before)[0].numpy()
    with opened(browser, tmp_path, text=text) as page:
        page.click('[data-node="11"] button')
        assert page.locator("h1:visible").inner_text().startswith("4: Conv1d(4, 6")
        state = page.evaluate("tapwise.state()")
        np.testing.assert_allclose(state["x"], before[0].numpy(), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(page.evaluate("tapwise.output()"), expected, rtol=1e-2, atol=2e-3)
        page.click("#tab-gradient")
        page.click("[data-control=back-to-network]")
        assert page.evaluate("document.activeElement.closest('[data-node]').dataset.node") == "11"
        # By keyboard: Enter opens the next.
        page.focus('[data-node="12"] button')
        page.keyboard.press("Enter")
        assert page.evaluate("tapwise.network().opened") == "5"


def test_pointing_at_a_strip_shows_what_that_sample_reads(browser, tmp_path, page_text):
    with opened(browser, tmp_path, text=page_text) as page:
        strip = page.locator('[data-node="6"] svg.strip')
        box = strip.bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        assert page.evaluate("tapwise.network().number") == 6
        dimmed = page.evaluate("[...document.querySelectorAll('.operation.unread')].map((one) => +one.dataset.node)")
        assert min(dimmed) == 7  # what comes after isn't read
        reads = page.evaluate("tapwise.reach()")
        assert [n is None for n in reads] == [n in dimmed for n in range(len(reads))]


def test_inspect_saves_the_same_page(tmp_path):
    x = torch.randn(1, 1, 200)
    one = tw.inspect(network(), x).save(tmp_path / "a.html").read_text()
    other = tw.explain(network(), x).save(tmp_path / "b.html").read_text()

    def without_times(text):
        return re.sub(r"[\d.]+ [mu]s", "", text)

    assert without_times(one) == without_times(other)


def test_a_network_that_isnt_read_has_its_table(tmp_path):
    class Flips(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(1, 2, 3)

        def forward(self, x):
            return self.conv(x).flip(-1)

    text = tw.explain(nn.Sequential(Flips()), torch.randn(1, 1, 30)).save(tmp_path / "a.html").read_text()
    assert "operations are not drawn" in text
    assert "flip" in text
    assert "kernel_size=3" in text


def test_a_wide_layer_says_what_is_left_out(tmp_path):
    model = nn.Sequential(nn.Conv1d(1, 300, 3), nn.Conv1d(300, 300, 9), nn.ReLU(), nn.Conv1d(300, 12, 5, groups=12))
    report = tw.inspect(model, torch.randn(1, 1, 400))
    text = report.save(tmp_path / "a.html").read_text()
    assert len(text) < 600_000
    layers = json.loads(re.search(r'id="tapwise-state">(.*?)</script>', text)[1])["network"]["layers"]
    for state in layers.values():
        weight = np.array(state["weight"])
        x = np.array(state["x"])
        assert weight.size + x.size < 14_500
        assert x.shape[1] >= weight.shape[2]
    assert re.search(r"the first \d+ of 300 output channels", layers["1"]["about"])
    assert re.search(r"the first \d+ of (12 groups|39\d samples)", layers["3"]["about"])


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_it_can_be_read_at_every_width(browser, tmp_path, page_text, width):
    with opened(browser, tmp_path, text=page_text, viewport={"width": width, "height": 800}) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        cut = page.evaluate(
            "[...document.querySelectorAll('.operation > span, .facts dd')].filter((one) => one.getClientRects().length"
            " && one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).display !== 'inline')"
            ".map((one) => one.textContent)"
        )
        assert not cut
        widths = page.evaluate(
            "[...document.querySelectorAll('svg.strip')].map((one) => one.getBoundingClientRect().width)"
        )
        assert min(widths) > 100
        page.evaluate("tapwise.open('4')")
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.slow
def test_encodecs_page_is_small_and_quick(browser, tmp_path):
    transformers = pytest.importorskip("transformers", reason="a model of this library is drawn")
    from transformers.models.encodec.modeling_encodec import EncodecEncoder

    torch.manual_seed(0)
    model = EncodecEncoder(transformers.EncodecConfig()).eval()
    path = tw.explain(model, torch.randn(1, 1, 6400)).save(tmp_path / "model.html")
    assert path.stat().st_size < 1_000_000
    with opened(browser, tmp_path, text=path.read_text(encoding="utf-8")) as page:
        fastest = page.evaluate(
            "Math.min(...Array.from({length: 20}, (_, n) => { const begin = performance.now(); tapwise.point(60, n);"
            "return performance.now() - begin; }))"
        )
        assert fastest < 50
        page.locator(".operation button").nth(5).click()
        assert page.evaluate("tapwise.output()[0].length") > 0
