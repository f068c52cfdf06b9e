import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracle
import tapwise as tw
from strategies import convolutions, transposed
from tapwise import partition


def run(geometry, x, w):
    """The oracle over a signal (L,) with one filter."""
    if geometry.transposed:
        y = oracle.conv_transpose1d(
            x[None, None],
            w[None, None],
            None,
            geometry.stride,
            (geometry.left, 0),
            geometry.output_padding,
            geometry.dilation,
        )[0, 0]
        return y[: len(y) - geometry.right]
    return oracle.conv1d(
        x[None, None],
        w[None, None],
        None,
        geometry.stride,
        geometry.padding,
        geometry.dilation,
        1,
        geometry.padding_mode,
    )[0, 0]


@given(st.one_of(convolutions(), transposed()), st.data())
def test_a_part_is_the_same_outputs_from_its_own_inputs(case, data):
    geometry, length = case
    random = np.random.default_rng(length)
    x, w = random.integers(-9, 9, length), random.integers(-9, 9, geometry.kernel_size)
    whole = run(geometry, x, w)
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    part = partition.part(geometry, start, stop, length)
    assert part.outputs == (start, stop)
    if start == stop:
        return
    own = x[part.inputs[0] : part.inputs[1]]
    local = np.concatenate([x[list(part.left)], own, x[list(part.right)]])
    assert run(part.geometry, local, w).tolist() == whole[start:stop].tolist()


@given(convolutions(modes=("zeros",)), st.data())
def test_a_part_asks_for_no_input_that_it_doesnt_read(case, data):
    geometry, length = case
    outputs = geometry.output_length(length)
    start = data.draw(st.integers(0, outputs - 1))
    stop = data.draw(st.integers(start + 1, outputs))
    read = [j for i in range(start, stop) for j, _ in geometry.reads(i, length)]
    part = partition.part(geometry, start, stop, length)
    # Inputs between two taps, or between two windows, are asked for though nobody reads them.
    gaps = geometry.dilation > 1 or geometry.stride > geometry.effective_kernel_size
    if read:
        assert part.inputs == (min(read), max(read) + 1) or gaps
        assert part.inputs[0] <= min(read) <= max(read) < part.inputs[1]
    span = (stop - start - 1) * geometry.stride + geometry.effective_kernel_size
    assert part.inputs[1] - part.inputs[0] <= span


@given(transposed(), st.data())
def test_a_transposed_part_asks_for_few_inputs(case, data):
    geometry, length = case
    outputs = geometry.output_length(length)
    start = data.draw(st.integers(0, outputs - 1))
    stop = data.draw(st.integers(start + 1, outputs))
    part = partition.part(geometry, start, stop, length)
    most = (stop - start + geometry.effective_kernel_size) // geometry.stride + 2
    assert 1 <= part.inputs[1] - part.inputs[0] <= most


@given(st.one_of(convolutions(modes=("zeros", "reflect", "replicate")), transposed()))
def test_determined_outputs_are_those_that_no_continuation_changes(case):
    geometry, length = case
    random = np.random.default_rng(length)
    w = np.ones(geometry.kernel_size, int)
    x = random.integers(1, 1000, length)
    more = 40 + geometry.effective_kernel_size + sum(geometry.padding)
    runs = [run(geometry, x, w)]
    runs += [run(geometry, np.append(x, random.integers(1, 10**6, n)), w) for n in (1, 2, more)]
    same = 0
    while all(same < len(y) and y[same] == runs[0][same] for y in runs):
        same += 1
    count = partition.determined(geometry, length)
    assert count <= same
    if geometry.padding_mode != "reflect":
        assert count == same


@given(st.one_of(convolutions(modes=("zeros", "reflect", "replicate")), transposed()), st.integers(0, 30))
def test_what_is_first_needed_suffices_for_every_end(case, later):
    geometry, seen = case
    emitted = partition.determined(geometry, seen)
    first = partition.first_needed(geometry, emitted, seen)
    assert 0 <= first <= seen
    length = seen + later
    outputs = geometry.output_length(length)
    part = partition.part(geometry, min(emitted, outputs), outputs, length)
    needed = [*part.left, *part.right]
    if part.inputs[0] < part.inputs[1]:
        needed.append(part.inputs[0])
    assert all(j >= first for j in needed)


def test_reflection_waits_for_the_sample_that_it_mirrors_first():
    geometry = tw.Geometry(3, padding=(4, 0), padding_mode="reflect")
    assert partition.determined(geometry, 4) == 0
    assert partition.determined(geometry, 5) == 7


def test_outputs_that_dont_exist_are_refused():
    with pytest.raises(ValueError, match=r"outputs \[0, 9\) are not within \[0, 8\)"):
        partition.part(tw.Geometry(3), 0, 9, 10)
