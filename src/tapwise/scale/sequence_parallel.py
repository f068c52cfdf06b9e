"""Sequences over ranks: every convolution of a model computes its shard, and exchanges what its windows need."""

from __future__ import annotations

import weakref
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from tapwise.errors import TimelineError
from tapwise.network.reading import read
from tapwise.network.timeline import Aligned
from tapwise.padding import single
from tapwise.scale import parallel_layers
from tapwise.scale.exchange import Ranks
from tapwise.scale.parallel_layers import Sequences


def parallelize(model: nn.Module, mesh: Any, *, example: Any = None, timeout: float = 300.0) -> nn.Module:
    """Let a model run on sequences that are divided over ranks, along their last axis; changed in place.

    Each rank calls the model on its own shard, of any length, empty too, and gets the outputs whose moments it
    holds. Together these are what the model gives for the full sequence, and so are the gradients, summed over the
    ranks: of inputs on the rank that holds them, of weights a share on each. Convolutions, transposed ones, pooling
    and padding layers exchange what their windows need; while it travels, the rest is computed.

    All else has to work sample by sample. Modules that don't are refused. What the model's own code calls, as a mean over time
    or ``F.pad``, is seen only where an example is given: then the model is read as ``tapwise.inspect`` reads it.

    It goes before ``DistributedDataParallel`` or ``fully_shard``, which average gradients over ranks: let each rank's
    loss be its sum over its own outputs, times the number of ranks, divided by the number of all outputs.

    Arguments:
        mesh: a one-dimensional ``DeviceMesh``, or a process group.
        example: a tensor that the model takes, of a full sequence, or a tuple of its inputs; None: modules alone are
            looked at.
        timeout: seconds that a rank waits for others, before it raises ``RankError``.

    Returns:
        The model itself.

    Raises:
        TimelineError: a module that mixes time in another way, as attention and recurrences, by its path.
        TypeError: what is no mesh.

    Example:
        >>> import torch, tapwise as tw
        >>> from torch.distributed.device_mesh import init_device_mesh
        >>> def train(x):  # on each rank, under torchrun
        ...     mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
        ...     model = tw.scale.parallelize(torch.nn.Conv1d(1, 1, 9, padding=4), mesh)
        ...     return tw.scale.gather(model(tw.scale.shard(x, mesh)), mesh)
    """
    group = group_of(mesh)
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a torch.nn.Module, got {type(model).__name__}")
    if not timeout > 0:
        raise ValueError(f"timeout must be a positive number of seconds, got {timeout}")
    sequences = Sequences(Ranks(weakref.ref(group), timeout))
    if example is not None:
        refuse_mixing(model, example)
    replaced = [(module, path, _forward_of(module, path)) for path, module in model.named_modules()]
    for module, path, (name, function) in ((m, p, f) for m, p, f in replaced if f is not None):
        module.__dict__[name] = partial(function, module, sequences, path or "the model itself")
    norms = {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and not isinstance(module, nn.SyncBatchNorm)
    }
    model.register_forward_hook(partial(_end, sequences))
    model.register_forward_pre_hook(partial(_begin, sequences, norms), with_kwargs=True, prepend=True)
    model.__dict__["sequence_ranks"] = sequences.ranks
    return model


def group_of(mesh: Any) -> Any:
    """The process group of a mesh.

    Raises:
        TypeError: what is no mesh of one dimension.
    """
    if isinstance(mesh, dist.ProcessGroup):
        return mesh
    if not hasattr(mesh, "get_group") or getattr(mesh, "ndim", 0) != 1:
        raise TypeError(
            f"expected a DeviceMesh of one dimension or a process group, got {mesh!r}: of a mesh of several, "
            'name the one over which sequences are divided, mesh["sequence"]'
        )
    return mesh.get_group()


def _begin(sequences: Sequences, norms: dict[str, Any], model: nn.Module, arguments: Any, named: Any) -> None:
    for path, norm in norms.items():
        if norm.training or getattr(norm, "running_mean", None) is None:
            raise TimelineError(
                "takes its statistics over its own shard alone",
                path,
                type(norm).__name__,
                "use SyncBatchNorm, or eval()",
            )
    tensors = [x for x in pytree.tree_leaves((arguments, named)) if isinstance(x, Tensor) and x.ndim > 1]
    for x in tensors:
        parallel_layers.refuse_dtensors("the model's input", x)
    sequences.begin(tensors)


def _end(sequences: Sequences, model: nn.Module, arguments: Any, outputs: Any) -> None:
    sequences.end([x for x in pytree.tree_leaves(outputs) if isinstance(x, Tensor) and x.ndim > 1])


def refuse_mixing(model: nn.Module, example: Any) -> None:
    """Refuse operations that mix time and aren't a layer's that exchanges what it needs.

    Raises:
        TimelineError: the first one, by the path of its module.
    """
    graph, _ = read(model, example)
    for node in graph.nodes:
        if not node.inputs or (isinstance(node.timeline, Aligned) and not node.timeline.endless):
            continue
        module = model.get_submodule(node.path)
        if node.timeline.endless or _forward_of(module, node.path) is None:
            raise TimelineError(
                "mixes time in the model's own code, which each rank would do for itself",
                node.path,
                node.name,
                "use a layer for it (tapwise.Conv1d with padding=, nn.MaxPool1d, nn.ConstantPad1d)",
            )


