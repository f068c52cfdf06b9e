"""What all tests share: more Hypothesis under `make fuzz`, and helpers that can be imported."""

import os
import sys
from pathlib import Path

import hypothesis
import pytest
import torch
import torch.testing._internal.common_utils

sys.path.insert(0, str(Path(__file__).parent))

COMMON = {"deadline": None, "print_blob": True}
hypothesis.settings.register_profile("test", max_examples=150, derandomize=True, **COMMON)
hypothesis.settings.register_profile("fuzz", max_examples=20_000, **COMMON)
hypothesis.settings.load_profile("fuzz" if os.environ.get("TAPWISE_FUZZ") else "test")


@pytest.fixture
def two_threads():
    """Plans depend on the count of torch's threads: two here, whatever the machine and the command say."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
