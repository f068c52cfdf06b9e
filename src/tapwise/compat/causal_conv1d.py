"""The functions of the ``causal_conv1d`` library, on any processor, with nothing to compile.

State-space models (Mamba, Mamba-2, Falcon-H1, LFM2) call them. ``install()`` lets code that imports
``causal_conv1d``, as transformers does, find this module. Source: the interface
of Dao-AILab/causal-conv1d, whose arguments mean the same here.
"""

from __future__ import annotations

import importlib.util
import itertools
import sys
from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tapwise.chunks import joined
from tapwise.compat._checks import (
    ACTIVATIONS,
    check_counts,
    check_shapes,
    check_state,
    check_tensors,
    check_types,
    expect,
)
from tapwise.engine.options import options
from tapwise.errors import ShapeError
from tapwise.functional import conv1d
from tapwise.padding import integer

__version__ = "1.6.0"  # of the interface
_NAME = "causal_conv1d"
# The library's own modules, from which some import the functions.
_PARTS = (f"{_NAME}.causal_conv1d_interface", f"{_NAME}.causal_conv1d_varlen")


def causal_conv1d_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    seq_idx: Tensor | None = None,
    initial_states: Tensor | None = None,
    return_final_states: bool = False,
    final_states_out: Tensor | None = None,
    activation: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """A depthwise causal convolution, with an activation after it.

    Arguments:
        x: (batch, dim, seqlen).
        weight: (dim, width), any width.
        bias: (dim,).
        seq_idx: (batch, seqlen): samples of different numbers don't meet; where negative, the output is 0.
        initial_states: (batch, dim, width - 1), the samples before the first; with ``seq_idx``, of each row's
            first sequence.
        return_final_states: return the last width - 1 samples too, for the next call.
        final_states_out: (batch, dim, width - 1), where to write them.
        activation: None, ``"silu"`` or ``"swish"``, which is the same, or another of torch's, as ``"gelu"``.

    Returns:
        (batch, dim, seqlen), of x's dtype; with the final states if asked for.

    Raises:
        NotImplementedError, ShapeError: another activation; shapes or states that don't fit together.

    Example:
        >>> import torch
        >>> from tapwise.compat.causal_conv1d import causal_conv1d_fn
        >>> causal_conv1d_fn(torch.ones(1, 1, 4), torch.ones(1, 3)).tolist()
        [[[1.0, 2.0, 3.0, 3.0]]]
    """
    check_tensors(x=x, weight=weight, bias=bias, seq_idx=seq_idx, initial_states=initial_states)
    check_tensors(final_states_out=final_states_out)
    check_shapes(x, weight, activation)
    check_types(x, weight, bias)
    dim, width = weight.shape
    if bias is not None:
        expect("bias", bias, (dim,))
    weight, bias = _wide(weight, bias)
    for name, state in (("initial_states", initial_states), ("final_states_out", final_states_out)):
        if state is not None:
            check_state(name, state, x)
    if seq_idx is not None:
        if return_final_states:
            raise ShapeError(
                "seq_idx and return_final_states exclude one another",
                got="both",
                expected="one of them",
                fix="causal_conv1d_varlen_states gives the last samples of each sequence",
            )
        expect("seq_idx", seq_idx, (x.shape[0], x.shape[-1]))
        check_counts("seq_idx", seq_idx, None)
        samples = x.to(weight.dtype)
        if initial_states is not None and x.shape[-1]:
            expect("initial_states", initial_states, (x.shape[0], dim, width - 1))
            samples = joined(initial_states.to(weight.dtype), samples)
            seq_idx = joined(seq_idx[:, :1].expand(-1, width - 1), seq_idx)
        out = _separated(samples, weight, bias, seq_idx)
        return _activated(out[..., out.shape[-1] - x.shape[-1] :], activation, x.dtype)
    if initial_states is not None:
        expect("initial_states", initial_states, (x.shape[0], dim, width - 1))
        samples = joined(initial_states.to(weight.dtype), x.to(weight.dtype))
        out = x.to(weight.dtype)
        if x.shape[-1]:
            out = conv1d(samples, weight[:, None], bias, groups=dim)
    else:
        samples = x
        out = conv1d(x.to(weight.dtype), weight[:, None], bias, padding="causal", groups=dim)
    out = _activated(out, activation, x.dtype)
    if not return_final_states:
        return out
    final = F.pad(samples, (max(width - 1 - samples.shape[-1], 0), 0))
    final = final[..., final.shape[-1] - (width - 1) :].to(x.dtype)
    if final_states_out is None:
        return out, final.clone()
    expect("final_states_out", final_states_out, (x.shape[0], dim, width - 1))
    return out, final_states_out.copy_(final)


