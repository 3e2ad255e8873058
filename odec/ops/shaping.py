"""NumPy's functions that make and rearrange arrays, as compositions of the structural ops."""

from __future__ import annotations

import numpy as np

from odec.graph.node import Node, coerce
from odec.graph.op import traceable
from odec.graph.trace import Traced, unwrap
from odec.ops.comparison import as_bool
from odec.ops.families import as_float, broadcast_to
from odec.ops.structure import concatenate, reshape, transpose


@traceable(np.array, np.asarray, np.asanyarray, np.ascontiguousarray, np.copy)
def array(value, dtype=None, **_):
    """A node from a node or a nested list of nodes and numbers."""
    if isinstance(value, Node):
        return value
    if isinstance(value, np.ndarray) and value.dtype != object:
        return coerce([value])[0]
    if isinstance(value, np.ndarray):
        value = value.tolist()
    rows = [unwrap(v) for v in value] if isinstance(value, (list, tuple)) else [unwrap(value)]
    if not isinstance(value, (list, tuple)):
        return rows[0] if isinstance(rows[0], Node) else coerce(rows)[0]
    nodes = [as_float(n) for n in coerce([array(r) if isinstance(r, (list, tuple)) else r for r in rows])]
    shapes = {n.shape for n in nodes}
    if len(shapes) > 1:
        raise ValueError(f"rows of different shapes {sorted(shapes)} do not make an array")
    return np_stack(nodes)


@traceable(np.stack)
def np_stack(arrays, axis=0):
    nodes = [as_float(a) for a in coerce(list(arrays))]
    if len({n.shape for n in nodes}) > 1:
        raise ValueError("all input arrays must have the same shape")
    shape = nodes[0].shape
    axis = axis % (len(shape) + 1)
    widened = [reshape(n, shape=(*shape[:axis], 1, *shape[axis:])) for n in nodes]
    return concatenate(*widened, axis=axis)


@traceable(np.concatenate)
def np_concatenate(arrays, axis=0):
    nodes = [as_float(a) for a in coerce(list(arrays))]
    if axis is None:
        nodes, axis = [reshape(n, shape=(n.size,)) for n in nodes], 0
    axis = checked_axis(axis, nodes[0].ndim)
    others = {(*n.shape[:axis], *n.shape[axis + 1 :]) for n in nodes}
    if len(others) > 1 or len({n.ndim for n in nodes}) > 1:
        raise ValueError("all the input array dimensions except for the concatenation axis must match")
    nodes = [n for n in nodes if n.shape[axis]] or nodes[:1]
    return concatenate(*nodes, axis=axis)


def checked_axis(axis, ndim):
    if not -ndim <= axis < ndim:
        raise ValueError(f"axis {axis} is out of bounds for array of dimension {ndim}")
    return axis % ndim


@traceable(np.reshape)
def np_reshape(a, shape, order="C", copy=None):
    if order != "C":
        raise ValueError("only order='C' can be traced; transpose first")
    shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(int(n) for n in shape)
    known = int(np.prod([n for n in shape if n >= 0], dtype=int))
    if shape.count(-1) == 1 and known:
        shape = tuple(a.size // known if n == -1 else n for n in shape)
    if int(np.prod(shape, dtype=int)) != a.size:
        raise ValueError(f"cannot reshape array of size {a.size} into shape {shape}")
    return reshape(a, shape=shape)


@traceable(np.transpose)
def np_transpose(a, axes=None):
    axes = tuple(reversed(range(a.ndim))) if axes is None else tuple(checked_axis(x, a.ndim) for x in axes)
    return transpose(a, axes=axes)


@traceable(np.broadcast_to)
def np_broadcast_to(a, shape):
    return broadcast_to(coerce([a])[0], (shape,) if isinstance(shape, int) else tuple(shape))


@traceable(np.zeros_like, np.empty_like)
def zeros_like(a, dtype=None, order="K", subok=True, shape=None):
    """Zeros; np.empty_like too, for an element never written is then no random number."""
    return full_like(a, 0.0, shape=shape)


@traceable(np.ones_like)
def ones_like(a, dtype=None, order="K", subok=True, shape=None):
    return full_like(a, 1.0, shape=shape)


@traceable(np.full_like)
def full_like(a, fill_value, dtype=None, order="K", subok=True, shape=None):
    a = as_float(coerce([a])[0])
    shape = a.shape if shape is None else tuple(np.atleast_1d(shape))
    return broadcast_to(coerce([fill_value], a.dtype)[0], shape)


@traceable(Traced.astype)
def astype(a, to_bool):
    return as_bool(a) if to_bool else as_float(a)


