"""How calls come to be computed in bfloat16, and what stays in float32."""

import copy
import pickle
from dataclasses import replace

import pytest
import torch

import tapwise as tw
from marks import needs_matrices
from tapwise.engine import dispatch, measured
from tapwise.engine.kernels import KERNELS
from tapwise.engine.kernels import amx as kernel
from tapwise.engine.plan import choose, lowered
from tapwise.engine.problem import Problem
from tapwise.geometry import Geometry

HALF = torch.bfloat16


@pytest.fixture
def without_matrices(monkeypatch):
    monkeypatch.setattr(kernel, "obstacle", lambda: "needs a processor with AMX")
    dispatch.forget()
    yield
    dispatch.forget()


def test_without_matrices_everything_stays_in_float32(without_matrices):
    x, layer = torch.randn(1, 64, 2000), tw.Conv1d(64, 64, 3)
    with torch.no_grad():
        y = layer(x)
        with tw.options(dtype=HALF):
            assert torch.equal(layer(x), y)
            assert dict(tw.explain(layer, x).plan.rejected)["amx"] == "takes bfloat16, not float32"
    posed = Problem(Geometry(3), 64, 64, 2000, HALF, "cpu")
    assert dict(choose(posed).rejected)["amx"] == "needs a processor with AMX"


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, "bfloat16"])
def test_another_dtype_is_refused(dtype):
    with pytest.raises(ValueError, match=r"dtype must be torch\.bfloat16 or None"), tw.options(dtype=dtype):
        pass
    model = torch.nn.Conv1d(8, 8, 3)
    with pytest.raises(ValueError, match=r"dtype must be torch\.bfloat16 or None"):
        tw.accelerate(model, dtype=dtype)
    assert "_conv_forward" not in model.__dict__


@pytest.fixture
def runs(monkeypatch):
    """The shapes of the inputs with which the kernel ran."""
    found = []

    def run(geometry, x, *others):
        found.append(tuple(x.shape))
        return kernel.run(geometry, x, *others)

    monkeypatch.setitem(KERNELS, "amx", replace(KERNELS["amx"], run=run))
    dispatch.forget()
    yield found
    dispatch.forget()


