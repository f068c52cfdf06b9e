"""Functions of vectors as LLVM instructions: exp, tanh, sigmoid, erf, sin and what is made of them.

Each is a polynomial on a short interval, to which its argument is brought. The polynomials are fitted when the loop
is compiled, by interpolation at Chebyshev's points in float64. Their errors stay within 2e-7 of the result, or of 1
where the result is smaller; NaN stays NaN.

# exp(x)     x = n*log(2) + r     2^n * P(r)                     |r| <= log(2)/2
# tanh(x)    x * P(x^2) for |x| < 0.6, else 1 - 2 / (exp(2|x|) + 1) with x's sign
# erf(x)     x * P(x^2) for |x| < 1,   else 1 - exp(-x^2) * P(1 / (1 + |x|/2)) with x's sign
# sin(x)     x = n*pi + r         (-1)^n * r * P(r^2)            |r| <= pi/2, for |x| < 2^28
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numpy.polynomial import Chebyshev, Polynomial

from tapwise.engine.kernels.loops.vectors import add_product

_I32 = ir.IntType(32)
# Added and taken off again, it rounds numbers below 2^22 to integers.
_ROUNDS = 1.5 * 2.0**23


def fitted(function: Callable[[float], float], degree: int, low: float, high: float) -> list[float]:
    """The coefficients, from the constant on, of a polynomial close to a function between two numbers.

    Example:
        >>> [abs(round(c, 6)) for c in fitted(lambda x: x * x, 2, 0.0, 1.0)]
        [0.0, 0.0, 1.0]
    """
    found = Chebyshev.interpolate(np.vectorize(function), degree, [low, high])
    return [float(c) for c in found.convert(kind=Polynomial).coef]


def _split(value: float, bits: tuple[int, ...]) -> list[float]:
    """Numbers of few bits that add up to a value: their products with small integers are exact."""
    parts = []
    for n in bits:
        scale = 2.0 ** (n - math.frexp(value)[1])
        parts.append(math.floor(value * scale) / scale)
        value -= parts[-1]
    return [*parts, value]


_LOG2 = _split(math.log(2), (12,))
# 25 bits of pi, so that products with integers below 2^28 are exact in float64; and the rest.
_PI_START = math.floor(math.pi * 2.0**23) / 2.0**23
_PI = (_PI_START, math.pi - _PI_START)
_EXP = fitted(math.exp, 6, -0.35, 0.35)
_EXPM1 = fitted(lambda x: math.expm1(x) / x if x else 1.0, 6, -0.5, 0.0)
_TANH = fitted(lambda s: math.tanh(math.sqrt(s)) / math.sqrt(s) if s else 1.0, 5, 0.0, 0.36)
_SIN = fitted(lambda s: math.sin(math.sqrt(s)) / math.sqrt(s) if s else 1.0, 5, 0.0, (math.pi / 2) ** 2)
_ERF = fitted(lambda s: math.erf(math.sqrt(s)) / math.sqrt(s) if s else 2 / math.sqrt(math.pi), 7, 0.0, 1.0)
_FAR = 4.2  # erf is 1 in float32 from here on
_ERFC = fitted(
    lambda t: math.erfc(2 * (1 / t - 1)) * math.exp((2 * (1 / t - 1)) ** 2), 8, 1 / (1 + _FAR / 2), 1 / (1 + 0.5)
)


class Functions:
    """Instructions on vectors of float32 at the place where ``b`` builds.

    Arguments:
        b: LLVM's builder.
        vector: the type of a vector.
    """

    def __init__(self, b: Any, vector: Any) -> None:
        self.b, self.vector = b, vector
        self.lanes: int = vector.count
        self.integers = ir.VectorType(_I32, self.lanes)

    def constant(self, value: float) -> Any:
        rounded = float(np.float32(value))
        return ir.Constant(self.vector, [rounded] * self.lanes)

    def _integer(self, value: int) -> Any:
        return ir.Constant(self.integers, [value] * self.lanes)

    def fma(self, a: Any, x: Any, c: Any) -> Any:
        """a * x + c."""
        return add_product(self.b, c, a, x)

    def polynomial(self, x: Any, coefficients: list[float]) -> Any:
        y = self.constant(coefficients[-1])
        for c in reversed(coefficients[:-1]):
            y = self.fma(y, x, self.constant(c))
        return y

    def less(self, x: Any, y: Any) -> Any:
        return self.b.fcmp_ordered("<", x, y)

    def absolute(self, x: Any) -> Any:
        bits = self.b.bitcast(x, self.integers)
        return self.b.bitcast(self.b.and_(bits, self._integer(0x7FFFFFFF)), self.vector)

    def with_sign_of(self, x: Any, magnitude: Any) -> Any:
        sign = self.b.and_(self.b.bitcast(x, self.integers), self._integer(-0x80000000))
        return self.b.bitcast(self.b.or_(self.b.bitcast(magnitude, self.integers), sign), self.vector)

    def clamped(self, x: Any, low: float, high: float) -> Any:
        """x between two numbers; a NaN stays one."""
        b, least, most = self.b, self.constant(low), self.constant(high)
        x = b.select(self.less(x, least), least, x)
        return b.select(self.less(most, x), most, x)

    def maximum(self, x: Any, y: Any) -> Any:
        """The larger of two; NaN where either is."""
        b = self.b
        larger = b.select(self.less(x, y), y, x)
        return b.select(b.fcmp_unordered("uno", y, y), y, larger)

    def rounded(self, x: Any) -> Any:
        b, big = self.b, self.constant(_ROUNDS)
        return b.fsub(b.fadd(x, big), big)

    def exp(self, x: Any) -> Any:
        b = self.b
        x = self.clamped(x, -104.0, 89.0)
        n = self.rounded(b.fmul(x, self.constant(1 / math.log(2))))
        r = x
        for part in _LOG2:
            r = self.fma(n, self.constant(-part), r)
        y = self.polynomial(r, _EXP)
        exponent = b.fptosi(n, self.integers)
        half = b.ashr(exponent, self._integer(1))
        for power in (half, b.sub(exponent, half)):  # in two steps, since 2^128 has no float32
            bits = b.shl(b.add(power, self._integer(127)), self._integer(23))
            y = b.fmul(y, b.bitcast(bits, self.vector))
        return y

    def expm1(self, x: Any) -> Any:
        """exp(x) - 1 for x <= 0."""
        b = self.b
        near = b.fmul(x, self.polynomial(self.clamped(x, -0.5, 0.0), _EXPM1))
        far = b.fsub(self.exp(x), self.constant(1))
        return b.select(self.less(x, self.constant(-0.5)), far, near)

    def tanh(self, x: Any) -> Any:
        b, a = self.b, self.absolute(x)
        s = b.fmul(x, x)
        near = b.fmul(x, self.polynomial(s, _TANH))
        e = self.exp(b.fmul(a, self.constant(2)))
        far = b.fsub(self.constant(1), b.fdiv(self.constant(2), b.fadd(e, self.constant(1))))
        return b.select(self.less(self.constant(0.6), a), self.with_sign_of(x, far), near)

    def sigmoid(self, x: Any) -> Any:
        b, one = self.b, self.constant(1)
        return b.fdiv(one, b.fadd(one, self.exp(b.fneg(x))))

    def erf(self, x: Any) -> Any:
        b, a, one = self.b, self.absolute(x), self.constant(1)
        s = b.fmul(x, x)
        near = b.fmul(x, self.polynomial(s, _ERF))
        a = self.clamped(a, 0.0, _FAR)
        t = b.fdiv(one, self.fma(a, self.constant(0.5), one))
        rest = b.fmul(self.exp(b.fneg(b.fmul(a, a))), self.polynomial(t, _ERFC))
        far = self.with_sign_of(x, b.fsub(one, rest))
        return b.select(self.less(one, a), far, near)

    def sin(self, x: Any) -> Any:
        """The multiple of pi is taken off in float64, so that large arguments are as exact as small ones."""
        b, wide = self.b, ir.VectorType(ir.DoubleType(), self.lanes)

        def constant(value: float) -> Any:
            return ir.Constant(wide, [value] * self.lanes)

        def rounded(value: Any) -> Any:
            return b.fsub(b.fadd(value, constant(1.5 * 2.0**52)), constant(1.5 * 2.0**52))

        large = b.fpext(x, wide)
        n = rounded(b.fmul(large, constant(1 / math.pi)))
        r = large
        for part in _PI:
            r = b.fsub(r, b.fmul(n, constant(part)))
        half = b.fmul(n, constant(0.5))
        is_odd = b.fcmp_unordered("!=", b.fsub(half, rounded(half)), constant(0.0))
        r = self.clamped(b.fptrunc(r, self.vector), -1.5708, 1.5708)
        y = b.fmul(r, self.polynomial(b.fmul(r, r), _SIN))
        return b.select(is_odd, b.fneg(y), y)

    def silu(self, x: Any) -> Any:
        return self.b.fmul(x, self.sigmoid(x))

    def gelu(self, x: Any) -> Any:
        half = self.constant(0.5)
        phi = self.fma(half, self.erf(self.b.fmul(x, self.constant(math.sqrt(0.5)))), half)
        return self.b.fmul(x, phi)

    def gelu_tanh(self, x: Any) -> Any:
        b, half, scale = self.b, self.constant(0.5), math.sqrt(2 / math.pi)
        inner = self.fma(b.fmul(x, x), self.constant(0.044715 * scale), self.constant(scale))
        return b.fmul(x, self.fma(half, self.tanh(b.fmul(x, inner)), half))

    def where_negative(self, x: Any, value: Any) -> Any:
        """``value`` where x < 0, else x: NaN too."""
        return self.b.select(self.less(x, self.constant(0)), value, x)

    def snake(self, x: Any, z: Any, w: Any) -> Any:
        """x + w * sin(z * x)^2."""
        sine = self.sin(self.b.fmul(z, x))
        return self.fma(w, self.b.fmul(sine, sine), x)


# What networks apply, by the names of ``names.OPERANDS``: of vectors x, z and w, and numbers p and q in every lane.
MAP_FUNCTIONS: dict[str, Callable[[Functions, Any, Any, Any, Any, Any], Any]] = {
    "relu": lambda f, x, z, w, p, q: f.where_negative(x, f.constant(0)),
    "leaky_relu": lambda f, x, z, w, p, q: f.where_negative(x, f.b.fmul(x, p)),
    "prelu": lambda f, x, z, w, p, q: f.where_negative(x, f.b.fmul(x, z)),
    "elu": lambda f, x, z, w, p, q: f.where_negative(x, f.b.fmul(p, f.expm1(x))),
    "sigmoid": lambda f, x, z, w, p, q: f.sigmoid(x),
    "tanh": lambda f, x, z, w, p, q: f.tanh(x),
    "gelu": lambda f, x, z, w, p, q: f.gelu(x),
    "gelu_tanh": lambda f, x, z, w, p, q: f.gelu_tanh(x),
    "silu": lambda f, x, z, w, p, q: f.silu(x),
    "sin": lambda f, x, z, w, p, q: f.sin(x),
    "exp": lambda f, x, z, w, p, q: f.exp(x),
    "square": lambda f, x, z, w, p, q: f.b.fmul(x, x),
    "abs": lambda f, x, z, w, p, q: f.absolute(x),
    "copy": lambda f, x, z, w, p, q: x,
    "add": lambda f, x, z, w, p, q: f.b.fadd(x, z),
    "sub": lambda f, x, z, w, p, q: f.b.fsub(x, z),
    "mul": lambda f, x, z, w, p, q: f.b.fmul(x, z),
    "div": lambda f, x, z, w, p, q: f.b.fdiv(x, z),
    "maximum": lambda f, x, z, w, p, q: f.maximum(x, z),
    "gate": lambda f, x, z, w, p, q: f.b.fmul(f.tanh(x), f.sigmoid(z)),  # WaveNet's
    "glu": lambda f, x, z, w, p, q: f.b.fmul(x, f.sigmoid(z)),
    "affine": lambda f, x, z, w, p, q: f.fma(x, z, w),
    "normalise": lambda f, x, z, w, p, q: f.fma(f.b.fmul(f.b.fsub(x, p), q), z, w),  # p: the mean, q: 1 / deviation
    "snake": lambda f, x, z, w, p, q: f.snake(x, z, w),
}
