import itertools

import pytest
import torch
from torch import nn

import exercises
import tapwise as tw
from networks import Of
from tapwise.network.operation_names import MIXES, OVER_AXES, POINTWISE, USUAL_AXIS
from tapwise.network.record import plain_name
from tapwise.network.rules import PRODUCTS_AND_NORMS
from tapwise.network.rules_convolutions import CONVOLUTIONS
from tapwise.network.rules_shapes import SHAPES
from tapwise.network.rules_windows_2d import WINDOWS_2D

FOLLOWED = {*POINTWISE, *OVER_AXES, *CONVOLUTIONS, *SHAPES, *WINDOWS_2D, *PRODUCTS_AND_NORMS}
# Spellings that are read and streamed together, as outputs of one model.
AT_ONCE = 24


# special_gammaln is such a name, gammaln is none: it would be listed and never looked up.
def test_every_name_is_that_of_a_function_of_torch():
    functions = itertools.chain.from_iterable(torch.overrides.get_overridable_functions().values())
    names = {plain_name(function) for function in functions if function.__name__ != "__get__"}
    names |= {name.strip("_") for name in dir(torch.Tensor)} | {*dir(torch), *dir(nn.functional)}
    for table in (POINTWISE, OVER_AXES, USUAL_AXIS, MIXES):
        assert set(table) <= names, sorted(set(table) - names)


def test_every_operation_is_exercised():
    assert set(exercises.names()) == FOLLOWED
    assert not [name for name in exercises.names() if not exercises.spellings(name)]


CALLS = {name: list(exercises.spellings(name).items()) for name in exercises.names()}
FIRST = [calls[0] for calls in CALLS.values() if calls]
OTHERS = [call for calls in CALLS.values() for call in calls[1:]]


def followed(calls):
    x = torch.rand(2, 4, 40, dtype=torch.float64) * 0.8 + 0.1
    model = Of(lambda self, x: [call(x) for _, call in calls])
    assert tw.inspect(model, x).stride > 0
    assert tw.verify_stream(model, x, tries=2) < 1e-4  # some change to float32 or float16 on the way


def each_followed(calls):
    try:
        followed(calls)
    except (tw.TimelineError, ValueError, AssertionError):
        for label, call in calls:  # which one it is
            try:
                followed([(label, call)])
            except (tw.TimelineError, ValueError, AssertionError) as error:
                raise AssertionError(label) from error
        raise


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("start", range(0, len(FIRST), AT_ONCE))
def test_operations_are_followed(start):
    each_followed(FIRST[start : start + AT_ONCE])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("start", range(0, len(OTHERS), AT_ONCE))
def test_operations_are_followed_in_every_other_spelling(start):
    each_followed(OTHERS[start : start + AT_ONCE])


MODULES = [
    *(
        getattr(nn, name)()
        for name in ["CELU", "ELU", "GELU", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "Identity"]
    ),
    *(
        getattr(nn, name)()
        for name in ["LeakyReLU", "LogSigmoid", "Mish", "ReLU", "ReLU6", "RReLU", "SELU", "SiLU", "Sigmoid"]
    ),
    *(
        getattr(nn, name)()
        for name in ["Softplus", "Softshrink", "Softsign", "Tanh", "Tanhshrink", "Dropout", "AlphaDropout"]
    ),
    *(getattr(nn, name)(1) for name in ["Softmax", "LogSoftmax", "Softmin", "GLU"]),
    *(getattr(nn, name)(2) for name in ["AvgPool1d", "MaxPool1d", "ReplicationPad1d", "ReflectionPad1d", "ZeroPad1d"]),
    *(getattr(nn, name)(4) for name in ["BatchNorm1d", "PReLU"]),
    *(
        nn.Threshold(0.4, 0.0),
        nn.ConstantPad1d(2, 1.0),
        nn.LPPool1d(2, 3),
        nn.LocalResponseNorm(2),
        nn.ChannelShuffle(2),
    ),
    *(nn.Unflatten(1, (2, 2)), nn.Flatten(1, 1), nn.Upsample(scale_factor=2)),
    *(nn.Conv1d(4, 2, 3), nn.ConvTranspose1d(4, 2, 3), nn.InstanceNorm1d(4, track_running_stats=True)),
]


@pytest.mark.filterwarnings("ignore")
def test_modules_are_followed():
    modules = nn.ModuleList(MODULES).double().eval()
    each_followed([(str(module), module) for module in modules])


def test_a_vector_norm_over_channels_is_followed():
    class Norm(nn.Module):
        def forward(self, x):
            return x / torch.linalg.vector_norm(x, 2, 1, keepdim=True)

    assert tw.inspect(Norm(), torch.randn(1, 2, 50)).causal
