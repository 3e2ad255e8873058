"""Sums over axes, plain and cumulative."""

from __future__ import annotations

import operator

import numpy as np

from odec.graph.node import is_structural_zero, make, structural_zero
from odec.graph.op import traceable
from odec.ops.families import broadcast_to, check_real, every_input, float_node, linear
from odec.ops.structure import reshape, slice_


def kept_shape(shape, axes):
    """`shape` with length 1 along `axes`, as NumPy's keepdims gives it."""
    return tuple(1 if d in axes else n for d, n in enumerate(shape))


def _sum_shape(shape, axes):
    return tuple(n for d, n in enumerate(shape) if d not in axes)


def _sum_transpose(node, g):
    source = node.inputs[0].shape
    return (broadcast_to(reshape(g, shape=kept_shape(source, node.params["axes"])), source),)


def _simplify_sum(inputs, params):
    (x,), axes = inputs, params["axes"]
    if all(x.shape[a] == 1 for a in axes):
        return reshape(x, shape=_sum_shape(x.shape, axes))
    return structural_zero(x.dtype, _sum_shape(x.shape, axes)) if is_structural_zero(x) else None


def _lower_sum(lowering, node):
    lowering.accumulate(node, node.inputs[0], node.params["axes"])


sum_ = linear(
    "sum", "sum over axes", shape=_sum_shape, evaluate=lambda x, axes: np.sum(x, axis=axes),
    transpose=_sum_transpose, cost=every_input, lower=_lower_sum,
    reach=lambda node, masks: np.bitwise_or.reduce(masks[0], axis=node.params["axes"]),
    simplify=_simplify_sum, sympy="sums of elements",
    build=lambda op, x, axes: make(op, [x], axes=tuple(axes)),
)  # fmt: skip


def flip(x, axis):
    """The elements along one axis in reverse order."""
    starts = tuple(n - 1 if d == axis else 0 for d, n in enumerate(x.shape))
    steps = tuple(-1 if d == axis else 1 for d in range(x.ndim))
    return slice_(x, starts=starts, steps=steps, shape=x.shape)


def _cumsum_transpose(node, g):
    axis = node.params["axis"]
    return (flip(cumsum(flip(g, axis), axis=axis), axis),)


def _lower_cumsum(lowering, node):
    lowering.running_sum(node, node.inputs[0], node.params["axis"])


cumsum = linear(
    "cumsum", "running sum along an axis", shape=lambda s, axis: s, transpose=_cumsum_transpose,
    evaluate=lambda x, axis: np.cumsum(x, axis=axis), cost=every_input, lower=_lower_cumsum,
    reach=lambda node, masks: np.bitwise_or.accumulate(masks[0], axis=node.params["axis"]), sympy="sums of elements",
    build=lambda op, x, axis: make(op, [x], axis=axis),
)  # fmt: skip


def checked_axes(axis, ndim):
    """`axis` as NumPy takes it (None, an int, a tuple) as a sorted tuple of non-negative ints."""
    axes = range(ndim) if axis is None else axis if isinstance(axis, (tuple, list)) else (axis,)
    found = sorted(checked_axis(a, ndim) for a in axes)
    if len(set(found)) < len(found):
        raise ValueError(f"duplicate value in axis={axis}")
    return tuple(found)


def checked_axis(axis, ndim):
    """A non-negative axis from one that may count from the end."""
    axis = operator.index(axis)
    if not -ndim <= axis < ndim:
        raise ValueError(f"axis {axis} is out of bounds for array of dimension {ndim}")
    return axis % ndim


@traceable(np.sum)
def np_sum(a, axis=None, dtype=None, out=None, keepdims=False):
    check_real(dtype)
    if out is not None:
        raise TypeError("out= cannot be traced here; assign the result instead")
    a = float_node(a)
    axes = checked_axes(axis, a.ndim)
    if not axes:
        return a
    summed = sum_(a, axes=axes)
    return reshape(summed, shape=kept_shape(a.shape, axes)) if keepdims else summed


@traceable(np.cumsum)
def np_cumsum(a, axis=None, dtype=None, out=None):
    check_real(dtype)
    if out is not None:
        raise TypeError("out= cannot be traced here; assign the result instead")
    a = float_node(a)
    if axis is None:
        a, axis = reshape(a, shape=(a.size,)), 0
    return cumsum(a, axis=checked_axis(axis, a.ndim))
