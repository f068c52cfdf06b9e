"""What is written can be read: no text is cut, none stands on another, at the widths of a phone, a tablet and a desk."""

import random

import pytest

from pages import drawn_configuration, needs_chromium, opened

pytestmark = needs_chromium

TABS = ("window", "channels", "gradient", "stack", "response", "code")
STATIONS = 8

# Texts of figures that leave their figure or stand on one another, and elements that are wider than their place.
TROUBLES = """() => {
  const troubles = [];
  for (const svg of document.querySelectorAll('[role=tabpanel]:not([hidden]) svg')) {
    if (!svg.getClientRects().length) continue;
    const frame = svg.getBoundingClientRect();
    const texts = [...svg.querySelectorAll('text')].filter((one) => !one.closest('.quiet') && one.textContent);
    const boxes = texts.map((one) => [one.textContent, one.getBoundingClientRect()]);
    boxes.forEach(([text, box], n) => {
      if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1 || box.bottom > frame.bottom + 1)
        troubles.push(`cut: ${text}`);
      for (const [other, its] of boxes.slice(n + 1)) {
        const wide = Math.min(box.right, its.right) - Math.max(box.left, its.left);
        // Lines of text may touch with the empty parts of their boxes.
        const tall = Math.min(box.bottom, its.bottom) - Math.max(box.top, its.top);
        if (wide > 1.5 && tall > 5) troubles.push(`overlap: ${text} | ${other}`);
      }
    });
  }
  if (document.documentElement.scrollWidth > innerWidth) troubles.push('the page scrolls sideways');
  for (const one of document.querySelectorAll('main p, main li, main label, .controls label, .shapes, .twp:not(.lessons) h1, .lesson p, .lesson label, .caption, legend')) {
    if (!one.getClientRects().length) continue;
    const box = one.getBoundingClientRect();
    if (one.scrollWidth > one.clientWidth + 1 && one.clientWidth) troubles.push(`cut: ${one.textContent.slice(0, 60)}`);
    if (box.width && box.width < 24) troubles.push(`a column one letter wide: ${one.textContent.slice(0, 60)}`);
  }
  return troubles;
}"""


@pytest.mark.parametrize("count", [8, pytest.param(60, marks=pytest.mark.slow)])
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_no_text_is_cut_or_stands_on_another(browser, tmp_path, width, count):
    rnd, done = random.Random(8), 0
    with opened(browser, tmp_path, viewport={"width": width, "height": 800}) as page:
        while done < count:
            drawn = drawn_configuration(rnd)
            if drawn is None:
                continue
            state, y = drawn
            page.evaluate(
                "(s) => tapwise.set(s)",
                {**state, "channel": rnd.randrange(y.shape[0]), "output": rnd.randrange(y.shape[1])},
            )
            for tab in TABS:
                page.evaluate("(tab) => tapwise.set({tab})", tab)
                troubles = page.evaluate(TROUBLES)
                assert not troubles, (tab, troubles, state)
            done += 1


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_lesson_can_be_read_at_every_width(browser, tmp_path, width):
    with opened(browser, tmp_path, {"lesson": 0}, viewport={"width": width, "height": 800}) as page:
        for _ in range(STATIONS):
            assert not page.evaluate(TROUBLES)
            box = page.evaluate("document.querySelector('.lesson').getBoundingClientRect().toJSON()")
            assert box["right"] <= width
            assert box["height"] < 480
            if page.is_enabled("[data-control=lesson-next]"):
                page.click("[data-control=lesson-next]")
