import pytest
import torch

import tapwise as tw


@pytest.mark.parametrize("settings", [{}, {"padding": (2, 1), "bias": False}, {"groups": 2, "stride": 2}])
@pytest.mark.parametrize("kind", ["Conv1d", "ConvTranspose1d"])
def test_lazy_layers_become_ours(kind, settings):
    lazy = getattr(tw, f"Lazy{kind}")(4, 3, **settings)
    assert isinstance(lazy, getattr(tw, kind))
    with pytest.raises(RuntimeError, match="uninitialized"):
        lazy.weight.shape  # noqa: B018
    with pytest.raises(tw.ShapeError, match="call it once"):
        lazy.init_state()
    x = torch.randn(2, 6, 20)
    y = lazy(x)
    assert type(lazy) is getattr(tw, kind)
    assert lazy.in_channels == 6
    copy = getattr(tw, kind)(6, 4, 3, **settings)
    copy.load_state_dict(lazy.state_dict())
    assert torch.equal(copy(x), y)
    again = getattr(tw, f"Lazy{kind}")(4, 3, **settings)
    again.load_state_dict(lazy.state_dict())
    assert torch.equal(again(x), y)
    with pytest.raises(ValueError, match="divisible"):
        getattr(tw, f"Lazy{kind}")(3, 3, groups=2)
    with pytest.raises(ValueError, match="divisible"):
        getattr(tw, f"Lazy{kind}")(4, 3, groups=2)(torch.randn(1, 5, 9))
