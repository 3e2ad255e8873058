"""x[index] and x[index] = value on traced arrays, with NumPy's meaning."""

from __future__ import annotations

import operator

import numpy as np

from odec.graph.node import Data, Node, coerce
from odec.graph.op import traceable
from odec.ops.comparison import where
from odec.ops.families import as_float, broadcast_to
from odec.ops.structure import put_add, reshape, slice_, take, update


def _expanded(index, ndim):
    """The index as a tuple with one item per axis (None items apart), Ellipsis written out."""
    items = index if isinstance(index, tuple) else (index,)
    items = tuple(np.asarray(i) if isinstance(i, (list, range)) else i for i in items)
    taken = sum(i is not None and i is not Ellipsis and _axes_of(i) for i in items)
    if taken > ndim:
        raise IndexError(f"too many indices: {taken} for {ndim} axes")
    rest = (slice(None),) * (ndim - taken)
    for k, item in enumerate(items):
        if item is Ellipsis:
            return (*items[:k], *rest, *items[k + 1 :])
    return items + rest


def _axes_of(item):
    """How many axes of the array an index item uses up."""
    return item.ndim if isinstance(item, np.ndarray) and item.dtype == bool else 1


def _is_basic(items):
    return all(i is None or (isinstance(i, (slice, int, np.integer)) and not isinstance(i, bool)) for i in items)


def _ranges(items, shape):
    """starts, steps and lengths along each axis of a basic index, and the shape of the result."""
    starts, steps, lengths, result = [], [], [], []
    axes = iter(enumerate(shape))
    for item in items:
        if item is None:
            result.append(1)
            continue
        axis, extent = next(axes)
        if isinstance(item, slice):
            start, stop, step = item.indices(extent)
            length = len(range(start, stop, step))
            result.append(length)
        else:
            if not -extent <= item < extent:
                raise IndexError(f"index {item} is out of bounds for axis {axis} with size {extent}")
            start, step, length = int(item) % extent, 1, 1
        starts.append(start if length else 0)
        steps.append(step)
        lengths.append(length)
    return starts, steps, tuple(lengths), tuple(result)


@traceable(operator.getitem)
def getitem(x, index):
    """x[index]: a slice for a basic index, a table of elements for integer arrays and static masks."""
    items = _expanded(index, x.ndim)
    if not _is_basic(items):
        return take(x, index=_places(x.shape, items))
    starts, steps, lengths, shape = _ranges(items, x.shape)
    return reshape(slice_(x, starts=starts, steps=steps, shape=lengths), shape=shape)


def _places(shape, items):
    """Flat positions of the elements that an advanced index takes: NumPy itself says."""
    size = int(np.prod(shape, dtype=int))
    return np.arange(size).reshape(shape)[items]


@traceable(operator.setitem)
def setitem(x, index, value):
    """x with x[index] = value done: a new node."""
    value = as_float(coerce([value], x.dtype)[0])
    if isinstance(index, Node):  # a traced mask: every element is assigned or kept
        if value.ndim and value.shape != x.shape:
            raise ValueError("a traced mask takes a number or an array of the whole shape on the right; use np.where")
        return where(broadcast_mask(index, x), value, x)
    items = _expanded(index, x.ndim)
    if _is_basic(items):
        starts, steps, lengths, shape = _ranges(items, x.shape)
        value = reshape(_fitted(value, shape), shape=lengths)
        return update(x, value, starts=tuple(starts), steps=tuple(steps)) if value.size else x
    places = _places(x.shape, items)
    value = _fitted(value, places.shape)
    keep = np.ones(x.shape)
    keep.reshape(-1)[places.reshape(-1)] = 0.0
    last = _last_writers(places)
    written = put_add(take(value, index=last), index=Data(places.reshape(-1)[last]), shape=x.shape)
    return where(keep.astype(bool), x, written)


@traceable(np.add.at)
def add_at(x, index, value):
    """x after np.add.at(x, index, value): values that meet in one element are all added."""
    value = as_float(coerce([value], x.dtype)[0])
    places = _places(x.shape, _expanded(index, x.ndim))
    value = _fitted(value, np.shape(places))
    return x + put_add(value, index=Data(np.ascontiguousarray(places, np.int64)), shape=x.shape)


@traceable(np.subtract.at)
def subtract_at(x, index, value):
    """As add_at, with the values taken off."""
    return add_at(x, index, -as_float(coerce([value], x.dtype)[0]))


def _last_writers(places):
    """Of several writes to one element, the last one counts, as in NumPy."""
    flat = places.reshape(-1)
    _, first_from_end = np.unique(flat[::-1], return_index=True)
    return np.sort(flat.size - 1 - first_from_end)


def broadcast_mask(mask, x):
    if mask.shape == x.shape[: mask.ndim]:
        return broadcast_to(reshape(mask, shape=mask.shape + (1,) * (x.ndim - mask.ndim)), x.shape)
    raise IndexError(f"a mask of shape {mask.shape} does not fit an array of shape {x.shape}")


def _fitted(value, shape):
    """The right-hand side of an assignment, broadcast to what it is assigned to."""
    extra = value.ndim - len(shape)
    if extra > 0 and all(n == 1 for n in value.shape[:extra]):
        value = reshape(value, shape=value.shape[extra:])
    fits = all(n in (1, m) for n, m in zip(value.shape[::-1], shape[::-1], strict=False))
    if value.ndim > len(shape) or not fits:
        raise ValueError(f"could not broadcast shape {value.shape} into {tuple(shape)}")
    return broadcast_to(value, shape)
