"""Networks after other people's designs: inspected, streamed equal, and exported."""

import itertools

import pytest
import torch

import other_networks
import tapwise as tw
from tapwise.streaming.agreement import part_of

F64 = torch.float64


@pytest.mark.parametrize("name", other_networks.NETWORKS)
def test_they_stream_equal(name):
    model, example = other_networks.NETWORKS[name]()
    inputs = example if isinstance(example, tuple) else (example,)
    live = tw.stream(model, example)
    graph = live.graph
    signals = [inputs[place] for place in graph.places]
    length = signals[0].shape[graph.nodes[0].size.time]
    cuts = [0, 1, 1, length // 3, length - 7, length]
    parts = [live.step(*part_of(graph, signals, start, stop)) for start, stop in itertools.pairwise(cuts)] + [
        live.flush()
    ]
    offline = model(*inputs)
    offline = offline if isinstance(offline, tuple) else (offline,)
    parts = [part if isinstance(part, tuple) else (part,) for part in parts]
    for number, want, *got in zip(graph.results, offline, *parts, strict=True):
        torch.testing.assert_close(torch.cat(got, graph.nodes[number].size.time), want, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", other_networks.NETWORKS)
def test_reports_agree_with_the_models(name):
    model, example = other_networks.NETWORKS[name]()
    report = tw.inspect(model, example)  # raises where a NaN goes elsewhere
    assert report.text
    assert report.svg()
    wanted = {
        "pooled_unet": ("multiples of 16", False),
        "masked_tcn": ("inputs 0, 1 are signals", False),
        "vocoder": ("inputs 0, 1 are signals", False),
        "filter_bank": ("no more than", True),
        "sub_pixel": ("no more than", True),  # by 3: torch multiplies a neighbour by zero
    }
    words, is_bound = wanted.get(name, ("", False))
    assert words in report.text
    assert report.is_bound == is_bound
    assert (report.receptive_field[0] is None) == (name in ("cumulative_norm", "conv_lstm"))


@pytest.mark.filterwarnings("ignore")
def test_a_recurrence_after_centred_convolutions_is_exported(tmp_path):
    runtime = pytest.importorskip("onnxruntime", reason="a developer's dependency")
    model, x = other_networks.conv_lstm()
    model, x = model.float(), x.float()
    pure = tw.stream(model, x).functional(chunk=8)
    session = runtime.InferenceSession(pure.to_onnx(tmp_path / "step.onnx", batch=2))
    init_state, step = pure
    state, parts = init_state(2), []
    inputs = [value.numpy() for value in torch.utils._pytree.tree_leaves(state)]
    names = [one.name for one in session.get_inputs()]
    exported = []
    for chunk in x.split(8, -1):
        y, state = step(chunk, state)
        parts.append(y)
        found, *inputs = session.run(None, dict(zip(names, [chunk.numpy(), *inputs], strict=True)))
        exported.append(torch.from_numpy(found))
    offline = model(x)
    for found in (torch.cat(parts, 1), torch.cat(exported, 1)):
        found = found[:, pure.lead :]
        torch.testing.assert_close(found, offline[:, : found.shape[1]], rtol=1e-4, atol=1e-5)
