"""Matrix routines in plain loops, for one thread of a machine that has no BLAS; blas.py has the others.

Plain Python that Numba translates; arguments as generated code passes them, numbers in the dtype of the buffers.
"""

from __future__ import annotations

from odec.codegen.machine import offset

NOT_A_NUMBER = float("nan")


def gemm(flip_a, flip_b, m, n, k, a, lda, b, ldb, c, ldc):
    """C = A B for row-major matrices with leading dimensions; a flipped factor is stored transposed."""
    a_row, a_column = (1, lda) if flip_a else (lda, 1)
    b_row, b_column = (1, ldb) if flip_b else (ldb, 1)
    for i in range(m):
        for j in range(n):
            place = i * ldc + j
            c[place] = 0.0
            for inner in range(k):
                c[place] += a[i * a_row + inner * a_column] * b[inner * b_row + j * b_column]
    return 0


def gesv(n, m, a, x, pivots):
    """Solve A X = B in place of B, column by column; nan where A (n, n) is singular. A is lost."""
    for step in range(n):
        row = _largest(n, a, step)
        if a[step * n + row] == 0.0:
            for i in range(n * m):
                x[i] = NOT_A_NUMBER
            return 0
        _exchange(n, a, step, row, n)
        _exchange(m, x, step, row, n)
        for lower in range(step + 1, n):
            factor = a[step * n + lower] / a[step * n + step]
            for column in range(step + 1, n):
                a[column * n + lower] -= factor * a[column * n + step]
            for column in range(m):
                x[column * n + lower] -= factor * x[column * n + step]
    for column in range(m):
        _substitute(n, a, offset(x, column * n))
    return 0


def det(n, a, pivots, result):
    """The determinant of A (n, n), which is lost."""
    result[0] = 1.0
    for step in range(n):
        row = _largest(n, a, step)
        pivot = a[step * n + row]
        result[0] *= pivot if row == step else -pivot
        if pivot == 0.0:
            break
        _exchange(n, a, step, row, n)
        for lower in range(step + 1, n):
            factor = a[step * n + lower] / pivot
            for column in range(step + 1, n):
                a[column * n + lower] -= factor * a[column * n + step]
    return 0


def _largest(n, a, column):
    """The row from `column` down with the largest entry of a column; nan counts as largest."""
    row = column
    for i in range(column + 1, n):
        if not abs(a[column * n + i]) <= abs(a[column * n + row]):
            row = i
    return row


def _exchange(columns, a, one, other, n):
    """Exchange two rows of a matrix of columns of n."""
    for column in range(columns):
        a[column * n + one], a[column * n + other] = a[column * n + other], a[column * n + one]


def _substitute(n, a, x):
    """Solve U x = b in place of b, for the upper triangle U of A."""
    for i in range(n - 1, -1, -1):
        for column in range(i + 1, n):
            x[i] -= a[column * n + i] * x[column]
        x[i] /= a[i * n + i]


HELPERS = (_largest, _exchange, _substitute)
