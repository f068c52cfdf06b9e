"""A stream as pure functions of fixed shapes: equal, compiled, exported, and run in ONNX Runtime."""

import random
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

import networks
import tapwise as tw
from streamed import Branches, random_layer

F64 = torch.float64


def assert_pure(model, x, chunk=None):
    """Steps of fixed shapes give what the model gives, after what comes before its first output."""
    live = tw.stream(model, x)
    graph = live.graph
    time, result = graph.nodes[0].size.time, graph.results[0]
    chunk = chunk or graph.period * max(1, 8 // graph.period)
    length = x.shape[time] // chunk * chunk
    x = torch.randn_like(x.narrow(time, 0, length))
    pure = live.functional(chunk)
    init_state, step = pure
    state, parts, shapes = init_state(x.shape[0]), [], None
    for part in x.split(chunk, time):
        y, state = step(part, state)
        parts.append(y)
        now = [leaf.shape for leaf in pytree.tree_leaves(state)]
        assert shapes in (None, now)
        shapes = now
    assert len({part.shape for part in parts}) == 1
    axis = graph.nodes[result].size.time
    y = torch.cat(parts, axis)
    y = y.narrow(axis, pure.lead, y.shape[axis] - pure.lead)
    n_outputs = min(y.shape[axis], graph.counts(length)[result][0])
    offline = model(x).narrow(axis, 0, n_outputs)
    assert n_outputs > 0
    assert (y.narrow(axis, 0, n_outputs) - offline).abs().max() < 1e-10 * (1 + offline.abs().max())
    return pure


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in networks.STREAMED if not n.startswith("encodec")])
def test_real_networks_have_a_pure_form(name):
    assert_pure(*networks.STREAMED[name]())


@pytest.mark.slow
def test_layers_of_every_setting_have_a_pure_form():
    made = 0
    for seed in range(150):
        dice = random.Random(seed)
        torch.manual_seed(seed)
        channels = dice.randrange(1, 5)
        layer, _ = random_layer(dice, channels)
        layer = layer.double()
        length = max(300, tw.Geometry.of(layer).input_length(1) + 60)
        try:
            assert_pure(layer, torch.randn(2, channels, length, dtype=F64))
            made += 1
        except tw.TimelineError as error:
            if "more than a chunk gives" not in str(error):
                raise
    assert made > 100


@pytest.mark.slow
def test_random_networks_have_a_pure_form():
    made = 0
    for seed in range(40):
        dice = random.Random(seed)
        torch.manual_seed(seed)
        channels = dice.randrange(1, 4)
        model = Branches(dice, channels).double().eval()
        x = torch.randn(1, channels, 400, dtype=F64)
        try:
            model(x[..., :100])
            assert_pure(model, x)
            made += 1
        except tw.TimelineError as error:
            if "more than a chunk gives" not in str(error):
                raise
        except (RuntimeError, ValueError):
            continue
    assert made > 15


def test_chunks_that_are_no_multiple_are_refused():
    live = tw.stream(nn.Conv1d(1, 1, 4, stride=3), torch.zeros(1, 1, 60))
    with pytest.raises(ValueError, match="multiple of 3"):
        live.functional(4)
    reflected = tw.stream(nn.Conv1d(1, 1, 9, padding=4, padding_mode="reflect"), torch.zeros(1, 1, 60))
    with pytest.raises(tw.TimelineError, match="more than a chunk gives"):
        reflected.functional(4)
    assert reflected.functional(8).lead >= 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tcn", "conv_tasnet", "mimi_encoder"])
def test_the_step_compiles_to_one_graph_and_exports(name):
    model, x = networks.STREAMED[name]()
    pure = assert_pure(model, x)
    init_state, step = pure
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    state = other = init_state(1)
    for _ in range(3):
        chunk = torch.randn_like(pure.example())
        with torch.no_grad():
            y, state = step(chunk, state)
            again, other = compiled(chunk, other)
        torch.testing.assert_close(again, y)
    program = pure.export().module()
    flat = pytree.tree_leaves(init_state(1))
    state = init_state(1)
    for _ in range(3):
        chunk = torch.randn_like(pure.example())
        with torch.no_grad():
            y, state = step(chunk, state)
            got, *flat = program(chunk, *flat)
        torch.testing.assert_close(got, y)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tcn", "conv_tasnet", "mimi_decoder"])
@pytest.mark.filterwarnings("ignore")
def test_the_step_runs_in_onnx_runtime(name, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="a developer's dependency")
    model, x = networks.STREAMED[name]()
    model, x = model.float(), x.float()
    pure = tw.stream(model, x).functional(tw.stream(model, x).graph.period * 2)
    path = pure.to_onnx(tmp_path / "step.onnx")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    init_state, step = pure
    state = init_state(1)
    held = {f"state{n}": leaf.numpy() for n, leaf in enumerate(pytree.tree_leaves(state))}
    names = {i.name for i in session.get_inputs()}
    for _ in range(6):
        chunk = torch.randn_like(pure.example())
        with torch.no_grad():
            y, state = step(chunk, state)
        given = {"chunk": chunk.numpy(), **{k: v for k, v in held.items() if k in names}}
        found = dict(zip([o.name for o in session.get_outputs()], session.run(None, given), strict=True))
        torch.testing.assert_close(torch.from_numpy(found["output0"]), y, rtol=1e-4, atol=1e-5)
        held = {f"state{n}": found.get(f"next{n}", held[f"state{n}"]) for n in range(len(held))}


