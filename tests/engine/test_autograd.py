"""The ops as torch sees them: gradients, transforms, compiled and exported graphs, autocast."""

import itertools
import json
import pickle
from pathlib import Path

import pytest
import torch
import torch._dynamo.testing
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import tapwise as tw
from tapwise.engine.kernels import KERNELS
from tapwise.engine.problem import Problem

TUTORIAL = json.loads((Path(__file__).parents[1] / "data" / "tutorial.json").read_text())
KERNEL_CHOICES = [None, *KERNELS]


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("kernel", KERNEL_CHOICES)
def test_gradcheck_beyond_torchs_padding(mode, kernel):
    torch.manual_seed(0)
    x = torch.randn(2, 2, 5, dtype=torch.float64, requires_grad=True)
    w = torch.randn(4, 1, 3, dtype=torch.float64, requires_grad=True)
    b = torch.randn(4, dtype=torch.float64, requires_grad=True)

    def function(x, w, b):
        return tw.conv1d(x, w, b, 2, (7, 3), 2, 2, mode)

    with tw.options(kernel=kernel):
        assert torch.autograd.gradcheck(function, (x, w, b), check_forward_ad=True, check_batched_grad=True)
        assert torch.autograd.gradgradcheck(function, (x, w, b))


@pytest.mark.parametrize("kernel", [None, "reference"])  # without the op, and within it
def test_gradcheck_of_transposed(kernel):
    torch.manual_seed(0)
    x = torch.randn(2, 4, 5, dtype=torch.float64, requires_grad=True)
    w = torch.randn(4, 3, 3, dtype=torch.float64, requires_grad=True)
    b = torch.randn(6, dtype=torch.float64, requires_grad=True)
    for padding, stride, extra in (("causal", 5, 0), ((2, 1), 3, 2), (1, 2, 1)):

        def function(x, w, b, settings=(stride, padding, extra, 2)):
            return tw.conv_transpose1d(x, w, b, *settings)

        with tw.options(kernel=kernel):
            assert torch.autograd.gradcheck(function, (x, w, b), check_forward_ad=True, check_batched_grad=True)
            assert torch.autograd.gradgradcheck(function, (x, w, b))


def test_gradients_of_strided_and_expanded_outputs():
    x = torch.randn(2, 3, 20, requires_grad=True)
    w = torch.randn(3, 1, 4, requires_grad=True)
    y = tw.conv1d(x, w, padding="causal", groups=3)
    expected = F.conv1d(F.pad(x, (3, 0)), w, groups=3)
    for reduce in (torch.sum, lambda t: t[..., ::2].sum(), lambda t: t.transpose(1, 2).reshape(-1).cumsum(0).sum()):
        ours = torch.autograd.grad(reduce(y), (x, w), retain_graph=True)
        theirs = torch.autograd.grad(reduce(expected), (x, w), retain_graph=True)
        torch.testing.assert_close(ours, theirs)


def test_vmap_grad_jvp_and_hessian():
    torch.manual_seed(0)
    x, w = torch.randn(5, 2, 3, 12), torch.randn(4, 3, 3)

    def ours(x, w):
        return tw.conv1d(x, w, padding="causal")

    def theirs(x, w):
        return F.conv1d(F.pad(x, (2, 0)), w)

    for transform in (
        lambda f: torch.func.vmap(f, (0, None))(x, w),
        lambda f: torch.func.vmap(f, (None, 0))(x[0], torch.stack([w, w + 1])),
        lambda f: torch.func.vmap(f, (0, 0))(x[:2], torch.stack([w, w + 1])),
        lambda f: torch.func.grad(lambda x: f(x, w).square().sum())(x[0]),
        lambda f: torch.func.jvp(lambda x: f(x, w), (x[0],), (x[1],))[1],
        lambda f: torch.func.jacrev(f, 1)(x[0], w),
        lambda f: torch.func.jacfwd(f, 1)(x[0], w),
        lambda f: torch.func.vmap(torch.func.grad(lambda w, x: f(x, w).square().sum()), (None, 0))(w, x),
        lambda f: torch.func.hessian(lambda w: f(x[0], w).square().sum())(w),
    ):
        torch.testing.assert_close(transform(ours), transform(theirs))


