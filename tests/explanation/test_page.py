"""The page in a browser: its numbers are torch's, its controls work, and nothing leaves it."""

import json
import random
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch

import tapwise as tw
from pages import drawn_configuration, needs_chromium, opened, until
from tapwise.explanation.page import _MODULES, _NETWORK, _WIDGET, document, frame, module
from tapwise.geometry import Geometry

pytestmark = needs_chromium


@pytest.mark.slow
def test_the_numbers_are_torchs_for_500_configurations(browser, tmp_path):
    rnd, done = random.Random(0), 0
    kinds = set()
    with opened(browser, tmp_path) as page:
        while done < 500:
            drawn = drawn_configuration(rnd)
            if drawn is None:
                continue
            state, y = drawn
            found = page.evaluate("(s) => { tapwise.set(s); return tapwise.output(); }", state)
            np.testing.assert_allclose(np.array(found, float), y, rtol=1e-9, atol=1e-9)
            done += 1
            kinds.add((state["transposed"], str(state["padding"])[0], state["padding_mode"]))
    assert len(kinds) >= 20


def test_what_geometry_refuses_the_page_refuses_and_stays_as_it_was(browser, tmp_path):
    rnd, refused = random.Random(1), 0
    with opened(browser, tmp_path) as page:
        before = page.evaluate("tapwise.state()")
        for _ in range(300):
            state = {
                "x": [[1.0] * rnd.randint(1, 5)],
                "weight": [[[1.0] * rnd.randint(1, 7)]],
                "stride": rnd.randint(0, 3),
                "dilation": rnd.randint(0, 3),
                "padding": rnd.choice(["valid", "same", [0, -1], [1, 0], "nonsense"]),
                "padding_mode": rnd.choice(["zeros", "reflect"]),
                "groups": rnd.choice([1, 2]),
            }
            try:
                tw.conv1d(
                    torch.tensor(state["x"]),
                    torch.tensor(state["weight"]),
                    None,
                    state["stride"],
                    state["padding"],
                    state["dilation"],
                    state["groups"],
                    state["padding_mode"],
                )
                fits = True
            except (tw.ShapeError, ValueError):
                fits = False
            said = page.evaluate(
                "(s) => { try { tapwise.set(s); return null; } catch (e) { return e.message; } }", state
            )
            assert (said is None) == fits, (state, said)
            if said is not None:
                refused += 1
                assert page.evaluate("tapwise.state()") == before
            before = page.evaluate("tapwise.state()")
    assert refused > 50


def test_a_cell_lights_all_that_it_is_tied_to(browser, tmp_path):
    rnd = random.Random(2)
    with opened(browser, tmp_path) as page:
        for mode in ("zeros", "circular", "reflect"):
            for transposed in (False, mode == "zeros"):
                stride, dilation, taps = rnd.randint(1, 3), rnd.randint(1, 3), rnd.randint(1, 4)
                geometry = Geometry(taps, stride, dilation, (2, 1), padding_mode=mode, transposed=transposed)
                state = {
                    "x": [[float(n) for n in range(9)]],
                    "weight": [[[1.0] * taps]],
                    "bias": None,
                    "stride": stride,
                    "dilation": dilation,
                    "padding": [2, 1],
                    "groups": 1,
                    "padding_mode": mode,
                    "transposed": transposed,
                    "output_padding": 0,
                    "output": 0,
                }
                page.evaluate("(s) => tapwise.set(s)", state)
                # 1 and 8 stand in the padding once more
                for n in (3,) if transposed else (1, 3, 8):
                    page.hover(f'[data-key="x:0:{n}:{n}"]')
                    lit = page.evaluate("tapwise.lit()")
                    outputs = {int(key.split(":")[2]) for key in lit if key.startswith("y:")}
                    assert outputs == set(geometry.feeds(n, 9))
                page.hover('[data-key="y:0:0"]')
                lit = page.evaluate("tapwise.lit()")
                inputs = {int(key.split(":")[3]) for key in lit if key.startswith("x:")}
                window = {p for p in geometry.window(0) if not transposed or 0 <= p < 9}
                assert inputs == window
        page.evaluate("document.querySelector('[data-control=tutorial]').click()")
        page.hover('[data-key="w:0:0:1:0"]')
        lit = page.evaluate("tapwise.lit()")
        assert {key for key in lit if key.startswith("x:")} == {f"x:0:{n}:{n}" for n in range(1, 9)}
        assert {key for key in lit if key.startswith("y:")} == {f"y:0:{n}" for n in range(8)}


