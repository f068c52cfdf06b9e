"""The panel of steps: one motion, sums that can be checked by hand, lines and words that name their channel."""

import random
import re
from decimal import Decimal

import pytest
import torch

import tapwise as tw
from pages import drawn_configuration, needs_chromium, opened

pytestmark = needs_chromium

LAYER = {
    "x": [[float(n) for n in range(10)], [3.0, 1, 4, 1, 5, 9, 2, 6, 5, 3], [2.0, 7, 1, 8, 2, 8, 1, 8, 2, 8]],
    "weight": [[[1.0, 2, 1], [0.5, -1, 0.5], [0, 1, 0]], [[1, 0, -1], [2, 2, 2], [1, 1, 1]]],
    "bias": [0.5, -1.0],
}

# What the figure shows of a step: positions of taps and products among the inputs, lit cells, the output it goes to.
SHOWN = """() => {
  const x = (one) => Math.round(Number(one.getAttribute('x')));
  const holder = document.querySelector('.holder:not(.overview)');
  const under = {};
  for (const cell of holder.querySelectorAll('[data-key^="x:0:"]'))
    under[x(cell.querySelector('rect'))] = Number(cell.dataset.key.split(':')[3]);
  const places = (kind) => [...holder.querySelectorAll(`.step rect.${kind}`)].map((one) => under[x(one)]);
  const way = holder.querySelector('.way');
  return {
    taps: places('tap'),
    products: places('product'),
    numbers: [...holder.querySelectorAll('.step .number')].map((one) => one.textContent),
    lit: [...holder.querySelectorAll('[data-key].lit')].map((one) => one.dataset.key),
    way: way.dataset.link,
    end: way.getAttribute('d').match(/[\\d.]+ [\\d.]+$/)[0].split(' ').map(Number),
    caption: document.querySelector('.caption').textContent,
    sentence: document.querySelector('.sentence').textContent,
  };
}"""


@pytest.mark.parametrize("channel", [0, 1])
@pytest.mark.parametrize("output", [0, 5])
def test_lines_sum_and_words_are_of_the_channel_that_is_chosen(browser, tmp_path, channel, output):
    with opened(browser, tmp_path, {**LAYER, "channel": channel, "output": output}) as page:
        shown = page.evaluate(SHOWN)
        assert shown["way"] == f"y:{channel}:{output}"
        cell = page.evaluate(
            "(key) => { const r = document.querySelector(`[data-key='${key}'] rect`);"
            "return ['x', 'y', 'width'].map((name) => Number(r.getAttribute(name))); }",
            shown["way"],
        )
        # The line ends at the middle of the upper edge of its own output.
        assert shown["end"] == pytest.approx([cell[0] + cell[2] / 2, cell[1]], abs=1.5)
        assert shown["caption"].startswith(f"Output {output} of channel {channel} is the sum of the products of all 3")
        assert f"sum of channel {channel}" in page.inner_text(".holder:not(.overview)")
        # Every input channel has its subtotal, and they add up to the output.
        y = page.evaluate("tapwise.output()")[channel][output]
        *subtotals, total = (float(text.replace("−", "-")) for text in shown["numbers"][-5:])
        assert sum(subtotals) == pytest.approx(total)
        assert total == pytest.approx(y)


def test_hovering_an_output_shows_that_step_and_leaving_goes_back(browser, tmp_path):
    with opened(browser, tmp_path) as page:
        for output in (4, 7, 0):
            page.hover(f'[data-key="y:0:{output}"]')
            shown = page.evaluate(SHOWN)
            window = [output, output + 1, output + 2]
            assert shown["taps"] == shown["products"] == window
            assert {key for key in shown["lit"] if key.startswith("x")} == {f"x:0:{n}:{n}" for n in window}
            assert shown["way"] == f"y:0:{output}"
            assert shown["sentence"].startswith(f"Step {output}: ")
            assert shown["caption"].startswith(f"Output {output} is")
        page.click('[data-key="y:0:2"]')
        page.hover('[data-key="y:0:6"]')
        assert page.evaluate(SHOWN)["taps"] == [6, 7, 8]
        page.hover("h1")
        shown = page.evaluate(SHOWN)
        assert shown["taps"] == [2, 3, 4]
        assert shown["sentence"].startswith("Step 2: ")
        # Focus moves the kernel as the pointer does.
        page.focus('[data-key="y:0:2"]')
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        assert page.evaluate("document.activeElement.dataset.key") == "y:0:4"
        assert page.evaluate(SHOWN)["taps"] == [4, 5, 6]
        page.evaluate("document.activeElement.blur()")
        assert page.evaluate(SHOWN)["taps"] == [2, 3, 4]


def test_hovering_a_channel_of_another_group_shows_its_inputs(browser, tmp_path):
    x = [[float(n + c) for n in range(8)] for c in range(4)]
    weight = [[[1.0, c + 1.0], [0.5, 1.0]] for c in range(4)]
    with opened(browser, tmp_path, {"x": x, "weight": weight, "groups": 2}) as page:
        for channel, inputs in ((3, "23"), (0, "01"), (2, "23")):
            page.hover(f'[data-key="y:{channel}:3"]')
            keys = page.evaluate(
                "[...document.querySelectorAll('.holder [data-key^=\"x:\"]')].map((one) => one.dataset.key[2])"
            )
            assert sorted(set(keys)) == list(inputs)
            assert page.evaluate(SHOWN)["way"] == f"y:{channel}:3"
            assert page.evaluate("tapwise.state().channel") == 0


