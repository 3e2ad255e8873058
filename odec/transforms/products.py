"""Products of matrices in forms that take less: of repeated rows, of few columns, of which only parts are read."""

from __future__ import annotations

import numpy as np

from odec.graph.node import constant, value_of
from odec.ops.families import broadcast_to, total
from odec.ops.linalg import matmul
from odec.ops.reduction import sum_
from odec.ops.structure import broadcast, concatenate, reshape, slice_, transpose

FEW = 4  # columns of a first factor up to which a product is a sum of columns by rows
LONG = 8  # rows and columns that such a product has at least
PIECES = 4  # of a joined factor, up to which the product is one of pieces


def product(a, b):
    """a @ b for matrices a (m, k) and b (k, n), as what takes least.

    One column times one row, and a sum of a few of these where both are long, are computed element by element by the
    loops that read them. Repeated rows and columns are multiplied once. Time beside the state of each member of a batch
    is a matrix joined with repeated rows, which is not copied together for it.
    """
    forms = (form(a, b) for form in (_few_columns, _repeated, _joined))
    return next((found for found in forms if found is not None), matmul(a, b))


def part_of_product(found, part):
    """A slice with unit steps of a product, as a product of slices of the factors."""
    (a, b), (top, left), (m, n) = found.inputs, part.params["starts"], part.shape
    return product(_rows(a, top, m), _columns(b, left, n))


def summed_product(found):
    """The sum (n,) over the rows of a product."""
    a, b = found.inputs
    return reshape(product(_sum_of_rows(a), b), shape=found.shape[1:])


def is_product(node):
    return node.op is matmul and node.ndim == 2


def _few_columns(a, b):
    (m, k), n = a.shape, b.shape[1]
    if k == 0 or (k > 1 and (k > FEW or min(m, n) < LONG)):
        return None
    return total([_outer(_columns(a, q, 1), _rows(b, q, 1)) for q in range(k)])


def _repeated(a, b):
    row, column = _repeated_row(a), _repeated_column(a)
    if row is not None:
        return broadcast_to(product(row, b), (a.shape[0], b.shape[1]))
    return None if column is None else _outer(column, _sum_of_rows(b))


def _joined(a, b):
    """The product of each piece of a, where only one of them does not repeat."""
    for axis in 0, 1:
        pieces = _pieces(a, axis)
        unlike = [p for p in pieces if _repeated_row(p) is None and _repeated_column(p) is None]
        if not len(unlike) <= 1 < len(pieces) <= PIECES:
            continue
        if axis == 0:
            return concatenate(*(product(piece, b) for piece in pieces), axis=0)
        starts = [sum(p.shape[1] for p in pieces[:k]) for k in range(len(pieces))]
        return total([product(p, _rows(b, top, p.shape[1])) for p, top in zip(pieces, starts, strict=True)])
    return None


def _pieces(x, axis):
    """The matrices that one is joined of along an axis; none where it is not joined."""
    if x.op is transpose:
        return [_turned(piece) for piece in _pieces(x.inputs[0], 1 - axis)]
    return list(x.inputs) if x.op is concatenate and x.params["axis"] == axis else []


def _repeated_row(x):
    """The row (1, k) that a matrix repeats, or None."""
    values = value_of(x)
    if values is not None and len(values) > 1:
        return constant(values[:1], x.dtype) if np.array_equal(values[1:], values[:-1]) else None
    if x.op is transpose:
        column = _repeated_column(x.inputs[0])
        return None if column is None else _turned(column)
    return x.inputs[0] if x.op is broadcast and x.inputs[0].shape == (1, x.shape[1]) else None


def _repeated_column(x):
    """The column (m, 1) that a matrix repeats, or None."""
    if x.op is transpose:
        row = _repeated_row(x.inputs[0])
        return None if row is None else _turned(row)
    return x.inputs[0] if x.op is broadcast and x.inputs[0].shape == (x.shape[0], 1) else None


def _outer(column, row):
    shape = column.shape[0], row.shape[1]
    return broadcast_to(column, shape) * broadcast_to(row, shape)


def _sum_of_rows(x):
    return reshape(sum_(x, axes=(0,)), shape=(1, x.shape[1]))


def _rows(x, start, number):
    return slice_(x, starts=(start, 0), steps=(1, 1), shape=(number, x.shape[1]))


def _columns(x, start, number):
    return slice_(x, starts=(0, start), steps=(1, 1), shape=(x.shape[0], number))


def _turned(x):
    return transpose(x, axes=(1, 0))