def test_autocast_casts_as_torch_does_and_the_plan_sees_it():
    x, w, b = torch.randn(2, 4, 50), torch.randn(4, 1, 3), torch.randn(4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = tw.conv1d(x, w, b, groups=4)
        assert y.dtype == torch.bfloat16
        torch.testing.assert_close(y, F.conv1d(x, w, b, groups=4))
        assert Problem.of(x, w, b, groups=4).dtype == torch.bfloat16
        assert tw.conv1d(x.double(), w.double(), groups=4).dtype == torch.float64
        for kernel in KERNELS:
            with tw.options(kernel=kernel):
                assert tw.conv1d(x, w, b, groups=4).dtype == torch.bfloat16


@pytest.mark.parametrize("layer", ["function", "layer"])
def test_one_compiled_graph_serves_all_lengths(layer):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    w = torch.randn(4, 3, 5)
    causal = tw.CausalConv1d(3, 4, 5)
    function = causal if layer == "layer" else (lambda x: tw.conv1d(x, w, padding="causal"))
    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, backend=backend)
    for length in range(10, 30):
        x = torch.randn(2, 3, length)
        torch.testing.assert_close(compiled(x), function(x))
    assert 1 <= len(graphs) <= 2


def test_compiled_gradients():
    torch._dynamo.reset()
    w = torch.randn(4, 3, 5, requires_grad=True)

    def function(x):
        return tw.conv1d(x, w, stride=2, padding=(3, 1), padding_mode="reflect")

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    for length in (9, 14, 31):
        x = torch.randn(2, 3, length, requires_grad=True)
        ours = torch.autograd.grad(compiled(x).square().sum(), (x, w))
        theirs = torch.autograd.grad(function(x).square().sum(), (x, w))
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("transposed", [False, True])
def test_the_op_passes_torchs_own_checks(transposed):
    x = torch.randn(2, 4, 9, requires_grad=True)
    w = torch.randn(4, 2, 3, requires_grad=True)
    b = torch.randn(4, requires_grad=True)
    settings = (3, 2, 1, 1, 2, 2, "zeros", transposed, 0)
    op = torch.ops.tapwise.convolution.default
    torch.library.opcheck(op, (x, w, b, *settings))
    torch.library.opcheck(op, (x, w, None, *settings))


def test_fake_shapes_are_the_real_ones():
    for stride, left, extra in itertools.product((1, 2, 5), (0, 1), (0, 1)):
        for backwards in (False, True):
            settings = (3, stride, 2, left, 1, 1, "zeros", backwards, extra * backwards)
            args = (torch.randn(1, 2, 11), torch.randn(2, 2, 3), None, *settings)
            real = torch.ops.tapwise.convolution(*args)
            fake = torch.ops.tapwise.convolution(*(a.to("meta") if torch.is_tensor(a) else a for a in args))
            assert fake.shape == real.shape


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_compiled_gradients_of_copying_modes_take_two_graphs(mode):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return make_boxed_func(graph.forward)

    torch._dynamo.reset()
    layer = tw.Conv1d(2, 4, 3, padding=(1, 2), padding_mode=mode)
    compiled = torch.compile(layer, fullgraph=True, backend=aot_autograd(fw_compiler=backend))
    for length in range(8, 20):
        x = torch.randn(1, 2, length, requires_grad=True)
        ours = torch.autograd.grad(compiled(x).square().sum(), x)
        torch.testing.assert_close(ours, torch.autograd.grad(layer(x).square().sum(), x))
    assert 2 <= len(graphs) <= 4  # at most two of forward and two of backward


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("strict", [False, True])
def test_export_with_a_free_length(mode, strict):
    layer = tw.Conv1d(2, 4, 3, padding=(1, 2), padding_mode=mode)
    length = torch.export.Dim("length", min=8, max=4096)
    program = torch.export.export(layer, (torch.randn(1, 2, 20),), dynamic_shapes={"input": {2: length}}, strict=strict)
    for n in (8, 33, 4000):
        x = torch.randn(1, 2, n)
        torch.testing.assert_close(program.module()(x), layer(x))


def test_autocast_reaches_what_runs_outside_the_op():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for y in (
            tw.CausalConvTranspose1d(2, 2, 4, stride=2)(torch.zeros(1, 2, 5)),
            tw.CausalConv1d(2, 2, 4)(torch.zeros(0, 2, 5)),
        ):
            assert y.dtype == torch.bfloat16


class Marked(torch.Tensor):
    pass


