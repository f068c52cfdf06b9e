"""Force a kernel and count which ran: a kernel that never ran was never tested."""

from collections import Counter
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import tapwise as tw
from against_the_oracle import DENSE
from tapwise.engine import dispatch, rates
from tapwise.engine.kernels import KERNELS

# fft32 rounds in float32, kernels of dense layers need eight channels: their own tests run them.
FORCED = [None, *(name for name in KERNELS if name not in ("fft32", *DENSE))]


def predict_for(monkeypatch, family):
    """Let plans be those of a family of processors, ``"avx512"`` or ``"avx2"``, whatever is here."""
    monkeypatch.setattr(rates, "processor_family", lambda: family)
    dispatch._decisions.clear()


@contextmanager
def counted(forced, monkeypatch):
    """Force a kernel; count which ran."""
    runs = Counter()

    def counting(kernel):
        def run(*args):
            runs[kernel.name] += 1
            return kernel.run(*args)

        return replace(kernel, run=run)

    torch_run = dispatch._torch_run

    def counting_torch_run(geometry):
        run = torch_run(geometry)

        def counted_run(*tensors):
            runs["native"] += 1
            return run(*tensors)

        return counted_run

    with monkeypatch.context() as patch:
        patch.setattr(dispatch, "_torch_run", counting_torch_run)
        dispatch._decisions.clear()
        for name, kernel in KERNELS.items():
            patch.setitem(KERNELS, name, counting(kernel))
        with tw.options(kernel=forced) if forced else nullcontext():
            yield runs
    dispatch._decisions.clear()
    print(f"kernel forced: {forced}; runs: {dict(runs)}")
    assert runs[forced or "native"] > 0, f"{forced} never ran"
