import json
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tapwise as tw
from strategies import convolutions, transposed

TUTORIAL = json.loads((Path(__file__).parents[1] / "data" / "tutorial.json").read_text())
SAMPLES = torch.tensor(TUTORIAL["input"], dtype=torch.float32)


def test_the_tutorials_loop_to_the_letter():
    expected = "\n".join([*TUTORIAL["trace"], TUTORIAL["final"]])
    for weight in ([1, 1, 1], torch.ones(3), np.ones((1, 1, 3))):
        for x in (range(10), SAMPLES, SAMPLES[None], SAMPLES[None, None], SAMPLES.numpy()):
            assert str(tw.trace(weight, x)) == expected
    layer = torch.nn.Conv1d(1, 1, 3, bias=False)
    torch.nn.init.ones_(layer.weight)
    assert str(tw.trace(layer, SAMPLES)) == expected


@pytest.mark.parametrize("case", TUTORIAL["cases"], ids=lambda case: case["name"])
def test_the_tutorials_cases(case):
    weight = torch.tensor(case["weight"], dtype=torch.float32)[:, None]
    settings = {name: case[name] for name in ("stride", "padding", "dilation")}
    trace = tw.trace(weight, SAMPLES, **settings)
    assert trace.output.tolist() == case["output"]
    assert [step.sum for step in trace.steps] == [y for row in case["output"] for y in row]


@given(st.one_of(convolutions(), transposed()), st.booleans())
def test_the_steps_add_up_to_the_layers_output(case, bias):
    geometry, length = case
    torch.manual_seed(length)
    channels = 2 * geometry.groups
    names = ["kernel_size", "stride", "dilation", "padding", "groups"]
    settings = {name: getattr(geometry, name) for name in names}
    if geometry.transposed:
        layer = tw.ConvTranspose1d(
            channels, channels, bias=bias, output_padding=geometry.output_padding, dtype=torch.float64, **settings
        )
    else:
        layer = tw.Conv1d(
            channels, channels, bias=bias, padding_mode=geometry.padding_mode, dtype=torch.float64, **settings
        )
    x = torch.randn(channels, length, dtype=torch.float64)
    trace = tw.trace(layer, x)
    with torch.no_grad():
        assert np.array_equal(trace.output, layer(x[None])[0].numpy())
    sums = np.array([step.sum for step in trace.steps]).reshape(trace.output.shape)
    np.testing.assert_allclose(sums, trace.output, atol=1e-12)
    for step in trace.steps[:6]:
        assert np.array_equal(step.products, step.values * step.taps)
        assert len(step.padded) == len(step.positions) == step.values.shape[1]
        assert step.padded == tuple(not 0 <= p < length for p in step.positions)
        if not geometry.transposed:
            assert step.positions == geometry.window(step.output)
    assert tw.explain(layer, x).text
    ElementTree.fromstring(tw.explain(layer, x).svg())


def test_steps_are_a_sequence():
    trace = tw.trace([[[1.0, 1.0]], [[2.0, 2.0]]], range(5))
    assert len(trace.steps) == 8
    assert (trace.steps[5].channel, trace.steps[5].output) == (1, 1)
    assert trace.steps[-1].sum == trace.output[-1, -1]
    assert [s.output for s in trace.steps[2:5]] == [2, 3, 0]
    with pytest.raises(IndexError, match="step 8 of 8"):
        trace.steps[8]


def test_padding_is_shown_as_padding():
    lines = str(tw.trace([1, 1, 1], range(1, 4), padding=(2, 1), padding_mode="replicate")).split("\n")
    assert lines[0] == "Step 0: sum([(1.) (1.) 1.]*[1. 1. 1.]) = 3.0"
    assert lines[3] == "Step 3: sum([2. 3. (3.)]*[1. 1. 1.]) = 8.0"
    assert "padding" in lines[-1]


def test_channels_groups_bias_and_dilation_in_words():
    torch.manual_seed(0)
    layer = torch.nn.Conv1d(4, 2, 2, dilation=2, groups=2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]]))
        layer.bias.copy_(torch.tensor([0.5, -1.0]))
    x = torch.arange(12.0).reshape(4, 3)
    assert str(tw.trace(layer, x)).split("\n") == [
        "Output channel 0 (group 0: input channels 0..1):",
        "Step 0: sum([0. 2.]*[1. 2.]) + sum([3. 5.]*[3. 4.]) + 0.5 = 33.5",
        "Output channel 1 (group 1: input channels 2..3):",
        "Step 0: sum([6. 8.]*[5. 6.]) + sum([ 9. 11.]*[7. 8.]) - 1.0 = 228.0",
        "Final : [[ 33.5]",
        "         [228. ]]",
    ]


def test_a_transposed_step_that_no_input_reaches():
    text = str(tw.trace([1.0], [1.0, 2.0], stride=2, transposed=True))
    assert "Step 1: 0 (no input reaches it) = 0.0" in text


