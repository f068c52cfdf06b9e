"""What a prompt and a notebook show: text for a reader, not a dataclass of arrays."""

import torch

import tapwise as tw


def test_a_prompt_shows_what_a_reader_wants():
    layer = torch.nn.Conv1d(1, 1, 3, bias=False)
    torch.nn.init.ones_(layer.weight)
    x = torch.arange(10.0)
    trace = tw.trace(layer, x)
    assert repr(trace) == str(trace)
    assert repr(trace.steps[0]) == "Step 0: sum([0. 1. 2.]*[1. 1. 1.]) = 3.0"
    assert repr(trace.steps).splitlines()[1] == "Step 1: sum([1. 2. 3.]*[1. 1. 1.]) = 6.0"
    assert repr(trace.steps[:2]) == f"[{trace.steps[0]}, {trace.steps[1]}]"
    long = tw.trace(layer, torch.arange(1000.0)).steps
    assert len(repr(long).splitlines()) < 40
    explanation = tw.explain(layer, x)
    assert repr(explanation) == explanation.text
    assert repr(explanation.plan).startswith("native: predicted")
    model = torch.nn.Sequential(layer, torch.nn.ReLU())
    example = torch.randn(1, 1, 100)
    report, table = tw.inspect(model, example), tw.explain(model, example)
    assert repr(report) == report.text
    assert repr(table) == table.text
    live = tw.stream(model, example)
    live.step(example)
    assert repr(live) == (
        "Stream(Sequential, 2 operations; batch 1, 100 samples seen; delay 2, stride 1, 8 bytes kept)"
    )
    live.reset(batch=2)
    live.step(torch.cat([example, example]))
    live.reset(torch.tensor([True, False]))
    assert "batch 2, (0, 100) samples seen" in repr(live)


def test_a_geometry_is_shown_as_it_is_made():
    for geometry, text in (
        (tw.Geometry(3), "Geometry(3)"),
        (tw.Geometry(3, dilation=2, padding="causal"), "Geometry(3, dilation=2, padding=(4, 0))"),
        (
            tw.Geometry(4, 2, 3, (1, 2), 5, "reflect"),
            "Geometry(4, stride=2, dilation=3, padding=(1, 2), groups=5, padding_mode='reflect')",
        ),
        (
            tw.Geometry(4, 3, transposed=True, output_padding=1),
            "Geometry(4, stride=3, transposed=True, output_padding=1)",
        ),
    ):
        assert repr(geometry) == text
        assert eval(text, {"Geometry": tw.Geometry}) == geometry
    assert repr(tw.Stack([tw.Geometry(3), tw.Geometry(3)])).startswith("reads 5 of 5 samples")
