"""Rearranging elements: reshape, transpose, broadcast, slice, take, concatenate, update."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from odec.graph.node import Data, coerce, intern, is_structural_zero, make, spread, structural_zero
from odec.graph.op import OPS
from odec.ops.families import REAL, every_input, linear

# ---- views: each output element is one input element, at an affine index -----------------------------


class IndexMap(NamedTuple):
    """How array code reads a view: `index(node, maps, i)` is where the element at index i comes from.

    `i` is a tuple of affine indices; `maps` (codegen.index_maps.IndexMaps) makes new ones.
    """

    index: Callable


def view(name, doc, *, shape, evaluate, transpose, index, build=None, simplify=None):
    """A linear op that moves no data."""
    return linear(name, doc, shape=shape, evaluate=evaluate, transpose=transpose, build=build, simplify=simplify,
                  lower=IndexMap(index))  # fmt: skip


def _rearranged(op, x, to_shape, **params):
    """op(x, **params), or for a constant that is one number everywhere, that number in `to_shape`."""
    constant_ = spread(x, to_shape)
    return make(op, [x], **params) if constant_ is None else constant_


def _simplify_reshape(inputs, params):
    (x,), shape = inputs, params["shape"]
    if x.shape == shape:
        return x
    return reshape(x.inputs[0], shape=shape) if x.op.name == "reshape" else None


def _build_reshape(op, x, shape):
    shape = tuple(shape)
    return _rearranged(op, x, shape, shape=shape)


reshape = view(
    "reshape", "the same elements in row-major order", shape=lambda s, shape: shape, build=_build_reshape,
    evaluate=lambda x, shape: np.reshape(x, shape), transpose=lambda n, g: (reshape(g, shape=n.inputs[0].shape),),
    index=lambda node, b, i: b.reshaped(i, node.shape, node.inputs[0].shape), simplify=_simplify_reshape,
)  # fmt: skip


def _simplify_transpose(inputs, params):
    (x,), axes = inputs, params["axes"]
    if axes == tuple(range(len(axes))):
        return x
    if x.op.name == "transpose":
        return transpose(x.inputs[0], axes=tuple(x.params["axes"][a] for a in axes))
    return None


def _transpose_index(node, b, i):
    axes = node.params["axes"]
    return tuple(i[axes.index(d)] for d in range(len(axes)))


transpose = view(
    "transpose", "axes in another order", shape=lambda s, axes: tuple(s[a] for a in axes),
    evaluate=lambda x, axes: np.transpose(x, axes), index=_transpose_index, simplify=_simplify_transpose,
    build=lambda op, x, axes: _rearranged(op, x, tuple(x.shape[a] for a in axes), axes=tuple(axes)),
    transpose=lambda node, g: (transpose(g, axes=tuple(int(a) for a in np.argsort(node.params["axes"]))),),
)  # fmt: skip


def _broadcast_transpose(node, g):
    """The cotangent summed over the axes along which the input was repeated."""
    source = node.inputs[0].shape
    extra = len(node.shape) - len(source)
    axes = tuple(range(extra)) + tuple(extra + d for d, n in enumerate(source) if n == 1 and node.shape[extra + d] != 1)
    summed = OPS["sum"](g, axes=axes) if axes else g
    return (reshape(summed, shape=source),)


def _broadcast_index(node, b, i):
    source = node.inputs[0].shape
    return tuple(b.zero if n == 1 else j for j, n in zip(i[len(i) - len(source) :], source, strict=True))


broadcast = view(
    "broadcast", "repeated along new axes and axes of length 1", shape=lambda s, shape: shape,
    evaluate=lambda x, shape: np.broadcast_to(x, shape), transpose=_broadcast_transpose, index=_broadcast_index,
    build=lambda op, x, shape: _rearranged(op, x, shape, shape=tuple(shape)),
    simplify=lambda i, p: i[0] if i[0].shape == p["shape"] else None,
)  # fmt: skip


def slices(starts, steps, shape):
    """The NumPy index of a slice op; a negative step may run down to and past index 0."""
    return tuple(
        slice(a, (stop if (stop := a + s * n) >= 0 else None), s) for a, s, n in zip(starts, steps, shape, strict=True)
    )


def _slice_index(node, b, i):
    starts, steps = node.params["starts"], node.params["steps"]
    return tuple(b.affine(j, step, start) for j, start, step in zip(i, starts, steps, strict=True))


def _simplify_slice(inputs, params):
    (x,) = inputs
    starts, steps, shape = params["starts"], params["steps"], params["shape"]
    if x.shape == shape and all(s == 1 for s in steps):
        return x
    if x.op.name == "slice":
        inner = x.params
        return slice_(
            x.inputs[0], shape=shape,
            starts=tuple(a + s * b for a, s, b in zip(inner["starts"], inner["steps"], starts, strict=True)),
            steps=tuple(s * t for s, t in zip(inner["steps"], steps, strict=True)),
        )  # fmt: skip
    return _slice_of_concatenate(x, starts, steps, shape) if x.op.name == "concatenate" else None


def _slice_of_concatenate(x, starts, steps, shape):
    """A slice that lies in one piece of a concatenation is a slice of that piece."""
    axis = x.params["axis"]
    first, last = starts[axis], starts[axis] + steps[axis] * (shape[axis] - 1)
    offset = 0
    for piece in x.inputs:
        extent = piece.shape[axis]
        if offset <= min(first, last) and max(first, last) < offset + extent:
            moved = tuple(a - offset if d == axis else a for d, a in enumerate(starts))
            return slice_(piece, starts=moved, steps=steps, shape=shape)
        offset += extent
    return None


def _slice_transpose(node, g):
    source = node.inputs[0]
    blank = structural_zero(source.dtype, source.shape)
    return (update(blank, g, starts=node.params["starts"], steps=node.params["steps"]),)


slice_ = view(
    "slice", "elements start + step * i along each axis", shape=lambda s, starts, steps, shape: shape,
    evaluate=lambda x, starts, steps, shape: x[slices(starts, steps, shape)], transpose=_slice_transpose,
    index=_slice_index, simplify=_simplify_slice,
    build=lambda op, x, starts, steps, shape: _rearranged(
        op, x, shape, starts=tuple(starts), steps=tuple(steps), shape=tuple(shape)
    ),
)  # fmt: skip


# ---- assembling: several inputs write to parts of one output -----------------------------------------


def _join_shape(*shapes, axis):
    total = sum(s[axis] for s in shapes)
    return (*shapes[0][:axis], total, *shapes[0][axis + 1 :])


def _split(node, g):
    axis, offset, parts = node.params["axis"], 0, []
    for i in node.inputs:
        starts = tuple(offset if d == axis else 0 for d in range(len(node.shape)))
        parts.append(slice_(g, starts=starts, steps=(1,) * len(starts), shape=i.shape))
        offset += i.shape[axis]
    return tuple(parts)


def _simplify_concatenate(inputs, params):
    """Slices that lie side by side in one array, put together again."""
    axis = params["axis"]
    if len(inputs) == 1:
        return inputs[0]
    if all(map(is_structural_zero, inputs)):
        return structural_zero(inputs[0].dtype, _join_shape(*(i.shape for i in inputs), axis=axis))
    first = inputs[0]
    if any(i.op is not slice_ or i.inputs[0] is not first.inputs[0] for i in inputs):
        return None
    source = first.inputs[0]
    starts, steps = list(first.params["starts"]), list(first.params["steps"])
    place = [i.params["starts"][axis] for i in inputs]
    if any(i.shape[axis] != 1 and i.params["steps"][axis] != 1 for i in inputs):
        return None
    expected = starts[axis]
    for i, at in zip(inputs, place, strict=True):
        same = all(i.params["starts"][d] == starts[d] and (i.params["steps"][d] == steps[d] or i.shape[d] == 1)
                   and i.shape[d] == first.shape[d] for d in range(first.ndim) if d != axis)  # fmt: skip
        if at != expected or not same:
            return None
        expected = at + i.shape[axis]
    steps[axis] = 1
    return slice_(
        source, starts=tuple(starts), steps=tuple(steps), shape=_join_shape(*(i.shape for i in inputs), axis=axis)
    )


concatenate = linear(
    "concatenate", "arrays one after another along an axis", shape=_join_shape, transpose=_split,
    evaluate=lambda *arrays, axis: np.concatenate(arrays, axis),
    lower=lambda lowering, node: lowering.concatenate(node), simplify=_simplify_concatenate, domain=(REAL, REAL),
)  # fmt: skip


def _np_update(base, value, starts, steps):
    result = np.array(base)
    result[slices(starts, steps, np.shape(value))] = value
    return result


def _update_transpose(node, g):
    _, value = node.inputs
    starts, steps = node.params["starts"], node.params["steps"]
    blank = structural_zero(node.dtype, value.shape)
    return (
        update(g, blank, starts=starts, steps=steps),
        slice_(g, starts=starts, steps=steps, shape=value.shape),
    )


def _simplify_update(inputs, params):
    base, value = inputs
    whole = value.shape == base.shape and all(s == 1 for s in params["steps"])
    if whole:
        return value
    if is_structural_zero(base) and is_structural_zero(value):
        return base
    covered = base.op is update and base.params == params and base.inputs[1].shape == value.shape
    return make(update, [base.inputs[0], value], **params) if covered else None


update = linear(
    "update", "base with the elements of a slice replaced", shape=lambda base, value, starts, steps: base,
    evaluate=_np_update, transpose=_update_transpose, lower=lambda lowering, node: lowering.update(node),
    simplify=_simplify_update, domain=(REAL, REAL),
)  # fmt: skip


# ---- tables of indices --------------------------------------------------------------------------------


def _take_index(node, b, i):
    return b.table(node.params["index"].array, i, node.inputs[0].shape)


def _simplify_take(inputs, params):
    """Indices in arithmetic progression are a slice of the flat input."""
    (x,), index = inputs, params["index"].array
    flat = index.ravel()
    if flat.size == 1:
        step = 1
    elif flat.size > 1 and np.all(np.diff(flat) == flat[1] - flat[0]) and flat[1] != flat[0]:
        step = int(flat[1] - flat[0])
    else:
        return None
    line = slice_(reshape(x, shape=(x.size,)), starts=(int(flat[0]),), steps=(step,), shape=flat.shape)
    return reshape(line, shape=index.shape)


take = view(
    "take", "elements of the flattened input at a table of indices", shape=lambda s, index: index.array.shape,
    evaluate=lambda x, index: np.reshape(x, -1)[index.array], index=_take_index, simplify=_simplify_take,
    build=lambda op, x, index: _rearranged(op, x, _table(index).array.shape, index=_table(index)),
    transpose=lambda n, g: (put_add(g, index=n.params["index"], shape=n.inputs[0].shape),),
)  # fmt: skip


def _table(index):
    return index if isinstance(index, Data) else Data(np.asarray(index, np.int64))


def _np_put_add(x, index, shape):
    result = np.zeros(math.prod(shape), x.dtype)
    if x.dtype != object:
        np.add.at(result, index.array.ravel(), x.ravel())
        return result.reshape(shape)
    for place, value in zip(index.array.ravel(), x.ravel(), strict=True):
        result[place] = value if isinstance(result[place], int) else result[place] + value
    dtype = next(v.dtype for v in x.flat)
    result[[isinstance(v, int) for v in result]] = structural_zero(dtype)
    return result.reshape(shape)


def _lower_put_add(lowering, node):
    lowering.scatter_add(node, node.inputs[0], node.params["index"].array)


def _put_add_reach(node, masks):
    result = np.full(node.size, 0, object)
    for place, mask in zip(node.params["index"].array.ravel(), masks[0].ravel(), strict=True):
        result[place] |= mask
    return result.reshape(node.shape)


put_add = linear(
    "put_add", "elements added into zeros at a table of indices", shape=lambda s, index, shape: shape,
    evaluate=_np_put_add, reach=_put_add_reach, cost=every_input, lower=_lower_put_add,
    transpose=lambda n, g: (take(g, index=n.params["index"]),),
)  # fmt: skip


# ---- scalars in and out -----------------------------------------------------------------------------------


def row(x, k):
    """The k-th row (n,) of (rows, n)."""
    n = x.shape[1]
    return reshape(slice_(x, starts=(k, 0), steps=(1, 1), shape=(1, n)), shape=(n,))


def element(x, place):
    """The scalar at flat position `place` of an input: where a scalar graph begins."""
    return intern(take, [x], {"index": _element_table(place)}, (), x.dtype)


_element_tables: dict[int, Data] = {}


def _element_table(place):
    table = _element_tables.get(place)
    if table is None:
        table = _element_tables[place] = Data(np.asarray(place, np.int64))
    return table


def stack(nodes, shape):
    """Scalar nodes as an array of a shape: where a scalar graph ends."""
    nodes = coerce(nodes)
    joined = concatenate(*(reshape(n, shape=(1,)) for n in nodes), axis=0)
    return reshape(joined, shape=shape)