def test_what_is_long_is_elided_in_the_middle_with_a_count():
    text = str(tw.trace(torch.ones(50, 30, 100), torch.ones(30, 5000)))
    assert len(text) < 20_000
    assert "... 46 more output channels ..." in text
    assert "... 4890 more steps ..." in text
    assert "... 27 more channels ..." in text
    assert "Step 4900: " in text


def test_the_explanation_says_lengths_with_the_numbers_put_in():
    text = tw.explain(tw.CausalConv1d(1, 1, 3, stride=2, dilation=2), SAMPLES).text
    assert "floor((10 + 4 + 0 - 5) / 2) + 1 = 5   (the last 1 not reached)" in text
    assert "output i reads the inputs i*2 - 4 + k*2 for k = 0..2" in text
    assert re.search(r"x +\(1, 10\)", text)
    assert re.search(r"weight +\(1, 1, 3\)", text)
    assert re.search(r"output +\(1, 5\)", text)
    assert "native: predicted" in text
    text = tw.explain(tw.ConvTranspose1d(1, 1, 3, 2, (1, 0), dtype=torch.float64), [1.0, 2.0]).text
    assert "(2 - 1)*2 + 3 - 1 - 0 + 0 = 4" in text


def test_the_plan_is_the_one_that_would_run():
    layer = tw.Conv1d.from_taps(np.ones(31) / 31)
    explanation = tw.explain(layer, np.zeros(100_000))
    assert explanation.plan.kernel == "direct"
    with tw.options(kernel="reference"):
        assert tw.explain([1, 1], range(5)).plan.kernel == "reference"
    assert tw.explain([1j, 1], torch.ones(5, dtype=torch.complex64)).plan.kernel == "native"


def test_dtypes_without_a_numpy_twin():
    layer = tw.Conv1d(1, 1, 3, dtype=torch.bfloat16)
    assert tw.trace(layer, SAMPLES.bfloat16()).output.dtype == np.float32
    assert "Step 0" in str(tw.trace([1j, 1], torch.ones(5, dtype=torch.complex64)))
    assert tw.trace(torch.tensor([1, 2]), torch.arange(4)).output.dtype == np.int64


def test_no_fraction_and_no_imaginary_part_is_cut_off():
    with pytest.raises(tw.ShapeError, match="should be the same"):
        tw.trace([0.25, 0.5, 0.25], torch.arange(6))
    assert tw.trace([1, 2], torch.arange(4)).output.dtype == np.int64
    with pytest.raises(tw.ShapeError, match="should be the same"):
        tw.trace([1.0, 1.0], np.array([1j, 2j]))
    with pytest.raises(tw.ShapeError, match="should be the same"):
        tw.trace(torch.ones(2), torch.ones(5), bias=[1j])
    trace = tw.trace([1j, 2], [1, 2j, 3], padding=1)
    assert trace.output.tolist() == [[2, 5j, 4.0, 3j]]
    assert str(trace).startswith("Step 0: sum([(0.+0.j) 1.+0.j]*[0.+1.j 2.+0.j]) = ")


def test_numbers_are_shown_as_they_are():
    text = str(tw.trace([1e-5, 2e-5], [1.0, 1.0]))
    assert text == "Step 0: sum([1. 1.]*[1.e-05 2.e-05]) = 3e-05\nFinal : [3.e-05]"
    assert "= 1234568.0\n" in str(tw.trace([1.0, 1.0], [1234567.0, 1.0, 0.0]))
    assert "= 123456789.0\n" in str(tw.trace([1.0], torch.tensor([123456789.0, 0], dtype=torch.float64)))
    assert "= 0.3\n" in str(tw.trace([1.0, 2.0], [0.1, 0.1, 0.0]))


def test_a_signal_with_gaps_is_traced():
    layer = torch.nn.Conv1d(1, 1, 2)
    for value in (float("nan"), float("inf")):
        trace = tw.trace(layer, torch.tensor([1.0, value, 3.0]))
        assert str(value) in str(trace)
        assert not np.isfinite(trace.output).any()
    assert "Step 0" in str(tw.trace(layer, torch.full((4,), float("nan"))))


class Padding(torch.nn.Conv1d):
    def forward(self, input):
        return super().forward(torch.nn.functional.pad(input, (2, 0)))


class Scaled(torch.nn.Conv1d):
    def forward(self, input):
        return 2 * super().forward(input)


@pytest.mark.parametrize("kind", [Padding, Scaled])
def test_a_layer_that_does_more_than_its_convolution_is_not_traced(kind):
    with pytest.raises(TypeError, match="does more than the convolution"):
        tw.trace(kind(1, 1, 3), SAMPLES)