def small():
    torch.manual_seed(0)
    layers = nn.Conv1d(1, 4, 5, padding=2), nn.ReLU(), nn.ConvTranspose1d(4, 2, 4, stride=2)
    return nn.Sequential(*layers).eval(), torch.randn(1, 1, 200)


@pytest.mark.parametrize(("opset", "dynamic_batch", "batch"), [(None, False, 1), (18, False, 2), (20, True, 3)])
def test_initial_inputs_are_what_onnx_runtime_takes(tmp_path, opset, dynamic_batch, batch):
    onnx = pytest.importorskip("onnx", reason="a developer's dependency")
    onnxruntime = pytest.importorskip("onnxruntime", reason="a developer's dependency")
    model, x = small()
    pure = tw.stream(model, x).functional(16)
    path = pure.to_onnx(tmp_path / "step.onnx", batch, opset=opset, dynamic_batch=dynamic_batch)
    if opset:
        assert onnx.load(path).opset_import[0].version == opset
    session = onnxruntime.InferenceSession(str(path))
    state, parts = pure.initial_inputs(batch), []
    assert {i.name for i in session.get_inputs()} == {"chunk", *state}
    x = torch.randn(batch, 1, 160)
    for chunk in x.split(16, -1):
        output, *after = session.run(None, {"chunk": chunk.numpy(), **state})
        parts.append(torch.from_numpy(output))
        state = dict(zip(state, after, strict=True))
    y = torch.cat(parts, -1)[..., pure.lead :]
    torch.testing.assert_close(y, model(x)[..., : y.shape[-1]], rtol=1e-4, atol=1e-5)
    assert y.shape[-1] > 300


def test_exporting_prints_nothing(tmp_path):
    pytest.importorskip("onnxscript", reason="a developer's dependency")
    code = (
        "import torch, tapwise as tw\n"
        "pure = tw.stream(torch.nn.Conv1d(1, 1, 5, padding=2), torch.zeros(1, 1, 60)).functional(8)\n"
        "pure.to_onnx('a.onnx', dynamic_batch=True); pure.export()"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("", "")


def test_functional_says_what_its_states_are():
    model, x = small()
    assert str(tw.stream(model, x).functional(16)).splitlines() == [
        "(init_state, step) of fixed shapes, for a batch of 1",
        "  chunk    float32  (1, 1, 16)     16 samples",
        "  state0   int64    ()             steps so far",
        "  state1   float32  (1, 1, 4)      what conv1d in 0 keeps",
        "  state2   float32  (1, 4, 1)      what conv_transpose1d in 2 keeps",
        "  output0  float32  (1, 2, 32)     the first 4 of all come before the model's first",
    ]


def test_a_batch_can_not_be_left_open_where_it_counts(tmp_path):
    class ByBatch(nn.Module):
        def forward(self, x):
            return x * x.shape[0] if x.shape[0] < 3 else x

    pure = tw.stream(ByBatch(), torch.randn(1, 1, 50)).functional(4)
    with pytest.raises(ValueError, match="was read at one batch only"):
        pure.to_onnx(tmp_path / "a.onnx", dynamic_batch=True)


def test_an_open_batch_where_batch_and_channels_are_one_axis(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="a developer's dependency")

    class Merged(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(1, 1, 5, padding=2)

        def forward(self, x):
            batch, channels, length = x.shape
            return self.conv(x.reshape(batch * channels, 1, length)).reshape(batch, channels, length)

    pure = tw.stream(Merged(), torch.randn(2, 3, 100)).functional(8)
    session = onnxruntime.InferenceSession(pure.to_onnx(tmp_path / "step.onnx", dynamic_batch=True))
    for batch in (1, 2, 4):
        chunk, state = torch.randn(batch, 3, 8), pure[0](batch)
        output, *_ = session.run(None, {"chunk": chunk.numpy(), **pure.initial_inputs(batch)})
        torch.testing.assert_close(torch.from_numpy(output), pure[1](chunk, state)[0].detach())


def test_an_opset_that_can_not_be_written(tmp_path, capfd):
    pytest.importorskip("onnxscript", reason="a developer's dependency")
    model, x = small()
    with pytest.raises(ValueError, match="opset=99 can't be written of this model"):
        tw.stream(model, x).functional(16).to_onnx(tmp_path / "a.onnx", opset=99)
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


def test_a_batch_that_torch_can_not_leave_open(tmp_path, monkeypatch):
    pytest.importorskip("onnxscript", reason="a developer's dependency")

    def fails(*arguments, **named):
        raise torch.onnx.OnnxExporterError("a constraint was violated")

    monkeypatch.setattr(torch.onnx, "export", fails)
    model, x = small()
    with pytest.raises(ValueError, match="can't leave the batch of this model open"):
        tw.stream(model, x).functional(16).to_onnx(tmp_path / "a.onnx", dynamic_batch=True)
