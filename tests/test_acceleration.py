import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

import tapwise as tw
from forcing import predict_for


class Chomp(nn.Module):
    def __init__(self, excess):
        super().__init__()
        self.excess = excess

    def forward(self, x):
        return x[..., : x.shape[-1] - self.excess]


class Plain(nn.Conv1d):
    """A subclass without a forward of its own."""


class Own(nn.Conv1d):
    def forward(self, input):
        return sum(w * input for w in self.weight[0, 0])


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(1, 8, 7, padding=3, padding_mode="reflect"),
        weight_norm(nn.Conv1d(8, 8, 5, padding=8, dilation=2)),
        Chomp(8),
        nn.Conv1d(8, 8, 9, padding="same", groups=8),
        nn.ReLU(),
        nn.ConvTranspose1d(8, 4, 8, stride=4, padding=2),
        nn.Sequential(Plain(4, 4, 31, stride=2, padding=15), Own(1, 1, 3, bias=False)),
    )


def test_a_model_runs_on_the_engine_and_is_given_back():
    model, x = network(), torch.randn(2, 1, 3000)
    expected, names = model(x), list(model.state_dict())
    with tw.accelerate(model) as report:
        assert list(report.changed) == ["0", "1", "3", "5", "6.0"]
        assert report.left == {"6.1": "Own has a forward of its own, which calls none of torch's convolutions"}
        with tw.options(kernel="direct"):
            torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
        assert list(model.state_dict()) == names
        text = str(report)
    assert text.startswith("5 convolutions on Tapwise's engine: at 16,384 samples ")
    assert text.endswith(
        "1 left as it was\n  Own has a forward of its own, which calls none of torch's convolutions: 6.1"
    )
    assert not any("_conv_forward" in vars(m) or "forward" in vars(m) for m in model.modules())
    assert torch.equal(model(x), expected)


def test_the_report_says_which_layers_leave_torchs_kernel(monkeypatch):
    """In one line a kernel, whatever is parametrized."""
    predict_for(monkeypatch, "avx512")
    dense = [weight_norm(nn.Conv1d(256, 256, 1)) for _ in range(8)]
    report = tw.accelerate(nn.Sequential(nn.Conv1d(1, 2, 31), *dense, Calls()))
    dense = [str(n) for n in range(1, 9)]
    assert report.kernels() == {"direct": ["0"], "native": dense, "decided when called": ["9"]}
    assert str(report).splitlines()[0] == (
        "10 convolutions on Tapwise's engine: at 16,384 samples 1 leaves torch's kernel, 8 stay on it"
    )
    assert "  native: 1, 2, 3, 4, 5, 6 and 2 more" in str(report).splitlines()
    assert tw.explain(nn.Conv1d(1, 2, 31), torch.randn(1, 16_384)).plan.kernel == "direct"