def digits(text):
    return Decimal(text.replace("−", "-").replace(" ", ""))


def test_the_printed_digits_add_up(browser, tmp_path):
    """One input channel: its line. Several, or a bias: the column. Always to the last digit."""
    rnd, lines, columns = random.Random(6), 0, 0
    with opened(browser, tmp_path) as page:
        for _ in range(60):
            drawn = drawn_configuration(rnd)
            if drawn is None or not torch.tensor(drawn[1]).isfinite().all():
                continue
            state, y = drawn
            channel, output = rnd.randrange(y.shape[0]), rnd.randrange(y.shape[1])
            page.evaluate("(s) => tapwise.set(s)", {**state, "channel": channel, "output": output})
            texts = page.evaluate("[...document.querySelectorAll('.step text.number')].map((one) => one.textContent)")
            sums = [text for text in texts if "=" in text]
            if sums:
                terms, total = sums[0].split("=")
                if "…" in terms:
                    continue
                addends = [digits(sign + number) for sign, number in re.findall(r"([−+]? ?)([\d.]+)", terms)]
                lines += 1
            else:
                heads = page.evaluate(
                    "[...document.querySelectorAll('.step text.number[text-anchor=end]')].map((one) => one.textContent)"
                )
                if not heads:  # one product, or none
                    continue
                *addends, total = map(digits, heads)
                columns += 1
            assert sum(addends) == digits(str(total)), (texts, state)
            # Each addend is rounded once.
            unit = 10 ** digits(str(total)).as_tuple().exponent
            assert float(digits(str(total))) == pytest.approx(y[channel, output], abs=20 * unit + 1e-9)
    assert lines >= 3
    assert columns >= 20


def test_each_symbol_of_the_formula_has_its_number_its_control_and_its_mark(browser, tmp_path):
    with opened(browser, tmp_path, {"stride": 2, "dilation": 2, "padding": [2, 1]}) as page:
        geometry = tw.Geometry(3, 2, 2, (2, 1))
        expected = {
            "L_out": geometry.output_length(10),
            "L": 10,
            "left": 2,
            "right": 1,
            "dilation": 2,
            "K": 3,
            "stride": 2,
        }
        for symbol, value in expected.items():
            token = f".formula [data-symbol={symbol}]"
            assert page.inner_text(f"{token} span") == str(value)
            page.hover(token)
            marked = page.evaluate(
                "[...document.querySelectorAll('.marked')].map((one) => [one.dataset.symbol, one.tagName])"
            )
            assert {name for name, _ in marked} == {symbol}
            if symbol != "L_out":
                assert {"LABEL", "g"} <= {tag for _, tag in marked}, symbol
                page.click(token)
                assert page.evaluate("document.activeElement.value") == str(value)
        assert page.inner_text(".counted") == "= floor(8 / 2) + 1 = 4 + 1 = 5"
        shapes = re.findall(r"\(\d+, \d+, \d+\)", page.inner_text(".shapes"))
        assert shapes == ["(1, 1, 10)", "(1, 1, 3)", "(1, 1, 5)"]


def test_what_doesnt_fit_stays_in_its_field_and_changes_nothing(browser, tmp_path):
    def enter(name, value):
        page.fill(f"[data-control={name}]", value)
        page.keyboard.press("Tab")

    with opened(browser, tmp_path) as page:
        page.click(".more summary")
        before = page.evaluate("tapwise.state()")
        enter("kernel_size", "99")
        assert page.evaluate("tapwise.state()") == before
        assert page.input_value("[data-control=kernel_size]") == "99"
        assert page.get_attribute("[data-control=kernel_size]", "aria-invalid") == "true"
        alarm = page.inner_text(".alarm")
        assert alarm.startswith("kernel size 99 doesn't fit: the filter reaches over 99 samples")
        assert "The picture still shows kernel size 3." in alarm
        assert float(page.evaluate("getComputedStyle(document.querySelector('.main')).opacity")) < 0.6
        # Another setting is taken alone; the field keeps what was typed.
        enter("stride", "2")
        assert page.evaluate("tapwise.state()") == {**before, "stride": 2}
        assert page.input_value("[data-control=kernel_size]") == "99"
        # A step is no change of a setting.
        page.click("[data-control=step]")
        assert page.input_value("[data-control=kernel_size]") == "99"
        # Where it fits after another change, it is taken, and that is said.
        enter("length", "120")
        state = page.evaluate("tapwise.state()")
        assert (len(state["x"][0]), len(state["weight"][0][0])) == (120, 99)
        assert page.get_attribute("[data-control=kernel_size]", "aria-invalid") == "false"
        assert page.inner_text(".news") == "Changed with it: kernel size 3 → 99."
        assert not page.inner_text(".alarm")


