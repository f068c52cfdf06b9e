"""Calls known to be torch's own: they stay what the plan says, whatever surrounds them."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tapwise as tw
from tapwise.engine import calls
from tapwise.engine.adjoint import of_input_gradient
from tapwise.engine.kernels import KERNELS
from tapwise.engine.plan import NATIVE_TRAINING, choose, choose_training
from tapwise.engine.problem import Problem


@pytest.fixture(autouse=True)
def _fresh():
    threads = torch.get_num_threads()
    calls._known.clear()
    yield
    torch.set_num_threads(threads)


def dense(length=400, requires_grad=False):
    torch.manual_seed(0)
    x, w, b = torch.randn(2, 96, length), torch.randn(96, 96, 3), torch.randn(96)
    return [t.requires_grad_(requires_grad) for t in (x, w, b)]


@pytest.mark.parametrize("padding", [0, 1, (1,), (2, 0), "causal", "same", "full", (0, 3)])
@pytest.mark.parametrize("grad", [False, True])
def test_a_call_known_again_gives_the_same_outputs_and_gradients(padding, grad):
    x, w, b = dense(requires_grad=grad)
    first = tw.conv1d(x, w, b, padding=padding)
    assert len(calls._known) == 1
    again = tw.conv1d(x, w, b, padding=padding)
    assert torch.equal(first, again)
    g = Problem.of(x, w, b, padding=padding).geometry
    wanted = F.conv1d(F.pad(x.double(), g.padding), w.double(), b.double())
    torch.testing.assert_close(again.double(), wanted, rtol=1e-4, atol=1e-3)
    assert again.is_contiguous()
    if grad:
        ours = torch.autograd.grad(again, (x, w, b), torch.ones_like(again))
        theirs = torch.autograd.grad(wanted, (x, w, b), torch.ones_like(wanted))
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-2)


def test_a_call_noted_under_autocast_says_nothing_about_one_without():
    """Half precision may have another plan than float32: neither speaks for the other."""
    x, w, b = dense()
    with torch.autocast("cpu", torch.bfloat16):
        tw.conv1d(x, w, b)
    assert not calls._known
    tw.conv1d(x, w, b)
    assert len(calls._known) == 1
    ((key, call),) = calls._known.items()
    halves = [choose(Problem.of(x.to(d), w.to(d))) for d in (torch.bfloat16, torch.float16)]
    assert call.cast == all(plan.kernel == "native" for plan in halves)
    for cast in (True, False):
        calls._known[key] = call._replace(cast=cast)
        with torch.autocast("cpu", torch.bfloat16):
            again = calls.known(x, w, b, 1, 0, 1, 1, "zeros")
        assert (again is not None) == cast


def test_options_modes_threads_and_other_types_are_not_taken_for_the_same_call():
    x, w, b = dense()
    settings = (1, 0, 1, 1, "zeros")
    tw.conv1d(x, w, b)
    assert calls.known(x, w, b, *settings) is not None
    with tw.options(kernel="reference"):
        assert calls.known(x, w, b, *settings) is None
    with torch.overrides.BaseTorchFunctionMode():
        assert calls.known(x, w, b, *settings) is None
    assert calls.known(x.double(), w.double(), b.double(), *settings) is None
    assert calls.known(x.to("meta"), w.to("meta"), None, *settings) is None
    assert calls.known(x.numpy(), w, b, *settings) is None
    assert calls.known(x, w, b, 1, 0.0, 1, 1, "zeros") is None
    assert calls.known(x, w, b, 1, False, 1, 1, "zeros") is None
    x.requires_grad_()  # where nothing is recorded, this may be ours
    tw.conv1d(x, w, b, padding=(2, 0))
    assert calls.known(x, w, b, 1, (2, 0), 1, 1, "zeros") is not None
    assert calls.known(x, w, b, 1, (2.0, 0), 1, 1, "zeros") is None
    assert calls.known(x, w, b, [1], 0, 1, 1, "zeros") is None
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(before + 1)
        assert calls.known(x, w, b, *settings) is None
    finally:
        torch.set_num_threads(before)


def test_what_torch_refuses_of_a_known_call_is_refused_in_our_words():
    x, w, b = dense()
    tw.conv1d(x, w, b)
    with pytest.raises(tw.ShapeError, match="bias"):
        tw.conv1d(x, w, b[:5])
    with pytest.raises(tw.ShapeError, match="weight type"):
        tw.conv1d(x, w.double(), b.double())


def test_a_known_call_that_fails_is_not_padded_twice(monkeypatch):
    x, w, b = dense(requires_grad=True)
    wanted = tw.conv1d(x, w, b, padding="causal")
    assert next(iter(calls._known.values())).pads == (2, 0)
    convolution, failures = torch.conv1d, [RuntimeError("no memory, this once")]

    def fails_once(*arguments):
        if failures:
            raise failures.pop()
        return convolution(*arguments)

    monkeypatch.setattr(torch, "conv1d", fails_once)
    again = tw.conv1d(x, w, b, padding="causal")
    assert not failures
    assert torch.equal(again, wanted)


def test_what_is_no_tensor_is_said_before_and_after_a_call_was_known():
    torch.set_num_threads(1)
    x, w = torch.randn(1, 8, 600), torch.randn(6, 8, 9)
    for _ in range(2):
        with pytest.raises(TypeError, match="weight must be"):
            tw.conv1d(x, w.numpy())
        with pytest.raises(TypeError, match="bias must be"):
            tw.conv1d(x, w, [0.0] * 6)
        with pytest.raises(tw.ShapeError, match="one device"):
            tw.conv1d(x, w.to("meta"))
        with pytest.raises(tw.ShapeError, match="one device"):
            tw.conv1d(x, w, torch.zeros(6, device="meta"))
        tw.conv1d(x, w)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_tracing_leaves_no_calls_behind():
    x, w = torch.randn(1, 1, 20), torch.randn(1, 1, 3)
    traced = torch.jit.trace(lambda x: tw.conv1d(x, w), x, check_trace=False)
    assert not calls._known
    torch.testing.assert_close(traced(x), F.conv1d(x, w))


@pytest.mark.usefixtures("known_processor")
def test_an_input_gradient_is_by_the_plans_kernel_where_it_is_recorded_itself():
    """Recorded alone, the same convolution would be torch's: other bits for second gradients."""
    torch.set_num_threads(1)
    found = 0
    for length in range(1500, 2500, 25):
        x, w = torch.randn(1, 2, length, requires_grad=True), torch.randn(1, 2, 31)
        posed = Problem.of(x, w)
        alone = choose_training(of_input_gradient(posed)).forward
        if choose_training(posed).of_input != "direct" or alone != "native":
            continue
        found += 1
        grad = torch.randn(1, 1, posed.output_length)
        y = tw.conv1d(x, w.requires_grad_())
        (once,) = torch.autograd.grad(y, x, grad, retain_graph=True)
        (recorded,) = torch.autograd.grad(y, x, grad, create_graph=True)
        assert torch.equal(once, recorded)
        (frozen,) = torch.autograd.grad(tw.conv1d(x, w.detach()), x, grad, create_graph=True)
        assert torch.equal(once, frozen)
    assert found > 0