def test_subclasses_keep_their_class():
    x = torch.randn(1, 2, 9).as_subclass(Marked)
    assert type(tw.conv1d(x, torch.randn(2, 2, 3))) is Marked


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("padding", [(0, 0), (2, 2), (7, 3)])
def test_an_inputs_gradient_by_torch_reads_no_padded_input(mode, padding):
    x, w = torch.randn(2, 3, 40), torch.randn(4, 3, 5)

    def gradient(function, leaf, **how):
        y = function(leaf.requires_grad_())
        return torch.autograd.grad((y * y).sum(), leaf, **how)[0]

    def ours(x):
        with tw.options(kernel="fft"):  # for the outputs; torch's for gradients of a stride
            return tw.conv1d(x, w, stride=2, padding=padding, padding_mode=mode)

    def theirs(x):
        padded = F.pad(x, padding, "constant" if mode == "zeros" else mode)
        return F.conv1d(padded, w, stride=2)

    torch.use_deterministic_algorithms(True)  # fills what is not written with nan
    try:
        found = gradient(ours, x.clone())
    finally:
        torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(found, gradient(theirs, x.clone()), rtol=1e-4, atol=1e-4)

    def twice(function):
        return gradient(lambda leaf: gradient(function, leaf, create_graph=True), x.clone())

    torch.testing.assert_close(twice(ours), twice(theirs), rtol=1e-3, atol=1e-3)


