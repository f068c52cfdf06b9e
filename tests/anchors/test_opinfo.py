"""PyTorch's own cases for conv1d, put to ours: samples, views, gradients and errors.

The kernels are forced one after the other; each must really have run, or the test proves nothing.
"""

from collections import Counter

import pytest
import torch
from torch.testing._internal.common_methods_invocations import op_db

import tapwise as tw
from forcing import FORCED, counted
from marks import slow_after

OP = next(op for op in op_db if op.name == "nn.functional.conv1d")
DTYPES = sorted(OP.dtypes, key=str)


def samples(dtype, requires_grad=False):
    return list(OP.sample_inputs("cpu", dtype, requires_grad=requires_grad))


@pytest.mark.parametrize("forced", slow_after(2, FORCED))
def test_samples_of_every_dtype_and_their_views_equal_torch(forced, monkeypatch):
    done = Counter()
    with counted(forced, monkeypatch):
        for dtype in DTYPES:
            for contiguous in samples(dtype):
                for kind, s in (("samples", contiguous), ("views", contiguous.noncontiguous())):
                    ours = tw.conv1d(s.input, *s.args, **s.kwargs)
                    theirs = OP(s.input, *s.args, **s.kwargs)
                    torch.testing.assert_close(ours, theirs)
                    done[kind] += 1
    print(dict(done))
    assert done == {"samples": 70, "views": 70}


@pytest.mark.slow
@pytest.mark.parametrize("forced", FORCED)
def test_gradients_of_both_modes_in_batches_and_twice(forced, monkeypatch):
    done = Counter()
    with counted(forced, monkeypatch):
        for dtype in (torch.float64, torch.complex128):
            for s in samples(dtype, requires_grad=True):
                inputs = [t for t in (s.input, *s.args) if isinstance(t, torch.Tensor)]

                def function(input, weight, bias=None, kwargs=s.kwargs):
                    return tw.conv1d(input, weight, bias, **kwargs)

                assert torch.autograd.gradcheck(
                    function, inputs, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True
                )
                done["gradcheck"] += 1
                assert torch.autograd.gradgradcheck(function, inputs, check_batched_grad=True)
                done["gradgradcheck"] += 1
    print(dict(done))
    assert done == {"gradcheck": 20, "gradgradcheck": 20}


def test_what_torch_refuses_is_refused_with_its_sentence():
    errors = list(OP.error_inputs("cpu"))
    for case in errors:
        s = case.sample_input
        with pytest.raises(case.error_type, match=case.error_regex) as caught:
            tw.conv1d(s.input, *s.args, **s.kwargs)
        assert isinstance(caught.value, tw.ShapeError)
    assert len(errors) == 10
