"""The truth: convolutions and windows by brute force, from their definitions. Imports no tapwise.

Padding is written out, taps are placed one by one, sums are taken in the widest type. Nothing is
clever here; that is the point.
"""

import numpy as np


def pads_of_word(word, kernel_size, stride, dilation):
    """(left, right) of a padding word, from what the word promises."""
    reach = len(range(dilation * (kernel_size - 1) + 1))
    if word == "valid":
        return 0, 0
    if word == "full":
        return reach - 1, reach - 1
    if word == "causal":
        return reach - 1, 0
    if word == "same":
        return (reach - 1) // 2, reach // 2
    # semicausal: output i ends at input (i+1)*stride - 1, no window begins after its own frame
    left = max(reach - stride, 0)
    return left, reach - 1 - left


def tiled(signal, mode):
    """One period of what the mode makes of the endless line around a signal."""
    return [*signal, *signal[-2:0:-1]] if mode == "reflect" else list(signal)


def padded(x, left, right, mode):
    """The signal (..., L) with its padding written out."""
    length = x.shape[-1]
    if mode == "zeros":
        places = [None] * left + list(range(length)) + [None] * right
    elif mode == "replicate":
        places = [0] * left + list(range(length)) + [length - 1] * right
    else:
        period = tiled(range(length), mode)
        places = [period[p % len(period)] for p in range(-left, length + right)]
    beside = np.concatenate([x, np.zeros((*x.shape[:-1], 1), x.dtype)], axis=-1)  # a zero after the last sample
    return beside[..., [length if p is None else p for p in places]] if places else x


def conv1d(x, w, b=None, stride=1, pads=(0, 0), dilation=1, groups=1, mode="zeros", magnitude=False):
    """x (B, C, L), w (O, C/groups, K): (B, O, N). ``magnitude``: sum |products| instead."""
    wide = _widest(x.dtype)
    x, w = x.astype(wide), w.astype(wide)
    if magnitude:
        x, w, b = abs(x), abs(w), None if b is None else abs(b)
    line = padded(x, *pads, mode)
    batch, out_channels = x.shape[0], w.shape[0]
    fan_in, taps = w.shape[1:]
    starts = []
    start = 0
    while start + dilation * (taps - 1) < line.shape[-1]:
        starts.append(start)
        start += stride
    y = np.zeros((batch, out_channels, len(starts)), line.dtype)
    fan_out = out_channels // groups
    for g in range(groups):
        rows, own = line[:, g * fan_in : (g + 1) * fan_in], slice(g * fan_out, (g + 1) * fan_out)
        for k in range(taps if starts else 0):
            met = rows[:, :, k * dilation : starts[-1] + k * dilation + 1 : stride]  # what this tap meets, by window
            y[:, own] += np.einsum("bcn,oc->bon", met, w[own, :, k])
    if b is not None:
        y += b.astype(wide)[:, None]
    return y


def conv_transpose1d(x, w, b=None, stride=1, cut=(0, 0), extra=0, dilation=1, groups=1):
    """x (B, C, L), w (C, O/groups, K): every input spreads its taps; then the ends are cut."""
    wide = _widest(x.dtype)
    x, w = x.astype(wide), w.astype(wide)
    batch, channels, length = x.shape
    inner, taps = w.shape[1:]
    full = np.zeros((batch, inner * groups, (length - 1) * stride + dilation * (taps - 1) + 1 + extra), wide)
    fan_in = channels // groups
    for g in range(groups):
        given, taken = slice(g * inner, (g + 1) * inner), slice(g * fan_in, (g + 1) * fan_in)
        for j in range(length):
            for k in range(taps):
                full[:, given, j * stride + k * dilation] += np.einsum("bc,co->bo", x[:, taken, j], w[taken, :, k])
    if b is not None:
        full += b.astype(wide)[:, None]
    return full[:, :, cut[0] : full.shape[-1] - cut[1]]


def influence(function, length):
    """Which inputs each output depends on, found by touching one input at a time: a list of sets."""
    rest = np.zeros((1, 1, length))
    silent = function(rest)
    reached = [set() for _ in range(silent.shape[-1])]
    for j in range(length):
        touched = rest.copy()
        touched[0, 0, j] = 1.0
        for i in np.flatnonzero(function(touched)[0, 0] != silent[0, 0]):
            reached[i].add(j)
    return reached


def _widest(dtype):
    return {"c": np.complex128, "f": np.float64}.get(np.dtype(dtype).kind, np.int64)
