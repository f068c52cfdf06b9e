"""Corners of the page that readers found: hover and keys by turns, refused ticks, long kernels, odd numbers."""

import re

import numpy as np
import pytest
import torch
from torch import nn

import tapwise as tw
from pages import needs_chromium, opened

pytestmark = needs_chromium

SENTENCE = "document.querySelector('.sentence').textContent"


def test_a_pointer_that_comes_back_shows_its_step_again(browser, tmp_path):
    with opened(browser, tmp_path) as page:
        page.hover('[data-key="y:0:4"]')
        page.keyboard.press("ArrowRight")
        assert page.evaluate(SENTENCE).startswith("Step 1")
        page.hover('[data-key="y:0:6"]')
        page.hover('[data-key="y:0:4"]')
        assert page.evaluate(SENTENCE).startswith("Step 4")
        # Slider and selector go along.
        assert page.input_value("[data-control=scrub]") == "4"


def test_words_follow_what_is_pointed_at(browser, tmp_path):
    with opened(browser, tmp_path) as page:
        page.hover('[data-key="x:0:4:4"]')
        assert page.inner_text(".caption") == "Input 4 goes into outputs 2, 3, 4: one line for each use."
        page.hover('[data-key="w:0:0:1:0"]')
        assert page.inner_text(".caption").startswith("Tap 1 is used for every output")


def test_a_refused_tick_springs_back_and_waits_for_nothing(browser, tmp_path):
    with opened(browser, tmp_path, {"padding": [20, 20]}) as page:
        page.click(".more summary")
        page.click("[data-control=transposed]")
        assert "the padding cuts every output off" in page.inner_text(".alarm")
        assert not page.is_checked("[data-control=transposed]")
        for name in ("left", "right"):
            page.fill(f"[data-control={name}]", "0")
            page.keyboard.press("Tab")
        assert page.evaluate("tapwise.state().transposed") is False
        assert not page.inner_text(".alarm")


def test_what_cant_be_set_any_more_isnt_waited_for(browser, tmp_path):
    state = {"transposed": True, "x": [[1, 2, 3]], "weight": [[[1, 1, 1]]], "stride": 2, "padding": [0, 0]}
    with opened(browser, tmp_path, state) as page:
        page.fill("[data-control=output_padding]", "5")
        page.keyboard.press("Tab")
        assert "output padding 5 doesn't fit" in page.inner_text(".alarm")
        page.click("[data-control=transposed]")
        assert page.evaluate("tapwise.state().output_padding") == 0
        assert not page.inner_text(".alarm")


@pytest.mark.parametrize("setting", [{"dilation": 50}, {"stride": 50}, {"dilation": 2}, {}])
def test_marks_of_the_formula_are_in_the_picture_and_alone_on_their_line(browser, tmp_path, setting):
    state = {"x": [[1.0] * 200], "weight": [[[1, 1, 1]]], **setting}
    with opened(browser, tmp_path, state) as page:
        for symbol in ("dilation", "stride"):
            page.hover(f".formula [data-symbol={symbol}]")
            found = page.evaluate(
                """(symbol) => {
                  const svg = document.querySelector('.holder:not(.overview) svg').getBoundingClientRect();
                  const shown = (one) => getComputedStyle(one).opacity > 0;
                  const marks = [...document.querySelectorAll('.step .mark')].filter(shown);
                  return marks.map((one) => [one.dataset.symbol, one.getBoundingClientRect().right <= svg.right]);
                }""",
                symbol,
            )
            assert found == [[symbol, True]]


def test_an_input_that_is_read_twice_brings_both_taps(browser, tmp_path):
    state = {"x": [[1, 2, 3, 4]], "weight": [[[1, 2, 4]]], "padding_mode": "replicate", "padding": [1, 1]}
    with opened(browser, tmp_path, {**state, "tab": "gradient"}) as page:
        page.hover('[data-key="gx:0"]')
        shown = page.evaluate("[...document.querySelectorAll('#panel-gradient .number')].map((one) => one.textContent)")
        assert "1 + 2" in shown
        assert "The gradient of input 0 is 3" in page.inner_text("#panel-gradient .sentence")


