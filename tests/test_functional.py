import copy
import inspect
import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from functorch.compile import make_boxed_func
from hypothesis import given
from hypothesis import strategies as st
from torch._dynamo.backends.common import aot_autograd
from torch.nn import functional as F

import oracle
import tapwise as tw
from strategies import convolutions, transposed
from tapwise.engine import autograd
from tapwise.engine.kernels import KERNELS
from tapwise.engine.problem import Problem

TUTORIAL = json.loads((Path(__file__).parent / "data" / "tutorial.json").read_text())
KERNEL_CHOICES = [None, *KERNELS]
SUMS = [None, "native", "direct", "gemm", "reference"]  # the others transform, and round otherwise


@pytest.mark.parametrize("kernel", SUMS)
@pytest.mark.parametrize("case", TUTORIAL["cases"], ids=lambda case: case["name"])
def test_the_tutorials_cases_exactly(case, kernel):
    x = torch.tensor(TUTORIAL["input"], dtype=torch.float32)[None, None]
    w = torch.tensor(case["weight"], dtype=torch.float32)[:, None]
    settings = {name: case[name] for name in ("stride", "padding", "dilation")}
    with tw.options(kernel=kernel):
        assert tw.conv1d(x, w, **settings).tolist() == [case["output"]]
        layer = tw.Conv1d(1, len(w), case["kernel_size"], bias=False, **settings)
        layer.weight.data = w
        assert layer(x).tolist() == [case["output"]]


def test_arguments_are_torchs_in_torchs_order_and_more():
    ours = list(inspect.signature(tw.conv1d).parameters)
    assert ours == [
        "input", "weight", "bias", "stride", "padding", "dilation", "groups", "padding_mode",
    ]  # fmt: skip
    ours = list(inspect.signature(tw.conv_transpose1d).parameters)
    assert ours == [
        "input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation",
    ]  # fmt: skip


@given(convolutions(), st.booleans())
def test_values_and_gradients_are_those_of_torchs_steps(case, with_bias):
    """The oracle gives the values; torch, fed a padded signal, gives the gradients."""
    geometry, length = case
    torch.manual_seed(length)
    x = torch.randn(2, geometry.groups * 2, length, dtype=torch.float64, requires_grad=True)
    w = torch.randn(geometry.groups, 2, geometry.kernel_size, dtype=torch.float64)
    w.requires_grad_()
    b = torch.randn(geometry.groups, dtype=torch.float64, requires_grad=True) if with_bias else None
    settings = (geometry.stride, geometry.padding, geometry.dilation, geometry.groups)
    y = tw.conv1d(x, w, b, *settings, geometry.padding_mode)
    truth = oracle.conv1d(
        x.detach().numpy(), w.detach().numpy(), None if b is None else b.detach().numpy(),
        *settings, geometry.padding_mode,
    )  # fmt: skip
    np.testing.assert_allclose(y.detach().numpy(), truth, atol=1e-12)
    line = oracle.padded(np.arange(1, length + 1), *geometry.padding, geometry.padding_mode)
    places = torch.from_numpy(line)
    spread = F.pad(x, (1, 0))[..., places]
    expected = F.conv1d(spread, w, b, geometry.stride, 0, geometry.dilation, geometry.groups)
    inputs = [t for t in (x, w, b) if t is not None]
    g = torch.randn_like(y)
    ours = torch.autograd.grad(y, inputs, g)
    for mine, theirs in zip(ours, torch.autograd.grad(expected, inputs, g), strict=True):
        torch.testing.assert_close(mine, theirs)


@given(transposed(), st.booleans())
def test_transposed_values_and_gradients(case, with_bias):
    geometry, length = case
    torch.manual_seed(length)
    x = torch.randn(2, geometry.groups * 2, length, dtype=torch.float64, requires_grad=True)
    w = torch.randn(geometry.groups * 2, 3, geometry.kernel_size, dtype=torch.float64)
    w.requires_grad_()
    b = torch.randn(geometry.groups * 3, dtype=torch.float64, requires_grad=True)
    b = b if with_bias else None
    y = tw.conv_transpose1d(
        x, w, b, geometry.stride, geometry.padding, geometry.output_padding, geometry.groups,
        geometry.dilation,
    )  # fmt: skip
    truth = oracle.conv_transpose1d(
        x.detach().numpy(), w.detach().numpy(), None if b is None else b.detach().numpy(),
        geometry.stride, geometry.padding, geometry.output_padding, geometry.dilation,
        geometry.groups,
    )  # fmt: skip
    np.testing.assert_allclose(y.detach().numpy(), truth, atol=1e-12)
    full = F.conv_transpose1d(x, w, None, geometry.stride, 0, 0, geometry.groups, geometry.dilation)
    full = F.pad(full, (0, geometry.output_padding)) + (0 if b is None else b[:, None])
    expected = full[..., geometry.left : full.shape[-1] - geometry.right]
    inputs = [t for t in (x, w, b) if t is not None]
    g = torch.randn_like(y)
    ours = torch.autograd.grad(y, inputs, g)
    for mine, theirs in zip(ours, torch.autograd.grad(expected, inputs, g), strict=True):
        torch.testing.assert_close(mine, theirs)


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
        assert torch.autograd.gradcheck(
            function, (x, w, b), check_forward_ad=True, check_batched_grad=True
        )
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
            assert torch.autograd.gradcheck(
                function, (x, w, b), check_forward_ad=True, check_batched_grad=True
            )
            assert torch.autograd.gradgradcheck(function, (x, w, b))