def _forward_of(module: nn.Module, path: str) -> tuple[str, Any] | None:
    """The method of a module that is replaced, and by what; None for one that stays.

    Raises:
        TimelineError: a module that mixes time.
    """
    name = type(module).__name__
    if isinstance(module, nn.Softmax | nn.LogSoftmax | nn.Softmin | nn.GLU) and module.dim in (-1, 2):
        raise TimelineError("works along the last axis, which is time", path, name, "give dim=1, the channels")
    for kinds, (reason, remedy) in _REFUSED.items():
        if isinstance(module, kinds):
            raise TimelineError(reason, path, name, remedy)
    bases = [kind for kind in _EXCHANGE if isinstance(module, kind)]
    is_own = not type(module).__module__.startswith("tapwise.") and all(
        type(module).forward is not kind.forward for kind in bases
    )
    if bases and is_own and not isinstance(module, nn.Conv1d):
        raise TimelineError("has a forward of its own", path, name, "put what it adds into a module around it")
    if isinstance(module, nn.Conv1d):
        if is_own:
            return "_conv_forward", parallel_layers.convolution_of_input
        return "forward", parallel_layers.convolution
    if isinstance(module, nn.ConvTranspose1d):
        return "forward", parallel_layers.convolution
    if isinstance(module, nn.MaxPool1d | nn.AvgPool1d):
        if module.ceil_mode or getattr(module, "return_indices", False):
            raise TimelineError(
                "rounds its output's length up, or returns positions",
                path,
                name,
                "leave out ceil_mode and return_indices",
            )
        if isinstance(module, nn.MaxPool1d):
            return "forward", parallel_layers.max_pooling
        if not module.count_include_pad and single("padding", module.padding):
            raise TimelineError("counts no padding", path, name, "give count_include_pad=True, or pad before it")
        return "forward", parallel_layers.average_pooling
    if isinstance(module, nn.ConstantPad1d | nn.ReflectionPad1d | nn.ReplicationPad1d | nn.CircularPad1d):
        if min(module.padding) < 0:
            raise TimelineError("cuts the ends", path, name, "let the layer before it give fewer samples")
        return "forward", parallel_layers.padding
    if isinstance(module, nn.Upsample):
        factor = module.scale_factor
        if module.mode != "nearest" or not isinstance(factor, int | float) or factor != int(factor):
            raise TimelineError(
                "interpolates, or by a factor that is no integer",
                path,
                name,
                "upsample by an integer with mode='nearest'",
            )
        return "forward", parallel_layers.upsampling
    return None


_EXCHANGE: tuple[Any, ...] = (
    nn.Conv1d,
    nn.ConvTranspose1d,
    nn.MaxPool1d,
    nn.AvgPool1d,
    nn.ConstantPad1d,
    nn.ReflectionPad1d,
    nn.ReplicationPad1d,
    nn.CircularPad1d,
    nn.Upsample,
)
_ATTENDS = ("reads all of time at once", "keep it on one rank: tapwise.scale.gather before it, shard after it")
_CARRIES = ("carries a state from each moment to the next", _ATTENDS[1])
_AVERAGES = ("takes its statistics over all of time", "norm over channels alone, or BatchNorm in evaluation")
_REFUSED: dict[Any, tuple[str, str]] = {
    (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer, nn.Transformer): _ATTENDS,
    (nn.RNNBase, nn.RNNCellBase): _CARRIES,
    (nn.GroupNorm, nn.InstanceNorm1d, nn.LazyInstanceNorm1d): _AVERAGES,
    (nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d, nn.LPPool1d, nn.FractionalMaxPool2d, nn.MaxUnpool1d): (
        "its windows depend on the length, or aren't known",
        "pool by windows of a fixed size (AvgPool1d, MaxPool1d)",
    ),
    (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d): (
        "works over more than one axis",
        "use one-dimensional convolutions",
    ),
    (nn.Flatten, nn.Unflatten, nn.Fold, nn.Unfold, nn.LocalResponseNorm): (
        "moves or joins axes, time perhaps",
        "reshape channels alone, outside of the parallelized model",
    ),
    nn.modules.lazy.LazyModuleMixin: ("has no weight yet", "run the model once first"),
}


def shard(x: Tensor, mesh: Any, *, axis: int = -1) -> Tensor:
    """This rank's part of a full sequence: as long as the others', or by one sample longer.

    Arguments:
        x: any tensor, the same on every rank.
        axis: that is divided.

    Example:
        >>> import torch
        >>> [part.tolist() for part in torch.arange(5).tensor_split(2)]  # what two ranks get
        [[0, 1, 2], [3, 4]]
    """
    group = group_of(mesh)
    return x.tensor_split(dist.get_world_size(group), axis)[dist.get_rank(group)]


def gather(y: Tensor, mesh: Any, *, axis: int = -1) -> Tensor:
    """The full sequence, on every rank, from the shards of all.

    Its gradient is each rank's own part of the gradient: the loss is to be computed alike on every rank.

    Arguments:
        y: this rank's shard, of any length; all other axes are the same on every rank.
        axis: that is divided.

    Raises:
        RankError: a rank that has ended or is late.
    """
    result: Tensor = _GatherAll.apply(y, Ranks(weakref.ref(group_of(mesh))), axis)  # type: ignore[no-untyped-call]
    return result


class _GatherAll(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, ranks: Ranks, axis: int) -> Tensor:
        ranks.path = "gather"
        lengths = ranks.lengths([y.shape[axis]], y.device)[0]
        ctx.axis, ctx.start, ctx.length = axis, sum(lengths[: ranks.rank]), lengths[ranks.rank]
        if ranks.size == 1:
            return y.clone()
        rows = y.movedim(axis, 0).contiguous()
        # To every rank all of the shard.
        sent = rows.repeat(ranks.size, *[1] * (rows.ndim - 1))
        received, work = ranks.begin(sent, [rows.shape[0]] * ranks.size, lengths)
        ranks.finish(work)
        return received.movedim(0, axis).contiguous()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad.narrow(ctx.axis, ctx.start, ctx.length), None, None
