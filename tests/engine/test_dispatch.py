"""The one cache of decisions: a call is run as the plan says, whatever surrounds it."""

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tapwise as tw
from tapwise.engine import dispatch, op
from tapwise.engine.adjoint import input_gradient_problem
from tapwise.engine.kernels import KERNELS
from tapwise.engine.plan import NATIVE_TRAINING, choose, choose_kernel, choose_training
from tapwise.engine.problem import Problem

SETTINGS = (1, 0, 1, 1, "zeros", False, 0)


@pytest.fixture(autouse=True)
def _fresh():
    threads = torch.get_num_threads()
    dispatch._decisions.clear()
    yield
    torch.set_num_threads(threads)


def dense(length=400, requires_grad=False):
    torch.manual_seed(0)
    x, w, b = torch.randn(2, 96, length), torch.randn(96, 96, 3), torch.randn(96)
    return [t.requires_grad_(requires_grad) for t in (x, w, b)]


def is_cached(*arguments):
    return dispatch.run_cached(*arguments) is not None


@pytest.mark.parametrize("padding", [0, 1, (1,), (2, 0), "causal", "same", "full", (0, 3)])
@pytest.mark.parametrize("grad", [False, True])
def test_a_cached_call_gives_the_same_outputs_and_gradients(padding, grad):
    x, w, b = dense(requires_grad=grad)
    first = tw.conv1d(x, w, b, padding=padding)
    assert len(dispatch._decisions) == 1
    again = tw.conv1d(x, w, b, padding=padding)
    assert len(dispatch._decisions) == 1
    assert torch.equal(first, again)
    g = Problem.of(x, w, b, padding=padding).geometry
    expected = F.conv1d(F.pad(x.double(), g.padding), w.double(), b.double())
    torch.testing.assert_close(again.double(), expected, rtol=1e-4, atol=1e-3)
    assert again.is_contiguous()
    if grad:
        ours = torch.autograd.grad(again, (x, w, b), torch.ones_like(again))
        theirs = torch.autograd.grad(expected, (x, w, b), torch.ones_like(expected))
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-2)


def test_autocast_has_decisions_of_its_own():
    """Half precision may have another plan than float32: neither speaks for the other."""
    x, w, b = dense()
    with torch.autocast("cpu", torch.bfloat16):
        half = tw.conv1d(x, w, b)
    assert not is_cached(x, w, b, SETTINGS)
    assert tw.conv1d(x, w, b).dtype == torch.float32
    assert len(dispatch._decisions) == 2
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(half, tw.conv1d(x, w, b))
    with torch.autocast("cpu", torch.float16):
        assert not is_cached(x, w, b, SETTINGS)
    assert len(dispatch._decisions) == 2


def test_options_modes_threads_and_other_types_are_not_taken_for_the_same_call():
    x, w, b = dense()
    tw.conv1d(x, w, b)
    assert is_cached(x, w, b, SETTINGS)
    with tw.options(kernel="reference"):
        assert not is_cached(x, w, b, SETTINGS)
    with torch.overrides.BaseTorchFunctionMode():
        assert not is_cached(x, w, b, SETTINGS)
    assert not is_cached(x.double(), w.double(), b.double(), SETTINGS)
    assert not is_cached(x.to("meta"), w.to("meta"), None, SETTINGS)
    assert not is_cached(x.numpy(), w, b, SETTINGS)
    for wrong in (0.0, False):
        assert not is_cached(x, w, b, (1, wrong, 1, 1, "zeros", False, 0))
    tw.conv1d(x, w, b, padding=(2, 0))
    assert is_cached(x, w, b, (1, (2, 0), 1, 1, "zeros", False, 0))
    assert not is_cached(x, w, b, (1, (2.0, 0), 1, 1, "zeros", False, 0))
    assert not is_cached(x, w, b, ([1], 0, 1, 1, "zeros", False, 0))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(before + 1)
        assert not is_cached(x, w, b, SETTINGS)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("kernel", [None, "direct"])