def test_gradients_of_strided_and_expanded_outputs():
    x = torch.randn(2, 3, 20, requires_grad=True)
    w = torch.randn(3, 1, 4, requires_grad=True)
    y = tw.conv1d(x, w, padding="causal", groups=3)
    expected = F.conv1d(F.pad(x, (3, 0)), w, groups=3)
    for reduce in (
        torch.sum,
        lambda t: t[..., ::2].sum(),
        lambda t: t.transpose(1, 2).reshape(-1).cumsum(0).sum(),
    ):
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
        lambda f: torch.func.vmap(torch.func.grad(lambda w, x: f(x, w).square().sum()), (None, 0))(
            w, x
        ),
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
    op = autograd.OP.default
    torch.library.opcheck(op, (x, w, b, *settings))
    torch.library.opcheck(op, (x, w, None, *settings))


def test_fake_shapes_are_the_real_ones():
    for stride, left, extra in itertools.product((1, 2, 5), (0, 1), (0, 1)):
        for backwards in (False, True):
            settings = (3, stride, 2, left, 1, 1, "zeros", backwards, extra * backwards)
            args = (torch.randn(1, 2, 11), torch.randn(2, 2, 3), None, *settings)
            real = autograd.OP(*args)
            fake = autograd.OP(*(a.to("meta") if torch.is_tensor(a) else a for a in args))
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
    program = torch.export.export(
        layer, (torch.randn(1, 2, 20),), dynamic_shapes={"input": {2: length}}, strict=strict
    )
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


def test_what_is_no_tensor_is_a_type_error():
    for function in (tw.conv1d, tw.conv_transpose1d):
        with pytest.raises(TypeError, match=r"input must be .* got ndarray"):
            function(np.zeros((1, 1, 5)), torch.ones(1, 1, 3))
        with pytest.raises(TypeError, match=r"weight must be .* got list"):
            function(torch.ones(1, 1, 3), [1, 2])


