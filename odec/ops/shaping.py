"""NumPy's functions that make, reshape, join and split arrays, as compositions of the structural ops."""

from __future__ import annotations

import itertools
import operator

import numpy as np

from odec.graph.node import Node, coerce
from odec.graph.op import OPS, traceable
from odec.graph.trace import Traced, unwrap
from odec.ops.comparison import as_bool
from odec.ops.families import as_float, broadcast_to, check_real, float_node, float_nodes
from odec.ops.reduction import checked_axes, checked_axis
from odec.ops.structure import concatenate, reshape, slice_, transpose

# ---- arrays from values --------------------------------------------------------------------------


@traceable(np.array, np.asarray, np.asanyarray, np.ascontiguousarray, np.copy)
def array(value, dtype=None, **_):
    """A node from a node or a nested list of nodes and numbers."""
    check_real(dtype)
    if isinstance(value, Node):
        return value
    if isinstance(value, np.ndarray) and value.dtype != object:
        return coerce([value])[0]
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, (list, tuple)):
        value = unwrap(value)
        return value if isinstance(value, Node) else coerce([value])[0]
    rows = [unwrap(v) for v in value]
    nodes = float_nodes(*[array(r) if isinstance(r, (list, tuple)) else r for r in rows])
    shapes = {n.shape for n in nodes}
    if len(shapes) > 1:
        raise ValueError(f"rows of different shapes {sorted(shapes)} do not make an array")
    return np_stack(nodes) if nodes else coerce([np.zeros(0)])[0]


@traceable(Traced.astype)
def astype(a, dtype):
    """A node as truth values ('bool') or as numbers of a precision."""
    return as_bool(a) if dtype == "bool" else OPS["cast"](as_float(a), dtype=dtype)


@traceable(np.zeros_like, np.empty_like)
def zeros_like(a, dtype=None, order="K", subok=True, shape=None):
    """Zeros; np.empty_like too, for an element never written is then no random number."""
    return full_like(a, 0.0, dtype, shape=shape)


@traceable(np.ones_like)
def ones_like(a, dtype=None, order="K", subok=True, shape=None):
    return full_like(a, 1.0, dtype, shape=shape)


@traceable(np.full_like)
def full_like(a, fill_value, dtype=None, order="K", subok=True, shape=None):
    check_real(dtype)
    a = float_node(a)
    shape = a.shape if shape is None else sizes(shape)
    return broadcast_to(as_float(coerce([fill_value], a.dtype)[0]), shape)


def sizes(shape):
    """A shape as a tuple of ints."""
    if isinstance(shape, (tuple, list)):
        return tuple(operator.index(n) for n in shape)
    return (operator.index(shape),)


@traceable(np.shape)
def np_shape(a):
    return float_node(a).shape


@traceable(np.ndim)
def np_ndim(a):
    return float_node(a).ndim


@traceable(np.size)
def np_size(a, axis=None):
    a = float_node(a)
    return int(np.prod([a.shape[d] for d in checked_axes(axis, a.ndim)], dtype=int))


# ---- the same elements in another shape ----------------------------------------------------------------