@pytest.mark.parametrize(("output", "channel"), [(-1, 0), (8, 0), (0, 1), (0, -1)])
def test_a_step_that_there_isnt(output, channel):
    with pytest.raises(IndexError, match="of 8 outputs in 1 channels"):
        tw.trace([1, 1, 1], SAMPLES).step(output, channel)


def test_the_plan_sees_autocast():
    layer, x = tw.Conv1d.from_taps(np.ones(31)), torch.zeros(1, 100_000)
    plain = tw.explain(layer, x).plan.seconds
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert tw.explain(layer, x).plan.seconds > plain  # widening is work


def test_what_cant_be_traced_is_refused():
    with pytest.raises(tw.ShapeError, match="take one row of the batch"):
        tw.trace([1, 1], torch.zeros(2, 1, 5))
    with pytest.raises(TypeError, match="one-dimensional convolution"):
        tw.trace(torch.nn.Linear(3, 3), SAMPLES)
    with pytest.raises(TypeError, match="a layer has its own"):
        tw.trace(torch.nn.Conv1d(1, 1, 3), SAMPLES, stride=2)
    with pytest.raises(TypeError, match="got strides; with a weight, the settings are"):
        tw.trace([1, 1], SAMPLES, strides=2)


def texts(svg):
    root = ElementTree.fromstring(svg)
    return [e.text for e in root.iter("{http://www.w3.org/2000/svg}text")]


def boxes(svg, kind):
    root = ElementTree.fromstring(svg)
    return [e for e in root.iter("{http://www.w3.org/2000/svg}rect") if e.get("class") == kind]


def test_the_window_figure_shows_samples_taps_and_outputs():
    svg = tw.explain([1, 1, 1], SAMPLES).svg("window")
    assert (len(boxes(svg, "input")), len(boxes(svg, "tap")), len(boxes(svg, "product"))) == (10, 3, 3)
    assert (len(boxes(svg, "output")), len(boxes(svg, "output chosen"))) == (7, 1)
    shown = texts(svg)
    for value in ("3", "6", "9", "12", "15", "18", "21", "24"):
        assert value in shown


def test_the_shapes_figure_says_every_size():
    shown = texts(tw.explain(tw.Conv1d(4, 6, 3, groups=2), torch.zeros(4, 10)).svg("shapes"))
    for text in ("x (1, 4, 10)", "weight (6, 2, 3)", "output (1, 6, 8)", "2 in_channels/groups"):
        assert text in shown


def test_the_sources_figure_ties_each_output_to_its_own_and_earlier_samples():
    explanation = tw.explain(tw.CausalConv1d(1, 1, 3, dilation=2), SAMPLES)
    svg = explanation.svg("sources")
    assert len(boxes(svg, "pad")) == 4
    root = ElementTree.fromstring(svg)
    lines = [e for e in root.iter("{http://www.w3.org/2000/svg}line") if e.get("class") == "link"]
    assert len(lines) == 3 * 10
    assert all(float(e.get("x1")) <= float(e.get("x2")) for e in lines)
    assert any("causal: 4 positions of padding" in text for text in texts(svg))


def test_all_figures_stay_within_the_image_for_any_length():
    for x, layer in (
        (torch.randn(1, 5000) * 1e6, tw.Conv1d(1, 1, 300, padding="full", dilation=7)),
        (torch.randn(40, 100), tw.Conv1d(40, 40, 3, stride=9)),
        (torch.randn(2, 3), tw.ConvTranspose1d(2, 2, 9, stride=4, padding=3)),
    ):
        root = ElementTree.fromstring(tw.explain(layer, x).svg())
        width, height = (float(v) for v in root.get("viewBox").split()[2:])
        for element in root.iter("{http://www.w3.org/2000/svg}rect"):
            if element.get("x"):
                assert float(element.get("x")) >= 0
                assert float(element.get("x")) + float(element.get("width")) <= width
                assert float(element.get("y")) + float(element.get("height")) <= height


def test_save_and_show(tmp_path):
    explanation = tw.explain([1, 1, 1], SAMPLES)
    assert explanation.save(tmp_path / "a.svg").read_text() == explanation.svg()
    assert explanation.save(str(tmp_path / "a.txt")).read_text() == explanation.text + "\n"
    assert str(explanation) == explanation.text
    assert "<svg" in explanation._repr_html_()
    with pytest.raises(ValueError, match="ending in one of"):
        explanation.save(tmp_path / "a.bmp")
    with pytest.raises(ValueError, match="figure must be one of 'window', 'shapes', 'sources'"):
        explanation.svg("cone")
    explanation.save(tmp_path / "b.SVG")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        explanation.save(tmp_path / "absent" / "a.svg")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.svg", "a.txt", "b.SVG"]


def test_hostile_text_is_escaped():
    class Hostile(tw.Conv1d):
        def extra_repr(self):
            return "<script>alert('&')</script>"

    shown = tw.explain(Hostile(1, 1, 3), SAMPLES)._repr_html_()
    assert "<script>" not in shown
