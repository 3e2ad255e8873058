"""NumPy's functions that move, repeat, difference and mask elements."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from odec.graph.node import Data, coerce, structural_zero
from odec.graph.op import traceable
from odec.ops.comparison import where
from odec.ops.families import broadcast_to, float_node
from odec.ops.reduction import checked_axes, checked_axis
from odec.ops.reduction import flip as flip_axis
from odec.ops.shaping import np_concatenate, sizes
from odec.ops.structure import put_add, reshape, slice_, take


def along(a, axis, start, stop, step=1):
    """a[start:stop:step] along one axis."""
    start, stop, step = slice(start, stop, step).indices(a.shape[axis])
    starts = tuple(start if d == axis else 0 for d in range(a.ndim))
    steps = tuple(step if d == axis else 1 for d in range(a.ndim))
    shape = tuple(len(range(start, stop, step)) if d == axis else n for d, n in enumerate(a.shape))
    return slice_(a, starts=starts if shape[axis] else (0,) * a.ndim, steps=steps, shape=shape)


def gathered(a, rearrange):
    """The elements of `a` that NumPy's own `rearrange` of their positions says."""
    places = rearrange(np.arange(a.size).reshape(a.shape))
    return take(a, index=places) if places.size else structural_zero(a.dtype, places.shape)


# ---- taking and moving -------------------------------------------------------------------------------


@traceable(np.take)
def np_take(a, indices, axis=None, out=None, mode: Any = "raise"):
    if out is not None:
        raise TypeError("out= cannot be traced here; assign the result instead")
    a, indices = coerce([a])[0], np.asarray(indices)
    if indices.dtype.kind not in "iu":
        raise TypeError("the indices of np.take are integers known when tracing; use np.interp for a table")
    return gathered(a, lambda places: np.take(places, indices, axis, mode=mode))


@traceable(np.roll)
def roll(a, shift, axis=None):
    a = coerce([a])[0]
    if axis is None:
        return reshape(roll(reshape(a, shape=(a.size,)), shift, 0), shape=a.shape)
    for s, axis_ in np.broadcast(np.asarray(sizes(shift)), np.asarray(sizes(axis))):
        axis_ = checked_axis(axis_, a.ndim)
        cut = -int(s) % a.shape[axis_] if a.shape[axis_] else 0
        if cut:
            a = np_concatenate([along(a, axis_, cut, None), along(a, axis_, 0, cut)], axis_)
    return a


@traceable(np.flip)
def flip(m, axis=None):
    m = coerce([m])[0]
    for axis_ in checked_axes(axis, m.ndim):
        m = flip_axis(m, axis_)
    return m


# ---- repeating -----------------------------------------------------------------------------------------


@traceable(np.tile)
def tile(A, reps):
    a, reps = coerce([A])[0], sizes(reps)
    ndim = max(a.ndim, len(reps))
    shape, reps = (1,) * (ndim - a.ndim) + a.shape, (1,) * (ndim - len(reps)) + reps
    repeated = tuple(n for pair in zip(reps, shape, strict=True) for n in pair)
    apart = reshape(a, shape=tuple(n for extent in shape for n in (1, extent)))
    return reshape(broadcast_to(apart, repeated), shape=tuple(r * n for r, n in zip(reps, shape, strict=True)))


@traceable(np.repeat)
def repeat(a, repeats, axis=None):
    a = coerce([a])[0]
    counts = np.asarray(repeats)
    if counts.dtype.kind not in "iu":
        raise TypeError("the counts of np.repeat are integers known when tracing; close over a Python int")
    return gathered(a, lambda places: np.repeat(places, counts, axis))


PADS = ("edge", "wrap", "reflect", "symmetric")


@traceable(np.pad)
def pad(array, pad_width, mode="constant", *, constant_values=0, reflect_type="even"):
    a = float_node(array)
    if mode in PADS and reflect_type == "even":
        return gathered(a, lambda places: np.pad(places, pad_width, mode=mode))
    if mode != "constant":
        raise ValueError(f"mode={mode!r} cannot be traced; use 'constant', {', '.join(map(repr, PADS))}")
    if isinstance(pad_width, dict):
        full = np.zeros((a.ndim, 2), int)
        for axis, width in pad_width.items():
            full[axis] = width
        pad_width = full
    widths = np.broadcast_to(np.asarray(pad_width), (a.ndim, 2))
    if widths.dtype.kind not in "iu":
        raise TypeError("the widths of np.pad are integers known when tracing; close over a Python int")
    values = broadcast_to(float_node(constant_values), (a.ndim, 2))
    for axis, (before, after) in enumerate(widths.tolist()):
        ends = []
        for side, count in enumerate((before, after)):
            value = slice_(values, starts=(axis, side), steps=(1, 1), shape=(1, 1))
            shape = tuple(count if d == axis else n for d, n in enumerate(a.shape))
            ends.append(broadcast_to(reshape(value, shape=(1,) * a.ndim), shape))
        a = np_concatenate([ends[0], a, ends[1]], axis)
    return a


# ---- differences -----------------------------------------------------------------------------------------


