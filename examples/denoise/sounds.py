"""Speech-like sounds and noise, made by formula: nobody's recording is needed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter

RATE = 16_000
Sound = npt.NDArray[np.float64]


def speech_like(dice: np.random.Generator, seconds: float) -> Sound:
    """Syllables: a voice's harmonics through gliding formants, hisses between, and pauses."""
    total, at = int(seconds * RATE), 0
    sound = np.zeros(total)
    base = dice.uniform(90, 240)
    while at < total:
        if dice.random() < 0.2:
            at += int(dice.uniform(0.05, 0.25) * RATE)
            continue
        count = int(dice.uniform(0.08, 0.35) * RATE)
        part = _hiss(dice, count // 2) if dice.random() < 0.25 else _voice(dice, count, base)
        part = part * dice.uniform(0.3, 1.0)
        end = min(at + len(part), total)
        sound[at:end] += part[: end - at]
        at += int(len(part) * dice.uniform(0.8, 1.1))
    return 0.3 * sound / (np.abs(sound).max() + 1e-9)


def _envelope(count: int, rise: float = 0.02) -> Sound:
    edge = min(int(rise * RATE), count // 2)
    shape = np.ones(count)
    ramp = np.sin(np.linspace(0, np.pi / 2, edge)) ** 2
    shape[:edge], shape[count - edge :] = ramp, ramp[::-1]
    return shape


def _voice(dice: np.random.Generator, count: int, base: float) -> Sound:
    time = np.linspace(0, 1, count)
    pitch = base * (1 + 0.15 * np.sin(2 * np.pi * (time * dice.uniform(0.3, 1) + dice.random())))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    centres = np.array([dice.uniform(300, 850), dice.uniform(900, 2300), dice.uniform(2400, 3400)])
    glide = dice.uniform(0.85, 1.15, 3)
    sound = np.zeros(count)
    for n in range(1, int(7000 / base)):
        frequency = n * pitch
        gain = np.zeros(count)
        for centre, moves, weight in zip(centres, glide, (1.0, 0.6, 0.35), strict=True):
            place = centre * moves**time
            gain += weight / (1 + ((frequency - place) / 120) ** 2)
        sound += gain * np.sin(n * phase) / np.sqrt(n)
    return sound * _envelope(count)


def _hiss(dice: np.random.Generator, count: int) -> Sound:
    white = dice.standard_normal(count)
    return 0.25 * np.asarray(lfilter([1, -0.95], [1], white)) * _envelope(count)


def noise(dice: np.random.Generator, seconds: float) -> Sound:
    """Coloured noise whose loudness wanders, and a hum with its harmonics."""
    count = int(seconds * RATE)
    time = np.arange(count) / RATE
    colour = dice.uniform(0.0, 0.97)
    sound = np.asarray(lfilter([np.sqrt(1 - colour**2)], [1, -colour], dice.standard_normal(count)))
    sound *= 1 + 0.4 * np.sin(2 * np.pi * (time * dice.uniform(0.1, 1.0) + dice.random()))
    hum = dice.choice([50.0, 60.0, dice.uniform(80, 400)])
    for n in range(1, 6):
        sound += dice.uniform(0, 0.8) / n * np.sin(2 * np.pi * (n * hum * time + dice.random()))
    return sound / sound.std()
