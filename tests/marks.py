"""Marks: what `make test` leaves to `make test-all`."""

import pytest


def slow_after(fast, values):
    """Values for ``parametrize``: the first ``fast`` run always, the others under `make test-all` alone."""
    return [value if n < fast else pytest.param(value, marks=pytest.mark.slow) for n, value in enumerate(values)]
