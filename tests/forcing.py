"""Force a kernel and count which ran: a kernel that never ran was never tested."""

from collections import Counter
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import tapwise as tw
from tapwise.engine import calls
from tapwise.engine import plan as plans
from tapwise.engine.kernels import KERNELS, _native_cost, direct

# fft32 rounds in float32, and is held to a bound of its own in test_kernels.
FORCED = [None, *(name for name in KERNELS if name != "fft32")]
# Kernels that must have run in each test, the dtypes of its samples allowing it.
APPLIES = {
    "gemm": "gemm",
    "fft": "fft",
    None: "native at a glance",
    "native": "native",
    "direct": "direct",
    "reference": "reference",
}


def predict_for(monkeypatch, narrow):
    """Let plans be those of a processor with AVX2 alone, or else with AVX-512, whatever is here."""
    for rates in (direct, _native_cost):
        monkeypatch.setattr(rates, "narrow", lambda: narrow)
    forget_plans()


def forget_plans():
    for known in (plans._choose, plans._choose_gradient, plans._choose_training, calls._call):
        known.cache_clear()
    calls._known.clear()


@contextmanager
def counted(forced, monkeypatch):
    """Force a kernel; count which ran."""
    runs = Counter()

    def counting(kernel):
        def run(*args):
            runs[kernel.name] += 1
            return kernel.run(*args)

        return replace(kernel, run=run)

    at_a_glance = calls.always_native

    def glance(*arguments):
        small = at_a_glance(*arguments)
        runs["native at a glance"] += small
        return small

    with monkeypatch.context() as patch:
        patch.setattr(calls, "always_native", glance)
        calls._known.clear()
        for name, kernel in KERNELS.items():
            patch.setitem(KERNELS, name, counting(kernel))
        plans._choose.cache_clear()
        with tw.options(kernel=forced) if forced else nullcontext():
            yield runs
    print(f"kernel forced: {forced}; runs: {dict(runs)}")
    assert runs[APPLIES[forced]] > 0, f"{forced} never ran"
