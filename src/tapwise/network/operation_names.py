"""torch's operations by name, as docs/networks.md lists them: what each does with time.

The name is the ``__name__`` of the function that torch calls: ``special_gammaln`` for torch.special.gammaln.
"""

from __future__ import annotations

# Sample by sample: tensors of the signal, and others that are the same at every moment.
_POINTWISE = """
    abs acos acosh add addcdiv addcmul alpha_dropout and angle asin asinh atan atan2 atanh bfloat16
    bitwise_and bitwise_not bitwise_or bitwise_xor bool ceil celu clamp clamp_max clamp_min clip
    clone complex conj contiguous copysign cos cosh cpu data detach digamma div divide double
    dropout dropout1d dropout2d dropout3d elu embedding eq erf erfc exp exp2 expm1 fmax fmin heaviside polar bucketize feature_alpha_dropout float
    float_power floor floor_divide floordiv fmod frac full_like ge gelu gt half hardshrink
    hardsigmoid hardswish hardtanh hypot imag int invert isfinite isinf isnan ldexp le leaky_relu
    lerp lgamma log log10 log1p log2 logaddexp logical_and logical_not logical_or logical_xor logit
    log_sigmoid long lt masked_fill maximum minimum mish mod mul multiply nan_to_num ne neg negative
    nextafter one_hot ones_like or pos positive pow prelu rad2deg real reciprocal relu relu6
    remainder requires_grad resolve_conj resolve_neg round rrelu rsqrt rsub selu sgn sigmoid sign
    signbit silu sin sinc sinh softplus softshrink softsign sqrt square sub subtract tan tanh
    tanhshrink threshold to true_divide truediv trunc type type_as where xlogy xor zeros_like
"""
POINTWISE = frozenset(_POINTWISE.split())

# Over one axis or several, which must not be that of time: where the argument stands that says which.
_SECOND = """
    all amax amin aminmax any argmax argmin argsort count_nonzero cummax cummin cumprod cumsum flip
    glu log_softmax logcumsumexp logsumexp max mean median min mode nanmean nanmedian nansum prod
    select softmax softmin sort std std_mean sum unbind var var_mean
"""
_THIRD = """
    chunk cosine_similarity diff kthvalue linalg_norm linalg_vector_norm nanquantile norm normalize quantile roll split
    split_with_sizes tensor_split topk
"""
OVER_AXES = {
    **dict.fromkeys(_SECOND.split(), 1),
    **dict.fromkeys(_THIRD.split(), 2),
    **dict.fromkeys(("fft_fft", "fft_ifft", "fft_rfft", "fft_irfft"), 2),
}
# What gives some of the entries of an axis, unchanged.
PICKS = frozenset(
    """
    chunk flip getitem index_select gather narrow roll select split split_with_sizes tensor_split unbind
    """.split()
)
RECURRENCES = frozenset(["lstm", "gru", "rnn_tanh", "rnn_relu"])
# What lays moments beside each other.
FRAMES = frozenset(["unfold", "pixel_unshuffle"])
# What lays tensors beside each other.
JOINS = frozenset(["cat", "concat", "concatenate", "stack"])
# Which axis, where the call doesn't say; for others, all of them.
USUAL_AXIS = {
    **dict.fromkeys(("fft_fft", "fft_ifft", "fft_rfft", "fft_irfft"), -1),
    "glu": -1,
    "chunk": 0,
    "split": 0,
    "split_with_sizes": 0,
    "tensor_split": 0,
    "unbind": 0,
    "topk": -1,
    "sort": -1,
    "argsort": -1,
    "diff": -1,
    "normalize": 1,
    "cosine_similarity": 1,
}

# What reads all of the signal, or isn't the same twice, and what to do instead.
_MEAN = "takes its mean and variance over all of time"
PER_MOMENT = "normalise each moment by itself: BatchNorm in evaluation, LayerNorm over channels"
_ATTENDS, _WINDOW = ("attends to all of time", "leave it out of the stream: stream what comes before and after")
_RANDOM, _DRAW = ("is random", "draw outside of the model, and give what was drawn as part of the signal")
_ADAPTS = "pools over windows that depend on the full length"
ATTENDS = (
    "multiplies the signal by itself over time, as attention does",
    "stream what comes before and after, or tapwise.register a form of it with a step",
)
MIXES = {
    "group_norm": (_MEAN, PER_MOMENT),
    "instance_norm": (_MEAN, PER_MOMENT),
    **dict.fromkeys(("scaled_dot_product_attention", "multi_head_attention_forward"), (_ATTENDS, _WINDOW)),
    "stft": ("pads and frames by itself", "x.unfold, then torch.fft.rfft over the last axis"),
    "istft": ("overlaps all of time", "a ConvTranspose1d overlaps frames"),
    "adaptive_avg_pool1d": (_ADAPTS, "avg_pool1d has windows of its own"),
    "adaptive_max_pool1d": (_ADAPTS, "max_pool1d has windows of its own"),
    **dict.fromkeys(
        ("bernoulli", "gumbel_softmax", "rand_like", "randn_like", "randint_like", "normal", "multinomial"),
        (_RANDOM, _DRAW),
    ),
}