def test_what_changes_besides_is_said(browser, tmp_path):
    with opened(browser, tmp_path) as page:
        page.click(".more summary")
        for name, value, news in (
            ("groups", "2", "Changed with it: input channels 1 → 2, output channels 1 → 2."),
            ("in_channels", "3", "Changed with it: groups 2 → 1."),
            ("dilation", "2", ""),
        ):
            page.fill(f"[data-control={name}]", value)
            page.keyboard.press("Tab")
            assert page.inner_text(".news") == news
        page.select_option("[data-control=padding]", "same")
        assert page.inner_text(".news") == ""
        page.check("[data-control=transposed]")
        assert page.inner_text(".news") == "Changed with it: padding same → left, right."


def test_the_plan_says_when_it_is_of_other_settings(browser, tmp_path):
    state = tw.explain(tw.Conv1d(1, 1, 3), torch.randn(1, 20)).state
    with opened(browser, tmp_path, state) as page:
        page.click("#tab-plan")
        assert "as it was loaded, not of what" not in page.inner_text("#panel-plan")
        page.fill("[data-control=stride]", "2")
        page.keyboard.press("Tab")
        assert "as it was loaded, not of what" in page.inner_text("#panel-plan")
    with opened(browser, tmp_path) as page:
        assert not page.is_visible("#tab-plan")


def test_an_input_of_a_transposed_convolution_spreads_its_taps(browser, tmp_path):
    state = {"x": [[1, 2, 3, 4, 5]], "weight": [[[1, 2, 4]]], "transposed": True, "stride": 2, "padding": [1, 1]}
    with opened(browser, tmp_path, {**state, "output": 3}) as page:
        texts = page.evaluate(
            "[...document.querySelectorAll('.step rect.product, .step rect.spread')]"
            ".map((one) => one.parentNode.querySelector('.number').textContent)"
        )
        assert texts == ["3", "6", "12", "2", "4", "8"]  # input 2, then input 1, each times every tap
        added = page.evaluate(
            "[...document.querySelectorAll('.step rect.product')]"
            ".map((one) => one.parentNode.querySelector('.number').textContent)"
        )
        assert added == ["3", "8"]
        assert page.evaluate("tapwise.output()")[0][3] == 11
        assert "3 + 8 = 11" in page.inner_text(".holder:not(.overview)")
        assert page.evaluate("document.querySelectorAll('.holder rect.unread').length") == 2  # cut on both sides
        assert page.inner_text(".caption").startswith("Output 3 is the sum of what 2 inputs contribute.")


def test_a_long_signal_is_shown_over_its_output_and_can_be_zoomed(browser, tmp_path):
    x = torch.sin(torch.arange(5000.0) ** 2 / 9000).double()
    state = {"x": [x.tolist()], "weight": [[[0.2] * 5]], "stride": 2, "output": 1000}
    with opened(browser, tmp_path, state) as page:
        view = ".overview svg"
        assert page.evaluate(f"document.querySelectorAll('{view} .envelope').length") == 2
        ticks = page.evaluate(f"[...document.querySelectorAll('{view} .index')].map((one) => one.textContent)")
        assert ticks == ["0", "1,000", "2,000", "3,000", "4,000", "5,000"]
        page.click("[data-control=zoom-in]")
        ticks = page.evaluate(f"[...document.querySelectorAll('{view} .index')].map((one) => one.textContent)")
        assert ticks[0] == "1,400"
        assert "1,250 of 5,000 samples" in page.inner_text(".zoom")
        # A press goes there: the last tenth of what is shown.
        box = page.evaluate(
            f"(() => {{ const b = document.querySelector('{view} line.axis').getBoundingClientRect();"
            "return [b.left, b.width, b.top]; })()"
        )
        page.mouse.click(box[0] + 0.9 * box[1], box[2])
        sample = 1375 + 0.9 * 1250
        assert page.evaluate("tapwise.state().output") == pytest.approx(sample / 2, abs=4)
        page.click("[data-control=zoom-all]")
        assert "5,000 of 5,000 samples" in page.inner_text(".zoom")


def test_spread_taps_lie_a_dilation_apart(browser, tmp_path):
    state = {"x": [[1, 2, 3]], "weight": [[[1, 10]]], "transposed": True, "stride": 2, "dilation": 3, "padding": [0, 0]}
    with opened(browser, tmp_path, {**state, "output": 3}) as page:
        places = page.evaluate(
            """() => {
              const x = (one) => Number(one.getAttribute('x'));
              const outputs = [...document.querySelectorAll('[data-key^="y:0:"]')].map((one) => x(one.querySelector('rect')));
              const near = (one) => outputs.findIndex((at) => Math.abs(at - x(one)) < 2);
              const row = [...document.querySelectorAll('.step rect.product, .step rect.spread')];
              return row.map((one) => [near(one), one.parentNode.querySelector('.number').textContent]);
            }"""
        )
        # Input 0 by tap 1, three outputs after tap 0.
        assert places == [[0, "1"], [3, "10"]]
        assert page.evaluate("tapwise.output()")[0][3] == 10
