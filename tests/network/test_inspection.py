"""Models read, inspected and refused: what is said of them is what they do."""

import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import networks
import tapwise as tw
from networks import Of
from tapwise.network import rules

X = torch.zeros(1, 2, 64)


def test_the_report_of_the_tutorials_layer():
    report = tw.inspect(tw.CausalConv1d(1, 1, 3), torch.zeros(1, 1, 10))
    assert report.causal
    assert report.receptive_field == (-2, 0)
    assert (report.count, report.holes, report.stride, report.delay) == (3, 0, 1, 0)
    assert (report.start_up, report.minimum_input) == (1, 1)
    assert report.output_length(10) == 10
    assert report.multiplications == 3
    assert report.leaks == ()


def test_holes_strides_and_leaks_are_told():
    model = nn.Sequential(nn.Conv1d(2, 4, 3, dilation=4), nn.ReLU(), nn.Conv1d(4, 4, 3, stride=2, padding=1))
    report = tw.inspect(model, X)
    assert report.receptive_field == (-1, 9)
    assert report.count == 9
    assert report.holes == 2
    assert [(leak.where, leak.samples) for leak in report.leaks] == [("conv1d in 0", 8), ("conv1d in 2", 9)]
    assert not report.causal
    assert report.delay == 9
    text = str(report)
    assert "no: it reads 9 samples ahead" in text
    assert re.search(r"^2 +kernel_size=3, stride=2, padding=\(1, 1\).* 2 +-1 to \+9$", text, re.MULTILINE)


def test_a_report_shows_itself(tmp_path):
    report = tw.inspect(networks.tcn()[0].float(), torch.zeros(1, 3, 80))
    assert report.svg().startswith("<svg")
    assert "<table>" in report._repr_html_()
    for ending in (".txt", ".svg", ".html"):
        assert report.save(tmp_path / f"report{ending}").read_text()
    with pytest.raises(ValueError, match="ending in"):
        report.save(tmp_path / "report.bmp")
    assert report["0.net.0"].trace.output.shape[0] == 8


def test_looking_leaves_no_trace():
    model, x = networks.conv_tasnet()
    model.train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.get_rng_state()
    tw.inspect(model, x)
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_wrong_timeline_is_caught_by_name():
    class Shifted(nn.Module):
        def forward(self, x):
            return F.pad(x, (2, 0))[..., :-2]

    tw.register(Shifted, tw.Geometry(1))
    try:
        with pytest.raises(tw.TimelineError, match="Shifted in 1: a NaN at sample 0 doesn't reach"):
            tw.inspect(nn.Sequential(nn.Conv1d(2, 2, 1), Shifted()), X)
    finally:
        rules.unregister(Shifted)


def test_a_wrong_length_is_caught_by_name():
    class Shorter(nn.Module):
        def forward(self, x):
            return x[..., 1:]

    tw.register(Shorter, tw.Geometry(1))
    try:
        with pytest.raises(tw.TimelineError, match=r"Shorter in 1: gave \d+ samples where its timeline"):
            tw.inspect(nn.Sequential(nn.Conv1d(2, 2, 1, padding=1), Shorter()), X)
    finally:
        rules.unregister(Shorter)


def test_a_rule_of_ours_that_lies_is_caught(monkeypatch):
    from tapwise.network.timeline import Aligned

    monkeypatch.setitem(rules.SHAPES, "flip", lambda bundle: bundle.add(Aligned(), bundle.apply()))
    model = nn.Sequential(nn.ReLU(), Of(lambda self, x: torch.flip(x, (-1,))))
    with pytest.raises(tw.TimelineError, match="flip in 1"):
        tw.inspect(model, X)


