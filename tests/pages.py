"""The page in a browser, for the tests that look at it: it fails on any error, and on any request but for itself."""

import math
import shutil
from contextlib import contextmanager

import pytest
import torch

import tapwise as tw
from tapwise.explanation.page import document

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium here: the page's tests need one (Debian: chromium)"
)


@contextmanager
def opened(browser, path, state=None, text=None, **options):
    """A page of that state in a context of its own, which fails on any error or request."""
    target = path / "page.html"
    target.write_text(text or document(state or {}), encoding="utf-8")
    context = browser.new_context(**options)
    troubles, requests = [], []
    try:
        page = context.new_page()
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda m: troubles.append(m.text) if m.type == "error" else None)
        page.on("request", lambda request: requests.append(request.url))
        page.goto(target.as_uri())
        yield page
        assert not troubles
        # The document itself, and what it made itself of its own numbers.
        outside = [url for url in requests if not url.startswith(("file:", "blob:", "data:"))]
        assert not outside
        assert sum(url.startswith("file:") for url in requests) == 1
    finally:
        context.close()


def until(page, expression):
    """Wait for an expression to hold; the page's policy allows no evaluation of its own."""
    for _ in range(100):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(expression)


def spelled(tensor):
    """Nested lists, with words for what JSON can't hold."""
    if tensor.ndim:
        return [spelled(row) for row in tensor]
    value = tensor.item()
    return value if math.isfinite(value) else str(value)


def drawn_configuration(rnd):
    """A state with settings drawn anew, and what torch makes of it in float64; None if torch can't."""
    transposed = rnd.random() < 0.25
    groups, taps = rnd.choice([1, 1, 2, 3]), rnd.randint(1, 6)
    fan_in, fan_out = rnd.randint(1, 3), rnd.randint(1, 3)
    stride, dilation = rnd.randint(1, 4), rnd.randint(1, 3)
    words = ["causal"] if transposed else ["valid", "same", "causal", "semicausal", "full"]
    pair = [rnd.randint(0, 5), rnd.randint(0, 5)]
    padding = rnd.choice([*words, pair, pair])
    mode = "zeros" if transposed else rnd.choice(["zeros", "reflect", "replicate", "circular"])
    extra = rnd.randint(0, max(stride, dilation) - 1) if transposed and padding != "causal" else 0
    length = rnd.randint(1, 14)
    values = torch.Generator().manual_seed(rnd.randrange(1 << 30))

    def numbers(*shape):
        return torch.randn(shape, generator=values, dtype=torch.float64)

    x = numbers(fan_in * groups, length)
    outer = fan_in * groups if transposed else fan_out * groups
    w = numbers(outer, fan_out if transposed else fan_in, taps)
    b = numbers(fan_out * groups) if rnd.random() < 0.5 else None
    for odd in (x, w):
        if rnd.random() < 0.1:  # NaN and infinity reach what they reach in torch
            odd.view(-1)[rnd.randrange(odd.numel())] = rnd.choice([math.nan, math.inf, -math.inf])
    plain = padding if isinstance(padding, str) else tuple(padding)
    settings = {"stride": stride, "dilation": dilation, "groups": groups, "padding": plain}
    try:
        if transposed:
            y = tw.conv_transpose1d(x, w, b, output_padding=extra, **settings)
        else:
            y = tw.conv1d(x, w, b, padding_mode=mode, **settings)
    except tw.ShapeError:
        return None
    state = {
        "x": spelled(x),
        "weight": spelled(w),
        "bias": None if b is None else b.tolist(),
        "stride": stride,
        "dilation": dilation,
        "groups": groups,
        "padding": padding,
        "padding_mode": mode,
        "transposed": transposed,
        "output_padding": extra,
    }
    return (state, y.numpy()) if y.numel() else None