def test_a_wrong_bias_or_weight_is_refused_before_and_after_a_call_was_cached(kernel):
    x, w, b = dense()
    with tw.options(kernel=kernel):
        tw.conv1d(x, w, b)
        for wrong in (b[:5], b.double(), b.to("meta")):
            with pytest.raises(tw.ShapeError, match="bias"):
                tw.conv1d(x, w, wrong)
        with pytest.raises(tw.ShapeError, match="weight type"):
            tw.conv1d(x, w.double(), b.double())
        with pytest.raises(tw.ShapeError, match="one device"):
            tw.conv1d(x, w.to("meta"), b)
        for wrong in (1.0, (1.0,)):
            with pytest.raises(TypeError, match="integer"):
                tw.conv1d(x, w, b, stride=wrong)


def test_what_is_no_tensor_is_refused_before_and_after_a_call_was_cached():
    torch.set_num_threads(1)
    x, w = torch.randn(1, 8, 600), torch.randn(6, 8, 9)
    for _ in range(2):
        with pytest.raises(TypeError, match="weight must be"):
            tw.conv1d(x, w.numpy())
        with pytest.raises(TypeError, match="bias must be"):
            tw.conv1d(x, w, [0.0] * 6)
        tw.conv1d(x, w)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_tracing_leaves_no_decision_behind():
    x, w = torch.randn(1, 1, 20), torch.randn(1, 1, 3)
    traced = torch.jit.trace(lambda x: tw.conv1d(x, w), x, check_trace=False)
    assert not dispatch._decisions
    torch.testing.assert_close(traced(x), F.conv1d(x, w))


def test_layers_functions_streams_and_accelerated_models_share_the_cache():
    x = torch.randn(1, 4, 300)
    ours = tw.Conv1d(4, 4, 5, padding=2)
    plain = nn.Conv1d(4, 4, 5, padding=2)
    plain.load_state_dict(ours.state_dict())
    with torch.no_grad():
        ours(x)
        assert len(dispatch._decisions) == 1
        with tw.accelerate(plain):
            assert torch.equal(plain(x), ours(x))
        assert len(dispatch._decisions) == 1
        state = ours.init_state()
        for _ in range(4):
            _, state = ours.step(x, state)
    assert 2 <= len(dispatch._decisions) <= 3  # the first chunk, and all later ones