class Calls(nn.Module):
    """A module whose forward calls torch's function."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(1, 1, 3))

    def forward(self, x):
        return nn.functional.conv1d(x, self.w)


def test_the_engine_is_what_runs(monkeypatch):
    from tapwise import forwards

    calls = []
    real = forwards.conv1d
    monkeypatch.setattr(forwards, "conv1d", lambda *a: calls.append(1) or real(*a))
    layer, x = nn.Conv1d(2, 2, 3), torch.randn(1, 2, 50)
    tw.accelerate(layer)
    layer(x)
    assert calls == [1]


def test_hooks_parameters_and_gradients_are_the_layers_own():
    model, x = network(), torch.randn(2, 1, 400)
    seen = []
    model[0].register_forward_hook(lambda *_: seen.append("hook"))
    model(x).square().sum().backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    ids = [id(p) for p in model.parameters()]
    model.zero_grad()
    tw.accelerate(model)
    with tw.options(kernel="direct"):
        model(x).square().sum().backward()
    assert seen == ["hook", "hook"]
    assert [id(p) for p in model.parameters()] == ids
    for name, parameter in model.named_parameters():
        scale = float(expected[name].abs().max())
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-3, atol=1e-4 * scale)


def test_twice_is_once_and_an_inner_block_undoes_only_its_own():
    model = network()
    outer = tw.accelerate(model[0])
    with tw.accelerate(model) as inner:
        assert "0" not in inner.changed
    assert list(outer.changed) == [""]
    assert "_conv_forward" in vars(model[0])
    assert "_conv_forward" not in vars(model[3])
    outer.undo()
    outer.undo()
    assert "_conv_forward" not in vars(model[0])


def test_copies_are_accelerated_with_their_own_weights():
    model, x = nn.Sequential(nn.Conv1d(2, 2, 3)), torch.randn(1, 2, 50)
    tw.accelerate(model)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        with torch.no_grad():
            other[0].weight.zero_()
            other[0].bias.zero_()
        assert other(x).abs().max() == 0
        assert model(x).abs().max() > 0


def test_what_is_left_says_why():
    lazy = nn.LazyConv1d(4, 3)
    replaced = nn.ConvTranspose1d(1, 1, 3)
    replaced.forward = lambda x: x
    model = nn.ModuleDict({"lazy": lazy, "replaced": replaced, "ours": tw.Conv1d(1, 1, 3)})
    report = tw.accelerate(model)
    assert report.changed == {}
    assert report.left["lazy"] == "it has no weight yet: run the model once first"
    assert report.left["replaced"] == "its forward was replaced by somebody else"
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module, got list"):
        tw.accelerate([])


def test_a_transposed_layer_keeps_its_output_size():
    layer, x = nn.ConvTranspose1d(3, 2, 5, stride=3, padding=1), torch.randn(1, 3, 20)
    expected = [layer(x), layer(x, output_size=[60]), layer(x, output_size=[61])]
    tw.accelerate(layer)
    found = [layer(x), layer(x, output_size=[60]), layer(x, output_size=[61])]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_an_accelerated_model_compiles():
    model, x = nn.Sequential(nn.Conv1d(4, 4, 9, padding=4, groups=4)), torch.randn(1, 4, 20_000)
    expected = model(x)
    tw.accelerate(model)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), expected, rtol=1e-4, atol=1e-5)


def test_what_others_put_in_is_left_and_left_alone():
    from functools import partial

    layer = nn.Conv1d(1, 1, 3)
    report = tw.accelerate(layer)
    layer.forward = lambda x: "wrapped"
    report.undo()
    assert layer(torch.zeros(1, 1, 5)) == "wrapped"
    hooked = nn.ConvTranspose1d(1, 1, 3)
    hooked.forward = partial(nn.ConvTranspose1d.forward, hooked)
    assert tw.accelerate(hooked).left == {"": "its forward was replaced by somebody else"}


def test_a_layer_that_pads_by_other_numbers_than_it_says_is_left():
    layer = torch.nn.Conv1d(2, 2, 3, padding=1, padding_mode="reflect")
    assert "0" in tw.accelerate(torch.nn.Sequential(copy.deepcopy(layer))).changed
    layer._reversed_padding_repeated_twice = [3, 0]
    report = tw.accelerate(torch.nn.Sequential(layer))
    assert report.left == {"0": "it pads by other numbers than its padding says"}
    assert layer(torch.randn(1, 2, 10)).shape == (1, 2, 11)
    same = torch.nn.Conv1d(2, 2, 4, padding="same", dilation=3, padding_mode="circular")
    assert tw.accelerate(same).changed


class PadsFirst(nn.Conv1d):
    def forward(self, input):
        return super().forward(F.pad(input, (self.dilation[0] * (self.kernel_size[0] - 1), 0)))


class OwnWeights(nn.Conv1d):
    def forward(self, input):
        weight = self.weight - self.weight.mean((1, 2), keepdim=True)
        return self._conv_forward(input, weight, self.bias)


class OwnConvForward(nn.Conv1d):
    def _conv_forward(self, input, weight, bias):
        return super()._conv_forward(input * 2, weight, bias)


class Functional(nn.Conv1d):
    def forward(self, input):
        return F.conv1d(F.pad(input, (2, 0)), self.weight, self.bias, groups=4)


class Free(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 1, 31))

    def forward(self, input, *, scale=1.0):
        def convolved(x):
            return torch.conv1d(x, self.weight, groups=4)

        return F.conv_transpose1d(convolved(input) * scale, self.weight, groups=4)


class Cropped(nn.ConvTranspose1d):
    def forward(self, input):
        return super().forward(input)[..., : -self.stride[0]]


SUBCLASSES = {
    "pads, then super().forward": PadsFirst(4, 4, 31, groups=4),
    "own weights, then _conv_forward": OwnWeights(4, 4, 31, groups=4),
    "own _conv_forward": OwnConvForward(4, 4, 31, groups=4),
    "F.conv1d": Functional(4, 4, 31, groups=4),
    "no layer of torch's": Free(),
    "a transposed subclass": Cropped(4, 4, 32, 8),
}


@pytest.mark.parametrize("name", SUBCLASSES)
def test_subclasses_and_functions_run_on_the_engine(name):
    from tapwise.engine import dispatch

    layer, x = SUBCLASSES[name], torch.randn(2, 4, 500, requires_grad=True)
    expected = layer(x)
    expected.sum().backward()
    want, x.grad = x.grad, None
    with tw.accelerate(nn.ModuleDict({"it": layer})) as report:
        assert list(report.changed) == ["it"]
        dispatch._decisions.clear()
        with tw.options(kernel="direct"):
            y = layer(x)
        assert dispatch._decisions  # it was our dispatch that decided
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)
        y.sum().backward()
        torch.testing.assert_close(x.grad, want, rtol=1e-4, atol=1e-4)
        assert copy.deepcopy(layer)(x).shape == y.shape
    assert not {"forward", "_conv_forward"} & set(vars(layer))
    assert torch.equal(layer(x), expected)


def test_a_module_with_a_layer_of_that_name_is_no_convolution_itself():
    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1d = nn.Conv1d(1, 1, 3)

        def forward(self, x):
            return self.conv1d(x)

    assert list(tw.accelerate(Wrapper()).changed) == ["conv1d"]


def test_a_script_of_an_accelerated_model_says_what_to_do():
    model, x = nn.Sequential(nn.Conv1d(1, 2, 3), nn.ReLU(), nn.ConvTranspose1d(2, 1, 3)), torch.randn(1, 1, 40)
    expected = model(x)
    report = tw.accelerate(model)
    with pytest.raises(TypeError, match=r"undo\(\) the acceleration"):
        torch.jit.script(model)
    report.undo()
    assert not any(name in vars(layer) for layer in model for name in ("forward", "__prepare_scriptable__"))
    torch.testing.assert_close(torch.jit.script(model)(x), expected)
