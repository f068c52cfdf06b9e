"""The panels of gradients and of channels: autograd's numbers, the sums behind them, and weights as bars."""

import random

import numpy as np
import pytest
import torch

import tapwise as tw
from pages import drawn_configuration, needs_chromium, opened

pytestmark = needs_chromium


def autograd(state, chosen):
    """torch's gradients of one output, or of the sum of all, in the shapes that the page gives."""
    x, w = (torch.tensor(state[name], dtype=torch.float64, requires_grad=True) for name in ("x", "weight"))
    b = None if state["bias"] is None else torch.tensor(state["bias"], dtype=torch.float64, requires_grad=True)
    padding = state["padding"] if isinstance(state["padding"], str) else tuple(state["padding"])
    settings = {"stride": state["stride"], "dilation": state["dilation"], "groups": state["groups"], "padding": padding}
    if state["transposed"]:
        y = tw.conv_transpose1d(x, w, b, output_padding=state["output_padding"], **settings)
    else:
        y = tw.conv1d(x, w, b, padding_mode=state["padding_mode"], **settings)
    (y.sum() if chosen is None else y[chosen]).backward()
    return {"input": x.grad.tolist(), "weight": w.grad.tolist(), "bias": None if b is None else b.grad.tolist()}


def test_gradients_are_autograds(browser, tmp_path):
    rnd, kinds = random.Random(7), set()
    with opened(browser, tmp_path) as page:
        while len(kinds) < 24:
            drawn = drawn_configuration(rnd)
            if drawn is None or "nan" in str(drawn[0]) or "inf" in str(drawn[0]):
                continue
            state, y = drawn
            chosen = (rnd.randrange(y.shape[0]), rnd.randrange(y.shape[1]))
            page.evaluate("(s) => tapwise.set(s)", {**state, "channel": chosen[0], "output": chosen[1]})
            for every in (False, True):
                found = page.evaluate("(every) => tapwise.gradients(every)", every)
                wanted = autograd(state, None if every else chosen)
                for name in ("input", "weight", "bias"):
                    if wanted[name] is not None:
                        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-9, atol=1e-9, err_msg=str(state))
            kinds.add((state["transposed"], state["padding_mode"], str(state["padding"])[0], state["groups"] > 1))


def texts(page, selector):
    return page.evaluate(
        "(selector) => [...document.querySelectorAll(`#panel-gradient ${selector}`)].map((one) => one.textContent)",
        selector,
    )


def test_a_number_of_a_gradient_shows_its_sum(browser, tmp_path):
    with opened(browser, tmp_path, {"weight": [[[1, 2, 4]]], "output": 5, "tab": "gradient"}) as page:
        page.hover('[data-key="gw:1"]')
        assert "The gradient of tap 1 is 6: the sum of the inputs that it was multiplied by, for this output." in (
            page.inner_text("#panel-gradient .sentence")
        )
        assert texts(page, 'g[data-key^="gx"] .number') == ["0"] * 5 + ["1", "2", "4"] + ["0"] * 2
        page.select_option("[data-control=gradient-of]", label="the sum of all outputs")
        page.hover('[data-key="gx:4"]')
        # Output 2 read input 4 by the last tap, output 4 by the first: the taps the other way round.
        assert "4 + 2 + 1 = 7" in page.inner_text("#panel-gradient .holder")
        assert "The gradient of input 4 is 7" in page.inner_text("#panel-gradient .sentence")
        page.hover('[data-key="gw:0"]')
        assert "is 28" in page.inner_text("#panel-gradient .sentence")  # 0 + 1 + ... + 7
        # By keyboard, too.
        page.focus('[data-key="gw:0"]')
        page.keyboard.press("ArrowRight")
        assert "The gradient of tap 1 is 36" in page.inner_text("#panel-gradient .sentence")
        assert page.evaluate("document.activeElement.dataset.key") == "gw:1"


