"""The processor's matrices against the oracle, over what they can run; and how calls come to them."""

import copy
import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import oracle
import tapwise as tw
from against_the_oracle import VIEWS, array, check, tensor
from marks import slow_after
from tapwise.engine import dispatch, measured
from tapwise.engine.kernels import KERNELS, native
from tapwise.engine.kernels import amx as kernel
from tapwise.engine.kernels.loops.spans import rows_read
from tapwise.engine.plan import choose, lowered
from tapwise.engine.problem import Problem
from tapwise.geometry import Geometry

pytestmark = pytest.mark.usefixtures("poisoned")
needs_matrices = pytest.mark.skipif(kernel.obstacle() is not None, reason=f"amx {kernel.obstacle()}")
HALF = torch.bfloat16


def check_wide(geometry, x, w, b=None):
    """A run on float32 against the oracle's products of rounded numbers: what is left is the rounding of sums."""
    y = kernel.run(geometry, x, w, b)
    settings = (geometry.stride, geometry.padding, geometry.dilation)
    rounded = array(x.to(HALF)), array(w.to(HALF)), array(b)
    truth = oracle.conv1d(*rounded, *settings)
    size = oracle.conv1d(*rounded, *settings, magnitude=True)
    assert y.dtype == torch.float32
    assert y.shape == truth.shape
    assert (abs(y.double().numpy() - truth) <= 1e-30 + 4 * torch.finfo(torch.float32).eps * size).all()
    exact = oracle.conv1d(array(x), array(w), array(b), *settings)
    assert (abs(y.double().numpy() - exact) <= 1e-30 + 2**-6.9 * size).all()  # as options says


@needs_matrices
@given(
    st.integers(1, 17), st.sampled_from([1, 1, 2, 3, 5]), st.integers(1, 9), st.integers(0, 12), st.integers(0, 12),
    st.integers(8, 70), st.integers(8, 70), st.integers(1, 600), st.sampled_from([0, 1, 2, 9]), st.booleans(), st.booleans(),
)  # fmt: skip
def test_any_geometry(kernel_size, stride, dilation, left, right, inputs, columns, outputs, batch, bias, is_wide):
    geometry = Geometry(kernel_size, stride, dilation, (left, right))
    random, dtype = np.random.default_rng(outputs), torch.float32 if is_wide else HALF
    x = tensor(random, batch, inputs, max(geometry.input_length(outputs), 1), dtype=dtype)
    w = tensor(random, columns, inputs, kernel_size, dtype=dtype)
    b = tensor(random, columns, dtype=dtype) if bias else None
    if is_wide:
        check_wide(geometry, x, w, b)
    else:
        assert check("amx", geometry, x, w, b)


@needs_matrices
@pytest.mark.parametrize("kernel_size", slow_after(7, [1, 2, 3, 7, 16, 31, 200, 4, 5, 64, 65, 128, 199]))
def test_every_kernel_size_and_lengths_around_a_block(kernel_size):
    """Against torch in float64, which the oracle is too slow to stand in for here."""
    random = np.random.default_rng(kernel_size)
    for inputs, columns in ((8, 8), (31, 33), (32, 16), (33, 17), (64, 96), (130, 49), (600, 40)):
        for outputs in (1, 15, 16, 17, 31, 33, 255, 256, 257, 600):
            for stride, dilation in ((1, 1), (1, 3), (2, 1), (3, 2)):
                if kernel_size > 31 and (inputs > 33 or dilation > 1):
                    continue
                geometry = Geometry(kernel_size, stride, dilation, (kernel_size - 1, 0))
                x = tensor(random, 1, inputs, max(geometry.input_length(outputs), 1), dtype=torch.float32)
                w = tensor(random, columns, inputs, kernel_size, dtype=torch.float32)
                rounded = x.to(HALF).double(), w.to(HALF).double()
                wanted, size = (native.run(geometry, *some, None) for some in (rounded, [n.abs() for n in rounded]))
                error = (kernel.run(geometry, x, w, None).double() - wanted).abs()
                assert (error <= 4 * torch.finfo(torch.float32).eps * size).all()


@needs_matrices
@pytest.mark.parametrize("dtype", [torch.float32, HALF])
@pytest.mark.parametrize("view", VIEWS)
def test_views(view, dtype):
    random = np.random.default_rng(0)
    x, w = (tensor(random, *shape, dtype=dtype) for shape in ((3, 16, 90), (24, 16, 5)))
    geometry, b = Geometry(5, padding="same"), tensor(random, 48, dtype=dtype)[::2]
    for signal, weight, bias in ((VIEWS[view](x), w, None), (x, VIEWS[view](w), None), (x, w, b)):
        wanted = kernel.run(geometry, signal.contiguous(), weight.contiguous(), None if bias is None else bias.clone())
        assert torch.equal(kernel.run(geometry, signal, weight, bias), wanted)
    assert check("amx", geometry, x.to(HALF), w.to(HALF), b.to(HALF))