def test_gradients_of_long_signals_come_soon(browser, tmp_path):
    x = np.random.default_rng(0).standard_normal(30_000).round(3).tolist()
    with opened(browser, tmp_path, {"x": [x], "weight": [[[0.01] * 1000]]}) as page:
        fastest = page.evaluate(
            """() => {
              tapwise.set({tab: 'gradient'});
              const select = document.querySelector('[data-control=gradient-of]');
              const took = [];
              for (let n = 0; n < 4; n += 1) {
                select.value = n % 2;
                const begin = performance.now();
                select.dispatchEvent(new Event('change'));
                took.push(performance.now() - begin);
              }
              return Math.min(took[1], took[3]);
            }"""
        )
        assert fastest < 3000  # ten seconds and more, before
        assert page.evaluate("tapwise.output()[0].length") == 29_001


def test_hovering_an_input_of_very_many_outputs(browser, tmp_path):
    state = {"x": [[0.5] * 60_000], "weight": [[[1] * 30_000]] * 3, "output": 20_000}
    with opened(browser, tmp_path, state) as page:
        page.locator('.holder [data-key^="x:"]').nth(3).hover()
        assert "one line for each use" in page.inner_text(".caption")
        page.evaluate("tapwise.set({tab: 'response'})")


def test_weights_that_are_no_numbers_have_their_squares(browser, tmp_path):
    with opened(browser, tmp_path, {"x": [[1, 2, 3]] * 64, "weight": [[["nan"]] * 64] * 64, "tab": "channels"}) as page:
        labels = page.evaluate(
            "[...document.querySelectorAll('#panel-channels [data-key]')].map((one) => one.getAttribute('aria-label'))"
        )
        assert labels
        assert not any("doesn't read" in label for label in labels)
        page.locator("#panel-channels [data-key]").nth(20).click()
        page.evaluate("tapwise.set({weight: Array.from({length: 64}, () => Array(32).fill([1])), groups: 2})")
        assert "weight[0, 0] = [1]" in page.inner_text("#panel-channels")


def test_the_panel_of_channels_shows_the_channel_that_is_chosen(browser, tmp_path):
    with opened(browser, tmp_path, {"weight": [[[1, 1, 1]], [[2, 2, 2]]], "tab": "channels"}) as page:
        page.evaluate("tapwise.set({tab: 'window', channel: 1}); tapwise.set({tab: 'channels'})")
        assert "weight[1, 0] = [2, 2, 2]" in page.inner_text("#panel-channels")
        page.evaluate("tapwise.set({transposed: true, weight: [[[3]]], stride: 3, output: 1, channel: 0})")
        assert "no input reaches it" in page.inner_text("#panel-channels")


def test_sums_of_addends_unlike_in_size(browser, tmp_path):
    cases = (
        ([1234.567812345] + [0.412371234] * 999, 1000),
        ([1000.123456789, 0.4123456789, 0.41234567, 0.412345678], 4),
        ([1e-9, 2e-9, 3e-9], 3),
        ([60000000.4, 60000000.4], 2),
    )
    with opened(browser, tmp_path) as page:
        for x, taps in cases:
            page.evaluate("(s) => tapwise.set(s)", {"x": [x], "weight": [[[1] * taps]], "output": 0})
            line = page.evaluate("document.querySelector('.sum').nextElementSibling.textContent")
            total = float(line.split("=")[-1].replace("−", "-"))
            assert total == pytest.approx(sum(x), rel=5e-4), line


@pytest.mark.parametrize("taps", [[1, 1, 1], [-0.0552, -0.0997, 0.0873], [0.001, -3.7, 2], [1e-5, 1e5]])
@pytest.mark.parametrize("padding", [[0, 0], [1, 1], "causal"])
def test_curves_lie_between_the_ticks_of_their_axis(browser, tmp_path, taps, padding):
    with opened(browser, tmp_path, {"weight": [[taps]], "padding": padding, "tab": "response"}) as page:
        curves = page.evaluate(
            """() => [...document.querySelectorAll('#panel-response path.curve')].map((one) => {
              // The lines and numbers of its axis were drawn just before it.
              const lines = [];
              for (let at = one.previousElementSibling; at.matches('.grid, .index'); at = at.previousElementSibling)
                if (at.matches('.grid')) lines.push(+at.getAttribute('y1'));
              const ys = one.getAttribute('d').match(/[ML][^ML]+/g).map((part) => +part.split(' ')[1]);
              return [Math.min(...lines), Math.min(...ys), Math.max(...ys), Math.max(...lines)];
            })"""
        )
        assert len(curves) == 2
        for highest, top, bottom, lowest in curves:
            assert highest - 0.2 <= top <= bottom <= lowest + 0.2


