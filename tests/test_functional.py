import copy
import inspect
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
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

import oracle
import tapwise as tw
from against_the_oracle import SUMS
from strategies import convolutions, transposed
from tapwise.engine.kernels import KERNELS

TUTORIAL = json.loads((Path(__file__).parent / "data" / "tutorial.json").read_text())
KERNEL_CHOICES = [None, *KERNELS]


@pytest.mark.parametrize("kernel", [None, *SUMS])
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
    assert ours == ["input", "weight", "bias", "stride", "padding", "dilation", "groups", "padding_mode"]
    ours = list(inspect.signature(tw.conv_transpose1d).parameters)
    assert ours == ["input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation"]


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
        x.detach().numpy(),
        w.detach().numpy(),
        None if b is None else b.detach().numpy(),
        *settings,
        geometry.padding_mode,
    )
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
        x, w, b, geometry.stride, geometry.padding, geometry.output_padding, geometry.groups, geometry.dilation
    )
    truth = oracle.conv_transpose1d(
        x.detach().numpy(),
        w.detach().numpy(),
        None if b is None else b.detach().numpy(),
        geometry.stride,
        geometry.padding,
        geometry.output_padding,
        geometry.dilation,
        geometry.groups,
    )
    np.testing.assert_allclose(y.detach().numpy(), truth, atol=1e-12)
    full = F.conv_transpose1d(x, w, None, geometry.stride, 0, 0, geometry.groups, geometry.dilation)
    full = F.pad(full, (0, geometry.output_padding)) + (0 if b is None else b[:, None])
    expected = full[..., geometry.left : full.shape[-1] - geometry.right]
    inputs = [t for t in (x, w, b) if t is not None]
    g = torch.randn_like(y)
    ours = torch.autograd.grad(y, inputs, g)
    for mine, theirs in zip(ours, torch.autograd.grad(expected, inputs, g), strict=True):
        torch.testing.assert_close(mine, theirs)


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
        assert no_channels.shape == torch.nn.functional.conv1d(torch.zeros(2, 0, 10), torch.zeros(4, 0, 3), b).shape
        y = tw.conv_transpose1d(torch.zeros(3, 2, 0), torch.ones(2, 4, 3), b, padding="causal")
        assert y.shape == (3, 4, 0)


def test_a_signal_without_batch():
    x, w = torch.randn(2, 9), torch.randn(4, 2, 3)
    assert torch.equal(tw.conv1d(x, w), tw.conv1d(x[None], w)[0])
    w = torch.randn(2, 4, 3)
    assert torch.equal(tw.conv_transpose1d(x, w), tw.conv_transpose1d(x[None], w)[0])


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
    assert "can't fill padding from 1 samples" in refusal(z(1, 2, 1), w, padding=2, padding_mode="reflect")
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


def test_what_was_checked_once_is_checked_again_in_another_type():
    x, w = torch.zeros(1, 2, 3000), torch.zeros(2, 2, 5)
    for number in (1, 2):
        tw.conv1d(x, w, stride=number, dilation=(number,))
        tw.conv1d(x, w, dilation=(number,), padding=(0, 0))
    for settings in ({"stride": 2}, {"dilation": (2,)}, {"padding": (0, 0)}, {"groups": 1}):
        tw.conv1d(x, w, **settings)
    for settings in ({"stride": 2.0}, {"dilation": (2.0,)}, {"padding": (0.0, 0)}, {"groups": 1.0}):
        with pytest.raises(TypeError):
            tw.conv1d(x, w, **settings)