def _separated(x: Tensor, weight: Tensor, bias: Tensor | None, seq_idx: Tensor) -> Tensor:
    """The sum tap by tap, of samples of the same sequence alone."""
    length, width = x.shape[-1], weight.shape[-1]
    out = x * weight[:, -1:]
    for back in range(1, min(width, length)):
        same = (seq_idx[:, back:] == seq_idx[:, :-back])[:, None]
        met = torch.where(same, x[..., :-back], 0) * weight[:, width - 1 - back, None]
        out = out + F.pad(met, (back, 0))
    if bias is not None:
        out = out + bias[:, None]
    return torch.where((seq_idx >= 0)[:, None], out, 0)


def causal_conv1d_update(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    cache_seqlens: Tensor | None = None,
    conv_state_indices: Tensor | None = None,
) -> Tensor:
    """One step of a stream: the outputs for new samples, and the state moved on in place.

    Arguments:
        x: (batch, dim) or (batch, dim, seqlen), the new samples.
        conv_state: (batch, dim, state_len), state_len >= width - 1, the samples before them; written.
        weight: (dim, width).
        bias: (dim,).
        activation: None, ``"silu"`` or ``"swish"``.
        cache_seqlens: (batch,), samples each row has seen: sample i is then at ``i % state_len``.
        conv_state_indices: (batch,), each row's place in a larger conv_state; negative: output 0, no state.

    Returns:
        As x.

    Raises:
        NotImplementedError, ShapeError: another activation; shapes that don't fit together.

    Example:
        >>> import torch
        >>> from tapwise.compat.causal_conv1d import causal_conv1d_update
        >>> state = torch.zeros(1, 1, 2)
        >>> [causal_conv1d_update(torch.ones(1, 1), state, torch.ones(1, 3)).item() for _ in "abc"]
        [1.0, 2.0, 3.0]
    """
    check_tensors(x=x, conv_state=conv_state, weight=weight, bias=bias)
    check_tensors(cache_seqlens=cache_seqlens, conv_state_indices=conv_state_indices)
    single = x.ndim == 2
    steps = x[..., None] if single else x
    check_shapes(steps, weight, activation)
    check_types(x, weight, bias)
    (batch, dim, length), width = steps.shape, weight.shape[1]
    if bias is not None:
        expect("bias", bias, (dim,))
    weight, bias = _wide(weight, bias)
    size = conv_state.shape[-1] if conv_state.ndim else 0
    rows = conv_state.shape[0] if conv_state_indices is not None else batch
    expect("conv_state", conv_state, (rows, dim, max(size, width - 1)))
    check_state("conv_state", conv_state, x)
    chosen = conv_state_indices
    state, used = conv_state, None
    if chosen is not None:
        expect("conv_state_indices", chosen, (batch,))
        check_counts("conv_state_indices", chosen, None, rows)
        used = chosen >= 0
        state = conv_state[chosen.clamp(min=0).long()]
    if cache_seqlens is not None:
        expect("cache_seqlens", cache_seqlens, (batch,))
        check_counts("cache_seqlens", cache_seqlens, 0)
        before = torch.arange(-(width - 1), 0, device=x.device) + cache_seqlens[:, None].long()
        past = state.gather(2, (before % size)[:, None].expand(-1, dim, -1))
    else:
        past = state
    samples = joined(past.to(weight.dtype), steps.to(weight.dtype))
    if length == 1:
        out = (samples[..., samples.shape[-1] - width :] * weight).sum(-1, keepdim=True)
        out = out if bias is None else out + bias[:, None]
    else:
        first = samples.shape[-1] - length - (width - 1)
        out = conv1d(samples[..., first:], weight[:, None], bias, groups=dim)
    if cache_seqlens is None:
        moved = samples[..., samples.shape[-1] - size :].to(conv_state.dtype)
    else:
        last = min(length, size)  # older ones would be overwritten at once
        places = torch.arange(length - last, length, device=x.device) + cache_seqlens[:, None].long()
        moved = state.scatter(
            2, (places % size)[:, None].expand(-1, dim, -1), steps[..., length - last :].to(state.dtype)
        )
    with torch.no_grad():
        if chosen is None:
            conv_state.copy_(moved)
        elif used is not None:
            conv_state[chosen[used].long()] = moved[used]
    out = _activated(out, activation, x.dtype)
    if used is not None:
        out = torch.where(used[:, None, None], out, 0)
    return out[..., 0] if single else out


