"""Every operation that networks may be read with, in each spelling that torch has: function, method, in place.

``tests/network/test_operation_names.py`` reads and streams them all; ``docs/make_reports.py`` lists them.
"""

import operator
import warnings

import torch
from torch import nn
from torch.nn import functional as F

import tapwise as tw
from tapwise.network.operation_names import OVER_AXES, POINTWISE, USUAL_AXIS
from tapwise.network.record import plain_name

PLACES, SPOTS = {"torch": torch, "Tensor": torch.Tensor, "F": F}, ("special", "linalg", "fft")
PLACES.update({name: getattr(torch, name) for name in SPOTS})
CHANNELS = 4

# The kind of number of the signal, and arguments after it, where neither (x), (x, 0.5) nor (x, x) will do.
KINDS = {
    **dict.fromkeys(["bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not", "and", "or", "xor", "invert"], "int"),
    **dict.fromkeys(["view_as_real", "imag", "resolve_conj", "angle", "conj"], "complex"),
    **dict.fromkeys(["logical_and", "logical_or", "logical_xor", "logical_not"], "bool"),
    **dict.fromkeys(["embedding", "one_hot"], "int"),
    "acosh": "above one",
}
TABLE = torch.randn(8, 3, dtype=torch.float64)
HALF = torch.full((1, CHANNELS, 1), 0.5, dtype=torch.float64)
ARGUMENTS = {
    "addcdiv": [(HALF, HALF)],
    "addcmul": [(HALF, HALF)],
    "alpha_dropout": [(0.5, False)],
    "clamp": [(0.3, 0.7)],
    "clip": [(0.3, 0.7)],
    "clamp_max": [(0.5,)],
    "clamp_min": [(0.5,)],
    "complex": [(HALF,)],
    "copysign": [(HALF,)],
    **{key: [(0.5, False)] for key in ["dropout", "dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout"]},
    "embedding": [(TABLE,)],
    "full_like": [(0.5,)],
    "ldexp": [(torch.ones(1, CHANNELS, 1, dtype=torch.int64),)],
    "lerp": [(HALF, 0.5)],
    "masked_fill": [(torch.tensor([True, False, True, False])[:, None], 0.0)],
    "one_hot": [(8,)],
    "prelu": [(torch.full((CHANNELS,), 0.2, dtype=torch.float64),)],
    "rrelu": [(0.1, 0.3, False)],
    "bucketize": [(torch.tensor([0.2, 0.5], dtype=torch.float64),)],
    **{name: [(HALF,)] for name in ("fmax", "fmin", "heaviside", "polar")},
    "threshold": [(0.4, 0.0)],
    "to": [(torch.float32,)],
    "type": [(torch.float32,)],
    "where": [],
    "requires_grad": [(False,)],
    # Over an axis: channels.
    "chunk": [(2, 1)],
    "cosine_similarity": [(HALF, 1)],
    "diff": [(1, 1)],
    "kthvalue": [(2, 1)],
    "quantile": [(0.5, 1)],
    "nanquantile": [(0.5, 1)],
    "norm": [(2, 1)],
    "linalg_norm": [(2, 1)],
    "linalg_vector_norm": [(2, 1)],
    "normalize": [(2.0, 1)],
    "roll": [(1, 1)],
    "select": [(1, 2)],
    "split": [(2, 1)],
    "split_with_sizes": [([1, 3], 1)],
    "tensor_split": [(2, 1)],
    "topk": [(2, 1)],
    "renorm": [],
    **{key: [(4, 1)] for key in ["fft_fft", "fft_ifft", "fft_rfft", "fft_irfft"]},
}
RECURRENCES = {
    "lstm": nn.LSTM(CHANNELS, 3, batch_first=True).double(),
    "gru": nn.GRU(CHANNELS, 3, batch_first=True).double(),
    "rnn_tanh": nn.RNN(CHANNELS, 3, batch_first=True).double(),
    "rnn_relu": nn.RNN(CHANNELS, 3, nonlinearity="relu", batch_first=True).double(),
}
# What has a form of its own.
MORE = {
    "where": [lambda x: torch.where(x > 0.5, x, 0.0), lambda x: x.where(x > 0.5, HALF)],
    "rsub": [lambda x: torch.rsub(x, 1.0), lambda x: 1.0 - x],
    "float_power": [lambda x: x.float_power(2), lambda x: torch.float_power(x, 2)],
    "pow": [lambda x: x**2, lambda x: 2**x, lambda x: x.pow(2), lambda x: x.clone().pow_(2)],
    "data": [lambda x: x.data],
    "real": [lambda x: x.real, lambda x: torch.real(x)],
    "imag": [lambda x: torch.complex(x, x).imag, lambda x: torch.imag(torch.complex(x, x))],
    "cpu": [lambda x: x.cpu()],
    "log_sigmoid": [lambda x: F.logsigmoid(x), lambda x: nn.LogSigmoid()(x)],
    "threshold": [lambda x: F.threshold(x, 0.4, 0.0), lambda x: nn.Threshold(0.4, 0.0)(x)],
    "pos": [lambda x: +x, lambda x: torch.positive(x)],
    "aminmax": [lambda x: x.aminmax(dim=1), lambda x: torch.aminmax(x, dim=1)],
    "upsample": [lambda x: F.upsample(x, scale_factor=2)],
    "upfirdn": [lambda x: tw.Upfirdn([0.5, 1.0, 0.5], 3, 2)(x)],
    **{name: [lambda x, layer=layer: layer(x.mT)[0]] for name, layer in RECURRENCES.items()},
    "instance_norm": [lambda x: nn.InstanceNorm1d(CHANNELS, track_running_stats=True).double().eval()(x)],
    "type_as": [lambda x: x.type_as(HALF)],
    "fft_rfft": [lambda x: torch.fft.rfft(x, dim=1).abs()],
    # Axes, parts and pads.
    "T": [lambda x: x[0].T],
    "mT": [lambda x: x.mT],
    "mH": [lambda x: x.mH],
    "t": [lambda x: x[0].t(), lambda x: torch.t(x[0])],
    "adjoint": [lambda x: x.adjoint(), lambda x: torch.adjoint(x)],
    "permute": [lambda x: x.permute(0, 2, 1), lambda x: torch.permute(x, (0, 2, 1))],
    "transpose": [lambda x: x.transpose(1, 2), lambda x: torch.transpose(x, 1, 2)],
    "swapaxes": [lambda x: x.swapaxes(1, 2), lambda x: torch.swapaxes(x, 1, 2)],
    "swapdims": [lambda x: x.swapdims(1, 2), lambda x: torch.swapdims(x, 1, 2)],
    "movedim": [lambda x: x.movedim(1, 2), lambda x: torch.movedim(x, 1, 2)],
    "moveaxis": [lambda x: x.moveaxis(1, 2), lambda x: torch.moveaxis(x, 1, 2)],
    "view_as_real": [lambda x: torch.view_as_real(torch.complex(x, x))],
    "view_as_complex": [lambda x: torch.view_as_complex(torch.stack((x, x), -1)).abs()],
    "view": [lambda x: x.contiguous().view(x.shape[0], 2, 2, -1)],
    "reshape": [lambda x: x.reshape(x.shape[0], 2, 2, -1), lambda x: torch.reshape(x, (x.shape[0], 2, 2, -1))],
    "view_as": [lambda x: x[:, :, None].view_as(x), lambda x: x.view_as(x * 2)],
    "reshape_as": [lambda x: x.mT.mT.reshape_as(x)],
    "flatten": [lambda x: x[:, :, None].flatten(1, 2), lambda x: torch.flatten(x[:, :, None], 1, 2)],
    "unflatten": [lambda x: x.unflatten(1, (2, 2)), lambda x: torch.unflatten(x, 1, (2, 2))],
    "ravel": [lambda x: x[0, 0].ravel(), lambda x: torch.ravel(x[0, 0])],
    "squeeze": [lambda x: x[:, :1].squeeze(1), lambda x: torch.squeeze(x[:, :1], 1)],
    "unsqueeze": [lambda x: x.unsqueeze(1), lambda x: torch.unsqueeze(x, -1)],
    "expand": [lambda x: x[:, :1].expand(-1, 3, -1)],
    "expand_as": [lambda x: x[:, :1].expand_as(x)],
    "getitem": [lambda x: x[:, 1:3], lambda x: x[..., 2:-1], lambda x: x[:, 0, ::2], lambda x: operator.getitem(x, 0)],
    "narrow": [lambda x: x.narrow(1, 1, 2), lambda x: torch.narrow(x, 2, 0, x.shape[2] - 1)],
    "cat": [lambda x: torch.cat((x, x), 1), lambda x: torch.cat((HALF.expand(x.shape[0], -1, -1), x), -1)],
    "concat": [lambda x: torch.concat((x, x), 1)],
    "concatenate": [lambda x: torch.concatenate((x, x), 1)],
    "stack": [lambda x: torch.stack((x, x), 1)],
    "index_select": [
        lambda x: x.index_select(1, torch.tensor([2, 0])),
        lambda x: torch.index_select(x, 1, torch.tensor([1])),
    ],
    "gather": [lambda x: x.gather(1, torch.tensor([1, 0])[:, None].expand(x.shape[0], 2, x.shape[-1]))],
    "repeat": [lambda x: x.repeat(1, 2, 1)],
    "tile": [lambda x: x.tile(2, 1), lambda x: torch.tile(x, (1, 2, 1))],
    "pad": [lambda x: F.pad(x, (2, 1)), lambda x: nn.ReplicationPad1d(2)(x), lambda x: nn.ReflectionPad1d((2, 0))(x)],
    # Windows.
    "conv1d": [lambda x: F.conv1d(x, TAPS, padding=1), lambda x: torch.conv1d(x, TAPS, stride=2)],
    "conv_transpose1d": [lambda x: F.conv_transpose1d(x, TAPS, stride=2)],
    "avg_pool1d": [lambda x: F.avg_pool1d(x, 3), lambda x: nn.AvgPool1d(2, 1, 1)(x), lambda x: torch.avg_pool1d(x, 2)],
    "max_pool1d": [lambda x: F.max_pool1d(x, 3), lambda x: nn.MaxPool1d(2)(x), lambda x: torch.max_pool1d(x, 2)],
    "interpolate": [
        lambda x: F.interpolate(x, scale_factor=2),
        lambda x: nn.Upsample(scale_factor=2, mode="linear")(x),
    ],
    "repeat_interleave": [lambda x: x.repeat_interleave(2, -1), lambda x: torch.repeat_interleave(x, 3, dim=1)],
    "unfold": [lambda x: x.unfold(-1, 3, 2), lambda x: F.unfold(x[:, :, None], (1, 3)), lambda x: x.unfold(1, 2, 1)],
    "lp_pool1d": [lambda x: F.lp_pool1d(x, 2, 3), lambda x: nn.LPPool1d(3, 4, 2)(x)],
    "pixel_shuffle": [lambda x: F.pixel_shuffle(x[:, :, None], 2), lambda x: nn.PixelShuffle(2)(x[:, :, None])],
    "pixel_unshuffle": [lambda x: F.pixel_unshuffle(x[:, None], 2)],
    "im2col": [lambda x: F.unfold(x[:, :, None], (1, 4), stride=2)],
    "local_response_norm": [lambda x: F.local_response_norm(x, 2), lambda x: nn.LocalResponseNorm(3)(x)],
    "conv2d": [lambda x: F.conv2d(x[:, None], TAPS[:, :1, :, None].mT, padding=(0, 1))],
    "conv_transpose2d": [lambda x: F.conv_transpose2d(x[:, None], TAPS[:1, :, None], stride=(1, 2))],
    "avg_pool2d": [lambda x: F.avg_pool2d(x[:, None], 2), lambda x: nn.AvgPool2d((2, 1))(x[:, None])],
    "max_pool2d": [lambda x: F.max_pool2d(x[:, None], (2, 3)), lambda x: nn.MaxPool2d(2)(x[:, None])],
    # Products with a constant.
    "linear": [lambda x: F.linear(x.mT, TABLE[:2, :1].expand(2, CHANNELS))],
    "matmul": [lambda x: torch.matmul(x.mT, MATRIX), lambda x: MATRIX @ x, lambda x: x.mT.matmul(MATRIX)],
    "bmm": [
        lambda x: torch.bmm(MATRIX.expand(x.shape[0], -1, -1), x),
        lambda x: x.mT.bmm(MATRIX.expand(x.shape[0], -1, -1)),
    ],
    "mm": [lambda x: torch.mm(MATRIX, x[0]), lambda x: x[0].t().mm(MATRIX)],
    "einsum": [lambda x: torch.einsum("oc,bct->bot", MATRIX, x)],
    "addmm": [lambda x: torch.addmm(MATRIX[:, :1], MATRIX, x[0]), lambda x: MATRIX[0].addmm(x[0].t(), MATRIX)],
    "baddbmm": [lambda x: torch.baddbmm(MATRIX[0], x.mT, MATRIX.expand(x.shape[0], -1, -1))],
    "tensordot": [lambda x: torch.tensordot(x, MATRIX, ([1], [0])), lambda x: torch.tensordot(MATRIX, x[0], 1)],
    "cdist": [lambda x: torch.cdist(x.mT, TABLE[:, :1].expand(8, CHANNELS))],
    "channel_shuffle": [lambda x: F.channel_shuffle(x, 2), lambda x: nn.ChannelShuffle(2)(x)],
    # Normalisation of each moment.
    "batch_norm": [lambda x: nn.BatchNorm1d(CHANNELS).double().eval()(x)],
    "layer_norm": [lambda x: F.layer_norm(x.mT, (CHANNELS,)), lambda x: nn.LayerNorm(CHANNELS).double()(x.mT)],
    "rms_norm": [lambda x: F.rms_norm(x.mT, (CHANNELS,))],
    # All of the past.
    **{
        name: [lambda x, m=name: getattr(torch, m)(x, -1), lambda x, m=name: getattr(x, m)(2)]
        for name in ("cumsum", "cumprod", "logcumsumexp")
    },
    **{name: [lambda x, m=name: getattr(torch, m)(x, -1)[0]] for name in ("cummax", "cummin")},
}
MATRIX = torch.randn(CHANNELS, CHANNELS, dtype=torch.float64)
TAPS = torch.randn(CHANNELS, CHANNELS, 3, dtype=torch.float64)

