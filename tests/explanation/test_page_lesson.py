"""The lesson: eight stations in the tutorial's order, each with a question whose answer the page knows."""

import json
from importlib.resources import files
from pathlib import Path

import nbformat
import pytest

from pages import needs_chromium, opened

pytestmark = needs_chromium

TESTS = Path(__file__).parents[1]
LESSON = json.loads((files("tapwise.explanation") / "page" / "lesson.json").read_text(encoding="utf-8"))
TUTORIAL = {
    case["name"]: case["output"] for case in json.loads((TESTS / "data" / "tutorial.json").read_text())["cases"]
}
# What each station asks for, from the tutorial's own numbers.
ANSWERS = {
    "The loop": TUTORIAL["ones"][0][5],
    "Two output channels": TUTORIAL["two output channels"][1][4],
    "Stride": len(TUTORIAL["stride 2"][0]),
    "Padding": TUTORIAL["padding 1"][0][9],
    "Dilation": 5,  # samples 0 to 4
    "A moving average": TUTORIAL["moving average of 2"][0][8],
    "Causal": 4,  # output i stands under sample i
}
CASES = {
    "The loop": "ones",
    "Two output channels": "two output channels",
    "Stride": "stride 2",
    "Padding": "padding 1",
    "Dilation": "dilation 2",
    "A moving average": "moving average of 2",
    "Causal": "causal",
}


def test_every_station_shows_the_tutorials_numbers_and_checks_its_answer(browser, tmp_path):
    with opened(browser, tmp_path, {"lesson": 0}) as page:
        for n, station in enumerate(LESSON[:-1]):
            title = station["title"]
            chosen = page.evaluate("document.querySelector('[data-control=station]').selectedOptions[0].text")
            assert chosen == f"{n + 1} of {len(LESSON)}: {title}"
            if "output" in station["asks"]:  # which isn't written in the picture
                channel, output = station["asks"]["output"]
                assert page.text_content(f'[data-key="y:{channel}:{output}"] .number') == "?"
                page.hover(f'[data-key="y:{channel}:{output}"]')
                assert page.inner_text(".sentence").endswith("= ?")
                assert "= ?" in page.inner_text(".holder:not(.overview)")
            if "length" in station["asks"]:
                assert page.inner_text(".formula [data-symbol=L_out] span") == "?"
                assert "(1, 1, ?)" in page.inner_text(".shapes")
            assert page.evaluate("tapwise.output()") == TUTORIAL[CASES[title]]
            for wrong, said in (("", "Give a number"), ("no", "Give a number"), (str(ANSWERS[title] + 1), "Not yet.")):
                page.fill("[data-control=answer]", wrong)
                page.click("[data-control=check]")
                assert page.inner_text(".reply").startswith(said), title
            page.fill("[data-control=answer]", f"1 + 2 = {ANSWERS[title]}")
            page.keyboard.press("Enter")
            assert page.inner_text(".reply").startswith("Right."), title
            if "output" in station["asks"]:  # now it is
                assert float(page.text_content(f'[data-key="y:{channel}:{output}"] .number')) == ANSWERS[title]
            if "length" in station["asks"]:
                assert page.inner_text(".formula [data-symbol=L_out] span") == str(ANSWERS[title])
            page.click("[data-control=lesson-next]")
        # The last asks for a layer.
        assert page.is_disabled("[data-control=lesson-next]")
        page.click("[data-control=check]")
        assert page.inner_text(".reply").startswith("Not yet.")
        page.fill("[data-control=kernel_size]", "5")
        page.keyboard.press("Tab")
        page.select_option("[data-control=padding]", "same")
        page.click("[data-control=check]")
        assert page.inner_text(".reply").startswith("Right.")
        page.click("[data-control=lesson-leave]")
        assert not page.is_visible(".lesson")
        assert page.evaluate("tapwise.state().weight[0][0].length") == 5
        page.click("[data-control=lesson]")  # goes on where it was left
        assert page.input_value("[data-control=station]") == "7"
        page.select_option("[data-control=station]", "2")
        page.fill("[data-control=stride]", "3")
        page.keyboard.press("Tab")
        page.fill("[data-control=answer]", "3")
        page.click("[data-control=check]")
        assert page.inner_text(".reply").startswith("You changed the layer since")
        page.click("[data-control=reset]")
        assert page.evaluate("tapwise.state().stride") == 2


def test_the_notebook_follows_the_same_path():
    tour = nbformat.read(TESTS.parent / "notebooks" / "tour.ipynb", as_version=4)
    headings = [
        line.removeprefix("## ")
        for cell in tour.cells
        if cell.cell_type == "markdown"
        for line in cell.source.splitlines()
        if line.startswith("## ")
    ]
    assert [heading for heading in headings if heading != "Shapes"] == [station["title"] for station in LESSON]


@pytest.mark.parametrize("station", range(len(LESSON)))
def test_each_station_has_two_sentences_and_one_question(station):
    text, question = LESSON[station]["text"], LESSON[station]["question"]
    assert sum(text.count(f"{mark} ") for mark in ".!?") + 1 == 2, text
    assert question.endswith(("?", "."))


def test_a_lecture_has_large_type_and_keys(browser, tmp_path):
    with opened(browser, tmp_path, viewport={"width": 1280, "height": 800}) as page:
        size = "document.querySelector('[data-key=\"y:0:0\"]').getBoundingClientRect().height"
        before = page.evaluate(size)
        page.keyboard.press("p")
        assert page.evaluate(size) > 1.4 * before
        for key, output in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", 7), ("Home", 0)):
            page.keyboard.press(key)
            assert page.evaluate("tapwise.state().output") == output
        assert page.evaluate("document.documentElement.scrollWidth") <= 1280
        page.keyboard.press("p")
        page.wait_for_timeout(300)
        assert page.evaluate(size) == pytest.approx(before, rel=0.02)
        # A field keeps its keys.
        page.focus("[data-control=stride]")
        page.keyboard.press("ArrowRight")
        assert page.evaluate("tapwise.state().output") == 0