def test_a_graphs_op_is_decided_once_and_never_calls_itself():
    """Under two modes that trace, the op runs below one of them."""
    x, w = torch.randn(1, 2, 4000), torch.randn(2, 1, 31)
    settings = (31, 1, 1, 30, 0, 2, "zeros", False, 0)
    expected = torch.ops.tapwise.convolution(x, w, None, *settings)
    from torch.utils._python_dispatch import TorchDispatchMode

    class Passes(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            return func(*args, **(kwargs or {}))

    with Passes(), Passes():
        assert torch.equal(tw.conv1d(x, w, padding="causal", groups=2), expected)


@pytest.mark.usefixtures("known_processor")
def test_an_input_gradient_is_by_the_plans_kernel_where_it_requires_a_gradient_itself():
    """By itself the same convolution would be torch's: other bits for second gradients."""
    torch.set_num_threads(1)
    found = 0
    for length in range(1500, 2500, 25):
        x, w = torch.randn(1, 2, length, requires_grad=True), torch.randn(1, 2, 31)
        posed = Problem.of(x, w)
        alone = choose_training(input_gradient_problem(posed)).forward
        if choose_training(posed).grad_input != "direct" or alone != "native":
            continue
        found += 1
        grad = torch.randn(1, 1, posed.output_length)
        y = tw.conv1d(x, w.requires_grad_())
        (once,) = torch.autograd.grad(y, x, grad, retain_graph=True)
        (with_graph,) = torch.autograd.grad(y, x, grad, create_graph=True)
        assert torch.equal(once, with_graph)
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


def test_the_cache_is_bounded(monkeypatch):
    monkeypatch.setattr(dispatch, "MOST_DECISIONS", 8)
    for length in range(10, 40):
        tw.conv1d(torch.zeros(1, 1, length), torch.zeros(1, 1, 3))
    assert len(dispatch._decisions) == 8
    assert is_cached(torch.zeros(1, 1, 39), torch.zeros(1, 1, 3), None, SETTINGS)


@pytest.mark.usefixtures("known_processor")
def test_small_savings_are_not_worth_an_autograd_function(monkeypatch):
    """A forward that saves less than our function costs is torch's whole call where gradients are."""
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
    with_grad = w.clone().requires_grad_()
    for _ in range(2):  # cached calls keep the two apart
        assert by_ours(w)
        assert not by_ours(with_grad)
        assert not by_ours(w, torch.zeros(6).requires_grad_())
        with torch.no_grad():
            assert by_ours(with_grad)


@pytest.mark.usefixtures("known_processor")
def test_large_savings_are_worth_it_and_the_plan_says_so():
    torch.set_num_threads(1)
    x = torch.randn(1, 1, 200_000)
    layer = tw.Conv1d(1, 1, 31)
    plan = tw.explain(layer, x[..., :300]).plan
    assert plan.training is not None
    assert "where gradients are recorded: " in str(plan)
    assert choose_training(Problem.of(x, layer.weight)).forward == "direct"
    assert type(layer(x).grad_fn).__name__ == "ConvolutionBackward"


@pytest.mark.usefixtures("known_processor")
def test_the_gradients_of_a_layer_do_not_depend_on_the_batch():
    torch.set_num_threads(1)
    layer = tw.Conv1d(8, 8, 5, groups=8)
    x = torch.randn(3, 8, 50_000, requires_grad=True)
    assert choose_training(Problem.of(x, layer.weight, groups=8)).grad_input == "direct"
    (batch,) = torch.autograd.grad(layer(x).square().sum(), x)
    (one,) = torch.autograd.grad(layer(x[1:2]).square().sum(), x)
    assert torch.equal(batch[1:2], one[1:2])
    assert isinstance(layer, nn.Conv1d)


def test_a_transposed_calls_bias_is_checked_although_we_add_it():
    x, w, b = torch.randn(1, 4, 50), torch.randn(4, 3, 4), torch.randn(3)
    tw.conv_transpose1d(x, w, b, 2, "causal")
    for wrong in (torch.randn(1), b.double()):
        with pytest.raises(tw.ShapeError):
            tw.conv_transpose1d(x, w, wrong, 2, "causal")


def test_no_setting_is_taken_for_an_equal_float():
    x, w = torch.randn(1, 4, 50), torch.randn(4, 3, 4)
    tw.conv_transpose1d(x, w, None, 2, 0, 1)
    tw.conv_transpose1d(x, w, None, 2, 0, (1,))
    for wrong in (1.0, (1.0,)):
        with pytest.raises(TypeError):
            tw.conv_transpose1d(x, w, None, 2, 0, wrong)
    tw.conv1d(x, torch.randn(4, 4, 3), None, 2, 1, 1, 1)
    for n in range(4):
        settings = [2, 1, 1, 1]
        settings[n] = float(settings[n])
        with pytest.raises(TypeError):
            tw.conv1d(x, torch.randn(4, 4, 3), None, *settings)


def test_calls_with_and_without_a_bias_are_both_kept():
    x, w, b = dense()
    for bias in (b, None, b, None):
        tw.conv1d(x, w, bias, padding=2)
    assert len(dispatch._decisions) == 2


def test_the_op_ignores_autocast_as_its_shapes_say():
    x, w, _ = dense()
    expected = op.convolution(Problem.of(x, w, None).geometry, x, w, None)
    with torch.autocast("cpu", torch.bfloat16):
        y = op.convolution(Problem.of(x, w, None).geometry, x, w, None)
    assert y.dtype == torch.float32
    assert torch.equal(y, expected)


def test_threads_may_fill_the_cache_together(monkeypatch):
    monkeypatch.setattr(dispatch, "MOST_DECISIONS", 20)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            filled = [
                pool.submit(
                    lambda n=n: [dispatch._keep((n, m), (None, None), dispatch._generation) for m in range(2000)]
                )
                for n in range(4)
            ]
        assert all(len(future.result()) == 2000 for future in filled)
        assert len(dispatch._decisions) <= 20
    finally:
        sys.setswitchinterval(interval)
        dispatch._decisions.clear()


@pytest.mark.parametrize("dilation", [1, 2, 5])
@pytest.mark.parametrize("channels", [1, 2, 8])
def test_a_plan_that_is_explained_is_the_plan_that_runs(dilation, channels):
    for length in (12, 40, 200, 1000, 20_000):
        x, w = torch.randn(1, channels, length), torch.randn(channels, channels, 2)
        problem = Problem.of(x, w, None, dilation=dilation)
        assert choose(problem).kernel == choose_kernel(problem)
