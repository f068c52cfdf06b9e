"""Aligned calls: runs of a model that pads or cuts only where the length asks for it, call by call alike.

# length 8    conv                  relu        ``if x.shape[-1] % 4: x = F.pad(x, ...)``
# length 9    conv    pad (0, 3)    relu
# length 8    conv    pad (0, 0)    relu        the same run, aligned
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from tapwise.network.record import Call, Recording, Ref

# Calls that do nothing where they add or cut nothing: how their arguments say so.
_PADS_AND_CUTS = ("pad", "getitem")


def longest(runs: Sequence[Recording]) -> Recording:
    """The run of the most calls, which the others are aligned to."""
    return max(runs, key=lambda run: len(run.calls))


def aligned_to(template: Recording, run: Recording) -> Recording:
    """The run with the calls of the template: where one is missing that pads or cuts, it does nothing.

    Where other calls differ, the run as it is.
    """
    if len(run.calls) >= len(template.calls) or len(template.calls) - len(run.calls) > 64:
        return run
    calls: list[Call] = []
    number = {n: n for n in range(run.signals)}  # by the run's tensor, the template's
    sizes, dtypes = list(run.sizes[: run.signals]), list(run.dtypes[: run.signals])
    values = list(run.values[: run.signals])
    waiting = iter(run.calls)
    call = next(waiting, None)
    # By the run's tensor, what stands for it after a call that does nothing, in the order of such calls.
    stands_for: dict[int, list[int]] = {}
    for wanted in template.calls:
        if call is not None and _is_same(call, wanted, number, stands_for):
            calls.append(_renumbered(call, wanted))
            for mine, theirs in zip(call.outputs, wanted.outputs, strict=True):
                if mine is not None and theirs is not None:
                    number[mine] = theirs
                    _put(sizes, theirs, run.sizes[mine])
                    _put(dtypes, theirs, run.dtypes[mine])
                    if run.values:
                        _put(values, theirs, run.values[mine])
            call = next(waiting, None)
            continue
        nothing = _doing_nothing(wanted)
        if nothing is None:
            return run
        source, made = wanted.refs[0], wanted.outputs[0]
        if source >= len(sizes) or made is None:
            return run
        calls.append(nothing)
        _put(sizes, made, sizes[source])
        _put(dtypes, made, dtypes[source])
        if run.values:
            _put(values, made, values[source])
        for mine, theirs in number.items():
            if theirs == source or source in stands_for.get(mine, ()):
                stands_for.setdefault(mine, []).append(made)
    if call is not None:
        return run
    leaves = []
    for leaf, wanted_leaf in zip(run.leaves, template.leaves, strict=False):
        if isinstance(leaf, Ref):
            options = (number.get(leaf.value), *stands_for.get(leaf.value, ()))
            leaf = wanted_leaf if isinstance(wanted_leaf, Ref) and wanted_leaf.value in options else leaf
        leaves.append(leaf)
    return replace(run, calls=calls, sizes=sizes, dtypes=dtypes, values=values, leaves=leaves)


def _put(found: list[Any], place: int, value: Any) -> None:
    found.extend([value] * (place + 1 - len(found)))
    found[place] = value


def _is_same(call: Call, wanted: Call, number: dict[int, int], stands_for: dict[int, list[int]]) -> bool:
    if (call.name, call.path, len(call.outputs), call.spec) != (
        wanted.name,
        wanted.path,
        len(wanted.outputs),
        wanted.spec,
    ):
        return False
    pairs = zip(call.refs, wanted.refs, strict=False)
    return len(call.refs) == len(wanted.refs) and all(
        theirs == number.get(mine) or theirs in stands_for.get(mine, ()) for mine, theirs in pairs
    )


def _renumbered(call: Call, wanted: Call) -> Call:
    refs = iter(wanted.refs)
    leaves = [Ref(next(refs)) if isinstance(leaf, Ref) else leaf for leaf in call.leaves]
    return replace(call, leaves=leaves, outputs=list(wanted.outputs))


def _doing_nothing(call: Call) -> Call | None:
    """A call that pads or cuts, by nothing; None for any other."""
    if call.name not in _PADS_AND_CUTS or len(call.refs) != 1:
        return None
    if call.name == "pad":
        leaves = [0 if type(leaf) is int and n <= _last_pad(call) else leaf for n, leaf in enumerate(call.leaves)]
    else:
        if any(not isinstance(leaf, Ref | slice) and leaf is not Ellipsis for leaf in call.leaves):
            return None
        leaves = [slice(None) if isinstance(leaf, slice) else leaf for leaf in call.leaves]
    return replace(call, leaves=leaves)


def _last_pad(call: Call) -> int:
    """The last of the leaves that are amounts of padding; after them come the mode and the value."""
    for n, leaf in enumerate(call.leaves):
        if isinstance(leaf, str):
            return n - 1
    amounts = torch.utils._pytree.tree_leaves(call.arguments[0][1]) if len(call.arguments[0]) > 1 else []
    return len(amounts) or len(call.leaves)
