import itertools

import torch
from torch import nn

import tapwise as tw
from tapwise.network.operation_names import MIXES, OVER_AXES, POINTWISE, USUAL_AXIS
from tapwise.network.record import plain_name


# special_gammaln is such a name, gammaln is none: it would be listed and never looked up.
def test_every_name_is_that_of_a_function_of_torch():
    functions = itertools.chain.from_iterable(torch.overrides.get_overridable_functions().values())
    names = {plain_name(function) for function in functions if function.__name__ != "__get__"}
    names |= {name.strip("_") for name in dir(torch.Tensor)} | {*dir(torch), *dir(nn.functional)}
    for table in (POINTWISE, OVER_AXES, USUAL_AXIS, MIXES):
        assert set(table) <= names, sorted(set(table) - names)


def test_a_vector_norm_over_channels_is_followed():
    class Norm(nn.Module):
        def forward(self, x):
            return x / torch.linalg.vector_norm(x, 2, 1, keepdim=True)

    assert tw.inspect(Norm(), torch.randn(1, 2, 50)).causal