@needs_matrices
def test_options_let_float32_be_computed_in_bfloat16(runs):
    x, layer = torch.randn(2, 64, 8000), tw.Conv1d(64, 64, 7, padding=3)
    few = tw.Conv1d(1, 4, 7)
    with torch.no_grad(), tw.options(dtype=HALF):
        y = layer(x)
        plan = tw.explain(few, x[0, :1]).plan
        z, alone = few(x[:, :1]), layer(x[0])
        with torch.enable_grad():
            trained = layer(x)
        double = tw.conv1d(x.double(), layer.weight.double(), layer.bias.double(), padding=3)
    assert y.dtype == torch.float32
    assert torch.equal(alone, y[0])
    with torch.no_grad():
        rounded = torch.nn.functional.conv1d(
            x.to(HALF).double(), layer.weight.to(HALF).double(), layer.bias.double(), padding=3
        )
        torch.testing.assert_close(y.double(), rounded, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(z, few(x[:, :1]))
        torch.testing.assert_close(trained, layer(x), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(double.float(), layer(x), rtol=1e-4, atol=1e-5)
    assert runs == [(2, 64, 8000), (1, 64, 8000)]
    assert plan.kernel == "direct"  # which matrices don't help


@needs_matrices
def test_the_option_holds_for_its_block_and_kernels_that_are_asked_for():
    problem = Problem(Geometry(7), 64, 64, 8000, torch.float32, "cpu")
    assert lowered(problem) is problem
    with tw.options(dtype=HALF):
        assert lowered(problem).dtype == HALF
        with tw.options(kernel="direct"):
            assert lowered(problem) is problem
    with tw.options(dtype=HALF, kernel="direct"):
        assert lowered(problem) is problem
    with tw.options(dtype=HALF, kernel="amx"):
        assert lowered(Problem(Geometry(1), 8, 8, 3, torch.float32, "cpu")).dtype == HALF
        assert lowered(Problem(Geometry(1), 4, 8, 3, torch.float32, "cpu")).dtype == torch.float32


@needs_matrices
def test_what_stays_in_float32(runs):
    """Where a gradient is required, under deterministic, in streams, and in ops, of which torch.compile's graphs are made."""
    x, layer = torch.randn(1, 64, 8000, requires_grad=True), tw.Conv1d(64, 64, 7, padding=3)
    tensors = x.detach(), layer.weight.detach(), layer.bias.detach()
    ints = 7, 1, 1, 3, 3, 1, "zeros", False, 0

    def gradients():
        y = layer(x)
        first = torch.autograd.grad(y.square().sum(), x, create_graph=True)[0]
        return y, first, torch.autograd.grad(first.square().sum(), x)[0]

    def without_gradients():
        with torch.no_grad():
            live = tw.stream(layer, x.detach())
            steps = torch.cat([live.step(x.detach()), live.flush()], -1)
            return steps, torch.ops.tapwise.convolution(*tensors, *ints)

    wanted = *gradients(), *without_gradients()
    with tw.options(dtype=HALF):
        found = *gradients(), *without_gradients()
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one, other)
    with tw.options(dtype=HALF, deterministic=True), torch.no_grad():
        layer(x)
        assert tw.explain(layer, x[0].detach()).plan.kernel != "amx"
    assert runs == []
    with tw.options(dtype=HALF), torch.no_grad():
        layer(x)
    assert len(runs) == 1


@needs_matrices
def test_an_accelerated_model_is_read_in_float32():
    """Streams, frozen networks and reports are held against the model itself, closely."""
    model, x = network(), torch.randn(1, 48, 3000)
    with torch.no_grad():
        streamed, frozen = tw.stream(model, x).step(x), tw.freeze(model, x)(x)
        with tw.accelerate(model, dtype=HALF):
            rounded = model(x)
            live = tw.stream(model, x)
            assert torch.equal(live.step(x), streamed)
            assert torch.equal(tw.freeze(model, x)(x), frozen)
            tw.verify_stream(model, x)
            tw.inspect(model, x)
            assert torch.equal(model(x), rounded)
    assert not torch.equal(rounded, frozen)


@needs_matrices
def test_plans_say_what_is_computed_in_bfloat16():
    layer, x = tw.Conv1d(64, 64, 7), torch.randn(64, 8000)
    before = tw.explain(layer, x).plan
    with tw.options(dtype=HALF):
        plan = tw.explain(layer, x).plan
    assert plan.reason.startswith("in bfloat16, which options(dtype=...) allows: predicted")
    assert dict(plan.rejected)[before.kernel] == f"in float32: {before.reason}"
    assert plan.seconds < before.seconds


@needs_matrices
def test_a_layer_that_is_on_the_engine_already_is_listed():
    model = torch.nn.Sequential(tw.Conv1d(8, 8, 3), torch.nn.Conv1d(8, 8, 3))
    with tw.accelerate(model, dtype=HALF) as report:
        assert "it is on the engine already" in report.left["0"]
        assert list(report.changed) == ["1"]
        assert set(tw.accelerate(model, dtype=HALF).left) == {"0", "1"}
        del model[1]._conv_forward  # by somebody else
        assert "1 convolution on Tapwise's engine" in str(report)


@needs_matrices
def test_the_option_around_accelerate_with_an_example_is_tuned_for():
    model, x = network(), torch.randn(1, 48, 9000)
    with torch.no_grad(), tw.options(dtype=HALF), tw.accelerate(model, x, save=False) as report:
        assert was_timed_in_both(report.tuning.problems[0].problem)
    tw.plans.clear()


@needs_matrices
def test_times_are_compared_only_with_their_like():
    problem = Problem(Geometry(7), 64, 64, 8000, torch.float32, "cpu")
    threads = torch.get_num_threads()
    try:
        with tw.options(dtype=HALF):  # of float32 alone something was measured: predictions are compared
            measured.add({(problem, threads): measured.Measurement(1, "2026-01-01", {"native": 1e-9}, {})})
            assert lowered(problem).dtype == HALF
            lower = replace(problem, dtype=HALF)
            measured.add({(lower, threads): measured.Measurement(1, "2026-01-01", {"amx": 1e-3}, {})})
            assert lowered(problem) is problem
    finally:
        tw.plans.clear()


@needs_matrices
@pytest.mark.parametrize("is_autocast", [False, True])
def test_autocast_and_half_precision_run_on_it(runs, is_autocast):
    x, layer = torch.randn(2, 64, 3000), torch.nn.Conv1d(64, 64, 7, padding=3)
    wanted = layer(x).detach()
    layer = layer if is_autocast else layer.to(HALF)

    def gradients():
        layer.zero_grad()
        signal = x.to(layer.weight.dtype).requires_grad_()
        with torch.autocast("cpu", dtype=HALF, enabled=is_autocast):
            y = layer(signal)
        (y * y).sum().backward()
        assert y.dtype == HALF
        torch.testing.assert_close(y.float(), wanted, rtol=3e-2, atol=3e-2)
        return signal.grad.float(), layer.weight.grad.float(), layer.bias.grad.float()

    by_torch = gradients()
    assert runs == []
    with tw.accelerate(layer):
        ours = gradients()
    assert len(runs) == 2  # of the outputs, and the input's gradient
    for one, other in zip(by_torch, ours, strict=True):
        torch.testing.assert_close(one, other, rtol=3e-2, atol=float(one.abs().max()) * 2e-2)


def was_timed_in_both(problem):
    found = [measured.lookup(replace(problem, dtype=dtype), torch.get_num_threads()) for dtype in (torch.float32, HALF)]
    return "native" in found[0].seconds and "amx" in found[1].seconds


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv1d(48, 64, 7, padding=3), torch.nn.ReLU(), torch.nn.ConvTranspose1d(64, 64, 4, 2),
        torch.nn.Conv1d(64, 64, 5, 2), torch.nn.Conv1d(64, 1, 3),
    ).eval()  # fmt: skip


@needs_matrices
def test_accelerate_in_bfloat16(runs):
    model, x = network(), torch.randn(1, 48, 9000)
    with torch.no_grad():
        wanted = model(x)
        report = tw.accelerate(model, dtype=HALF)
        assert report.kernels()["amx"] == ["0", "3"]
        assert "amx: 0, 3" in str(report)
        y, other = model(x), copy.deepcopy(model)
        assert torch.equal(other(x), y)
        assert len(runs) == 4
        assert y.dtype == torch.float32
        assert 0 < (y - wanted).abs().max() < 0.02
        assert torch.equal(pickle.loads(pickle.dumps(other))(x), y)
        report.undo()
        assert torch.equal(model(x), wanted)


@needs_matrices
def test_accelerate_times_both_dtypes():
    model, x = network(), torch.randn(1, 48, 9000)
    with torch.no_grad(), tw.accelerate(model, x, dtype=HALF, save=False) as report:
        first = report.tuning.problems[0]
        assert first.problem.dtype == torch.float32
        assert was_timed_in_both(first.problem)
    tw.plans.clear()