def test_an_inputs_gradient_is_connected_where_it_is_linear():
    x, w = torch.randn(2, 3, 40, requires_grad=True), torch.randn(4, 3, 5)
    with tw.options(kernel="fft"):
        y = tw.conv1d(x, w, stride=2, padding=(7, 3))
    (once,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    assert once.requires_grad
    once.square().sum().backward()


def test_gradients_may_come_as_a_subclass_or_as_a_batch_of_them():
    x, w = torch.randn(2, 3, 50, requires_grad=True), torch.randn(6, 3, 5, requires_grad=True)
    with tw.options(kernel="direct"):
        y = tw.conv1d(x, w)
        grads = torch.randn(4, *y.shape)
        for leaf in (x, w):
            batch = torch.autograd.grad(y, leaf, grads, retain_graph=True, is_grads_batched=True)[0]
            for one, grad in zip(batch, grads, strict=True):
                alone = torch.autograd.grad(F.conv1d(x, w), leaf, grad)[0]
                torch.testing.assert_close(one, alone, rtol=1e-4, atol=1e-4)
                marked = torch.autograd.grad(y, leaf, grad.as_subclass(Marked), retain_graph=True)
                torch.testing.assert_close(torch.Tensor(marked[0]), alone, rtol=1e-4, atol=1e-4)


def test_compiled_gradients_of_a_stride_take_two_graphs():
    torch._dynamo.reset()
    layer, frames = tw.Conv1d(2, 2, 31, stride=4, groups=2), torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(layer, fullgraph=True, backend=frames)
    for length in range(3000, 3010):
        x = torch.randn(1, 2, length, requires_grad=True)
        compiled(x).square().sum().backward()
        y = torch.autograd.grad(layer(x).square().sum(), x)[0]
        torch.testing.assert_close(x.grad, y, rtol=1e-4, atol=1e-4)
    assert frames.frame_count <= 2


def test_compiled_transforms_of_functions():
    x, w = torch.randn(2, 2, 500), torch.randn(2, 1, 31)

    def loss(w, x):
        return tw.conv1d(x, w, groups=2).square().sum()

    torch._dynamo.reset()
    found = torch.compile(torch.func.grad(loss), backend="aot_eager")(w, x)
    torch.testing.assert_close(found, torch.func.grad(loss)(w, x), rtol=1e-4, atol=1e-3)


def test_gradients_are_of_the_forwards_type_under_autocast():
    x, w = torch.randn(2, 2, 3000, requires_grad=True), torch.randn(2, 1, 31, requires_grad=True)
    y = tw.conv1d(x, w, groups=2)
    g = torch.randn_like(y)
    plain = torch.autograd.grad(y, (x, w), g, retain_graph=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = torch.autograd.grad(y, (x, w), g)
    assert all(torch.equal(a, b) for a, b in zip(plain, cast, strict=True))


def test_a_transposed_gradient_where_all_outputs_were_added():
    x = torch.randn(2, 10, 2, dtype=torch.float64, requires_grad=True)
    w = torch.randn(10, 1, 1, dtype=torch.float64, requires_grad=True)
    with tw.options(kernel="direct"):
        y = tw.conv_transpose1d(x, w, None, 1, (4, 0), 3, 2, 4)
        grads = torch.autograd.grad(y.sum(), (x, w))
    assert all(not g.any() for g in grads)


def test_another_layout_is_torchs():
    x, w = torch.randn(1, 2, 500), torch.randn(2, 1, 31)
    y = tw.conv1d(x.to_mkldnn(), w, groups=2)
    torch.testing.assert_close(y.to_dense(), tw.conv1d(x, w, groups=2), rtol=1e-4, atol=1e-4)


def test_numbers_that_are_not_as_they_lie_in_memory():
    halves = torch.randn(8, dtype=torch.cfloat)
    negated = halves.conj().imag  # a view whose numbers torch negates as it reads them
    assert negated.is_neg()
    x, w = torch.randn(1, 8, 40_000), torch.randn(8, 1, 5)
    torch.testing.assert_close(tw.conv1d(x, w, negated, groups=8), F.conv1d(x, w, negated, groups=8))
    one = torch.randn(1, 1, 1, dtype=torch.cfloat).conj().imag
    torch.testing.assert_close(tw.conv1d(x[:, :1], one), F.conv1d(x[:, :1], one))
    zeros = torch._efficientzerotensor(2, 8, 40_000)
    assert not tw.conv1d(zeros, w, groups=8).any()


def test_backward_on_meta_under_a_mode():
    layer = tw.Conv1d(8, 8, 5, groups=8, device="meta")
    x = torch.randn(2, 8, 4000, device="meta", requires_grad=True)
    with FlopCounterMode(display=False):
        layer(x).sum().backward()
    assert x.grad.shape == x.shape


def test_a_frozen_weight_changes_no_bit_of_the_inputs_gradient():
    for channels, taps, length in ((8, 5, 2000), (2, 64, 3000), (16, 3, 500), (1, 31, 5000)):
        x = torch.randn(2, channels, length, requires_grad=True)
        w = torch.randn(channels, 1, taps)
        grads = []
        for weight in (w, w.clone().requires_grad_()):
            y = tw.conv1d(x, weight, groups=channels, padding="causal")
            grads.append(torch.autograd.grad(y, x, torch.ones_like(y))[0])
        assert torch.equal(*grads)


@pytest.mark.parametrize("stride", [1, 2])
def test_the_compiled_gradient_is_our_op_where_the_eager_one_is(stride):
    graphs = []

    def shown(graph, _):
        graphs.append({str(node.target) for node in graph.graph.nodes})
        return make_boxed_func(graph.forward)

    layer = tw.Conv1d(2, 2, 100, stride, groups=2, padding=(99, 0))
    backend = aot_autograd(fw_compiler=shown, bw_compiler=shown)
    torch.compile(layer, backend=backend, dynamic=False)(torch.randn(1, 2, 2000, requires_grad=True)).sum().backward()
    assert "tapwise.convolution.default" in graphs[0]
    assert {"tapwise.convolution.default", "tapwise.weight_gradient.default"} <= graphs[1]


def test_export_keeps_the_op():
    exported = torch.export.export(tw.Conv1d(8, 8, 5, groups=8), (torch.randn(2, 8, 4000),))
    assert "tapwise.convolution.default" in {str(node.target) for node in exported.graph.nodes}


def test_problems_travel_between_processes():
    problem = Problem.of(torch.zeros(1, 1, 10), torch.zeros(1, 1, 3))
    again = pickle.loads(pickle.dumps(problem))
    assert again == problem
    assert hash(again) == hash(problem)


@pytest.mark.parametrize("kernel", [None, "direct", "gemm"])
@pytest.mark.parametrize("padding", [0, 1, (1, 0)])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_every_mode_has_gradients_at_every_stride(mode, stride, padding, kernel):
    torch.manual_seed(0)
    x, w = (torch.randn(n, 4, size, dtype=torch.float64, requires_grad=True) for n, size in ((2, 40), (4, 9)))
    sides = (padding, padding) if isinstance(padding, int) else padding
    padded = x if sides == (0, 0) else F.pad(x, sides, "constant" if mode == "zeros" else mode)
    with tw.options(kernel=kernel):
        ours = tw.conv1d(x, w, None, stride, padding, 1, 1, mode)
        theirs = F.conv1d(padded, w, None, stride)
        one, other = (torch.autograd.grad((y**3).sum(), (x, w), create_graph=True) for y in (ours, theirs))
        torch.testing.assert_close(one, other)
        one, other = (torch.autograd.grad((g[0] * g[0]).sum() + g[1].sum(), (x, w)) for g in (one, other))
        torch.testing.assert_close(one, other)