def test_the_kernels_of_gradients_are_those_of_the_forwards_plan():
    torch.set_num_threads(1)
    x, w = torch.randn(1, 4, 20_000, requires_grad=True), torch.randn(4, 4, 9, requires_grad=True)
    assert choose_training(Problem.of(x, w)) == ("direct", "direct", "direct")
    y = tw.conv1d(x, w)
    expected = torch.autograd.grad(y, (x, w), torch.ones_like(y), retain_graph=True)
    with tw.options(kernel="native"):
        again = torch.autograd.grad(y, (x, w), torch.ones_like(y))
    assert all(map(torch.equal, expected, again))


def test_memory_of_calls_is_bounded(monkeypatch):
    monkeypatch.setattr(calls, "_MOST_KNOWN", 8)
    for length in range(10, 40):
        tw.conv1d(torch.zeros(1, 1, length), torch.zeros(1, 1, 3))
    assert len(calls._known) <= 8


@pytest.mark.usefixtures("known_processor")
def test_small_savings_are_not_worth_being_recorded(monkeypatch):
    """A forward that saves less than recording costs is torch's whole call where gradients are."""
    torch.set_num_threads(1)
    x, w = torch.randn(1, 8, 600), torch.randn(6, 8, 9)
    ours, posed = KERNELS["direct"], Problem.of(x, w)
    assert choose(posed).kernel == "direct"
    assert choose_training(posed) == NATIVE_TRAINING
    ran = []

    def run(*arguments):
        ran.append("direct")
        return ours.run(*arguments)

    def by_ours(weight, bias=None):
        ran.clear()
        y = tw.conv1d(x, weight, bias)
        torch.testing.assert_close(y, F.conv1d(x, w, bias), rtol=1e-4, atol=1e-4)
        assert y.grad_fn is None or type(y.grad_fn).__name__ == "ConvolutionBackward0"
        return ran == ["direct"]

    monkeypatch.setitem(KERNELS, "direct", replace(ours, run=run))
    watched = w.clone().requires_grad_()
    for _ in range(2):  # known calls keep the two apart
        assert by_ours(w)
        assert not by_ours(watched)
        assert not by_ours(w, torch.zeros(6).requires_grad_())
        with torch.no_grad():
            assert by_ours(watched)


@pytest.mark.usefixtures("known_processor")
def test_large_savings_are_recorded_and_the_plan_says_so():
    torch.set_num_threads(1)
    x = torch.randn(1, 1, 200_000)
    layer = tw.Conv1d(1, 1, 31)
    plan = tw.explain(layer, x[..., :300]).plan
    assert plan.training is not None
    assert "where gradients are recorded: " in str(plan)
    assert choose_training(Problem.of(x, layer.weight)).forward == "direct"
    assert type(layer(x).grad_fn).__name__ == "_RecordedBackward"


@pytest.mark.usefixtures("known_processor")
def test_the_gradients_of_a_layer_do_not_depend_on_the_batch():
    torch.set_num_threads(1)
    layer = tw.Conv1d(8, 8, 5, groups=8)
    x = torch.randn(3, 8, 50_000, requires_grad=True)
    assert choose_training(Problem.of(x, layer.weight, groups=8)).of_input == "direct"
    (whole,) = torch.autograd.grad(layer(x).square().sum(), x)
    (one,) = torch.autograd.grad(layer(x[1:2]).square().sum(), x)
    assert torch.equal(whole[1:2], one[1:2])
    assert isinstance(layer, nn.Conv1d)
