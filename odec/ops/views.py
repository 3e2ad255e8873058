"""NumPy's functions that return views, on traced arrays: an assignment to the result reaches the base
where NumPy's result shares memory with it, and stays in a copy where it does not."""

from __future__ import annotations

import numpy as np

from odec.graph.trace import TracedArray, shared, viewing, wrap
from odec.ops import rearranging, shaping
from odec.ops.reduction import checked_axes, checked_axis
from odec.ops.structure import reshape


def _reshaped(handle, look, there, order="C"):
    """A view that keeps all elements in their order."""
    return shared(handle, look, there, lambda base, new: shaping.np_reshape(new, base.shape, order))


def _permuted(handle, axes):
    """A view with the axes in another order."""
    axes = tuple(axes)
    there = lambda node: shaping.np_transpose(node, axes)
    inverse = tuple(int(a) for a in np.argsort(axes))
    return shared(handle, lambda m: m.transpose(axes), there, lambda base, new: shaping.np_transpose(new, inverse))


def _read_only(handle, look, there):
    view = shared(handle, look, there, None)
    if isinstance(view, TracedArray):
        view._frozen = (
            "assigns into a view that is read-only in NumPy too. Assign into the array itself, or into a copy."
        )
    return view


# ---- the same elements in another shape ----------------------------------------------------------------


@viewing(np.reshape)
def np_reshape(a, shape, order="C", copy=None):
    there = lambda node: shaping.np_reshape(node, shape, order)
    result = there(a.node)
    return wrap(result) if copy else _reshaped(a, lambda m: m.reshape(result.shape, order=order), there, order)


@viewing(np.ravel)
def ravel(a, order="C"):
    return _reshaped(a, lambda m: m.ravel(order), lambda node: shaping.ravel(node, order), order)


@viewing(np.expand_dims)
def expand_dims(a, axis):
    return _reshaped(a, lambda m: np.expand_dims(m, axis), lambda node: shaping.expand_dims(node, axis))


@viewing(np.squeeze)
def squeeze(a, axis=None):
    return _reshaped(a, lambda m: np.squeeze(m, axis), lambda node: shaping.squeeze(node, axis))


def _at_least(ndim, function):
    def widen(*arrays):
        if len(arrays) > 1:
            return tuple(
                widen(a) if isinstance(a, TracedArray) else wrap(function(getattr(a, "node", a))) for a in arrays
            )
        a = next(iter(arrays))
        if a.ndim >= ndim:
            return a
        shape = shaping.at_least_shape(a.shape, ndim)
        return _reshaped(a, lambda m: m.reshape(shape), lambda node: reshape(node, shape=shape))

    return widen


viewing(np.atleast_1d)(_at_least(1, shaping.atleast_1d))
viewing(np.atleast_2d)(_at_least(2, shaping.atleast_2d))
viewing(np.atleast_3d)(_at_least(3, shaping.atleast_3d))

# ---- axes in another order ---------------------------------------------------------------------------


@viewing(np.transpose)
def transpose(a, axes=None):
    return _permuted(a, tuple(reversed(range(a.ndim))) if axes is None else shaping.permutation(axes, a.ndim))


@viewing(np.swapaxes)
def swapaxes(a, axis1, axis2):
    return _permuted(a, shaping.swapped_axes(a.ndim, axis1, axis2))


@viewing(np.moveaxis)
def moveaxis(a, source, destination):
    return _permuted(a, shaping.moved_axes(a.ndim, source, destination))


# ---- parts --------------------------------------------------------------------------------------------


@viewing(np.flip)
def flip(m, axis=None):
    axes = checked_axes(axis, m.ndim)
    return m[tuple(slice(None, None, -1) if d in axes else slice(None) for d in range(m.ndim))]


def _splitting(even):
    def split(ary, indices_or_sections, axis=0):
        axis = checked_axis(axis, ary.ndim)
        parts = shaping.split_slices(ary.shape[axis], indices_or_sections, even)
        return [ary[(slice(None),) * axis + (part,)] for part in parts]

    return split


viewing(np.split)(_splitting(True))
viewing(np.array_split)(_splitting(False))


@viewing(np.diagonal)
def np_diagonal(a, offset=0, axis1=0, axis2=1):
    look = lambda m: np.diagonal(m, offset, axis1, axis2)
    return _read_only(a, look, lambda node: rearranging.diagonal(node, offset, axis1, axis2))


@viewing(np.diag)
def diag(v, k=0):
    return np_diagonal(v, k) if v.ndim == 2 else wrap(rearranging.diag(v.node, k))


@viewing(np.broadcast_to)
def broadcast_to(array, shape, subok=False):
    there = lambda node: shaping.np_broadcast_to(node, shape)
    result = there(array.node)
    return _read_only(array, lambda m: np.broadcast_to(m, result.shape), there)
