"""What tests of kernels share."""

import pytest
import torch

from tapwise.engine.outputs import new_output


@pytest.fixture
def poisoned(monkeypatch):
    """Memory that a kernel asks for holds NaN, so that what it leaves unwritten shows."""
    new_empty, empty = torch.Tensor.new_empty, torch.empty

    def poisoned_new_empty(self, *arguments, **options):
        return new_empty(self, *arguments, **options).fill_(float("nan"))

    def poisoned_empty(*arguments, **options):
        return empty(*arguments, **options).fill_(float("nan"))

    monkeypatch.setattr(torch.Tensor, "new_empty", poisoned_new_empty)
    monkeypatch.setattr(torch, "empty", poisoned_empty)
    assert new_output((3,), torch.float32).isnan().all()
