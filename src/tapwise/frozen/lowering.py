"""Lowering: the nodes of a graph as steps of a program, where a compiled loop does what they do.

A node that no rule lowers is a step of torch's own. ``RULES`` has a rule by the operation's name.
"""

from __future__ import annotations

from tapwise.frozen.rules_maps import Rule, binary, elu, gelu, glu, joined, linear, moved, power, prelu, same, unary
from tapwise.frozen.rules_norms import batch_norm, group_norm, layer_norm
from tapwise.frozen.rules_recurrences import recurrence
from tapwise.frozen.rules_windows import convolution, padding, pooled
from tapwise.frozen.steps import Ref, Steps
from tapwise.frozen.steps_builder import StepsBuilder
from tapwise.network.graph import Graph, Node
from tapwise.network.operations import Apply, Convolve, Fill, OverTime, Recur, Reshape, Within
from tapwise.network.timeline import Aligned

_KEEP = """
    dropout dropout1d feature_alpha_dropout alpha_dropout contiguous clone detach float
"""
_MOVE = """
    getitem chunk narrow split split_with_sizes tensor_split unbind select squeeze unsqueeze transpose permute movedim
    swapaxes reshape view flatten unflatten T mT
"""
_FUNCTIONS = "relu sigmoid tanh silu sin exp square abs"

# By the operation's name, where it works sample by sample or over channels.
RULES: dict[str, Rule] = {
    **dict.fromkeys(_KEEP.split(), same),
    **dict.fromkeys(_MOVE.split(), moved),
    **{name: unary(name) for name in _FUNCTIONS.split()},
    "leaky_relu": unary("leaky_relu", p=(1, "negative_slope", 0.01)),
    "gelu": gelu,
    "elu": elu,
    "pow": power,
    "prelu": prelu,
    **dict.fromkeys(("add",), binary("add")),
    **dict.fromkeys(("sub", "rsub"), binary("sub")),
    **dict.fromkeys(("mul", "multiply"), binary("mul")),
    **dict.fromkeys(("div", "truediv"), binary("div")),
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "linear": linear,
    "glu": glu,
    **dict.fromkeys(("cat", "concat", "concatenate"), joined),
}


def lowered(graph: Graph, is_compiled: bool = True) -> Steps:
    """The steps of a graph; all of them torch's where nothing can be compiled."""
    builder = StepsBuilder(graph, is_compiled)
    for number, node in enumerate(graph.nodes):
        builder.place(number, _ref_of(builder, number, node))
    return builder.steps


def _ref_of(builder: StepsBuilder, number: int, node: Node) -> Ref | None:
    """Where a node's rows lie; the step that gives them is added, if there is one."""
    if not node.inputs:
        return None if builder.columns[number] is None else Ref(builder.value(number))
    is_held = all(builder.steps.refs[n] is not None for n in node.inputs) and builder.columns[number] is not None
    rule = _rule_of(node) if is_held else None
    found = None if rule is None else rule(builder, number, node)
    return builder.by_torch(number) if found is None else found


def _rule_of(node: Node) -> Rule | None:
    if isinstance(node.work, Convolve):
        return convolution
    if isinstance(node.work, Fill):
        return padding
    if isinstance(node.work, Reshape):
        return moved if node.work.gives == node.work.takes else None
    if isinstance(node.work, Within):
        return pooled if node.name in ("max_pool1d", "avg_pool1d") else None
    if isinstance(node.work, OverTime):
        return group_norm
    if isinstance(node.work, Recur):
        return recurrence
    if isinstance(node.work, Apply) and isinstance(node.timeline, Aligned) and node.work.flat is None:
        return RULES.get(node.name)
    return None
