"""LU factors of the matrices of implicit equations, dense or sparse, with an estimate of their condition."""

from __future__ import annotations

import math

import numpy as np
from scipy.linalg import get_lapack_funcs
from scipy.sparse import diags_array, eye_array
from scipy.sparse.linalg import splu


class Factors:
    """LU factors of a square matrix whose rows and columns were scaled to a largest entry of one.

    reciprocal_condition : about 1 / condition number of the scaled matrix, 0 where it is singular or not finite; of a
        sparse matrix the ratio of its extreme pivots
    """

    def __init__(self, matrix):
        self.rows = _inverse_or_one(_maxima(matrix, 1))
        self.columns = _inverse_or_one(_maxima(_scaled(matrix, self.rows, 1.0), 0))
        scaled = _scaled(matrix, self.rows, self.columns)
        dense = isinstance(matrix, np.ndarray)
        self._solve, self.reciprocal_condition = _dense(scaled) if dense else _sparse(scaled)

    def solve(self, b, transposed=False):
        """x (n,) with A x = b, or with A^T x = b."""
        if transposed:
            return self.rows * self._solve(self.columns * b, True)
        return self.columns * self._solve(self.rows * b, False)


def _dense(matrix):
    """(solve, reciprocal condition) of a dense matrix."""
    if not np.isfinite(matrix).all():
        return _unsolved, 0.0
    factor, condition, solve = get_lapack_funcs(("getrf", "gecon", "getrs"), (matrix,))
    lu, pivots, info = factor(matrix)
    if info:
        return _unsolved, 0.0
    rcond, _ = condition(lu, float(np.abs(matrix).sum(axis=0).max()))
    return lambda b, transposed: solve(lu, pivots, b, trans=int(transposed))[0], float(rcond)


def _sparse(matrix):
    """(solve, ratio of extreme pivots) of a sparse matrix."""
    if not np.isfinite(matrix.data).all():
        return _unsolved, 0.0
    try:
        lu = splu(matrix.tocsc())
    except RuntimeError:  # exactly singular
        return _unsolved, 0.0
    pivots = np.abs(lu.U.diagonal())
    return lambda b, transposed: lu.solve(b, "T" if transposed else "N"), float(pivots.min() / pivots.max())


def _unsolved(b, transposed):
    return np.full_like(b, np.nan)


def _maxima(matrix, axis):
    found = abs(matrix).max(axis=axis)
    return found if isinstance(found, np.ndarray) else found.toarray().reshape(-1)


def _inverse_or_one(largest):
    return 1.0 / np.where((largest > 0) & np.isfinite(largest), largest, 1.0)


def _scaled(matrix, rows, columns):
    if isinstance(matrix, np.ndarray):
        return rows[:, None] * matrix * columns
    return diags_array(rows) @ matrix @ diags_array(np.broadcast_to(columns, rows.shape))


def shifted(jacobian, shift):
    """shift I - J."""
    if isinstance(jacobian, np.ndarray):
        return shift * np.eye(len(jacobian)) - jacobian
    return shift * eye_array(jacobian.shape[0], format="csr") - jacobian


def largest_row_sum(jacobian):
    """The largest sum of absolute values in a row, 0 where it is not finite."""
    size = float(np.max(abs(jacobian).sum(axis=1)))
    return size if math.isfinite(size) else 0.0
