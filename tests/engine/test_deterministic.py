"""options(deterministic=True): the same bits in any batch, on any threads, with gradients and without."""

import pytest
import torch

import tapwise as tw

CASES = {
    "dense": (64, 64, 500, 5, {}),
    "few": (3, 8, 2000, 9, {}),
    "wide": (256, 256, 300, 3, {}),
    "depthwise": (16, 16, 4000, 31, {"groups": 16}),
    "long": (1, 1, 20_000, 2001, {}),
    "strided": (32, 64, 1000, 4, {"stride": 2}),
    "dilated": (128, 128, 200, 3, {"dilation": 4, "padding": 4}),
    "pointwise": (8, 8, 5000, 1, {}),
    "causal": (25, 25, 1000, 7, {"padding": "causal"}),
    "grouped": (64, 128, 333, 7, {"groups": 4}),
    "tiny": (4, 4, 10, 3, {}),
}


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def results(x, w, b, settings):
    """Outputs of the batch and of its rows alone, and the gradients."""
    with tw.options(deterministic=True):
        y = tw.conv1d(x, w, b, **settings)
        alone = torch.cat([tw.conv1d(row, w, b, **settings) for row in x.split(1)])
        parts = torch.cat([tw.conv1d(part, w, b, **settings) for part in (x[:3], x[3:])])
        leaves = [t.clone().requires_grad_() for t in (x, w, b)]
        trained = tw.conv1d(*leaves, **settings)
    for other in (alone, parts, trained):
        assert torch.equal(y, other)
    slope = torch.linspace(-1, 2, y.shape[-1], dtype=y.dtype).expand_as(y)
    return y, *torch.autograd.grad(trained, leaves, slope)


@pytest.mark.parametrize("kernel", [None, "native"])
@pytest.mark.parametrize("name", CASES)
def test_bits_depend_on_neither_batch_nor_threads(name, kernel):
    torch.manual_seed(0)
    fan_in, fan_out, length, taps, settings = CASES[name]
    x = torch.randn(5, fan_in, length)
    w = torch.randn(fan_out, fan_in // settings.get("groups", 1), taps) / taps
    b = torch.randn(fan_out)
    found = []
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        with tw.options(kernel=kernel):
            found.append(results(x, w, b, settings))
        assert torch.get_num_threads() == threads
    for other in found[1:]:
        assert all(torch.equal(a, c) for a, c in zip(found[0], other, strict=True))
    wide = [t.double().requires_grad_() for t in (x, w, b)]
    y = tw.conv1d(*wide, **settings)
    slope = torch.linspace(-1, 2, y.shape[-1], dtype=y.dtype).expand_as(y)
    wanted = (y, *torch.autograd.grad(y, wide, slope))
    for mine, right in zip(found[0], wanted, strict=True):
        torch.testing.assert_close(mine.double(), right, rtol=1e-4, atol=1e-4 * float(right.detach().abs().max()))


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["gemm", "fft"])
@pytest.mark.parametrize("name", CASES)
def test_bits_of_other_kernels_too(name, kernel):
    test_bits_depend_on_neither_batch_nor_threads(name, kernel)


def test_transposed_layers_hold_it_too():
    torch.manual_seed(0)
    layer = tw.ConvTranspose1d(64, 32, 8, stride=4)
    x, found = torch.randn(4, 64, 50), []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        with tw.options(deterministic=True):
            y = layer(x)
            assert torch.equal(y, torch.cat([layer(row) for row in x.split(1)]))
            y.sum().backward()
        found.append((y.detach(), layer.weight.grad))
        layer.zero_grad()
    assert all(torch.equal(a, c) for a, c in zip(*found, strict=True))


def test_the_option_is_inherited_and_checked():
    with pytest.raises(ValueError, match="deterministic must be True, False or None"), tw.options(deterministic=2):
        pass
    from tapwise.engine.options import current_options

    with tw.options(deterministic=True):
        with tw.options(kernel="direct"):
            assert current_options().deterministic
        with tw.options(deterministic=False):
            assert not current_options().deterministic
    assert not current_options().deterministic