def test_names_of_rows_stand_still_while_the_taps_slide(browser, tmp_path):
    with opened(browser, tmp_path) as page:
        page.click("[data-control=step]")
        names = page.evaluate(
            "document.getAnimations().map((one) => one.effect.target.querySelectorAll('.name').length)"
        )
        assert all(count == 0 for count in names)


def test_bars_of_weights_are_printed(browser, tmp_path):
    with opened(browser, tmp_path, {"tab": "channels"}) as page:
        page.emulate_media(media="print")
        bars = "document.querySelectorAll('#panel-channels rect.bar').length"
        shown = "[...document.querySelectorAll('#panel-channels rect.bar')].filter((one) => getComputedStyle(one).display !== 'none').length"
        assert page.evaluate(shown) == page.evaluate(bars) == 3


def test_a_reply_is_to_the_layer_that_was_shown(browser, tmp_path):
    with opened(browser, tmp_path, {"lesson": 2}) as page:
        page.fill("[data-control=answer]", "4")
        page.keyboard.press("Enter")
        assert page.inner_text(".reply").startswith("Right")
        page.fill("[data-control=stride]", "3")
        page.keyboard.press("Tab")
        assert page.inner_text(".reply") == ""
        assert page.evaluate("document.querySelector('[data-control=answer]').labels[0].textContent") == (
            "How many outputs are there?"
        )
        page.click("[data-control=lesson-leave]")
        assert page.evaluate("document.activeElement.dataset.control") == "lesson"


# Networks


class TwoSignals(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv1d(1, 1, 3, padding=1), nn.Conv1d(1, 1, 5, padding=2)

    def forward(self, x, y):
        return self.a(x) + self.b(y)


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1)

    def forward(self, x):
        return self.conv(self.conv(x).relu())


