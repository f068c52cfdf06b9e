"""What tests of kernels share."""

import pytest
import torch


@pytest.fixture
def poisoned(monkeypatch):
    """Memory that a kernel asks for holds NaN, so that what it leaves unwritten shows."""
    empty = torch.Tensor.new_empty

    def new_empty(self, *arguments, **options):
        return empty(self, *arguments, **options).fill_(float("nan"))

    monkeypatch.setattr(torch.Tensor, "new_empty", new_empty)
