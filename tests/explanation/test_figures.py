"""Figures, stacks, responses, models, candidates, widgets and drawn errors: what explains, read only."""

import copy
import pickle
import re
import xml.etree.ElementTree as ElementTree

import nbclient
import nbconvert
import nbformat
import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import tapwise as tw
from tapwise.explanation.response import response_of
from tapwise.explanation.svg import FIGURES

SVG = "{http://www.w3.org/2000/svg}"


def structure(svg):
    """How many shapes of each kind an image has, and its texts: what golden files guard."""
    root = ElementTree.fromstring(svg)
    found = {}
    for node in root.iter():
        if node.tag in (f"{SVG}rect", f"{SVG}line", f"{SVG}path"):
            name = f"{node.tag.removeprefix(SVG)} {node.get('class', '')}".strip()
            found[name] = found.get(name, 0) + 1
    texts = [node.text for node in root.iter(f"{SVG}text")]
    return found, texts


GOLDEN = {
    "window": {"rect input": 10, "rect output": 7, "rect output chosen": 1, "rect tap": 3, "rect product": 3},
    "shapes": {"rect input": 1, "rect output": 1, "rect tap": 1},
    "sources": {"rect input": 10, "rect output": 8, "line link": 24},
    "channels": {"rect tap": 1},
    "kernel": {"rect tap": 3},
    "response": {"rect tap": 1, "rect leak": 2, "path curve": 2},
}


@pytest.mark.parametrize("figure", FIGURES)
def test_the_structure_of_the_tutorials_figures(figure):
    found, _ = structure(tw.explain([1.0, 1.0, 1.0], torch.arange(10.0)).svg(figure))
    assert {name: found.get(name) for name in GOLDEN[figure]} == GOLDEN[figure]


@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.booleans(), st.integers(1, 200))
def test_every_figure_is_well_formed(taps, stride, dilation, groups, transposed, length):
    kind = tw.ConvTranspose1d if transposed else tw.Conv1d
    layer = (
        kind(2 * groups, groups, taps, stride, 2 * taps * dilation, dilation=1, groups=groups)
        if transposed and length * stride > 6 * taps
        else tw.CausalConv1d(2 * groups, groups, taps, stride=stride, dilation=dilation, groups=groups)
    )
    explanation = tw.explain(layer, torch.randn(2 * groups, length + 4 * taps))
    for figure in FIGURES:
        ElementTree.fromstring(explanation.svg(figure))


def test_hostile_titles_stay_text():
    class Named(nn.Conv1d):
        def __repr__(self):
            return "<script>alert(1)</script>]]>&"

    explanation = tw.explain(Named(1, 1, 3), torch.arange(5.0))
    assert "<script>alert" not in explanation.page()
    assert "<script>alert" not in explanation._repr_html_()
    model = nn.Sequential()
    model.add_module("<b>x", nn.Conv1d(1, 1, 3))
    assert "<b>x" not in tw.explain(model, torch.zeros(1, 1, 9))._repr_html_()


@given(
    st.lists(st.floats(-2, 2).filter(lambda t: abs(t) > 1e-3), min_size=1, max_size=12),
    st.integers(1, 3),
    st.integers(0, 9),
)
def test_the_response_is_scipys(taps, dilation, left):
    taps = np.array(taps)
    answer = response_of(taps, tw.Geometry(len(taps), dilation=dilation, padding=(left, 0)))
    spread = np.zeros(dilation * (len(taps) - 1) + 1)
    spread[::dilation] = taps
    # A tap k reads the sample of left - k*dilation ago: turned, and moved, it is a causal filter.
    causal = spread[::-1]
    early = len(spread) - 1 - left
    _, transfer = scipy.signal.freqz(causal, worN=2 * np.pi * answer.frequency)
    np.testing.assert_allclose(answer.magnitude, abs(transfer), atol=1e-9)
    loud = answer.magnitude > 0.1 * answer.magnitude.max()
    _, late = scipy.signal.group_delay((causal, 1), w=2 * np.pi * answer.frequency[loud])
    np.testing.assert_allclose(answer.delay[loud], late - early, atol=1e-5)


layers = st.builds(
    lambda k, s, d, p: tw.Geometry(k, s, d, p),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from(["causal", "same", (1, 0)]),
)