def test_words_about_several_signals_and_a_layer_that_is_called_again(browser, tmp_path):
    text = tw.inspect(TwoSignals(), (torch.randn(1, 1, 60), torch.randn(1, 1, 60))).page()
    with opened(browser, tmp_path, text=text) as page:
        page.evaluate("tapwise.point(4, 25)")
        assert "reads samples 23 to 27: those after 25 lie in its future" in page.inner_text(".sentence")
    text = tw.inspect(Shared(), torch.randn(1, 1, 60)).page()
    with opened(browser, tmp_path, text=text) as page:
        assert page.evaluate("document.querySelectorAll('.operation button').length") == 1
        assert page.evaluate("document.querySelectorAll('.operation.convolves')[1].textContent").count("again") == 1


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
def test_what_padding_holds_is_read(browser, tmp_path, mode):
    class Pads(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(1, 1, 3)

        def forward(self, x):
            return self.conv(nn.functional.pad(x, (4, 0), mode=mode))

    model = Pads().double()
    try:
        report = tw.inspect(model, torch.randn(1, 1, 40).double())
    except tw.TimelineError:
        assert mode == "circular"
        return
    x = torch.randn(1, 1, 40, dtype=torch.float64, requires_grad=True)
    y = model(x)
    with opened(browser, tmp_path, text=report.page()) as page:
        last = page.evaluate("document.querySelectorAll('[data-node]').length") - 1
        for at in (0, 1, 2, 3, 5, y.shape[-1] - 1):
            page.evaluate("([number, at]) => tapwise.point(number, at)", [last, at])
            (grad,) = torch.autograd.grad(y[0, 0, at], x, retain_graph=True)
            touched = grad[0, 0].nonzero().flatten().tolist()
            reads = page.evaluate("tapwise.reach()[0]")
            assert reads == ([touched[0], touched[-1]] if touched else None), (mode, at)
            if not touched:
                assert "reads none of it" in page.inner_text(".sentence")


# What is written


@pytest.mark.parametrize(
    ("layer", "size"),
    [
        (nn.Conv1d(768, 768, 128, padding=64, groups=16), (768, 200)),
        (nn.Conv1d(512, 512, 3, groups=2), (512, 30)),
        (nn.Conv1d(1024, 1024, 3, groups=1024), (1024, 30)),
        (nn.Conv1d(16, 16, 2, dilation=4096), (16, 9000)),
        (nn.ConvTranspose1d(256, 256, 16, 8), (256, 20)),
    ],
)
def test_a_part_of_a_large_layer_fits(layer, size):
    state = tw.explain(layer, torch.randn(*size)).state_within(3000)
    numbers = np.array(state["x"]).size + np.array(state["weight"]).size
    assert numbers <= 6000 or np.array(state["x"]).shape[0] == 1
    assert re.search(r"the first \d+ of \d+", state["about"])
    # What is left is a convolution of its own.
    module = tw.conv_transpose1d if state["transposed"] else tw.conv1d
    padding = state["padding"] if isinstance(state["padding"], str) else tuple(state["padding"])
    settings = {name: state[name] for name in ("stride", "dilation", "groups")}
    y = module(
        torch.tensor(state["x"]),
        torch.tensor(state["weight"]),
        torch.tensor(state["bias"]),
        padding=padding,
        **settings,
    )
    assert y.shape[-1] > 0


def test_a_model_for_one_length_alone_has_its_table(tmp_path):
    model = nn.Sequential(nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(96, 3))
    text = tw.explain(model, torch.randn(1, 1, 50)).save(tmp_path / "a.html").read_text()
    assert "operations are not drawn" in text


def test_windows_that_no_input_reaches_or_that_are_long():
    drawn = tw.explain(nn.ConvTranspose1d(1, 1, 1, stride=3), torch.randn(1, 4)).svg("window", output=1)
    assert "window of output 1" in drawn
    for output in (1, 5, 200):
        drawn = tw.explain([1.0] * 40, torch.arange(300.0)).svg("window", output=output)
        assert "output chosen" in drawn
        assert "= " in drawn


def test_an_output_of_a_module_that_drops_some_is_the_modules():
    class Causal(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(1, 1, 3, padding=2, bias=False)

        def forward(self, x):
            return self.conv(x)[..., 2:]

    layer = Causal()
    nn.init.ones_(layer.conv.weight)
    explanation = tw.explain(layer, torch.arange(4.0))
    assert "0 + 1 + 2 = 3" in explanation.svg("window", output=np.int64(0))
    with pytest.raises(IndexError, match="from 0 to 3, got 4"):
        explanation.svg("window", output=4)


def test_options_of_a_picture_without_one_are_refused(tmp_path, capsys):
    from tapwise import cli

    with pytest.raises(SystemExit) as ended:
        cli.main(["explain", "--figure", "kernel"])
    assert ended.value.code
    assert "--save" in capsys.readouterr().err
    with pytest.raises(ValueError, match="figure must be one of"):
        tw.explain([1.0], [1.0]).save(tmp_path / "a.txt", "nonsense")


def test_what_a_file_has_no_use_for_is_refused(tmp_path):
    explanation = tw.explain([1.0, 2.0], torch.arange(6.0))
    for name, options in (
        ("a.html", {"output": 2}),
        ("a.txt", {"slide": True}),
        ("a.html", {"figure": "kernel"}),
        ("a.gif", {"figure": "kernel"}),
        ("a.gif", {"output": 1}),
    ):
        with pytest.raises(ValueError, match=r"save as|give no"):
            explanation.save(tmp_path / name, **options)
        assert not (tmp_path / name).exists()


def test_after_a_press_of_present_the_arrows_step(browser, tmp_path):
    with opened(browser, tmp_path, viewport={"width": 1280, "height": 900}) as page:
        page.click("[data-control=present]")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        assert page.evaluate("tapwise.state().output") == 2
        page.wait_for_timeout(300)
        bottom = page.evaluate("document.querySelector('.holder:not(.overview) svg').getBoundingClientRect().bottom")
        assert bottom <= 900
        page.keyboard.press(" ")  # the button's own
        assert page.evaluate("document.querySelector('.large')") is None


def test_a_layer_of_a_network_says_that_its_numbers_are_rounded():
    state = tw.explain(nn.Conv1d(2, 2, 3), torch.randn(2, 30)).state_within(1000)
    assert "rounded to six digits" in state["about"]
    assert max(len(str(abs(value)).replace(".", "").strip("0")) for row in state["x"] for value in row) <= 6