def test_a_link_holds_the_whole_state(browser, tmp_path):
    rnd = random.Random(3)
    state = None
    while state is None:
        drawn = drawn_configuration(rnd)
        state = drawn and drawn[0]
    state |= {"title": "ünï — 名前 <b>", "output": 0, "tab": "channels"}
    with opened(browser, tmp_path) as page:
        page.evaluate("(s) => tapwise.set({...s, x: s.x.map(r => ['nan', ...r.slice(1)])})", state)
        page.evaluate("window.isSecureContext && Object.defineProperty(navigator, 'clipboard', {value: undefined})")
        page.evaluate("tapwise.set({tab: 'window'})")
        page.click("[data-control=link]")
        link = page.input_value(".hand textarea")
        before, output = (page.evaluate("JSON.stringify(tapwise.state())"), page.evaluate("tapwise.output()"))
        page.evaluate("document.querySelector('[data-control=tutorial]').click()")
        page.goto(link)  # the same document: the address alone changes
        until(page, "tapwise.state().title.startsWith('ünï')")
        assert page.evaluate("JSON.stringify(tapwise.state())") == before
        np.testing.assert_equal(page.evaluate("tapwise.output()"), output)
        page.evaluate("location.hash = '#s=nonsense'")
        until(page, "document.querySelector('.alarm').textContent.includes('link')")


@pytest.mark.parametrize("name", ["PyTorch", "Tapwise", "NumPy"])
def test_the_code_computes_what_the_page_shows(browser, tmp_path, name):
    rnd, sources, outputs = random.Random(4), [], []
    with opened(browser, tmp_path) as page:
        page.evaluate("tapwise.set({tab: 'code'})")
        while len(sources) < 25:
            drawn = drawn_configuration(rnd)
            if drawn is None:
                continue
            state, y = drawn
            big = max(state["x"].__len__(), 1) and len(state["x"][0])
            pads = state["padding"] if isinstance(state["padding"], list) else [0, 0]
            if (
                name == "PyTorch"
                and state["padding_mode"] in ("reflect", "circular")
                and (max(pads) >= big or isinstance(state["padding"], str))
            ):
                continue  # torch itself refuses to pad by so much
            page.evaluate("(s) => tapwise.set(s)", state)
            sources.append(page.inner_text(f"[data-code={name}]"))
            outputs.append(y)
    for source, y in zip(sources, outputs, strict=True):
        found = {}
        exec(source.replace("print(y)", ""), found)
        shown = np.asarray(found["y"])
        np.testing.assert_allclose(shown.reshape(y.shape), y, rtol=1e-4, atol=1e-5)


def test_the_command_is_one_that_runs(browser, tmp_path):
    with opened(browser, tmp_path) as page:
        page.evaluate("tapwise.set({tab: 'code', x: [[-1, 2, 0.5, 4, 1, 1]], padding: 'causal', dilation: 2})")
        command = page.inner_text("[data-code=Command]")
        output = page.evaluate("tapwise.output()")[0]
    done = subprocess.run([sys.executable, "-m", *command.split()], capture_output=True, text=True, check=True)
    final = re.search(r"Final : \[(.*)\]", done.stdout)[1]
    assert [float(number) for number in final.split()] == output


HOSTILE = [
    "<script>document.title='taken'</script>",
    "</script><script>document.title='taken'</script>",
    "\"'><img src=x onerror=document.title='taken'>",
    "\u202eevitaler thgir ot tfel",
    "x" * 5000,
    "]]>&lt;&amp;\u2028\u2029",
]


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_names_are_shown_as_text(browser, tmp_path, name):
    layers = [{"name": name, "kernel_size": 3, "stride": 1, "dilation": 1, "padding": "causal"}]
    state = {"title": name, "about": name, "plan": name, "layers": layers}
    with opened(browser, tmp_path, state) as page:
        for tab in ("stack", "plan", "window"):
            page.evaluate("(tab) => tapwise.set({tab})", tab)
        assert page.evaluate("document.querySelector('h1').textContent") == name
        assert page.evaluate("document.title") == " ".join(name.split()) or name.startswith("]]")
        assert page.evaluate("document.querySelectorAll('img').length") == 0
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth + 1")


