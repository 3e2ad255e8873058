"""np.linalg.norm of vectors and matrices."""

from __future__ import annotations

import math

import numpy as np

from odec.graph.op import OPS, traceable
from odec.ops.families import float_node
from odec.ops.reduction import checked_axes, checked_axis, kept_shape, np_sum
from odec.ops.statistics import np_max, np_min
from odec.ops.structure import reshape


@traceable(np.linalg.norm)
def norm(x, ord=None, axis=None, keepdims=False):
    """The norm of vectors along one axis, or of matrices over two."""
    x = float_node(x)
    axes = checked_axes(axis, x.ndim)
    if ord is None and axis is None:
        return _euclidean(x, axes, keepdims)
    if len(axes) == 1:
        return _vector_norm(x, 2 if ord is None else ord, axes[0], keepdims)
    if len(axes) == 2:
        rows, columns = (0, 1) if axis is None else (checked_axis(a, x.ndim) for a in axis)
        return _matrix_norm(x, "fro" if ord is None else ord, (rows, columns), axes, keepdims)
    raise ValueError("np.linalg.norm is over one axis or two")


def _euclidean(x, axes, keepdims):
    return OPS["sqrt"](np_sum(x * x, axes, keepdims=keepdims))


def _vector_norm(x, ord, axis, keepdims):
    if isinstance(ord, str):
        raise ValueError(f"ord={ord!r} is a norm of matrices; give a number for vectors")
    if ord == 2:
        return _euclidean(x, (axis,), keepdims)
    if ord == 0:
        raise ValueError("ord=0 counts nonzero elements, which has no derivative; use ord 1 or 2")
    size = OPS["abs"](x)
    if math.isinf(ord):
        return (np_max if ord > 0 else np_min)(size, axis, keepdims=keepdims)
    powers = np_sum(OPS["pow"](size, float(ord)), axis, keepdims=keepdims)
    return powers if ord == 1 else OPS["pow"](powers, 1.0 / ord)


def _matrix_norm(x, ord, order, axes, keepdims):
    if ord in ("fro", "f"):
        return _euclidean(x, axes, keepdims)
    along = {1: order, -1: order, math.inf: order[::-1], -math.inf: order[::-1]}.get(ord)
    if along is None:
        raise ValueError(f"ord={ord!r} needs singular values; use ord 'fro', 1, -1, np.inf or -np.inf")
    summed, rest = along
    sums = np_sum(OPS["abs"](x), summed)
    found = (np_max if ord > 0 else np_min)(sums, rest - (rest > summed))
    return reshape(found, shape=kept_shape(x.shape, axes)) if keepdims else found