@traceable(np.diff)
def diff(a, n=1, axis=-1, prepend=None, append=None):
    a = float_node(a)
    axis = checked_axis(axis, a.ndim)
    pieces = [_end(prepend, a, axis), a, _end(append, a, axis)]
    a = np_concatenate([p for p in pieces if p is not None], axis)
    if n < 0:
        raise ValueError(f"the order of np.diff is {n}; it must not be negative")
    for _ in range(n):
        a = along(a, axis, 1, None) - along(a, axis, None, -1)
    return a


def _end(value, a, axis):
    if value is None:
        return None
    value = float_node(value)
    return value if value.ndim else broadcast_to(value, tuple(1 if d == axis else n for d, n in enumerate(a.shape)))


@traceable(np.gradient)
def gradient(f, *varargs, axis=None, edge_order=1):
    """Second-order central differences inside, one-sided of `edge_order` at the ends [numpy.gradient]."""
    f = float_node(f)
    axes = tuple(range(f.ndim)) if axis is None else tuple(checked_axis(a, f.ndim) for a in sizes(axis))
    if len(varargs) not in (0, 1, len(axes)):
        raise TypeError("np.gradient takes no spacing, one, or one for each axis")
    spacings = list(varargs) * len(axes) if len(varargs) == 1 else list(varargs) or [1.0] * len(axes)
    if edge_order not in (1, 2):
        raise ValueError("edge_order of np.gradient is 1 or 2")
    found = [_slope(f, float_node(h), d, edge_order) for h, d in zip(spacings, axes, strict=True)]
    return found[0] if len(found) == 1 else tuple(found)


def _slope(f, spacing, axis, edge_order):
    if f.shape[axis] < edge_order + 1:
        raise ValueError("np.gradient needs at least edge_order + 1 elements along each axis")
    gaps = _gaps(f, spacing, axis)
    part = lambda a, start, stop: along(a, axis, start, stop)
    left, right = part(gaps, None, -1), part(gaps, 1, None)
    first = (part(f, 1, 2) - part(f, 0, 1)) / part(gaps, 0, 1)
    last = (part(f, -1, None) - part(f, -2, -1)) / part(gaps, -1, None)
    if edge_order == 2:
        first, last = _parabola(f, gaps, axis, (0, 1, 2)), _parabola(f, gaps, axis, (-1, -2, -3))
    if f.shape[axis] == 2:
        return np_concatenate([first, last], axis)
    before, middle, after = part(f, None, -2), part(f, 1, -1), part(f, 2, None)
    if not spacing.ndim:
        inner = (after - before) / (left + right)
    else:
        inner = (
            -right / (left * (left + right)) * before
            + (right - left) / (left * right) * middle
            + left / (right * (left + right)) * after
        )
    return np_concatenate([first, inner, last], axis)


def _gaps(f, spacing, axis):
    """The distances between neighbours along an axis, in a shape that broadcasts against f."""
    count = f.shape[axis] - 1
    shape = tuple(count if d == axis else 1 for d in range(f.ndim))
    if spacing.ndim > 1 or (spacing.ndim and spacing.size != count + 1):
        raise ValueError("the coordinates of np.gradient are as many as the elements along the axis")
    gaps = diff(spacing) if spacing.ndim else broadcast_to(spacing, (count,))
    return broadcast_to(reshape(gaps, shape=shape), tuple(count if d == axis else n for d, n in enumerate(f.shape)))


def _parabola(f, gaps, axis, places):
    """The slope at the first of three neighbours of the parabola through them."""
    at = lambda a, place: along(a, axis, place, place + 1 or None)
    sign = 1.0 if places[0] == 0 else -1.0
    near, far = at(gaps, places[0]), at(gaps, places[1])
    f0, f1, f2 = (at(f, p) for p in places)
    slope = -(2.0 * near + far) / (near * (near + far)) * f0 + (near + far) / (near * far) * f1
    return sign * (slope - near / (far * (near + far)) * f2)


# ---- diagonals and triangles -------------------------------------------------------------------------------


@traceable(np.diagonal)
def diagonal(a, offset=0, axis1=0, axis2=1):
    return gathered(coerce([a])[0], lambda places: np.diagonal(places, offset, axis1, axis2))


@traceable(np.diag)
def diag(v, k=0):
    """A matrix with v on a diagonal, or the diagonal of a matrix."""
    v = float_node(v)
    if v.ndim == 2:
        return diagonal(v, k)
    if v.ndim != 1:
        raise ValueError("np.diag takes a vector or a matrix")
    n = v.size + abs(operator.index(k))
    places = np.arange(n * n).reshape(n, n).diagonal(k)
    return put_add(v, index=Data(np.ascontiguousarray(places, np.int64)), shape=(n, n))


@traceable(np.tril)
def tril(m, k=0):
    m = float_node(m)
    return _masked(m, _below(m, k))


@traceable(np.triu)
def triu(m, k=0):
    m = float_node(m)
    return _masked(m, ~_below(m, k - 1))


def _below(m, k):
    """Where the column is at most k beyond the row, over the last two axes."""
    rows, columns = (m.shape[-2], m.shape[-1]) if m.ndim > 1 else (m.size, m.size)
    return np.tri(rows, columns, k, dtype=bool)


def _masked(m, mask):
    shape = np.broadcast_shapes(m.shape, mask.shape)
    return where(coerce([np.broadcast_to(mask, shape)])[0], broadcast_to(m, shape), structural_zero(m.dtype, shape))
