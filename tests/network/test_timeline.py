"""Timelines: integers held against brute force, from the definitions alone."""

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

import networks
import tapwise as tw
from tapwise.geometry import Geometry
from tapwise.network.reading import read
from tapwise.network.receptive_field import extents, receptive_field_of
from tapwise.network.timeline import Aligned, Ends, Windows, fit_ends


def windows_read(geometry, length):
    """By output, the positions its taps lie on, padding included, straight from the definition."""
    g = geometry
    if not g.transposed:
        taps = [k * g.dilation for k in range(g.kernel_size)]
        padded = g.left + length + g.right
        found, start = [], 0
        while start + taps[-1] < padded:
            found.append({start + t - g.left for t in taps})
            start += g.stride
        return found
    full = {}
    for j in range(length):
        for k in range(g.kernel_size):
            full.setdefault(j * g.stride + k * g.dilation, set()).add(j)
    last = (length - 1) * g.stride + (g.kernel_size - 1) * g.dilation + g.output_padding
    return [full.get(i, set()) for i in range(g.left, last + 1 - g.right)]


@st.composite
def geometries(draw):
    transposed = draw(st.booleans())
    taps, stride, dilation = (draw(st.integers(1, 9)), draw(st.integers(1, 6)), draw(st.integers(1, 4)))
    pads = (draw(st.integers(0, 9)), draw(st.integers(0, 9)))
    extra = draw(st.integers(0, 5)) if transposed else 0
    return Geometry(taps, stride, dilation, pads, transposed=transposed, output_padding=extra)


@given(geometries(), st.integers(1, 30))
@example(Geometry(1, 5, 1, (0, 3)), 7)
def test_windows_are_those_of_the_definition(geometry, length):
    timeline, found = Windows(geometry), windows_read(geometry, length)
    assert timeline.total(length) == len(found)
    for position in range(length):
        mask = np.zeros(length, bool)
        mask[position] = True
        want = [position in read for read in found]
        assert timeline.spread(mask).tolist() == want if found else True
    if found:
        reads = timeline.reads(np.arange(len(found)))
        for row, want in zip(reads, found, strict=True):
            inside = {int(p) for p in row if p != np.iinfo(np.int64).min and 0 <= p < length}
            assert inside == {p for p in want if 0 <= p < length}


@given(geometries(), st.integers(1, 20), st.integers(0, 20))
def test_what_is_determined_reads_nothing_to_come(geometry, seen, more):
    timeline = Windows(geometry)
    certain = seen + more
    fixed = timeline.determined(seen, certain)
    found = windows_read(geometry, certain)
    assert 0 <= fixed <= len(found)
    assert all(p < seen for read in found[:fixed] for p in read)
    needed = timeline.first_needed(fixed, seen)
    assert 0 <= needed <= seen
    later = windows_read(geometry, certain + 40)[fixed:]
    assert all(p >= needed for read in later for p in read if 0 <= p < seen)
    # And it is not held back: the next output reads what has not come, or would lie in the padding.
    if not geometry.transposed and fixed < len(found) and fixed:
        assert any(p >= seen for p in found[fixed])


@st.composite
def end_settings(draw):
    mode = draw(st.sampled_from(["zeros", "reflect", "replicate"]))
    left = draw(st.integers(-5 if mode == "zeros" else 0, 6))
    multiple = draw(st.integers(1, 5))
    low = draw(st.integers(-4 if mode == "zeros" else 0, 4))
    rest = draw(st.integers(0, multiple - 1))
    return Ends(left, tuple(low + (rest - n) % multiple for n in range(multiple)), mode)


@given(end_settings(), st.integers(12, 40))
def test_ends_pad_and_cut(ends, length):
    right = ends.added(length)
    source = list(range(length))
    if ends.padding_mode == "zeros":
        line = [None] * max(ends.left, 0) + source + [None] * max(right, 0)
        line = line[max(-ends.left, 0) : len(line) - max(-right, 0)]
    else:
        mode = {"reflect": "reflect", "replicate": "edge"}[ends.padding_mode]
        line = np.pad(source, (ends.left, right), mode=mode).tolist()
    assert ends.total(length) == len(line)
    for position in range(0, length, 3):
        mask = np.zeros(length, bool)
        mask[position] = True
        assert ends.spread(mask).tolist() == [p == position for p in line]
    assert all(ends.determined(n, n) <= ends.determined(n + 1, n + 1) for n in range(length))
    for seen in range(1, length):
        fixed = ends.determined(seen, seen)
        assert all(p is None or p < seen for p in line[: max(0, min(fixed, ends.left + seen))])


