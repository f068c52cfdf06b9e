"""What all tests share: more Hypothesis under `make fuzz`, and helpers that can be imported."""

import os
import sys
from pathlib import Path

os.environ["TAPWISE_PLANS"] = ""  # plans are predicted, whatever was tuned on this machine
os.environ["TAPWISE_CHECK_MEMORY"] = "1"  # before the package is imported; processes of tests inherit it

import hypothesis
import pytest
import torch
import torch.testing._internal.common_utils

sys.path.insert(0, str(Path(__file__).parent))

from forcing import predict_for
from tapwise.engine import dispatch

COMMON = {"deadline": None, "print_blob": True}
hypothesis.settings.register_profile("test", max_examples=150, derandomize=True, **COMMON)
hypothesis.settings.register_profile("fuzz", max_examples=20_000, **COMMON)
hypothesis.settings.load_profile("fuzz" if os.environ.get("TAPWISE_FUZZ") else "test")


@pytest.fixture
def known_processor(monkeypatch):
    """Plans depend on torch's threads and on the processor: two threads and AVX-512, whatever is here."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    predict_for(monkeypatch, "avx512")
    yield
    torch.set_num_threads(before)
    dispatch._decisions.clear()
