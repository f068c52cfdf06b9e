"""Rewriting: steps that follow each other become one, where the result is the same up to rounding.

# convolution, then scale * y + offset by channel    ->  a convolution of other weights
# tanh(a) * sigmoid(b)                               ->  a gate
# a * sigmoid(b), x * sigmoid(x)                     ->  GLU, SiLU
# x + w * sin(z * x)^2                               ->  Snake
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from tapwise.engine.kernels.program import record
from tapwise.engine.kernels.program.record import CODES
from tapwise.frozen.steps import Ref, Step, Steps, TorchStep
from tapwise.network.graph import Graph


class _Rewriting:
    def __init__(self, graph: Graph, steps: Steps) -> None:
        self.graph, self.steps = graph, steps
        self.makers: dict[int, Step] = {}
        self.readers: dict[int, int] = {}
        for step in steps.steps:
            if isinstance(step, Step):
                self.makers[step.out] = step
                for ref in step.reads:
                    self._read(ref)
            else:
                for n in graph.nodes[step.node].inputs:
                    self._read(steps.refs[n])
        for n in graph.results:
            self._read(steps.refs[n])
        self.removed: set[int] = set()

    def _read(self, ref: Ref | None) -> None:
        if ref is not None:
            self.readers[ref.value] = self.readers.get(ref.value, 0) + 1

    def maker(self, reader: Step, ref: Any, *codes: int) -> Step | None:
        """The step that gives just what is read, all of it and for this reader alone, if it is one of some codes."""
        if not isinstance(ref, Ref) or ref.column or ref.shift or self.readers[ref.value] != 1:
            return None
        step = self.makers.get(ref.value)
        if step is None or step.code not in codes or self.steps.values[ref.value].fill is not None:
            return None
        if not step.columns == self.steps.values[ref.value].columns == reader.columns:
            return None
        return step

    def remove(self, step: Step) -> None:
        self.removed.add(id(step))

    def done(self) -> None:
        self.steps.steps = [step for step in self.steps.steps if id(step) not in self.removed]


_TRANSPOSED = (record.TRANSPOSED, record.FEW_TRANSPOSED)
_WEIGHTED = (record.PRODUCT, record.DEPTHWISE, record.FEW_OUTPUTS, *_TRANSPOSED)
_TANH, _SIGMOID, _MUL = CODES["tanh"], CODES["sigmoid"], CODES["mul"]


def rewrite(graph: Graph, steps: Steps) -> None:
    """Rewrite steps in place until nothing changes."""
    for rule in (_fold, _gates, _snakes):
        rewriting = _Rewriting(graph, steps)
        for step in steps.steps:
            if not isinstance(step, TorchStep):
                rule(rewriting, step)
        rewriting.done()


def _scale_and_offset(step: Step) -> tuple[Any, Any] | None:
    """What a step multiplies by and adds, by column."""
    if isinstance(step.z, Ref) or step.z is None:
        return None
    z = step.z.double()
    if step.code == CODES["affine"]:
        assert step.third is not None
        return z, step.third.double()
    by_code = {"mul": (z, 0.0), "div": (1 / z, 0.0), "add": (1.0, z), "sub": (1.0, -z)}
    return next((pair for name, pair in by_code.items() if step.code == CODES[name]), None)


def _fold(rewriting: _Rewriting, step: Step) -> None:
    pair = _scale_and_offset(step)
    if pair is None or (maker := rewriting.maker(step, step.x, *_WEIGHTED)) is None:
        return
    assert maker.source is not None
    scale, offset = pair
    weight, bias = maker.source
    shape = (1, -1, 1) if maker.code in _TRANSPOSED else (-1, 1, 1)
    by_output = scale.reshape(shape) if isinstance(scale, Tensor) else scale
    new_bias = (0.0 if bias is None else bias.double()) * scale + offset
    if not isinstance(new_bias, Tensor):
        new_bias = None if bias is None and new_bias == 0 else weight.new_full((step.columns,), new_bias)
    maker.source = (weight.double() * by_output, new_bias)
    maker.out = step.out
    rewriting.makers[step.out] = maker
    rewriting.remove(step)


def _gates(rewriting: _Rewriting, step: Step) -> None:
    if step.code != _MUL or not isinstance(step.z, Ref):
        return
    for x, z in ((step.x, step.z), (step.z, step.x)):
        sigmoid = rewriting.maker(step, z, _SIGMOID)
        if sigmoid is None:
            continue
        tanh = rewriting.maker(step, x, _TANH)
        if tanh is not None:
            step.code, step.x, step.z = CODES["gate"], tanh.x, sigmoid.x
            rewriting.remove(tanh)
        elif x == sigmoid.x:
            step.code, step.x, step.z = CODES["silu"], x, None
        else:
            step.code, step.x, step.z = CODES["glu"], x, sigmoid.x
        rewriting.remove(sigmoid)
        return


def _snakes(rewriting: _Rewriting, step: Step) -> None:
    if step.code != CODES["add"] or not isinstance(step.z, Ref):
        return
    for x, other in ((step.x, step.z), (step.z, step.x)):
        scaled = rewriting.maker(step, other, _MUL)
        if scaled is None or isinstance(scaled.z, Ref):
            continue
        square = rewriting.maker(step, scaled.x, CODES["square"])
        sine = None if square is None else rewriting.maker(step, square.x, CODES["sin"])
        inner = None if sine is None else rewriting.maker(step, sine.x, _MUL)
        if inner is None or isinstance(inner.z, Ref) or inner.x != x:
            continue
        assert square is not None
        assert sine is not None
        step.code, step.x, step.z, step.third = CODES["snake"], x, inner.z, scaled.z
        for old in (scaled, square, sine, inner):
            rewriting.remove(old)
        return
