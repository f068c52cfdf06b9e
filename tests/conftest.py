"""What all tests share: more Hypothesis under `make fuzz`, and helpers that can be imported."""

import os
import sys
from pathlib import Path

import hypothesis
import pytest
import torch
import torch.testing._internal.common_utils

from tapwise.engine import plan
from tapwise.engine.kernels import direct, native

sys.path.insert(0, str(Path(__file__).parent))

COMMON = {"deadline": None, "print_blob": True}
hypothesis.settings.register_profile("test", max_examples=150, derandomize=True, **COMMON)
hypothesis.settings.register_profile("fuzz", max_examples=20_000, **COMMON)
hypothesis.settings.load_profile("fuzz" if os.environ.get("TAPWISE_FUZZ") else "test")


@pytest.fixture
def two_threads(monkeypatch):
    """Plans depend on torch's threads and on the processor: two threads and AVX-512, whatever is here."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    predict_for(monkeypatch, 64)
    yield
    torch.set_num_threads(before)
    forget_plans()


def predict_for(monkeypatch, vector):
    """Let plans be those of a processor with vectors of so many bytes."""
    monkeypatch.setattr(direct, "vector_bytes", lambda: vector)
    monkeypatch.setattr(native, "shorter_vectors", lambda: 64 / vector)
    forget_plans()


def forget_plans():
    for known in (plan._choose, plan._choose_gradient, plan._choose_training):
        known.cache_clear()
