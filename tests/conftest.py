"""What all tests share: more Hypothesis under `make fuzz`, and helpers that can be imported."""

import os
import sys
from pathlib import Path

import hypothesis
import torch.testing._internal.common_utils  # noqa: F401  (it loads a profile of its own: before ours)

sys.path.insert(0, str(Path(__file__).parent))

COMMON = {"deadline": None, "print_blob": True}
hypothesis.settings.register_profile("test", max_examples=150, derandomize=True, **COMMON)
hypothesis.settings.register_profile("fuzz", max_examples=20_000, **COMMON)
hypothesis.settings.load_profile("fuzz" if os.environ.get("TAPWISE_FUZZ") else "test")
