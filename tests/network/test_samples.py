"""Signals made of an example's own numbers."""

import pytest
import torch

import tapwise as tw
from networks import Of
from small_models import F64, X, conv

# Numbers of the example's kind


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.log(x + 1e-6),
        lambda x: torch.sqrt(x),
        lambda x: x**0.3,
        lambda x: torch.log1p(1000 * x),
        lambda x: torch.logit(x * 0.9),
        lambda x: torch.atanh(0.9 * x),
    ],
)
@pytest.mark.parametrize("example", [torch.rand(1, 4, 64, dtype=F64), torch.zeros(1, 4, 64, dtype=F64)])
def test_domains_are_kept(function, example):
    model = Of(lambda self, x: self.c(function(x)), c=conv())
    assert tw.inspect(model, example).receptive_field == (0, 2)
    assert tw.verify_stream(model, example) < 1e-12


def test_an_example_of_zeros_is_read_with_the_sign_that_the_model_takes():
    from tapwise.network.runs import Runs

    zeros = torch.zeros(1, 4, 64, dtype=F64)
    runs = Runs(Of(lambda self, x: self.c(torch.log(x + 1e-6)), c=conv()), zeros, None)
    assert not runs.run(runs.signals(50), keep=True).values[-1].isnan().any()
    assert (Runs(conv(), zeros, None).signals(50)[0] < 0).any()


def test_a_models_own_nan_is_no_mistake_of_a_timeline():
    model = Of(lambda self, x: torch.sqrt(self.c(x)), c=conv())
    assert tw.inspect(model, X).receptive_field == (0, 2)
    assert tw.verify_stream(model, X) < 1e-12


def test_samples_are_the_examples_own():
    from tapwise.network.samples import drawn_like

    dice = torch.Generator().manual_seed(0)
    example = torch.stack((torch.rand(50) + 2, torch.randint(0, 4, (50,)).float(), torch.zeros(50)))[None]
    drawn = drawn_like(example, 2, 500, 3, dice)
    assert drawn.shape == (3, 3, 500)
    assert drawn[:, 0].min() >= 2
    assert set(drawn[:, 1].unique().tolist()) == {0.0, 1.0, 2.0, 3.0}
    assert not drawn[:, 2].any()
    codes = torch.tensor([[3, 5, 9, 3]])
    assert set(drawn_like(codes, 1, 100, None, dice).unique().tolist()) == {3, 5, 9}
    assert drawn_like(torch.ones(1, 1, 9), 2, 40, None, dice).min() > 0
    assert drawn_like(torch.tensor([[1.0, float("nan"), 2.0]]), 1, 40, None, dice).isfinite().all()