def test_the_gradient_of_an_input_sums_every_output_channel(browser, tmp_path):
    state = {"x": [[1, 2, 3, 4]], "weight": [[[1, 2]], [[10, 20]], [[5, 5]]], "channel": 1, "tab": "gradient"}
    with opened(browser, tmp_path, state) as page:
        page.select_option("[data-control=gradient-of]", label="the sum of all outputs")
        page.hover('[data-key="gx:1"]')
        shown = page.inner_text("#panel-gradient .holder").replace("\n", " ")
        assert "2 output channels more" in shown
        assert "The gradient of input 1 is 43" in page.inner_text("#panel-gradient .sentence")


def test_weights_are_bars_with_their_signs(browser, tmp_path):
    state = {
        "x": [[1, 2, 3, 4], [4, 3, 2, 1]],
        "weight": [[[1, -2], [0.5, 0]], [[-1, 1], [2, -0.5]]],
        "tab": "channels",
        "output": 1,
    }
    with opened(browser, tmp_path, state) as page:
        for o, i in ((0, 0), (0, 1), (1, 0), (1, 1)):
            bars = page.evaluate(
                """(key) => {
                  const group = document.querySelector(`[data-key="${key}"]`);
                  const middle = Number(group.querySelector('line').getAttribute('y1'));
                  return [...group.querySelectorAll('.bar')].map((bar) => {
                    const height = Number(bar.getAttribute('height'));
                    return Number(bar.getAttribute('y')) < middle - 0.1 ? height : -height;
                  });
                }""",
                f"p:{o}:{i}",
            )
            taps = np.array(state["weight"][o][i], float)
            bars = np.where(np.abs(bars) > 0.5, bars, 0.0)  # a tap of 0 is a line
            assert np.sign(bars).tolist() == np.sign(taps).tolist()
            np.testing.assert_allclose(bars / np.abs(bars).max(), taps / np.abs(taps).max(), atol=0.05)
        page.click('[data-key="p:1:0"]')
        words = page.inner_text("#panel-channels")
        assert "weight[1, 0] = [-1, 1]" in words
        assert "What input channel 0 adds to output 1 of channel 1: −2 + 3 = 1." in words
        assert page.evaluate("tapwise.state().channel") == 1
        page.keyboard.press("Tab")
        page.focus('[data-key="p:1:0"]')
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        assert "weight[1, 1] = [2, -0.5]" in page.inner_text("#panel-channels")


@pytest.mark.parametrize("width", [360, pytest.param(1280, marks=pytest.mark.slow)])
def test_512_channels_are_shown_in_squares_that_open(browser, tmp_path, width):
    layer = torch.nn.Conv1d(512, 512, 1)
    state = {**tw.explain(layer, torch.randn(512, 20)).state, "tab": "channels"}
    with opened(browser, tmp_path, state, viewport={"width": width, "height": 800}) as page:
        squares = "document.querySelectorAll('#panel-channels [data-key]').length"
        count = page.evaluate(squares)
        assert 300 < count <= 1024
        smallest = page.evaluate(
            "Math.min(...[...document.querySelectorAll('#panel-channels [data-key] rect.pair')]"
            ".map((one) => one.getBoundingClientRect().width))"
        )
        assert smallest >= 13
        page.locator("#panel-channels [data-key]").nth(40).click()
        pairs = page.evaluate("document.querySelectorAll('#panel-channels [data-key^=\"p:\"]').length")
        blocks = page.evaluate("document.querySelectorAll('#panel-channels [data-key^=\"b:\"]').length")
        assert pairs or blocks
        if blocks:
            page.locator('#panel-channels [data-key^="b:"]').first.click()
        page.locator('#panel-channels [data-key^="p:"]').first.click()
        assert "weight[" in page.inner_text("#panel-channels .sentence")
        page.click("[data-control=all-channels]")
        assert page.evaluate(squares) == count


def test_groups_are_blocks(browser, tmp_path):
    layer = torch.nn.Conv1d(8, 12, 3, groups=4)
    state = {**tw.explain(layer, torch.randn(8, 20)).state, "tab": "channels"}
    with opened(browser, tmp_path, state) as page:
        assert page.evaluate("document.querySelectorAll('#panel-channels rect.group').length") == 4
        assert page.evaluate("document.querySelectorAll('#panel-channels [data-key]').length") == 4 * 2 * 3
