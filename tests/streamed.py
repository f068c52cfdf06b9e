"""Helpers: a signal cut in chunks, and a stream held against one run of its model."""

import torch

import tapwise as tw


def chunks_of(dice, length):
    """A random way to cut a signal: lengths, 0 and 1 among them."""
    sizes = []
    while sum(sizes) < length:
        size = dice.choice([0, 1, 1, 2, 3, dice.randrange(1, 9), dice.randrange(1, length + 1)])
        sizes.append(min(size, length - sum(sizes)))
    return sizes or [0]


def streamed(live, x, sizes, time=-1):
    parts = [live.step(chunk) for chunk in x.split(sizes, time)]
    return [*parts, live.flush()]


def assert_streams(model, x, dice, live=None, bound=1e-12):
    """The stream's outputs together are the model's, and come when its timeline says."""
    live = tw.stream(model, x) if live is None else live
    whole = model(x)
    sizes = chunks_of(dice, x.shape[-1])
    seen, came = 0, 0
    graph = live._graph
    result = graph.results[0]
    parts = []
    for chunk in x.split(sizes, -1):
        parts.append(live.step(chunk))
        seen, came = seen + chunk.shape[-1], came + parts[-1].shape[-1]
        assert came == graph.counts(seen)[result][0]
    parts.append(live.flush())
    y = torch.cat(parts, -1)
    assert y.shape == whole.shape, (y.shape, whole.shape)
    scale = 1 + whole.abs().max().item() if whole.numel() else 1
    assert (y - whole).abs().max() <= bound * scale if whole.numel() else True
    return live
