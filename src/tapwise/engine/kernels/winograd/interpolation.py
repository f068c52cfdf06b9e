"""Interpolation: the matrices of Winograd's minimal filtering, exact, from the points of Toom and Cook.

A filter of r taps gives m outputs of m + r - 1 inputs by as many products, of m * r:

# y = A.T @ ((G @ taps) * (B.T @ inputs))        inputs (n,), taps (r,), y (m,),  n = m + r - 1

A product of polynomials is known by its values at n points. Filtering is the transpose of that product.
Source: Winograd, Arithmetic Complexity of Computations, 1980; Lavin and Gray, arXiv 1509.09308.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

Matrix = list[list[Fraction]]
# In the order in which they are taken; the last point of all is infinity. Small numbers and their inverses round least.
POINTS = tuple(Fraction(*pair) for pair in ((0, 1), (1, 1), (-1, 1), (1, 2), (-1, 2), (2, 1), (-2, 1)))


class Filtering(NamedTuple):
    """The matrices of ``m`` outputs and ``r`` taps.

    Arguments:
        outputs: A transposed, (m, n).
        taps: G, (n, r).
        inputs: B transposed, (n, n).
    """

    outputs: Matrix
    taps: Matrix
    inputs: Matrix


def minimal_filtering(m: int, r: int, points: Sequence[Fraction] = POINTS) -> Filtering:
    """The matrices for ``m`` outputs of a filter of ``r`` taps.

    Example:
        >>> outputs, taps, inputs = minimal_filtering(2, 3)
        >>> len(inputs)
        4
    """
    n = m + r - 1
    finite = points[: n - 1]
    inverse = _inverse(_values(finite, n))
    inputs = [[inverse[j][p] for j in range(n)] for p in range(n)]  # transposed
    taps = _values(finite, r)
    for row, own in zip(inputs, taps, strict=True):
        # Numbers of the inputs' matrix become small integers or 1, at the cost of the taps', computed once.
        scale = next(value for value in reversed(row) if value)
        row[:] = [value / scale for value in row]
        own[:] = [value * scale for value in own]
    outputs = _values(finite, m)
    return Filtering([[outputs[p][j] for p in range(n)] for j in range(m)], taps, inputs)


def _values(points: Sequence[Fraction], terms: int) -> Matrix:
    """By point, the powers of which a polynomial of some terms is a sum; at infinity, the highest alone."""
    last = [Fraction(0)] * (terms - 1) + [Fraction(1)]
    return [[point**power for power in range(terms)] for point in points] + [last]


def _inverse(matrix: Matrix) -> Matrix:
    n = len(matrix)
    rows = [[*row, *(Fraction(int(i == j)) for j in range(n))] for i, row in enumerate(matrix)]
    for column in range(n):
        pivot = next(i for i in range(column, n) if rows[i][column])
        rows[column], rows[pivot] = rows[pivot], rows[column]
        rows[column] = [value / rows[column][column] for value in rows[column]]
        for i in range(n):
            if i != column and rows[i][column]:
                factor = rows[i][column]
                rows[i] = [a - factor * b for a, b in zip(rows[i], rows[column], strict=True)]
    return [row[n:] for row in rows]
