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
    ("direct wrong past one block", "engine/kernels/_direct_loops.py", "start, b0 = span * job[SPAN], rows * job[ROWS]", "start, b0 = 0 * job[SPAN], rows * job[ROWS]", "test_kernels.py"),
    ("direct's sums of 256 products overwrite each other", "engine/kernels/_row_sums.py", "w, out, b = weight + o * row, y + o * y_row + t * size, 0", "w, out, b = weight + o * row, y + o * y_row + t * size, 1", "test_kernels.py"),
    ("direct interleaves groups", "engine/kernels/_direct_loops.py", "x = job[X] + b * job[X_ROW] + g * channels * job[X_CHANNEL]", "x = job[X] + b * job[X_ROW] + (g // 2) * channels * job[X_CHANNEL]", "test_kernels.py"),
    ("direct reads the wrong padding on the right", "engine/kernels/_loops.py", "position - length + job[LEFT]", "position - length", "test_kernels.py"),
    ("direct forgets the bias", "engine/kernels/_direct_loops.py", "bias = job[BIAS] + o * size if job[BIAS] else 0", "bias = 0", "test_kernels.py"),
    ("direct takes the bias of another row", "engine/kernels/_row_sums.py", "b = bias + o * size if bias else 1", "b = bias if bias else 1", "test_kernels.py"),
    ("direct leaves the last outputs unwritten", "engine/kernels/_row_sums.py", "if t < count:\n            part(", "if t + 1 < count:\n            part(", "test_kernels.py"),
    ("direct pads with the first sample", "engine/kernels/_loops.py", "return item  # which is zero", "return peek(x, item)", "test_kernels.py"),
    ("direct reads a window that begins before the input in place", "engine/kernels/_direct_loops.py", "right = job[LENGTH] - reach + job[LEFT] + 1", "right = job[LENGTH] - reach + job[LEFT] + 2", "test_kernels.py"),
    ("a tile drops its last row", "engine/kernels/_tiles.py", "for r in range(rows):\n                tap = ", "for r in [*range(rows - 1), max(rows - 2, 0)]:\n                tap = ", "test_kernels.py"),
    ("a short row's right end begins late", "engine/kernels/_direct_loops.py", "right = max(right, left)", "right = max(right + 1, left)", "test_kernels.py"),
    ("a short row's ends take the first bias", "engine/kernels/_direct_loops.py", "bias + r * size if bias else 1, min", "bias if bias else 1, min", "test_kernels.py"),
    ("an end of a short row reads its neighbour", "engine/kernels/_tiles.py", "memory.within(b.sub(here, start), limit)", "memory.within(b.sub(here, start), b.add(limit, limit))", "test_kernels.py"),
    ("an end of a short row reads what lies before it", "engine/kernels/_vectors.py", 'b.icmp_unsigned("<", here, end)', 'b.icmp_signed("<", here, end)', "test_kernels.py"),
    ("an end of a short row written too far", "engine/kernels/_direct_loops.py", "(left if t < left else outputs) - t)", "lanes)", "test_kernels.py"),
    ("a span's last block counted twice", "engine/kernels/_direct_loops.py", "t1 = min(block, start + job[SPAN], job[OUTPUTS])", "t1 = min(block, job[OUTPUTS])", "test_weight_gradient.py"),
    ("a correlation forgets the tail", "engine/kernels/_vectors.py", 'with b.if_then(b.icmp_signed(">", tail, _I64(0))):', 'with b.if_then(b.icmp_signed(">", tail, _I64(99))):', "test_weight_gradient.py"),
    ("a phase of a transposed convolution shifted", "engine/kernels/direct.py", "y[..., phase::stride] = part", "y[..., stride - 1 - phase :: stride] = part", "test_kernels.py"),
    ("fft lets loud bursts through", "engine/kernels/_fft_loops.py", "LOUDEST = 1e7", "LOUDEST = 1e70", "test_transforms.py"),
    ("fft lets silence ring", "engine/kernels/_fft_frames.py", "_BESIDE_ZEROS = 1e7", "_BESIDE_ZEROS = 1e18", "test_transforms.py"),
    ("fft's frames a sample short", "engine/kernels/fft.py", "return best, best - reach + 1", "return best, best - reach + 2", "test_kernels.py"),
    ("pieces of a long filter meet undilated inputs", "engine/kernels/_fft_pieces.py", "begin = start * geometry.dilation - left", "begin = start - left", "test_transforms.py"),
    ("taps that met silence ring in fft's gradient", "engine/kernels/fft.py", "gain = energy * math.sqrt(size) * 1e-3", "gain = energy * 0.0", "test_transforms.py"),
    ("a trace holds our op", "engine/checks.py", "if exported or torch._C._get_tracing_state() is not None:", "if exported:", "test_graphs.py"),
    ("layers that pad otherwise are taken", "acceleration.py", "tuple(layer._reversed_padding_repeated_twice) != pads", "False", "test_acceleration.py"),
    ("fft convolves in place of correlating", "engine/kernels/_fft_loops.py", "frame[length - q * apart]", "frame[q * apart]", "test_kernels.py"),
    ("gemm drops the last tap", "engine/kernels/gemm.py", "for k in range(w.shape[-1]):", "for k in range(max(w.shape[-1] - 1, 1)):", "test_kernels.py"),
    ("the input's gradient not turned", "engine/autograd.py", "turned = weight.flip(-1)", "turned = weight", "test_functional.py test_autograd.py"),
    ("the input's gradient padded on the wrong side", "engine/adjoint.py", "(max(left, 0), max(right, 0))", "(max(right, 0), max(left, 0))", "test_functional.py test_autograd.py"),
    ("the weight's gradient negated", "engine/op.py", "return kernel.weight_gradient(geometry, grad, input, weight).contiguous()", "return -kernel.weight_gradient(geometry, grad, input, weight).contiguous()", "test_functional.py test_autograd.py"),
    ("the forked child uses a dead pool", "engine/threads.py", "return 1 if _forked or _pool() is None", "return 1 if _pool() is None", "test_threads.py"),
    ("damaged machine code is run", "engine/machine_code.py", "return code if sha256(code).digest() == digest else None", "return code", "test_machine_code.py"),
    ("an undo takes what others put in", "acceleration.py", "if isinstance(layer, kind) and _is_ours(layer, kind):", "if name in layer.__dict__:", "test_acceleration.py"),
    ("sequences see one another", "compat/causal_conv1d.py", "torch.where(same, x[..., :-back], 0)", "x[..., :-back]", "test_compat.py"),
    ("the ring buffer is written one place late", "compat/causal_conv1d.py", "torch.arange(length - last, length, device=x.device)", "1 + torch.arange(length - last, length, device=x.device)", "test_compat.py"),
    ("reference skips a tap", "engine/kernels/reference.py", "for j, k in geometry.reads(i, length):", "for j, k in geometry.reads(i, length)[1:]:", "test_kernels.py"),
    ("padding's gradient lost", "engine/kernels/native.py", "inner = inner.index_add(", "inner.index_add(", "test_functional.py test_autograd.py"),
    ("the fake's length off", "engine/op.py", "outputs = (length + left + right - reach) // stride + 1\n    return input.new", "outputs = (length + left + right - reach) // stride\n    return input.new", "test_functional.py test_autograd.py"),
    ("autocast ignored", "engine/autograd.py", "if dtype != input.dtype:", "if False:", "test_functional.py test_autograd.py"),
    ("options ignored", "engine/plan.py", "if forced is not None:\n        best = ", "if False:\n        best = ", "test_plan.py"),
    ("plans look at nothing but direct", "engine/plan.py", "enough = costs[fastest] <= MARGIN * costs[native.NAME]", "enough = True", "test_plan.py"),
    ("a state forgets what came before the chunk", "stepping.py", "kept = torch.cat(_between(state.kept, x, first, known), dim=-1)", "kept = _between(state.kept, x, first, known)[1]", "test_stepping.py"),
    ("two pieces meet a sample late", "engine/kernels/_direct_loops.py", "source, offsets = x + (first - job[BEFORE_LENGTH]) * size, together", "source, offsets = x + first * size, together", "test_stepping.py"),
    ("a piece read in place of padding", "engine/kernels/_loops.py", "if position < job[BEFORE_LENGTH]:", "if position + 1 < job[BEFORE_LENGTH]:", "test_stepping.py"),
    ("two pieces copied together all the same", "engine/autograd.py", ".kernel == direct.NAME:", ".kernel == native.NAME:", "test_stepping.py"),
    ("a setting of another type taken for one that was checked", "engine/problem.py", "if not _are_plain(settings):\n        return None", "if False:\n        return None", "test_layers.py test_functional.py test_plan.py"),
    ("torch's own gradients of another padding", "engine/kernels/native.py", "if whole_input else _as_if_padded(geometry, input), 0", "if whole_input else _as_if_padded(geometry, input), geometry.left", "test_autograd.py"),
    ("a full memory goes unnoticed", "engine/threads.py", "if numbers[FAILED]:", "if False:", "test_machine_code.py"),
    ("a broken Numba is asked all the same", "engine/kernels/direct.py", "(obstacle := machine_code.why_not(LOOPS, _loop(problem.dtype)))", "(obstacle := None)", "test_machine_code.py"),
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
    ("a non-finite tap laid over the ends", "engine/kernels/direct.py", "if not weight.detach().abs().sum().isfinite():", "if False:", "test_kernels.py"),
    ("the page drops a tap", "explanation/page/convolution.js", "for (let k = 0; k < g.kernelSize; k += 1) pairs.push", "for (let k = 0; k < Math.max(g.kernelSize - 1, 1); k += 1) pairs.push", "test_page.py"),
    ("the page swaps the sides of 'same'", "explanation/page/convolution.js", "return [Math.floor(all / 2), all - Math.floor(all / 2)]", "return [all - Math.floor(all / 2), Math.floor(all / 2)]", "test_page.py"),
    ("the page forgets copies", "explanation/page/convolution.js", "if (source(g, p, length) === position) copies.push(p);", "if (false) copies.push(p);", "test_page.py"),
    ("the page says causal of reflected samples", "explanation/page/convolution.js", "most = Math.max(most, source(g, p, length) - i * g.stride)", "most = Math.max(most, 0 - i * g.stride)", "test_page.py"),
    ("the page runs what it is named", "explanation/page/__init__.py", 'for letter in ("<", ">", "&", "\\u2028", "\\u2029"):', "for letter in ():", "test_page.py"),
    ("a tile that ends with the outputs added twice", "engine/kernels/_row_sums.py", "if t > 0 and t < count and bias != 0:", "if t > 0 and t < count:", "test_kernels.py"),
    ("a short row gathered without its padding", "engine/kernels/_loops.py", "poke(here + q * size, item)  # which is zero", "pass", "test_kernels.py"),
    ("a stack without holes", "explanation/stack.py", "return self.last - self.first + 1 - self.count", "return 0", "test_see.py"),
    ("a model looked at in training", "explanation/model.py", "        model.eval()", "        pass", "test_see.py"),
    ("delay of the wrong sign", "explanation/response.py", "turns @ (times * taps)", "turns @ (-times * taps)", "test_see.py"),
    ("windows of a timeline one sample late", "network/timeline.py", "return o * g.stride - g.left + taps", "return o * g.stride - g.left + taps + 1", "test_timeline.py"),
    ("a crop isn't certain", "network/timeline.py", "return max(0, min(seen + self.left, self.total(certain)))", "return max(0, min(seen + self.left, self.total(seen)))", "test_stream_models.py test_timeline.py"),
    ("reflection doesn't wait for its samples", "network/timeline.py", 'self.padding_mode == "reflect" and seen <= self.left', 'self.padding_mode == "reflect" and seen < 0', "test_timeline.py test_stream.py"),
    ("a stream forgets what reflection reads", "network/timeline.py", "needed = min(needed, seen - 1 - most)", "needed = min(needed, seen - most)", "test_stream.py"),
    ("settled too soon", "network/graph.py", "if fixed <= left or node.timeline.first_needed(fixed, known) <= 0:", "if fixed <= 0:", "test_stream.py"),
    ("the period without strides", "network/graph.py", "every = lcm(self.every, *self.repeats)", "every = self.every", "test_stream.py test_stream_models.py"),
    ("in-place writes go unseen", "network/recording.py", "self._record(func, name, versions != later,", "self._record(func, name, False,", "test_stream_models.py test_stream.py test_network.py"),
    ("the probe sees nothing", "network/probe.py", "if wrong.any():", "if False:", "test_network.py"),
    ("lengths are not checked", "network/reading.py", "if found != total:", "if False:", "test_network.py"),
    ("branches not aligned", "streaming/runners.py", "return stop - start, any(more > stop or old > start for old, more in span.known)", "return stop - start, False", "test_stream.py"),
    ("a transposed tail dropped", "streaming/convolutions.py", "return y, [sums[..., count:].clone()]", "return y, [sums[..., count:count].clone()]", "test_stream.py"),
    ("a snapshot that aliases", "streaming/snapshots.py", "lambda t: t.clone(), state)", "lambda t: t, state)", "test_slots.py"),
    ("slots merged at different places", "streaming/engine.py", "place = self.graph.canonical(group.seen)", "place = 0", "test_slots.py"),
    ("a long filter's spectra shifted", "streaming/partitioned.py", "torch.view_as_complex(spectra)[..., :-1, :]), -2)", "torch.view_as_complex(spectra)[..., 1:, :]), -2)", "test_partitioned.py"),
    ("wild blocks transformed all the same", "streaming/partitioned.py", "if not self._tame(samples):", "if False:", "test_partitioned.py"),
    ("what comes before the beginning isn't masked", "streaming/fixed.py", "if came.lead >= 0:", "if True:", "test_pure.py"),
    ("the check lets differences through", "streaming/agreement.py", "if most > allowed * scale:", "if False:", "test_verify.py"),
    ("zi of taps in reverse", "filters.py", "return taps[:, 0].flip(-1)", "return taps[:, 0]", "test_filters.py"),
    ("clipping live goes uncounted", "live.py", "told.clipped += int(", "told.clipped += 0 * int(", "test_live.py"),
    ("another model's weights loaded", "factory.py", "if wanted != given:", "if False:", "test_live.py"),
    ("a known call padded on the wrong side", "engine/calls.py", "return Call(geometry.padding, 0, only, cast)", "return Call(geometry.padding[::-1], 0, only, cast)", "test_calls.py"),
    ("a known call deaf to options", "engine/calls.py", "steered.get() is not NONE\n            or _modes()", "False\n            or _modes()", "test_calls.py"),
    ("a known call hidden from modes", "engine/calls.py", "or _modes()", "or False", "test_calls.py"),
    ("a known call taken for one under autocast", "engine/calls.py", "or (not cast and _casts())", "or False", "test_calls.py"),
    ("a known call recorded or not, alike", "engine/calls.py", "return Call(None, geometry.left, only, cast)", "return Call(None, geometry.left, None, cast)", "test_calls.py"),
    ("a known call padded twice", "functional.py", "x = input if pads is None else torch", "x = input = input if pads is None else torch", "test_calls.py"),
    ("a recorded gradient by another kernel than the plan's", "engine/autograd.py", "training = training._replace(forward=by)", "pass", "test_calls.py"),
    ("runs of another dilation left out", "engine/kernels/_direct_loops.py", "every = 1 if job[DILATION] % job[STRIDE] else job[STRIDE]", "every = job[STRIDE] if job[DILATION] > 1 else 1", "test_kernels.py"),
    ("every processor has the longest vectors", "engine/kernels/direct.py", "_NARROW_RATES if narrow() else _RATES:", "_RATES:", "test_plan.py"),
    ("a turn's frames replace the last one's", "engine/kernels/fft.py", "total[:, o, c] += (", "total[:, o, c] = (", "test_weight_gradient.py"),
    ("a turn's few frames replace the last one's", "engine/kernels/fft.py", "theirs * ours if total is None else", "theirs * ours if f == 0 else", "test_weight_gradient.py"),
    ("an input's gradient loses its graph", "engine/kernels/native.py", "whole_input = needs[1] or torch.is_grad_enabled()", "whole_input = needs[1]", "test_autograd.py"),
    ("a gradient of one piece is a view", "engine/kernels/direct.py", "if pieces > 1 or weight.dtype == totals.dtype else", "if pieces > 1 else", "test_weight_gradient.py"),
    ("all groups hold their totals at once", "engine/kernels/_fft_frames.py", ", max(4 * A_TURN // (size * totals), 1))", ")", "test_weight_gradient.py"),
    ("large groups as slow as small ones", "engine/kernels/_native_cost.py", "large_groups = halved and fan_in >= 48", "large_groups = False", "test_plan.py"),
    ("gaps cost each product beyond the plain loop", "engine/kernels/_native_cost.py", "if problem.in_channels * problem.length <= _SMALL_INPUT:", "if True:", "test_plan.py"),
    ("strided depthwise layers as slow as with AVX-512", "engine/kernels/_native_cost.py", "1.2 if narrow() and groups > 1 else 6", "6", "test_plan.py"),
    ("transformed gradients as fast as outputs", "engine/kernels/fft.py", "1.6 if alone and", "1.2 if alone and", "test_plan.py"),
    ("writing takes all threads as long as two", "engine/kernels/_native_cost.py", "return _FITTED_THREADS / max(threads, _FITTED_THREADS)", "return 1.0", "test_plan.py"),
    ("windows with gaps cost torch nothing", "engine/kernels/_native_cost.py", "if geometry.dilation > 1 and geometry.groups == 1 and narrow():", "if False:", "test_plan.py"),
    ("strided gradients as fast as outputs", "engine/kernels/_native_cost.py", "each = _SCATTERED if written < _FAR else _SCATTERED_FAR", "each = 0", "test_plan.py"),
    ("depthwise gradients as fast as outputs", "engine/kernels/_native_cost.py", "slow = narrow() and depthwise", "slow = False and depthwise", "test_plan.py"),
    ("turning taps takes nothing", "engine/plan.py", "seconds += _TURNING + _A_TAP * taps", "seconds += _TURNING", "test_plan.py"),
    ("gradients are taken as they come", "engine/autograd.py", "    if outside_the_op(grad, input, weight) is not None:\n        kernels = None", "    if False:\n        kernels = None", "test_autograd.py"),
    ("one group's taps keep their order", "engine/autograd.py", "turned = turned.transpose(0, 1)", "turned = turned.reshape(inner, outer, taps)", "test_autograd.py"),
    ("torch's vectors are always the longest", "engine/kernels/_native_cost.py", "halved = narrow()", "halved = False", "test_plan.py"),
    ("transforms as fast in every processor", "engine/kernels/fft.py", "if _native_cost.narrow():", "if False:", "test_plan.py"),
    ("gradients as fast in every processor", "engine/kernels/direct.py", "_NARROW_GRADIENT_RATES if narrow() else _GRADIENT_RATES", "_GRADIENT_RATES", "test_plan.py"),
    ("phases as fast in every processor", "engine/kernels/direct.py", "(1.35 if narrow() else 1.0) *", "1.0 *", "test_plan.py"),
    ("a strip of the inputs skipped", "engine/kernels/_row_sums.py", "            t += strip\n", "            t += strip + (strip < count)\n", "test_kernels.py"),
    ("calls kept without end", "engine/calls.py", "if len(_known) >= _MOST_KNOWN:", "if False:", "test_calls.py"),
    ("a padding of another type taken for one that was checked", "engine/calls.py", "or not (padding is given or _is_exact(padding))", "or False", "test_calls.py"),
    ("small savings recorded all the same", "engine/plan.py", "worth = saved >= max(", "worth = True or saved >= max(", "test_calls.py"),
    ("nothing recorded ever", "engine/plan.py", "worth = saved >= max(", "worth = False and saved >= max(", "test_calls.py"),
    ("a run that taps read left out", "engine/kernels/_loops.py", "for r in range(0, min(stride, reach), every):", "for r in range(0, min(stride, max(reach - 1, 1)), every):", "test_kernels.py"),
    ("the reference runs unasked", "engine/plan.py", "if n not in (native.NAME, reference.NAME)}", "if n != native.NAME}", "test_plan.py"),
    ("rows taken apart that don't go apart", "streaming/engine.py", "return all(_close(a, b) for one, two in pairs", "return any(_close(a, b) for one, two in pairs", "test_stream_findings.py"),
    ("signals too short for the graph", "streaming/agreement.py", "engine.holds_from(shortest_of(engine, runs, base))", "engine.holds_from(1)", "test_stream_findings.py"),
    ("a new stream isn't held against its model", "streaming/agreement.py", "    agrees(engine, runs, base)\n", "", "test_stream_findings.py"),
    ("old spectra of new weights", "streaming/partitioned.py", "if self._spectra is None or not torch.equal(self._made_of, self.weight):", "if self._spectra is None:", "test_stream_findings.py"),
    ("one state for all bands", "network/rules_convolutions.py", "axis, many or 1)", "axis, 1)", "test_stream_findings.py"),
    ("runs not compared in what they read", "network/reading.py", "one.outputs, one.slots) != (", "one.outputs, other.slots) != (", "test_stream_findings.py"),
    ("another layer's state taken", "stepping.py", "if kept.shape[-1] != needed:", "if False:", "test_stepping.py"),
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
        [*command, *skip, *(f"tests/{name}" for name in tests.split())],
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
