"""Break the code in many places, one at a time, and see that the tests notice.

    python tests/mutants.py [WORD ...]      only those whose description holds a word

Works on a copy; a mutant that survives is a gap in the tests, and makes the run fail.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent

# What is broken, the file, the text, what it becomes, the tests that must notice.
MUTANTS = [
    ("'same' sides swapped", "settings.py", "(whole // 2, whole - whole // 2)", "(whole - whole // 2, whole // 2)", "test_geometry.py"),
    ("semicausal taken for causal", "settings.py", "(max(reach - stride, 0), min(reach, stride) - 1)", "(whole, 0)", "test_geometry.py"),
    ("dilation left out of the reach", "geometry.py", "return self.dilation * (self.kernel_size - 1) + 1", "return self.kernel_size", "test_geometry.py"),
    ("a length rounded up", "geometry.py", "reach) // self.stride + 1)", "reach + self.stride - 1) // self.stride + 1)", "test_geometry.py"),
    ("output_padding forgotten", "geometry.py", "+ reach + self.output_padding", "+ reach", "test_geometry.py"),
    ("reflect repeats the end", "geometry.py", "last - abs(positions % (2 * last) - last)", "last - abs(positions % (2 * last + 1) - last)", "test_geometry.py"),
    ("copies in the padding feed nothing", "geometry.py", 'if self.padding_mode != "zeros":\n            pads', "if False:\n            pads", "test_geometry.py"),
    ("a part begins one input late", "partition.py", "first = start * geometry.stride - geometry.left", "first = start * geometry.stride - geometry.left + 1", "test_partition.py"),
    ("a part pads the wrong side", "partition.py", "padding=(len(before), len(after))", "padding=(len(after), len(before))", "test_partition.py"),
    ("an output given one step early", "partition.py", "geometry.effective_kernel_size) // geometry.stride + 1\n    return min", "geometry.effective_kernel_size + 1) // geometry.stride + 1\n    return min", "test_partition.py"),
    ("reflect doesn't wait", "partition.py", "seen <= geometry.left", "seen < geometry.left", "test_partition.py"),
    ("a stream forgets one input", "partition.py", "return min(max(needed, 0), seen)", "return min(max(needed + 1, 0), seen)", "test_partition.py"),
    ("direct drops the third of three left-over taps", "engine/kernels/_direct_loops.py", "+ b * x[xb + t] + c * x[xc + t]\n\n", "+ b * x[xb + t]\n\n", "test_kernels.py"),
    ("direct wrong past one block", "engine/kernels/_direct_loops.py", "for begin in range(0, outputs, BLOCK):", "for begin in range(0, min(outputs, BLOCK), BLOCK):", "test_kernels.py"),
    ("direct's sums of 256 taps overwrite each other", "engine/kernels/_direct_loops.py", "y[out + t] += partial[t]", "y[out + t] = partial[t]", "test_kernels.py"),
    ("direct interleaves groups", "engine/kernels/_direct_loops.py", "row = (b * in_channels + g * channels) * length", "row = (b * in_channels + (g * channels) % max(1, in_channels - channels)) * length", "test_kernels.py"),
    ("direct reads the wrong padding on the right", "engine/kernels/_direct_loops.py", "sources[j - length + left]", "sources[j - length]", "test_kernels.py"),
    ("direct forgets the bias", "engine/kernels/_direct_loops.py", "y[out + t] = bias[o]", "y[out + t] = 0", "test_kernels.py"),
    ("direct leaves the last output unwritten", "engine/kernels/_direct_loops.py", "many = min(BLOCK, outputs - begin)", "many = max(1, min(BLOCK, outputs - begin) - 1)", "test_kernels.py"),
    ("direct spreads NaN with full fastmath off its window", "engine/kernels/_direct_loops.py", "room[at + _u(q)] = 0", "room[at + _u(q)] = x[row]", "test_kernels.py"),
    ("reference skips a tap", "engine/kernels/reference.py", "for j, k in geometry.reads(i, length):", "for j, k in geometry.reads(i, length)[1:]:", "test_kernels.py"),
    ("padding's gradient lost", "engine/kernels/native.py", "inner = inner.index_add(", "inner.index_add(", "test_functional.py"),
    ("transposed gradient shifted", "engine/autograd.py", "grad, (geometry.left, max(right, 0))", "grad, (max(geometry.left - 1, 0), max(right, 0) + min(geometry.left, 1))", "test_functional.py"),
    ("the weight's gradient negated", "engine/autograd.py", "return grad_input, grad_weight, grad_bias", "return grad_input, grad_weight if grad_weight is None else -grad_weight, grad_bias", "test_functional.py"),
    ("the fake's length off", "engine/autograd.py", "outputs = (length + left + right - reach) // stride + 1\n    return input.new", "outputs = (length + left + right - reach) // stride\n    return input.new", "test_functional.py"),
    ("autocast ignored", "engine/autograd.py", "if dtype != input.dtype:", "if False:", "test_functional.py"),
    ("options ignored", "engine/plan.py", "if forced is not None:", "if False:", "test_plan.py"),
    ("plans look at nothing but direct", "engine/plan.py", "enough = costs[fastest] <= MARGIN * costs[native.NAME]", "enough = True", "test_plan.py"),
    ("states alias", "stepping.py", "kept = known[..., first - (seen - known.shape[-1]) :].clone()", "kept = known[..., first - (seen - known.shape[-1]) :]; state.kept = kept", "test_stepping.py"),
    ("from_taps doesn't flip", "layers.py", "values.flip(0) if flip else values", "values", "test_layers.py"),
    ("causal padding follows the constructor", "geometry.py", "weight.shape[-1],  # type", "layer.kernel_size[0],  # type", "test_layers.py"),
    ("the trace lays taps in reverse", "explanation/trace.py", "rows: Array = self.weight[channel][:, taps]", "rows: Array = self.weight[channel][:, taps[::-1]]", "test_explanation.py"),
    ("padding not marked", "explanation/trace.py", "padded = tuple(not 0 <= p < length for p in positions)", "padded = tuple(False for p in positions)", "test_explanation.py"),
    ("clipping not counted", "blocks.py", "summary.clipped += int((above | below).sum())", "pass", "test_blocks.py"),
    ("results truncated, not rounded", "blocks.py", "np.rint(y.astype(np.float64) / step)", "np.trunc(y.astype(np.float64) / step)", "test_blocks.py"),
    ("a block read one sample off", "blocks.py", "read(*needed.inputs),", "read(needed.inputs[0], needed.inputs[1] - 1), read(max(0, needed.inputs[1] - 2), max(1, needed.inputs[1] - 1)),", "test_blocks.py"),
    ("NaN let through", "blocks.py", "if self._refuse_nan and", "if False and", "test_blocks.py"),
    ("the rate not divided", "cli.py", "rate / stride", "rate", "test_cli.py"),
    ("half a file left", "signals/base.py", "if kind is None:\n                self.whole.commit()", "self.whole.commit()", "test_signals.py"),
    ("a truncated WAV accepted", "signals/audio.py", "        self._refuse_truncated()\n", "", "test_signals.py"),
]  # fmt: skip


def survives(copy, name, old, new, tests):
    """Whether the tests pass with this file broken."""
    path = copy / "src" / "tapwise" / name
    text = path.read_text()
    if text.count(old) < 1:
        sys.exit(f"{name} no longer holds {old!r}")
    path.write_text(text.replace(old, new, 1))
    environment = {
        **os.environ,
        "PYTHONPATH": str(copy / "src"),
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-m",
        "not fuzz",
        "-p",
        "no:cacheprovider",
    ]
    skip = ["-k", "not two_gigabytes"] if tests == "test_cli.py" else []
    run = subprocess.run(
        [*command, *skip, f"tests/{tests}"],
        cwd=copy,
        env=environment,
        capture_output=True,
        check=False,
    )
    path.write_text(text)
    return run.returncode == 0


def main():
    words = sys.argv[1:]
    chosen = [m for m in MUTANTS if not words or any(word in m[0] for word in words)]
    survivors = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        ignore = shutil.ignore_patterns("__pycache__")
        for name in ("src", "tests"):
            shutil.copytree(ROOT / name, copy / name, ignore=ignore)
        for name in ("pyproject.toml", "conftest.py"):
            shutil.copy(ROOT / name, copy / name)
        for description, *mutation in chosen:
            alive = survives(copy, *mutation)
            survivors += [description] * alive
            print(f"{'SURVIVES' if alive else 'killed  '} {description}", flush=True)
    print(f"{len(chosen) - len(survivors)} killed, {len(survivors)} survived")
    sys.exit(bool(survivors))


if __name__ == "__main__":
    main()
