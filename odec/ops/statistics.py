"""Products, extrema, means and truth over axes: trees and scans of elementwise ops."""

from __future__ import annotations

import numpy as np

from odec.graph.node import coerce
from odec.graph.op import OPS, traceable
from odec.ops.arithmetic import maximum, minimum, mul, sub
from odec.ops.comparison import as_bool, logical_and, logical_or
from odec.ops.families import check_real, float_node
from odec.ops.reduction import checked_axes, kept_shape, np_sum
from odec.ops.structure import concatenate, reshape, slice_, transpose


def leading(x, start, stop):
    """Rows start .. stop - 1 of an array."""
    starts = (start, *(0,) * (x.ndim - 1))
    return slice_(x, starts=starts, steps=(1,) * x.ndim, shape=(stop - start, *x.shape[1:]))


def _over_axes(tree, a, axis, keepdims):
    """`tree` of the array whose first axis runs over all of `axis`, in NumPy's shape."""
    axes = checked_axes(axis, a.ndim)
    kept = tuple(d for d in range(a.ndim) if d not in axes)
    rest = tuple(a.shape[d] for d in kept)
    rows = reshape(transpose(a, axes=axes + kept), shape=(int(np.prod([a.shape[d] for d in axes], dtype=int)), *rest))
    result = reshape(tree(rows), shape=rest)
    return reshape(result, shape=kept_shape(a.shape, axes)) if keepdims else result


def by_halves(op, identity=None):
    """Reduction of the first axis by op, in about log2(n) nodes."""

    def tree(rows):
        left_over = []
        if not rows.shape[0]:
            if identity is None:
                raise ValueError("zero-size array to a reduction which has no identity; give it elements")
            return coerce([np.full(rows.shape[1:], identity)])[0]
        while (n := rows.shape[0]) > 1:
            half = n // 2
            if n % 2:
                left_over.append(leading(rows, n - 1, n))
            rows = op(leading(rows, 0, half), leading(rows, half, 2 * half))
        for rest in reversed(left_over):
            rows = op(rows, rest)
        return rows

    return tree


# ---- reductions --------------------------------------------------------------------------------------


@traceable(np.prod)
def prod(a, axis=None, dtype=None, out=None, keepdims=False):
    check_arguments(dtype, out)
    return _over_axes(by_halves(mul, 1.0), float_node(a), axis, keepdims)


@traceable(np.max)
def np_max(a, axis=None, out=None, keepdims=False):
    check_arguments(None, out)
    return _over_axes(by_halves(maximum), float_node(a), axis, keepdims)


@traceable(np.min)
def np_min(a, axis=None, out=None, keepdims=False):
    check_arguments(None, out)
    return _over_axes(by_halves(minimum), float_node(a), axis, keepdims)


@traceable(np.ptp)
def ptp(a, axis=None, out=None, keepdims=False):
    return np_max(a, axis, out, keepdims) - np_min(a, axis, out, keepdims)


@traceable(np.all)
def np_all(a, axis=None, out=None, keepdims=False):
    check_arguments(None, out)
    return _over_axes(by_halves(logical_and, True), as_bool(coerce([a])[0]), axis, keepdims)


@traceable(np.any)
def np_any(a, axis=None, out=None, keepdims=False):
    check_arguments(None, out)
    return _over_axes(by_halves(logical_or, False), as_bool(coerce([a])[0]), axis, keepdims)


def check_arguments(dtype, out):
    check_real(dtype)
    if out is not None:
        raise TypeError("out= cannot be traced here; assign the result instead")


# ---- means ---------------------------------------------------------------------------------------------


def _count(a, axis):
    return int(np.prod([a.shape[d] for d in checked_axes(axis, a.ndim)], dtype=int))


@traceable(np.mean)
def np_mean(a, axis=None, dtype=None, out=None, keepdims=False):
    check_arguments(dtype, out)
    a = float_node(a)
    return np_sum(a, axis, keepdims=keepdims) / _divisor(_count(a, axis), 0)


def _divisor(count, ddof):
    if count - ddof <= 0:
        raise ValueError(f"a mean over {count} elements with ddof={ddof} divides by zero; give it more elements")
    return float(count - ddof)


@traceable(np.var)
def var(a, axis=None, dtype=None, out=None, ddof=0, keepdims=False, *, mean=None, correction=None):
    check_arguments(dtype, out)
    a = float_node(a)
    ddof = ddof if correction is None else correction
    centre = np_mean(a, axis, keepdims=True) if mean is None else mean
    gap = sub(a, centre)
    return np_sum(gap * gap, axis, keepdims=keepdims) / _divisor(_count(a, axis), ddof)


@traceable(np.std)
def std(a, axis=None, dtype=None, out=None, ddof=0, keepdims=False, *, mean=None, correction=None):
    return OPS["sqrt"](var(a, axis, dtype, out, ddof, keepdims, mean=mean, correction=correction))


# ---- scans -----------------------------------------------------------------------------------------------


@traceable(np.cumprod)
def cumprod(a, axis=None, dtype=None, out=None):
    """Running product, by doubling distances: log2(n) products of slices."""
    check_arguments(dtype, out)
    a = float_node(a)
    if axis is None:
        a, axis = reshape(a, shape=(a.size,)), 0
    (axis,) = checked_axes(axis, a.ndim)
    order = (axis, *(d for d in range(a.ndim) if d != axis))
    rows, distance = transpose(a, axes=order), 1
    while distance < rows.shape[0]:
        moved = leading(rows, 0, rows.shape[0] - distance)
        rows = concatenate(leading(rows, 0, distance), leading(rows, distance, rows.shape[0]) * moved, axis=0)
        distance *= 2
    return transpose(rows, axes=tuple(order.index(d) for d in range(a.ndim)))
