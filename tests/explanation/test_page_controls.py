"""What a reader types, presses and walks through on the page."""

import torch

import tapwise as tw
from pages import needs_chromium, opened, until

pytestmark = needs_chromium


def test_edits_by_mouse_and_keyboard_change_the_numbers_as_torch_does(browser, tmp_path):
    with opened(browser, tmp_path) as page:
        page.dblclick('[data-key="x:0:4:4"]')
        page.fill("input.cell", "-2.5")
        page.keyboard.press("Enter")
        page.click('[data-key="y:0:3"]')
        page.focus('[data-key="w:0:0:1:0"]')
        page.keyboard.press("Enter")
        page.fill("input.cell", "3")
        page.keyboard.press("Enter")
        x = torch.arange(10.0)
        x[4] = -2.5
        expected = tw.conv1d(x[None], torch.tensor([[[1.0, 3.0, 1.0]]]))
        assert page.evaluate("tapwise.output()") == expected.tolist()
        assert "Step 3: sum([3. -2.5 5.]*[1. 3. 1.]) = 0.5" in page.inner_text(".sentence")
        # Escape leaves the number, and what is no number is refused in words.
        page.focus('[data-key="x:0:4:4"]')
        page.keyboard.press("Enter")
        page.keyboard.type("7")
        page.keyboard.press("Escape")
        page.focus('[data-key="x:0:4:4"]')
        page.keyboard.press("Enter")
        page.fill("input.cell", "seven")
        page.keyboard.press("Enter")
        assert "is no number" in page.inner_text(".alarm")
        assert page.evaluate("tapwise.state().x[0][4]") == -2.5


SETTINGS = {  # control: what is typed, and how the state then differs
    "length": ("14", lambda s: len(s["x"][0]) == 14),
    "kernel_size": ("4", lambda s: s["weight"] == [[[1, 1, 1, 1]]]),
    "stride": ("3", lambda s: s["stride"] == 3),
    "dilation": ("2", lambda s: s["dilation"] == 2),
    "left": ("2", lambda s: s["padding"] == [2, 0]),
    "right": ("1", lambda s: s["padding"] == [0, 1]),
    "in_channels": ("2", lambda s: len(s["x"]) == 2 and len(s["weight"][0]) == 2),
    "out_channels": ("3", lambda s: len(s["weight"]) == 3),
    "groups": ("2", lambda s: s["groups"] == 2 and len(s["x"]) == 2),
}


def test_every_control_by_keyboard_alone(browser, tmp_path):
    reached = set()
    with opened(browser, tmp_path) as page:
        names = page.evaluate(
            "document.querySelector('.more').open = true;"
            "[...document.querySelectorAll('[data-control]')].filter(n => n.offsetParent && !n.disabled)"
            ".map(n => n.dataset.control)"
        )
        page.evaluate("document.activeElement.blur()")
        for _ in range(80):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.dataset.control"))
            if page.evaluate("document.activeElement.dataset.key"):
                reached.add("a cell")
        # A list of tabs is one stop; arrows go on from there.
        tabs = {name for name in names if name.startswith("tab-")}
        assert set(names) - tabs <= reached
        assert "a cell" in reached
        for name, (typed, holds) in SETTINGS.items():
            page.evaluate("document.querySelector('[data-control=tutorial]').click()")
            page.focus(f"[data-control={name}]")
            page.keyboard.press("Control+A")
            page.keyboard.type(typed)
            page.keyboard.press("Tab")
            assert holds(page.evaluate("tapwise.state()")), name
        page.evaluate("document.querySelector('[data-control=tutorial]').click()")
        page.focus("[data-control=padding]")
        page.keyboard.type("causal")
        page.focus("[data-control=has_bias]")
        page.keyboard.press("Space")
        page.focus("[data-control=bias]")
        page.keyboard.press("Control+A")
        page.keyboard.type("0.5")
        page.keyboard.press("Tab")
        state = page.evaluate("tapwise.state()")
        assert (state["padding"], state["bias"]) == ("causal", [0.5])
        page.focus("[data-control=transposed]")
        page.keyboard.press("Space")
        assert page.evaluate("tapwise.state().transposed") is True
        page.focus("#tab-window")
        for expected in ("channels", "gradient", "stack", "response", "code", "window"):  # no plan: no layer was loaded
            page.keyboard.press("ArrowRight")
            assert page.evaluate("tapwise.state().tab") == expected
        page.focus("[data-control=scrub]")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        assert page.evaluate("tapwise.state().output") == 2
        for name, expected in (("step", 3), ("back", 2), ("last", 9), ("first", 0)):
            page.focus(f"[data-control={name}]")
            page.keyboard.press("Enter")
            assert page.evaluate("tapwise.state().output") == expected
        page.focus("[data-control=play]")
        page.keyboard.press("Enter")
        until(page, "tapwise.state().output >= 2")
        page.keyboard.press("Enter")
        page.focus("[data-control=pin]")
        page.keyboard.press("Enter")
        assert page.evaluate("tapwise.state().pinned") is True


def test_what_is_being_typed_stays(browser, tmp_path):
    with opened(browser, tmp_path) as page:
        page.click(".more summary")
        page.click("[data-control=play]")
        page.focus("[data-control=length]")
        page.keyboard.press("Control+A")
        page.keyboard.type("2")
        page.wait_for_timeout(1200)  # longer than a step of Play, which stops
        page.keyboard.type("5")
        page.keyboard.press("Tab")
        assert page.evaluate("tapwise.state().x[0].length") == 25
        page.focus("[data-control=kernel_size]")
        page.keyboard.press("Control+A")
        page.keyboard.type("99")
        page.keyboard.press("Tab")
        page.wait_for_timeout(300)
        assert page.get_attribute("[data-control=kernel_size]", "aria-invalid") == "true"
        page.dblclick('[data-key="x:0:1:1"]')
        page.keyboard.type("7")
        page.set_viewport_size({"width": 700, "height": 700})
        page.wait_for_timeout(300)
        assert page.evaluate("tapwise.state().x[0][1]") == 1
        page.keyboard.press("Escape")