def test_what_isnt_ours_may_not_run(browser, tmp_path):
    target = tmp_path / "page.html"
    target.write_text(document({}).replace("</body>", "<script>document.title='taken'</script></body>"))
    context = browser.new_context()
    page = context.new_page()
    page.goto(target.as_uri())
    assert page.evaluate("typeof tapwise") == "object"
    assert page.title() != "taken"
    assert page.evaluate("fetch('https://example.com').then(() => 'out', () => 'kept in')") == "kept in"
    context.close()


def test_scrubbing_a_long_signal_keeps_up(browser, tmp_path):
    x = np.random.default_rng(0).standard_normal(100_000).round(3).tolist()
    with opened(browser, tmp_path, {"x": [x], "weight": [[[0.2] * 31]], "padding": "causal"}) as page:
        frames = page.evaluate(
            """async () => {
              const slider = document.querySelector('[data-control=scrub]');
              const took = [];
              for (let n = 0; n < 40; n += 1) {
                slider.value = Math.floor(Math.random() * 99999);
                const begin = performance.now();
                slider.dispatchEvent(new Event('input'));
                took.push(performance.now() - begin);
                await new Promise(requestAnimationFrame);
              }
              return took.sort((a, b) => a - b);
            }"""
        )
        print(f"a frame: fastest {frames[0]:.1f} ms, median {frames[20]:.1f} ms, slowest {frames[-1]:.1f} ms")
        # The fastest of forty: a page that draws too much is slow in all of them, a busy machine in some.
        assert frames[0] < 50
        assert page.evaluate("document.querySelectorAll('svg.tw').length") == 2


def test_the_response_of_the_page_marks_what_lies_ahead(browser, tmp_path):
    with opened(browser, tmp_path) as page:
        page.evaluate("tapwise.set({padding: 'same', tab: 'response'})")
        stems = "document.querySelectorAll('#panel-response rect.%s').length"
        assert page.evaluate(stems % "ahead") == 1
        assert page.evaluate(stems % "tap") == 2
        page.evaluate("tapwise.set({padding: 'causal'})")
        assert page.evaluate(stems % "ahead") == 0