@traceable(np.reshape)
def np_reshape(a, shape, order="C", copy=None):
    a, shape = coerce([a])[0], sizes(shape)
    if order not in ("C", "F"):
        raise ValueError(f"order={order!r} cannot be traced; use order='C' or 'F'")
    known = int(np.prod([n for n in shape if n >= 0], dtype=int))
    if shape.count(-1) == 1 and known:
        shape = tuple(a.size // known if n == -1 else n for n in shape)
    if min(shape, default=0) < 0 or int(np.prod(shape, dtype=int)) != a.size:
        raise ValueError(f"cannot reshape array of size {a.size} into shape {shape}")
    if order == "F":
        return np_transpose(reshape(np_transpose(a), shape=shape[::-1]))
    return reshape(a, shape=shape)


@traceable(np.ravel)
def ravel(a, order="C"):
    return np_reshape(a, (-1,), order) if coerce([a])[0].size else reshape(coerce([a])[0], shape=(0,))


@traceable(np.transpose)
def np_transpose(a, axes=None):
    a = coerce([a])[0]
    return transpose(a, axes=tuple(reversed(range(a.ndim))) if axes is None else permutation(axes, a.ndim))


def permutation(axes, ndim):
    """The axes of np.transpose, counted from the front; ValueError unless each is there once."""
    found = tuple(checked_axis(a, ndim) for a in axes)
    if sorted(found) != list(range(ndim)):
        raise ValueError(f"axes {tuple(axes)} do not match an array of {ndim} axes")
    return found


@traceable(np.swapaxes)
def swapaxes(a, axis1, axis2):
    return np_transpose(a, swapped_axes(coerce([a])[0].ndim, axis1, axis2))


def swapped_axes(ndim, axis1, axis2):
    order = list(range(ndim))
    first, second = checked_axis(axis1, ndim), checked_axis(axis2, ndim)
    order[first], order[second] = second, first
    return order


@traceable(np.moveaxis)
def moveaxis(a, source, destination):
    return np_transpose(a, moved_axes(coerce([a])[0].ndim, source, destination))


def moved_axes(ndim, source, destination):
    source = [checked_axis(a, ndim) for a in sizes(source)]
    destination = [checked_axis(a, ndim) for a in sizes(destination)]
    if len(source) != len(destination) or len(set(source)) < len(source) or len(set(destination)) < len(destination):
        raise ValueError("source and destination of moveaxis must be equally many, and each axis given once")
    order = [d for d in range(ndim) if d not in source]
    for to, which in sorted(zip(destination, source, strict=True)):
        order.insert(to, which)
    return order


@traceable(np.expand_dims)
def expand_dims(a, axis):
    a = coerce([a])[0]
    axes = checked_axes(axis, a.ndim + len(sizes(axis)))
    extents = iter(a.shape)
    return reshape(a, shape=tuple(1 if d in axes else next(extents) for d in range(a.ndim + len(axes))))


@traceable(np.squeeze)
def squeeze(a, axis=None):
    a = coerce([a])[0]
    axes = tuple(d for d, n in enumerate(a.shape) if n == 1) if axis is None else checked_axes(axis, a.ndim)
    if any(a.shape[d] != 1 for d in axes):
        raise ValueError("cannot select an axis to squeeze out which has size not equal to one")
    return reshape(a, shape=tuple(n for d, n in enumerate(a.shape) if d not in axes))


def _at_least(ndim):
    def widen(*arrays):
        found = [coerce([a])[0] for a in arrays]
        wide = [reshape(a, shape=at_least_shape(a.shape, ndim)) for a in found]
        return wide[0] if len(wide) == 1 else tuple(wide)

    return widen


def at_least_shape(shape, ndim):
    """The shape that np.atleast_1d, 2d and 3d give to an array."""
    if ndim == 3 and len(shape) in (1, 2):
        return (1, *shape, 1) if len(shape) == 1 else (*shape, 1)
    return (1,) * (ndim - len(shape)) + tuple(shape)


atleast_1d = traceable(np.atleast_1d)(_at_least(1))
atleast_2d = traceable(np.atleast_2d)(_at_least(2))
atleast_3d = traceable(np.atleast_3d)(_at_least(3))


@traceable(np.broadcast_to)
def np_broadcast_to(array, shape, subok=False):
    a, shape = coerce([array])[0], sizes(shape)
    if np.broadcast_shapes(a.shape, shape) != shape:
        raise ValueError(f"shape {a.shape} cannot be broadcast to {shape}")
    return broadcast_to(a, shape)


# ---- joining ---------------------------------------------------------------------------------------------


def _checked_join(dtype, out):
    check_real(dtype)
    if out is not None:
        raise TypeError("out= cannot be traced here; assign the result instead")


def parts(arrays):
    """The float nodes of the arrays to be joined."""
    nodes = float_nodes(*arrays)
    if not nodes:
        raise ValueError("need at least one array to join")
    return nodes


@traceable(np.stack)
def np_stack(arrays, axis=0, out=None, *, dtype=None, casting="same_kind"):
    _checked_join(dtype, out)
    nodes = parts(arrays)
    if len({n.shape for n in nodes}) > 1:
        raise ValueError("all input arrays must have the same shape")
    shape = nodes[0].shape
    axis = checked_axis(axis, len(shape) + 1)
    widened = [reshape(n, shape=(*shape[:axis], 1, *shape[axis:])) for n in nodes]
    if len({id(n) for n in nodes}) == 1:  # as np.full makes of a traced number
        return broadcast_to(widened[0], (*shape[:axis], len(nodes), *shape[axis:]))
    return concatenate(*widened, axis=axis)


@traceable(np.concatenate)
def np_concatenate(arrays, axis: int | None = 0, out=None, *, dtype=None, casting="same_kind"):
    _checked_join(dtype, out)
    nodes = parts(arrays)
    if axis is None:
        nodes, axis = [reshape(n, shape=(n.size,)) for n in nodes], 0
    axis = checked_axis(axis, nodes[0].ndim)
    others = {(*n.shape[:axis], *n.shape[axis + 1 :]) for n in nodes}
    if len(others) > 1 or len({n.ndim for n in nodes}) > 1:
        raise ValueError("all the input array dimensions except for the concatenation axis must match")
    nodes = [n for n in nodes if n.shape[axis]] or nodes[:1]
    return concatenate(*nodes, axis=axis)


@traceable(np.vstack)
def vstack(tup, *, dtype=None, casting="same_kind"):
    return np_concatenate([atleast_2d(a) for a in parts(tup)], 0, dtype=dtype)


@traceable(np.hstack)
def hstack(tup, *, dtype=None, casting="same_kind"):
    nodes = parts(tup)
    rows = [atleast_1d(a) for a in nodes]
    return np_concatenate(rows, 0 if nodes[0].ndim < 2 else 1, dtype=dtype)


@traceable(np.dstack)
def dstack(tup):
    return np_concatenate([atleast_3d(a) for a in parts(tup)], 2)


@traceable(np.column_stack)
def column_stack(tup):
    columns = [reshape(a, shape=(a.size, 1)) if a.ndim < 2 else a for a in parts(tup)]
    return np_concatenate(columns, 1)


@traceable(np.append)
def append(arr, values, axis=None):
    return np_concatenate([arr, values], axis)


# ---- splitting -------------------------------------------------------------------------------------------


def split_slices(extent, sections, even):
    """The slices along an axis that np.split and np.array_split make."""
    if isinstance(sections, (list, tuple, np.ndarray)):
        edges = [None, *map(operator.index, sections), None]
        return [slice(a, b) for a, b in itertools.pairwise(edges)]
    count = operator.index(sections)
    if count <= 0 or (even and extent % count):
        raise ValueError(f"an axis of length {extent} does not split into {count} equal parts; use np.array_split")
    small, larger = divmod(extent, count)
    edges = np.cumsum([0] + [small + 1] * larger + [small] * (count - larger))
    return [slice(int(a), int(b)) for a, b in itertools.pairwise(edges)]


def _splitting(even):
    def split(ary, indices_or_sections, axis=0):
        a = coerce([ary])[0]
        axis = checked_axis(axis, a.ndim)
        return [_part(a, axis, s) for s in split_slices(a.shape[axis], indices_or_sections, even)]

    return split


def _part(a, axis, part):
    start, stop, _ = part.indices(a.shape[axis])
    starts = tuple(start if d == axis else 0 for d in range(a.ndim))
    shape = tuple(max(stop - start, 0) if d == axis else n for d, n in enumerate(a.shape))
    return slice_(a, starts=starts, steps=(1,) * a.ndim, shape=shape)


np_split = traceable(np.split)(_splitting(True))
array_split = traceable(np.array_split)(_splitting(False))