@given(st.lists(layers, min_size=1, max_size=4))
def test_a_stack_reads_what_gradients_reach(geometries):
    stack = tw.Stack(geometries)
    x = torch.ones(1, 1, 4 * (stack.last - stack.first + 1) + 8 * stack.stride, requires_grad=True)
    y = x
    for g in geometries:
        padding = (g.left, g.right)
        y = tw.conv1d(y, torch.ones(1, 1, g.kernel_size), None, g.stride, padding, g.dilation)
    output = -(stack.first // stack.stride)
    if not 0 <= output < y.shape[-1]:
        return
    y[0, 0, output].backward()
    read = x.grad[0, 0].nonzero().flatten().tolist()
    expected = [p for p in stack.reads(output)[-1] if 0 <= p < x.shape[-1]]
    assert read == expected
    assert stack.count == len(expected)
    assert stack.holes == stack.last - stack.first + 1 - stack.count
    assert stack.first == expected[0] - output * stack.stride
    ElementTree.fromstring(stack.svg())


def test_a_stack_marks_the_future_and_the_holes():
    causal = tw.Stack([tw.Geometry(2, dilation=3, padding="causal")])
    found, texts = structure(causal.svg())
    assert "rect leak" not in found
    assert found["rect hole"] == 5  # two between the taps; three beside the output
    assert any("causal" in text for text in texts)
    found, texts = structure(tw.Stack([tw.Geometry(5, padding="same")]).svg())
    assert found["rect leak"] == 2
    assert any("sees 2 ahead" in text for text in texts)
    with pytest.raises(tw.ShapeError):
        tw.Stack([])


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(2, 4, 3, padding=1)
        self.twice = nn.Conv1d(4, 4, 5, padding=2, groups=2)
        self.up = nn.ConvTranspose1d(4, 1, 4, 2)
        self.never = nn.Conv1d(1, 1, 1)

    def forward(self, x):
        return self.up(self.twice(self.twice(self.first(x).relu())))


def test_a_models_convolutions_as_a_table():
    model, x = Branches(), torch.randn(3, 2, 40)
    seen = tw.explain(model, x)
    assert [(layer.path, layer.calls) for layer in seen] == [("first", 1), ("twice", 2), ("up", 1)]
    assert seen.unseen == ("never",)
    assert seen.layers[2].output == (3, 1, 82)
    assert all(layer.seconds > 0 for layer in seen)
    inner = seen["twice"]
    torch.testing.assert_close(torch.from_numpy(inner.trace.input), model.first(x).relu()[0].detach())
    text = str(seen)
    assert re.search(r"^twice +kernel_size=5, padding=\(2, 2\), groups=2 +3x4x40 +3x4x40 ", text, re.M)
    places = re.findall(r'href="#(tw-\d+-\d)"', seen._repr_html_())
    assert len(places) == 3
    assert all(f'<div id="{place}">' in seen._repr_html_() for place in places)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert seen[1].trace.output.shape == (4, 40)
    with pytest.raises(KeyError, match="never"):
        seen["never"]
    with pytest.raises(TypeError, match="convolution"):
        tw.explain(nn.Sequential(nn.Linear(2, 2)), x)
    with pytest.raises(TypeError, match="settings"):
        tw.explain(model, x, stride=2)


def test_candidates_are_timed_and_the_chosen_one_is_among_them():
    explanation = tw.explain(tw.Conv1d(1, 1, 31), torch.randn(1, 50_000))
    found = explanation.candidates
    assert [row.kernel for row in found if row.chosen] == [explanation.plan.kernel]
    measured = {row.kernel: row.measured for row in found}
    assert measured["native"] > 0
    assert measured["reference"] is None
    assert "measured" in explanation.why()


def test_the_state_of_a_long_signal_and_of_many_channels_says_what_it_left_out():
    state = tw.explain([1.0, 2.0], torch.zeros(300_000)).state
    assert len(state["x"][0]) == 200_000
    assert "first 200000 of 300000 samples" in state["about"]
    state = tw.explain(nn.Conv1d(512, 512, 3), torch.zeros(512, 20)).state
    assert "output channels" in state["about"]
    assert np.array(state["weight"]).size <= 300_000
    state = tw.explain(nn.Conv1d(1024, 1024, 400, groups=512), torch.zeros(1024, 400)).state
    assert len(state["x"]) == 2 * state["groups"] < 1024
    assert len(state["bias"]) == len(state["weight"])


def test_a_notebook_gets_the_widget_and_a_frame_or_the_figures(monkeypatch):
    explanation = tw.explain([1.0, 1.0], torch.arange(6.0))
    assert explanation._repr_mimebundle_()["text/html"].startswith("<iframe")
    widget = explanation.widget()
    assert "application/vnd.jupyter.widget-view+json" in widget._repr_mimebundle_()[0]
    assert widget.state["x"] == [[0, 1, 2, 3, 4, 5]]
    monkeypatch.setattr("tapwise.explanation.explain.has_widgets", lambda: False)
    data = explanation._repr_mimebundle_()
    assert "<svg" in data["text/html"]
    assert "iframe" not in data["text/html"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_notebook_exported_to_html_still_shows_the_page(tmp_path):
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [
        nbformat.v4.new_code_cell("import tapwise as tw\ntw.explain([1., 2.], [1., 2., 3.])"),
        nbformat.v4.new_code_cell("import torch\ntw.conv1d(torch.zeros(1, 3, 9), torch.zeros(1, 5, 3))"),
    ]
    client = nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3", allow_errors=True)
    client.execute()
    outputs = notebook.cells[1].outputs
    assert any("image/svg+xml" in output.get("data", {}) for output in outputs)
    assert any(output.output_type == "error" for output in outputs)
    exported, _ = nbconvert.HTMLExporter().from_notebook_node(notebook)
    assert "srcdoc=" in exported


def test_a_shape_error_is_drawn():
    with pytest.raises(tw.ShapeError) as caught:
        tw.conv1d(torch.zeros(1, 3, 10), torch.zeros(4, 5, 3))
    error = caught.value
    assert str(error).splitlines()[-2:] == [
        "  channels of x: 3               ■■■□□",
        "  channels that weight reads: 5  ■■■■■",
    ]
    found, _ = structure(error._repr_svg_())
    assert (found["rect have"], found["rect miss"]) == (8, 2)
    again = pickle.loads(pickle.dumps(error))
    assert again.drawing == error.drawing
    with pytest.raises(tw.ShapeError, match="padded input: 4"):
        nn.Sequential(tw.Conv1d(3, 1, 7))(torch.zeros(1, 3, 4))


class Padded(nn.Conv1d):
    def forward(self, x):
        return super().forward(nn.functional.pad(x, (2, 0)))


def test_looking_at_a_model_leaves_it_as_it_was(tmp_path):
    model = nn.Sequential(nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4), nn.Dropout(0.5), Padded(4, 2, 3))
    model[1].eval()
    calls, before = [], copy.deepcopy(model.state_dict())
    model[0].register_forward_hook(lambda *_: calls.append(1))
    x = torch.randn(2, 1, 50)
    state = torch.random.get_rng_state()
    seen = tw.explain(model, x)
    assert torch.equal(state, torch.random.get_rng_state())
    assert [m.training for m in model] == [True, False, True, True]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert calls == [1]
    # A layer that does more than its settings say is told of in its place; the rest is there.
    page = seen.save(tmp_path / "model.html").read_text()
    assert "does more than the convolution" in page
    assert "tapwise-state" in page


def test_a_model_that_changes_what_it_gave_its_layer():
    class Reuses(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv1d(1, 1, 1)

        def forward(self, x):
            h = x * 1
            y = self.layer(input=h)
            h.zero_()
            return y

    assert tw.explain(Reuses(), torch.ones(1, 1, 5))["layer"].trace.input.sum() == 5


def test_a_stack_of_layers_and_its_words(tmp_path):
    stack = tw.Stack([nn.Conv1d(1, 1, 3, dilation=2), tw.CausalConv1d(1, 1, 2)])
    assert str(stack) == "reads 6 of 6 samples; sees 4 ahead"
    assert stack.save(tmp_path / "stack.svg").read_text() == stack.svg()
    with pytest.raises(TypeError, match="ReLU"):
        tw.Stack([nn.ReLU()])


def test_the_largest_drawing_of_an_error_still_shows_what_is_missing():
    with pytest.raises(tw.ShapeError) as caught:
        tw.Conv1d(64, 8, 3)(torch.zeros(1, 32, 100))
    found, _ = structure(caught.value._repr_svg_())
    assert found["rect miss"] == 12


def test_arguments_in_the_wrong_order_and_signals_that_dont_fit():
    with pytest.raises(TypeError, match="the layer comes first"):
        tw.explain(torch.arange(5.0), nn.Conv1d(1, 1, 3))
    with pytest.raises(tw.ShapeError, match="channels"):
        tw.explain(nn.Conv1d(1, 1, 3), torch.zeros(2, 10))
    with pytest.raises(TypeError, match="holds no one-dimensional convolution"):
        tw.explain(nn.Sequential(nn.Linear(3, 3)), torch.zeros(2, 3))
    assert tw.explain(tw.CausalConv1d(1, 1, 3), torch.zeros(1, 0)).trace.output.shape == (1, 0)