def test_saved_pictures(browser, tmp_path):
    with opened(browser, tmp_path) as page:
        with page.expect_download() as download:
            page.click("[data-control=svg]")
        text = download.value.path().read_text()
        assert text.startswith("<svg")
        assert "--ink" in text
        with page.expect_download() as download:
            page.click("[data-control=png]")
        assert download.value.path().read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("width", [360, 768, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_width_scrolls_sideways(browser, tmp_path, width, scheme):
    layer = tw.ConvTranspose1d(4, 6, 5, 2, groups=2)
    state = tw.explain(layer, torch.randn(4, 40)).state
    screen = {"width": width, "height": 800}
    with opened(browser, tmp_path, state, viewport=screen, color_scheme=scheme) as page:
        for tab in ("window", "channels", "gradient", "stack", "response", "code", "plan"):
            page.evaluate("(tab) => tapwise.set({tab})", tab)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, tab


def test_a_frame_in_a_notebook_shows_the_same(browser, tmp_path):
    target = tmp_path / "notebook.html"
    state = tw.explain([1.0, 2.0], torch.arange(5.0)).state
    target.write_text(f"<!doctype html><meta charset=utf-8>{frame(state)}")
    context = browser.new_context()
    page = context.new_page()
    page.goto(target.as_uri())
    inside = page.frames[1]
    until(inside, "window.tapwise")
    assert inside.evaluate("tapwise.output()") == [[2, 5, 8, 11]]
    context.close()


def test_the_page_is_small_and_carries_the_numbers_of_the_explanation():
    tutorial = tw.explain([1.0, 1.0, 1.0], torch.arange(10.0))
    for state in ({}, {"lesson": 0, "title": "One-dimensional convolution, step by step"}, tutorial.state):
        assert len(document(state).encode()) < 170_000
    layer = tw.Conv1d(2, 3, 4, 2, "same", padding_mode="reflect")
    explanation = tw.explain(layer, torch.randn(2, 9))
    state = explanation.state
    json.dumps(state, allow_nan=False)
    np.testing.assert_allclose(state["weight"], explanation.trace.weight, rtol=1e-6)
    assert state["plan"] == str(explanation.plan)
    assert "export default" in module()
    with pytest.raises(ValueError, match="complex"):
        tw.explain(torch.ones(1, 1, 2, dtype=torch.complex64), torch.ones(5)).page()


@pytest.mark.parametrize("mode", ["zeros", "reflect", "circular", "replicate"])
def test_the_words_about_the_future_are_true(browser, tmp_path, mode):
    rnd = random.Random(5)
    with opened(browser, tmp_path) as page:
        for _ in range(25):
            taps, stride, dilation = rnd.randint(1, 4), rnd.randint(1, 3), rnd.randint(1, 3)
            left, right = rnd.randint(0, 8), rnd.randint(0, 4)
            geometry = Geometry(taps, stride, dilation, (left, right), padding_mode=mode)
            if geometry.output_length(11) == 0:
                continue
            x = torch.randn(1, 11, requires_grad=True)
            y = tw.conv1d(x, torch.rand(1, 1, taps) + 1, None, stride, (left, right), dilation, 1, mode)
            sees = any(
                x_grad[0, i * stride + 1 :].any()
                for i in range(y.shape[-1])
                for x_grad in torch.autograd.grad(y[0, i], x, retain_graph=True)
            )
            page.evaluate(
                "(s) => tapwise.set(s)",
                {
                    "x": x.tolist(),
                    "weight": [[[1.0] * taps]],
                    "stride": stride,
                    "groups": 1,
                    "dilation": dilation,
                    "padding": [left, right],
                    "padding_mode": mode,
                },
            )
            said = page.inner_text(".words")
            # An end that is too short to show it may hide the future; what is said must not.
            assert not sees or "Yes: output i reads" in said, (geometry, said)


def test_the_sum_of_a_group_is_not_called_that_of_all_channels(browser, tmp_path):
    x = [[1.0, 2.0, 3.0, 4.0]] * 4
    for groups, words in ((2, "the 2 input channels of its group"), (1, "all 4 input channels")):
        state = {"x": x, "weight": [[[0.5, 0.5]] * (4 // groups)] * 2, "groups": groups}
        with opened(browser, tmp_path, state) as page:
            assert page.inner_text(".caption") == f"Output 0 of channel 0 is the sum of the products of {words}."


def test_the_twin_of_geometry_agrees_with_the_vectors_that_pythons_is_held_to(browser):
    """Lengths, pads, windows and what inputs feed, as the oracle found them by touching inputs."""
    vectors = json.loads((Path(__file__).parents[1] / "data" / "geometry.json").read_text())
    source = (files("tapwise.explanation") / "page" / "convolution.js").read_text()
    code = re.sub(r"^export ", "", source, flags=re.MULTILINE)
    page = browser.new_page()
    try:
        found = page.evaluate(
            "(vectors) => {"
            + code
            + """
            return vectors.map((v) => {
              const g = geometryOf({ ...v, weight: [[new Array(v.kernel_size).fill(1)]], groups: 1 });
              const count = outputLength(g, v.length);
              const reads = Array.from({ length: count }, (_, i) => {
                const inputs = windowTaps(g, i).map(([p]) => p).filter((p) => !g.transposed || (p >= 0 && p < v.length));
                const met = inputs.map((p) => source(g, p, v.length)).filter((p) => p !== null);
                return [...new Set(met)].sort((a, b) => a - b);
              });
              const fed = Array.from({ length: v.length }, (_, j) => feeds(g, j, v.length));
              return { pads: [g.left, g.right], reads, fed };
            });
            }""",
            vectors,
        )
    finally:
        page.close()
    for vector, answer in zip(vectors, found, strict=True):
        assert answer["pads"] == vector["pads"], vector
        assert answer["reads"] == vector["reads"], vector
        inputs = range(vector["length"])
        fed = [[i for i, reads in enumerate(vector["reads"]) if j in reads] for j in inputs]
        assert answer["fed"] == fed, vector


def test_the_pages_modules_import_only_from_earlier_ones():
    modules = [*_MODULES, _NETWORK, _WIDGET]
    for n, name in enumerate(modules):
        text = (files("tapwise.explanation") / "page" / name).read_text()
        for other in re.findall(r'from "\./([\w.]+)"', text):
            assert other in modules[:n], f"{name} imports {other}"
    there = {p.name for p in (files("tapwise.explanation") / "page").iterdir() if p.name.endswith(".js")}
    assert there == set(modules)
