"""PyTorch's own cases for nn.Conv1d and nn.ConvTranspose1d, on ours and through a swap of the function."""

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.testing._internal.common_modules import module_db

import tapwise as tw
from forcing import FORCED, counted

INFOS = {info.module_cls: info for info in module_db}
PAIRS = [(torch.nn.Conv1d, tw.Conv1d, 4), (torch.nn.ConvTranspose1d, tw.ConvTranspose1d, 2)]


class Swap(TorchFunctionMode):
    """Puts ours wherever torch's convolution is called."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in (torch.conv1d, torch.nn.functional.conv1d):
            self.calls += 1
            with torch._C.DisableTorchFunction():
                return tw.conv1d(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


def cases(module):
    info = INFOS[module]
    return info.module_inputs_func(info, device="cpu", dtype=torch.float64, requires_grad=False, training=True)


@pytest.mark.slow
@pytest.mark.parametrize("forced", FORCED)
@pytest.mark.parametrize(("theirs", "ours", "count"), PAIRS)
def test_our_layer_in_the_place_of_torchs(theirs, ours, count, forced, monkeypatch):
    if ours is tw.ConvTranspose1d and forced not in ("native", "reference"):
        return  # direct doesn't apply, and the glance is conv1d's alone
    done = 0
    with counted(forced, monkeypatch):
        for case in cases(theirs):
            make, call = case.constructor_input, case.forward_input
            torch.manual_seed(0)
            expected = theirs(*make.args, **make.kwargs).double()
            torch.manual_seed(0)
            layer = ours(*make.args, **make.kwargs).double()
            for name, tensor in expected.state_dict().items():
                assert torch.equal(layer.state_dict()[name], tensor)
            y = layer(*call.args, **call.kwargs)
            torch.testing.assert_close(y, expected(*call.args, **call.kwargs))
            if case.reference_fn is not None:
                torch.testing.assert_close(y, case.reference_fn(layer, *call.args))
            done += 1
    assert done == count


@pytest.mark.parametrize("forced", FORCED)
def test_torchs_layer_on_our_function(forced, monkeypatch):
    swap, done = Swap(), 0
    with counted(forced, monkeypatch):
        for module in (torch.nn.Conv1d, torch.nn.LazyConv1d):
            for case in cases(module):
                make, call = case.constructor_input, case.forward_input
                layer = module(*make.args, **make.kwargs).double()
                expected = layer(*call.args, **call.kwargs)
                with swap:
                    torch.testing.assert_close(layer(*call.args, **call.kwargs), expected)
                done += 1
    assert (done, swap.calls) == (8, 8)