SIGNALS = {
    "float": lambda x: x,
    "int": lambda x: (x.nan_to_num(0) * 8).long().clamp(0, 7),
    "bool": lambda x: x > 0.5,
    "complex": lambda x: torch.complex(x, 1 - x),
    "above one": lambda x: x + 1,
}


def spellings(name: str) -> dict[str, object]:
    """By spelling, a function of a signal (batch, 4, time) of numbers between 0 and 1 that calls ``name``."""
    found = {f"{name} {n}": function for n, function in enumerate(MORE.get(name, ()))}
    if name not in POINTWISE and name not in OVER_AXES:
        return found
    kind = KINDS.get(name, "float")
    for place, module in PLACES.items():
        for written in dir(module):
            function = getattr(module, written)
            if not callable(function) or isinstance(function, type) or plain_name(function) != name:
                continue
            for arguments in _arguments(name):
                call = _call(function, kind, arguments)
                if _works(call):
                    found[f"{place}.{written}"] = call
                    break
    return found


def _arguments(name: str) -> list[tuple]:
    if name in ARGUMENTS:
        return ARGUMENTS[name]
    if name in OVER_AXES:
        return [(1,), ()] if USUAL_AXIS.get(name) == 1 else [(1,)]
    return [(), (0.5,), (HALF,), (2,)]


def _call(function, kind, arguments):
    return lambda x: function(SIGNALS[kind](x).clone(), *arguments)


def _works(call) -> bool:
    x = torch.rand(2, CHANNELS, 12, dtype=torch.float64) * 0.8 + 0.1
    try:
        with warnings.catch_warnings(action="ignore"):
            result = call(x)
    except Exception:
        return False
    leaves = torch.utils._pytree.tree_leaves(result)
    return bool(leaves) and all(isinstance(leaf, torch.Tensor) and leaf.ndim > 1 for leaf in leaves)


def names() -> list[str]:
    """Every name that is exercised."""
    return sorted(POINTWISE | set(OVER_AXES) | set(MORE))