def test_a_process_that_can_write_nowhere_computes_all_the_same(tmp_path):
    """Numba keeps what it compiled on disk; a read-only container has no place for it."""
    source = shutil.copytree(Path(tw.__file__).parent, tmp_path / "tapwise")
    code = (
        "import numba.core.caching as c\n"
        "for locator in c.CacheImpl._locator_classes: locator.from_function = classmethod(lambda *a: None)\n"
        "import torch, tapwise as tw\n"
        "with tw.options(kernel='direct'): y = tw.conv1d(torch.ones(1, 1, 5), torch.ones(1, 1, 2))\n"
        "assert y.tolist() == [[[2.0] * 4]]"
    )
    environment = {**os.environ, "PYTHONPATH": str(source.parent)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_complex_is_torchs():
    x = torch.randn(2, 2, 9, dtype=torch.complex64, requires_grad=True)
    w = torch.randn(2, 1, 3, dtype=torch.complex64)
    for kernel in KERNEL_CHOICES:
        with tw.options(kernel=kernel):
            y = tw.conv1d(x, w, padding=(2, 0), groups=2, padding_mode="circular")
            pad = torch.cat([x[..., -2:], x], -1)
            torch.testing.assert_close(y, F.conv1d(pad, w, groups=2))


def test_integers_are_summed_exactly():
    x, w = torch.arange(10)[None, None], torch.tensor([[[1, 2, 3]]])
    for kernel in KERNEL_CHOICES:
        with tw.options(kernel=kernel):
            assert tw.conv1d(x, w).dtype == torch.int64
            assert tw.conv1d(x, w).tolist() == F.conv1d(x, w).tolist()


@pytest.mark.parametrize("kernel", KERNEL_CHOICES)
def test_nothing_to_multiply(kernel):
    with tw.options(kernel=kernel):
        w, b = torch.randn(4, 2, 3, requires_grad=True), torch.randn(4, requires_grad=True)
        assert tw.conv1d(torch.zeros(0, 2, 10), w, b).shape == (0, 4, 8)
        for padding in ("causal", "semicausal"):
            for mode in ("zeros", "reflect"):
                y = tw.conv1d(torch.zeros(3, 2, 0), w, b, padding=padding, padding_mode=mode)
                assert y.shape == (3, 4, 0)
        y.sum().backward()
        assert w.grad.abs().sum() == 0
        no_channels = tw.conv1d(torch.zeros(2, 0, 10), torch.zeros(4, 0, 3), b)
        assert torch.equal(no_channels, b[:, None].expand(2, 4, 8))
        assert tw.conv1d(torch.zeros(2, 0, 10), torch.zeros(4, 0, 3)).abs().sum() == 0
        y = tw.conv_transpose1d(torch.zeros(3, 2, 0), torch.ones(2, 4, 3), b, padding="causal")
        assert y.shape == (3, 4, 0)


def test_a_signal_without_batch():
    x, w = torch.randn(2, 9), torch.randn(4, 2, 3)
    assert torch.equal(tw.conv1d(x, w), tw.conv1d(x[None], w)[0])
    w = torch.randn(2, 4, 3)
    assert torch.equal(tw.conv_transpose1d(x, w), tw.conv_transpose1d(x[None], w)[0])


class Marked(torch.Tensor):
    pass


def test_subclasses_keep_their_class():
    x = torch.randn(1, 2, 9).as_subclass(Marked)
    assert type(tw.conv1d(x, torch.randn(2, 2, 3))) is Marked


def refusal(*arguments, transposed=False, **settings):
    function = tw.conv_transpose1d if transposed else tw.conv1d
    with pytest.raises(tw.ShapeError) as caught:
        function(*arguments, **settings)
    return str(caught.value)


def test_errors_show_both_sides_and_the_fix():
    z, w = torch.zeros, torch.ones(4, 2, 3)
    message = refusal(z(5, 10, 2), w)
    assert message.startswith("Given groups=1, weight of size [4, 2, 3], expected input[5, 10, 2]")
    assert "did you mean x.transpose(1, 2)?" in message
    assert "did you mean x.transpose(0, 1)?" in refusal(z(10, 2), w)
    assert "its one channel on its last axis" in refusal(z(5, 10, 1), torch.ones(4, 1, 3))
    assert "x[None, None, :]" in refusal(z(10), w)
    assert "but got input of size: [1, 2, 3, 4]" in refusal(z(1, 2, 3, 4), w)
    message = refusal(torch.arange(20).reshape(1, 2, 10), w)
    assert "should be the same" in message
    assert "x.to(torch.float32)" in message
    assert "x.to(torch.float32)" in refusal(z(1, 2, 10).double(), w)
    assert "bias.to(torch.float32)" in refusal(z(1, 2, 10), w, z(4).double())
    assert "out_channels (4) divisible by groups (3)" in refusal(z(1, 6, 10), w, groups=3)
    assert "give 6, or set groups=1" in refusal(z(1, 2, 10), torch.ones(6, 2, 3), groups=3)
    assert "x.expand(-1, 2, -1)" in refusal(z(1, 1, 10), w)
    assert "expected bias to be 1-dimensional with 4 elements" in refusal(z(1, 2, 10), w, z(5))
    message = refusal(z(1, 2, 2), w)
    assert "Kernel size can't be greater than actual input size" in message
    assert "at least 3 samples" in message
    assert "beyond the largest" in refusal(z(1, 2, 9), w, padding=2**63)
    assert "beyond the largest" in refusal(z(1, 2, 9), w, dilation=2**31)
    assert "or a pair" in refusal(z(1, 2, 9), w, padding=(1, 2, 3))
    assert "list of 1 values" in refusal(z(1, 2, 9), w, stride=(1, 2))
    assert "can't fill padding from 1 samples" in refusal(
        z(1, 2, 1), w, padding=2, padding_mode="reflect"
    )
    for padding in ("same", "valid", "full", 10, (2, 0)):
        message = refusal(z(1, 2, 0), w, padding=padding)
        assert message.startswith("Only zero batch or zero channel inputs are supported")
        assert "at least 1" in message
    assert "weight.reshape(1, 1, -1)" in refusal(z(1, 2, 9), torch.ones(3))
    assert "3 dimensions" in refusal(z(1, 2, 9), torch.ones(1, 1, 3, 3))


def test_errors_of_transposed():
    z, w = torch.zeros, torch.ones(2, 4, 3)
    assert "expected input[1, 3, 9] to have 2 channels" in refusal(z(1, 3, 9), w, transposed=True)
    assert "Output size is too small" in refusal(z(1, 2, 1), w, padding=2, transposed=True)
    message = refusal(z(1, 2, 9), w, output_padding=1, transposed=True)
    assert "smaller than either stride or dilation" in message
    assert "got 0 samples" in refusal(z(1, 2, 0), w, transposed=True).replace(":      ", " ")
    assert "in_channels (2) divisible" in refusal(
        z(1, 3, 9), torch.ones(2, 1, 3), groups=3, transposed=True
    ) or "at least 3" in refusal(z(1, 3, 9), torch.ones(2, 1, 3), groups=3, transposed=True)


def test_an_error_is_both_of_the_kinds_that_others_raise_and_travels():
    error = tw.ShapeError("sentence", got="g", expected="e", fix="f")
    assert isinstance(error, RuntimeError)
    assert isinstance(error, ValueError)
    again = copy.copy(error)
    assert str(again) == str(error) == "sentence\n  got:      g\n  expected: e\n  fix:      f"


def test_threads_run_side_by_side():
    x, w = torch.randn(4, 8, 3000), torch.randn(8, 1, 15)
    expected = tw.conv1d(x, w, groups=8)
    results = []

    def work():
        results.extend(tw.conv1d(x, w, groups=8) for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 80
    assert all(torch.equal(y, expected) for y in results)


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