@needs_matrices
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 3e38])
@pytest.mark.parametrize(("kernel_size", "stride", "dilation"), [(3, 1, 1), (4, 2, 2), (11, 1, 3)])
def test_what_is_not_finite_reaches_its_windows_alone(value, kernel_size, stride, dilation):
    random = np.random.default_rng(0)
    geometry = Geometry(kernel_size, stride, dilation, 5)
    x = tensor(random, 3, 20, 700, dtype=torch.float32)
    w = tensor(random, 20, 20, kernel_size, dtype=torch.float32)
    before = kernel.run(geometry, x, w, None)
    for position in (0, 3, 256, 300, 699):
        z = x.clone()
        z[1, 7, position] = value
        y, wanted = kernel.run(geometry, z, w, None), native.run(geometry, z, w, None)
        assert torch.equal(y.isnan(), wanted.isnan())
        if abs(value) == float("inf"):
            assert torch.equal(y.isinf(), wanted.isinf())
        same = wanted == native.run(geometry, x, w, None)
        assert torch.equal(y[same], before[same])


@needs_matrices
def test_the_same_bits_in_any_batch_and_on_any_number_of_threads():
    x, w = torch.randn(5, 24, 1000), torch.randn(40, 24, 7)
    geometry, before = Geometry(7, padding=3), torch.get_num_threads()
    y = kernel.run(geometry, x, w, None)
    assert torch.equal(kernel.run(geometry, x[3:4], w, None), y[3:4])
    try:
        torch.set_num_threads(1 if before > 1 else 2)
        assert torch.equal(kernel.run(geometry, x, w, None), y)
    finally:
        torch.set_num_threads(before)


@needs_matrices
def test_numbers_are_rounded_as_torch_rounds_them():
    bits = torch.randint(-(2**31), 2**31 - 1, (1, 8, 4096), dtype=torch.int32)
    x = bits.view(torch.float32)
    # Subnormal numbers count as zeros; an infinite one would reach all outputs.
    x[~x.isfinite() | (x.abs() < 1e-30) | (x.abs() > 3e38)] = 1.0
    w = torch.eye(8).reshape(8, 8, 1)
    assert torch.equal(kernel.run(Geometry(1), x, w, None), x.to(HALF).float())
    taps = x[0, :, :8].contiguous().reshape(8, 8, 1)  # and so are weights
    one = torch.eye(8)[None]
    assert torch.equal(kernel.run(Geometry(1), one, taps, None), taps[None, :, :, 0].to(HALF).float())


REFUSED = {
    "bfloat16, not float32": (Geometry(3), 16, 16, torch.float32),
    "one group": (Geometry(3, groups=2), 16, 16, HALF),
    "convolutions": (Geometry(3, transposed=True), 16, 16, HALF),
    "8 channels": (Geometry(3), 7, 16, HALF),
    "zeros alone": (Geometry(3, padding=1, padding_mode="reflect"), 16, 16, HALF),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_it_cant_run_it_says(words):
    geometry, inputs, outputs, dtype = REFUSED[words]
    assert words in kernel.why_not(Problem(geometry, inputs, outputs, 100, dtype, "cpu"))


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
@pytest.mark.parametrize(("dilation", "stride"), [(300, 1), (5000, 1), (700, 3)])
def test_taps_far_from_each_other_read_their_own_rows_alone(dilation, stride):
    geometry = Geometry(3, stride, dilation, (dilation, 7))
    x, w = torch.randn(2, 40, 2 * dilation + 1500), torch.randn(33, 40, 3)
    wanted = native.run(geometry, x.to(HALF).double(), w.to(HALF).double(), None)
    torch.testing.assert_close(kernel.run(geometry, x, w, None).double(), wanted, rtol=1e-5, atol=1e-4)


def test_rows_that_a_block_reads():
    assert rows_read(256, 3, 5000, 1) == 768
    assert rows_read(256, 3, 1, 1) == 258


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
@pytest.mark.parametrize("place", range(3))
def test_memory_that_was_freed_is_not_read(place):
    given = [torch.randn(1, 32, 500), torch.randn(32, 32, 3), torch.randn(32)]
    given[place].untyped_storage().resize_(8)
    with pytest.raises(RuntimeError, match="lies beyond its memory"):
        kernel.run(Geometry(3), *given)


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


@needs_matrices
def test_a_forked_child_may_use_the_matrices():
    code = (
        "import os, torch, tapwise as tw\n"
        "x, w = torch.randn(1, 32, 500).bfloat16(), torch.randn(32, 32, 3).bfloat16()\n"
        "with tw.options(kernel='amx'):\n"
        "    y = tw.conv1d(x, w)\n"
        "    if (child := os.fork()) == 0:\n"
        "        os._exit(0 if torch.equal(tw.conv1d(x, w), y) else 1)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
