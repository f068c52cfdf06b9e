"""Response: what taps do to frequencies, as a value that pictures read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tapwise.explanation.steps import Array
from tapwise.geometry import Geometry


@dataclass(frozen=True, eq=False)
class Response:
    """Impulse, magnitude and delay of one filter as a layer applies it, at stride 1.

    Arguments:
        times: (K,): for each tap, how many samples ago the input came that it reads; below 0, the future.
        taps: (K,): in the order of ``times``.
        frequency: (n,): from 0 to 0.5, as shares of the sampling rate.
        magnitude: (n,): what is left of a tone of that frequency.
        delay: (n,): by how many samples its envelope comes late (group delay); NaN where no tone is left.

    Source: Oppenheim, Schafer: Discrete-Time Signal Processing, frequency response and group delay.
    """

    times: Array
    taps: Array
    frequency: Array
    magnitude: Array
    delay: Array


def response_of(taps: Array, geometry: Geometry, points: int = 257) -> Response:
    """The response of taps (K,) under a geometry's dilation and left padding.

    Example:
        >>> import numpy as np
        >>> answer = response_of(np.ones(3) / 3, Geometry(3, padding="causal"))
        >>> answer.magnitude[0], answer.delay[0]
        (np.float64(1.0), np.float64(1.0))
    """
    times = geometry.left - np.arange(geometry.kernel_size) * geometry.dilation
    frequency = np.linspace(0, 0.5, points)
    turns = np.exp(-2j * np.pi * frequency[:, None] * times)
    transfer, slope = turns @ taps, turns @ (times * taps)
    magnitude = abs(transfer)
    heard = magnitude > 1e-6 * max(magnitude.max(), 1e-300)
    delay = np.full(points, np.nan)
    delay[heard] = (slope[heard] / transfer[heard]).real.round(9) + 0.0
    return Response(times, taps, frequency, magnitude, delay)