def causal_conv1d_varlen_states(x: Tensor, cu_seqlens: Tensor, state_len: int) -> Tensor:
    """The last ``state_len`` samples of each of several sequences laid end to end, zeros before them.

    Arguments:
        x: (total, dim).
        cu_seqlens: (batch + 1,), where each sequence begins, and the total.

    Returns:
        (batch, dim, state_len).

    Example:
        >>> import torch
        >>> from tapwise.compat.causal_conv1d import causal_conv1d_varlen_states
        >>> causal_conv1d_varlen_states(torch.arange(5.0)[:, None], torch.tensor([0, 1, 5]), 3).tolist()
        [[[0.0, 0.0, 0.0]], [[2.0, 3.0, 4.0]]]
    """
    check_tensors(x=x, cu_seqlens=cu_seqlens)
    if x.ndim != 2 or cu_seqlens.ndim != 1 or cu_seqlens.numel() < 2:
        raise ShapeError(
            "sequences laid end to end have two axes, and their bounds one",
            got=f"x of size {list(x.shape)}, cu_seqlens of size {list(cu_seqlens.shape)}",
            expected="(total, dim) and (batch + 1,)",
        )
    state_len = integer("state_len", state_len)
    check_counts("cu_seqlens", cu_seqlens, 0, x.shape[0] + 1)
    starts, ends = cu_seqlens[:-1].long(), cu_seqlens[1:].long()
    check_counts("the lengths that cu_seqlens gives", ends - starts, 0)
    places = ends[:, None] + torch.arange(-state_len, 0, device=x.device)  # (batch, state_len)
    inside = places >= starts[:, None]
    taken = x[torch.where(inside, places, 0).clamp(max=max(x.shape[0] - 1, 0))]
    return torch.where(inside[..., None], taken, 0).transpose(1, 2)


def causal_conv1d_varlen_states_ref(x: Tensor, cu_seqlens: Tensor, state_len: int) -> Tensor:
    """``causal_conv1d_varlen_states`` sequence by sequence, to compare with."""
    bounds = cu_seqlens.tolist()
    rows = [x[max(start, end - state_len) : end].T for start, end in itertools.pairwise(bounds)]
    return torch.stack([F.pad(row, (state_len - row.shape[-1], 0)) for row in rows])


def causal_conv1d_ref(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    initial_states: Tensor | None = None,
    return_final_states: bool = False,
    final_states_out: Tensor | None = None,
    activation: str | None = None,
    seq_idx: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """``causal_conv1d_fn`` by torch's own convolution, to compare with."""
    with options(kernel="native"):
        return causal_conv1d_fn(
            x, weight, bias, seq_idx, initial_states, return_final_states, final_states_out, activation
        )


def causal_conv1d_update_ref(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    cache_seqlens: Tensor | None = None,
) -> Tensor:
    """``causal_conv1d_update`` by torch's own convolution, to compare with."""
    with options(kernel="native"):
        return causal_conv1d_update(x, conv_state, weight, bias, activation, cache_seqlens)


def install() -> list[str]:
    """Let ``import causal_conv1d`` find this module; returns parts of transformers that were changed.

    Raises:
        ImportError: where the library itself is installed.

    Example:
        >>> from tapwise.compat import causal_conv1d
        >>> changed = causal_conv1d.install()
        >>> import causal_conv1d as found
        >>> found is causal_conv1d
        True
        >>> causal_conv1d.uninstall()
    """
    here = sys.modules[__name__]
    if sys.modules.get(_NAME) is not here and importlib.util.find_spec(_NAME) is not None:
        raise ImportError(f"{_NAME} itself is installed: uninstall it first, or use it")
    for name in (_NAME, *_PARTS):
        sys.modules[name] = here
    for part in _PARTS:  # ``import causal_conv1d.causal_conv1d_interface as m`` reads an attribute
        setattr(here, part.rpartition(".")[2], here)
    changed = []
    for name, module in list(sys.modules.items()):
        if not name.startswith("transformers.models.") or module is None:
            continue
        for function in ("causal_conv1d_fn", "causal_conv1d_update"):
            theirs = vars(module).get(function)
            if callable(theirs) and not hasattr(theirs, _MARK):
                _replaced.append((module, function, theirs))
                setattr(module, function, _lenient(globals()[function], theirs))
                changed.append(name)
    return sorted(set(changed))


def uninstall() -> None:
    """Undo ``install``."""
    for name in (_NAME, *_PARTS):
        if sys.modules.get(name) is sys.modules[__name__]:
            del sys.modules[name]
    for part in _PARTS:
        globals().pop(part.rpartition(".")[2], None)
    while _replaced:
        setattr(*_replaced.pop())


_replaced: list[tuple[Any, str, Any]] = []
_MARK = "of_tapwise"


def _lenient(function: Callable[..., Any], theirs: Callable[..., Any]) -> Callable[..., Any]:
    """The function for callers that pass more than it takes, as transformers' layers do.

    Calls with an activation that torch hasn't stay the model's own.
    """
    parameters = signature(function)
    accepted = set(parameters.parameters)

    @wraps(function)
    def lenient(*arguments: Any, **named: Any) -> Any:
        mine = {name: named[name] for name in named if name in accepted}
        if parameters.bind_partial(*arguments, **mine).arguments.get("activation") not in ACTIVATIONS:
            return theirs(*arguments, **named)
        return function(*arguments, **mine)

    setattr(lenient, _MARK, True)
    return lenient


def _wide(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Half precision is summed and activated in float32, and rounded once."""
    if weight.dtype in (torch.float16, torch.bfloat16):
        return weight.float(), None if bias is None else bias.float()
    return weight, bias


def _activated(out: Tensor, activation: str | None, dtype: torch.dtype) -> Tensor:
    return ACTIVATIONS[activation](out).to(dtype)
