"""Instructions: the steps of a group as records for the compiled loop."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from tapwise.engine.kernels.program import record
from tapwise.engine.kernels.program.record import INSTRUCTION
from tapwise.frozen import filtering
from tapwise.frozen.memory import SIZE, Place
from tapwise.frozen.steps import Ref, Step, Steps
from tapwise.geometry import Geometry


class Writer:
    """Writes instructions; what they point to stays alive with it.

    Arguments:
        places: by value.
        kept: by value, the first of the rows that are there before a run, below 0 where those are padding.
    """

    def __init__(self, steps: Steps, places: dict[int, Place], kept: dict[int, int]) -> None:
        self.steps, self.places, self.kept = steps, places, kept
        self.alive: list[Any] = []

    def blank(self, code: int, columns: int = 0) -> Any:
        i = np.zeros((), dtype=INSTRUCTION)
        i["code"], i["columns"], i["stride"], i["groups"], i["taps"] = code, columns, 1, 1, 1
        return i

    def operand(self, i: Any, name: str, ref: Ref, first: int = 0) -> None:
        """Let an operand be what is at a ref, from row ``first`` on."""
        place = self.places[ref.value]
        address = place.offset + ref.column * SIZE
        if place.space != record.SCRATCH:
            address += (ref.shift + first) * place.row
        for part, value in (("", address), ("_row", place.row), ("_batch", place.batch), ("_space", place.space)):
            i[name + part] = value

    def constant(self, tensor: Tensor) -> int:
        tensor = tensor.contiguous()
        self.alive.append(tensor)
        return tensor.data_ptr()

    def step(self, step: Step) -> Any:
        """The instruction of a step; that of an import is aimed at a tensor by every run."""
        i = self.blank(step.code, step.columns)
        i["p"], i["q"], i["groups"] = step.p, step.q, step.groups
        self.operand(i, "y", Ref(step.out, step.out_column))
        if step.code == record.IMPORT:
            return i
        self.operand(i, "x", step.x)
        if isinstance(step.z, Ref):
            self.operand(i, "z", step.z)
        elif step.z is not None:
            i["z"] = self.constant(step.z)
        for name in ("weight", "bias", "third"):
            tensor = getattr(step, name)
            if tensor is not None:
                i[name] = self.constant(tensor)
        i["inputs"], i["count"] = step.inputs, step.dots
        if step.code in filtering.CODES.values():
            i["z_row"] = filtering.zeros_of(step) * SIZE
        if step.window is not None:
            self._window(i, step.window)
        return i

    @staticmethod
    def _window(i: Any, window: Geometry) -> None:
        i["taps"], i["stride"] = window.kernel_size, window.stride
        i["tap"] = window.dilation * i["x_row"]
        if window.transposed:
            i["shift"] = window.left
            return
        i["x"] -= window.left * i["x_row"]
        is_dense = i["x_row"] == i["inputs"] * SIZE and window.dilation == 1
        if i["code"] in (record.PRODUCT, record.FEW_OUTPUTS) and is_dense and i["groups"] == 1:
            i["inputs"] *= window.kernel_size  # a window is one piece of memory
            i["taps"], i["tap"] = 1, 0

    def zeros(self, value: int, total: int) -> list[Any]:
        """A number in the rows before a value's first and after its last, where there are any."""
        place, fill = self.places[value], self.steps.values[value].fill
        if place.space == record.SCRATCH or not isinstance(fill, float):
            return []
        low, high = place.rows
        found = []
        before = min(0, high, self.kept.get(value, 0))
        for end, (first, last) in enumerate(((low, before), (max(total, low), high))):
            if first < last:
                i = self.blank(record.ZEROS, self.steps.values[value].columns)
                self.operand(i, "y", Ref(value), first)
                i["count"], i["third"], i["p"] = last - first, end, fill
                found.append(i)
        return found

    def edges(self, value: int, total: int) -> Any:
        """Copies of rows around a value, as a padding mode says; None where there are none."""
        place, fill = self.places[value], self.steps.values[value].fill
        if not isinstance(fill, str):
            return None
        low, high = place.rows
        outside = [*range(low, min(0, high)), *range(max(total, low), high)]
        if not outside:
            return None
        fold = Geometry(1, padding_mode=fill).fold
        pairs = np.array([(row, int(fold(row, total))) for row in outside], dtype=np.int64)
        self.alive.append(pairs)
        i = self.blank(record.EDGES, self.steps.values[value].columns)
        self.operand(i, "y", Ref(value))
        i["count"], i["third"] = len(pairs), pairs.ctypes.data
        return i

    def keep(self, value: int, first: int, before: int, after: int) -> Any:
        """Rows [first, after) kept so that ``after`` is found where ``before`` was; None where nothing is."""
        if after == before or first >= after:
            return None
        i = self.blank(record.KEEP)
        self.operand(i, "x", Ref(value), first)
        self.operand(i, "y", Ref(value), first - (after - before))
        i["count"], i["z"] = after - first, self.places[value].slack
        return i
