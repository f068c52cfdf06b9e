"""Marks: what `make test` leaves to `make test-all`, and what needs a processor of its kind."""

import pytest

from tapwise.engine.kernels import amx

needs_matrices = pytest.mark.skipif(amx.obstacle() is not None, reason=f"amx {amx.obstacle()}")


def slow_after(fast, values):
    """Values for ``parametrize``: the first ``fast`` run always, the others under `make test-all` alone."""
    return [value if n < fast else pytest.param(value, marks=pytest.mark.slow) for n, value in enumerate(values)]
