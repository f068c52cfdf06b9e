"""Layers in graphs that other programs read or compile: traces, ONNX, fx, torch's own compiler."""

import shutil
import subprocess
import sys

import pytest
import torch

import tapwise as tw

PADDED = [
    {},
    {"padding": "causal"},
    {"padding": (2, 5), "padding_mode": "replicate"},
    {"stride": 2, "padding": 4, "padding_mode": "reflect"},
    {"padding": (3, 1), "padding_mode": "circular"},
]


def long_enough(**settings):
    """A depthwise layer that no plan leaves to torch."""
    return tw.Conv1d(8, 8, 31, groups=8, **settings).eval()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("settings", PADDED)
def test_a_trace_is_read_without_tapwise(settings, tmp_path):
    layer = long_enough(**settings)
    torch.jit.trace(layer, torch.randn(1, 8, 3000)).save(tmp_path / "layer.pt")
    load = "import sys, torch; print(torch.jit.load(sys.argv[1])(torch.ones(1, 8, 500)).sum().item())"
    command = [sys.executable, "-c", load, str(tmp_path / "layer.pt")]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    expected = layer(torch.ones(1, 8, 500)).sum().item()
    assert float(found.stdout) == pytest.approx(expected, rel=1e-4, abs=1e-3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("settings", PADDED)
def test_onnx_takes_the_layer_of_any_length(settings, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="a developer's dependency")
    pytest.importorskip("onnxscript", reason="a developer's dependency")
    layer = long_enough(**settings)
    length = torch.export.Dim("length", min=64, max=100_000)
    torch.onnx.export(
        layer,
        (torch.randn(1, 8, 3000),),
        tmp_path / "layer.onnx",
        dynamo=True,
        verbose=False,
        dynamic_shapes=({2: length},),
    )
    session = onnxruntime.InferenceSession(tmp_path / "layer.onnx")
    for n in (64, 777, 3000):
        x = torch.randn(1, 8, n)
        (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        torch.testing.assert_close(torch.from_numpy(y), layer(x))


class Named(torch.nn.Conv1d):
    """A class of somebody's own: fx looks into it, where torch's own are leaves."""


@pytest.mark.parametrize("layer", [tw.CausalConv1d(8, 8, 31), tw.ConvTranspose1d(8, 4, 5), Named])
def test_fx_traces_through_the_layer(layer):
    model = torch.nn.Sequential(layer(8, 8, 31, groups=8) if layer is Named else layer)
    tw.accelerate(model)
    graph, x = torch.fx.symbolic_trace(model), torch.randn(2, 8, 2000)
    assert any(getattr(n.target, "__module__", "") == "tapwise.functional" for n in graph.graph.nodes)
    assert torch.equal(graph(x), model(x))


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch's own compiler needs one of C++")
@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_torchs_own_compiler_takes_gradients_through_padding(mode):
    layer = tw.Conv1d(3, 8, 5, stride=2, padding=(4, 3), padding_mode=mode)
    x = torch.randn(2, 3, 41, requires_grad=True)
    want = layer(x)
    g = torch.randn_like(want)
    inputs = (x, *layer.parameters())
    expected = torch.autograd.grad(want, inputs, g)
    found = torch.autograd.grad(torch.compile(layer, fullgraph=True)(x), inputs, g)
    torch.testing.assert_close(found, expected)