@given(st.integers(2, 40), st.integers(-20, 20), st.integers(0, 39), st.integers(1, 60))
def test_padding_up_to_a_multiple_is_found(multiple, low, rest, first):
    lengths = [first + n for n in (*range(6), multiple, 2 * multiple + 1, 3 * multiple - 1, 5 * multiple + 2)]
    amounts = [low + (rest - n) % multiple for n in lengths]
    table = fit_ends(lengths, amounts)
    assert table is not None
    for n in range(first + 200, first + 320):
        if len(table) == multiple:
            assert table[n % multiple] - (low + (rest - n) % multiple) in (0, multiple, -multiple)
    assert all(table[n % len(table)] == r for n, r in zip(lengths, amounts, strict=True))


def test_what_fits_neither_is_refused():
    assert fit_ends([10, 11, 12], [3, 5, 5]) is None
    assert fit_ends([10, 11, 12], [10, 9, 8]) is None  # up to a fixed length


def test_a_recurrence_spreads_into_all_that_follows():
    mask = np.array([False, True, False, False])
    assert Aligned(endless=True).spread(mask).tolist() == [False, True, True, True]
    assert Aligned().spread(mask).tolist() == mask.tolist()


def reads_by_gradient(model, length, output):
    """The inputs that an output of the real model depends on."""
    x = torch.randn(1, 1, length, dtype=torch.float64, requires_grad=True)
    y = model(x)
    y[..., output].sum().backward()
    return set(torch.nonzero(x.grad[0, 0]).flatten().tolist())


@pytest.mark.parametrize(
    "layers",
    [
        [tw.Conv1d(1, 2, 3, dilation=2, padding=2), torch.nn.Conv1d(2, 1, 4, stride=2)],
        [torch.nn.Conv1d(1, 2, 5, stride=3), torch.nn.ConvTranspose1d(2, 1, 7, stride=3, padding=2)],
        [torch.nn.ConvTranspose1d(1, 2, 4, stride=4), torch.nn.Conv1d(2, 1, 3, padding=1)],
        [torch.nn.ConvTranspose1d(1, 2, 5, stride=3), torch.nn.Conv1d(2, 1, 4, stride=2)],
        [torch.nn.Conv1d(1, 2, 3, dilation=4), torch.nn.Conv1d(2, 1, 3, dilation=2)],
    ],
)
def test_the_receptive_field_is_what_gradients_say(layers):
    model = torch.nn.Sequential(*layers).double()
    graph, _ = read(model, torch.zeros(1, 1, 60, dtype=torch.float64))
    reach = receptive_field_of(graph)
    outputs = graph.totals(60)[-1]
    middle = range(outputs // 2 - 6, outputs // 2 + 6)
    first, last, count, most = 0, -99, 0, 0
    for j in middle:
        now = int(j * reach.stride)
        read_ = sorted(p - now for p in reads_by_gradient(model, 60, j))
        first, last, count = min(first, read_[0]), max(last, read_[-1]), max(count, len(read_))
        most = max(most, read_[-1] - read_[0] + 1 - len(read_))
    assert (reach.first, reach.last, reach.count) == (first, last, count)
    assert reach.delay == max(last, 0)
    assert reach.holes <= most
    extent = extents(graph)[-1]
    assert (extent.earliest, extent.latest) == (first, last)


@pytest.mark.parametrize("name", ["unet", "wavenet", "conv_tasnet"])
def test_a_whole_networks_field_is_what_nan_says(name):
    model, x = networks.STREAMED[name]()
    report = tw.inspect(model, x)
    first, last = report.receptive_field
    reached = {}
    for position in range(120, 184):  # every phase of the strides
        signal = torch.zeros_like(torch.cat((x, x, x, x), -1))
        signal[..., position] = float("nan")
        y = model(signal)
        for j in torch.nonzero(y.isnan().flatten(0, -2).any(0)).flatten().tolist():
            reached.setdefault(j, []).append(position)
    seen = [(p - int(j * report.stride)) for j, read_ in reached.items() for p in read_]
    assert min(seen) >= first
    assert max(seen) <= last
    assert report.delay == max(last, 0)
    assert max(seen) == last or name == "unet"