REFUSED = {
    "group_norm": (nn.GroupNorm(1, 2), "group_norm in the model itself: takes its mean"),
    "instance_norm": (nn.InstanceNorm1d(2), "instance_norm.*takes its mean"),
    "circular": (nn.Conv1d(2, 2, 3, padding=1, padding_mode="circular"), "pad.*circularly"),
    "circular of ours": (tw.Conv1d(2, 2, 3, padding=1, padding_mode="circular"), "conv1d.*circularly"),
    "softmax": (nn.Softmax(-1), "softmax.*all of time"),
    "mean": (Of(lambda self, x: x - x.mean(-1, keepdim=True)), "mean.*all of time"),
    "global mean": (Of(lambda self, x: x.mean()), "mean.*all of time"),
    "pooled": (nn.AdaptiveAvgPool1d(4), "depend on the full length"),
    "two-way": (
        Of(lambda self, x: self.lstm(x.mT)[0], lstm=nn.LSTM(2, 2, batch_first=True, bidirectional=True)),
        "runs from the end",
    ),
    "last state": (
        Of(lambda self, x: x + self.lstm(x.mT)[1][0].permute(1, 2, 0), lstm=nn.LSTM(2, 2, batch_first=True)),
        "end of the signal",
    ),
    "attention": (nn.TransformerEncoderLayer(64, 2, 8), "over time|all of time|of its output"),
    "flip": (Of(lambda self, x: x.flip(-1)), "flip.*all of time"),
    "numbers": (Of(lambda self, x: x if x.sum() > 0 else -x), "all of time|signal's numbers"),
    "item": (Of(lambda self, x: x * x[0, 0, 0].item()), "signal's numbers|single moments"),
    "moment": (Of(lambda self, x: x - x[..., :1]), "cut|pads or cuts|differ in length"),
    "positions": (Of(lambda self, x: x + torch.arange(x.shape[-1]).sin()), "grows with the signal"),
    "length": (Of(lambda self, x: x / x.shape[-1]), "depends on the length"),
    "loop": (Of(lambda self, x: [x := torch.tanh(x) for _ in range(x.shape[-1] // 4)][-1]), "other operations"),
    "random": (Of(lambda self, x: F.dropout(x, 0.5, True)), "is random"),
    "noise": (Of(lambda self, x: x + torch.randn_like(x)), "is random"),
    "linear over time": (Of(lambda self, x: F.linear(x, torch.ones(1, x.shape[-1]))), "mixes all of time"),
    "written": (Of(lambda self, x: x.clone().index_put_((torch.tensor(0),), torch.tensor(1.0))), "isn't known"),
    "set": (Of(lambda self, x: [x := x.clone(), x.__setitem__((0, 0, 0), 1.0)][0]), "part of a tensor"),
    "overwritten": (Of(lambda self, x: [y := x * 2, z := y[:, :1], y.add_(1), z][-1] + 0), "wrote over"),
    "aligned corners": (nn.Upsample(scale_factor=2, mode="linear", align_corners=True), "interpolates"),
    "taps of the signal": (Of(lambda self, x: F.conv1d(x, x[:, :, :3])), "taps are computed|all of its output|getitem"),
    "unknown": (Of(lambda self, x: torch.special.i0e(x)), "isn't known"),
    "backwards": (Of(lambda self, x: torch.cat((x, x), -1)), "one after the other"),
    "middle": (Of(lambda self, x: F.pad(x, ((x.shape[-1] % 4) // 2, 0))), "moves the beginning"),
    "fixed": (Of(lambda self, x: F.pad(x, (0, 99999 - x.shape[-1]))), "neither the same|no axis"),
    "ceil": (nn.AvgPool1d(3, ceil_mode=True), "ceil_mode"),
    "nothing": (Of(lambda self, x: torch.zeros(1, 1, x.shape[-1])), "nothing that the model returns"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_followed_is_refused(name):
    model, words = REFUSED[name]
    with pytest.raises((tw.TimelineError, ValueError), match=f"(?s){words}") as error:
        tw.inspect(model, X)
    if isinstance(error.value, tw.TimelineError):
        assert error.value.remedy in str(error.value)


def test_what_mixes_time_is_refused_by_path():
    with pytest.raises(tw.TimelineError, match=r"group_norm in conv_layers\.0\.layer_norm"):
        tw.stream(*networks.wav2vec2_features())
    with pytest.raises(tw.TimelineError, match=r"group_norm in layers.0.norm"):
        tw.inspect(*networks.encodec_48khz_encoder())


def test_examples_that_do_not_fit():
    with pytest.raises(ValueError, match="doesn't run on an example"):
        tw.inspect(nn.Conv1d(3, 1, 3), X)
    with pytest.raises(TypeError, match="must be a tensor"):
        tw.inspect(nn.Conv1d(3, 1, 3), None)
    with pytest.raises(TypeError, match=r"nn\.Module"):
        tw.inspect(torch.relu, X)


def test_models_without_a_convolution_layer_have_no_table():
    report = tw.inspect(nn.Tanh(), X)
    assert report.table is None
    assert report.receptive_field == (0, 0)


def test_an_operation_can_be_taught():
    class Echo(nn.Module):
        """What came three samples ago, added: written so that nothing can read it."""

        def forward(self, x):
            return torch.special.i0e(x) * 0 + x + F.pad(x, (3, 0))[..., :-3]

    def step(module, inputs, state, end):
        (x,) = inputs
        held = x.new_zeros(*x.shape[:-1], 3) if state is None else state["held"]
        both = torch.cat((held, x), -1)
        return x + both[..., : x.shape[-1]], {"held": both[..., x.shape[-1] :]}

    model = nn.Sequential(nn.Conv1d(2, 2, 3), Echo()).double()
    x = torch.randn(1, 2, 50, dtype=torch.float64)
    with pytest.raises(tw.TimelineError, match="i0e in 1"):
        tw.stream(model, x)
    tw.register(Echo, tw.Geometry(2, dilation=3, padding=(3, 0)), step)
    try:
        assert tw.inspect(model, x).receptive_field == (-3, 2)
        assert tw.verify_stream(model, x) < 1e-12
        live = tw.stream(model, x)
        live.step(x[..., :20])
        other = tw.stream(model, x)
        other.load_state(live.state)
        assert torch.equal(live.step(x[..., 20:30]), other.step(x[..., 20:30]))
    finally:
        rules.unregister(Echo)
    with pytest.raises(TypeError, match="needs its step"):
        tw.register(Echo, tw.Geometry(3))
    with pytest.raises(TypeError, match="type of module"):
        tw.register("Echo", tw.Geometry(1))


@pytest.mark.slow
@pytest.mark.parametrize("name", networks.STREAMED)
def test_reports_agree_with_the_models(name):
    model, x = networks.STREAMED[name]()
    report = tw.inspect(model, x)  # raises where a NaN goes elsewhere
    graph = report.graph
    time = graph.nodes[0].size.time
    y = model(x)
    y = y if isinstance(y, torch.Tensor) else y[0]
    assert report.output_length(x.shape[time]) == y.shape[graph.nodes[graph.results[0]].size.time]
    assert report.delay >= 0
    assert report.causal == (report.delay == 0)


def test_a_rate_says_milliseconds():
    model = torch.nn.Sequential(torch.nn.Conv1d(1, 4, 5, padding=2), torch.nn.Conv1d(4, 1, 4, stride=4))
    x = torch.randn(1, 1, 400)
    report = tw.inspect(model, x, rate=8000)
    for line in (
        "causal           no: it reads 5 samples (0.625 ms) ahead",
        "receptive field  8 samples (1 ms), -2 to +5",
        "stride           4 of the signal's samples for each output: 8000 Hz in, 2000 Hz out",
        "delay            5 samples (0.625 ms); the first output comes after 6 samples (0.75 ms)",
        "  conv1d in 0: 2 samples (0.25 ms) ahead",
    ):
        assert line in report.text.splitlines(), line
    assert "0.625 ms" in report.page()
    assert "ms)" not in "".join(tw.inspect(model, x).text.splitlines()[:8])
    with pytest.raises(ValueError, match="rate must be"):
        tw.inspect(model, x, rate=0)


def test_inspect_and_explain_agree_on_names():
    block = torch.nn.Sequential(torch.nn.Conv1d(2, 2, 3, padding=1), torch.nn.ReLU())
    model = torch.nn.ModuleDict({"first": torch.nn.Conv1d(1, 2, 5), "block": block})

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = model

        def forward(self, x):
            return self.parts["block"](self.parts["first"](x))

    net, x = Net(), torch.randn(1, 1, 100)
    report, table = tw.inspect(net, x), tw.explain(net, x)
    paths = [layer.path for layer in table]
    assert paths == [layer.path for layer in report.table] == ["parts.first", "parts.block.0"]
    assert [leak.where for leak in report.leaks] == [f"conv1d in {path}" for path in paths]
    for path in paths:
        assert report[path].title == table[path].title == str(net.get_submodule(path))
    alone = torch.nn.Conv1d(1, 1, 3)
    assert tw.inspect(alone, x).leaks[0].where == "conv1d in the model itself"
    assert "\nthe model itself" in tw.inspect(alone, x).text
